//! Everything that can wake the engine.

use crate::ids::{AppId, Lease, RequestId, RunnerId};
use crate::request::{Arrival, Outcome};
use crate::resources::{Allocation, Capacity};
use crate::spec::AppSpec;
use crate::time::Timestamp;
use crate::warmth::Rung;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An app was deployed, or its settings changed.
    AppChanged {
        app: AppId,
        spec: AppSpec,
    },
    /// An app was removed: its runners end, its waiting requests are refused.
    AppRemoved {
        app: AppId,
    },
    /// What the node offers changed.
    CapacityChanged {
        capacity: Capacity,
    },

    Arrived(Arrival),
    /// The caller cancelled, or a direct caller went away.
    Cancelled {
        request: RequestId,
    },
    /// An attempt ended. Reports with an old lease are ignored.
    Finished {
        lease: Lease,
        outcome: Outcome,
    },

    /// The backend fetches what the runner's start needs.
    PullStarted {
        runner: RunnerId,
    },
    /// The runner's program was spawned, from what `rung` says. A backend does not know what had to be
    /// fetched before: of a runner that was in DOCKER_PULL `ImageCached` is taken for `Cold`.
    SetupStarted {
        runner: RunnerId,
        rung: Rung,
    },
    /// The runner answers.
    Ready {
        runner: RunnerId,
    },
    /// The backend has no room for the runner after all.
    NoRoom {
        runner: RunnerId,
        detail: String,
    },
    /// Nothing is left of the runner. `detail` is for people: exit code and last words.
    Exited {
        runner: RunnerId,
        detail: String,
    },
    /// A runner of an earlier life of the node still lives. To be reported after its app: one of an app
    /// that is not known is ended.
    Adopted(Adopted),
    /// The runner no longer accepts connections, or failed its health checks.
    Unhealthy {
        runner: RunnerId,
        detail: String,
    },

    /// The runner has no processor any more. What it still holds of the memory counts from now on.
    Frozen {
        runner: RunnerId,
        held_bytes: u64,
    },
    /// The runner has its processor back.
    Thawed {
        runner: RunnerId,
    },
    /// The runner could not be frozen, and runs on.
    FreezeFailed {
        runner: RunnerId,
        detail: String,
    },
    /// A runner is wanted of which a snapshot is to be taken. It starts when there is room that nobody else
    /// waits for, serves no requests, counts for nothing and is the first to go. Whoever asked ends it.
    CaptureRequested {
        app: AppId,
    },
    /// It is wanted no more, if it has not started yet.
    CaptureForgone {
        app: AppId,
    },

    /// Somebody asked to end a runner.
    StopRequested {
        runner: RunnerId,
        how: StopRequest,
    },
    /// Somebody asked for warm runners: as many as are missing to `runners` are started now, 64 at a time
    /// if they must wait for a place. They serve out `keep_alive` once they are ready.
    WarmRequested {
        app: AppId,
        runners: u32,
    },
    /// Somebody is about to use the app: opened its page, asks for the status of a request. Says something
    /// only of apps that are scaled by what is learned of them.
    Interest {
        app: AppId,
    },
    /// The node ends: nothing starts any more, every runner is told to end.
    ShutDown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopRequest {
    /// Let what is in flight finish within the grace period.
    Graceful,
    /// First start another and wait until it is ready.
    ReplaceFirst,
    /// Now; what is in flight is lost (and retried if it came through the queue).
    Kill,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    pub runner: RunnerId,
    pub app: AppId,
    pub revision: u32,
    pub allocation: Allocation,
    pub started_at: Timestamp,
    /// It answers already; else its setup still runs.
    pub ready: bool,
    /// It has no processor.
    pub frozen: bool,
}
