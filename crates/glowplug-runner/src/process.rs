//! Runners as plain processes on this host, each under a [`shim`](crate::shim) of its own.
//!
//! ```text
//! runners_dir/r1-2.lock     held by the shim while it lives: who holds it owns the directory
//! runners_dir/r1-2/         record, exit report, log
//! socket_dir/r1-2.ctl       where nodes attach to the shim
//! socket_dir/r1-2/app.sock  the program's own socket, if it listens on one
//! ```
//!
//! The backend starts shims, attaches to those it finds, probes readiness and passes on what it sees. It
//! holds no runner itself: dropping it leaves every runner as it is, and the next backend on the same
//! directory takes them over. Where it finds a directory without a shim, it ends whatever is left of that
//! runner and reports it. It sets no policy and restarts nothing.

mod adopt;
mod identity;
mod launch;
mod layout;
mod logs;
mod ports;
mod watch;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use glowplug_core::{RunnerId, Timestamp};
use tokio::sync::{mpsc, oneshot, watch as watch_channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::layout::{Layout, Ownership};
use self::ports::Ports;
use self::watch::Command;
use crate::backend::{
    Backend, BackendError, Clock, LogLine, Notice, ObservedRunner, ObservedState, RunnerSpec,
    StopMode,
};
use crate::cgroup::CgroupPlan;
use crate::protocol::{LogCaps, RunnerRecord, ToShim};

/// Notices that wait for the engine; a runner's watcher waits when there are more.
const NOTICES_MAX: usize = 1_024;
/// How long a runner that another is just starting, or ending, may take to become reachable or gone.
const CONTACT_TIMEOUT: Duration = Duration::from_secs(5);
const CONTACT_PAUSE: Duration = Duration::from_millis(2);
/// For a shim to write down what its program has said.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// Where and how to run processes.
#[derive(Clone)]
pub struct ProcessOptions {
    /// State and logs, one directory per runner. Made if it is missing.
    pub runners_dir: PathBuf,
    /// Sockets. Made if it is missing; replaced by one in the system's temporary directory if paths in
    /// it would be too long for a socket.
    pub socket_dir: PathBuf,
    pub shim: ShimCommand,
    pub clock: Clock,
    pub log_caps: LogCaps,
}

impl fmt::Debug for ProcessOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessOptions")
            .field("runners_dir", &self.runners_dir)
            .field("socket_dir", &self.socket_dir)
            .field("shim", &self.shim)
            .field("log_caps", &self.log_caps)
            .finish_non_exhaustive()
    }
}

/// The program that calls [`shim::main`](crate::shim::main) with what follows these arguments, before it
/// starts any thread. The node's own binary is best named `/proc/self/exe`, which still is the one that
/// runs when the file has been replaced by an upgrade.
#[derive(Clone, Debug)]
pub struct ShimCommand {
    pub program: PathBuf,
    pub args: Vec<OsString>,
}

/// The process backend.
pub struct ProcessBackend {
    inner: Arc<Inner>,
    notices: Mutex<Option<mpsc::Receiver<Notice>>>,
}

struct Inner {
    options: ProcessOptions,
    layout: Layout,
    cgroups: CgroupPlan,
    ports: Ports,
    /// Whether this host can, looked up when the first is wanted.
    containers: OnceLock<Result<(), String>>,
    runners: Mutex<HashMap<RunnerId, Slot>>,
    notices: mpsc::Sender<Notice>,
    /// Cancelled when the backend is dropped: watchers let go of their runners.
    detach: CancellationToken,
}

enum Slot {
    /// An `ensure` is at work.
    Claimed,
    Known(Runner),
}

/// A reservation, given back when it is dropped unless a runner has taken its place.
struct Claim {
    inner: Arc<Inner>,
    id: RunnerId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut runners = self.inner.runners();
        if matches!(runners.get(&self.id), Some(Slot::Claimed)) {
            runners.remove(&self.id);
        }
    }
}

/// What becomes of a runner whose end an earlier node has told already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It is deleted without a word.
    Once,
    /// Its end is told again, to one who just asked for it to run.
    Again,
}

/// A runner that has a watcher, or has ended and is not forgotten yet.
#[derive(Clone)]
struct Runner {
    record: Arc<RunnerRecord>,
    commands: mpsc::Sender<Command>,
    state: Arc<watch_channel::Sender<RunnerState>>,
    is_frozen: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunnerState {
    Starting,
    Ready,
    Stopping,
    Ended,
}

impl Runner {
    fn has_ended(&self) -> bool {
        *self.state.borrow() == RunnerState::Ended
    }

