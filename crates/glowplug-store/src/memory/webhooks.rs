//! Webhooks in memory.

use std::collections::VecDeque;

use glowplug_core::{RequestId, Timestamp};

use super::state::State;
use crate::limits::DELIVERY_ATTEMPTS_MAX;
use crate::records::{Delivery, DeliveryAttempt, DeliveryRecord, DeliveryState};
use crate::store::DELIVERY_LEASE;

pub(super) struct Webhook {
    url: String,
    state: DeliveryState,
    /// It was given out, and nobody has told of the call.
    is_given: bool,
    calls: u32,
    log: VecDeque<DeliveryAttempt>,
}

impl Webhook {
    pub(super) fn new(url: String, state: DeliveryState) -> Self {
        Self { url, state, is_given: false, calls: 0, log: VecDeque::new() }
    }

    pub(super) fn from_record(url: String, record: DeliveryRecord) -> Self {
        let mut webhook = Self::new(url, record.state);
        record.attempts.into_iter().for_each(|attempt| webhook.note(attempt));
        webhook
    }

    pub(super) fn record(&self) -> DeliveryRecord {
        DeliveryRecord {
            url: self.url.clone(),
            state: self.state,
            attempts: self.log.iter().cloned().collect(),
        }
    }

    pub(super) fn due_at(&self) -> Option<Timestamp> {
        match self.state {
            DeliveryState::Due(at) => Some(at),
            DeliveryState::Delivered | DeliveryState::Failed => None,
        }
    }

    fn note(&mut self, attempt: DeliveryAttempt) {
        self.calls += 1;
        self.log.push_back(attempt);
        let surplus = self.log.len().saturating_sub(DELIVERY_ATTEMPTS_MAX);
        self.log.drain(..surplus);
    }
}

impl State {
    pub(super) fn due_deliveries(&mut self, now: Timestamp, limit: usize) -> Vec<Delivery> {
        let due: Vec<_> =
            self.due.iter().take_while(|(due_at, _)| *due_at <= now).take(limit).copied().collect();
        let mut given = Vec::new();
        for (due_at, place) in due {
            let Some(entry) = self.requests.get_mut(&place) else { continue };
            let (Some(webhook), Some(completion)) = (&mut entry.webhook, &entry.completion) else {
                continue;
            };
            let again_at = now + DELIVERY_LEASE;
            webhook.state = DeliveryState::Due(again_at);
            webhook.is_given = true;
            self.due.remove(&(due_at, place));
            self.due.insert((again_at, place));
            given.push(Delivery {
                request: entry.request.id,
                url: webhook.url.clone(),
                caller: entry.request.caller.clone(),
                completed_at: completion.at,
                attempts: webhook.calls,
            });
        }
        given
    }

    /// A node starts, and no other uses this store: whoever was given a webhook before is gone.
    fn take_back_deliveries(&mut self) {
        let given = self.due.iter().filter(|(_, place)| {
            let webhook = self.requests.get(place).and_then(|entry| entry.webhook.as_ref());
            webhook.is_some_and(|webhook| webhook.is_given)
        });
        for (due_at, place) in given.copied().collect::<Vec<_>>() {
            let entry = self.requests.get_mut(&place);
            let Some(webhook) = entry.and_then(|entry| entry.webhook.as_mut()) else { continue };
            webhook.state = DeliveryState::Due(Timestamp::ZERO);
            webhook.is_given = false;
            self.due.remove(&(due_at, place));
            self.due.insert((Timestamp::ZERO, place));
        }
    }

    pub(super) fn begin_boot(&mut self) -> u32 {
        self.take_back_deliveries();
        self.boots += 1;
        self.boots
    }

    pub(super) fn next_delivery(&self) -> Option<Timestamp> {
        self.due.first().map(|(due_at, _)| *due_at)
    }

    pub(super) fn called(&mut self, id: RequestId, attempt: DeliveryAttempt, state: DeliveryState) {
        let Some((place, entry)) = self.entry_mut(id) else { return };
        let Some(webhook) = &mut entry.webhook else { return };
        webhook.note(attempt);
        let before = webhook.due_at();
        webhook.is_given = false;
        // A call that was overtaken by another may report after it.
        if webhook.state != DeliveryState::Delivered {
            webhook.state = state;
        }
        let after = webhook.due_at();
        if let Some(due_at) = before {
            self.due.remove(&(due_at, place));
        }
        self.due.extend(after.map(|due_at| (due_at, place)));
    }

    pub(super) fn delivery(&self, id: RequestId) -> Option<DeliveryRecord> {
        self.entry(id)?.webhook.as_ref().map(Webhook::record)
    }
}
