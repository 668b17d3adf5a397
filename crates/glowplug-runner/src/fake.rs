//! A backend whose runners are tasks of this process, each a real HTTP server on loopback.
//!
//! For tests and soaks of everything above the backends: runners start, fail, crash and stop as their
//! app's [`FakeBehaviour`] says, from a seed. They live in a [`FakeWorld`], which outlasts the backends
//! on it, as processes outlast a node. There is no isolation and there are no limits, since there is
//! no program. Runners live on the runtime that started them.

mod behaviour;
mod log;
mod runner;
mod server;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use glowplug_core::{RunnerId, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::behaviour::{FakeBehaviour, FakeStop, SetupTime};
pub use self::log::{LINE_BYTES_MAX as FAKE_LINE_BYTES_MAX, LOG_BYTES_MAX as FAKE_LOG_BYTES_MAX};
use self::runner::{FakeRunner, Order};
use crate::backend::{
    Backend, BackendError, Clock, LogLine, Notice, ObservedRunner, RunnerSpec, StopMode,
};

/// Notices that wait for the engine; a runner's forwarder waits when there are more.
const NOTICES_MAX: usize = 1_024;

/// Where fake runners live. Clones are the same world.
#[derive(Clone)]
pub struct FakeWorld {
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    clock: Clock,
    behaviours: Mutex<HashMap<String, FakeBehaviour>>,
    runners: Mutex<HashMap<RunnerId, Arc<FakeRunner>>>,
    starts: AtomicU64,
    socket_dir: PathBuf,
}

impl fmt::Debug for FakeWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeWorld").field("seed", &self.shared.seed).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeWorld {
    pub fn new(seed: u64, clock: Clock) -> Self {
        static WORLDS: AtomicU64 = AtomicU64::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let name = format!("glowplug-fake-{}-{number}", std::process::id());
        let shared = Shared {
            seed,
            clock,
            behaviours: Mutex::default(),
            runners: Mutex::default(),
            starts: AtomicU64::new(0),
            socket_dir: std::env::temp_dir().join(name),
        };
        Self { shared: Arc::new(shared) }
    }

    /// How runners of this app (`owner/app`) behave that start from now on. By default they start at
    /// once and do what they are told.
    pub fn set_behaviour(&self, app: &str, behaviour: FakeBehaviour) {
        lock(&self.shared.behaviours).insert(app.to_owned(), behaviour);
    }

    /// A backend on this world. Several see the same runners.
    pub fn backend(&self) -> FakeBackend {
        let (notices, receiver) = mpsc::channel(NOTICES_MAX);
        let inner = Inner {
            world: self.clone(),
            attached: Mutex::default(),
            notices,
            detach: CancellationToken::new(),
        };
        FakeBackend { inner: Arc::new(inner), receiver: Mutex::new(Some(receiver)) }
    }

    /// The runners that live now, ascending.
    pub fn running(&self) -> Vec<RunnerId> {
        let runners = lock(&self.shared.runners);
        let lives = |runner: &&Arc<FakeRunner>| !runner.has_ended();
        let mut ids: Vec<_> = runners.values().filter(lives).map(|runner| runner.id()).collect();
        ids.sort_unstable();
        ids
    }

    /// The runners that live or whose end is not forgotten, ascending.
    pub fn known(&self) -> Vec<RunnerId> {
        let mut ids: Vec<_> = lock(&self.shared.runners).keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// How many runners were ever started.
    pub fn starts(&self) -> u64 {
        self.shared.starts.load(Ordering::Relaxed)
    }

    /// Ends a runner as a segmentation fault would. `false`: there is no such runner.
    pub fn crash(&self, id: RunnerId) -> bool {
        self.runner(id).is_some_and(|runner| runner.order(Order::Crash))
    }

    /// What the log of a runner occupies.
    pub fn log_bytes(&self, id: RunnerId) -> usize {
        self.runner(id).map_or(0, |runner| runner.log_bytes())
    }

    fn runner(&self, id: RunnerId) -> Option<Arc<FakeRunner>> {
        lock(&self.shared.runners).get(&id).cloned()
    }

    fn now(&self) -> Timestamp {
        (self.shared.clock)()
    }

    /// The runner of this id, and whether it was started by this call.
    fn runner_or_start(&self, spec: &RunnerSpec) -> Result<(Arc<FakeRunner>, bool), BackendError> {
        let mut runners = lock(&self.shared.runners);
        if let Some(runner) = runners.get(&spec.id) {
            return Ok((Arc::clone(runner), false));
        }
        let behaviour = lock(&self.shared.behaviours).get(&spec.app).cloned().unwrap_or_default();
        let runner = FakeRunner::start(self, spec.clone(), behaviour)
            .map_err(|e| BackendError::Prepare { runner: spec.id, problem: e.to_string() })?;
        self.shared.starts.fetch_add(1, Ordering::Relaxed);
        runners.insert(spec.id, Arc::clone(&runner));
        Ok((runner, true))
    }
}

/// A [`Backend`] on a [`FakeWorld`].
pub struct FakeBackend {
    inner: Arc<Inner>,
    receiver: Mutex<Option<mpsc::Receiver<Notice>>>,
}

struct Inner {
    world: FakeWorld,
    /// The runners whose notices this backend passes on.
    attached: Mutex<HashSet<RunnerId>>,
    notices: mpsc::Sender<Notice>,
    detach: CancellationToken,
}

impl fmt::Debug for FakeBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeBackend").field("world", &self.inner.world).finish_non_exhaustive()
    }
}

