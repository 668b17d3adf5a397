//! What every way of running a program offers the node.
//!
//! A backend never chooses: it is told to start this runner with these devices, to stop that one, and it
//! reports what it sees. Placement, retries and timeouts belong to the engine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use glowplug_core::{Rung, RunnerId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::container::ContainerSpec;

/// The node's clock, as backends see it.
pub type Clock = std::sync::Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Object-safe, shared by the executor and the control API.
pub trait Backend: Send + Sync + 'static {
    /// `process`, `fake`, …; a metric label.
    fn name(&self) -> &'static str;

    /// Starts the runner unless one with this id exists already (invariant 6: `ensure` twice starts one).
    /// Returns once the start is under way; everything after comes as [`Notice`]s.
    fn ensure<'a>(&'a self, spec: &'a RunnerSpec) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Ends a runner. Idempotent: an unknown or ended runner is a success. Returns once the stop is
    /// under way; [`Notice::Exited`] tells the end.
    fn stop(&self, runner: RunnerId, mode: StopMode) -> BoxFuture<'_, Result<(), BackendError>>;

    /// Captures the memory of a runner that was started [enclosed](Warm::Enclosed) and is ready, to an empty
    /// directory. [`Notice::Captured`] tells how that went, and of success also the end.
    fn capture(&self, runner: RunnerId, dir: PathBuf) -> BoxFuture<'_, Result<(), BackendError>> {
        let _ = dir;
        Box::pin(std::future::ready(Err(BackendError::NoCaptures(runner))))
    }

    /// Takes the processor from a ready runner that nothing uses, and its memory as far as that goes.
    /// Idempotent. Returns once that is under way; [`Notice::Frozen`] tells how it went. A frozen runner is
    /// stopped like any other.
    fn freeze(&self, runner: RunnerId) -> BoxFuture<'_, Result<(), BackendError>> {
        let problem = "this kind of runner cannot be frozen".to_owned();
        Box::pin(async move { Err(BackendError::Freeze { runner, problem }) })
    }

    /// Gives it back. Idempotent; [`Notice::Thawed`] tells when it runs again.
    fn thaw(&self, runner: RunnerId) -> BoxFuture<'_, Result<(), BackendError>> {
        let problem = "this kind of runner cannot be frozen".to_owned();
        Box::pin(async move { Err(BackendError::Freeze { runner, problem }) })
    }

    /// Every runner that exists now, found anew (also those of an earlier life of the node).
    fn observe(&self) -> BoxFuture<'_, Result<Vec<ObservedRunner>, BackendError>>;

    /// The captured log, oldest line first, from line `from` (0-based, counted since the start, gaps
    /// where the cap dropped lines). With `follow`, the stream ends only with the runner; without, it holds
    /// all that the program had written before the call.
    fn logs(
        &self,
        runner: RunnerId,
        from: u64,
        follow: bool,
    ) -> BoxFuture<'_, Result<BoxStream<'static, LogLine>, BackendError>>;

    /// Forgets an ended runner and deletes its files (its log with them).
    fn forget(&self, runner: RunnerId) -> BoxFuture<'_, Result<(), BackendError>>;

    /// Takes the receiving end of the notices. Called once, before the first `ensure`; `None` after.
    fn notices(&self) -> Option<mpsc::Receiver<Notice>>;
}

/// A runner to start, completely decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerSpec {
    pub id: RunnerId,
    /// `owner/app`, for logs and for finding a runner's app again after a restart of the node.
    pub app: String,
    /// The app's revision, likewise.
    pub revision: u32,
    /// Opaque to the backend, handed back by `observe`: what the node needs to adopt the runner.
    pub labels: BTreeMap<String, String>,
    /// Program and arguments. `$PORT` and `${PORT}` in an argument are replaced by the port,
    /// `$GLOWPLUG_SOCKET` and `${GLOWPLUG_SOCKET}` by the socket's path.
    pub argv: Vec<String>,
    pub cwd: PathBuf,
    /// Added to a minimal environment (PATH, HOME, LANG, TMPDIR), not to the node's own.
    pub env: BTreeMap<String, String>,
    pub listen: Listen,
    /// After the socket accepts, this path must answer 2xx before the runner is ready.
    pub health_path: Option<String>,
    pub limits: Limits,
    /// GPUs by index; becomes `CUDA_VISIBLE_DEVICES` (empty: no GPU is visible).
    pub gpus: Vec<u32>,
    /// Run as this unprivileged user (name or numeric id). `None`: as the node.
    pub user: Option<String>,
    /// Run in a container. Then program, `cwd` and user are the container's, and `user` must be `None`.
    pub container: Option<ContainerSpec>,
    /// What it begins with. Whatever goes wrong with it, the program is started plainly instead.
    pub warm: Warm,
    /// From SIGTERM to SIGKILL when the runner must be stopped without the node's say (node gone for good).
    pub grace: Duration,
    /// If the node vanishes and no other takes over for this long, the runner ends by itself.
    pub orphan_timeout: Duration,
}

