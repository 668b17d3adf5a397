//! What the parts of a running node have in common.

use std::collections::{HashMap, VecDeque};
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use glowplug_api::control::RunnerView;
use glowplug_artifacts::PythonApps;
use glowplug_core::spec::Overrides;
use glowplug_core::{RunnerId, Timestamp};
use glowplug_gateway::Forwarder;
use glowplug_runner::Backend;
use glowplug_store::{KeyRecord, Store, StoreError};
use serde::Deserialize;
use tokio::sync::broadcast;
use tokio_util::task::TaskTracker;

use crate::apps::Apps;
use crate::config::Config;
use crate::desk::Desk;
use crate::events::NodeEvent;
use crate::files::NodeFiles;
use crate::images::Images;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::recorder::Recorder;
use crate::snapshots::Snapshots;
use crate::webhooks::Webhooks;
use crate::zygotes::Zygotes;
use crate::{records, views};

pub(crate) struct Shared {
    pub config: Config,
    pub boot: u32,
    /// Nothing outlives the node, on purpose.
    pub ephemeral: bool,
    pub started_at: Timestamp,
    pub desk: Desk,
    pub apps: Apps,
    pub store: Arc<dyn Store>,
    pub backend: Arc<dyn Backend>,
    pub forwarder: Arc<Forwarder>,
    pub files: NodeFiles,
    pub queue: Queue,
    pub webhooks: Arc<Webhooks>,
    pub metrics: Arc<Metrics>,
    /// `None`: nothing is recorded.
    pub recorder: Option<Arc<Recorder>>,
    pub python: PythonApps,
    pub images: Images,
    pub zygotes: Zygotes,
    pub snapshots: Snapshots,
    /// Scaling parameters changed at run time, by app, as the store has them.
    pub scaling: tokio::sync::Mutex<HashMap<String, Overrides>>,
    /// As the store has them.
    pub keys: RwLock<Vec<KeyRecord>>,
    pub events: broadcast::Sender<NodeEvent>,
    /// Ended runners whose logs are kept, oldest first.
    pub ended_logs: Mutex<VecDeque<RunnerId>>,
    /// Every task of the node that outlives a call, joined at shutdown.
    pub tasks: TaskTracker,
}

/// A line of the file that a runner's program writes about its own start.
#[derive(Deserialize)]
struct Mark {
    mark: String,
    at_us: u64,
}

/// Ended runners whose logs are kept.
const ENDED_LOGS_MAX: usize = 200;
/// Bytes read of a program's account of its start.
const TIMELINE_BYTES_MAX: u64 = 64 * 1024;

impl Shared {
    /// Where a runner's program writes about its start.
    pub(crate) fn timeline_path(&self, runner: RunnerId) -> PathBuf {
        self.config.node.data_dir.join("timelines").join(format!("{runner}.jsonl"))
    }

    /// Takes over what the program told of its start, and drops the file.
    pub(crate) fn read_marks(&self, runner: RunnerId) {
        let path = self.timeline_path(runner);
        let Ok(file) = std::fs::File::open(&path) else { return };
        drop(std::fs::remove_file(&path));
        let mut text = Vec::new();
        // What else the program may have written there is not worth an error.
        drop(file.take(TIMELINE_BYTES_MAX).read_to_end(&mut text));
        let text = String::from_utf8_lossy(&text);
        let marks = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Mark>(line).ok())
            .take(records::MARKS_MAX)
            .map(|mark| (mark.mark, Timestamp::from_micros(mark.at_us)))
            .collect();
        self.desk.mark(runner, marks);
    }

    pub(crate) fn runner_view(&self, runner: RunnerId) -> Option<RunnerView> {
        self.desk.read(|state, now| views::runner(state, now, runner))
    }

    pub(crate) fn announce_ready(&self, runner: RunnerId) {
        if let Some(view) = self.runner_view(runner) {
            self.announce(NodeEvent::RunnerReady { view: Box::new(view) });
        }
    }

    /// Nothing is left of a runner, and the engine has forgotten it.
    pub(crate) fn ended(self: &Arc<Self>, runner: RunnerId) {
        drop(std::fs::remove_file(self.timeline_path(runner)));
        if let Some(view) = self.runner_view(runner) {
            self.announce(NodeEvent::RunnerEnded { view: Box::new(view) });
        }
        self.queue.runner_ended(runner);
        self.zygotes.runner_ended(self, runner);
        self.images.forget_recording(runner);
        self.images.late.forget(runner);
        let oldest = {
            let mut logs = self.ended_logs.lock().unwrap_or_else(PoisonError::into_inner);
            logs.push_back(runner);
            if logs.len() > ENDED_LOGS_MAX { logs.pop_front() } else { None }
        };
        if let Some(oldest) = oldest {
            let shared = self.clone();
            self.tasks.spawn(async move { shared.forget_log(oldest).await });
        }
    }

    /// Drops the logs of all ended runners.
    pub(crate) async fn forget_logs(&self) {
        let logs = {
            let mut logs = self.ended_logs.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *logs)
        };
        for runner in logs {
            self.forget_log(runner).await;
        }
    }

    pub(crate) async fn forget_log(&self, runner: RunnerId) {
        if let Err(error) = self.backend.forget(runner).await {
            tracing::warn!(%runner, "its files could not be removed: {error}");
        }
    }

    /// Nobody may be listening; that is no failure.
    pub(crate) fn announce(&self, event: NodeEvent) {
        drop(self.events.send(event));
    }

    pub(crate) fn keys(&self) -> Vec<KeyRecord> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over the keys that the store has now.
    pub(crate) async fn reload_keys(&self) -> Result<(), StoreError> {
        let keys = self.store.keys().await?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// No key exists, and the node may serve without one.
    pub(crate) fn is_open(&self) -> bool {
        let open_allowed = self.config.node.open || self.config.node.listen.ip().is_loopback();
        open_allowed && self.keys.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}
