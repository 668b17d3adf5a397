//! Reads our own format.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufReader, Chain, Cursor, Read};
use std::time::Duration;

use super::error::{Error, Fault};
use super::header::{Header, Unknown};
use super::limits::TIME_MAX;
use super::line::{self, Parsed};
use super::lines::{End, Line, Lines};
use super::rules::Rules;
use super::{App, Record};

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
            if text.first() == Some(&b'{') {
                self.join(number)?;
                continue;
            }
            let parsed = line::parse(text, self.unknown);
            let Some(mut record) = parsed.map_err(|fault| fault.at(number))? else { continue };
            let news = place(&mut record, &mut self.rules, self.part.as_mut());
            if news.map_err(|fault| fault.at(number))? == News::Some {
                return Ok(Some(record));
            }
        }
    }

    /// A header in the middle.
    #[cold]
    fn join(&mut self, number: u64) -> Result<(), Error> {
        let at = |fault: Fault| fault.at(number);
        let (header, unknown) = Header::parse(self.lines.last()).map_err(at)?;
        let later = gap(&self.header, &header).map_err(at)?;
        self.part = Some(Part { later, ..Part::default() });
        self.unknown = unknown;
        Ok(())
    }
}

/// How much later than the first part a later one begins.
fn gap(first: &Header, later: &Header) -> Result<Duration, Fault> {
    match (first.began, later.began) {
        (Some(first), Some(later)) if later >= first && later - first <= TIME_MAX => {
            Ok(later - first)
        }
        _ => Err(Fault::Joint),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Some,
    None,
}

/// Checks a record, and turns what a later part says into the words of the first one.
fn place(record: &mut Record, rules: &mut Rules, part: Option<&mut Part>) -> Parsed<News> {
    let Some(app) = record.app_mut() else {
        let Record::App(app) = record else { unreachable!("only an app is about none") };
        return Ok(declare(app, rules, part)?);
    };
    let declared = part.as_ref().map_or(rules.apps(), |part| part.apps.len());
    if *app as usize >= declared {
        return Err(Fault::Undeclared { app: *app, declared }.into());
    }
    if let Some(part) = part {
        *app = part.apps[*app as usize];
        let at = record.at_mut().expect("only an app has none");
        *at = at.saturating_add(part.later);
    }
    rules.advance(record)?;
    Ok(News::Some)
}

/// An app that an earlier part has declared already stays as it was there.
fn declare(app: &App, rules: &mut Rules, part: Option<&mut Part>) -> Result<News, Fault> {
    let Some(part) = part else {
        rules.declare(app)?;
        return Ok(News::Some);
    };
    if let Some(known) = rules.find(&app.name) {
        let first = part.declare(known);
        return if first { Ok(News::None) } else { Err(Fault::Twice(app.name.clone())) };
    }
    part.declare(rules.declare(app)?);
    Ok(News::Some)
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
