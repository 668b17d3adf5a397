//! Takes over runners that were started by another life of the node, and buries those that have lost
//! their shim.

use std::path::Path;
use std::sync::Arc;

use glowplug_core::RunnerId;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::layout::Ownership;
use super::{CONTACT_PAUSE, CONTACT_TIMEOUT, Inner, Runner, RunnerState, Slot, Told, watch};
use crate::backend::{BackendError, ExitCause, RunnerAddress};
use crate::cgroup::{kill_groups, remove_groups};
use crate::proc_table::{kill_if, kill_marked};
use crate::protocol::{
    EXIT_FILE, ExitRecord, PROCESSES_FILE, ProcessesRecord, RECORD_FILE, REPORTED_FILE,
    RunnerRecord, read_file, write_file,
};

impl Inner {
    /// Attaches to the runner, or reports its end if it has ended. `None` if nothing is left to say.
    /// The caller holds a claim on it.
    pub(super) async fn adopt(
        self: &Arc<Self>,
        id: RunnerId,
        told: Told,
    ) -> Result<Option<Runner>, BackendError> {
        let dir = self.layout.dir(id);
        let deadline = Instant::now() + CONTACT_TIMEOUT;
        loop {
            if let Some(runner) = self.runner(id) {
                return Ok(Some(runner));
            }
            if let Ownership::Ours(lock) = self.layout.own(id)? {
                let is_told = told == Told::Once && dir.join(REPORTED_FILE).exists();
                if is_told || !dir.exists() {
                    self.layout.remove(id, lock)?;
                    return Ok(None);
                }
                let record = read_file(&dir, RECORD_FILE).unwrap_or_else(unknown_record);
                let (runner, watcher) =
                    watch::Watcher::new(self, id, record, RunnerState::Stopping);
                self.runners().insert(id, Slot::Known(runner.clone()));
                tokio::spawn(watcher.bury(lock));
                return Ok(Some(runner));
            }
            let record: Option<RunnerRecord> = read_file(&dir, RECORD_FILE);
            if let Some(record) = record
                && let Ok(connection) = UnixStream::connect(&record.control_path).await
            {
                let (runner, watcher) =
                    watch::Watcher::new(self, id, record, RunnerState::Starting);
                let Some(watcher) = watcher.attach(connection).await else { continue };
                self.runners().insert(id, Slot::Known(runner.clone()));
                tokio::spawn(watcher.resume());
                return Ok(Some(runner));
            }
            if Instant::now() >= deadline {
                let problem = "its supervisor lives but does not answer: end it by hand".to_owned();
                return Err(BackendError::Prepare { runner: id, problem });
            }
            // It is just being started, or just ending.
            tokio::time::sleep(CONTACT_PAUSE).await;
        }
    }
}

/// For a directory that was left before anything was written into it.
fn unknown_record() -> RunnerRecord {
    RunnerRecord {
        app: String::new(),
        revision: 0,
        labels: std::collections::BTreeMap::default(),
        started_at_micros: 0,
        address: RunnerAddress::Unix(std::path::PathBuf::new()),
        health_path: None,
        marker: String::new(),
        cgroups: Vec::new(),
        control_path: std::path::PathBuf::new(),
        socket_dir: None,
    }
}

/// Ends what is left of a runner whose shim is gone, as far as it can be found at one look. `true` once
/// nothing is left. The caller holds the runner's lock.
pub(super) fn kill_remains(dir: &Path, record: &RunnerRecord) -> bool {
    kill_groups(&record.cgroups);
    let mut found = false;
    if let Some(processes) = read_file::<ProcessesRecord>(dir, PROCESSES_FILE) {
        let program = processes.program;
        found |= program.is_alive();
        kill_if(program.pid, || program.is_alive());
    }
    if !record.marker.is_empty() {
        found |= kill_marked(&record.marker) > 0;
    }
    remove_groups(&record.cgroups) && !found
}

/// How it ended, as far as anyone wrote it down. What is not known now will not be known later either.
pub(super) fn recorded_cause(dir: &Path) -> ExitCause {
    if let Some(exit) = read_file::<ExitRecord>(dir, EXIT_FILE) {
        return exit.cause;
    }
    let exit = ExitRecord { cause: ExitCause::Unknown };
    // If this fails, the next node finds the same again.
    let _ = write_file(dir, EXIT_FILE, &exit);
    exit.cause
}