impl Drop for FakeBackend {
    fn drop(&mut self) {
        self.inner.detach.cancel();
    }
}

impl Inner {
    fn attach(self: &Arc<Self>, runner: &Arc<FakeRunner>, tell_spawned: bool) {
        if !lock(&self.attached).insert(runner.id()) {
            return;
        }
        let (inner, runner) = (Arc::clone(self), Arc::clone(runner));
        let visit = runner.visit();
        tokio::spawn(async move {
            let forwarding = runner.forward(&inner.world, &inner.notices, tell_spawned);
            inner.detach.run_until_cancelled(forwarding).await;
            drop(visit);
        });
    }

    fn ensure(self: &Arc<Self>, spec: &RunnerSpec) -> Result<(), BackendError> {
        let (runner, is_new) = self.world.runner_or_start(spec)?;
        self.attach(&runner, is_new);
        Ok(())
    }

    fn stop(self: &Arc<Self>, id: RunnerId, mode: StopMode) {
        if let Some(runner) = self.world.runner(id) {
            self.attach(&runner, false);
            runner.order(Order::Stop(mode));
        }
    }

    fn freeze(self: &Arc<Self>, id: RunnerId, frozen: bool) -> Result<(), BackendError> {
        let runner = self.world.runner(id).ok_or(BackendError::UnknownRunner(id))?;
        self.attach(&runner, false);
        runner.freeze(frozen);
        Ok(())
    }

    fn observe(self: &Arc<Self>) -> Vec<ObservedRunner> {
        let mut observed = Vec::new();
        for id in self.world.known() {
            let Some(runner) = self.world.runner(id) else { continue };
            let is_attached = lock(&self.attached).contains(&id);
            if !is_attached && runner.is_reported() {
                lock(&self.world.shared.runners).remove(&id);
                continue;
            }
            self.attach(&runner, false);
            observed.extend(runner.describe());
        }
        observed
    }

    fn forget(&self, id: RunnerId) -> Result<(), BackendError> {
        let mut runners = lock(&self.world.shared.runners);
        if runners.get(&id).is_some_and(|runner| !runner.has_ended()) {
            return Err(BackendError::StillRunning(id));
        }
        runners.remove(&id);
        lock(&self.attached).remove(&id);
        Ok(())
    }
}

impl Backend for FakeBackend {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn ensure<'a>(&'a self, spec: &'a RunnerSpec) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async { self.inner.ensure(spec) })
    }

    fn stop(&self, runner: RunnerId, mode: StopMode) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move {
            self.inner.stop(runner, mode);
            Ok(())
        })
    }

    fn freeze(&self, runner: RunnerId) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move { self.inner.freeze(runner, true) })
    }

    fn thaw(&self, runner: RunnerId) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move { self.inner.freeze(runner, false) })
    }

    fn observe(&self) -> BoxFuture<'_, Result<Vec<ObservedRunner>, BackendError>> {
        Box::pin(async { Ok(self.inner.observe()) })
    }

    fn logs(
        &self,
        runner: RunnerId,
        from: u64,
        follow: bool,
    ) -> BoxFuture<'_, Result<BoxStream<'static, LogLine>, BackendError>> {
        let found = self.inner.world.runner(runner);
        let lines = found.map(|runner| runner::log_lines(runner, from, follow));
        Box::pin(std::future::ready(lines.ok_or(BackendError::UnknownRunner(runner))))
    }

    fn forget(&self, runner: RunnerId) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move { self.inner.forget(runner) })
    }

    fn notices(&self) -> Option<mpsc::Receiver<Notice>> {
        lock(&self.receiver).take()
    }
}
