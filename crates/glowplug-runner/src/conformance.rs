//! What every backend must do, as tests that run against any of them.
//!
//! A backend's own tests implement [`Fixture`] and call [`conformance_tests!`](crate::conformance_tests).
//! Each test ends with a check that nothing is left: no process, group, socket or file.

mod client;
mod ending;
mod freezing;
mod logging;
mod restarting;
mod starting;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use glowplug_core::RunnerId;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub use self::client::get;
pub use self::ending::*;
pub use self::freezing::*;
pub use self::logging::*;
pub use self::restarting::*;
pub use self::starting::*;
use crate::backend::{
    Backend, Exit, Listen, Notice, ObservedRunner, RunnerAddress, RunnerSpec, StopMode,
    TouchedFiles,
};

/// For everything that a test waits for. Generous, since a test that passes waits for less.
pub const PATIENCE: Duration = Duration::from_secs(20);
const POLL_PAUSE: Duration = Duration::from_millis(5);
/// What specs of fixtures should give as grace.
pub const GRACE: Duration = Duration::from_secs(5);

/// A backend under test, in a world of its own.
pub trait Fixture: Send + Sync {
    /// Why this host cannot run the suite, if so.
    fn why_not(&self) -> Option<String> {
        None
    }

    /// Why its runners cannot be frozen, if so.
    fn why_nothing_freezes(&self) -> Option<String> {
        None
    }

    /// A backend on this world. Dropping it and opening another is a restart of the node.
    fn open(&self) -> Arc<dyn Backend>;

    /// A runner whose program behaves so. Its id is `number` with the fixture's own boot.
    fn spec(&self, number: u32, program: Program) -> RunnerSpec;

    /// How many programs run under this id now.
    fn programs(&self, id: RunnerId) -> usize;

    /// Everything that is left of any runner, in words.
    fn remains(&self) -> Vec<String>;

    /// What the log of a runner may occupy.
    fn log_bytes_max(&self) -> u64;

    /// What the log of this runner occupies.
    fn log_bytes(&self, id: RunnerId) -> u64;

    /// What a line of the log may hold.
    fn line_bytes_max(&self) -> usize;
}

/// What the program of a runner does. All of them say `hello` first, and serve HTTP if nothing else is
/// said; `/crash` ends them with code 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Serves,
    /// Ends at once with this code.
    Exits(u8),
    /// Runs, and never listens.
    NeverReady,
    /// Listens after this long.
    SetsUpFor(Duration),
    /// The first so many requests for `/health` get 500.
    UnhealthyAtFirst(u32),
    IgnoresTerm,
    /// Ends this long after SIGTERM, with code 0.
    StopsIn(Duration),
    /// Writes so many lines of more than 200 bytes before it serves.
    Floods(u64),
    /// Writes one line of so many bytes before it serves.
    LongLine(usize),
}

/// A node with its backend, as far as these tests need one.
pub struct Node {
    pub backend: Arc<dyn Backend>,
    notices: mpsc::Receiver<Notice>,
    /// Of other runners than the one that was waited for.
    set_aside: Vec<Notice>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("set_aside", &self.set_aside).finish_non_exhaustive()
    }
}

impl Node {
    pub fn start(fixture: &dyn Fixture) -> Self {
        Self::start_with(fixture.open())
    }

    pub fn start_with(backend: Arc<dyn Backend>) -> Self {
        let notices = backend.notices().expect("the first to ask gets the notices");
        assert!(backend.notices().is_none(), "the notices are given out once");
        Self { backend, notices, set_aside: Vec::new() }
    }

    pub async fn ensure(&self, spec: &RunnerSpec) {
        self.backend.ensure(spec).await.expect("the start gets under way");
    }

    pub async fn observe(&self) -> Vec<ObservedRunner> {
        self.backend.observe().await.expect("runners can be listed")
    }

    pub async fn stop(&self, id: RunnerId) {
        let mode = StopMode::Graceful { grace: GRACE };
        self.backend.stop(id, mode).await.expect("the stop gets under way");
    }

    pub async fn kill(&self, id: RunnerId) {
        self.backend.stop(id, StopMode::Kill).await.expect("the kill gets under way");
    }

    /// The next notice about this runner.
    pub async fn next(&mut self, id: RunnerId) -> Notice {
        if let Some(at) = self.set_aside.iter().position(|notice| subject(notice) == id) {
            return self.set_aside.remove(at);
        }
        loop {
            let notice = timeout(PATIENCE, self.notices.recv()).await;
            let notice = notice.unwrap_or_else(|_| panic!("no notice about {id} in {PATIENCE:?}"));
            let notice = notice.expect("the backend lives");
            if subject(&notice) == id {
                return notice;
            }
            self.set_aside.push(notice);
        }
    }

    pub async fn spawned(&mut self, id: RunnerId) {
        let notice = self.next(id).await;
        assert!(matches!(notice, Notice::Spawned { .. }), "{notice:?}");
    }

