//! Takes snapshots of apps whose starts are worth it, and starts their runners from them.
//!
//! ```text
//! a plain start became ready ─► asked of the engine ─► an extra runner, enclosed, without secrets
//!     ─► ready, asked once ─► captured ─► restored on trial, asked the same ─► kept
//! ```
//!
//! All of it happens beside the requests, and every failure means that the app starts as it always did: what
//! went wrong is remembered with the snapshot's key, which is not tried again until it is dropped or the key
//! is another one. A key is made of all that must be the same: code, arguments, environment without secrets,
//! user, limits, kernel, this boot of the machine, processor, CRIU and this program. Limits:
//! `snapshot_bytes_max`, one capture at a time.

mod key;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use glowplug_artifacts::{Held, Snapshots as Store};
use glowplug_core::{AppId, Event, Rung, RunnerId};
use glowplug_runner::{Listen, Notice, RunnerSpec, StopMode, Warm, host};
use tokio::sync::{mpsc, oneshot};

use crate::apps::{App, Deployed, Launch};
use crate::config::{SnapshotUse, WarmthConfig};
use crate::runner_task::chain;
use crate::shared::Shared;

/// The folder below the data directory.
pub const DIR: &str = "snapshots";
/// For a capture to be answered: longer than its supervisor waits for any part of it.
const CAPTURE_TIMEOUT: Duration = Duration::from_mins(1);
/// A connection that is just being closed can be in the way.
const CAPTURE_ATTEMPTS: usize = 3;
/// In a row, until a snapshot is not used again.
const FAILED_RESTORES_MAX: u32 = 3;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(300);

pub(crate) struct Snapshots {
    /// `None`: this node takes none.
    store: Option<Arc<Store>>,
    /// Once it was looked for.
    criu: OnceLock<Result<host::Criu, String>>,
    boot: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Runners that start from a snapshot, and its key.
    restoring: BTreeMap<RunnerId, String>,
    /// Runners that start without, though there could be one with this key.
    without: BTreeMap<RunnerId, (AppId, String)>,
    captures: BTreeMap<RunnerId, Capture>,
    /// Captures that were asked for since the node began.
    asked: BTreeSet<String>,
    verifying: BTreeSet<String>,
    /// Restores of each snapshot that went wrong since one went well.
    failed_restores: BTreeMap<String, u32>,
    /// Restored to see whether they are of use.
    trials: BTreeMap<RunnerId, mpsc::Sender<Notice>>,
    trials_begun: u32,
}

/// A runner that is there to be captured.
struct Capture {
    key: String,
    golden_path: String,
    compares_body: bool,
    /// As a restored one is started.
    spec: RunnerSpec,
    answer: Option<oneshot::Sender<Option<String>>>,
    /// Its end is no failure.
    is_captured: bool,
}

