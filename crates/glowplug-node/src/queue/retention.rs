//! Drops what has been complete for long enough, and what is more than is kept.

use std::sync::Arc;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_store::Retention;

use super::cancel;
use crate::shared::Shared;

/// Complete requests dropped at a time, and between two looks.
const PURGE_BATCH: usize = 1_000;
const PURGE_INTERVAL: Duration = Duration::from_secs(10);

pub(crate) async fn purge(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(PURGE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        loop {
            match shared.store.purge(retention(&shared), PURGE_BATCH).await {
                Ok(PURGE_BATCH..) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!("old answers could not be dropped: {error}");
                    break;
                }
            }
        }
        if let Err(error) = cancel::sweep(&shared).await {
            tracing::debug!("marks of cancelled requests stay for now: {error}");
        }
    }
}

fn retention(shared: &Shared) -> Retention {
    let queue = &shared.config.node.queue;
    let since_epoch = shared.desk.now() - Timestamp::ZERO;
    Retention {
        ended_before: Timestamp::ZERO + since_epoch.saturating_sub(queue.retention),
        requests_max: queue.retention_requests_max.into(),
        bytes_max: queue.retention_bytes_max,
    }
}
