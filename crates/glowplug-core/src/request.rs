//! A request as the engine sees it: no bytes, only what decides.

use std::fmt;

use crate::ids::{AppId, CallerId, HintId, RequestId};
use crate::retry::Wish;
use crate::time::Timestamp;

/// Who waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A caller on an open connection. Never retried by the engine.
    Direct,
    /// A durable request of the queue.
    Queued,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    Normal,
    /// Served only when no normal request of the app waits.
    Low,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub request: RequestId,
    pub app: AppId,
    pub mode: Mode,
    pub priority: Priority,
    /// The request must be given to a runner before this moment, or it is refused.
    pub start_deadline: Option<Timestamp>,
    /// For fairness between the callers of one app.
    pub caller: CallerId,
    /// `X-Fal-Runner-Hint`: a runner that has it is preferred.
    pub hint: Option<HintId>,
    /// What the caller says about retries.
    pub retries: Wish,
    /// Attempts that it had before it came here, as far as is known: in an earlier life of the node, or on
    /// another.
    pub attempts: u32,
}

/// How one attempt ended, as the gateway saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The app answered, whatever the status.
    Answered(Answer),
    /// No connection could be made; nothing of the request reached the app.
    ConnectFailed,
    /// The connection broke before the answer was complete.
    Disconnected,
    /// The caller went away or cancelled; the app may or may not have finished.
    CallerGone,
}

/// What of an app's answer decides about retry and runner.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Answer {
    pub status: u16,
    /// `X-Fal-Needs-Retry`, if the app sent it.
    pub needs_retry: Option<bool>,
    /// `x-fal-stop-runner`, if the app sent it.
    pub stop_runner: Option<bool>,
    /// `x-fal-runner-health-check: true`.
    pub check_health: bool,
    /// `X-Fal-Runner-Hints`, if the app sent it.
    pub hints: Option<Hints>,
}

/// What a runner says it is good for: callers that name one of its hints are best served there. An empty
/// list accepts every hint.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Hints(Box<[HintId]>);

impl Hints {
    /// Hints of one runner. The first ones count; what an app names beyond is dropped.
    pub const MAX: usize = 64;

    /// From the value of the header: texts with commas between.
    pub fn parse(header: &str) -> Self {
        header.split(',').map(str::trim).filter(|hint| !hint.is_empty()).map(HintId::of).collect()
    }

    pub fn name(&self, hint: HintId) -> bool {
        self.0.contains(&hint)
    }

    /// Whether the runner is good for what a caller asks for.
    pub fn accept(&self, hint: HintId) -> bool {
        self.0.is_empty() || self.name(hint)
    }
}

impl FromIterator<HintId> for Hints {
    fn from_iter<I: IntoIterator<Item = HintId>>(hints: I) -> Self {
        Self(hints.into_iter().take(Self::MAX).collect())
    }
}

/// Why a waiting request will get no runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The caller's own start deadline passed.
    StartDeadline,
    /// A direct request's app failed to start and nothing else is on its way.
    StartFailed { reason: String },
    /// As `StartFailed`, because `startup_timeout` passed.
    StartupTimeout { seconds: u64 },
    /// No machine type of the app could ever fit this node.
    Unschedulable { reason: String },
    /// The app was removed while the request waited.
    AppRemoved,
    /// Cancelled by its caller.
    Cancelled,
    /// More requests wait than `waiting_max` of the engine's config allows.
    QueueFull { limit: usize },
    /// The attempt overran `request_timeout`; its runner is being stopped.
    RequestTimeout { seconds: u64 },
    /// The runner ended and its gateway never said how the attempt did.
    RunnerLost,
    /// The node is shutting down. Queued requests stay in the queue.
    ShuttingDown,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartDeadline => f.write_str("the request did not start before its deadline"),
            Self::StartFailed { reason } => write!(f, "the app failed to start: {reason}"),
            Self::StartupTimeout { seconds } => {
                write!(f, "the app was not ready within its startup_timeout of {seconds} s")
            }
            Self::Unschedulable { reason } => {
                write!(f, "the app cannot run on this node: {reason}")
            }
            Self::AppRemoved => f.write_str("the app was removed"),
            Self::Cancelled => f.write_str("the request was cancelled"),
            Self::QueueFull { limit } => write!(f, "{limit} requests wait already"),
            Self::RequestTimeout { seconds } => {
                write!(f, "the request took longer than its request_timeout of {seconds} s")
            }
            Self::RunnerLost => f.write_str("the runner was lost"),
            Self::ShuttingDown => f.write_str("the node is shutting down"),
        }
    }
}