    pub async fn ready(&mut self, id: RunnerId) -> RunnerAddress {
        match self.next(id).await {
            Notice::Ready { address, .. } => address,
            other => panic!("{id} should be ready: {other:?}"),
        }
    }

    pub async fn touched(&mut self, id: RunnerId) -> TouchedFiles {
        match self.next(id).await {
            Notice::Touched { files, .. } => files,
            other => panic!("{id} should have been recorded: {other:?}"),
        }
    }

    pub async fn exited(&mut self, id: RunnerId) -> Exit {
        match self.next(id).await {
            Notice::Exited { exit, .. } => exit,
            other => panic!("{id} should have ended: {other:?}"),
        }
    }

    /// The end of a runner that may still have been seen as ready.
    pub async fn exited_at_last(&mut self, id: RunnerId) -> Exit {
        match self.next(id).await {
            Notice::Ready { .. } => self.exited(id).await,
            Notice::Exited { exit, .. } => exit,
            other => panic!("{id} should have ended: {other:?}"),
        }
    }

    /// Starts the runner and waits until it is ready.
    pub async fn bring_up(&mut self, spec: &RunnerSpec) -> RunnerAddress {
        self.ensure(spec).await;
        self.spawned(spec.id).await;
        self.ready(spec.id).await
    }

    /// Kills the runner, waits for its end and forgets it.
    pub async fn clear(&mut self, id: RunnerId) -> Exit {
        self.kill(id).await;
        let exit = self.exited(id).await;
        self.backend.forget(id).await.expect("an ended runner can be forgotten");
        exit
    }

    /// Fails if there is any notice that nobody waited for.
    pub fn expect_silence(&mut self) {
        assert!(self.set_aside.is_empty(), "{:?}", self.set_aside);
        if let Ok(notice) = self.notices.try_recv() {
            panic!("nothing should have happened: {notice:?}");
        }
    }
}

fn subject(notice: &Notice) -> RunnerId {
    match notice {
        Notice::Spawned { runner, .. }
        | Notice::Ready { runner, .. }
        | Notice::Touched { runner, .. }
        | Notice::NotRestored { runner, .. }
        | Notice::Captured { runner, .. }
        | Notice::Frozen { runner, .. }
        | Notice::Thawed { runner, .. }
        | Notice::Exited { runner, .. } => *runner,
    }
}

/// Waits until `holds`; fails with what `describe` says if it never does.
pub async fn eventually(mut holds: impl FnMut() -> bool, describe: impl Fn() -> String) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(POLL_PAUSE).await;
        }
    };
    let in_time = timeout(PATIENCE, waiting).await.is_ok();
    assert!(in_time, "{}", describe());
}

/// The check at the end of every test.
pub async fn leaves_nothing(fixture: &dyn Fixture) {
    eventually(
        || fixture.remains().is_empty(),
        || format!("these should be gone: {:#?}", fixture.remains()),
    )
    .await;
}

/// A spec with what most fixtures have in common; they fill in program and environment.
pub fn plain_spec(id: RunnerId) -> RunnerSpec {
    RunnerSpec {
        id,
        app: "local/conformance".to_owned(),
        revision: 7,
        labels: BTreeMap::from([("machine".to_owned(), "small".to_owned())]),
        argv: Vec::new(),
        cwd: std::env::temp_dir(),
        env: BTreeMap::new(),
        listen: Listen::Port,
        health_path: None,
        limits: crate::Limits::default(),
        gpus: Vec::new(),
        user: None,
        container: None,
        warm: crate::Warm::Plain,
        grace: GRACE,
        orphan_timeout: Duration::from_mins(1),
    }
}

/// One test for each thing that a backend must do, on what `$fixture` evaluates to.
#[macro_export]
macro_rules! conformance_tests {
    ($fixture:expr) => {
        $crate::conformance_tests! { @each $fixture;
            starts_serves_and_stops
            starts_once_for_one_id
            starts_once_for_ids_in_a_race
            starts_many_at_once
            listens_on_a_unix_socket
            waits_for_the_health_path
            tells_of_an_exit_at_once
            stops_what_never_gets_ready
            tells_of_a_crash
            stops_twice_as_once
            gives_the_grace_it_is_told
            kills_what_ignores_the_signal
            kills_at_once_when_told
            forgets_only_what_has_ended
            freezes_and_thaws
            stops_what_is_frozen
            adopts_what_is_ready
            adopts_what_is_frozen
            adopts_what_is_starting
            adopts_what_is_stopping
            tells_once_of_an_end_without_a_node
            keeps_the_log
            the_log_is_up_to_date
            follows_the_log
            cuts_long_lines
            contains_a_flood
        }
    };
    (@each $fixture:expr; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let fixture = $fixture;
                if let Some(why) = $crate::conformance::Fixture::why_not(&fixture) {
                    println!("skipped: {why}");
                    return;
                }
                $crate::conformance::$name(&fixture).await;
                $crate::conformance::leaves_nothing(&fixture).await;
            }
        )*
    };
}
