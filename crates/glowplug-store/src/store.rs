//! What must survive a crash, behind one trait.

use futures::future::BoxFuture;
use glowplug_core::{RequestId, Timestamp};

/// Every write is answered only after it is durable (fsync for SQLite). Writes from many callers are
/// grouped into one transaction by the implementation.
pub trait Store: Send + Sync + 'static {
    /// Counts this start of the node and returns the count, from 1. Runner ids carry it.
    fn begin_boot(&self) -> BoxFuture<'_, Result<u32>>;

    // Queue.

    /// Accepts a request. Fails with [`StoreError::Duplicate`] if the id exists.
    fn submit(&self, request: QueuedRequest) -> BoxFuture<'_, Result<()>>;
    /// Records the first answer of a request. Later calls for the same id change nothing and say so.
    fn complete(&self, id: RequestId, completion: Completion) -> BoxFuture<'_, Result<Completed>>;
    /// Every accepted request that is not complete, in order of acceptance (bodies included), at most `limit`, after `after`.
    fn pending(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<QueuedRequest>>>;
    fn request(&self, id: RequestId) -> BoxFuture<'_, Result<Option<RequestRecord>>>;
    /// Status code, headers and body of the answer of a complete request.
    fn response(&self, id: RequestId) -> BoxFuture<'_, Result<Option<StoredResponse>>>;
    /// Adds to the log lines that belong to a request (bounded by [`limits::REQUEST_LOG_LINES_MAX`]; the rest is dropped and counted).
    fn append_request_logs(
        &self,
        id: RequestId,
        lines: Vec<RequestLogLine>,
    ) -> BoxFuture<'_, Result<()>>;
    fn request_logs(&self, id: RequestId) -> BoxFuture<'_, Result<Vec<RequestLogLine>>>;
    /// Drops complete requests that ended before `before`, at most `limit`; returns how many.
    fn purge(&self, before: Timestamp, limit: usize) -> BoxFuture<'_, Result<usize>>;

    // Settings changed at run time, surviving restarts and deploys. Value: JSON text.
    fn put_setting(&self, app: String, key: String, json: String) -> BoxFuture<'_, Result<()>>;
    fn delete_setting(&self, app: String, key: String) -> BoxFuture<'_, Result<()>>;
    fn settings(&self) -> BoxFuture<'_, Result<Vec<(String, String, String)>>>;

    // Keys: `id:secret`, the secret kept only as SHA-256.
    fn put_key(&self, key: KeyRecord) -> BoxFuture<'_, Result<()>>;
    fn delete_key(&self, id: String) -> BoxFuture<'_, Result<bool>>;
    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyRecord>>>;

    // Decision records, for `why`: a bounded journal, oldest dropped ([`limits::JOURNAL_RECORDS_MAX`]).
    fn append_journal(&self, records: Vec<JournalRecord>) -> BoxFuture<'_, Result<()>>;
    /// Records about a subject (`request:<uuid>`, `runner:r1-2`, `app:owner/name`), oldest first, the newest `limit`.
    fn journal(&self, subject: String, limit: usize) -> BoxFuture<'_, Result<Vec<JournalRecord>>>;

    /// Proves that the store can still write and read (for `/readyz` and `doctor`).
    fn check(&self) -> BoxFuture<'_, Result<()>>;
}

pub type Result<T> = std::result::Result<T, StoreError>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedRequest {
    pub id: RequestId,
    /// `owner/app[--env]`.
    pub app: String,
    /// Below the app, without a leading slash; may be empty. Includes the query, if any.
    pub path: String,
    pub method: String,
    /// Headers to hand to the app, gateway control headers already taken out.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub priority: Priority,
    pub submitted_at: Timestamp,
    /// The request must start before this moment.
    pub start_deadline: Option<Timestamp>,
    pub no_retry: bool,
    pub webhook_url: Option<String>,
    /// Key id of the caller, or empty.
    pub caller: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    Normal,
    Low,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    pub at: Timestamp,
    pub response: StoredResponse,
    /// Message and type when the request failed (shown in the status).
    pub error: Option<(String, String)>,
    /// Seconds the app took for the attempt that answered.
    pub inference_seconds: Option<f64>,
    pub attempts: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completed {
    Recorded,
    AlreadyComplete,
    UnknownRequest,
}

/// What is known of a request without its bodies.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestRecord {
    pub id: RequestId,
    pub app: String,
    pub path: String,
    pub submitted_at: Timestamp,
    pub completed: Option<CompletedSummary>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CompletedSummary {
    pub at: Timestamp,
    pub status: u16,
    pub error: Option<(String, String)>,
    pub inference_seconds: Option<f64>,
    pub attempts: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLogLine {
    pub at: Timestamp,
    pub level: String,
    pub source: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    pub id: String,
    pub secret_sha256: [u8; 32],
    pub alias: String,
    /// `ADMIN` or `API`.
    pub scope: String,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRecord {
    pub at: Timestamp,
    pub subjects: Vec<String>,
    /// The decision as one sentence, and as JSON for programs.
    pub sentence: String,
    pub json: String,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("request {0} exists already")]
    Duplicate(RequestId),
    #[error(
        "the database at {path} is damaged ({problem}); move it away or restore a backup, then start again"
    )]
    Corrupt { path: String, problem: String },
    #[error(
        "the database at {path} was written by a newer glowplug (schema {found}, this one knows {known}); use that version"
    )]
    TooNew { path: String, found: u32, known: u32 },
    #[error("cannot {operation}: {problem}")]
    Unavailable { operation: &'static str, problem: String },
}

pub mod limits {
    /// Log lines kept per request; further ones are dropped and the last line says how many.
    pub const REQUEST_LOG_LINES_MAX: usize = 1_000;
    /// Decision records kept in the journal.
    pub const JOURNAL_RECORDS_MAX: usize = 200_000;
}
