//! The durable queue: what was accepted is on disk before the caller hears of it, and is completed once.
//!
//! ```text
//! submit ─► store (fsync) ─► engine ─► attempt ─┬─► deliver ─► store ─► COMPLETED
//!                              ▲                └─► retry ──┐
//!                              └────────────────────────────┘
//! ```
//!
//! The engine decides who runs when and whether an attempt counts; the store remembers; this module runs
//! the attempts between them. A request that is not complete when the node dies is found in the store at the
//! next start and queued again. Bodies are read from the store for each attempt: waiting costs no memory
//! beyond the id.

mod answer;
mod attempts;
mod legacy;
mod words;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use glowplug_core::engine::RequestView;
use glowplug_core::request::{Arrival, Mode, Priority, Refusal};
use glowplug_core::retry::Wish;
use glowplug_core::{CallerId, HintId, RequestId, RunnerId};
use glowplug_gateway::host::{
    CancelOutcome, QueueLog, QueueStatus, ResponseLookup, Submission, SubmitProblem, Submitted,
};
use glowplug_store::{QueuedRequest, StoredResponse};
use tokio::sync::watch;

use self::answer::refusal_completion;
pub(crate) use self::legacy::{PendingRequest, pending, purge};
use self::words::LogEnds;
use crate::apps::App;
use crate::shared::Shared;

/// Requests that are accepted and not complete.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    live: Mutex<HashMap<RequestId, Live>>,
    log_ends: LogEnds,
}

#[derive(Debug)]
struct Live {
    app: String,
    logs: Vec<QueueLog>,
    /// Counts changes, for whoever follows the status.
    changed: watch::Sender<u64>,
    path: String,
    /// The app may know of it.
    sent: bool,
    cancel_asked: bool,
}

