//! A store that lasts as long as the process: for `glowplug run` and for tests.
//!
//! It answers exactly as [`SqliteStore`](crate::SqliteStore) does and has the same limits, but nothing
//! outlives it, and what it holds counts against the memory of the node.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use glowplug_core::{RequestId, Timestamp};
use tokio::sync::broadcast;

use crate::limits::Bounds;
use crate::records::{
    Accepted, Change, Completed, CompletedSummary, Completion, Delivery, DeliveryAttempt,
    DeliveryRecord, DeliveryState, JournalRecord, KeyRecord, QueuedHead, QueuedRequest,
    RequestLogLine, RequestRecord, Retention, StoredResponse, WholeRequest,
};
use crate::store::{Result, Store, StoreError, check_body, unsupported};

#[derive(Default)]
pub struct MemoryStore {
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    boots: u32,
    /// Where each request is in `requests`.
    places: HashMap<RequestId, u64>,
    /// Every request by its place in the order of acceptance.
    requests: BTreeMap<u64, Entry>,
    accepted: u64,
    pending: BTreeSet<u64>,
    ended: BTreeSet<(Timestamp, u64)>,
    settings: BTreeMap<(String, String), String>,
    keys: BTreeMap<String, KeyRecord>,
    journal: VecDeque<JournalRecord>,
}

struct Entry {
    request: QueuedRequest,
    completion: Option<Completion>,
    logs: Vec<RequestLogLine>,
    /// How many lines were dropped, and when the last of them was written.
    dropped: Option<(usize, Timestamp)>,
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

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl State {
    fn entry(&self, id: RequestId) -> Option<&Entry> {
        self.requests.get(self.places.get(&id)?)
    }

    fn submit(&mut self, request: QueuedRequest) -> Result<()> {
        check_body("request body", &request.body)?;
        if self.places.contains_key(&request.id) {
            return Err(StoreError::Duplicate(request.id));
        }
        self.accepted += 1;
        self.places.insert(request.id, self.accepted);
        self.pending.insert(self.accepted);
        let entry = Entry { request, completion: None, logs: Vec::new(), dropped: None };
        self.requests.insert(self.accepted, entry);
        Ok(())
    }

    fn complete(&mut self, id: RequestId, completion: Completion) -> Result<Completed> {
        check_body("response body", &completion.response.body)?;
        let Some(place) = self.places.get(&id) else { return Ok(Completed::UnknownRequest) };
        if !self.pending.remove(place) {
            return Ok(Completed::AlreadyComplete);
        }
        self.ended.insert((completion.at, *place));
        if let Some(entry) = self.requests.get_mut(place) {
            entry.completion = Some(completion);
        }
        Ok(Completed::Recorded)
    }

    fn pending(&self, after: Option<RequestId>, limit: usize) -> Vec<QueuedRequest> {
        let after = after.and_then(|id| self.places.get(&id)).copied().unwrap_or(0);
        let places = self.pending.range(after + 1..).take(limit);
        places.filter_map(|place| self.requests.get(place)).map(|e| e.request.clone()).collect()
    }

    fn pending_request(&self, id: RequestId) -> Option<QueuedRequest> {
        let place = self.places.get(&id).filter(|place| self.pending.contains(place))?;
        self.requests.get(place).map(|entry| entry.request.clone())
    }

    fn append_logs(&mut self, id: RequestId, lines: Vec<RequestLogLine>, lines_max: usize) {
        let place = self.places.get(&id);
        let Some(entry) = place.and_then(|place| self.requests.get_mut(place)) else { return };
        for line in lines {
            if entry.logs.len() < lines_max {
                entry.logs.push(line);
            } else {
                let (dropped, _) = entry.dropped.unwrap_or_default();
                entry.dropped = Some((dropped + 1, line.at));
            }
        }
    }

    fn purge(&mut self, before: Timestamp, limit: usize) -> usize {
        let old: Vec<_> = self.ended.range(..(before, 0)).take(limit).copied().collect();
        for (at, place) in &old {
            self.ended.remove(&(*at, *place));
            if let Some(entry) = self.requests.remove(place) {
                self.places.remove(&entry.request.id);
            }
        }
        old.len()
    }

    fn append_journal(&mut self, records: Vec<JournalRecord>, records_max: usize) {
        self.journal.extend(records);
        let surplus = self.journal.len().saturating_sub(records_max);
        self.journal.drain(..surplus);
    }

    fn journal(&self, subject: &str, limit: usize) -> Vec<JournalRecord> {
        let about = |record: &&JournalRecord| record.subjects.iter().any(|each| each == subject);
        let newest: Vec<_> = self.journal.iter().rev().filter(about).take(limit).collect();
        newest.into_iter().rev().cloned().collect()
    }
}

impl Entry {
    fn record(&self) -> RequestRecord {
        RequestRecord {
            id: self.request.id,
            app: self.request.app.clone(),
            path: self.request.path.clone(),
            submitted_at: self.request.submitted_at,
            owner: 0,
            started: false,
            completed: self.completion.as_ref().map(|completion| CompletedSummary {
                at: completion.at,
                status: completion.response.status,
                error: completion.error.clone(),
                inference_seconds: completion.inference_seconds,
                attempts: completion.attempts,
            }),
        }
    }

