//! The gateway's own answers: errors, and JSON.

use glowplug_api::{ErrorBody, ErrorType};
use glowplug_core::request::Refusal;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::body::Body;
use crate::header::{ERROR_TYPE, HeaderError, NEEDS_RETRY, TIMEOUT_TYPE};

/// Why a request gets an answer of ours instead of its app's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub kind: ErrorType,
    pub detail: String,
    hint: RetryHint,
}

/// What else a client should know before it tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RetryHint {
    None,
    /// The same request may well succeed: `X-Fal-Needs-Retry: 1`.
    Temporary,
    /// The caller's own deadline passed, so trying again is the caller's decision:
    /// `X-Fal-Request-Timeout-Type: user`.
    CallersDeadline,
}

impl Problem {
    pub fn new(kind: ErrorType, detail: impl Into<String>) -> Self {
        let hint = match kind {
            ErrorType::RunnerSchedulingFailure
            | ErrorType::RunnerConnectionTimeout
            | ErrorType::RunnerDisconnected
            | ErrorType::RunnerConnectionRefused
            | ErrorType::RunnerConnectionError
            | ErrorType::RequestTimeout
            | ErrorType::StartupTimeout
            | ErrorType::ShuttingDown
            | ErrorType::StoreUnavailable => RetryHint::Temporary,
            _ => RetryHint::None,
        };
        Self { kind, detail: detail.into(), hint }
    }

    /// The same request may well succeed if it is sent again.
    pub(crate) fn temporary(mut self) -> Self {
        self.hint = RetryHint::Temporary;
        self
    }

    /// The same as the last word on a queued request. What could be tried again was, so that nobody is told to.
    #[must_use]
    pub fn settled(mut self) -> Self {
        if self.hint == RetryHint::Temporary {
            self.hint = RetryHint::None;
        }
        self
    }

    pub fn answer(&self) -> Response<Body> {
        let body = ErrorBody { detail: self.detail.clone(), error_type: self.kind };
        self.answer_with(&body)
    }

    /// As [`Problem::answer`], with a body that says more than detail and type.
    pub(crate) fn answer_with(&self, body: &impl Serialize) -> Response<Body> {
        let status =
            StatusCode::from_u16(self.kind.status()).expect("every error type has a valid status");
        let mut answer = json(status, body);
        let headers = answer.headers_mut();
        headers.insert(ERROR_TYPE, HeaderValue::from_static(self.kind.as_str()));
        match self.hint {
            RetryHint::None => {}
            RetryHint::Temporary => {
                headers.insert(NEEDS_RETRY, HeaderValue::from_static("1"));
            }
            RetryHint::CallersDeadline => {
                headers.insert(TIMEOUT_TYPE, HeaderValue::from_static("user"));
            }
        }
        if self.kind == ErrorType::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Key"));
        }
        answer
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let kind = match &refusal {
            Refusal::StartDeadline | Refusal::RequestTimeout { .. } => ErrorType::RequestTimeout,
            Refusal::StartFailed { .. } => ErrorType::AppBroken,
            Refusal::StartupTimeout { .. } => ErrorType::StartupTimeout,
            Refusal::Unschedulable { .. } => ErrorType::RunnerSchedulingFailure,
            Refusal::AppRemoved => ErrorType::AppNotFound,
            Refusal::Cancelled => ErrorType::ClientCancelled,
            Refusal::QueueFull { .. } => ErrorType::QueueFull,
            Refusal::RunnerLost => ErrorType::RunnerDisconnected,
            Refusal::ShuttingDown => ErrorType::ShuttingDown,
        };
        let mut problem = Self::new(kind, refusal.to_string());
        problem.hint = match refusal {
            Refusal::StartDeadline => RetryHint::CallersDeadline,
            // What is queued waits for the next start, so that a direct caller may, too.
            Refusal::StartFailed { .. } => RetryHint::Temporary,
            // No number of tries makes room that the node does not have.
            Refusal::Unschedulable { .. } => RetryHint::None,
            _ => problem.hint,
        };
        problem
    }
}

impl From<&HeaderError> for Problem {
    fn from(error: &HeaderError) -> Self {
        let kind = match error {
            HeaderError::TooLarge { .. } => ErrorType::HeadersTooLarge,
            HeaderError::StartTimeout { .. } => ErrorType::BadRequest,
        };
        Self::new(kind, error.to_string())
    }
}

/// An answer with a JSON body.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let bytes = serde_json::to_vec(body).expect("our wire types serialize");
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut answer = Response::new(Body::full(bytes));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}