impl Queue {
    fn live(&self) -> MutexGuard<'_, HashMap<RequestId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, id: RequestId, app: &str, path: &str) {
        let live = Live {
            app: app.to_owned(),
            logs: Vec::new(),
            changed: watch::channel(0).0,
            path: path.to_owned(),
            sent: false,
            cancel_asked: false,
        };
        self.live().insert(id, live);
    }

    fn changed(&self, id: RequestId) {
        if let Some(live) = self.live().get(&id) {
            live.changed.send_modify(|count| *count += 1);
        }
    }

    pub(crate) fn watch(&self, id: RequestId) -> Option<watch::Receiver<u64>> {
        self.live().get(&id).map(|live| live.changed.subscribe())
    }

    pub(crate) fn runner_ended(&self, runner: RunnerId) {
        self.log_ends.forget(runner);
    }

    /// Notes that the app gets the request now, unless it was cancelled before.
    fn begin(&self, id: RequestId) -> bool {
        match self.live().get_mut(&id) {
            Some(live) if live.cancel_asked => false,
            Some(live) => {
                live.sent = true;
                true
            }
            None => true,
        }
    }

    /// Accepts a request: when this returns, it is on disk and in line.
    pub(crate) async fn submit(
        &self,
        shared: &Arc<Shared>,
        submission: Submission,
    ) -> Result<Submitted, SubmitProblem> {
        let app = submission.app.clone();
        let node_limit = shared.config.node.limits.waiting_max as usize;
        let limit = submission.queue_length_max.unwrap_or(node_limit).min(node_limit);
        let waiting = shared
            .desk
            .read(|state, now| state.engine.app(app.id, now).map_or(0, |app| app.waiting));
        // The caller's limit is on what waits before it, so one more than the limit is too many.
        if waiting > limit || waiting >= node_limit {
            return Err(SubmitProblem::QueueFull { limit });
        }
        let arrival = Arrival {
            request: submission.id,
            app: app.id,
            mode: Mode::Queued,
            priority: submission.priority,
            start_deadline: submission.start_deadline,
            caller: CallerId::of(&submission.caller.key_id),
            hint: submission.hint.as_deref().map(HintId::of),
            retries: submission.retries,
        };
        let record = QueuedRequest {
            id: submission.id,
            app: app.name.clone(),
            path: submission.path,
            method: submission.method,
            headers: submission.headers,
            body: submission.body,
            priority: store_priority(submission.priority),
            submitted_at: shared.desk.now(),
            start_deadline: submission.start_deadline,
            no_retry: submission.retries == Wish::Never,
            retry_config: None,
            hint: submission.hint,
            idempotency_key: None,
            keep_payload: submission.keep_payload,
            webhook_url: submission.webhook_url,
            caller: submission.caller.key_id,
        };
        self.enter(submission.id, &app.name, &record.path);
        // A caller that goes away now must not leave a request on disk that nobody serves, so this goes
        // on without it.
        let shared = shared.clone();
        let accepting = shared.tasks.clone().spawn(async move {
            if let Err(error) = shared.store.submit(record).await {
                shared.queue.live().remove(&arrival.request);
                return Err(SubmitProblem::Unavailable { reason: error.to_string() });
            }
            let id = arrival.request;
            Ok(Submitted { id, queue_position: shared.desk.arrive_queued(arrival), eta: None })
        });
        let gone = |error: tokio::task::JoinError| SubmitProblem::Unavailable {
            reason: error.to_string(),
        };
        accepting.await.map_err(gone).and_then(|accepted| accepted)
    }

    /// Takes up what an earlier life of the node had accepted for an app and not completed.
    pub(crate) fn restore(&self, shared: &Arc<Shared>, pending: Vec<PendingRequest>, app: &App) {
        let count = pending.len();
        for request in pending {
            self.enter(request.id, app.name(), &request.path);
            shared.desk.arrive_queued(Arrival {
                request: request.id,
                app: app.id,
                mode: Mode::Queued,
                priority: request.priority,
                start_deadline: request.start_deadline,
                caller: request.caller,
                hint: request.hint,
                retries: request.retries,
            });
        }
        if count > 0 {
            tracing::info!(
                app = app.name(),
                count,
                "queued requests of an earlier run are waiting again"
            );
        }
    }

    pub(crate) async fn cancel(
        &self,
        shared: &Arc<Shared>,
        app: &str,
        id: RequestId,
    ) -> CancelOutcome {
        let live = self.live().get(&id).map(|live| (live.app == app, live.changed.subscribe()));
        match live {
            Some((false, _)) => CancelOutcome::Unknown,
            Some((true, mut changes)) => {
                let in_engine = || shared.desk.read(|state, _| state.engine.request(id));
                if in_engine().is_none() {
                    // Its answer is on the way to the disk.
                    return CancelOutcome::AlreadyCompleted;
                }
                shared.desk.abandon(id);
                if in_engine().is_some() {
                    return CancelOutcome::Requested;
                }
                // Whoever is told so must not see it run after all, not even in a next life of the node.
                while changes.changed().await.is_ok() {}
                CancelOutcome::Removed
            }
            None => match shared.store.request(id).await {
                Ok(Some(record)) if record.app == app && record.completed.is_none() => {
                    // Of an earlier life, and its app is not ready to take it up.
                    let completion = refusal_completion(&Refusal::Cancelled, shared.desk.now(), 0);
                    self.complete(shared, id, completion).await;
                    CancelOutcome::Removed
                }
                Ok(Some(record)) if record.app == app => CancelOutcome::AlreadyCompleted,
                _ => CancelOutcome::Unknown,
            },
        }
    }

    /// Cancels everything of an app that waits. Returns how many.
    pub(crate) fn flush(&self, shared: &Shared, app: &App) -> usize {
        let waiting = shared.desk.read(|state, _| state.engine.waiting(app.id));
        let queued: Vec<RequestId> = {
            let live = self.live();
            waiting.into_iter().filter(|id| live.contains_key(id)).collect()
        };
        for id in &queued {
            shared.desk.abandon(*id);
        }
        queued.len()
    }

    pub(crate) async fn status(
        &self,
        shared: &Shared,
        app: &str,
        id: RequestId,
        logs: bool,
    ) -> Option<QueueStatus> {
        let live = self
            .live()
            .get(&id)
            .map(|live| (live.app == app, if logs { live.logs.clone() } else { Vec::new() }));
        if let Some((same_app, logs)) = live {
            if !same_app {
                return None;
            }
            let view = shared.desk.read(|state, _| state.engine.request(id));
            return Some(match view {
                Some(RequestView::Waiting { position }) => {
                    QueueStatus::InQueue { position, eta: None, logs }
                }
                // Not with the engine: its answer is on the way to the disk.
                Some(RequestView::InFlight { .. }) | None => QueueStatus::InProgress { logs },
            });
        }
        let record = shared.store.request(id).await.ok()??;
        if record.app != app {
            return None;
        }
        let logs = if logs { self.stored_logs(shared, id).await } else { Vec::new() };
        Some(match record.completed {
            Some(done) => QueueStatus::Completed {
                logs,
                inference_seconds: done.inference_seconds,
                error: done.error,
            },
            // Of an app that is not in the config now: it waits for the app's return.
            None => QueueStatus::InQueue { position: 0, eta: None, logs },
        })
    }

    async fn stored_logs(&self, shared: &Shared, id: RequestId) -> Vec<QueueLog> {
        let lines = shared.store.request_logs(id).await.unwrap_or_default();
        lines
            .into_iter()
            .map(|line| QueueLog {
                message: line.message,
                level: line.level,
                source: line.source,
                at: line.at,
            })
            .collect()
    }

    pub(crate) async fn response(
        &self,
        shared: &Shared,
        app: &str,
        id: RequestId,
    ) -> ResponseLookup {
        match self.status(shared, app, id, false).await {
            None => ResponseLookup::Unknown,
            Some(QueueStatus::Completed { .. }) => match shared.store.response(id).await {
                Ok(Some(StoredResponse { status, headers, body })) => {
                    ResponseLookup::Ready { status, headers, body }
                }
                _ => ResponseLookup::Unknown,
            },
            Some(waiting) => ResponseLookup::NotYet(waiting),
        }
    }
}

fn store_priority(priority: Priority) -> glowplug_store::Priority {
    match priority {
        Priority::Normal => glowplug_store::Priority::Normal,
        Priority::Low => glowplug_store::Priority::Low,
    }
}