    fn lines(&self) -> Vec<RequestLogLine> {
        let notice = self.dropped.map(|(dropped, at)| RequestLogLine::dropped_notice(dropped, at));
        self.logs.iter().cloned().chain(notice).collect()
    }
}

impl Store for MemoryStore {
    fn begin_boot(&self) -> BoxFuture<'_, Result<u32>> {
        self.with_state(|state| {
            state.boots += 1;
            Ok(state.boots)
        })
    }

    fn submit(&self, request: QueuedRequest) -> BoxFuture<'_, Result<Accepted>> {
        self.with_state(|state| state.submit(request).map(|()| Accepted::New))
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
        self.with_state(move |state| Ok(state.entry(id).map(Entry::record)))
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
            state.append_logs(id, lines, self.bounds.request_log_lines_max);
            Ok(())
        })
    }

    fn request_logs(&self, id: RequestId) -> BoxFuture<'_, Result<Vec<RequestLogLine>>> {
        self.with_state(move |state| Ok(state.entry(id).map(Entry::lines).unwrap_or_default()))
    }

    fn purge(&self, retention: Retention, limit: usize) -> BoxFuture<'_, Result<usize>> {
        self.with_state(move |state| Ok(state.purge(retention.ended_before, limit)))
    }

    fn adopt(&self, _limit: usize) -> BoxFuture<'_, Result<Vec<QueuedHead>>> {
        unsupported("take over requests")
    }

    fn started(&self, _id: RequestId) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn ask_cancel(&self, _id: RequestId) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn changes(&self) -> Option<broadcast::Receiver<Change>> {
        None
    }

    fn ahead(&self, _id: RequestId) -> BoxFuture<'_, Result<usize>> {
        unsupported("count requests")
    }

    fn due_deliveries(
        &self,
        _now: Timestamp,
        _limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        unsupported("keep webhooks")
    }

    fn next_delivery(&self) -> BoxFuture<'_, Result<Option<Timestamp>>> {
        unsupported("keep webhooks")
    }

    fn called(
        &self,
        _request: RequestId,
        _attempt: DeliveryAttempt,
        _state: DeliveryState,
    ) -> BoxFuture<'_, Result<()>> {
        unsupported("keep webhooks")
    }

    fn delivery(&self, _request: RequestId) -> BoxFuture<'_, Result<Option<DeliveryRecord>>> {
        unsupported("keep webhooks")
    }

    fn export(
        &self,
        _after: Option<RequestId>,
        _limit: usize,
    ) -> BoxFuture<'_, Result<Vec<WholeRequest>>> {
        unsupported("export")
    }

    fn import(&self, _request: WholeRequest) -> BoxFuture<'_, Result<bool>> {
        unsupported("import")
    }

    fn backup(&self, _to: PathBuf) -> BoxFuture<'_, Result<()>> {
        unsupported("make a backup")
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
