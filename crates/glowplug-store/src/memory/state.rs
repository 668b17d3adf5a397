//! What is in memory, and how each call changes it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use glowplug_core::{RequestId, Timestamp};

use crate::records::{
    Accepted, Completed, CompletedSummary, Completion, DeliveryState, JournalRecord, KeyRecord,
    Place, QueuedHead, QueuedRequest, RequestLogLine, RequestRecord, Retention, WholeRequest,
};
use crate::store::{Result, StoreError, check_body, check_request};

use super::webhooks::Webhook;

/// A request of which no node runs attempts.
const NOBODY: u32 = 0;

#[derive(Default)]
pub(super) struct State {
    /// The start of the node that uses this store. 0 before the first, when requests are nobody's.
    pub(super) boots: u32,
    /// Where each request is in `requests`.
    pub(super) places: HashMap<RequestId, u64>,
    /// Every request by its place in the order of acceptance.
    pub(super) requests: BTreeMap<u64, Entry>,
    accepted: u64,
    /// What is not complete, and the start of the node that owns it.
    pending: BTreeMap<u64, u32>,
    ended: BTreeSet<(Timestamp, u64)>,
    /// Payloads and answers of what has ended.
    ended_bytes: u64,
    /// By caller, app and idempotency key.
    keyed: HashMap<(String, String, String), u64>,
    pub(super) due: BTreeSet<(Timestamp, u64)>,
    pub(super) settings: BTreeMap<(String, String), String>,
    pub(super) keys: BTreeMap<String, KeyRecord>,
    journal: VecDeque<JournalRecord>,
}

pub(super) struct Entry {
    pub(super) request: QueuedRequest,
    /// Of the payload, if the request has an idempotency key: the payload may go before the request.
    payload_hash: Option<blake3::Hash>,
    pub(super) completion: Option<Completion>,
    owner: u32,
    /// Attempts that were told of.
    attempts: u32,
    logs: Vec<RequestLogLine>,
    /// How many lines were dropped, and when the last of them was written.
    dropped: Option<(usize, Timestamp)>,
    pub(super) webhook: Option<Webhook>,
}

impl Entry {
    fn new(request: QueuedRequest, owner: u32) -> Self {
        let payload_hash = request.idempotency_key.as_ref().map(|_| blake3::hash(&request.body));
        Self {
            request,
            payload_hash,
            completion: None,
            owner,
            attempts: 0,
            logs: Vec::new(),
            dropped: None,
            webhook: None,
        }
    }

    fn is_same(&self, request: &QueuedRequest) -> bool {
        (&self.request.method, &self.request.path) == (&request.method, &request.path)
            && self.payload_hash == Some(blake3::hash(&request.body))
    }

    fn kept_bytes(&self) -> u64 {
        let answer = self.completion.as_ref().map_or(0, |ended| ended.response.body.len());
        (self.request.body.len() + answer) as u64
    }

