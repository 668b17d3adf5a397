//! Taking over what others accepted: an earlier life of this node, or a node that is gone.
//!
//! The store gives out the heads of requests without an owner, page by page, and makes this node theirs. Of
//! an app that is ready they go to the engine; those of other apps are held back until it is.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use glowplug_api::ErrorType;
use glowplug_core::request::{Arrival, Mode, Refusal};
use glowplug_core::retry::ATTEMPTS_MAX;
use glowplug_core::{CallerId, HintId, RequestId};
use glowplug_gateway::answer::Problem;
use glowplug_store::{Change, QueuedHead, StoreError};
use tokio::sync::broadcast::error::RecvError;

use super::answer::{problem_completion, refusal_completion};
use super::{Live, Place, Queue, cancel, engine_priority, wish};
use crate::apps::App;
use crate::scale;
use crate::shared::Shared;

/// A request with so many attempts written down gets no other. The very first need not be among them
/// (`attempts.rs`).
const NOTED_MAX: u32 = ATTEMPTS_MAX - 1;
/// Requests taken over at a time.
const PAGE: usize = 500;
/// Between two looks for requests whose node is gone, where nodes share a store.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Between two looks at what is held back, and at what other nodes do.
const TICK: Duration = Duration::from_secs(1);

/// Takes over everything that has no owner, in order of acceptance.
pub(crate) async fn take_over(shared: &Arc<Shared>) -> Result<usize, StoreError> {
    let mut count = 0;
    loop {
        let page = shared.store.adopt(PAGE).await?;
        if page.is_empty() {
            return Ok(count);
        }
        let cancelled = cancel::marked(shared).await?;
        count += page.len();
        for head in page {
            take_up(shared, head, &cancelled);
        }
    }
}

fn take_up(shared: &Arc<Shared>, head: QueuedHead, cancelled: &HashSet<RequestId>) {
    let (queue, id) = (&shared.queue, head.id);
    if queue.live().by_id.contains_key(&id) {
        // It was lost to a node that is gone by now, and is at work here still: nothing has changed.
        return;
    }
    let mut live = Live::new(&head.app, &head.path, Place::HeldBack);
    live.taken_over = true;
    if cancelled.contains(&id) {
        live.cancel_kept = true;
        queue.live().by_id.insert(id, live);
        end_unrun(shared, id, Refusal::Cancelled);
        return;
    }
    queue.live().by_id.insert(id, live);
    if head.attempts >= NOTED_MAX {
        end_interrupted(shared, id, head.attempts);
        return;
    }
    queue.held_back().entry(head.app.clone()).or_default().push_back(head);
}

impl Queue {
    /// Gives the engine what was held back until the app is ready.
    pub(crate) fn release(&self, shared: &Arc<Shared>, app: &App) {
        // Held throughout: whoever cancels finds a request either here or with the engine.
        let mut held_back = self.held_back();
        let heads = held_back.remove(app.name()).unwrap_or_default();
        let count = heads.len();
        for head in heads {
            match self.live().by_id.get_mut(&head.id) {
                Some(live) => live.place = Place::Engine,
                // It was cancelled just now.
                None => continue,
            }
            shared.desk.arrive_queued(Arrival {
                request: head.id,
                app: app.id,
                mode: Mode::Queued,
                priority: engine_priority(head.priority),
                start_deadline: head.start_deadline,
                caller: CallerId::of(&head.caller),
                hint: head.hint.as_deref().map(HintId::of),
                retries: wish::wish(head.no_retry, head.retry_config.as_deref()),
                attempts: head.attempts,
            });
            self.changed(head.id);
        }
        if count > 0 {
            tracing::info!(app = app.name(), count, "requests taken over are waiting again");
        }
    }

    /// Requests whose apps are not configured, by app.
    pub(crate) fn held_back_unknown(&self, shared: &Shared) -> Vec<(String, usize)> {
        let held_back = self.held_back();
        let unknown = held_back.iter().filter(|(name, _)| shared.apps.by_name(name).is_none());
        unknown.map(|(name, heads)| (name.clone(), heads.len())).collect()
    }