    /// Waits until all that the program has written is in the log file.
    async fn catch_up_log(&self) {
        if self.has_ended() {
            return;
        }
        let (sender, caught_up) = oneshot::channel();
        // Both fail when the runner ends meanwhile, and then its log is complete.
        if self.commands.send(Command::CatchUpLog(sender)).await.is_ok() {
            let _ = caught_up.await;
        }
    }
}

impl ProcessBackend {
    /// Prepares the directories; starts nothing. Call [`Backend::observe`] to take over what lives.
    pub fn new(options: ProcessOptions) -> Result<Self, BackendError> {
        let layout = Layout::prepare(&options.runners_dir, &options.socket_dir)?;
        let (sender, receiver) = mpsc::channel(NOTICES_MAX);
        let inner = Inner {
            layout,
            options,
            cgroups: CgroupPlan::discover(),
            ports: Ports::new(),
            containers: OnceLock::new(),
            runners: Mutex::default(),
            notices: sender,
            detach: CancellationToken::new(),
        };
        Ok(Self { inner: Arc::new(inner), notices: Mutex::new(Some(receiver)) })
    }
}

impl fmt::Debug for ProcessBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessBackend")
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}

impl Drop for ProcessBackend {
    fn drop(&mut self) {
        self.inner.detach.cancel();
    }
}

impl Inner {
    fn now(&self) -> Timestamp {
        (self.options.clock)()
    }

    /// No code panics while it holds this lock, so what it guards is whole even if a thread did.
    fn runners(&self) -> std::sync::MutexGuard<'_, HashMap<RunnerId, Slot>> {
        self.runners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runner(&self, id: RunnerId) -> Option<Runner> {
        match self.runners().get(&id) {
            Some(Slot::Known(runner)) => Some(runner.clone()),
            _ => None,
        }
    }

    /// Reserves the id for one start or adoption. `None`: it is taken.
    fn claim(self: &Arc<Self>, id: RunnerId) -> Option<Claim> {
        let mut runners = self.runners();
        if runners.contains_key(&id) {
            return None;
        }
        runners.insert(id, Slot::Claimed);
        Some(Claim { inner: Arc::clone(self), id })
    }

    /// The runner once no start or adoption of it is under way.
    async fn settled(&self, id: RunnerId) -> Option<Runner> {
        let deadline = Instant::now() + CONTACT_TIMEOUT;
        loop {
            match self.runners().get(&id) {
                Some(Slot::Known(runner)) => return Some(runner.clone()),
                Some(Slot::Claimed) if Instant::now() < deadline => {}
                _ => return None,
            }
            tokio::time::sleep(CONTACT_PAUSE).await;
        }
    }

    async fn ensure(self: &Arc<Self>, spec: &RunnerSpec) -> Result<(), BackendError> {
        let Some(claim) = self.claim(spec.id) else { return Ok(()) };
        let (inner, spec, id) = (Arc::clone(self), spec.clone(), spec.id);
        // A task of its own: a caller that gives up must not leave half a start behind.
        let starting = tokio::spawn(async move {
            let started = inner.start_or_adopt(spec).await;
            drop(claim);
            started
        });
        let problem = |error: tokio::task::JoinError| BackendError::Prepare {
            runner: id,
            problem: error.to_string(),
        };
        starting.await.map_err(problem).and_then(|started| started)
    }

    async fn start_or_adopt(self: &Arc<Self>, spec: RunnerSpec) -> Result<(), BackendError> {
        match self.layout.own(spec.id)? {
            Ownership::Taken => self.adopt(spec.id, Told::Again).await.map(drop),
            Ownership::Ours(lock) if self.layout.dir(spec.id).exists() => {
                drop(lock);
                self.adopt(spec.id, Told::Again).await.map(drop)
            }
            Ownership::Ours(lock) => self.launch(spec, lock).await,
        }
    }

    async fn stop(self: &Arc<Self>, id: RunnerId, mode: StopMode) -> Result<(), BackendError> {
        let mut runner = self.settled(id).await;
        if runner.is_none()
            && self.layout.dir(id).exists()
            && let Some(_claim) = self.claim(id)
        {
            runner = self.adopt(id, Told::Once).await?;
        }
        let Some(runner) = runner else { return Ok(()) };
        let lives = runner.state.send_if_modified(|state| {
            let lives = *state != RunnerState::Ended;
            if lives {
                *state = RunnerState::Stopping;
            }
            lives
        });
        if !lives {
            return Ok(());
        }
        let message = match mode {
            StopMode::Graceful { grace } => ToShim::Stop { grace },
            StopMode::Kill => ToShim::Kill,
        };
        // The watcher is gone only if the runner is.
        let _ = runner.commands.send(Command::Tell(message)).await;
        Ok(())
    }

