//! Cancelling, so that a request its caller was told is gone never runs afterwards.
//!
//! One that waits is complete on disk before its caller hears of it. One that runs is marked on disk
//! first: should the node die before the app has answered, it is not run again. Both hold over a crash.

use std::collections::HashSet;
use std::sync::Arc;

use glowplug_core::RequestId;
use glowplug_core::engine::RequestView;
use glowplug_core::request::Refusal;
use glowplug_gateway::host::{CancelOutcome, StoreAway};
use glowplug_store::{RequestRecord, StoreError, crash_point};
use tokio::sync::watch;

use super::answer::refusal_completion;
use super::status::away;
use super::takeover::end_unrun;
use super::{Live, Place, Queue};
use crate::apps::App;
use crate::shared::Shared;

/// The setting that marks a running request as cancelled: this and its id.
const MARK: &str = "cancelled:";

/// Running requests that were cancelled, as the store has them.
pub(super) async fn marked(shared: &Shared) -> Result<HashSet<RequestId>, StoreError> {
    let settings = shared.store.settings().await?;
    let id = |key: &String| key.strip_prefix(MARK)?.parse().ok();
    Ok(settings.iter().filter_map(|(_, key, _)| id(key)).collect())
}

/// Drops marks of requests that are over: whoever completed one may not have known of its mark.
pub(super) async fn sweep(shared: &Shared) -> Result<(), StoreError> {
    for id in marked(shared).await? {
        let record = shared.store.request(id).await?;
        if record.is_none_or(|record| record.completed.is_some()) {
            unmark(shared, id).await;
        }
    }
    Ok(())
}

/// Cancels what callers asked other nodes to cancel, where this node may not have heard of it.
pub(super) async fn catch_up(shared: &Arc<Shared>) {
    match marked(shared).await {
        Ok(marked) => marked.into_iter().for_each(|id| shared.queue.cancel_asked(shared, id)),
        Err(error) => tracing::warn!("some cancellations may be unknown here: {error}"),
    }
}

async fn mark(shared: &Shared, id: RequestId) -> Result<(), StoreError> {
    shared.store.put_setting(String::new(), format!("{MARK}{id}"), "true".to_owned()).await?;
    crash_point("queue.cancel.marked");
    Ok(())
}

/// One that stays is swept later.
pub(super) async fn unmark(shared: &Shared, id: RequestId) {
    if let Err(error) = shared.store.delete_setting(String::new(), format!("{MARK}{id}")).await {
        tracing::debug!(request = %id, "the mark of its cancellation stays for now: {error}");
    }
}

impl Queue {
    pub(crate) async fn cancel(
        &self,
        shared: &Arc<Shared>,
        app: &str,
        id: RequestId,
    ) -> Result<CancelOutcome, StoreAway> {
        let found = self.live().by_id.get(&id).map(|live| (*live.app == *app, live.place));
        Ok(match found {
            Some((false, _) | (_, Place::Accepting)) => CancelOutcome::Unknown,
            Some((true, Place::HeldBack)) => {
                if self.let_go(app, id) {
                    let completion = refusal_completion(&Refusal::Cancelled, shared.desk.now(), 0);
                    self.complete(shared, id, completion).await;
                    CancelOutcome::Removed
                } else {
                    // Its app has become ready in between.
                    self.cancel_here(shared, id).await
                }
            }
            Some((true, Place::Engine)) => self.cancel_here(shared, id).await,
            None => match shared.store.request(id).await.map_err(|error| away(&error))? {
                Some(record) if record.app == app => self.cancel_elsewhere(shared, record).await?,
                _ => CancelOutcome::Unknown,
            },
        })
    }

    /// Takes a request out of those that are held back, unless somebody else has just done so.
    pub(super) fn let_go(&self, app: &str, id: RequestId) -> bool {
        let mut held_back = self.held_back();
        let Some(heads) = held_back.get_mut(app) else { return false };
        let before = heads.len();
        heads.retain(|head| head.id != id);
        let gone = heads.len() < before;
        if heads.is_empty() {
            held_back.remove(app);
        }
        gone
    }

