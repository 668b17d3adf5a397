//! The error body every HTTP surface of ours answers with: `{"detail": …, "error_type": …}`.
//!
//! Names and codes are fal's where fal has one (behaviour as documented at fal.ai/docs, model APIs,
//! request errors); the rest are ours.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorType {
    // fal's
    RequestTimeout,
    StartupTimeout,
    RunnerSchedulingFailure,
    RunnerConnectionTimeout,
    RunnerDisconnected,
    RunnerConnectionRefused,
    RunnerConnectionError,
    RunnerIncompleteResponse,
    RunnerServerError,
    ClientDisconnected,
    ClientCancelled,
    BadRequest,
    InternalError,
    // ours
    AppNotFound,
    AppBroken,
    NotFound,
    MethodNotAllowed,
    Unauthorized,
    Forbidden,
    PayloadTooLarge,
    HeadersTooLarge,
    QueueFull,
    ShuttingDown,
    StoreUnavailable,
    Conflict,
    /// The same idempotency key came with another request.
    IdempotencyKeyReused,
    /// A webhook's address, or a file, that this node does not allow.
    NotAllowed,
    /// A range of a file that it does not have.
    RangeNotSatisfiable,
    /// The disk is full, or nearly.
    StorageFull,
    /// This caller, or all callers, have as many websockets open as is allowed.
    TooManySockets,
}

impl ErrorType {
    /// The HTTP status this error answers with.
    pub fn status(self) -> u16 {
        match self {
            Self::RequestTimeout | Self::StartupTimeout => 504,
            Self::RunnerSchedulingFailure
            | Self::RunnerConnectionTimeout
            | Self::RunnerDisconnected
            | Self::RunnerConnectionRefused
            | Self::RunnerConnectionError
            | Self::AppBroken
            | Self::ShuttingDown
            | Self::StoreUnavailable => 503,
            Self::RunnerIncompleteResponse => 502,
            Self::RunnerServerError | Self::InternalError => 500,
            Self::ClientDisconnected | Self::ClientCancelled => 499,
            Self::BadRequest => 400,
            Self::AppNotFound | Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::PayloadTooLarge => 413,
            Self::HeadersTooLarge => 431,
            Self::QueueFull | Self::TooManySockets => 429,
            Self::Conflict => 409,
            // Not 409, which the Python client tries again.
            Self::IdempotencyKeyReused | Self::NotAllowed => 422,
            Self::RangeNotSatisfiable => 416,
            Self::StorageFull => 507,
        }
    }

    /// As on the wire: the body's `error_type` and the header `X-Fal-Error-Type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestTimeout => "request_timeout",
            Self::StartupTimeout => "startup_timeout",
            Self::RunnerSchedulingFailure => "runner_scheduling_failure",
            Self::RunnerConnectionTimeout => "runner_connection_timeout",
            Self::RunnerDisconnected => "runner_disconnected",
            Self::RunnerConnectionRefused => "runner_connection_refused",
            Self::RunnerConnectionError => "runner_connection_error",
            Self::RunnerIncompleteResponse => "runner_incomplete_response",
            Self::RunnerServerError => "runner_server_error",
            Self::ClientDisconnected => "client_disconnected",
            Self::ClientCancelled => "client_cancelled",
            Self::BadRequest => "bad_request",
            Self::InternalError => "internal_error",
            Self::AppNotFound => "app_not_found",
            Self::AppBroken => "app_broken",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::PayloadTooLarge => "payload_too_large",
            Self::HeadersTooLarge => "headers_too_large",
            Self::QueueFull => "queue_full",
            Self::ShuttingDown => "shutting_down",
            Self::StoreUnavailable => "store_unavailable",
            Self::Conflict => "conflict",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::NotAllowed => "not_allowed",
            Self::RangeNotSatisfiable => "range_not_satisfiable",
            Self::StorageFull => "storage_full",
            Self::TooManySockets => "too_many_sockets",
        }
    }
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub detail: String,
    pub error_type: ErrorType,
}
