//! A store that lasts as long as the process: for `glowplug run` and for tests.
//!
//! It answers exactly as [`SqliteStore`](crate::SqliteStore) does and has the same limits, but nothing
//! outlives it, and what it holds counts against the memory of the node.

mod state;
mod webhooks;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use glowplug_core::{RequestId, Timestamp};
use tokio::sync::broadcast;

use self::state::State;
use crate::limits::Bounds;
use crate::records::{
    Accepted, Change, Completed, Completion, Delivery, DeliveryAttempt, DeliveryRecord,
    DeliveryState, JournalRecord, KeyRecord, Place, QueuedHead, QueuedRequest, RequestLogLine,
    RequestRecord, Retention, StoredResponse, WholeRequest,
};
use crate::store::{Result, Store, StoreError};

#[derive(Default)]
pub struct MemoryStore {
    bounds: Bounds,
    state: Mutex<State>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_bounds(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No closure below leaves the state half changed when it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `run` when the future is first polled, as a store with a disk would.
    fn with_state<'a, T: Send>(
        &'a self,
        run: impl FnOnce(&mut State) -> Result<T> + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        Box::pin(async move { run(&mut self.lock()) })
    }
}

impl Store for MemoryStore {
    fn begin_boot(&self) -> BoxFuture<'_, Result<u32>> {
        self.with_state(|state| Ok(state.begin_boot()))
    }

    fn submit(&self, request: QueuedRequest) -> BoxFuture<'_, Result<Accepted>> {
        self.with_state(|state| state.submit(request))
    }

    fn complete(&self, id: RequestId, completion: Completion) -> BoxFuture<'_, Result<Completed>> {
        self.with_state(move |state| state.complete(id, completion))
    }

    fn pending(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<QueuedRequest>>> {
        self.with_state(move |state| Ok(state.pending(after, limit)))
    }

    fn pending_request(&self, id: RequestId) -> BoxFuture<'_, Result<Option<QueuedRequest>>> {
        self.with_state(move |state| Ok(state.pending_request(id)))
    }

    fn request(&self, id: RequestId) -> BoxFuture<'_, Result<Option<RequestRecord>>> {
        self.with_state(move |state| Ok(state.record(id)))
    }

    fn completed(
        &self,
        app: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RequestRecord>>> {
        self.with_state(move |state| Ok(state.completed(app.as_deref(), limit)))
    }

    fn response(&self, id: RequestId) -> BoxFuture<'_, Result<Option<StoredResponse>>> {
        self.with_state(move |state| {
            let completion = state.entry(id).and_then(|entry| entry.completion.as_ref());
            Ok(completion.map(|completion| completion.response.clone()))
        })
    }

    fn append_request_logs(
        &self,
        id: RequestId,
        lines: Vec<RequestLogLine>,
    ) -> BoxFuture<'_, Result<()>> {
        self.with_state(move |state| {
            state.append_logs(id, &lines, self.bounds.request_log_lines_max);
            Ok(())
        })
    }

    fn request_logs(&self, id: RequestId) -> BoxFuture<'_, Result<Vec<RequestLogLine>>> {
        self.with_state(move |state| Ok(state.logs(id)))
    }

    fn purge(&self, retention: Retention, limit: usize) -> BoxFuture<'_, Result<usize>> {
        self.with_state(move |state| Ok(state.purge(retention, limit)))
    }

    fn adopt(&self, limit: usize) -> BoxFuture<'_, Result<Vec<QueuedHead>>> {
        self.with_state(move |state| Ok(state.adopt(limit)))
    }

    fn started(&self, id: RequestId, attempt: u32) -> BoxFuture<'_, Result<()>> {
        self.with_state(move |state| {
            state.started(id, attempt);
            Ok(())
        })
    }

    fn ask_cancel(&self, _id: RequestId) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn changes(&self) -> Option<broadcast::Receiver<Change>> {
        None
    }

    fn ahead(&self, id: RequestId) -> BoxFuture<'_, Result<usize>> {
        self.with_state(move |state| Ok(state.ahead(id)))
    }

    fn due_deliveries(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        self.with_state(move |state| Ok(state.due_deliveries(now, limit)))
    }

    fn next_delivery(&self) -> BoxFuture<'_, Result<Option<Timestamp>>> {
        self.with_state(|state| Ok(state.next_delivery()))
    }

    fn called(
        &self,
        request: RequestId,
        attempt: DeliveryAttempt,
        delivery_state: DeliveryState,
    ) -> BoxFuture<'_, Result<()>> {
        self.with_state(move |state| {
            state.called(request, attempt, delivery_state);
            Ok(())
        })
    }

    fn delivery(&self, request: RequestId) -> BoxFuture<'_, Result<Option<DeliveryRecord>>> {
        self.with_state(move |state| Ok(state.delivery(request)))
    }

    fn export(
        &self,
        after: Place,
        limit: usize,
    ) -> BoxFuture<'_, Result<(Vec<WholeRequest>, Place)>> {
        self.with_state(move |state| Ok(state.export(after, limit)))
    }

    fn import(&self, request: WholeRequest) -> BoxFuture<'_, Result<bool>> {
        self.with_state(move |state| state.import(request, self.bounds.request_log_lines_max))
    }

    fn backup(&self, _to: PathBuf) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Err(StoreError::Unsupported {
            operation: "make a backup",
            instead: "export its requests, or give the node a data directory",
        })))
    }

    fn put_setting(&self, app: String, key: String, json: String) -> BoxFuture<'_, Result<()>> {
        self.with_state(|state| {
            state.settings.insert((app, key), json);
            Ok(())
        })
    }

    fn delete_setting(&self, app: String, key: String) -> BoxFuture<'_, Result<()>> {
        self.with_state(|state| {
            state.settings.remove(&(app, key));
            Ok(())
        })
    }

    fn claim_setting(
        &self,
        app: String,
        key: String,
        json: String,
    ) -> BoxFuture<'_, Result<String>> {
        self.with_state(|state| Ok(state.settings.entry((app, key)).or_insert(json).clone()))
    }

    fn settings(&self) -> BoxFuture<'_, Result<Vec<(String, String, String)>>> {
        self.with_state(|state| {
            let all = state.settings.clone().into_iter();
            Ok(all.map(|((app, key), json)| (app, key, json)).collect())
        })
    }

    fn put_key(&self, key: KeyRecord) -> BoxFuture<'_, Result<()>> {
        self.with_state(|state| {
            state.keys.insert(key.id.clone(), key);
            Ok(())
        })
    }

    fn delete_key(&self, id: String) -> BoxFuture<'_, Result<bool>> {
        self.with_state(move |state| Ok(state.keys.remove(&id).is_some()))
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyRecord>>> {
        self.with_state(|state| {
            let mut keys: Vec<_> = state.keys.values().cloned().collect();
            keys.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
            Ok(keys)
        })
    }

    fn append_journal(&self, records: Vec<JournalRecord>) -> BoxFuture<'_, Result<()>> {
        self.with_state(|state| {
            state.append_journal(records, self.bounds.journal_records_max);
            Ok(())
        })
    }

    fn journal(&self, subject: String, limit: usize) -> BoxFuture<'_, Result<Vec<JournalRecord>>> {
        self.with_state(move |state| Ok(state.journal(&subject, limit)))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn check(&self) -> BoxFuture<'_, Result<()>> {
        self.with_state(|_| Ok(()))
    }
}