    async fn cancel_here(&self, shared: &Arc<Shared>, id: RequestId) -> CancelOutcome {
        let changes = self.live().by_id.get_mut(&id).map(Live::subscribe);
        let Some(mut changes) = changes else { return CancelOutcome::AlreadyCompleted };
        let in_engine = || shared.desk.read(|state, _| state.engine.request(id));
        match in_engine() {
            // Its answer is on the way to the disk.
            None => return CancelOutcome::AlreadyCompleted,
            Some(RequestView::InFlight { .. }) => self.mark_running(shared, id).await,
            Some(RequestView::Waiting { .. }) => {}
        }
        shared.desk.abandon(id);
        if in_engine().is_some() {
            // It may have been given to a runner just now, and then has no mark yet.
            self.mark_running(shared, id).await;
            return CancelOutcome::Requested;
        }
        // Whoever is told so must not see it run after all, not even in a next life of the node.
        while changes.changed().await.is_ok() {}
        CancelOutcome::Removed
    }

    async fn mark_running(&self, shared: &Shared, id: RequestId) {
        {
            let mut live = self.live();
            match live.by_id.get_mut(&id) {
                Some(live) if !live.cancel_kept => live.cancel_kept = true,
                _ => return,
            }
        }
        if let Err(error) = mark(shared, id).await {
            tracing::warn!(request = %id, "its cancellation cannot be kept, and is lost in a crash: {error}");
        }
    }

    /// Of another node: that one is asked. If it dies before it hears, whoever takes the request over
    /// finds the mark.
    async fn cancel_elsewhere(
        &self,
        shared: &Arc<Shared>,
        record: RequestRecord,
    ) -> Result<CancelOutcome, StoreAway> {
        let id = record.id;
        if record.completed.is_some() {
            return Ok(CancelOutcome::AlreadyCompleted);
        }
        // Without the mark nobody may ever hear of it.
        mark(shared, id).await.map_err(|error| away(&error))?;
        if let Err(error) = shared.store.ask_cancel(id).await {
            tracing::warn!(request = %id, "the node that owns it cannot be asked to cancel it: {error}");
        }
        Ok(CancelOutcome::Requested)
    }

    /// The caller of a request of this node asked another one to cancel it.
    pub(super) fn cancel_asked(&self, shared: &Arc<Shared>, id: RequestId) {
        let app = {
            let mut live = self.live();
            let Some(live) = live.by_id.get_mut(&id) else { return };
            // Whoever asked has left a mark.
            live.cancel_kept = true;
            live.app.clone()
        };
        let shared = shared.clone();
        shared.tasks.clone().spawn(async move {
            let outcome = shared.queue.cancel(&shared, &app, id).await;
            tracing::debug!(request = %id, ?outcome, "cancelled through another node");
        });
    }

    /// Cancels everything of an app that waits. Returns how many, when none of them can run any more.
    pub(crate) async fn flush(&self, shared: &Arc<Shared>, app: &App) -> usize {
        let waiting = shared.desk.read(|state, _| state.engine.waiting(app.id));
        let mut removed = self.follow(waiting.into_iter());
        for (id, _) in &removed {
            shared.desk.abandon(*id);
        }
        // What was given to a runner just now is not removed, only cancelled.
        removed.retain(|(id, _)| shared.desk.read(|state, _| state.engine.request(*id)).is_none());
        let held_back = self.held_back().remove(app.name()).unwrap_or_default();
        removed.extend(self.follow(held_back.iter().map(|head| head.id)));
        for head in &held_back {
            end_unrun(shared, head.id, Refusal::Cancelled);
        }
        let count = removed.len();
        for (_, mut changes) in removed {
            while changes.changed().await.is_ok() {}
        }
        count
    }

    /// The ends of requests of this node, to be waited for.
    fn follow(
        &self,
        ids: impl Iterator<Item = RequestId>,
    ) -> Vec<(RequestId, watch::Receiver<u64>)> {
        let mut live = self.live();
        ids.filter_map(|id| Some((id, live.by_id.get_mut(&id)?.subscribe()))).collect()
    }
}
