//! What was decided and why, as values. Logs, metrics, `glowplug why` and the dashboard show these, so
//! all of them say the same.

mod reason;

use std::fmt;
use std::time::Duration;

pub use reason::{StartCause, StopReason};

use crate::auto::{InterestWhy, SpareWhy, WakeWhy};
use crate::ids::{AppId, RequestId, RunnerId};
use crate::lifecycle::{Input, State};
use crate::request::Refusal;
use crate::resources::Shortage;
use crate::retry::Condition;
use crate::scaler::Target;
use crate::time::{Pretty, Timestamp};
use crate::warmth::Rung;

/// One decision, or one thing that happened and led to decisions.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub at: Timestamp,
    pub app: AppId,
    /// The app's name, for the sentence.
    pub name: String,
    pub runner: Option<RunnerId>,
    pub request: Option<RequestId>,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A runner is wanted. `alive`: runners before it.
    Wanted {
        cause: StartCause,
        target: Target,
        alive: u32,
    },
    /// Why a runner is wanted for a request that has not come yet.
    Foreseen(Foresight),
    /// It has its resources. `waited`: in PENDING.
    Placed {
        machine_type: String,
        gpus: Vec<u32>,
        waited: Duration,
    },
    /// Nothing fits; it waits for room. One shortage per machine type.
    NoRoom {
        shortages: Vec<(String, Shortage)>,
    },
    /// The backend had no room.
    BackendFull {
        detail: String,
        again_in: Duration,
    },
    /// It waits, since the app's last start failed.
    Delayed {
        failures: u32,
        wait: Duration,
    },
    /// `took`: from PENDING to IDLE, `setup`: of it in SETUP. `rung`: what it began with, if that is known.
    Ready {
        took: Duration,
        setup: Duration,
        rung: Option<Rung>,
    },
    /// It is kept without a processor instead of being ended for `reason`.
    Freezing {
        reason: StopReason,
    },
    /// A frozen runner is wanted again.
    Thawing {
        cause: StartCause,
        frozen: Duration,
    },
    /// It serves again. `took`: from when it was wanted.
    Thawed {
        took: Duration,
    },
    StartFailed {
        detail: String,
        failures: u32,
        again_in: Duration,
    },
    Stopping {
        reason: StopReason,
        state: State,
    },
    /// It ended by itself, in this state.
    Died {
        detail: String,
        state: State,
    },
    Ended {
        lived: Duration,
        served: u64,
    },
    /// A runner in use gets no new requests, since another app has waited too long for its place.
    SwappedOut {
        by: String,
        waited: Duration,
    },
    /// A request had to wait for its runner. `started`: the runner was not ready when it arrived. `rung`: what
    /// the runner's last wake-up began with, if that is known.
    Served {
        waited: Duration,
        started: bool,
        rung: Option<Rung>,
        attempt: u32,
    },
    /// A request went to a runner that has its caller's hint, and not to the one that was next.
    Hinted {
        other: RunnerId,
    },
    Refused {
        refusal: Refusal,
        waited: Duration,
    },
    Retried {
        condition: Condition,
        attempt: u32,
        delay: Duration,
    },
    /// A report that cannot be true of this runner was not acted on.
    Denied {
        state: State,
        input: Input,
        why: &'static str,
    },
}

/// Why a request is expected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Foresight {
    /// Others will follow the one that woke the app up.
    Spare(SpareWhy),
    /// The app is used like clockwork.
    Wake(WakeWhy),
    /// Somebody shows interest in it.
    Interest(InterestWhy),
}

