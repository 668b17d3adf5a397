//! The trait that every store implements, and how a store fails.

use std::path::PathBuf;
use std::time::Duration;

use futures::future::BoxFuture;
use glowplug_core::{RequestId, Timestamp};
use tokio::sync::broadcast;

use crate::limits;
use crate::records::{
    Accepted, Change, Completed, Completion, Delivery, DeliveryAttempt, DeliveryRecord,
    DeliveryState, JournalRecord, KeyRecord, Place, QueuedHead, QueuedRequest, RequestLogLine,
    RequestRecord, Retention, StoredResponse, WholeRequest,
};

/// How long a webhook that was given out to be called is not given out again while the node that has it
/// lives, or where that is not known. Longer than any call takes.
pub const DELIVERY_LEASE: Duration = Duration::from_mins(5);

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

    /// Accepts a request; the node that called [`begin_boot`](Self::begin_boot) owns it from then on.
    /// Under an idempotency key the request is the same if method, path and body are, and the key is
    /// remembered as long as the request is. Fails with [`StoreError::Duplicate`] if the id exists, and with [`StoreError::KeyReused`] if the
    /// caller used the idempotency key for another request before.
    fn submit(&self, request: QueuedRequest) -> BoxFuture<'_, Result<Accepted>>;
    /// Makes this node the owner of requests that are not complete and whose owner is gone: all that an
    /// earlier boot left, and with a shared store those of nodes whose lease ran out. In order of
    /// acceptance, at most `limit`; empty when there are no more. Webhooks that such nodes were given are
    /// due again.
    fn adopt(&self, limit: usize) -> BoxFuture<'_, Result<Vec<QueuedHead>>>;
    /// Notes that this attempt of a request of this node, counted from 1, begins: for other nodes, and for
    /// whoever takes the request over. Where the request is not this node's, nothing is noted.
    fn started(&self, id: RequestId, attempt: u32) -> BoxFuture<'_, Result<()>>;
    /// Tells the node that owns the request that its caller wants it cancelled
    /// ([`Change::CancelAsked`]).
    fn ask_cancel(&self, id: RequestId) -> BoxFuture<'_, Result<()>>;
    /// What other nodes do. `None`: no other node uses the store. A receiver that lags must look for
    /// itself.
    fn changes(&self) -> Option<broadcast::Receiver<Change>>;
    /// Requests of the same app that were accepted before this one and are not complete.
    fn ahead(&self, id: RequestId) -> BoxFuture<'_, Result<usize>>;
    /// Records the first answer of a request that this node owns, and makes its webhook due, if it has
    /// one, in the same transaction. Later calls for the same id change nothing and say so.
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
    /// Complete requests of one app or of all, the last that ended first, at most `limit`.
    fn completed(
        &self,
        app: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RequestRecord>>>;
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
    /// Drops complete requests beyond what `retention` keeps, with their answers, logs and deliveries, the
    /// first that ended first, at most `limit`; returns how many. Their ids may then be used again.
    fn purge(&self, retention: Retention, limit: usize) -> BoxFuture<'_, Result<usize>>;

    // Webhooks.

    /// Webhooks whose time has come at `now`, the longest due first, at most `limit`. One that was given out
    /// is not given out again before [`DELIVERY_LEASE`] has passed, [`called`](Self::called) said when, or
    /// its node is gone: [`begin_boot`](Self::begin_boot) takes back what the life before had, and
    /// [`adopt`](Self::adopt) what nodes had whose lease ran out.
    fn due_deliveries(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<Delivery>>>;
    /// When the next webhook is due, or may be given out again.
    fn next_delivery(&self) -> BoxFuture<'_, Result<Option<Timestamp>>>;
    /// Records a call of a webhook and what becomes of it. One that was delivered stays so. A request
    /// without a webhook, or one that was purged, is passed over.
    fn called(
        &self,
        request: RequestId,
        attempt: DeliveryAttempt,
        state: DeliveryState,
    ) -> BoxFuture<'_, Result<()>>;
    fn delivery(&self, request: RequestId) -> BoxFuture<'_, Result<Option<DeliveryRecord>>>;

    // The whole of it, elsewhere.

    /// Every request with all that is kept of it, in order of acceptance, at most `limit`, after `after`;
    /// and the place to go on from.
    fn export(
        &self,
        after: Place,
        limit: usize,
    ) -> BoxFuture<'_, Result<(Vec<WholeRequest>, Place)>>;
    /// Takes in what [`export`](Self::export) gave out, in one transaction; says whether it was new. A
    /// request that is not complete belongs to no node until one adopts it. An idempotency key that
    /// another request has already is left out.
    fn import(&self, request: WholeRequest) -> BoxFuture<'_, Result<bool>>;
    /// Copies the whole store to a new file at `to`, while it is in use. The copy is one moment of it.
    /// Fails if there is a file of that name.
    fn backup(&self, to: PathBuf) -> BoxFuture<'_, Result<()>>;

    // Settings changed at run time, surviving restarts and deploys. Value: JSON text.

    /// Sets or replaces one setting of an app.
    fn put_setting(&self, app: String, key: String, json: String) -> BoxFuture<'_, Result<()>>;
    fn delete_setting(&self, app: String, key: String) -> BoxFuture<'_, Result<()>>;
    /// Keeps the value if there is none yet, and returns the one that is kept: nodes that share a store
    /// agree on secrets this way.
    fn claim_setting(
        &self,
        app: String,
        key: String,
        json: String,
    ) -> BoxFuture<'_, Result<String>>;
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
    /// Proves that the store can still write and read, and that its disk has room for new requests (for
    /// `/readyz`).
    fn check(&self) -> BoxFuture<'_, Result<()>>;
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("request {0} exists already")]
    Duplicate(RequestId),
    #[error(
        "the idempotency key was used for another request before ({earlier}); use a new key for a new request"
    )]
    KeyReused { earlier: RequestId },
    #[error("this kind of store cannot {operation}; {instead}")]
    Unsupported { operation: &'static str, instead: &'static str },
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
    /// Nothing is lost, and reading goes on. Answers are recorded as long as there is any room at all.
    #[error("cannot {operation}: {problem}; free some space on the disk of the database")]
    Full { operation: &'static str, problem: String },
    /// The body of one request is not what was written. Other requests are not touched by it.
    #[error(
        "the body of request {request} at {path} cannot be used ({problem}); submit the request again"
    )]
    BodyDamaged { request: RequestId, path: String, problem: String },
    #[error("cannot {operation}: {problem}")]
    Unavailable { operation: &'static str, problem: String },
}

/// Refuses a request that no store would keep.
pub(crate) fn check_request(request: &QueuedRequest) -> Result<()> {
    check_body("request body", &request.body)?;
    let bytes = request.idempotency_key.as_ref().map_or(0, String::len);
    let bytes_max = limits::IDEMPOTENCY_KEY_BYTES_MAX;
    if bytes > bytes_max {
        return Err(StoreError::TooLarge { what: "idempotency key", bytes, bytes_max });
    }
    Ok(())
}

/// Refuses a body that no store would keep.
pub(crate) fn check_body(what: &'static str, body: &[u8]) -> Result<()> {
    let (bytes, bytes_max) = (body.len(), limits::BODY_BYTES_MAX);
    if bytes > bytes_max {
        return Err(StoreError::TooLarge { what, bytes, bytes_max });
    }
    Ok(())
}
