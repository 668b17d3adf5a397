//! Real crashes: a child process works on a store and is killed with SIGKILL at any moment. Whatever
//! it had been told was done must be there afterwards, and done once.
//!
//! The child is this test again, told by the environment to play that part. It reports each
//! acknowledgement on its standard output as soon as it has it, one line each:
//!
//! ```text
//! boot N            the count of starts
//! submitted ID      submit was acknowledged
//! completed ID BY   complete said `Recorded`, with an answer that says BY
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use futures::future::join_all;
use glowplug_core::RequestId;
use glowplug_store::{Completed, SqliteOptions, SqliteStore, Store};

use crate::samples::{at, completion, request};

const DIRECTORY: &str = "GLOWPLUG_STORE_CRASH_TEST_DIRECTORY";
const ROUNDS: u32 = 12;
/// The child is killed after a random number of acknowledgements up to this.
const ACKNOWLEDGEMENTS_MAX: u64 = 600;
/// Submits the child has in flight at a time.
const BATCH: u128 = 40;
/// Older requests that the child tries to answer again in each batch.
const OLD_PER_BATCH: usize = 10;

#[test]
fn what_was_acknowledged_survives_kill_9() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        return work_until_killed(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut history = History::default();
    for round in 1..=ROUNDS {
        let random = RandomState::new().hash_one(round) % ACKNOWLEDGEMENTS_MAX;
        let acknowledgements = 1 + usize::try_from(random).unwrap();
        println!("round {round}: kill after {acknowledgements} acknowledgements");
        let mut child = start(directory.path());
        // A line that was cut off has no full stop, nor have the lines of the child's test harness.
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut reports = lines.filter_map(|line| Some(line.strip_suffix('.')?.to_owned()));
        reports.by_ref().take(acknowledgements).for_each(|report| history.note(&report));
        drop(child);
        // What it had still reported when it died counts as well.
        reports.for_each(|report| history.note(&report));
        assert_eq!(history.boots, round);
        history.check(directory.path());
    }
    assert!(history.submitted.len() > BATCH as usize && history.completed.len() > 10, "too idle");
}

#[expect(
    clippy::disallowed_methods,
    reason = "this test owns its child, kills it and waits for it"
)]
fn start(directory: &Path) -> Victim {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::what_was_acknowledged_survives_kill_9", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    Victim(child)
}

/// Killed when it is dropped, also by a test that fails.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What the children were told.
#[derive(Default)]
struct History {
    boots: u32,
    submitted: BTreeSet<RequestId>,
    completed: BTreeMap<RequestId, String>,
}

impl History {
    fn note(&mut self, report: &str) {
        match report.split(' ').collect::<Vec<_>>()[..] {
            ["boot", number] => {
                let boots = number.parse().unwrap();
                assert!(boots > self.boots, "boot {boots} follows boot {}", self.boots);
                self.boots = boots;
            }
            ["submitted", id] => {
                assert!(self.submitted.insert(id.parse().unwrap()), "{id} was accepted twice");
            }
            ["completed", id, by] => {
                let before = self.completed.insert(id.parse().unwrap(), by.to_owned());
                assert_eq!(before, None, "{id} was completed twice");
            }
            _ => panic!("unexpected report `{report}`"),
        }
    }

    fn check(&self, directory: &Path) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = open(directory);
        runtime.block_on(async {
            let pending = store.pending(None, usize::MAX).await.unwrap();
            let pending: BTreeSet<_> = pending.iter().map(|request| request.id).collect();
            for id in &self.submitted {
                let record = store.request(*id).await.unwrap();
                let record = record.unwrap_or_else(|| panic!("{id} was accepted and is lost"));
                assert_ne!(record.completed.is_some(), pending.contains(id), "{id}");
            }
            for (id, by) in &self.completed {
                let response = store.response(*id).await.unwrap();
                let response = response.unwrap_or_else(|| panic!("the answer of {id} is lost"));
                assert_eq!(response.body, by.as_bytes(), "{id} has another answer");
                let again = store.complete(*id, completion(at(1), b"too late")).await.unwrap();
                assert_eq!(again, Completed::AlreadyComplete);
            }
        });
    }
}

fn open(directory: &Path) -> Arc<SqliteStore> {
    SqliteStore::open(&directory.join("store.db"), SqliteOptions::default()).unwrap()
}

fn work_until_killed(directory: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let store = open(directory);
    // The test harness may have begun a line, which ends here.
    std::io::stdout().write_all(b"\n").unwrap();
    runtime.block_on(async {
        let boot = store.begin_boot().await.unwrap();
        report(&format!("boot {boot}"));
        let old = store.adopt(usize::MAX).await.unwrap();
        let mut old = old.into_iter().map(|head| head.id);
        for first in (0_u128..).step_by(usize::try_from(BATCH).unwrap()) {
            let new =
                (first..first + BATCH).map(|number| RequestId(u128::from(boot) << 64 | number));
            join_all(new.map(|id| tokio::spawn(live(Arc::clone(&store), id, boot)))).await;
            let old = old.by_ref().take(OLD_PER_BATCH);
            join_all(old.map(|id| answer_twice(&store, id, boot))).await;
        }
    });
}

/// Submits a request, and answers two of three.
async fn live(store: Arc<SqliteStore>, id: RequestId, boot: u32) {
    store.submit(request(id.0)).await.unwrap();
    report(&format!("submitted {id}"));
    if !id.0.is_multiple_of(3) {
        answer_twice(&store, id, boot).await;
    }
}

/// Two answers race, and only one may be recorded. The request is not yet answered, or it was by a
/// child that did not live to hear of it.
async fn answer_twice(store: &SqliteStore, id: RequestId, boot: u32) {
    let racers = ["left", "right"].map(|racer| async move {
        let by = format!("{racer}-{boot}");
        let outcome = store.complete(id, completion(at(200), by.as_bytes())).await.unwrap();
        if outcome == Completed::Recorded {
            report(&format!("completed {id} {by}"));
        }
    });
    join_all(racers).await;
}

/// Writes a whole line at once. The full stop tells it from one that was cut off.
fn report(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}.\n").as_bytes()).unwrap();
    out.flush().unwrap();
}
