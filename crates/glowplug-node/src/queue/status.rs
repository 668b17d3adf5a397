//! What callers are told of a request: where it is, and its answer.

use glowplug_core::RequestId;
use glowplug_core::engine::RequestView;
use glowplug_gateway::host::{Eta, QueueLog, QueueStatus, ResponseLookup};
use glowplug_store::{CompletedSummary, RequestRecord, StoredResponse};

use super::{Live, Place, Queue};
use crate::shared::Shared;

impl Queue {
    pub(crate) async fn status(
        &self,
        shared: &Shared,
        app: &str,
        id: RequestId,
        logs: bool,
    ) -> Option<QueueStatus> {
        if let Some(here) = self.status_here(shared, app, id, logs) {
            return here;
        }
        let record = shared.store.request(id).await.ok()??;
        if record.app != app {
            return None;
        }
        let logs = if logs { self.stored_logs(shared, id).await } else { Vec::new() };
        Some(match record.completed {
            Some(done) => completed(done, logs),
            None => self.status_elsewhere(shared, &record, logs).await,
        })
    }

    /// The status of a request of this node; `Some(None)` if it is of another app.
    #[expect(clippy::option_option, reason = "not here, and here but not for this caller")]
    fn status_here(
        &self,
        shared: &Shared,
        app: &str,
        id: RequestId,
        logs: bool,
    ) -> Option<Option<QueueStatus>> {
        let (place, logs) = {
            let live = self.live();
            let live = live.by_id.get(&id)?;
            if *live.app != *app || live.place == Place::Accepting {
                return Some(None);
            }
            (live.place, if logs { live.logs.clone() } else { Vec::new() })
        };
        let position = match place {
            Place::HeldBack => Some(self.position_held_back(app, id)),
            Place::Accepting | Place::Engine => {
                match shared.desk.read(|state, _| state.engine.request(id)) {
                    Some(RequestView::Waiting { position }) => Some(position),
                    // Not with the engine: its answer is on the way to the disk.
                    Some(RequestView::InFlight { .. }) | None => None,
                }
            }
        };
        let Some(position) = position else { return Some(Some(QueueStatus::InProgress { logs })) };
        let reported = |live: &mut Live| live.reported(position);
        let position = self.live().by_id.get_mut(&id).map_or(position, reported);
        Some(Some(QueueStatus::InQueue { position, eta: self.eta(shared, id), logs }))
    }

    fn position_held_back(&self, app: &str, id: RequestId) -> usize {
        let held_back = self.held_back();
        let place = |heads: &std::collections::VecDeque<glowplug_store::QueuedHead>| {
            heads.iter().position(|head| head.id == id)
        };
        held_back.get(app).and_then(place).unwrap_or(0)
    }

    /// Of another node, or of none until one takes it over.
    async fn status_elsewhere(
        &self,
        shared: &Shared,
        record: &RequestRecord,
        logs: Vec<QueueLog>,
    ) -> QueueStatus {
        if record.started && record.owner != shared.boot {
            return QueueStatus::InProgress { logs };
        }
        let position = shared.store.ahead(record.id).await.unwrap_or(0);
        QueueStatus::InQueue { position, eta: None, logs }
    }

    /// When a waiting request is expected to be answered, as far as the engine can tell.
    #[expect(clippy::unused_self, reason = "until the engine knows")]
    pub(super) fn eta(&self, _shared: &Shared, _id: RequestId) -> Option<Eta> {
        None
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
                Ok(None) => ResponseLookup::Unknown,
                Err(error) => {
                    tracing::error!(request = %id, "its answer cannot be read: {error}");
                    ResponseLookup::Unknown
                }
            },
            Some(waiting) => ResponseLookup::NotYet(waiting),
        }
    }
}

fn completed(done: CompletedSummary, logs: Vec<QueueLog>) -> QueueStatus {
    let CompletedSummary { inference_seconds, error, .. } = done;
    QueueStatus::Completed { logs, inference_seconds, error }
}