    fn release_ready(&self, shared: &Arc<Shared>) {
        let names: Vec<String> = self.held_back().keys().cloned().collect();
        for app in names.iter().filter_map(|name| shared.apps.by_name(name)) {
            if app.deployed().is_some() {
                self.release(shared, app);
            }
        }
    }

    /// Another node has completed what this one thought its own: its lease had run out.
    fn completed_elsewhere(&self, shared: &Shared, id: RequestId) {
        let Some(app) = self.live().by_id.get(&id).map(|live| live.app.clone()) else { return };
        if self.let_go(&app, id) {
            self.forget(id);
        } else {
            // What comes of it is dropped by the store, which has the answer.
            shared.desk.abandon(id);
        }
    }

    /// Ends what waited for its app beyond its own deadline.
    fn expire(&self, shared: &Arc<Shared>) {
        let now = shared.desk.now();
        let mut expired = Vec::new();
        self.held_back().retain(|_, heads: &mut VecDeque<QueuedHead>| {
            heads.retain(|head| {
                let over = head.start_deadline.is_some_and(|deadline| deadline <= now);
                if over {
                    expired.push(head.id);
                }
                !over
            });
            !heads.is_empty()
        });
        for id in expired {
            end_unrun(shared, id, Refusal::StartDeadline);
        }
    }
}

/// Completes a request that the engine does not know.
pub(super) fn end_unrun(shared: &Arc<Shared>, id: RequestId, refusal: Refusal) {
    let shared = shared.clone();
    shared.tasks.clone().spawn(async move {
        let completion = refusal_completion(&refusal, shared.desk.now(), 0);
        shared.queue.complete(&shared, id, completion).await;
    });
}

/// Completes a request whose attempts were all cut off: it may be what its nodes die of.
fn end_interrupted(shared: &Arc<Shared>, id: RequestId, attempts: u32) {
    let shared = shared.clone();
    shared.tasks.clone().spawn(async move {
        let detail = format!(
            "the node ended in the middle of an attempt again and again, and after {ATTEMPTS_MAX} attempts \
             there is no other"
        );
        let problem = Problem::new(ErrorType::RunnerDisconnected, detail);
        let completion = problem_completion(&problem, shared.desk.now(), attempts);
        shared.queue.complete(&shared, id, completion).await;
    });
}

/// Looks after what has no other way to be noticed: requests held back, and those of nodes that are gone.
pub(crate) async fn look_after(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looked_at = shared.desk.now();
    loop {
        ticks.tick().await;
        let now = shared.desk.now();
        if shared.queue.watched.is_open() {
            shared.queue.watched.look();
            if now - looked_at >= LOOK_INTERVAL {
                looked_at = now;
                look(&shared).await;
            }
        }
        shared.queue.release_ready(&shared);
        shared.queue.expire(&shared);
    }
}

async fn look(shared: &Arc<Shared>) {
    match take_over(shared).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "queued requests of a node that is gone are taken over"),
        Err(error) => tracing::warn!("queued requests could not be taken over: {error}"),
    }
    // Calls that such a node owed are due now.
    shared.webhooks.wake();
    shared.queue.release_ready(shared);
}

/// Takes up keys and scaling that were changed through another node.
async fn read_settings(shared: &Arc<Shared>) {
    let read = async {
        shared.reload_keys().await?;
        scale::reload(shared).await
    };
    if let Err(error) = read.await {
        tracing::warn!("what another node changed is not known here yet: {error}");
    }
}

/// Does what other nodes ask for, and passes on what they say, where nodes share a store.
pub(crate) async fn follow_changes(shared: Arc<Shared>) {
    let Some(mut changes) = shared.store.changes() else { return };
    shared.queue.watched.open();
    loop {
        match changes.recv().await {
            Ok(Change::Completed(id)) => {
                shared.queue.watched.complete(id);
                shared.queue.completed_elsewhere(&shared, id);
            }
            Ok(Change::CancelAsked(id)) => shared.queue.cancel_asked(&shared, id),
            Ok(Change::Orphaned) => look(&shared).await,
            Ok(Change::Settings) => read_settings(&shared).await,
            Err(RecvError::Lagged(_)) => {
                shared.queue.watched.look();
                look(&shared).await;
                cancel::catch_up(&shared).await;
                read_settings(&shared).await;
            }
            Err(RecvError::Closed) => return,
        }
    }
}
