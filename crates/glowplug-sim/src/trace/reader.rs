//! Reads our own format.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufReader, Chain, Cursor, Read};
use std::time::Duration;

use super::error::{Error, Fault};
use super::header::{Header, Unknown};
use super::lines::{End, Line, Lines};
use super::rules::Rules;
use super::{App, Record, line};

/// What every zstd frame begins with.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What every file of gzip begins with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// A frame may ask for a window of up to 2 to this power bytes: what `zstd --long` makes is still read.
const WINDOW_LOG_MAX: u32 = 27;

/// The records of a trace, compressed or plain. After an error nothing more comes.
pub struct Reader<R: Read> {
    lines: Lines<Plain<R>>,
    header: Header,
    unknown: Unknown,
    rules: Rules,
    /// Where a trace goes on with a second part (segments of one recording, one behind the other): which of
    /// our apps its apps are, and how much later than ours its time begins.
    part: Option<Part>,
    over: bool,
}

#[derive(Default)]
struct Part {
    apps: Vec<u32>,
    declared: BTreeSet<u32>,
    later: Duration,
}

impl Part {
    /// False if it was there already.
    fn declare(&mut self, app: u32) -> bool {
        self.apps.push(app);
        self.declared.insert(app)
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn new(from: R) -> Result<Self, Error> {
        let mut lines = Lines::new(Plain::detect(from)?);
        let first = match lines.next_line()? {
            None => return Err(Error::Empty),
            Some(line) => Header::parse(line.text),
        };
        let (header, unknown) = first.map_err(|fault| fault.at(1))?;
        Ok(Self { lines, header, unknown, rules: Rules::default(), part: None, over: false })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Lines read so far, the header's among them.
    pub fn line(&self) -> u64 {
        self.lines.number()
    }

    fn read(&mut self) -> Result<Option<Record>, Error> {
        loop {
            let Some(Line { number, text, end }) = self.lines.next_line()? else {
                return Ok(None);
            };
            if end == End::Stream {
                return Err(Error::Cut { line: number - 1 });
            }
            let record = if text.first() == Some(&b'{') {
                Header::parse(text).and_then(|(header, unknown)| {
                    let later = gap(&self.header, &header)?;
                    self.part = Some(Part { later, ..Part::default() });
                    self.unknown = unknown;
                    Ok(None)
                })
            } else {
                line::parse(text, self.unknown).and_then(|record| match record {
                    Some(record) => place(record, &mut self.rules, self.part.as_mut()),
                    None => Ok(None),
                })
            };
            match record {
                Ok(None) => {}
                Ok(Some(record)) => return Ok(Some(record)),
                Err(fault) => return Err(fault.at(number)),
            }
        }
    }
}

/// How much later than the first part a later one begins.
fn gap(first: &Header, later: &Header) -> Result<Duration, Fault> {
    match (first.began, later.began) {
        (Some(first), Some(later)) if later >= first => Ok(later - first),
        _ => Err(Fault::Joint),
    }
}

/// Checks a record, and turns what a later part says into the words of the first one. `None`: it says nothing
/// new.
fn place(
    mut record: Record,
    rules: &mut Rules,
    part: Option<&mut Part>,
) -> Result<Option<Record>, Fault> {
    if let Record::App(app) = record {
        return declare(app, rules, part);
    }
    let app = record.app_mut().expect("only an app has none");
    let declared = part.as_ref().map_or(rules.apps(), |part| part.apps.len());
    if *app as usize >= declared {
        return Err(Fault::Undeclared { app: *app, declared });
    }
    if let Some(part) = part {
        *app = part.apps[*app as usize];
        let at = record.at_mut().expect("only an app has none");
        *at = at.saturating_add(part.later);
    }
    rules.advance(&record)?;
    Ok(Some(record))
}

/// An app that an earlier part has declared already stays as it was there.
fn declare(app: App, rules: &mut Rules, part: Option<&mut Part>) -> Result<Option<Record>, Fault> {
    let Some(part) = part else {
        rules.declare(&app)?;
        return Ok(Some(Record::App(app)));
    };
    if let Some(known) = rules.find(&app.name) {
        return if part.declare(known) { Ok(None) } else { Err(Fault::Twice(app.name)) };
    }
    part.declare(rules.declare(&app)?);
    Ok(Some(Record::App(app)))
}

impl<R: Read> Iterator for Reader<R> {
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

impl<R: Read> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("header", &self.header).finish_non_exhaustive()
    }
}

type Begun<R> = Chain<Cursor<Vec<u8>>, R>;

/// The text of a stream that may be compressed.
pub(super) enum Plain<R: Read> {
    Text(Begun<R>),
    Zstd(Box<zstd::Decoder<'static, BufReader<Begun<R>>>>),
}

impl<R: Read> Plain<R> {
    /// Tells by the first bytes.
    pub(super) fn detect(mut from: R) -> Result<Self, Error> {
        let at_start = |source| Error::Read { line: 0, source };
        let mut first = Vec::new();
        let mut magic = from.by_ref().take(ZSTD_MAGIC.len() as u64);
        magic.read_to_end(&mut first).map_err(at_start)?;
        if first.is_empty() {
            return Err(Error::Empty);
        }
        if first.starts_with(&GZIP_MAGIC) {
            return Err(Fault::Gzip.at(1));
        }
        let compressed = first == ZSTD_MAGIC;
        let whole = Cursor::new(first).chain(from);
        if !compressed {
            return Ok(Self::Text(whole));
        }
        let mut decoder = zstd::Decoder::new(whole).map_err(at_start)?;
        decoder.window_log_max(WINDOW_LOG_MAX).map_err(at_start)?;
        Ok(Self::Zstd(Box::new(decoder)))
    }
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Text(text) => text.read(into),
            Self::Zstd(decoder) => decoder.read(into),
        }
    }
}
