//! Other people's formats.
//!
//! ```text
//! csv ─────────┐
//! access_log ──┤
//! json_log ────┼─► Row, by its line ─► in order of arrival ─► apps declared ─► Record
//! tokens ──────┤        (a heap with a limit)
//! minutes ─────┘
//! ```
//!
//! Each format is a [`Rows`]; what they have in common is here.

mod access_log;
mod app_path;
mod apps;
mod csv;
mod json_log;
mod minutes;
mod order;
mod table;
mod text;
mod tokens;

use std::io::Read;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::request::Mode;

use self::apps::Apps;
use self::order::InOrder;
use super::error::Error;
use super::header::Header;
use super::limits::TIME_MAX;
use super::open::{Peeked, Records};
use super::options::{Format, Options};
use super::{App, Fault, Record, Request};

/// Wall clocks show more than this since 1970: 3 March 1973. Lesser times count from a beginning of their own.
const WALL_CLOCK_MICROS_MIN: u64 = 100_000_000 * 1_000_000;
/// Of logs, which are written when requests end: that long a request may take.
const REORDER_LOGS: Duration = Duration::from_hours(1);

/// Lines that did not become requests, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// The service time is there and is empty or zero.
    pub no_service: u64,
    /// What was asked for is no app: other paths, other methods, lines about something else.
    pub no_app: u64,
}

/// One request as another format tells it.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// Of the file, for messages.
    line: u64,
    /// Microseconds, of whatever clock the file has.
    at: u64,
    /// What the file is in order of: the arrival, or the end for logs.
    written: u64,
    /// In the order of their first rows.
    app: u32,
    mode: Mode,
    service: Option<Duration>,
    status: Option<u16>,
}

/// A format.
trait Rows {
    fn next_row(&mut self) -> Result<Option<Row>, Error>;
    fn apps(&self) -> &Apps;
    fn left_out(&self) -> LeftOut;
}

/// Reads the first row, to know when the trace began.
pub(super) fn open<R: Read + Send + 'static>(
    whole: Peeked<R>,
    durations: Option<Box<dyn Read + Send>>,
    format: Format,
    options: &Options,
) -> Result<(Header, Box<dyn Records>), Error> {
    let window = |default| options.reorder.unwrap_or(default);
    match format {
        Format::Csv => {
            let rows = csv::Requests::new(whole, options)?;
            begin(rows, window(Duration::ZERO))
        }
        Format::AzureMinutes => {
            let rows = minutes::Minutes::new(whole, durations, options.seed)?;
            begin(rows, Duration::ZERO)
        }
        Format::AzureLlm => {
            let rows = tokens::AzureLlm::new(whole, options)?;
            begin(rows, window(Duration::ZERO))
        }
        Format::Mooncake => begin(tokens::Mooncake::new(whole, options)?, window(Duration::ZERO)),
        Format::AccessLog => {
            let rows = access_log::AccessLog::new(whole, options)?;
            begin(rows, window(REORDER_LOGS))
        }
        Format::JsonLog => {
            let rows = json_log::JsonLog::new(whole, options)?;
            begin(rows, window(REORDER_LOGS))
        }
        Format::Auto | Format::Glowplug => unreachable!("these have readers of their own"),
    }
}

fn begin<S: Rows + Send + 'static>(
    rows: S,
    window: Duration,
) -> Result<(Header, Box<dyn Records>), Error> {
    let mut rows = InOrder::new(rows, window);
    let first = rows.next_row()?;
    let wall = first.map(|row| row.at).filter(|at| *at >= WALL_CLOCK_MICROS_MIN);
    let header =
        Header { began: wall.map(Timestamp::from_micros), made_by: env!("CARGO_PKG_NAME").into() };
    let imported =
        Imported { rows, next: first, began: wall.unwrap_or(0), declared: 0, over: false };
    Ok((header, Box::new(imported)))
}

/// When something began that ended at `end`.
fn before(end: u64, lasted: Duration) -> u64 {
    end.saturating_sub(u64::try_from(lasted.as_micros()).unwrap_or(u64::MAX))
}

/// Rows as records.
struct Imported<S> {
    rows: InOrder<S>,
    /// It waits until its app is declared.
    next: Option<Row>,
    /// Microseconds of the file's clock that are the beginning.
    began: u64,
    declared: u32,
    over: bool,
}

impl<S: Rows> Imported<S> {
    fn read(&mut self) -> Result<Option<Record>, Error> {
        let Some(row) = self.next else { return Ok(None) };
        if self.declared <= row.app {
            let name = self.rows.apps().name(self.declared);
            self.declared += 1;
            return Ok(Some(Record::App(App::named(name))));
        }
        let request = self.request(&row)?;
        self.next = self.rows.next_row()?;
        Ok(Some(Record::Request(request)))
    }

    fn request(&self, row: &Row) -> Result<Request, Error> {
        let since = Duration::from_micros(row.at - self.began);
        for (field, found) in
            [("the time", since), ("the service time", row.service.unwrap_or_default())]
        {
            if found > TIME_MAX {
                return Err(Fault::TooLate { field, found }.at(row.line));
            }
        }
        Ok(Request {
            mode: row.mode,
            status: row.status,
            ..Request::new(Timestamp::ZERO + since, row.app, row.service)
        })
    }
}

impl<S: Rows> Iterator for Imported<S> {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.read().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

impl<S: Rows + Send> Records for Imported<S> {
    fn left_out(&self) -> LeftOut {
        self.rows.left_out()
    }
}
