//! Writes our own format.

use std::fmt;
use std::io::{self, Write};

use super::Record;
use super::error::{Error, Fault};
use super::header::Header;
use super::line::{self, Parsed};
use super::rules::Rules;

/// A good ratio at the speed of a disk. zstd knows 1 (fast) to 22 (small).
pub const LEVEL_DEFAULT: i32 = 3;

/// Bytes of lines that are handed to the compressor at once.
const BATCH_BYTES: usize = 64 * 1024;

/// Writes one trace. Without [`Writer::finish`] it ends in the middle, and readers say so.
pub struct Writer<W: Write> {
    out: zstd::Encoder<'static, W>,
    batch: Vec<u8>,
    rules: Rules,
    line: u64,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W, header: &Header, level: i32) -> Result<Self, Error> {
        let failed = |source| Error::Write { line: 1, source };
        let mut out = zstd::Encoder::new(out, level).map_err(failed)?;
        out.include_checksum(true).map_err(failed)?;
        let mut batch = header.line().into_bytes();
        batch.push(b'\n');
        Ok(Self { out, batch, rules: Rules::default(), line: 1 })
    }

    /// A record that breaks a rule of the format is refused and not written.
    pub fn write(&mut self, record: &Record) -> Result<(), Error> {
        let before = self.batch.len();
        let written = line::format(record, &mut self.batch).and_then(|()| self.check(record));
        if let Err(fault) = written {
            self.batch.truncate(before);
            return Err(fault.at(self.line + 1));
        }
        self.line += 1;
        if self.batch.len() >= BATCH_BYTES { self.drain() } else { Ok(()) }
    }

    fn check(&mut self, record: &Record) -> Parsed<()> {
        let app = match record {
            Record::App(app) => {
                self.rules.declare(app)?;
                return Ok(());
            }
            Record::Request(request) => request.app,
            Record::Start(start) => start.app,
            Record::Stop(stop) => stop.app,
        };
        let declared = self.rules.apps();
        if app as usize >= declared {
            return Err(Fault::Undeclared { app, declared }.into());
        }
        self.rules.advance(record)
    }

    /// Lets everything written so far be read, even if nothing comes after it. Costs some compression.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.drain()?;
        self.out.flush().map_err(|source| self.failed(source))
    }

    /// Ends the trace and gives back what it was written to.
    pub fn finish(mut self) -> Result<W, Error> {
        self.drain()?;
        let line = self.line;
        self.out.finish().map_err(|source| Error::Write { line, source })
    }

    /// Where the bytes go. What is still on its way to it is not there yet.
    pub fn get_ref(&self) -> &W {
        self.out.get_ref()
    }

    fn drain(&mut self) -> Result<(), Error> {
        let written = self.out.write_all(&self.batch);
        self.batch.clear();
        written.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Write { line: self.line, source }
    }
}

impl<W: Write> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("line", &self.line).finish_non_exhaustive()
    }
}
