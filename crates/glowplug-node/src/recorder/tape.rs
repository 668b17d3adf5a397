//! What the desk leaves to the recorder: one entry per request, start, stop and app.
//!
//! The tape lies under the desk's lock, so that an entry costs its place in a list and nothing else: no
//! atomic, no wake-up, no allocation for a request. The recorder takes the list away every second, or when
//! it is half full.

use std::time::Duration;

use glowplug_core::decision::{Decision, What};
use glowplug_core::spec::AppSpec;
use glowplug_core::{AppId, RunnerId};
use glowplug_sim::trace;

use crate::records::{End, Records, RequestRecord, RunnerRecord};

/// Entries that wait to be taken; more are dropped and counted. About 5 MB.
const ENTRIES_MAX: usize = 65_536;

/// Apps are told by the node's own number here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Entry {
    Request(trace::Request),
    Start(Box<trace::Start>),
    Stop(Box<trace::Stop>),
    App(Box<(AppId, trace::App)>),
}

/// Whether anybody takes what is put onto the tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recording {
    On,
    Off,
}

#[derive(Debug)]
pub(crate) struct Tape {
    recording: Recording,
    entries: Vec<Entry>,
    dropped: u64,
}

/// What was put onto the tape since it was last taken.
#[derive(Debug, Default)]
pub(crate) struct Take {
    pub entries: Vec<Entry>,
    pub dropped: u64,
}

impl Tape {
    pub(crate) fn new(recording: Recording) -> Self {
        Self { recording, entries: Vec::new(), dropped: 0 }
    }

    /// Hands everything over. `emptied`: a list that was taken before, to be filled again.
    pub(crate) fn take(&mut self, emptied: Vec<Entry>) -> Take {
        debug_assert!(emptied.is_empty(), "it would be recorded twice");
        let entries = std::mem::replace(&mut self.entries, emptied);
        Take { entries, dropped: std::mem::take(&mut self.dropped) }
    }

    /// It should be taken before it is full.
    pub(crate) fn is_half_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX / 2
    }

    pub(crate) fn app(&mut self, id: AppId, spec: &AppSpec) {
        if self.recording == Recording::Off {
            return;
        }
        let app = trace::App {
            name: spec.name.clone(),
            scaling: Some(spec.scaling),
            machine_type: spec.machine_types.first().map(|machine| machine.name.clone()),
        };
        self.put(Entry::App(Box::new((id, app))));
    }

    /// Nothing more is to happen to this request.
    pub(crate) fn request(&mut self, record: &RequestRecord) {
        let status = match record.finished {
            Some((_, End::Answered(status))) => Some(status),
            _ => None,
        };
        self.put(Entry::Request(trace::Request {
            at: record.arrived,
            app: record.app.0,
            mode: record.mode,
            priority: record.priority,
            start_within: record.start_within,
            service: record.service,
            waited: record.first_wait,
            attempts: record.attempts,
            status,
        }));
    }

    /// Something was decided, and the records know of it.
    pub(crate) fn note(&mut self, decision: &Decision, records: &Records) {
        let Some(id) = decision.runner.filter(|_| self.recording == Recording::On) else { return };
        match decision.what {
            What::Ready { .. } => self.start(id, decision.app, true, records),
            What::Ended { lived, served } => {
                self.start(id, decision.app, false, records);
                self.stop(id, decision.app, lived, served, records);
            }
            _ => {}
        }
    }

    /// A start is over. `now_ready`: well; else it is told only if it never was.
    fn start(&mut self, id: RunnerId, app: AppId, now_ready: bool, records: &Records) {
        let Some(record) = records.runner(id) else { return };
        let is_news = now_ready || !record.became_ready;
        if let Some(start) = start(record, app, now_ready).filter(|_| is_news) {
            self.put(Entry::Start(Box::new(start)));
        }
    }

    fn stop(&mut self, id: RunnerId, app: AppId, lived: Duration, served: u64, records: &Records) {
        let Some(record) = records.runner(id).filter(|record| record.placed.is_some()) else {
            return;
        };
        self.put(Entry::Stop(Box::new(trace::Stop {
            at: record.created + lived,
            app: app.0,
            reason: record.end_label.unwrap_or(UNKNOWN).to_owned(),
            lived,
            served,
        })));
    }

    fn put(&mut self, entry: Entry) {
        match self.recording {
            Recording::Off => {}
            Recording::On if self.entries.len() >= ENTRIES_MAX => self.dropped += 1,
            Recording::On => self.entries.push(entry),
        }
    }
}

/// The label of an end whose reason nobody told.
const UNKNOWN: &str = "unknown";

/// The phases of a start, which add up to the time from wanted to its end: without a pull, the making of
/// the process counts to the setup. `None`: it never got resources, so nothing was started.
fn start(record: &RunnerRecord, app: AppId, ready: bool) -> Option<trace::Start> {
    let placed = record.placed?;
    let over = if ready { record.ready } else { record.given_up.or(record.ended) };
    let over = over.unwrap_or(placed).max(placed);
    let pull = record.pull_started.map(|_| record.setup.unwrap_or(over).min(over) - placed);
    Some(trace::Start {
        at: record.created,
        app: app.0,
        cause: record.cause,
        pending: placed - record.created,
        pull,
        setup: over - (placed + pull.unwrap_or_default()),
        ready,
    })
}
