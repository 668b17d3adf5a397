//! What callers are told of a request: where it is, and its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use glowplug_api::control::QueuedView;
use glowplug_core::RequestId;
use glowplug_core::engine::RequestView;
use glowplug_gateway::host::{Eta, QueueLog, QueueStatus, ResponseLookup, StoreAway};
use glowplug_store::{CompletedSummary, RequestRecord, StoreError, StoredResponse};

use super::{Live, Place, Queue};
use crate::shared::Shared;

impl Queue {
    pub(crate) async fn status(
        &self,
        shared: &Shared,
        app: &str,
        id: RequestId,
        logs: bool,
    ) -> Result<Option<QueueStatus>, StoreAway> {
        if let Some(here) = self.status_here(shared, app, id, logs) {
            return Ok(here);
        }
        let record = shared.store.request(id).await.map_err(|error| away(&error))?;
        let Some(record) = record.filter(|record| record.app == app) else { return Ok(None) };
        let logs = if logs { self.stored_logs(shared, id).await } else { Vec::new() };
        Ok(Some(match record.completed {
            Some(done) => completed(done, logs),
            None => self.status_elsewhere(shared, &record, logs).await,
        }))
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
        Some(Some(QueueStatus::InQueue { position, eta: Self::eta(shared, id), logs }))
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
    pub(super) fn eta(shared: &Shared, id: RequestId) -> Option<Eta> {
        let eta = shared.desk.read(|state, now| state.engine.eta(id, now))?;
        Some(Eta { seconds: eta.after.as_secs_f64(), basis: eta.basis.to_string() })
    }

    /// The requests of this node that are not complete, by app; those at work first, then those that wait in
    /// the order in which they will be served.
    pub(crate) fn list(&self, shared: &Shared, app: Option<&str>) -> Vec<QueuedView> {
        let mut of_apps: BTreeMap<Arc<str>, BTreeSet<RequestId>> = BTreeMap::new();
        for (id, live) in &self.live().by_id {
            if live.place != Place::Accepting && app.is_none_or(|app| *live.app == *app) {
                of_apps.entry(live.app.clone()).or_default().insert(*id);
            }
        }
        let mut views = Vec::new();
        for (app, mut ids) in of_apps {
            let waiting = self.in_line(shared, &app);
            let waiting: Vec<RequestId> = waiting.into_iter().filter(|id| ids.remove(id)).collect();
            let view = |id: RequestId, position: Option<usize>| QueuedView {
                id: id.to_string(),
                app: (*app).to_owned(),
                state: if position.is_some() { "IN_QUEUE" } else { "IN_PROGRESS" }.to_owned(),
                position,
                ..QueuedView::default()
            };
            // Some of the rest wait for their next attempt.
            let position =
                |id: &RequestId| match shared.desk.read(|state, _| state.engine.request(*id)) {
                    Some(RequestView::Waiting { position }) => Some(position),
                    _ => None,
                };
            views.extend(ids.into_iter().map(|id| view(id, position(&id))));
            views.extend((0..).zip(waiting).map(|(position, id)| view(id, Some(position))));
        }
        views
    }

    fn in_line(&self, shared: &Shared, app: &str) -> Vec<RequestId> {
        let held_back =
            self.held_back().get(app).map(|heads| heads.iter().map(|head| head.id).collect());
        held_back.unwrap_or_else(|| {
            let id = shared.apps.by_name(app).map(|app| app.id);
            id.map(|id| shared.desk.read(|state, _| state.engine.waiting(id))).unwrap_or_default()
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
    ) -> Result<ResponseLookup, StoreAway> {
        Ok(match self.status(shared, app, id, false).await? {
            None => ResponseLookup::Unknown,
            Some(QueueStatus::Completed { .. }) => match shared.store.response(id).await {
                Ok(Some(StoredResponse { status, headers, body })) => {
                    ResponseLookup::Ready { status, headers, body }
                }
                Ok(None) => ResponseLookup::Unknown,
                Err(error) => {
                    tracing::error!(request = %id, "its answer cannot be read: {error}");
                    return Err(away(&error));
                }
            },
            Some(waiting) => ResponseLookup::NotYet(waiting),
        })
    }
}

pub(super) fn away(error: &StoreError) -> StoreAway {
    StoreAway { reason: error.to_string() }
}

fn completed(done: CompletedSummary, logs: Vec<QueueLog>) -> QueueStatus {
    let CompletedSummary { inference_seconds, error, .. } = done;
    QueueStatus::Completed { logs, inference_seconds, error }
}
