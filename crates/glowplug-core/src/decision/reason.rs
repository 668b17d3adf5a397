//! Why runners start and end.

use std::fmt;
use std::time::Duration;

use crate::auto::KeptWhy;
use crate::ids::{RequestId, RunnerId};
use crate::time::Pretty;

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
    /// A snapshot is to be taken of it. It serves nobody.
    Capture,
}

impl StartCause {
    pub const ALL: [Self; 11] = [
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
        Self::Capture,
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
            Self::Capture => "capture",
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
            Self::Capture => "a snapshot is to be taken of it",
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
    /// Nothing asked for it while it was frozen.
    FrozenFor {
        frozen: Duration,
    },
    /// Frozen runners held more memory than they may, and it was used longest ago.
    FrozenMemory {
        held_bytes: u64,
        max_bytes: u64,
    },
    /// It was to be frozen, and the host could not.
    CannotFreeze {
        detail: String,
    },
    /// The snapshot that it was started for was not taken in time.
    CaptureOverdue {
        seconds: u64,
    },
    AppRemoved,
    ShutDown,
    /// It was asked to end and did not.
    Stuck,
}

impl StopReason {
    /// Nothing had asked for it for long.
    pub(crate) fn is_expiry(&self) -> bool {
        matches!(self, Self::KeepAlive { .. } | Self::Unused { .. })
    }

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
            Self::FrozenFor { .. } => "frozen_for",
            Self::FrozenMemory { .. } => "frozen_memory",
            Self::CannotFreeze { .. } => "cannot_freeze",
            Self::CaptureOverdue { .. } => "capture_overdue",
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
            Self::FrozenFor { frozen } => {
                write!(f, "it was frozen for {}, its frozen_for", Pretty(*frozen))
            }
            Self::FrozenMemory { held_bytes, max_bytes } => {
                const MIB: u64 = 1 << 20;
                let (held, max) = (held_bytes / MIB, max_bytes / MIB);
                write!(f, "frozen runners held {held} MiB, and {max} MiB is what they may")
            }
            Self::CannotFreeze { detail } => write!(f, "it could not be frozen: {detail}"),
            Self::CaptureOverdue { seconds } => {
                write!(f, "no snapshot was taken of it within {seconds} s")
            }
            Self::AppRemoved => f.write_str("its app was removed"),
            Self::ShutDown => f.write_str("the node is shutting down"),
            Self::Stuck => f.write_str("it did not end when asked to"),
        }
    }
}
