//! Starts of runners whose images are not here yet, and the pulls that go on behind them.
//!
//! What a late image is, and who serves it, is in [`glowplug_image::lazy`]. Whatever goes wrong before the start ends
//! in an ordinary pull; a runner whose filler dies later is replaced: the node looks every [`LOOK_INTERVAL`].
//!
//! **Limits.** One pull behind each image; it begins when the runner is ready, or after [`BEHIND_AFTER_MAX`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use glowplug_core::{RunnerId, Timestamp};
use glowplug_image::Digest;
use glowplug_image::lazy::{FillerCommand, Late, Lazy, Options, Started};
use glowplug_image::pull::{ProgressSender, Puller};
use glowplug_image::store::Mounted;
use glowplug_image::touched::{Touched, TouchedFile};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::interval;

use crate::images::Found;
use crate::runner_task::{Start, chain};
use crate::shared::Shared;

/// A start that takes longer than this has the pull go on beside it.
const BEHIND_AFTER_MAX: Duration = Duration::from_mins(1);
/// Between two looks whether a filler lives.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct LateStarts {
    filler: FillerCommand,
    lazy: std::sync::OnceLock<Lazy>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    runners: HashMap<RunnerId, LateRunner>,
    /// Pulls that wait for their runner, or go on.
    behind: HashMap<Digest, AbortHandle>,
}

#[derive(Debug)]
struct LateRunner {
    late: Late,
    is_settled: Arc<Notify>,
}

impl LateStarts {
    pub(crate) fn new(filler: FillerCommand) -> Self {
        Self { filler, lazy: std::sync::OnceLock::new(), state: Mutex::default() }
    }

    /// A late image for the runner. `None`: it is to be pulled; why is in the log.
    pub(crate) async fn start(
        &self,
        puller: &Puller,
        found: &Found,
        touched: &Touched,
        runner: RunnerId,
    ) -> Option<Mounted> {
        let (source, resolved) = found.origin()?;
        let name = found.name();
        let lazy = self.lazy.get_or_init(|| {
            let mut options = Options::new(self.filler.clone());
            options.limits = puller.options().limits;
            Lazy::new(puller.clone(), options)
        });
        match lazy.start(source, resolved, touched).await {
            Ok(Started::Late(mounted)) => {
                let late = mounted.as_late()?;
                tracing::info!(%runner, image = name, "starts before its image is here");
                self.watch(runner, late);
                Some(mounted)
            }
            Ok(Started::Full(why)) => {
                tracing::debug!(%runner, image = name, "is pulled before the start: {why}");
                None
            }
            Err(error) => {
                tracing::warn!(
                    %runner, image = name,
                    "cannot be started before it is here, so it is pulled: {}", chain(&error)
                );
                None
            }
        }
    }

    /// The runner uses this image. Called again for one that was started by an earlier life of the node.
    pub(crate) fn watch(&self, runner: RunnerId, late: Late) {
        let late = LateRunner { late, is_settled: Arc::default() };
        self.state().runners.insert(runner, late);
    }

    /// Waits until nobody serves the files of the runner's image any more. Forever, if it has no late image.
    pub(crate) async fn unserved(&self, runner: RunnerId) {
        let late = self.state().runners.get(&runner).map(|runner| runner.late.clone());
        let Some(late) = late else { return std::future::pending().await };
        let mut looks = interval(LOOK_INTERVAL);
        loop {
            looks.tick().await;
            // A few system calls on a folder that is in memory.
            if !late.is_served() {
                return;
            }
        }
    }

    /// The runner takes requests, or is gone: what it needs first it has.
    pub(crate) fn settled(&self, runner: RunnerId) {
        if let Some(late) = self.state().runners.get(&runner) {
            late.is_settled.notify_one();
        }
    }

    pub(crate) fn forget(&self, runner: RunnerId) {
        self.settled(runner);
        self.state().runners.remove(&runner);
    }

    /// Of a recorded start: the files of which only parts were read keep those.
    pub(crate) async fn narrow(
        &self,
        runner: RunnerId,
        files: Vec<TouchedFile>,
        now: Timestamp,
    ) -> Vec<TouchedFile> {
        let Some(late) = self.state().runners.get(&runner).map(|runner| runner.late.clone()) else {
            return files;
        };
        let read = tokio::task::spawn_blocking(move || late.reads(now)).await;
        let Ok(Ok(read)) = read else { return files };
        narrowed(files, &read)
    }

    /// No pull goes on after this.
    pub(crate) fn close(&self) {
        for (_, behind) in self.state().behind.drain() {
            behind.abort();
        }
    }

    /// No code panics while it holds this lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pulls the image of a runner that was started late, once the runner has what it needs first.
pub(crate) fn pull_behind(shared: &Arc<Shared>, start: &Start, found: &Found) {
    let late = &shared.images.late;
    let mut state = late.state();
    state.behind.retain(|_, behind| !behind.is_finished());
    let Some(runner) = state.runners.get(&start.runner) else { return };
    if state.behind.contains_key(&found.digest) {
        return;
    }
    let is_settled = Arc::clone(&runner.is_settled);
    let (shared, found, digest) = (shared.clone(), found.clone(), found.digest.clone());
    let behind = tokio::spawn(async move {
        // Whichever comes first.
        let _ = tokio::time::timeout(BEHIND_AFTER_MAX, is_settled.notified()).await;
        let pulled = shared.images.pull(&found, &ProgressSender::none(), shared.desk.now()).await;
        match pulled {
            Ok(_) => tracing::info!(image = found.name(), "is here now"),
            Err(problem) => {
                tracing::warn!(image = found.name(), "cannot be pulled behind a start: {problem}");
            }
        }
    });
    state.behind.insert(digest, behind.abort_handle());
}

/// Files are recorded as a whole. The filler knows which parts of those that it serves were read.
fn narrowed(mut files: Vec<TouchedFile>, read: &Touched) -> Vec<TouchedFile> {
    let parts: HashMap<&[u8], &TouchedFile> =
        read.files().iter().map(|file| (&*file.path, file)).collect();
    for file in &mut files {
        if let Some(part) = parts.get(&*file.path) {
            file.ranges.clone_from(&part.ranges);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_which_a_part_was_read_is_that_part() {
        let whole = |path: &str| TouchedFile::whole(path.into());
        let part = TouchedFile { path: b"model".to_vec(), ranges: vec![0..10, 90..100] };
        let read = Touched::new(Timestamp::from_micros(1), [part.clone(), whole("unseen")]);
        let narrowed = narrowed(vec![whole("bin/app"), whole("model")], &read);
        assert_eq!(narrowed, [whole("bin/app"), part]);
    }
}
