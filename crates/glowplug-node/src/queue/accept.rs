//! Accepting requests: on disk first, then in line, then the caller is told.

use std::sync::Arc;

use glowplug_core::request::{Arrival, Mode, Refusal};
use glowplug_core::{AppId, CallerId, HintId, RequestId};
use glowplug_gateway::host::{QueueStatus, Submission, SubmitProblem, Submitted};
use glowplug_store::{Accepted, QueuedRequest, StoreError, crash_point};

use super::answer::refusal_completion;
use super::attempts::STORE_RETRY;
use super::{Live, Place, Queue, store_priority, wish};
use crate::shared::Shared;

impl Queue {
    /// Accepts a request: when this returns, it is on disk and in line.
    pub(crate) async fn submit(
        &self,
        shared: &Arc<Shared>,
        submission: Submission,
    ) -> Result<Submitted, SubmitProblem> {
        let app = submission.app.id;
        self.check_length(shared, app, submission.queue_length_max)?;
        let (arrival, record) = split(shared, submission);
        self.enter(app, &record);
        // A caller that goes away now must not leave a request on disk that nobody serves, so this goes
        // on without it.
        let owned = shared.clone();
        let accepting = shared.tasks.spawn(async move {
            let queue = &owned.queue;
            queue.accept(&owned, arrival, record).await
        });
        let gone = |error: tokio::task::JoinError| SubmitProblem::Unavailable {
            reason: error.to_string(),
        };
        accepting.await.map_err(gone).and_then(|accepted| accepted)
    }

    /// The node's limit holds for what is on its way to the disk as well; the caller's is on what waits
    /// before its request, so that one more than the limit is too many.
    fn check_length(
        &self,
        shared: &Shared,
        app: AppId,
        callers: Option<usize>,
    ) -> Result<(), SubmitProblem> {
        let nodes = shared.config.node.limits.waiting_max as usize;
        let waiting = shared.desk.read(|state, _| state.engine.waiting_count(app));
        let accepting = self.live().accepting.get(&app).copied().unwrap_or(0);
        if waiting + accepting >= nodes {
            return Err(SubmitProblem::QueueFull { limit: nodes });
        }
        match callers {
            Some(limit) if waiting > limit => Err(SubmitProblem::QueueFull { limit }),
            _ => Ok(()),
        }
    }

    fn enter(&self, app: AppId, record: &QueuedRequest) {
        let mut live = self.live();
        let one = Live::new(&record.app, &record.path, Place::Accepting);
        live.by_id.insert(record.id, one);
        *live.accepting.entry(app).or_default() += 1;
    }

    /// The request is on disk now, and the engine's next, or it is neither.
    fn accepted(&self, app: AppId, id: RequestId, accepted: bool) {
        let mut live = self.live();
        if let Some(accepting) = live.accepting.get_mut(&app) {
            *accepting = accepting.saturating_sub(1);
        }
        if !accepted {
            live.by_id.remove(&id);
        } else if let Some(live) = live.by_id.get_mut(&id) {
            live.place = Place::Engine;
        }
    }

    async fn accept(
        &self,
        shared: &Arc<Shared>,
        arrival: Arrival,
        record: QueuedRequest,
    ) -> Result<Submitted, SubmitProblem> {
        let (app, id, name) = (arrival.app, arrival.request, record.app.clone());
        let keyed = record.idempotency_key.is_some();
        let live = Live::new(&record.app, &record.path, Place::Engine);
        let kept = shared.store.submit(record).await;
        shared.queue.health.note(shared, kept.as_ref().err());
        self.accepted(app, id, matches!(kept, Ok(Accepted::New)));
        match kept {
            Ok(Accepted::New) => {
                crash_point("queue.accepted");
                let position = shared.desk.arrive_queued(arrival);
                let mut live = self.live();
                let queue_position =
                    live.by_id.get_mut(&id).map_or(0, |live| live.reported(position));
                drop(live);
                Ok(Submitted { id, queue_position, eta: Self::eta(shared, id) })
            }
            Ok(Accepted::Before(earlier)) => {
                let (queue_position, eta) = match self.status(shared, &name, earlier, false).await {
                    Ok(Some(QueueStatus::InQueue { position, eta, .. })) => (position, eta),
                    _ => (0, None),
                };
                Ok(Submitted { id: earlier, queue_position, eta })
            }
            Err(error) => {
                if matches!(error, StoreError::Unavailable { .. }) {
                    let unsure =
                        if keyed { Unsure::Keyed(arrival, live) } else { Unsure::Unkeyed(id) };
                    settle(shared, unsure);
                }
                Err(problem(error))
            }
        }
    }
}

/// What the engine is told of a submission, and what is kept of it.
fn split(shared: &Shared, submission: Submission) -> (Arrival, QueuedRequest) {
    let now = shared.desk.now();
    let start_timeout = || shared.apps.by_id(submission.app.id)?.start_timeout();
    let start_deadline =
        submission.start_deadline.or_else(|| start_timeout().map(|timeout| now + timeout));
    let (no_retry, retry_config) = wish::kept(submission.retries);
    let arrival = Arrival {
        request: submission.id,
        app: submission.app.id,
        mode: Mode::Queued,
        priority: submission.priority,
        start_deadline,
        caller: CallerId::of(&submission.caller.key_id),
        hint: submission.hint.as_deref().map(HintId::of),
        retries: submission.retries,
        attempts: 0,
    };
    let record = QueuedRequest {
        id: submission.id,
        app: submission.app.name.clone(),
        path: submission.path,
        method: submission.method,
        headers: submission.headers,
        body: submission.body,
        priority: store_priority(submission.priority),
        submitted_at: now,
        start_deadline,
        no_retry,
        retry_config,
        hint: submission.hint,
        webhook_url: submission.webhook_url,
        idempotency_key: submission.idempotency_key,
        keep_payload: submission.keep_payload,
        caller: submission.caller.key_id,
    };
    (arrival, record)
}

/// A request that the store failed to keep, as far as anybody knows. Its caller is told that it was not
/// accepted.
enum Unsure {
    /// Should it be there after all, it ends without being run: its caller makes another.
    Unkeyed(RequestId),
    /// Whoever sends it again is told that it was accepted before, so it must run if it is there.
    Keyed(Arrival, Live),
}

fn settle(shared: &Arc<Shared>, unsure: Unsure) {
    let shared = shared.clone();
    let id = match &unsure {
        Unsure::Unkeyed(id) => *id,
        Unsure::Keyed(arrival, _) => arrival.request,
    };
    shared.tasks.clone().spawn(async move {
        loop {
            if shared.tasks.is_closed() {
                return;
            }
            match shared.store.request(id).await {
                Ok(Some(record)) if record.completed.is_none() => break,
                Ok(_) => return,
                Err(_) => tokio::time::sleep(STORE_RETRY).await,
            }
        }
        match unsure {
            Unsure::Unkeyed(_) => {
                let completion = refusal_completion(&Refusal::Cancelled, shared.desk.now(), 0);
                shared.queue.complete(&shared, id, completion).await;
            }
            Unsure::Keyed(arrival, live) => {
                shared.queue.live().by_id.insert(id, live);
                shared.desk.arrive_queued(arrival);
            }
        }
    });
}

fn problem(error: StoreError) -> SubmitProblem {
    match error {
        StoreError::KeyReused { earlier } => SubmitProblem::KeyReused { earlier },
        error @ StoreError::Full { .. } => SubmitProblem::StorageFull { reason: error.to_string() },
        error => SubmitProblem::Unavailable { reason: error.to_string() },
    }
}