impl Snapshots {
    pub(crate) fn new(data_dir: &Path, warmth: &WarmthConfig, boot: u32) -> Self {
        let bytes_max = warmth.snapshot_bytes_max;
        let store = (bytes_max > 0).then(|| Arc::new(Store::new(data_dir.join(DIR), bytes_max)));
        Self { store, criu: OnceLock::new(), boot, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a runner start from the snapshot of its app if there is one, or be captured if that is what it is
    /// there for. `spec` is complete but for this; the names are those of its secrets.
    pub(crate) fn warm(
        &self,
        shared: &Arc<Shared>,
        (app, deployed): (&App, &Deployed),
        is_capture: bool,
        secrets: &BTreeSet<String>,
        spec: &mut RunnerSpec,
    ) {
        let (Some(store), Some(Ok(criu))) = (&self.store, self.criu.get()) else { return };
        if !is_possible(app, deployed, spec) {
            return;
        }
        let key = key::of(deployed, spec, secrets, criu);
        if is_capture {
            let (golden_path, compares_body) = golden(deployed, spec);
            spec.warm = Warm::Enclosed { criu: criu.program.clone() };
            let (spec, answer, is_captured) = (spec.clone(), None, false);
            let capture = Capture { key, golden_path, compares_body, spec, answer, is_captured };
            self.state().captures.insert(capture.spec.id, capture);
            return;
        }
        match store.held(&key) {
            Held::Good(dir) => {
                spec.warm = Warm::Snapshot { criu: criu.program.clone(), dir };
                self.state().restoring.insert(spec.id, key);
            }
            Held::Unverified => self.verify(shared, store.clone(), key),
            Held::Nothing => {
                self.state().without.insert(spec.id, (app.id, key));
            }
            Held::Quarantined(_) => {}
        }
    }

    /// Beside the start, which goes without.
    fn verify(&self, shared: &Arc<Shared>, store: Arc<Store>, key: String) {
        if !self.state().verifying.insert(key.clone()) {
            return;
        }
        let keeper = shared.clone();
        shared.tasks.spawn_blocking(move || {
            if let Err(error) = store.verify(&key) {
                tracing::warn!("{}", chain(&error));
            }
            keeper.snapshots.state().verifying.remove(&key);
        });
    }

    /// A runner has begun, with this.
    pub(crate) fn runner_spawned(&self, shared: &Shared, runner: RunnerId, rung: Rung) {
        let key = self.state().restoring.get(&runner).filter(|_| rung == Rung::Snapshot).cloned();
        if let (Some(key), Some(store)) = (key, &self.store) {
            self.state().failed_restores.remove(&key);
            store.used(&key, shared.desk.now().as_micros());
        }
    }

    pub(crate) fn runner_ready(&self, shared: &Arc<Shared>, runner: RunnerId) {
        let mut state = self.state();
        if let Some((app, key)) = state.without.remove(&runner)
            && state.asked.insert(key)
        {
            drop(state);
            shared.desk.report(Event::CaptureRequested { app });
            return;
        }
        if state.captures.contains_key(&runner) {
            drop(state);
            let shared = shared.clone();
            let tasks = shared.tasks.clone();
            tasks.spawn(async move { capture(&shared, runner).await });
        }
    }

    /// What a runner was to be restored from was of no use.
    pub(crate) fn not_restored(&self, runner: RunnerId, problem: &str) {
        let mut state = self.state();
        let key = state.restoring.remove(&runner);
        tracing::warn!(%runner, problem, "its snapshot was not restored");
        let (Some(key), Some(store)) = (key, &self.store) else { return };
        // Once it may have been for a moment's reason, such as a port that is taken.
        let failed = state.failed_restores.entry(key.clone()).or_default();
        *failed += 1;
        if *failed >= FAILED_RESTORES_MAX {
            state.failed_restores.remove(&key);
            drop(state);
            store.quarantine(&key, &format!("{FAILED_RESTORES_MAX} restores failed: {problem}"));
        }
    }

    pub(crate) fn captured(&self, runner: RunnerId, problem: Option<String>) {
        let answer = self.state().captures.get_mut(&runner).and_then(|capture| {
            capture.is_captured = problem.is_none();
            capture.answer.take()
        });
        if let Some(answer) = answer {
            // Whoever asked may have given up.
            let _ = answer.send(problem);
        }
    }

    /// `failed`: it ended by itself, and how. What comes back is a better account of its end, if there is one.
    pub(crate) fn runner_exited(
        &self,
        runner: RunnerId,
        failed: Option<&str>,
    ) -> Option<&'static str> {
        let mut state = self.state();
        state.restoring.remove(&runner);
        state.without.remove(&runner);
        let capture = state.captures.remove(&runner)?;
        if failed.is_none() && !capture.is_captured {
            // Its place was needed, or the node ends: it may be asked for another time.
            state.asked.remove(&capture.key);
        }
        drop(state);
        if let (Some(how), Some(store)) = (failed, &self.store) {
            let reason = format!("the runner that was to be captured, without secrets, {how}");
            store.quarantine(&capture.key, &reason);
        }
        capture.is_captured.then_some("its memory was captured, which was its end")
    }

    /// `true`: the notice was about a trial, and nobody else's business.
    pub(crate) fn takes(&self, notice: &Notice) -> bool {
        let trial = self.state().trials.get(&trial::subject(notice)).cloned();
        // A trial that nobody follows any more is being ended.
        trial.map(|trial| trial.try_send(notice.clone())).is_some()
    }
}

/// Looks for CRIU, and removes what an earlier life of the node has left half made.
pub(crate) async fn prepare(shared: Arc<Shared>) {
    let Some(store) = shared.snapshots.store.clone() else { return };
    let named = shared.config.node.warmth.criu.clone();
    let looking = tokio::task::spawn_blocking(move || {
        store.clear_up();
        host::find_criu(named.as_deref())
    });
    let Ok(found) = looking.await else { return };
    if let Err(problem) = &found {
        tracing::debug!("starts take no snapshots: {problem}");
    }
    let _ = shared.snapshots.criu.set(found);
}

/// Programs on a port cannot be restored twice; commands are captured only if that is asked for.
fn is_possible(app: &App, deployed: &Deployed, spec: &RunnerSpec) -> bool {
    let wanted = match (&*deployed.launch, app.config.warmth.snapshot) {
        (_, SnapshotUse::Off) | (Launch::Image(_), _) => false,
        (Launch::Command(_), wish) => wish == SnapshotUse::Required,
        (Launch::Python(_), _) => true,
    };
    // CRIU opens files anew as root: where a program has another user, those may be others by then.
    let is_plain = spec.container.is_none() && spec.gpus.is_empty() && spec.user.is_none();
    wanted && is_plain && spec.listen == Listen::UnixSocket
}

/// What is asked of a runner before and after: its path, and whether the whole answer must be the same.
fn golden(deployed: &Deployed, spec: &RunnerSpec) -> (String, bool) {
    match (&*deployed.launch, &spec.health_path) {
        (Launch::Python(_), _) => ("/openapi.json".to_owned(), true),
        (_, Some(path)) => (path.clone(), false),
        (_, None) => ("/".to_owned(), false),
    }
}

/// Captures a runner that is ready for it, and ends it.
async fn capture(shared: &Arc<Shared>, runner: RunnerId) {
    let Some(store) = &shared.snapshots.store else { return };
    let subject = {
        let state = shared.snapshots.state();
        let Some(capture) = state.captures.get(&runner) else { return };
        let golden = (capture.golden_path.clone(), capture.compares_body);
        (capture.key.clone(), capture.spec.clone(), golden)
    };
    let (key, spec, golden) = subject;
    let mut is_captured = false;
    match attempt(shared, store, runner, (&key, &spec), golden, &mut is_captured).await {
        Ok(took) => {
            tracing::info!(
                app = spec.app,
                key,
                "a snapshot was taken; it is restored in {} ms",
                took.as_millis()
            );
        }
        Err(problem) => {
            tracing::warn!(app = spec.app, key, "no snapshot: {problem}");
            // One that was stopped before it was captured says nothing about its app.
            let is_idle = || shared.runner_view(runner).is_some_and(|view| view.state == "IDLE");
            if is_captured || is_idle() {
                store.quarantine(&key, &problem);
            }
        }
    }
    // What is kept, or is in quarantine, speaks for itself from here on: when it goes, it may be asked for again.
    shared.snapshots.state().asked.remove(&key);
    if let Err(error) = shared.backend.stop(runner, StopMode::Kill).await {
        tracing::error!(%runner, "cannot stop: {}", chain(&error));
    }
}

/// How long a restore of it took on trial, or why there is none.
async fn attempt(
    shared: &Arc<Shared>,
    store: &Arc<Store>,
    runner: RunnerId,
    (key, spec): (&str, &RunnerSpec),
    (path, compares_body): (String, bool),
    is_captured: &mut bool,
) -> Result<Duration, String> {
    let address = shared.desk.address(runner).ok_or("it ended before it was captured")?;
    let golden = trial::ask(&address, &path).await?;
    let staging = store.stage().map_err(|error| chain(&error))?;
    let mut problem = None;
    for attempt in 0..CAPTURE_ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
        problem = capture_once(shared, runner, &staging.images()).await?;
        if problem.is_none() {
            break;
        }
    }
    if let Some(problem) = problem {
        return Err(problem);
    }
    *is_captured = true;
    let golden = trial::Golden { path, compares_body, answer: golden };
    let took = trial::run(shared, spec, &staging.images(), &golden).await?;
    let (store, key, app) = (store.clone(), key.to_owned(), spec.app.clone());
    let now = shared.desk.now().as_micros();
    let keeping = tokio::task::spawn_blocking(move || store.keep(&staging, &key, &app, now)).await;
    match keeping {
        Ok(Ok(())) => Ok(took),
        Ok(Err(error)) => Err(chain(&error)),
        Err(error) => Err(error.to_string()),
    }
}

/// What the program's supervisor says went wrong, if anything. An error: it says nothing.
async fn capture_once(
    shared: &Arc<Shared>,
    runner: RunnerId,
    images: &Path,
) -> Result<Option<String>, String> {
    let (sender, answer) = oneshot::channel();
    match shared.snapshots.state().captures.get_mut(&runner) {
        Some(capture) => capture.answer = Some(sender),
        None => return Err("it ended before it was captured".to_owned()),
    }
    shared.backend.capture(runner, images.to_owned()).await.map_err(|error| chain(&error))?;
    match tokio::time::timeout(CAPTURE_TIMEOUT, answer).await {
        Ok(Ok(problem)) => Ok(problem),
        Ok(Err(_)) => Err("it ended while it was captured".to_owned()),
        Err(_) => Err("its supervisor does not answer".to_owned()),
    }
}
