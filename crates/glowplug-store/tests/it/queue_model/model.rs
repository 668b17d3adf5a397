//! What a queue is, without a thought for speed.

use glowplug_core::{RequestId, Timestamp};
use glowplug_store::{
    Completed, Completion, DELIVERY_LEASE, DeliveryState, QueuedRequest, RequestLogLine,
};

use crate::samples::{at, completion, id, log_line, request};

#[derive(Clone, Debug)]
pub(super) enum Step {
    Submit {
        number: u128,
        bytes: usize,
        hook: bool,
        keep: bool,
    },
    SubmitKeyed {
        number: u128,
        key: u8,
        bytes: usize,
    },
    Complete {
        number: u128,
        ended_at: u64,
        bytes: usize,
    },
    Adopt {
        limit: usize,
    },
    Log {
        number: u128,
        lines: usize,
    },
    PurgeOld {
        before: u64,
        limit: usize,
    },
    PurgeMany {
        keep: u64,
        limit: usize,
    },
    PurgeLarge {
        bytes: u64,
        limit: usize,
    },
    Due {
        now: u64,
        limit: usize,
    },
    Called {
        number: u128,
        at: u64,
        becomes: u8,
    },
    /// Exports a request and remembers it.
    Keep {
        number: u128,
    },
    /// Imports what was remembered.
    ImportKept,
    Restart,
    Kill,
}

#[derive(Clone)]
struct Entry {
    request: QueuedRequest,
    /// The payload as it came, which a repeated submit is compared with.
    payload: Vec<u8>,
    owner: u32,
    completion: Option<Completion>,
    logs: Vec<RequestLogLine>,
    dropped: usize,
    hook: Option<Hook>,
}

#[derive(Clone)]
struct Hook {
    state: DeliveryState,
    calls: usize,
    /// It was given out, and nobody has told of the call.
    is_given: bool,
}

pub(super) struct Model {
    boot: u32,
    /// In order of acceptance.
    entries: Vec<Entry>,
    kept: Option<Entry>,
    log_lines_max: usize,
}

/// The request that a step submits.
pub(super) fn submitted(step: &Step) -> Option<QueuedRequest> {
    match *step {
        Step::Submit { number, bytes, hook, keep } => Some(QueuedRequest {
            body: vec![7; bytes],
            webhook_url: hook.then(|| "https://example.com".to_owned()),
            keep_payload: keep,
            ..request(number)
        }),
        Step::SubmitKeyed { number, key, bytes } => Some(QueuedRequest {
            body: vec![8; bytes * 200],
            idempotency_key: Some(format!("key {key}")),
            ..request(number)
        }),
        _ => None,
    }
}

pub(super) fn answer(ended_at: u64, bytes: usize) -> Completion {
    completion(at(ended_at), &vec![9; bytes])
}

pub(super) fn lines(count: usize) -> Vec<RequestLogLine> {
    (0..count as u64).map(|second| log_line(second, "said")).collect()
}

pub(super) fn becomes(number: u8, seconds: u64) -> DeliveryState {
    match number {
        0 => DeliveryState::Due(at(seconds)),
        1 => DeliveryState::Delivered,
        _ => DeliveryState::Failed,
    }
}

impl Model {
    pub(super) fn new(log_lines_max: usize) -> Self {
        Self { boot: 1, entries: Vec::new(), kept: None, log_lines_max }
    }

