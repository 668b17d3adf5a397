//! Requests to language models, told by their tokens. All are one app's.

use std::io::Read;
use std::time::Duration;

use glowplug_core::request::Mode;
use serde::Deserialize;

use super::super::error::{Error, Fault};
use super::super::lines::Lines;
use super::super::open::Peeked;
use super::super::options::{Options, TokenTimes, Unit};
use super::apps::Apps;
use super::table::Table;
use super::text::{Clock, Length, length_of};
use super::{LeftOut, Row, Rows};

/// What the app is called when nothing else is said.
const NAME: &str = "trace/llm";
/// Of one request, in or out: no context is as long.
const TOKENS_MAX: u32 = 1_000_000_000;

impl TokenTimes {
    fn service(&self, context: u32, generated: u32) -> Duration {
        self.prefill * context + self.decode * generated
    }
}

fn one_app(options: &Options) -> Result<Apps, Error> {
    let mut apps = Apps::default();
    let name = options.one_app.as_deref().unwrap_or(NAME);
    apps.number(name).map_err(|fault| fault.at(1))?;
    Ok(apps)
}

/// `TIMESTAMP,ContextTokens,GeneratedTokens`.
pub(super) struct AzureLlm<R: Read> {
    table: Table<Peeked<R>>,
    /// Time, tokens in, tokens out.
    columns: [usize; 3],
    clock: Clock,
    times: TokenTimes,
    apps: Apps,
}

impl<R: Read> AzureLlm<R> {
    pub(super) fn new(whole: Peeked<R>, options: &Options) -> Result<Self, Error> {
        let table = Table::new(whole, b',')?;
        let find = |name| table.find(&[name]).ok_or_else(|| table.missing(name, None));
        let columns = [find("TIMESTAMP")?, find("ContextTokens")?, find("GeneratedTokens")?];
        let clock = Clock::new(options.time_unit);
        Ok(Self { table, columns, clock, times: options.tokens, apps: one_app(options)? })
    }
}

impl<R: Read> Rows for AzureLlm<R> {
    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        let [time, context, generated] = self.columns;
        let Some(row) = self.table.next_row()? else { return Ok(None) };
        let at =
            self.clock.read(row.field(time)).ok_or_else(|| row.bad(time, "which is no time"))?;
        let tokens = |at| {
            let number = row.field(at).parse::<u32>().ok().filter(|tokens| *tokens <= TOKENS_MAX);
            number.ok_or_else(|| row.bad(at, "which is no number of tokens"))
        };
        let service = self.times.service(tokens(context)?, tokens(generated)?);
        Ok(Some(request(row.line, at, service)))
    }

    fn apps(&self) -> &Apps {
        &self.apps
    }

    fn left_out(&self) -> LeftOut {
        LeftOut::default()
    }
}

/// JSON lines with `timestamp` in milliseconds, `input_length` and `output_length`.
pub(super) struct Mooncake<R: Read> {
    lines: Lines<Peeked<R>>,
    times: TokenTimes,
    apps: Apps,
}

#[derive(Deserialize)]
struct Said {
    timestamp: f64,
    input_length: u32,
    output_length: u32,
}

impl<R: Read> Mooncake<R> {
    pub(super) fn new(whole: Peeked<R>, options: &Options) -> Result<Self, Error> {
        Ok(Self { lines: Lines::new(whole), times: options.tokens, apps: one_app(options)? })
    }
}

impl<R: Read> Rows for Mooncake<R> {
    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        let (line, found) = loop {
            match self.lines.next_line()? {
                None => return Ok(None),
                Some(line) if line.text.trim_ascii().is_empty() => {}
                Some(line) => break (line.number, serde_json::from_slice::<Said>(line.text)),
            }
        };
        let found = found.map_err(|error| Fault::Json(error).at(line))?;
        let Length::Of(since) = length_of(found.timestamp, Unit::Millis) else {
            let expected = "which is no time in milliseconds since the beginning";
            let (name, found) = ("timestamp".to_owned(), found.timestamp.to_string());
            return Err(Fault::Value { name, found, expected }.at(line));
        };
        let at = u64::try_from(since.as_micros()).expect("10,000 years fit");
        let service = self.times.service(found.input_length, found.output_length);
        Ok(Some(request(line, at, service)))
    }

    fn apps(&self) -> &Apps {
        &self.apps
    }

    fn left_out(&self) -> LeftOut {
        LeftOut::default()
    }
}

fn request(line: u64, at: u64, service: Duration) -> Row {
    let service = Some(service);
    Row { line, at, written: at, app: 0, mode: Mode::Direct, service, status: None }
}
