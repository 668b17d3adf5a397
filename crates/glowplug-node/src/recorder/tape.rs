//! What the desk leaves to the recorder: one entry per request, start, stop and app.
//!
//! The tape lies under the desk's lock, so that an entry costs its place in a list and nothing else: no
//! atomic, no wake-up, no allocation for a request. The recorder takes the list away every second, or when
//! it is half full.

use std::time::Duration;

use glowplug_core::decision::{Decision, StartCause, What};
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
        // What serves nobody is no part of the traffic.
        let of_traffic = |record: &&RunnerRecord| record.cause != StartCause::Capture;
        let Some(record) = records.runner(id).filter(of_traffic) else { return };
        let is_news = now_ready || !record.became_ready;
        if let Some(start) = start(record, app, now_ready).filter(|_| is_news) {
            self.put(Entry::Start(Box::new(start)));
        }
    }

    fn stop(&mut self, id: RunnerId, app: AppId, lived: Duration, served: u64, records: &Records) {
        let began =
            |record: &&RunnerRecord| record.placed.is_some() && record.cause != StartCause::Capture;
        let Some(record) = records.runner(id).filter(began) else {
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

#[cfg(test)]
mod tests {
    use glowplug_core::Timestamp;
    use glowplug_core::decision::StopReason;
    use glowplug_core::resources::Allocation;
    use glowplug_core::retry::Rules;
    use glowplug_core::scaler;
    use glowplug_core::spec::Scaling;
    use glowplug_core::{Event, Rung};

    use super::*;

    const RUNNER: RunnerId = RunnerId { boot: 1, sequence: 1 };
    const APP: AppId = AppId(3);

    /// Something that happens to the runner.
    enum Happening {
        Note(What),
        Event(Event),
        Start,
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn wanted() -> Happening {
        let target = scaler::target(&Scaling::default(), scaler::Load::default());
        Happening::Note(What::Wanted { cause: StartCause::Expired, target, alive: 0 })
    }

    fn ready() -> Happening {
        Happening::Note(What::Ready { took: Duration::ZERO, setup: Duration::ZERO, rung: None })
    }

    fn ended(lived: u64) -> Happening {
        Happening::Note(What::Ended { lived: secs(lived), served: 2 })
    }

    /// What is on the tape after these happenings at these seconds.
    fn tape(recording: Recording, happenings: Vec<(u64, Happening)>) -> Vec<Entry> {
        let mut records = Records::default();
        let mut tape = Tape::new(recording);
        for (secs, happening) in happenings {
            match happening {
                Happening::Event(event) => records.event(at(secs), &event),
                Happening::Start => {
                    let allocation = Allocation {
                        machine_type: "default".into(),
                        cpu_millis: 0,
                        memory_bytes: 0,
                        gpus: Vec::new(),
                    };
                    let cause = StartCause::Expired;
                    records.start(at(secs), RUNNER, APP, 1, &allocation, cause);
                }
                Happening::Note(what) => {
                    let name = "local/app".to_owned();
                    let (runner, request) = (Some(RUNNER), None);
                    let decision = Decision { at: at(secs), app: APP, name, runner, request, what };
                    records.note(&decision);
                    tape.note(&decision, &records);
                }
            }
        }
        tape.take(Vec::new()).entries
    }

    fn start_entry(pending: u64, pull: Option<u64>, setup: u64, ready: bool) -> Entry {
        Entry::Start(Box::new(trace::Start {
            at: at(1),
            app: APP.0,
            cause: StartCause::Expired,
            pending: secs(pending),
            pull: pull.map(secs),
            setup: secs(setup),
            ready,
        }))
    }

    fn stop_entry(reason: &str, lived: u64) -> Entry {
        Entry::Stop(Box::new(trace::Stop {
            at: at(1) + secs(lived),
            app: APP.0,
            reason: reason.to_owned(),
            lived: secs(lived),
            served: 2,
        }))
    }

    #[test]
    fn the_phases_of_a_start_add_up() {
        let (pull, setup) = (
            Event::PullStarted { runner: RUNNER },
            Event::SetupStarted { runner: RUNNER, rung: Rung::ImageCached },
        );
        let is_ready = Event::Ready { runner: RUNNER };
        let pulled = vec![
            (1, wanted()),
            (3, Happening::Start),
            (4, Happening::Event(pull)),
            (9, Happening::Event(setup.clone())),
            (20, Happening::Event(is_ready.clone())),
            (20, ready()),
        ];
        assert_eq!(tape(Recording::On, pulled), [start_entry(2, Some(6), 11, true)]);
        let cached = vec![
            (1, wanted()),
            (3, Happening::Start),
            (4, Happening::Event(setup)),
            (20, Happening::Event(is_ready)),
            (20, ready()),
            (50, Happening::Note(stopping(StopReason::Requested))),
            (60, ended(59)),
        ];
        let expected = [start_entry(2, None, 17, true), stop_entry("requested", 59)];
        assert_eq!(tape(Recording::On, cached), expected);
    }

    fn stopping(reason: StopReason) -> What {
        What::Stopping { reason, state: glowplug_core::lifecycle::State::Setup }
    }

    #[test]
    fn a_start_that_came_to_nothing_lasts_until_it_was_given_up() {
        let failed = What::StartFailed { detail: "x".into(), failures: 1, again_in: secs(30) };
        let expected = [start_entry(0, None, 4, false), stop_entry("start_failed", 8)];
        let start = || vec![(1, wanted()), (1, Happening::Start)];
        let mut happenings = start();
        happenings.extend([(5, Happening::Note(failed)), (9, ended(8))]);
        assert_eq!(tape(Recording::On, happenings), expected);

        let mut happenings = start();
        happenings.extend([(5, Happening::Note(stopping(StopReason::Surplus))), (9, ended(8))]);
        let expected = [start_entry(0, None, 4, false), stop_entry("surplus", 8)];
        assert_eq!(tape(Recording::On, happenings), expected);
    }

    #[test]
    fn what_never_got_a_place_was_not_started() {
        let happenings =
            vec![(1, wanted()), (5, Happening::Note(stopping(StopReason::Surplus))), (5, ended(4))];
        assert_eq!(tape(Recording::On, happenings), []);
    }

    #[test]
    fn a_tape_that_is_off_stays_empty() {
        let happenings = vec![(1, wanted()), (1, Happening::Start), (2, ready()), (3, ended(2))];
        assert_eq!(tape(Recording::Off, happenings), []);
        let mut tape = Tape::new(Recording::Off);
        tape.app(APP, &spec());
        assert_eq!(tape.take(Vec::new()).dropped, 0);
    }

    fn spec() -> AppSpec {
        AppSpec {
            name: "local/app".into(),
            revision: 1,
            scaling: Scaling::default(),
            machine_types: Vec::new(),
            retry: Rules::default(),
        }
    }

    #[test]
    fn what_nobody_takes_in_time_is_counted() {
        let mut tape = Tape::new(Recording::On);
        for _ in 0..ENTRIES_MAX + 5 {
            tape.app(APP, &spec());
        }
        assert!(tape.is_half_full());
        let take = tape.take(Vec::new());
        assert_eq!((take.entries.len(), take.dropped), (ENTRIES_MAX, 5));
        assert!(!tape.is_half_full());
    }
}
