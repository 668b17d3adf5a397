//! Opens a file, whatever it is.

use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use super::Record;
use super::detect;
use super::error::{Error, Fault};
use super::header::Header;
use super::import::{self, LeftOut};
use super::options::{Format, Options};
use super::reader::{Plain, Reader};

/// Bytes looked at to tell what a file is.
const DETECT_BYTES: usize = 64 * 1024;

/// The records of a file.
pub struct Trace {
    header: Header,
    format: Format,
    records: Box<dyn Records>,
}

/// Records that can tell what was not made one.
pub(super) trait Records: Iterator<Item = Result<Record, Error>> + Send {
    fn left_out(&self) -> LeftOut;
}

impl<R: Read + Send> Records for Reader<R> {
    fn left_out(&self) -> LeftOut {
        LeftOut::default()
    }
}

/// Any of the formats, as text or in zstd.
pub fn open(path: &Path, options: &Options) -> Result<Trace, Error> {
    let open = |path: &Path| {
        File::open(path).map_err(|source| Error::Open { path: path.to_owned(), source })
    };
    let durations: Option<Box<dyn Read + Send>> = match &options.durations {
        Some(path) => Some(Box::new(open(path)?)),
        None => None,
    };
    Trace::read(open(path)?, durations, options)
}

/// A stream whose beginning was looked at.
pub(super) struct Peeked<R: Read> {
    head: Cursor<Vec<u8>>,
    /// What is broken that early is told by whoever reads it, with its line.
    broken: Option<io::Error>,
    rest: Plain<R>,
}

impl<R: Read> Peeked<R> {
    pub(super) fn new(from: R) -> Result<Self, Error> {
        let mut rest = Plain::detect(from)?;
        let mut head = Vec::new();
        let broken = rest.by_ref().take(DETECT_BYTES as u64).read_to_end(&mut head).err();
        if head.is_empty() && broken.is_none() {
            return Err(Error::Empty);
        }
        Ok(Self { head: Cursor::new(head), broken, rest })
    }

    pub(super) fn head(&self) -> &[u8] {
        self.head.get_ref()
    }

    /// Why there is no more than the beginning.
    fn broken(self) -> Option<Error> {
        let lines = self.head().split(|byte| *byte == b'\n').count() - 1;
        self.broken.map(|source| Error::reading(lines as u64, source))
    }
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.head.read(into)? {
            0 if into.is_empty() => Ok(0),
            0 => self.broken.take().map_or_else(|| self.rest.read(into), Err),
            count => Ok(count),
        }
    }
}

impl Trace {
    /// As [`open`], from any stream. `durations` stands for the file of [`Options::durations`].
    pub fn read<R: Read + Send + 'static>(
        from: R,
        durations: Option<Box<dyn Read + Send>>,
        options: &Options,
    ) -> Result<Self, Error> {
        let whole = Peeked::new(from)?;
        let format = match options.format {
            Format::Auto => match detect::format(whole.head()) {
                Some(format) => format,
                None => return Err(whole.broken().unwrap_or(Fault::UnknownFormat.at(1))),
            },
            format => format,
        };
        if durations.is_some() && format != Format::AzureMinutes {
            return Err(Error::Durations { format });
        }
        if format == Format::Glowplug {
            let reader = Reader::new(whole)?;
            return Ok(Self { header: reader.header().clone(), format, records: Box::new(reader) });
        }
        let (header, records) = import::open(whole, durations, format, options)?;
        Ok(Self { header, format, records })
    }

    /// Of another format: when it began, if its times are of the wall clock.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the file is. Never [`Format::Auto`].
    pub fn format(&self) -> Format {
        self.format
    }

    /// What was passed over so far.
    pub fn left_out(&self) -> LeftOut {
        self.records.left_out()
    }
}

impl Iterator for Trace {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.records.next()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("header", &self.header)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}
