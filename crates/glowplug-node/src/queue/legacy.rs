//! What the store holds beyond one life of the node: requests to take up again, answers to drop.

use std::sync::Arc;
use std::time::Duration;

use glowplug_core::request::Priority;
use glowplug_core::retry::Wish;
use glowplug_core::{CallerId, HintId, RequestId, Timestamp};
use glowplug_store::{Retention, Store, StoreError};

use crate::shared::Shared;

/// Requests read from the store at a time when the node starts.
const RESTORE_PAGE: usize = 500;
/// Complete requests dropped at a time, and between two looks.
const PURGE_BATCH: usize = 1_000;
const PURGE_INTERVAL: Duration = Duration::from_mins(1);

/// A queued request without its bytes.
#[derive(Debug)]
pub(crate) struct PendingRequest {
    pub id: RequestId,
    pub app: String,
    pub(super) path: String,
    pub(super) priority: Priority,
    pub(super) start_deadline: Option<Timestamp>,
    pub(super) caller: CallerId,
    pub(super) hint: Option<HintId>,
    pub(super) retries: Wish,
}

/// Everything that earlier lives of the node accepted and did not complete, in order.
pub(crate) async fn pending(store: &dyn Store) -> Result<Vec<PendingRequest>, StoreError> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = store.pending(after, RESTORE_PAGE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = Some(last.id);
        all.extend(page.into_iter().map(|request| PendingRequest {
            id: request.id,
            app: request.app,
            path: request.path,
            priority: match request.priority {
                glowplug_store::Priority::Normal => Priority::Normal,
                glowplug_store::Priority::Low => Priority::Low,
            },
            start_deadline: request.start_deadline,
            caller: CallerId::of(&request.caller),
            hint: request.hint.as_deref().map(HintId::of),
            retries: if request.no_retry { Wish::Never } else { Wish::Unsaid },
        }));
    }
}

/// Drops what has been complete for longer than answers are kept.
pub(crate) async fn purge(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(PURGE_INTERVAL);
    loop {
        ticks.tick().await;
        let keep = shared.config.node.queue.retention;
        let before = Timestamp::ZERO + (shared.desk.now() - Timestamp::ZERO).saturating_sub(keep);
        loop {
            match shared.store.purge(Retention::since(before), PURGE_BATCH).await {
                Ok(PURGE_BATCH..) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!("old answers could not be dropped: {error}");
                    break;
                }
            }
        }
    }
}
