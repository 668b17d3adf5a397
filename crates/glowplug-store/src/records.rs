//! What a store keeps, as its callers see it.

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
    pub webhook_url: Option<String>,
    /// Key id of the caller, or empty.
    pub caller: String,
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

impl RequestLogLine {
    /// The line that stands for those a store did not keep.
    pub(crate) fn dropped_notice(dropped: usize, at: Timestamp) -> Self {
        Self {
            at,
            level: "WARNING".to_owned(),
            source: "gateway".to_owned(),
            message: format!("{dropped} more log lines of this request were dropped"),
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