impl fmt::Display for Foresight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spare(why) => why.fmt(f),
            Self::Wake(why) => why.fmt(f),
            Self::Interest(why) => why.fmt(f),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        let runner = OrUnknown(self.runner);
        let request = OrUnknown(self.request);
        match &self.what {
            What::Wanted { cause, target, alive } => write!(
                f,
                "{runner} of {name} was wanted because {cause}: {} request(s) need {} runner(s) plus \
                 {} spare, {} in all, and {alive} were alive",
                target.volume, target.demand, target.buffer, target.desired
            ),
            What::Foreseen(foresight) => {
                write!(f, "{runner} of {name} is expected to be used: {foresight}")
            }
            What::Placed { machine_type, gpus, waited } => {
                write!(f, "{runner} of {name} was placed as {machine_type}")?;
                if !gpus.is_empty() {
                    write!(f, " on GPU {}", Listed(gpus))?;
                }
                write!(f, " after {} in PENDING", Pretty(*waited))
            }
            What::NoRoom { shortages } => {
                write!(f, "{runner} of {name} waits in PENDING, since nothing fits:")?;
                for (at, (machine, shortage)) in shortages.iter().enumerate() {
                    write!(f, "{} {machine} {shortage}", if at == 0 { "" } else { ";" })?;
                }
                Ok(())
            }
            What::BackendFull { detail, again_in } => write!(
                f,
                "{runner} of {name} found no room ({detail}); the next try is in {}",
                Pretty(*again_in)
            ),
            What::Delayed { failures, wait } => write!(
                f,
                "{runner} of {name} waits {} in FAILURE_DELAY, since {failures} start(s) in a row failed",
                Pretty(*wait)
            ),
            What::Ready { took, setup, rung } => {
                let (took, setup) = (Pretty(*took), Pretty(*setup));
                write!(f, "{runner} of {name} became ready after {took}, of it {setup} in SETUP")?;
                rung.map_or(Ok(()), |rung| write!(f, ", {rung}"))
            }
            What::Freezing { reason } => {
                write!(f, "{runner} of {name} was frozen instead of stopped: {reason}")
            }
            What::Thawing { cause, frozen } => {
                write!(f, "{runner} of {name} is thawed after {}, because {cause}", Pretty(*frozen))
            }
            What::Thawed { took } => {
                let (took, rung) = (Pretty(*took), Rung::Frozen);
                write!(f, "{runner} of {name} became ready after {took}, {rung}")
            }
            What::StartFailed { detail, failures, again_in } => write!(
                f,
                "{runner} of {name} failed to start ({detail}); failure {failures} in a row, the next \
                 try is in {}",
                Pretty(*again_in)
            ),
            What::Stopping { reason, state } => {
                write!(f, "{runner} of {name} was stopped in {state} because {reason}")
            }
            What::Died { detail, state } => {
                write!(f, "{runner} of {name} died in {state}: {detail}")
            }
            What::Ended { lived, served } => write!(
                f,
                "{runner} of {name} is gone; it lived {} and served {served} request(s)",
                Pretty(*lived)
            ),
            What::SwappedOut { by, waited } => write!(
                f,
                "{runner} of {name} gets no new requests, since {by} has waited {} for its place",
                Pretty(*waited)
            ),
            What::Served { waited, started, rung, attempt } => {
                write!(f, "request {request} of {name} waited {} for {runner}", Pretty(*waited))?;
                f.write_str(match (started, rung) {
                    (false, _) => "",
                    (true, Some(Rung::Frozen)) => ", which was thawed for it",
                    (true, _) => ", which was started for it",
                })?;
                if *attempt > 1 {
                    write!(f, " (attempt {attempt})")?;
                }
                Ok(())
            }
            What::Hinted { other } => write!(
                f,
                "request {request} of {name} went to {runner} and not to {other}, since {runner} has its \
                 hint"
            ),
            What::Refused { refusal, waited } => write!(
                f,
                "request {request} of {name} was refused after {}: {refusal}",
                Pretty(*waited)
            ),
            What::Retried { condition, attempt, delay } => write!(
                f,
                "attempt {attempt} of request {request} of {name} failed on {runner} ({condition}); it \
                 is tried again in {}",
                Pretty(*delay)
            ),
            What::Denied { state, input, why } => {
                write!(f, "{input:?} was not accepted for {runner} of {name} in {state}: {why}")
            }
        }
    }
}

struct OrUnknown<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrUnknown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(known) => known.fmt(f),
            None => f.write_str("?"),
        }
    }
}

struct Listed<'a>(&'a [u32]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
