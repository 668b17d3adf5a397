//! The trait that every store implements, and how a store fails.

use futures::future::BoxFuture;
use glowplug_core::{RequestId, Timestamp};

use crate::limits;
use crate::records::{
    Completed, Completion, JournalRecord, KeyRecord, QueuedRequest, RequestLogLine, RequestRecord,
    StoredResponse,
};

/// Everything the node must not forget.
///
/// A write is answered only after it is durable (fsync for SQLite), and a read that starts after the
/// answer sees it. Writes from many callers are grouped into one transaction by the implementation;
/// one that is refused leaves the others alone. A write whose future is dropped before the answer may
/// or may not happen.
pub trait Store: Send + Sync + 'static {
    /// Counts this start of the node and returns the count, from 1. Runner ids carry it.
    fn begin_boot(&self) -> BoxFuture<'_, Result<u32>>;

    // Queue.

    /// Accepts a request. Fails with [`StoreError::Duplicate`] if the id exists.
    fn submit(&self, request: QueuedRequest) -> BoxFuture<'_, Result<()>>;
    /// Records the first answer of a request. Later calls for the same id change nothing and say so.
    fn complete(&self, id: RequestId, completion: Completion) -> BoxFuture<'_, Result<Completed>>;
    /// Every accepted request that is not complete, in order of acceptance (bodies included), at most
    /// `limit`, after `after`. The request named by `after` may have been completed meanwhile; if it
    /// has been purged or never was, the list starts at the beginning.
    fn pending(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<QueuedRequest>>>;
    /// One request that is not complete, body included: what an attempt sends.
    fn pending_request(&self, id: RequestId) -> BoxFuture<'_, Result<Option<QueuedRequest>>>;
    fn request(&self, id: RequestId) -> BoxFuture<'_, Result<Option<RequestRecord>>>;
    /// Status code, headers and body of the answer of a complete request.
    fn response(&self, id: RequestId) -> BoxFuture<'_, Result<Option<StoredResponse>>>;
    /// Adds to the log lines that belong to a request, complete or not. Lines of a request that the
    /// store does not hold are dropped, and so are lines beyond [`limits::REQUEST_LOG_LINES_MAX`].
    fn append_request_logs(
        &self,
        id: RequestId,
        lines: Vec<RequestLogLine>,
    ) -> BoxFuture<'_, Result<()>>;
    /// The log lines of a request in the order of their arrival. Where lines were dropped, one more
    /// line at the end says how many.
    fn request_logs(&self, id: RequestId) -> BoxFuture<'_, Result<Vec<RequestLogLine>>>;
    /// Drops complete requests that ended before `before`, with their answers and logs, the first
    /// that ended first, at most `limit`; returns how many. Their ids may then be used again.
    fn purge(&self, before: Timestamp, limit: usize) -> BoxFuture<'_, Result<usize>>;

    // Settings changed at run time, surviving restarts and deploys. Value: JSON text.

    /// Sets or replaces one setting of an app.
    fn put_setting(&self, app: String, key: String, json: String) -> BoxFuture<'_, Result<()>>;
    fn delete_setting(&self, app: String, key: String) -> BoxFuture<'_, Result<()>>;
    /// All settings as `(app, key, json)`, sorted.
    fn settings(&self) -> BoxFuture<'_, Result<Vec<(String, String, String)>>>;

    // Keys: `id:secret`, the secret kept only as SHA-256.

    /// Adds a key, or replaces the one with the same id.
    fn put_key(&self, key: KeyRecord) -> BoxFuture<'_, Result<()>>;
    /// Says whether there was such a key.
    fn delete_key(&self, id: String) -> BoxFuture<'_, Result<bool>>;
    /// All keys, the oldest first.
    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyRecord>>>;

    /// Adds decision records, for `why`, to a bounded journal: beyond
    /// [`limits::JOURNAL_RECORDS_MAX`] the oldest are dropped.
    fn append_journal(&self, records: Vec<JournalRecord>) -> BoxFuture<'_, Result<()>>;
    /// Records about a subject (`request:<uuid>`, `runner:r1-2`, `app:owner/name`): the newest
    /// `limit`, oldest first.
    fn journal(&self, subject: String, limit: usize) -> BoxFuture<'_, Result<Vec<JournalRecord>>>;

    /// Does everything that was asked for, then lets go of the store. Whatever is asked later may fail.
    fn close(&self) -> BoxFuture<'_, ()>;
    /// Proves that the store can still write and read (for `/readyz` and `doctor`).
    fn check(&self) -> BoxFuture<'_, Result<()>>;
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("request {0} exists already")]
    Duplicate(RequestId),
    #[error("the {what} has {bytes} bytes, and the store keeps at most {bytes_max}; send less")]
    TooLarge { what: &'static str, bytes: usize, bytes_max: usize },
    #[error(
        "the database at {path} cannot be used ({problem}); move it away or restore a backup, then start again"
    )]
    Corrupt { path: String, problem: String },
    #[error(
        "the database at {path} was written by a newer glowplug (schema {found}, this one knows {known}); use that version"
    )]
    TooNew { path: String, found: u32, known: u32 },
    #[error("cannot {operation}: {problem}")]
    Unavailable { operation: &'static str, problem: String },
}

/// Refuses a body that no store would keep.
pub(crate) fn check_body(what: &'static str, body: &[u8]) -> Result<()> {
    let (bytes, bytes_max) = (body.len(), limits::BODY_BYTES_MAX);
    if bytes > bytes_max {
        return Err(StoreError::TooLarge { what, bytes, bytes_max });
    }
    Ok(())
}