/// What a start begins with: the node chooses it, the backend does it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Warm {
    /// The program itself, from its beginning.
    #[default]
    Plain,
    /// A fork of the process that listens on this socket.
    Zygote { socket: PathBuf },
    /// The program itself, where its memory can be captured by this CRIU.
    Enclosed { criu: PathBuf },
    /// The memory of a runner that was set up, restored from the directory it was captured to.
    Snapshot { criu: PathBuf, dir: PathBuf },
}

impl Warm {
    /// The rung of a start that goes as asked. Whether something had to be fetched before it is not for a
    /// backend to know.
    pub fn rung(&self) -> Rung {
        match self {
            Self::Plain | Self::Enclosed { .. } => Rung::ImageCached,
            Self::Zygote { .. } => Rung::Zygote,
            Self::Snapshot { .. } => Rung::Snapshot,
        }
    }
}

/// How the program takes connections. Loopback only in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A free loopback port, passed as `PORT` (and `HOST=127.0.0.1`). In a container with a network of its
    /// own it is the container's port, on any address.
    Port,
    /// A unix socket, whose path is passed as `GLOWPLUG_SOCKET`.
    UnixSocket,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Hard CPU limit in thousandths of a core. `None`: unlimited.
    pub cpu_millis: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub pids_max: Option<u64>,
    /// Lowered only, never raised.
    pub open_files_max: Option<u64>,
}

pub use glowplug_core::RunnerAddress;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// SIGTERM now, SIGKILL to the whole group after `grace`.
    Graceful { grace: Duration },
    /// SIGKILL to the whole group now.
    Kill,
}

/// What a backend tells, in order per runner. A runner that was found (by [`Backend::observe`], or by an
/// `ensure` that came second) is told anew: `Ready` at once if it is ready, never `Spawned`.
#[derive(Clone, Debug)]
pub enum Notice {
    /// The program (or what prepares it) is running: SETUP has begun. `rung`: what it began with in the end;
    /// `ImageCached` if it was started plainly.
    Spawned { runner: RunnerId, at: Timestamp, rung: Rung },
    /// The socket accepts and the health path, if any, answered 2xx.
    Ready { runner: RunnerId, at: Timestamp, address: RunnerAddress },
    /// Its snapshot was of no use, and the program was started plainly instead. Comes before `Spawned`.
    NotRestored { runner: RunnerId, problem: String },
    /// The answer to [`Backend::capture`]. With a `problem` there is nothing of use in the directory. The
    /// program has ended or is good for nothing else.
    Captured { runner: RunnerId, problem: Option<String> },
    /// It has no processor any more, and holds so many bytes of memory; or why it could not be frozen.
    Frozen { runner: RunnerId, at: Timestamp, frozen: Result<u64, String> },
    /// It has its processor back.
    Thawed { runner: RunnerId, at: Timestamp },
    /// What a program whose start was to be recorded has opened until it was ready. Comes after `Ready`, or
    /// not at all.
    Touched { runner: RunnerId, files: TouchedFiles },
    /// Nothing of the runner is left: no process, no cgroup, no socket. Exactly once per runner.
    Exited { runner: RunnerId, at: Timestamp, exit: Exit },
}

/// The files of its image that a program has opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TouchedFiles {
    /// Relative to the root, in the order of first use, each once.
    pub paths: Vec<Vec<u8>>,
    /// Whether there were no more.
    pub is_complete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub cause: ExitCause,
    /// The last lines of the log, for the error a person reads (at most 20 lines).
    pub log_tail: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitCause {
    Code(i32),
    Signal(i32),
    /// Killed by the kernel for exceeding its memory limit.
    OutOfMemory,
    /// The program could not be started at all.
    SpawnFailed(String),
    /// It ended while no one could watch (the supervisor was killed).
    Unknown,
}

#[derive(Clone, Debug)]
pub struct ObservedRunner {
    pub id: RunnerId,
    pub app: String,
    pub revision: u32,
    pub labels: BTreeMap<String, String>,
    pub state: ObservedState,
    pub is_frozen: bool,
    pub started_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObservedState {
    /// Spawned, not ready yet.
    Starting,
    Ready(RunnerAddress),
    Stopping,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// 0-based since the start of the runner; a gap says that lines were dropped by the cap.
    pub number: u64,
    /// Microseconds since the Unix epoch.
    pub at_micros: u64,
    pub stream: LogStream,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    Stdout,
    Stderr,
    /// The supervisor's own words, for example that lines were dropped.
    Supervisor,
}

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("runner {0} is not known to this backend")]
    UnknownRunner(RunnerId),
    #[error("runner {0} still runs: stop it before forgetting it")]
    StillRunning(RunnerId),
    #[error("runner {0} cannot be captured by this backend")]
    NoCaptures(RunnerId),
    #[error("cannot freeze or thaw runner {runner}: {problem}")]
    Freeze { runner: RunnerId, problem: String },
    #[error("cannot prepare runner {runner}: {problem}")]
    Prepare { runner: RunnerId, problem: String },
    #[error("cannot {operation}")]
    Io {
        operation: String,
        #[source]
        source: std::io::Error,
    },
}