    fn record(&self) -> RequestRecord {
        RequestRecord {
            id: self.request.id,
            app: self.request.app.clone(),
            path: self.request.path.clone(),
            submitted_at: self.request.submitted_at,
            owner: self.owner,
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

    fn append_logs(&mut self, lines: &[RequestLogLine], lines_max: usize) {
        let (keep, drop) =
            lines.split_at(lines.len().min(lines_max.saturating_sub(self.logs.len())));
        self.logs.extend_from_slice(keep);
        if let Some(last) = drop.last() {
            self.count_dropped(drop.len(), last.at);
        }
    }

    fn count_dropped(&mut self, lines: usize, last_at: Timestamp) {
        let (before, _) = self.dropped.unwrap_or_default();
        self.dropped = Some((before + lines, last_at));
    }

    fn lines(&self) -> Vec<RequestLogLine> {
        let notice = self.dropped.map(|(dropped, at)| RequestLogLine::dropped_notice(dropped, at));
        self.logs.iter().cloned().chain(notice).collect()
    }
}

fn key_of(request: &QueuedRequest) -> Option<(String, String, String)> {
    let key = request.idempotency_key.clone()?;
    Some((request.caller.clone(), request.app.clone(), key))
}

impl State {
    pub(super) fn entry(&self, id: RequestId) -> Option<&Entry> {
        self.requests.get(self.places.get(&id)?)
    }

    pub(super) fn entry_mut(&mut self, id: RequestId) -> Option<(u64, &mut Entry)> {
        let place = *self.places.get(&id)?;
        self.requests.get_mut(&place).map(|entry| (place, entry))
    }

    pub(super) fn submit(&mut self, request: QueuedRequest) -> Result<Accepted> {
        check_request(&request)?;
        if let Some(place) = key_of(&request).and_then(|key| self.keyed.get(&key))
            && let Some(entry) = self.requests.get(place)
        {
            let earlier = entry.request.id;
            let is_same = entry.is_same(&request);
            return if is_same {
                Ok(Accepted::Before(earlier))
            } else {
                Err(StoreError::KeyReused { earlier })
            };
        }
        if self.places.contains_key(&request.id) {
            return Err(StoreError::Duplicate(request.id));
        }
        let place = self.insert(Entry::new(request, self.boots));
        self.pending.insert(place, self.boots);
        Ok(Accepted::New)
    }

    fn insert(&mut self, entry: Entry) -> u64 {
        self.accepted += 1;
        self.places.insert(entry.request.id, self.accepted);
        if let Some(key) = key_of(&entry.request) {
            self.keyed.insert(key, self.accepted);
        }
        self.requests.insert(self.accepted, entry);
        self.accepted
    }

    pub(super) fn adopt(&mut self, limit: usize) -> Vec<QueuedHead> {
        let boots = self.boots;
        let others = self.pending.iter_mut().filter(|(_, owner)| **owner != boots).take(limit);
        let mut heads = Vec::new();
        for (place, owner) in others {
            *owner = boots;
            if let Some(entry) = self.requests.get_mut(place) {
                entry.owner = boots;
                let head = QueuedHead::from(&entry.request);
                heads.push(QueuedHead { attempts: entry.attempts, ..head });
            }
        }
        heads
    }

    pub(super) fn started(&mut self, id: RequestId, attempt: u32) {
        let boots = self.boots;
        if let Some((_, entry)) = self.entry_mut(id)
            && entry.owner == boots
        {
            entry.attempts = entry.attempts.max(attempt);
        }
    }

    pub(super) fn ahead(&self, id: RequestId) -> usize {
        let (Some(place), Some(entry)) = (self.places.get(&id), self.entry(id)) else { return 0 };
        let before = self.pending.range(..place).filter_map(|(place, _)| self.requests.get(place));
        before.filter(|other| other.request.app == entry.request.app).count()
    }

    pub(super) fn complete(&mut self, id: RequestId, completion: Completion) -> Result<Completed> {
        check_body("response body", &completion.response.body)?;
        let Some(place) = self.places.get(&id).copied() else {
            return Ok(Completed::UnknownRequest);
        };
        match self.pending.get(&place) {
            None => return Ok(Completed::AlreadyComplete),
            Some(owner) if *owner != self.boots => return Ok(Completed::Fenced),
            Some(_) => {}
        }
        self.pending.remove(&place);
        let Some(entry) = self.requests.get_mut(&place) else {
            return Ok(Completed::UnknownRequest);
        };
        if !entry.request.keep_payload {
            entry.request.body = Vec::new();
        }
        if let Some(url) = &entry.request.webhook_url {
            let state = DeliveryState::Due(completion.at);
            entry.webhook = Some(Webhook::new(url.clone(), state));
            self.due.insert((completion.at, place));
        }
        self.ended.insert((completion.at, place));
        entry.completion = Some(completion);
        self.ended_bytes += entry.kept_bytes();
        Ok(Completed::Recorded)
    }

    /// Where a page begins. A mark that is gone means the beginning.
    fn place_after(&self, after: Option<RequestId>) -> u64 {
        after.and_then(|id| self.places.get(&id)).map_or(0, |place| place + 1)
    }

    pub(super) fn pending(&self, after: Option<RequestId>, limit: usize) -> Vec<QueuedRequest> {
        let places = self.pending.range(self.place_after(after)..).take(limit);
        let entries = places.filter_map(|(place, _)| self.requests.get(place));
        entries.map(|entry| entry.request.clone()).collect()
    }

    pub(super) fn pending_request(&self, id: RequestId) -> Option<QueuedRequest> {
        let place = self.places.get(&id).filter(|place| self.pending.contains_key(place))?;
        self.requests.get(place).map(|entry| entry.request.clone())
    }

    pub(super) fn record(&self, id: RequestId) -> Option<RequestRecord> {
        self.entry(id).map(Entry::record)
    }

    pub(super) fn completed(&self, app: Option<&str>, limit: usize) -> Vec<RequestRecord> {
        let entries = self.ended.iter().rev().filter_map(|(_, place)| self.requests.get(place));
        let of_app = |entry: &&Entry| app.is_none_or(|app| entry.request.app == app);
        entries.filter(of_app).take(limit).map(Entry::record).collect()
    }

    pub(super) fn logs(&self, id: RequestId) -> Vec<RequestLogLine> {
        self.entry(id).map(Entry::lines).unwrap_or_default()
    }

    pub(super) fn append_logs(
        &mut self,
        id: RequestId,
        lines: &[RequestLogLine],
        lines_max: usize,
    ) {
        if let Some((_, entry)) = self.entry_mut(id) {
            entry.append_logs(lines, lines_max);
        }
    }

    pub(super) fn purge(&mut self, retention: Retention, limit: usize) -> usize {
        let mut purged = 0;
        while purged < limit
            && let Some((at, place)) = self.ended.first().copied()
            && (at < retention.ended_before
                || self.ended.len() as u64 > retention.requests_max
                || self.ended_bytes > retention.bytes_max)
        {
            self.ended.remove(&(at, place));
            self.forget(place);
            purged += 1;
        }
        purged
    }

    fn forget(&mut self, place: u64) {
        let Some(entry) = self.requests.remove(&place) else { return };
        self.ended_bytes -= entry.kept_bytes();
        self.places.remove(&entry.request.id);
        if let Some(key) = key_of(&entry.request) {
            self.keyed.remove(&key);
        }
        if let Some(due_at) = entry.webhook.and_then(|webhook| webhook.due_at()) {
            self.due.remove(&(due_at, place));
        }
    }

    pub(super) fn export(&self, after: Place, limit: usize) -> (Vec<WholeRequest>, Place) {
        let next = u64::try_from(after.0).map_or(0, |place| place + 1);
        let mut last = after;
        let entries = self.requests.range(next..).take(limit);
        let whole = |entry: &Entry| WholeRequest {
            request: entry.request.clone(),
            completion: entry.completion.clone(),
            logs: entry.lines(),
            delivery: entry.webhook.as_ref().map(Webhook::record),
        };
        let all = entries.map(|(place, entry)| {
            last = Place(i64::try_from(*place).unwrap_or(i64::MAX));
            whole(entry)
        });
        (all.collect(), last)
    }

    pub(super) fn import(&mut self, whole: WholeRequest, lines_max: usize) -> Result<bool> {
        let WholeRequest { mut request, completion, logs, delivery } = whole;
        check_request(&request)?;
        if let Some(completion) = &completion {
            check_body("response body", &completion.response.body)?;
        }
        if self.places.contains_key(&request.id) {
            return Ok(false);
        }
        if key_of(&request).is_some_and(|key| self.keyed.contains_key(&key)) {
            // Two requests cannot have one key, and a request is worth more than its key.
            request.idempotency_key = None;
        }
        let mut entry = Entry::new(request, NOBODY);
        let (logs, dropped) = RequestLogLine::split_notice(&logs);
        entry.append_logs(logs, lines_max);
        if let Some((dropped, last_at)) = dropped {
            entry.count_dropped(dropped, last_at);
        }
        entry.completion = completion;
        entry.webhook = delivery.map(|record| {
            let url = entry.request.webhook_url.clone().unwrap_or_default();
            Webhook::from_record(url, record)
        });
        let ended_at = entry.completion.as_ref().map(|completion| completion.at);
        let due_at = entry.webhook.as_ref().and_then(Webhook::due_at);
        let kept_bytes = entry.kept_bytes();
        let place = self.insert(entry);
        match ended_at {
            Some(ended_at) => {
                self.ended.insert((ended_at, place));
                self.ended_bytes += kept_bytes;
            }
            None => {
                self.pending.insert(place, NOBODY);
            }
        }
        self.due.extend(due_at.map(|due_at| (due_at, place)));
        Ok(true)
    }

    pub(super) fn append_journal(&mut self, records: Vec<JournalRecord>, records_max: usize) {
        self.journal.extend(records);
        let surplus = self.journal.len().saturating_sub(records_max);
        self.journal.drain(..surplus);
    }

    pub(super) fn journal(&self, subject: &str, limit: usize) -> Vec<JournalRecord> {
        let about = |record: &&JournalRecord| record.subjects.iter().any(|each| each == subject);
        let newest: Vec<_> = self.journal.iter().rev().filter(about).take(limit).collect();
        newest.into_iter().rev().cloned().collect()
    }
}
