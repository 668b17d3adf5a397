//! Everything the engine can want done. Its driver performs actions in order and never chooses.

use std::fmt;
use std::time::Duration;

use crate::decision::{Decision, StartCause, StopReason};
use crate::ids::{AppId, Lease, RequestId, RunnerId};
use crate::request::{Mode, Refusal};
use crate::resources::Allocation;
use crate::time::Pretty;

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start this runner on these resources.
    Start { runner: RunnerId, app: AppId, revision: u32, allocation: Allocation, cause: StartCause },
    /// End this runner. `grace`: from SIGTERM to SIGKILL; `None`: SIGKILL at once.
    Stop { runner: RunnerId, grace: Option<Duration>, reason: StopReason },
    /// Take its processor from the runner, which nothing uses; report `Frozen` or `FreezeFailed`.
    Freeze { runner: RunnerId },
    /// Give it back; report `Thawed`.
    Thaw { runner: RunnerId },
    /// See whether the runner still accepts connections; report `Unhealthy` if not.
    Probe { runner: RunnerId },
    /// The runner's record is complete and was dropped here; its files may go too.
    Forget { runner: RunnerId },

    /// Send the request to the runner.
    Assign { lease: Lease, mode: Mode },
    /// Tell the request's caller that it gets no runner.
    Refuse { request: RequestId, mode: Mode, refusal: Refusal },
    /// The attempt's answer is the request's answer.
    Deliver { lease: Lease },
    /// The attempt's answer is void; the request waits `delay` and is then tried again.
    Retry { lease: Lease, delay: Duration },
    /// Withdraw the attempt: whatever it still does is void.
    Revoke { lease: Lease, refusal: Refusal },
    /// Tell the app that the caller cancelled; the attempt goes on until it ends by itself.
    Interrupt { lease: Lease },

    /// Nothing to do; something to tell.
    Note(Decision),
}

/// For people who look at what a driver is told. A note says all that it has to say itself.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { runner, allocation, cause, .. } => {
                write!(f, "start {runner} on {}, because {cause}", allocation.machine_type)
            }
            Self::Stop { runner, grace: Some(grace), reason } => {
                write!(f, "stop {runner} within {}, because {reason}", Pretty(*grace))
            }
            Self::Stop { runner, grace: None, reason } => {
                write!(f, "kill {runner}, because {reason}")
            }
            Self::Freeze { runner } => write!(f, "freeze {runner}"),
            Self::Thaw { runner } => write!(f, "thaw {runner}"),
            Self::Probe { runner } => write!(f, "see whether {runner} accepts connections"),
            Self::Forget { runner } => write!(f, "forget {runner}"),
            Self::Assign { lease, .. } => write!(f, "give {lease}"),
            Self::Refuse { request, refusal, .. } => write!(f, "refuse {request}: {refusal}"),
            Self::Deliver { lease } => write!(f, "deliver the answer of {lease}"),
            Self::Retry { lease, delay } => {
                write!(f, "try again after {}, instead of {lease}", Pretty(*delay))
            }
            Self::Revoke { lease, refusal } => write!(f, "withdraw {lease}: {refusal}"),
            Self::Interrupt { lease } => write!(f, "tell the app to stop {lease}"),
            Self::Note(decision) => decision.fmt(f),
        }
    }
}
