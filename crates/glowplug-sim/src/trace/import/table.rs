//! Rows with named columns, in memory that does not grow with the file.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::error::{Error, Fault};
use super::super::limits::LINE_BYTES_MAX;

/// A CSV file, row by row.
pub(super) struct Table<R: Read> {
    reader: csv::Reader<Metered<R>>,
    columns: Vec<String>,
    row: csv::StringRecord,
    since_row: Arc<AtomicUsize>,
}

/// Counts what is read for one row: a quote that is never closed must not fill the memory.
struct Metered<R> {
    from: R,
    since_row: Arc<AtomicUsize>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // One row may lie in as many bytes, and the reader's buffer holds some of the next.
        const AHEAD_BYTES: usize = 64 * 1024;
        if self.since_row.load(Ordering::Relaxed) > LINE_BYTES_MAX + AHEAD_BYTES {
            return Err(io::Error::other(Fault::TooLong));
        }
        let count = self.from.read(into)?;
        self.since_row.fetch_add(count, Ordering::Relaxed);
        Ok(count)
    }
}

impl<R: Read> Table<R> {
    /// Reads the names of the columns.
    pub(super) fn new(from: R, separator: u8) -> Result<Self, Error> {
        let since_row = Arc::new(AtomicUsize::new(0));
        let metered = Metered { from, since_row: since_row.clone() };
        let mut reader = csv::ReaderBuilder::new().delimiter(separator).from_reader(metered);
        let headers = reader.headers().map_err(|error| broken(error, 0))?;
        let columns: Vec<String> = headers.iter().map(|name| name.trim().to_owned()).collect();
        since_row.store(0, Ordering::Relaxed);
        Ok(Self { reader, columns, row: csv::StringRecord::new(), since_row })
    }

    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The column of a name, or of the first of some.
    pub(super) fn find(&self, names: &[&str]) -> Option<usize> {
        names.iter().find_map(|name| {
            self.columns.iter().position(|column| column.eq_ignore_ascii_case(name))
        })
    }

    /// The column that was asked for by name, or else one of the usual names.
    pub(super) fn column(
        &self,
        what: &'static str,
        wanted: Option<&String>,
        usual: &[&str],
    ) -> Result<Option<usize>, Error> {
        let Some(name) = wanted else { return Ok(self.find(usual)) };
        self.find(&[name]).map(Some).ok_or_else(|| self.missing(what, Some(name)))
    }

    pub(super) fn missing(&self, what: &'static str, wanted: Option<&String>) -> Error {
        let there = self.columns.iter().map(|column| format!("`{column}`")).collect::<Vec<_>>();
        Fault::Column { what, wanted: wanted.cloned(), there: there.join(", ") }.at(1)
    }

    pub(super) fn next_row(&mut self) -> Result<Option<TableRow<'_>>, Error> {
        let last = self.reader.position().line();
        let more = self.reader.read_record(&mut self.row).map_err(|error| broken(error, last))?;
        self.since_row.store(0, Ordering::Relaxed);
        let line = self.row.position().map_or(last, csv::Position::line);
        Ok(more.then_some(TableRow { line, fields: &self.row, columns: &self.columns }))
    }
}

/// One row, with what is needed to complain about it.
pub(super) struct TableRow<'a> {
    /// Where it begins.
    pub(super) line: u64,
    fields: &'a csv::StringRecord,
    columns: &'a [String],
}

impl TableRow<'_> {
    pub(super) fn field(&self, column: usize) -> &str {
        self.fields.get(column).unwrap_or_default().trim()
    }

    pub(super) fn bad(&self, column: usize, expected: &'static str) -> Error {
        let (name, found) = (self.columns[column].clone(), self.field(column).to_owned());
        Fault::Value { name, found, expected }.at(self.line)
    }
}

/// `last`: the line at which reading went wrong, where the error does not say it.
fn broken(error: csv::Error, last: u64) -> Error {
    let line = error.position().map_or(last, csv::Position::line);
    match error.into_kind() {
        csv::ErrorKind::Io(source) => match source.downcast::<Fault>() {
            Ok(fault) => fault.at(line.max(1)),
            Err(source) => Error::reading(last.saturating_sub(1), source),
        },
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            Fault::Columns { expected: expected_len, found: len }.at(line)
        }
        csv::ErrorKind::Utf8 { .. } => Fault::NotText.at(line.max(1)),
        other => Error::Read { line, source: io::Error::other(format!("{other:?}")) },
    }
}

/// The separator is the one there is most of in the first line.
pub(super) fn separator(head: &[u8]) -> u8 {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |separator: u8| line.split(|byte| *byte == separator).count();
    [b',', b';', b'\t'].into_iter().rev().max_by_key(|byte| count(*byte)).unwrap_or(b',')
}