    async fn capture(self: &Arc<Self>, id: RunnerId, dir: PathBuf) -> Result<(), BackendError> {
        let runner = self.settled(id).await.filter(|runner| !runner.has_ended());
        let runner = runner.ok_or(BackendError::UnknownRunner(id))?;
        // The watcher is gone only if the runner is, which is told.
        let _ = runner.commands.send(Command::Tell(ToShim::Capture { dir })).await;
        Ok(())
    }

    async fn tell(&self, id: RunnerId, message: ToShim) -> Result<(), BackendError> {
        let runner = self.settled(id).await.ok_or(BackendError::UnknownRunner(id))?;
        // The watcher is gone only if the runner is.
        let _ = runner.commands.send(Command::Tell(message)).await;
        Ok(())
    }

    async fn observe(self: &Arc<Self>) -> Result<Vec<ObservedRunner>, BackendError> {
        for id in self.layout.list()? {
            if let Some(_claim) = self.claim(id)
                && let Err(error) = self.adopt(id, Told::Once).await
            {
                // One broken directory must not hide the other runners.
                tracing::warn!(runner = %id, %error, "cannot take over a runner");
            }
        }
        let runners = self.runners();
        let known = runners.iter().filter_map(|(id, slot)| match slot {
            Slot::Known(runner) => Some((*id, runner)),
            Slot::Claimed => None,
        });
        let mut observed: Vec<_> = known.filter_map(|(id, runner)| describe(id, runner)).collect();
        observed.sort_unstable_by_key(|runner| runner.id);
        Ok(observed)
    }

    async fn forget(self: &Arc<Self>, id: RunnerId) -> Result<(), BackendError> {
        if self.runner(id).is_some_and(|runner| !runner.has_ended()) {
            return Err(BackendError::StillRunning(id));
        }
        let deadline = Instant::now() + CONTACT_TIMEOUT;
        let lock = loop {
            match self.layout.own(id)? {
                Ownership::Ours(lock) => break lock,
                // The shim is on its way out, or was never ours.
                Ownership::Taken if Instant::now() < deadline => {
                    tokio::time::sleep(CONTACT_PAUSE).await;
                }
                Ownership::Taken => return Err(BackendError::StillRunning(id)),
            }
        };
        self.layout.remove(id, lock)?;
        self.runners().remove(&id);
        Ok(())
    }

    async fn logs(
        &self,
        id: RunnerId,
        from: u64,
        follow: bool,
    ) -> Result<BoxStream<'static, LogLine>, BackendError> {
        let runner = self.runner(id).ok_or(BackendError::UnknownRunner(id))?;
        if !follow {
            let caught_up = runner.catch_up_log();
            // Without an answer, what is there is what there is.
            let _ = tokio::time::timeout(CATCH_UP_TIMEOUT, caught_up).await;
        }
        Ok(logs::read(self.layout.dir(id), from, follow.then(|| runner.state.subscribe())))
    }
}

fn describe(id: RunnerId, runner: &Runner) -> Option<ObservedRunner> {
    let state = match *runner.state.borrow() {
        RunnerState::Starting => ObservedState::Starting,
        RunnerState::Ready => ObservedState::Ready(runner.record.address.clone()),
        RunnerState::Stopping => ObservedState::Stopping,
        RunnerState::Ended => return None,
    };
    Some(ObservedRunner {
        id,
        app: runner.record.app.clone(),
        revision: runner.record.revision,
        labels: runner.record.labels.clone(),
        state,
        is_frozen: runner.is_frozen.load(Ordering::Acquire),
        started_at: Timestamp::from_micros(runner.record.started_at_micros),
    })
}

impl Backend for ProcessBackend {
    fn name(&self) -> &'static str {
        "process"
    }

    fn ensure<'a>(&'a self, spec: &'a RunnerSpec) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(self.inner.ensure(spec))
    }

    fn stop(&self, runner: RunnerId, mode: StopMode) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(self.inner.stop(runner, mode))
    }

    fn capture(&self, runner: RunnerId, dir: PathBuf) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(self.inner.capture(runner, dir))
    }

    fn freeze(&self, runner: RunnerId) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(self.inner.tell(runner, ToShim::Freeze))
    }

    fn thaw(&self, runner: RunnerId) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(self.inner.tell(runner, ToShim::Thaw))
    }

    fn observe(&self) -> BoxFuture<'_, Result<Vec<ObservedRunner>, BackendError>> {
        Box::pin(self.inner.observe())
    }

    fn logs(
        &self,
        runner: RunnerId,
        from: u64,
        follow: bool,
    ) -> BoxFuture<'_, Result<BoxStream<'static, LogLine>, BackendError>> {
        Box::pin(self.inner.logs(runner, from, follow))
    }

    fn forget(&self, runner: RunnerId) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(self.inner.forget(runner))
    }

    fn notices(&self) -> Option<mpsc::Receiver<Notice>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
