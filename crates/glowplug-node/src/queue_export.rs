//! Queues as files: every request with its answer, its log and its webhook, one line each.
//!
//! ```text
//! {"glowplug_queue":1,...}               the head
//! {"check":"…","request":{...}}          a request; `check` tells whether the line is what was written
//! {"end":2}                              how many there were: without it the file is cut off
//! ```
//!
//! Files are written and read a few requests at a time, so that a queue may be larger than memory. The
//! format is described in `docs/reference/queue-export.md`.

mod lines;
mod record;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use glowplug_store::{Place, SqliteOptions, SqliteStore, Store, StoreError, WholeRequest};

pub use lines::Lines;
use record::Record;

/// The format that is written, and the newest that is read.
pub const FORMAT: u32 = 1;
/// A longer line is refused: the longest body, written as text, and its answer.
pub const LINE_BYTES_MAX: usize = 1 << 30;
/// Requests read from the store at a time, with their bodies.
const PAGE: usize = 4;
/// Bytes of a line's checksum: the first of its SHA-256.
const CHECK_BYTES: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("line {line}: {problem}")]
    Line { line: u64, problem: String },
    #[error("line 1: this is no exported queue: {problem}")]
    NotAnExport { problem: String },
    #[error(
        "line 1: this queue was exported by a newer glowplug (format {found}, this one reads {FORMAT}); use \
         that version"
    )]
    TooNew { found: u32 },
    #[error(
        "the file ends after line {line} without saying that it is complete; what was read of it is taken in"
    )]
    Cut { line: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("line {line}: request {request} cannot be kept: {problem}")]
    Kept { line: u64, request: String, problem: StoreError },
}

/// What came of an export or an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Written, or taken in.
    pub requests: u64,
    /// There already, and left as they were.
    pub known: u64,
}

/// Opens the queue of a node that does not run.
pub fn open_stopped(data_dir: &Path) -> Result<Arc<dyn Store>, StoreError> {
    Ok(SqliteStore::open(&data_dir.join(crate::store::FILE_NAME), SqliteOptions::default())?)
}

/// Hands out the lines of an export, each with its end; `to` takes one and says whether to go on.
pub async fn export<F: Future<Output = bool>>(
    store: &dyn Store,
    app: Option<&str>,
    mut to: impl FnMut(Vec<u8>) -> F,
) -> Result<Moved, StoreError> {
    let mut moved = Moved::default();
    if !to(record::head()).await {
        return Ok(moved);
    }
    let mut after = Place::START;
    loop {
        let (page, last) = store.export(after, PAGE).await?;
        if page.is_empty() {
            break;
        }
        after = last;
        for whole in page.iter().filter(|whole| app.is_none_or(|app| whole.request.app == app)) {
            if !to(record::line(whole)).await {
                return Ok(moved);
            }
            moved.requests += 1;
        }
    }
    to(record::end(moved.requests)).await;
    Ok(moved)
}

/// Takes in an export, line by line.
pub struct Import<'a> {
    store: &'a dyn Store,
    line: u64,
    ended: bool,
    pub moved: Moved,
}

impl<'a> Import<'a> {
    pub fn new(store: &'a dyn Store) -> Self {
        Self { store, line: 0, ended: false, moved: Moved::default() }
    }

    /// One line. After a failure the lines before it are taken in, and none is after it.
    pub async fn line(&mut self, line: &[u8]) -> Result<(), Error> {
        self.line += 1;
        let number = self.line;
        if number == 1 {
            return record::check_head(line);
        }
        let wrong = |problem: String| Error::Line { line: number, problem };
        if self.ended {
            return Err(wrong("there is more after the end".to_owned()));
        }
        match record::read(line).map_err(wrong)? {
            Record::End { count } if count == number - 2 => {
                self.ended = true;
                Ok(())
            }
            Record::End { count } => {
                Err(wrong(format!("{count} requests were written, and {} are there", number - 2)))
            }
            Record::Request(whole) => self.take_in(*whole).await,
        }
    }

    async fn take_in(&mut self, whole: WholeRequest) -> Result<(), Error> {
        let request = whole.request.id;
        match self.store.import(whole).await {
            Ok(true) => self.moved.requests += 1,
            Ok(false) => self.moved.known += 1,
            Err(problem) => {
                let (line, request) = (self.line, request.to_string());
                return Err(Error::Kept { line, request, problem });
            }
        }
        Ok(())
    }

    /// There are no more lines.
    pub fn finish(self) -> Result<Moved, Error> {
        match (self.line, self.ended) {
            (0, _) => Err(Error::NotAnExport { problem: "it is empty".to_owned() }),
            (line, false) => Err(Error::Cut { line }),
            (_, true) => Ok(self.moved),
        }
    }
}

impl std::fmt::Debug for Import<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Import").field("line", &self.line).finish_non_exhaustive()
    }
}