    fn find(&mut self, number: u128) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.request.id == id(number))
    }

    pub(super) fn perform(&mut self, step: &Step) -> String {
        if let Some(request) = submitted(step) {
            return self.submit(request);
        }
        match *step {
            Step::Complete { number, ended_at, bytes } => {
                format!("{:?}", self.complete(number, answer(ended_at, bytes)))
            }
            Step::Adopt { limit } => format!("{:?}", self.adopt(limit)),
            Step::Log { number, lines: count } => {
                let lines_max = self.log_lines_max;
                if let Some(entry) = self.find(number) {
                    entry.logs.extend(lines(count));
                    entry.dropped += entry.logs.len().saturating_sub(lines_max);
                    entry.logs.truncate(lines_max);
                }
                String::new()
            }
            Step::PurgeOld { before, limit } => self.purge(at(before), u64::MAX, u64::MAX, limit),
            Step::PurgeMany { keep, limit } => self.purge(Timestamp::ZERO, keep, u64::MAX, limit),
            Step::PurgeLarge { bytes, limit } => {
                self.purge(Timestamp::ZERO, u64::MAX, bytes, limit)
            }
            Step::Due { now, limit } => format!("{:?}", self.due(at(now), limit)),
            Step::Called { number, at: seconds, becomes: state } => {
                if let Some(hook) = self.find(number).and_then(|entry| entry.hook.as_mut()) {
                    hook.calls += 1;
                    hook.is_given = false;
                    if hook.state != DeliveryState::Delivered {
                        hook.state = becomes(state, seconds);
                    }
                }
                String::new()
            }
            Step::Keep { number } => {
                let found = self.find(number).cloned();
                let is_there = found.is_some();
                self.kept = found.or(self.kept.take());
                is_there.to_string()
            }
            Step::ImportKept => self.import(),
            Step::Restart | Step::Kill => {
                let hooks = self.entries.iter_mut().filter_map(|entry| entry.hook.as_mut());
                for hook in hooks.filter(|hook| hook.is_given) {
                    hook.state = DeliveryState::Due(Timestamp::ZERO);
                    hook.is_given = false;
                }
                self.boot += 1;
                self.boot.to_string()
            }
            Step::Submit { .. } | Step::SubmitKeyed { .. } => unreachable!("done above"),
        }
    }

    fn submit(&mut self, request: QueuedRequest) -> String {
        let same_key = |entry: &&Entry| {
            request.idempotency_key.is_some()
                && entry.request.idempotency_key == request.idempotency_key
        };
        if let Some(earlier) = self.entries.iter().find(same_key) {
            let earlier_id = earlier.request.id;
            return if earlier.payload == request.body {
                format!("before {earlier_id}")
            } else {
                format!("key of {earlier_id}")
            };
        }
        if self.entries.iter().any(|entry| entry.request.id == request.id) {
            return "duplicate".to_owned();
        }
        self.entries.push(Entry {
            payload: request.body.clone(),
            request,
            owner: self.boot,
            completion: None,
            logs: Vec::new(),
            dropped: 0,
            hook: None,
        });
        "new".to_owned()
    }

    fn complete(&mut self, number: u128, completion: Completion) -> Completed {
        let boot = self.boot;
        let Some(entry) = self.find(number) else { return Completed::UnknownRequest };
        if entry.completion.is_some() {
            return Completed::AlreadyComplete;
        }
        if entry.owner != boot {
            return Completed::Fenced;
        }
        if !entry.request.keep_payload {
            entry.request.body.clear();
        }
        entry.hook = entry.request.webhook_url.as_ref().map(|_| Hook {
            state: DeliveryState::Due(completion.at),
            calls: 0,
            is_given: false,
        });
        entry.completion = Some(completion);
        Completed::Recorded
    }

    fn adopt(&mut self, limit: usize) -> Vec<RequestId> {
        let boot = self.boot;
        let strays = self
            .entries
            .iter_mut()
            .filter(|entry| entry.completion.is_none() && entry.owner != boot)
            .take(limit);
        let take = |entry: &mut Entry| {
            entry.owner = boot;
            entry.request.id
        };
        strays.map(take).collect()
    }

    fn purge(&mut self, before: Timestamp, requests: u64, bytes: u64, limit: usize) -> String {
        let mut purged = 0;
        while purged < limit {
            let ended = |entry: &Entry| entry.completion.as_ref().map(|done| done.at);
            let kept = |entry: &Entry| {
                let done = entry.completion.as_ref().map(|done| done.response.body.len());
                done.map(|answer| (answer + entry.request.body.len()) as u64)
            };
            let count = self.entries.iter().filter_map(ended).count() as u64;
            let total: u64 = self.entries.iter().filter_map(kept).sum();
            // The first of the least: ties go by acceptance.
            let oldest = (0..self.entries.len())
                .filter_map(|index| Some((ended(&self.entries[index])?, index)))
                .min();
            match oldest {
                Some((at, index)) if at < before || count > requests || total > bytes => {
                    self.entries.remove(index);
                    purged += 1;
                }
                _ => break,
            }
        }
        purged.to_string()
    }

    fn due(&mut self, now: Timestamp, limit: usize) -> Vec<(RequestId, usize)> {
        let mut due: Vec<(Timestamp, usize)> = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            if let Some(Hook { state: DeliveryState::Due(due_at), .. }) = entry.hook
                && due_at <= now
            {
                due.push((due_at, index));
            }
        }
        due.sort_unstable();
        due.truncate(limit);
        let mut given = Vec::new();
        for (_, index) in due {
            let entry = &mut self.entries[index];
            let hook = entry.hook.as_mut().unwrap();
            hook.state = DeliveryState::Due(now + DELIVERY_LEASE);
            hook.is_given = true;
            given.push((entry.request.id, hook.calls));
        }
        given
    }

    fn import(&mut self) -> String {
        let Some(mut entry) = self.kept.clone() else { return "nothing".to_owned() };
        if self.entries.iter().any(|other| other.request.id == entry.request.id) {
            return "false".to_owned();
        }
        let key = &entry.request.idempotency_key;
        if key.is_some() && self.entries.iter().any(|e| e.request.idempotency_key == *key) {
            entry.request.idempotency_key = None;
        }
        entry.payload.clone_from(&entry.request.body);
        entry.owner = 0;
        if let Some(hook) = &mut entry.hook {
            hook.is_given = false;
        }
        self.entries.push(entry);
        "true".to_owned()
    }

    /// Everything that can be read.
    pub(super) fn contents(&mut self, ids: u128) -> Vec<String> {
        let waiting = |entry: &&Entry| entry.completion.is_none();
        let pending: Vec<_> = self.entries.iter().filter(waiting).map(|e| &e.request).collect();
        let all: Vec<_> = self.entries.iter().map(|e| (&e.request, &e.completion)).collect();
        let due = self.entries.iter().filter_map(|entry| match entry.hook {
            Some(Hook { state: DeliveryState::Due(at), .. }) => Some(at),
            _ => None,
        });
        let mut contents =
            vec![format!("{pending:?}"), format!("{all:?}"), format!("{:?}", due.min())];
        for number in 0..ids {
            let index = self.entries.iter().position(|entry| entry.request.id == id(number));
            let ahead =
                index.map_or(0, |index| self.entries[..index].iter().filter(waiting).count());
            let found = index.map(|index| {
                let entry = &self.entries[index];
                let answer = entry.completion.as_ref().map(|done| &done.response.body);
                let lines = entry.logs.len() + usize::from(entry.dropped > 0);
                let hook = entry.hook.as_ref().map(|hook| (hook.state, hook.calls));
                (entry.owner, answer, lines, hook)
            });
            contents.push(format!("{ahead} {found:?}"));
        }
        contents
    }
}
