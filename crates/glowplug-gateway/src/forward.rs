//! Sends one request to one runner and streams the answer back.
//!
//! ```text
//! caller ── hyper server ──► exchange ──► Connection (pooled) ──► runner
//!        ◄─ RunnerBody (drives the same Connection) ◄────────────
//! ```
//!
//! A runner's connection has no task of its own. Whoever waits for the answer drives it: the future of
//! [`Forwarder::exchange`] until the head is there, then [`RunnerBody`] until the last byte. So one
//! request costs one task, its wake-ups are not passed on between tasks, and dropping the waiting side
//! closes the connection to the runner at once. A direct caller that goes away is the exception: its
//! connection goes on alone, in a task of its own ([`LeftBehind`]).
//!
//! A [`Forwarder`] belongs to one event loop; the sockets in its pool are registered there. It never
//! picks a runner and never repeats a request of which the runner may have seen anything.

mod codec;
mod connection;
mod left_behind;
mod pool;
mod runner_body;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use glowplug_api::ErrorType;
use glowplug_core::request::{Outcome, Refusal};
use glowplug_core::{RunnerAddress, Timestamp};
use http::{Request, Response, StatusCode};
use tokio::sync::Semaphore;

use crate::answer::Problem;
use crate::body::{RequestBody, RequestBodyError};
use crate::host::Revocation;
use crate::options::ForwardOptions;

use codec::HeadFault;
pub(crate) use connection::{Connection, connect_stream};
pub(crate) use glowplug_dial::Stream;
use left_behind::LEFT_BEHIND_MAX;
pub(crate) use left_behind::LeftBehind;
use pool::Pool;
pub use runner_body::BodyError;
pub(crate) use runner_body::RunnerBody;

/// A connection that was used this recently is taken to be open without another look.
const TRUSTED_IDLE: Duration = Duration::from_millis(1);

pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Connections to runners, for one event loop.
pub struct Forwarder {
    options: ForwardOptions,
    clock: Clock,
    pool: Mutex<Pool>,
    /// Room for work whose caller left.
    left_behind: Arc<Semaphore>,
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Why an attempt brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("no connection to the runner at {address}: {source}")]
    Connect { address: Arc<RunnerAddress>, source: io::Error },
    #[error("the runner at {address} did not accept a connection within {seconds} s")]
    ConnectTimeout { address: Arc<RunnerAddress>, seconds: f64 },
    #[error("the runner closed the connection before it answered")]
    Disconnected,
    #[error("the runner's answer broke off: {reason}")]
    Incomplete { reason: String },
    #[error("the runner's answer is not HTTP: {reason}")]
    Malformed { reason: String },
    #[error("the app's response headers are too large: {reason}")]
    HeadersTooLarge { reason: String },
    #[error("the app's answer is larger than {bytes_max} bytes")]
    AnswerTooLarge { bytes_max: usize },
    #[error("a stored request has a {what} that cannot be sent")]
    Unusable { what: String },
    #[error("the caller's connection broke before its request was complete")]
    CallerGone,
    #[error("the request's body is larger than this node allows")]
    BodyTooLarge,
    #[error("{0}")]
    Revoked(Refusal),
}

impl From<HeadFault> for ForwardError {
    fn from(fault: HeadFault) -> Self {
        let reason = fault.to_string();
        match fault {
            HeadFault::TooLarge => Self::HeadersTooLarge { reason },
            HeadFault::Syntax(_) | HeadFault::Framing(_) => Self::Malformed { reason },
        }
    }
}

impl From<RequestBodyError> for ForwardError {
    fn from(error: RequestBodyError) -> Self {
        match error {
            RequestBodyError::Caller(_) | RequestBodyError::Length => Self::CallerGone,
            RequestBodyError::TooLarge => Self::BodyTooLarge,
        }
    }
}

impl ForwardError {
    /// What the engine is told.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Connect { .. } | Self::ConnectTimeout { .. } => Outcome::ConnectFailed,
            Self::Disconnected
            | Self::Incomplete { .. }
            | Self::Malformed { .. }
            | Self::Revoked(_) => Outcome::Disconnected,
            // The app did answer, with something nobody can be given, or never could: another try would
            // be the same.
            Self::HeadersTooLarge { .. } | Self::AnswerTooLarge { .. } | Self::Unusable { .. } => {
                let status = ErrorType::RunnerServerError.status();
                Outcome::Answered(glowplug_core::request::Answer { status, ..Default::default() })
            }
            Self::CallerGone | Self::BodyTooLarge => Outcome::CallerGone,
        }
    }

    /// What the caller is told.
    pub fn problem(&self) -> Problem {
        let kind = match self {
            Self::Connect { source, .. } => match source.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                    ErrorType::RunnerConnectionRefused
                }
                _ => ErrorType::RunnerConnectionError,
            },
            Self::ConnectTimeout { .. } => ErrorType::RunnerConnectionTimeout,
            Self::Disconnected => ErrorType::RunnerDisconnected,
            Self::Incomplete { .. } | Self::Malformed { .. } => ErrorType::RunnerIncompleteResponse,
            Self::HeadersTooLarge { .. } | Self::AnswerTooLarge { .. } => {
                ErrorType::RunnerServerError
            }
            Self::Unusable { .. } => ErrorType::InternalError,
            Self::CallerGone => ErrorType::ClientDisconnected,
            Self::BodyTooLarge => ErrorType::PayloadTooLarge,
            Self::Revoked(refusal) => return Problem::from(refusal.clone()),
        };
        let problem = Problem::new(kind, self.to_string());
        match self {
            Self::Incomplete { .. } | Self::Malformed { .. } => problem.temporary(),
            _ => problem,
        }
    }
}

