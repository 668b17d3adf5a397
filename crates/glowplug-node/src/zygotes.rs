//! Keeps zygotes: per app one process that has imported what the app imports, from which its runners are forked.
//!
//! ```text
//! a first start becomes ready ─► MAKING ─ fit ─► READY ──► RETIRING ─► gone
//!                                   └─ unfit: why is remembered, the app starts plainly
//! ```
//!
//! Each runs under a shim of its own, on a backend of its own, so that it outlives the node, is adopted by the
//! next one, and ends with it if none comes. It is no runner: the engine knows nothing of it. It retires when the
//! app's code, settings or secrets have changed, when it did not fork when it was asked to, and when zygotes take
//! more than `zygote_memory_max`: then the one that was used longest ago goes.
//!
//! Every failure here means that an app starts as it always did. Limits: `zygote_memory_max`, one made at a time.

mod shelf;
mod wish;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use glowplug_core::decision::StopReason;
use glowplug_core::{AppId, Rung, RunnerId};
use glowplug_runner::{
    Backend, Exit, ExitCause, Notice, ObservedRunner, ObservedState, RunnerAddress, RunnerSpec,
    StopMode, Warm,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};

use self::shelf::{Choice, Shelf, Stage};
use self::wish::{KEY_LABEL, Wish, ZYGOTE_LABEL};
use crate::apps::{App, Deployed};
use crate::config::ZygoteUse;
use crate::runner_task::{chain, describe};
use crate::shared::Shared;

/// The folder below the data directory.
const DIR: &str = "zygotes";
/// Where first starts tell what they import.
const MODULES_DIR: &str = "modules";
/// The requests that a start was made for go before what only later starts have a use for.
const QUIET_PAUSE: Duration = Duration::from_secs(1);
/// Imports that take longer are given up.
const MAKE_TIMEOUT: Duration = Duration::from_mins(5);
/// For a zygote without runners to end.
const RETIRE_GRACE: Duration = Duration::from_secs(5);
/// For a zygote to take a word. One that does not hears SIGTERM later.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two looks at what becomes of a zygote.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Looks for zygotes of an earlier life that runners of it need, and the time between two.
const ADOPT_TRIES: u32 = 5;
const ADOPT_PAUSE: Duration = Duration::from_secs(1);
/// A zygote ends with this once it knows that it cannot be forked.
const EXIT_UNFIT: i32 = 6;
const RETIRE: &[u8] = b"{\"retire\": true}\n";

pub(crate) struct Zygotes {
    /// `None`: this node has none.
    backend: Option<Arc<dyn Backend>>,
    /// Otherwise those of an earlier life go on until their last runner has ended.
    makes: bool,
    modules: PathBuf,
    memory_max: u64,
    boot: u32,
    made: AtomicU32,
    making: Semaphore,
    shelf: Mutex<Shelf>,
}

impl Zygotes {
    /// The folder in which the backend of a node's zygotes keeps them.
    pub(crate) fn dir(data_dir: &Path) -> PathBuf {
        data_dir.join(DIR)
    }

    pub(crate) fn new(
        backend: Option<Arc<dyn Backend>>,
        data_dir: &Path,
        memory_max: u64,
        boot: u32,
    ) -> Self {
        let modules = Self::dir(data_dir).join(MODULES_DIR);
        let usable = memory_max > 0 && glowplug_runner::host::holds_together();
        let makes = usable && backend.is_some() && make_dir(&modules);
        Self {
            backend,
            makes,
            modules,
            memory_max,
            boot,
            made: AtomicU32::new(0),
            making: Semaphore::new(1),
            shelf: Mutex::default(),
        }
    }

