//! Real crashes: a child process works on a store and is killed with SIGKILL, at any moment or at each point
//! of [`CRASH_POINTS`]. Whatever it had been told was done must be there afterwards, and done once.
//!
//! The child is one of these tests again, told by the environment to play that part (`crash/child.rs`). It
//! reports each acknowledgement on its standard output as soon as it has it, one line each:
//!
//! ```text
//! boot N            the count of starts
//! submitted ID      submit was acknowledged
//! completed ID BY   complete said `Recorded`, with an answer that says BY
//! called ID         the call of a webhook was recorded as delivered
//! backup NAME       a backup of that name is complete
//! ```

mod child;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use glowplug_core::RequestId;
use glowplug_store::{CRASH_POINTS, Completed, DeliveryState, Store};

use self::child::{BATCH, answer, is_short_lived, open, submitted};
use crate::samples::completion;

const DIRECTORY: &str = "GLOWPLUG_STORE_CRASH_TEST_DIRECTORY";
const CRASH_AT: &str = "GLOWPLUG_CRASH_AT";
const ROUNDS: u32 = 12;
/// The child is killed after a random number of acknowledgements up to this.
const ACKNOWLEDGEMENTS_MAX: u64 = 600;
/// A child that was told more than this many times that something is done comes to no crash point.
const ACKNOWLEDGEMENTS_BEFORE_A_POINT: usize = 5_000;
/// The visits of a point at which the child dies. At the first, nothing has been done before.
const VISITS: [u32; 3] = [1, 2, 9];

#[test]
fn what_was_acknowledged_survives_kill_9() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        return child::work_until_killed(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut history = History::default();
    for round in 1..=ROUNDS {
        let random = RandomState::new().hash_one(round) % ACKNOWLEDGEMENTS_MAX;
        let acknowledgements = 1 + usize::try_from(random).unwrap();
        println!("round {round}: kill after {acknowledgements} acknowledgements");
        let name = "crash::what_was_acknowledged_survives_kill_9";
        let mut child = start(directory.path(), name, None);
        let mut reports = child.reports();
        reports.by_ref().take(acknowledgements).for_each(|report| history.note(&report));
        drop(child);
        // What it had still reported when it died counts as well.
        reports.for_each(|report| history.note(&report));
        assert_eq!(history.boots, round);
        history.check(directory.path());
    }
    assert!(history.submitted.len() > BATCH as usize && history.completed.len() > 10, "too idle");
}

#[test]
fn nothing_is_lost_at_any_crash_point() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        return child::work_until_killed(Path::new(&directory));
    }
    if !cfg!(debug_assertions) {
        println!("passed over: this build has no crash points");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut history = History::default();
    let points = CRASH_POINTS.iter().filter(|(name, _)| name.starts_with("store."));
    for (point, _) in points {
        for visit in VISITS {
            println!("crash at {point}, visit {visit}");
            let name = "crash::nothing_is_lost_at_any_crash_point";
            let mut child = start(directory.path(), name, Some(&format!("{point}:{visit}")));
            let mut reports = child.reports();
            let told = reports.by_ref().take(ACKNOWLEDGEMENTS_BEFORE_A_POINT);
            assert!(
                told.map(|report| history.note(&report)).count() < ACKNOWLEDGEMENTS_BEFORE_A_POINT,
                "the child never came to {point} for the {visit}. time"
            );
            let status = child.0.wait().unwrap();
            assert_eq!(status.signal(), Some(9), "it died of something else");
            history.check(directory.path());
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this test owns its child, kills it and waits for it"
)]
fn start(directory: &Path, test: &str, crash_at: Option<&str>) -> Victim {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(DIRECTORY, directory).stdout(Stdio::piped());
    if let Some(point) = crash_at {
        command.env(CRASH_AT, point);
    }
    Victim(command.spawn().unwrap())
}

/// Killed when it is dropped, also by a test that fails.
struct Victim(Child);

impl Victim {
    fn reports(&mut self) -> impl Iterator<Item = String> + use<> {
        // A line that was cut off has no full stop, nor have the lines of the child's test harness.
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        lines.filter_map(|line| Some(line.strip_suffix('.')?.to_owned()))
    }
}

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
    called: BTreeSet<RequestId>,
    backups: BTreeSet<String>,
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
            ["called", id] => {
                self.called.insert(id.parse().unwrap());
            }
            ["backup", name] => {
                self.backups.insert(name.to_owned());
            }
            _ => panic!("unexpected report `{report}`"),
        }
    }

    fn check(&self, directory: &Path) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for name in &self.backups {
                assert!(directory.join(name).is_file(), "backup {name} is gone");
            }
            let store = open(&directory.join("store.db"));
            let pending = store.pending(None, usize::MAX).await.unwrap();
            for request in &pending {
                assert_eq!(*request, submitted(request.id), "as it was, body included");
            }
            let pending: BTreeSet<_> = pending.iter().map(|request| request.id).collect();
            for id in &self.submitted {
                match store.request(*id).await.unwrap() {
                    Some(record) => {
                        assert_ne!(record.completed.is_some(), pending.contains(id), "{id}");
                    }
                    None => assert!(is_short_lived(*id), "{id} was accepted and is lost"),
                }
            }
            for (id, by) in &self.completed {
                self.check_answer(&*store, *id, by).await;
            }
        });
    }

    async fn check_answer(&self, store: &dyn Store, id: RequestId, by: &str) {
        let Some(response) = store.response(id).await.unwrap() else {
            assert!(is_short_lived(id) && store.request(id).await.unwrap().is_none(), "{id}");
            return;
        };
        assert_eq!(response.body, answer(id, by), "{id} has another answer");
        let webhook = store.delivery(id).await.unwrap();
        assert_eq!(webhook.is_some(), submitted(id).webhook_url.is_some(), "{id}");
        if self.called.contains(&id) {
            assert_eq!(webhook.unwrap().state, DeliveryState::Delivered, "{id} is called again");
        }
        let late = completion(crate::samples::at(1), b"too late");
        let again = store.complete(id, late).await.unwrap();
        assert_eq!(again, Completed::AlreadyComplete);
    }
}