/// An answer's body, as far as it has come.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    /// Came together with the head: the connection is free again already.
    Whole(Bytes),
    Streaming(Box<RunnerBody>),
}

impl Forwarder {
    pub fn new(options: ForwardOptions, clock: Clock) -> Arc<Self> {
        let left_behind = Arc::new(Semaphore::new(LEFT_BEHIND_MAX));
        Arc::new(Self { options, clock, pool: Mutex::default(), left_behind })
    }

    /// Sends a request and waits for the head of the answer. Cancel-safe: dropping closes the
    /// connection to the runner.
    pub(crate) async fn exchange(
        self: &Arc<Self>,
        address: &Arc<RunnerAddress>,
        request: Request<RequestBody>,
    ) -> Result<Response<AnswerBody>, ForwardError> {
        self.exchange_on(&mut None, address, request).await
    }

    /// As [`Forwarder::exchange`], but dropping leaves the connection in `underway`, where it is from the
    /// moment it is open until the head of the answer has come.
    async fn exchange_on(
        self: &Arc<Self>,
        underway: &mut Option<Box<Connection>>,
        address: &Arc<RunnerAddress>,
        request: Request<RequestBody>,
    ) -> Result<Response<AnswerBody>, ForwardError> {
        let connection = match self.checkout(address).await {
            Some(connection) => connection,
            None => connection::connect(address, &self.options).await?,
        };
        let connection = underway.insert(connection);
        let head = connection.send(request).await?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let reason = "it switched protocols without being asked to".to_owned();
            return Err(ForwardError::Malformed { reason });
        }
        let whole = connection.take_whole();
        let connection = underway.take().expect("nobody else has taken it out");
        let body = match whole {
            Some(bytes) => {
                self.give_back(address, connection);
                AnswerBody::Whole(bytes)
            }
            None => RunnerBody::new(connection, self.clone(), address.clone()).prefetch().await?,
        };
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        Ok(response)
    }

    /// As [`Forwarder::exchange_on`], until the attempt is withdrawn.
    pub(crate) async fn exchange_until(
        self: &Arc<Self>,
        underway: &mut Option<Box<Connection>>,
        address: &Arc<RunnerAddress>,
        request: Request<RequestBody>,
        revocation: Option<&mut Revocation>,
    ) -> Result<Response<AnswerBody>, ForwardError> {
        unless_revoked(self.exchange_on(underway, address, request), revocation).await
    }

    /// Closes the pooled connections to a runner that is gone.
    pub fn forget(&self, address: &RunnerAddress) {
        let forgotten = self.pool().forget(address);
        drop(forgotten);
    }

    /// Closes pooled connections that were not used for long enough. To be called now and then.
    pub fn close_idle(&self) {
        let oldest = earlier((self.clock)(), self.options.idle_timeout);
        let closed = self.pool().take_older(oldest);
        drop(closed);
    }

    /// An idle connection that is still open, as far as can be known.
    async fn checkout(&self, address: &RunnerAddress) -> Option<Box<Connection>> {
        let now = (self.clock)();
        let oldest = earlier(now, self.options.idle_timeout);
        let (mut connection, since) = self.pool().checkout(address, oldest)?;
        if now - since > TRUSTED_IDLE {
            // Lets the event loop look at its sockets once, so that a close which came meanwhile is
            // noticed before the request is sent, while it can still be sent elsewhere.
            tokio::task::yield_now().await;
        }
        if connection.is_stale().await {
            // So its siblings are suspects too.
            self.forget(address);
            return None;
        }
        Some(connection)
    }

    /// Keeps a connection for the next request, if it can serve one.
    fn give_back(&self, address: &RunnerAddress, connection: Box<Connection>) {
        if !connection.is_reusable() {
            return;
        }
        let max = self.options.idle_per_runner_max;
        let surplus = self.pool().give_back(address, connection, (self.clock)(), max);
        drop(surplus);
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Pool> {
        // The pool is consistent after every one of its operations, whoever panicked in between.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn options(&self) -> &ForwardOptions {
        &self.options
    }
}

fn earlier(at: Timestamp, span: Duration) -> Timestamp {
    let span = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    Timestamp::from_micros(at.as_micros().saturating_sub(span))
}

/// What an exchange with a runner gave, unless its attempt is withdrawn first.
pub(crate) async fn unless_revoked<T>(
    exchange: impl Future<Output = Result<T, ForwardError>>,
    revocation: Option<&mut Revocation>,
) -> Result<T, ForwardError> {
    let Some(revocation) = revocation else { return exchange.await };
    tokio::select! {
        biased;
        answer = exchange => match (answer, revocation.try_recv()) {
            // The runner is ended because the attempt was withdrawn, and may be gone before that is read.
            (Err(_), Ok(refusal)) => Err(ForwardError::Revoked(refusal)),
            (answer, _) => answer,
        },
        refusal = revoked(revocation) => Err(ForwardError::Revoked(refusal)),
    }
}

/// Waits until the slot is withdrawn; for ever if nobody can any more.
pub(crate) async fn revoked(revocation: &mut Revocation) -> Refusal {
    if !revocation.is_terminated()
        && let Ok(refusal) = revocation.await
    {
        return refusal;
    }
    std::future::pending().await
}

/// The same as a value that can be kept.
pub(crate) fn withdrawal(mut revocation: Revocation) -> BoxFuture<'static, Refusal> {
    Box::pin(async move { revoked(&mut revocation).await })
}
