//! What was decided and why, as values. Logs, metrics, `glowplug why` and the dashboard show these, so
//! all of them say the same.

use std::fmt;
use std::time::Duration;

use crate::auto::{InterestWhy, KeptWhy, SpareWhy, WakeWhy};
use crate::ids::{AppId, RequestId, RunnerId};
use crate::lifecycle::{Input, State};
use crate::request::Refusal;
use crate::resources::Shortage;
use crate::retry::Condition;
use crate::scaler::Target;
use crate::time::{Pretty, Timestamp};
use crate::warmth::Rung;

/// Why a runner was started: every cold start has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StartCause {
    /// No runner of the app was ever ready.
    FirstDeployment,
    /// The last warm runner had expired in a quiet time.
    Expired,
    /// No warm runner for another reason: crashed, stopped, or its place was taken.
    NoWarmRunner,
    /// Every warm runner was busy.
    Spike,
    /// `min_concurrency`.
    Floor,
    /// `concurrency_buffer` or `concurrency_buffer_perc`.
    Buffer,
    /// A request is expected, from what was learned of the app's traffic.
    Foreseen,
    /// Somebody asked for it.
    Manual,
    /// To take the place of a runner that was told to end.
    Replacement,
    /// It lived on from before a restart of the node.
    Adopted,
}

impl StartCause {
    pub const ALL: [Self; 10] = [
        Self::FirstDeployment,
        Self::Expired,
        Self::NoWarmRunner,
        Self::Spike,
        Self::Floor,
        Self::Buffer,
        Self::Foreseen,
        Self::Manual,
        Self::Replacement,
        Self::Adopted,
    ];

    /// Metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::FirstDeployment => "first_deployment",
            Self::Expired => "expired",
            Self::NoWarmRunner => "no_warm_runner",
            Self::Spike => "spike",
            Self::Floor => "floor",
            Self::Buffer => "buffer",
            Self::Foreseen => "foreseen",
            Self::Manual => "manual",
            Self::Replacement => "replacement",
            Self::Adopted => "adopted",
        }
    }

    /// A request waits for it.
    pub fn is_demand(self) -> bool {
        matches!(self, Self::FirstDeployment | Self::Expired | Self::NoWarmRunner | Self::Spike)
    }
}

impl fmt::Display for StartCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FirstDeployment => "the app had never run before",
            Self::Expired => "the last warm runner had expired while nothing came",
            Self::NoWarmRunner => "no warm runner was left",
            Self::Spike => "every warm runner was busy",
            Self::Floor => "min_concurrency asks for it",
            Self::Buffer => "the concurrency buffer asks for it",
            Self::Foreseen => "a request is expected",
            Self::Manual => "somebody asked for it",
            Self::Replacement => "it replaces a runner that was told to end",
            Self::Adopted => "it lived on from before the node's restart",
        })
    }
}

/// Why a runner ends.
#[derive(Clone, Debug, PartialEq)]
pub enum StopReason {
    /// Idle for its `keep_alive`.
    KeepAlive {
        idle: Duration,
    },
    /// Never got a request.
    Unused {
        idle: Duration,
    },
    /// Learned traffic does not make it worth keeping any longer.
    Unlikely {
        idle: Duration,
        why: KeptWhy,
    },
    /// Not needed any more before it was ready.
    Surplus,
    /// More runners than `max_concurrency`, which was lowered.
    OverCap {
        cap: u32,
    },
    /// Its place was needed by another app.
    Evicted {
        by: String,
    },
    /// Setup took too long.
    StartupTimeout {
        seconds: u64,
    },
    /// An attempt took too long.
    RequestTimeout {
        request: RequestId,
        seconds: u64,
    },
    /// It answered 503, broke off, or asked to be stopped.
    BadAnswer {
        detail: String,
    },
    Unhealthy {
        detail: String,
    },
    /// Newer code was deployed.
    Outdated {
        revision: u32,
    },
    Requested,
    Killed,
    Replaced {
        by: RunnerId,
    },
    AppRemoved,
    ShutDown,
    /// It was asked to end and did not.
    Stuck,
}

impl StopReason {
    /// Metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::KeepAlive { .. } => "keep_alive",
            Self::Unused { .. } => "unused",
            Self::Unlikely { .. } => "unlikely",
            Self::Surplus => "surplus",
            Self::OverCap { .. } => "over_cap",
            Self::Evicted { .. } => "evicted",
            Self::StartupTimeout { .. } => "startup_timeout",
            Self::RequestTimeout { .. } => "request_timeout",
            Self::BadAnswer { .. } => "bad_answer",
            Self::Unhealthy { .. } => "unhealthy",
            Self::Outdated { .. } => "outdated",
            Self::Requested => "requested",
            Self::Killed => "killed",
            Self::Replaced { .. } => "replaced",
            Self::AppRemoved => "app_removed",
            Self::ShutDown => "shut_down",
            Self::Stuck => "stuck",
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeepAlive { idle } => {
                write!(f, "it was idle for {}, its keep_alive", Pretty(*idle))
            }
            Self::Unused { idle } => write!(f, "it got no request for {}", Pretty(*idle)),
            Self::Unlikely { idle, why } => write!(f, "it was idle for {}: {why}", Pretty(*idle)),
            Self::Surplus => f.write_str("it was no longer needed"),
            Self::OverCap { cap } => write!(f, "max_concurrency was lowered to {cap}"),
            Self::Evicted { by } => write!(f, "{by} needed its place"),
            Self::StartupTimeout { seconds } => {
                write!(f, "it was not ready within its startup_timeout of {seconds} s")
            }
            Self::RequestTimeout { request, seconds } => {
                write!(f, "request {request} overran its request_timeout of {seconds} s")
            }
            Self::BadAnswer { detail } | Self::Unhealthy { detail } => f.write_str(detail),
            Self::Outdated { revision } => write!(f, "revision {revision} was deployed"),
            Self::Requested => f.write_str("somebody asked it to stop"),
            Self::Killed => f.write_str("somebody killed it"),
            Self::Replaced { by } => write!(f, "{by} took its place"),
            Self::AppRemoved => f.write_str("its app was removed"),
            Self::ShutDown => f.write_str("the node is shutting down"),
            Self::Stuck => f.write_str("it did not end when asked to"),
        }
    }
}

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
    /// A request had to wait for its runner. `started`: the runner was not there when it arrived.
    Served {
        waited: Duration,
        started: bool,
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
            What::Served { waited, started, attempt } => {
                write!(f, "request {request} of {name} waited {} for {runner}", Pretty(*waited))?;
                f.write_str(if *started { ", which was started for it" } else { "" })?;
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