    pub(crate) fn notices(&self) -> Option<mpsc::Receiver<Notice>> {
        self.backend.as_ref()?.notices()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a runner start from the zygote of its app if there is one, or else be learned from. `argv`: what is
    /// started for a zygote; `spec` is complete but for this.
    pub(crate) fn warm(
        &self,
        shared: &Arc<Shared>,
        (app, deployed): (&App, &Deployed),
        argv: Option<Vec<String>>,
        spec: &mut RunnerSpec,
    ) {
        let Some(argv) = argv.filter(|_| self.makes) else { return };
        let lesson = self.modules.join(spec.id.to_string());
        let Some(wish) = Wish::new(app, deployed, spec, argv, lesson) else { return };
        let lesson = wish.lesson();
        let (choice, outdated) = self.shelf().choose(spec.id, wish, shared.desk.now());
        match choice {
            Choice::Fork { zygote, socket } => {
                spec.labels.insert(ZYGOTE_LABEL.to_owned(), zygote.to_string());
                spec.warm = Warm::Zygote { socket };
            }
            Choice::Learn => {
                if let Some(lesson) = lesson {
                    wish::learn_from(spec, &lesson);
                }
            }
            Choice::Plainly => {}
        }
        for id in outdated {
            tracing::info!(
                app = app.name(),
                "its zygote retires: its code, settings or secrets changed"
            );
            retire(shared, id);
        }
    }

    /// What `glowplug why` says of an app.
    pub(crate) fn describe(&self, app: AppId) -> Option<String> {
        self.shelf().describe(app)
    }

    /// A runner has begun, with this.
    pub(crate) fn runner_spawned(&self, shared: &Arc<Shared>, runner: RunnerId, rung: Rung) {
        let failed = self.shelf().spawned(runner, rung, shared.desk.now());
        if let Some(id) = failed {
            tracing::warn!(%runner, "was not forked from its zygote, which retires");
            retire(shared, id);
        }
    }

    pub(crate) fn runner_ready(&self, shared: &Arc<Shared>, runner: RunnerId) {
        let wish = self.shelf().take_wish(runner);
        if let Some(wish) = wish {
            let keeper = shared.clone();
            shared.tasks.spawn(async move {
                tokio::time::sleep(QUIET_PAUSE).await;
                make(&keeper, wish).await;
            });
        }
    }

    /// A runner's program has ended, and the engine does not know of it yet.
    pub(crate) fn runner_exited(&self, shared: &Arc<Shared>, runner: RunnerId) {
        let has_failed = shared.desk.read(|state, _| {
            let timed_out = |stop: &StopReason| matches!(stop, StopReason::StartupTimeout { .. });
            state
                .engine
                .runner(runner)
                .is_some_and(|runner| runner.ready.is_none() && runner.stop.is_none_or(timed_out))
        });
        if !has_failed {
            return;
        }
        let failed = self.shelf().runner_failed(runner, shared.desk.now());
        if let Some(id) = failed {
            tracing::warn!(%runner, "did not become ready: its zygote retires, the next starts are plain");
            retire(shared, id);
        }
    }

    pub(crate) fn runner_ended(&self, shared: &Arc<Shared>, runner: RunnerId) {
        // What nobody has read of it; most have left nothing.
        drop(std::fs::remove_file(self.modules.join(runner.to_string())));
        let unused = self.shelf().runner_ended(runner);
        if let Some(id) = unused {
            end(shared, id, StopMode::Graceful { grace: RETIRE_GRACE });
        }
    }

    /// Takes back what an earlier life of the node left. `runners`: those of the engine that were found.
    pub(crate) async fn adopt(&self, shared: &Arc<Shared>, runners: &[ObservedRunner]) {
        let Some(backend) = &self.backend else { return };
        let mut used = Vec::new();
        for runner in runners {
            let zygote = runner.labels.get(ZYGOTE_LABEL).and_then(|id| id.parse().ok());
            if let Some(zygote) = zygote {
                self.shelf().uses(runner.id, zygote);
                used.push(zygote);
            }
        }
        self.take_over(shared, backend).await;
        if !self.shelf().has_all(&used) {
            // Runners end with a zygote that nobody takes over, and this may have been a bad moment.
            let (keeper, backend) = (shared.clone(), backend.clone());
            shared.tasks.spawn(async move {
                for _ in 1..ADOPT_TRIES {
                    tokio::time::sleep(ADOPT_PAUSE).await;
                    keeper.zygotes.take_over(&keeper, &backend).await;
                }
            });
        }
    }

    async fn take_over(&self, shared: &Arc<Shared>, backend: &Arc<dyn Backend>) {
        let found = match backend.observe().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("zygotes cannot be taken over: {}", chain(&error));
                return;
            }
        };
        let strangers = |zygote: &ObservedRunner| !self.shelf().has_all(&[zygote.id]);
        for zygote in found.into_iter().filter(strangers).collect::<Vec<_>>() {
            let app = shared.apps.by_name(&zygote.app);
            let wants = |app: &App| self.makes && app.config.warmth.zygote != ZygoteUse::Off;
            let app = app.filter(|app| wants(app));
            let key = zygote.labels.get(KEY_LABEL);
            match (app, key, &zygote.state) {
                (Some(app), Some(key), ObservedState::Ready(RunnerAddress::Unix(socket))) => {
                    let (now, memory_bytes) = (shared.desk.now(), memory_of(socket).await);
                    let mut shelf = self.shelf();
                    shelf.put(zygote.id, app.id, key, Stage::Making, now);
                    shelf.ready(zygote.id, socket.clone(), memory_bytes);
                }
                (app, _, _) => {
                    let app = app.map_or(AppId(u32::MAX), |app| app.id);
                    self.shelf().put(zygote.id, app, "", Stage::Retiring, shared.desk.now());
                    retire(shared, zygote.id);
                }
            }
        }
    }

    /// Ends them all, after the last runner.
    pub(crate) async fn close(&self) {
        let Some(backend) = &self.backend else { return };
        let ids = self.shelf().close();
        for id in ids {
            if let Err(error) = backend.stop(id, StopMode::Kill).await {
                tracing::warn!(zygote = %id, "cannot be ended: {}", chain(&error));
            }
        }
        let gone = async {
            while !self.shelf().ids().is_empty() {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        };
        if tokio::time::timeout(RETIRE_GRACE, gone).await.is_err() {
            tracing::warn!("some zygotes could not be ended");
        }
    }
}

