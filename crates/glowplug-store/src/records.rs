//! What a store keeps, as its callers see it.

use std::time::Duration;

use glowplug_core::{RequestId, Timestamp};

/// A request as it was accepted, with all that is needed to run it later.
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
    /// The caller's own retry budgets, as JSON text in the form of `X-Fal-Retry-Config`, checked.
    pub retry_config: Option<String>,
    /// The kind of runner the caller would like best (`X-Fal-Runner-Hint`).
    pub hint: Option<String>,
    pub webhook_url: Option<String>,
    /// Under this key the same caller may submit the same request again without making a second one.
    pub idempotency_key: Option<String>,
    /// Whether the payload is kept as long as the answer. If not, it goes when the request is complete.
    pub keep_payload: bool,
    /// Key id of the caller, or empty.
    pub caller: String,
}

/// What [`Store::submit`](crate::Store::submit) did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The request is on disk, and this node owns it.
    New,
    /// The caller had submitted it before, under the same idempotency key and with this id.
    Before(RequestId),
}

/// A request that is not complete, without its bytes: what is needed to put it in line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedHead {
    pub id: RequestId,
    pub app: String,
    pub path: String,
    pub priority: Priority,
    pub submitted_at: Timestamp,
    pub start_deadline: Option<Timestamp>,
    pub no_retry: bool,
    pub retry_config: Option<String>,
    pub hint: Option<String>,
    pub caller: String,
    /// Attempts that were told of by [`Store::started`](crate::Store::started).
    pub attempts: u32,
}

impl From<&QueuedRequest> for QueuedHead {
    fn from(request: &QueuedRequest) -> Self {
        Self {
            id: request.id,
            app: request.app.clone(),
            path: request.path.clone(),
            priority: request.priority,
            submitted_at: request.submitted_at,
            start_deadline: request.start_deadline,
            no_retry: request.no_retry,
            retry_config: request.retry_config.clone(),
            hint: request.hint.clone(),
            caller: request.caller.clone(),
            attempts: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    Normal,
    Low,
}

/// The end of a request: its answer and what it took.
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
    /// In order; a name may occur more than once.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// What [`Store::complete`](crate::Store::complete) did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completed {
    Recorded,
    AlreadyComplete,
    UnknownRequest,
    /// Another node took the request over: this one's answer does not count.
    Fenced,
}

/// What is known of a request without its bodies.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestRecord {
    pub id: RequestId,
    pub app: String,
    pub path: String,
    pub submitted_at: Timestamp,
    /// The start of a node (its boot) that owns the request, or owned it last.
    pub owner: u32,
    /// An attempt of it was reported by [`Store::started`](crate::Store::started).
    pub started: bool,
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

const DROPPED: &str = " more log lines of this request were dropped";

impl RequestLogLine {
    /// The line that stands for those a store did not keep.
    pub(crate) fn dropped_notice(dropped: usize, at: Timestamp) -> Self {
        Self {
            at,
            level: "WARNING".to_owned(),
            source: "gateway".to_owned(),
            message: format!("{dropped}{DROPPED}"),
        }
    }

    /// Tells the lines that were kept from the one that stands for those that were not.
    pub(crate) fn split_notice(lines: &[Self]) -> (&[Self], Option<(usize, Timestamp)>) {
        let Some((last, before)) = lines.split_last() else { return (lines, None) };
        let number = last.message.strip_suffix(DROPPED).and_then(|number| number.parse().ok());
        match number {
            Some(dropped) if Self::dropped_notice(dropped, last.at) == *last => {
                (before, Some((dropped, last.at)))
            }
            _ => (lines, None),
        }
    }
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

/// One decision of the engine, kept for `why`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRecord {
    pub at: Timestamp,
    /// What it is about: `request:<uuid>`, `runner:r1-2`, `app:owner/name`.
    pub subjects: Vec<String>,
    /// The decision for people, as one sentence.
    pub sentence: String,
    /// The decision for programs.
    pub json: String,
}

/// How much of what is complete is kept. Whatever goes beyond any of the three goes, oldest end first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Requests that ended before this go.
    pub ended_before: Timestamp,
    /// Complete requests.
    pub requests_max: u64,
    /// Bytes of payloads and answers of complete requests.
    pub bytes_max: u64,
}

impl Retention {
    /// Keeps everything that ended at `moment` or later.
    pub fn since(moment: Timestamp) -> Self {
        Self { ended_before: moment, requests_max: u64::MAX, bytes_max: u64::MAX }
    }
}

/// What another node, or another part of this one, did to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is complete.
    Completed(RequestId),
    /// Its caller asked the node that owns it, this one, to cancel it.
    CancelAsked(RequestId),
    /// A node is gone, and there may be requests to take over.
    Orphaned,
    /// Keys, or settings of apps, are others than before.
    Settings,
}

/// A webhook that is to be called now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub request: RequestId,
    pub url: String,
    /// Key id of the request's caller, or empty.
    pub caller: String,
    pub completed_at: Timestamp,
    /// Calls made so far.
    pub attempts: u32,
}

/// One call of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryAttempt {
    pub at: Timestamp,
    pub took: Duration,
    /// What the receiver answered, if it did.
    pub status: Option<u16>,
    /// Why the call did not count.
    pub problem: Option<String>,
}

/// What becomes of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// To be called at this time, for the first time or again.
    Due(Timestamp),
    Delivered,
    /// No further call is made.
    Failed,
}

/// The webhook of a request and its delivery log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRecord {
    pub url: String,
    pub state: DeliveryState,
    /// The newest [`limits::DELIVERY_ATTEMPTS_MAX`](crate::limits::DELIVERY_ATTEMPTS_MAX), oldest first.
    pub attempts: Vec<DeliveryAttempt>,
}

/// Where a request is in the order of acceptance: how far an export has come. It stays a place when the
/// request is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(pub(crate) i64);

impl Place {
    /// Before the first request.
    pub const START: Self = Self(0);
}

/// A request with all that is kept of it: the form in which queues are exported and imported.
#[derive(Clone, Debug, PartialEq)]
pub struct WholeRequest {
    pub request: QueuedRequest,
    pub completion: Option<Completion>,
    pub logs: Vec<RequestLogLine>,
    pub delivery: Option<DeliveryRecord>,
}