/// Carries the reports of their backend to the keeper, in their order, until that is gone.
pub(crate) async fn notices(shared: Arc<Shared>, notices: Option<mpsc::Receiver<Notice>>) {
    let Some(mut notices) = notices else { return };
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Ready { runner, address: RunnerAddress::Unix(socket), .. } => {
                ready(&shared, runner, socket).await;
            }
            Notice::Exited { runner, exit, .. } => ended(&shared, runner, &exit),
            Notice::Ready { .. }
            | Notice::Spawned { .. }
            | Notice::Frozen { .. }
            | Notice::Thawed { .. }
            | Notice::Touched { .. }
            | Notice::NotRestored { .. }
            | Notice::Captured { .. } => {}
        }
    }
}

async fn make(shared: &Arc<Shared>, wish: Wish) {
    let zygotes = &shared.zygotes;
    let (Some(backend), Ok(_permit)) = (&zygotes.backend, zygotes.making.acquire().await) else {
        return;
    };
    let sequence = zygotes.made.fetch_add(1, Ordering::Relaxed) + 1;
    let id = RunnerId { boot: zygotes.boot, sequence };
    if !zygotes.shelf().making(id, wish.app, &wish.key, shared.desk.now()) {
        return;
    }
    let spec = wish.into_spec(id);
    if let Err(error) = backend.ensure(&spec).await {
        tracing::warn!(app = spec.app, "its zygote cannot be made: {}", chain(&error));
        zygotes.shelf().ended(id, chain(&error), false, shared.desk.now());
        return;
    }
    if zygotes.shelf().is_closed() {
        // It may have been unknown to the backend yet when all were ended.
        return end(shared, id, StopMode::Kill);
    }
    let is_made = async {
        while zygotes.shelf().is_making(id) {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    if tokio::time::timeout(MAKE_TIMEOUT, is_made).await.is_err() {
        tracing::warn!(app = spec.app, "its zygote takes too long to import and is given up");
        end(shared, id, StopMode::Kill);
    }
}

async fn ready(shared: &Arc<Shared>, id: RunnerId, socket: PathBuf) {
    let zygotes = &shared.zygotes;
    let memory_bytes = memory_of(&socket).await;
    let app = zygotes.shelf().ready(id, socket, memory_bytes);
    let Some(app) = app.and_then(|app| shared.apps.by_id(app)) else { return };
    tracing::info!(
        app = app.name(),
        mib = memory_bytes >> 20,
        "its starts are forked from a zygote"
    );
    loop {
        let surplus = zygotes.shelf().over_budget(zygotes.memory_max, shared.desk.now());
        let Some(surplus) = surplus else { return };
        tracing::info!(zygote = %surplus, "retires: zygotes take more than `zygote_memory_max`");
        retire(shared, surplus);
    }
}

fn ended(shared: &Arc<Shared>, id: RunnerId, exit: &Exit) {
    let reason = describe(exit);
    let is_unfit = exit.cause == ExitCause::Code(EXIT_UNFIT);
    let found = shared.zygotes.shelf().ended(id, reason.clone(), is_unfit, shared.desk.now());
    let name = |app: AppId| shared.apps.by_id(app).map_or("", |app| app.name());
    match found {
        Some((app, Stage::Making)) => {
            tracing::info!(app = name(app), "its starts are not forked from a zygote: {reason}");
        }
        Some((app, Stage::Ready { .. })) => {
            tracing::warn!(app = name(app), "its zygote has ended: {reason}");
        }
        Some((_, Stage::Retiring)) | None => {}
    }
    let Some(backend) = shared.zygotes.backend.clone() else { return };
    // In a task of its own, since the supervisor may take its time to be gone.
    shared.tasks.spawn(async move {
        if let Err(error) = backend.forget(id).await {
            tracing::warn!(zygote = %id, "its files could not be removed: {}", chain(&error));
        }
    });
}

/// It forks no more; it is ended once its last runner has ended.
fn retire(shared: &Arc<Shared>, id: RunnerId) {
    let (socket, is_used) = {
        let mut shelf = shared.zygotes.shelf();
        (shelf.retire(id), shelf.is_used(id))
    };
    if !is_used {
        end(shared, id, StopMode::Graceful { grace: RETIRE_GRACE });
    } else if let Some(socket) = socket {
        shared.tasks.spawn(async move {
            let tell = async { connect(&socket).await?.write_all(RETIRE).await };
            // One that does not listen is ended after its last runner.
            drop(tokio::time::timeout(TELL_TIMEOUT, tell).await);
        });
    }
}

fn end(shared: &Arc<Shared>, id: RunnerId, mode: StopMode) {
    let Some(backend) = shared.zygotes.backend.clone() else { return };
    shared.tasks.spawn(async move {
        if let Err(error) = backend.stop(id, mode).await {
            tracing::warn!(zygote = %id, "cannot be ended: {}", chain(&error));
        }
    });
}

/// Others may pass through, since runners write there by what they are told, and not look around.
fn make_dir(path: &Path) -> bool {
    use std::os::unix::fs::DirBuilderExt as _;

    let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(path);
    made.inspect_err(|error| tracing::warn!("no zygotes: cannot make {}: {error}", path.display()))
        .is_ok()
}

/// Connects, to a program of whom the folder with the socket belongs to: that user can put a way to anybody
/// else's socket there.
async fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    use std::os::unix::fs::MetadataExt as _;

    let folder = socket.parent().ok_or(std::io::ErrorKind::NotFound)?;
    let owner = std::fs::symlink_metadata(folder)?.uid();
    let stream = UnixStream::connect(socket).await?;
    if stream.peer_cred()?.uid() != owner {
        return Err(std::io::ErrorKind::PermissionDenied.into());
    }
    Ok(stream)
}

/// What the process that listens there takes of the memory, its part of what it shares with others counted;
/// where the kernel does not tell that, all that is shared counted.
async fn memory_of(socket: &Path) -> u64 {
    let Ok(stream) = connect(socket).await else { return 0 };
    let Some(pid) = stream.peer_cred().ok().and_then(|peer| peer.pid()) else { return 0 };
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    let proportional = read("smaps_rollup").and_then(|text| parse_bytes(&text, "Pss:"));
    proportional.or_else(|| parse_bytes(&read("status")?, "VmRSS:")).unwrap_or(0)
}

fn parse_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_whom_the_folder_belongs_to_is_spoken_to() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        assert!(connect(&socket).await.is_ok());
        if std::os::unix::fs::chown(dir.path(), Some(65534), None).is_err() {
            println!("skipped in part: only root can give folders away");
            return;
        }
        let refused = connect(&socket).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn sizes_are_read() {
        let rollup = "00-7f [rollup]\nRss:  7000 kB\nPss:     5120 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(parse_bytes(rollup, "Pss:"), Some(5120 << 10));
        assert_eq!(parse_bytes("VmHWM:\t 9 kB\nVmRSS:\t    8 kB\n", "VmRSS:"), Some(8 << 10));
        assert_eq!(parse_bytes("Rss: 1 kB\n", "Pss:"), None);
    }
}
