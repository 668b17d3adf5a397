//! What happened lately, for people: runners with the phases of their starts, and requests.
//!
//! Kept in memory, bounded, filled from the engine's events and decisions. Decisions themselves go to the
//! store's journal.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::time::Duration;

use foldhash::fast::RandomState;
use glowplug_core::decision::{Decision, StartCause, What};
use glowplug_core::event::Adopted;
use glowplug_core::request::{Arrival, Mode, Outcome, Priority, Refusal};
use glowplug_core::resources::Allocation;
use glowplug_core::{AppId, Event, Lease, RequestId, Rung, RunnerId, Timestamp};
use glowplug_image::pull::Progress as PullProgress;
use tokio::sync::watch;

/// Ended runners remembered.
const ENDED_RUNNERS_MAX: usize = 1_000;
/// Requests remembered after their end.
const PAST_REQUESTS_MAX: usize = 20_000;
/// Labels of ends that nobody asked for, beside those of [`glowplug_core::decision::StopReason`].
const DIED: &str = "died";
const START_FAILED: &str = "start_failed";
/// Marks of one program's own start.
pub(crate) const MARKS_MAX: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Records {
    runners: BTreeMap<RunnerId, RunnerRecord>,
    ended: VecDeque<RunnerId>,
    /// Waiting and running requests: those the engine has.
    requests: HashMap<RequestId, RequestRecord, RandomState>,
    /// Requests that are over, newest last. Looked through when somebody asks, so that a request costs
    /// no more than its place here.
    past: VecDeque<(RequestId, RequestRecord)>,
}

#[derive(Clone, Debug)]
pub(crate) struct RunnerRecord {
    pub app: String,
    pub revision: u32,
    pub cause: StartCause,
    pub machine_type: Option<String>,
    pub gpus: Vec<u32>,
    pub created: Timestamp,
    pub placed: Option<Timestamp>,
    pub pull_started: Option<Timestamp>,
    pub setup: Option<Timestamp>,
    pub ready: Option<Timestamp>,
    /// What its last wake-up began with.
    pub rung: Option<Rung>,
    /// When it was last ready again after it was frozen, and how long that took.
    pub thawed: Option<(Timestamp, Duration)>,
    pub ended: Option<Timestamp>,
    pub served: u64,
    pub end_reason: Option<String>,
    /// The label of what ended it.
    pub end_label: Option<&'static str>,
    /// The engine has used it, now or in an earlier life of the node.
    pub became_ready: bool,
    /// When its start failed or was cancelled.
    pub given_up: Option<Timestamp>,
    /// How far the pull of its image is.
    pub pull: Option<watch::Receiver<PullProgress>>,
    /// What the program itself told of its start, in order.
    pub marks: Vec<(String, Timestamp)>,
}

#[derive(Clone, Debug)]
pub(crate) struct RequestRecord {
    pub app: AppId,
    pub mode: Mode,
    pub priority: Priority,
    pub arrived: Timestamp,
    /// It had to be given to a runner within this time.
    pub start_within: Option<Duration>,
    /// From arrival to the first assignment.
    pub first_wait: Option<Duration>,
    /// How long a runner had it, in the last attempt that ended.
    pub service: Option<Duration>,
    /// Runner and moment of the last assignment.
    pub assigned: Option<(RunnerId, Timestamp)>,
    pub attempts: u32,
    pub finished: Option<(Timestamp, End)>,
}

/// How the last attempt of a request ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Answered(u16),
    ConnectFailed,
    Disconnected,
    CallerGone,
    Refused(String),
}

impl End {
    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Answered(answer) => Self::Answered(answer.status),
            Outcome::ConnectFailed => Self::ConnectFailed,
            Outcome::Disconnected => Self::Disconnected,
            Outcome::CallerGone => Self::CallerGone,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(status) => write!(f, "was answered with {status}"),
            Self::ConnectFailed => f.write_str("could not be sent to its runner"),
            Self::Disconnected => f.write_str("lost the connection to its runner"),
            Self::CallerGone => f.write_str("was given up by its caller"),
            Self::Refused(refusal) => write!(f, "was refused: {refusal}"),
        }
    }
}

impl RequestRecord {
    pub(crate) fn waited(&self) -> Option<Duration> {
        self.assigned.map(|(_, at)| at - self.arrived)
    }

    fn end(&mut self, now: Timestamp, end: End) {
        if let (Some((_, since)), None) = (self.assigned, &self.finished) {
            self.service = Some(now - since);
        }
        self.finished = Some((now, end));
    }
}

impl Records {
    pub(crate) fn runner(&self, id: RunnerId) -> Option<&RunnerRecord> {
        self.runners.get(&id)
    }

    pub(crate) fn runners(&self) -> impl Iterator<Item = (&RunnerId, &RunnerRecord)> {
        self.runners.iter()
    }

    pub(crate) fn request(&self, id: RequestId) -> Option<&RequestRecord> {
        let past = || self.past.iter().rev().find(|(past, _)| *past == id);
        self.requests.get(&id).or_else(|| past().map(|(_, record)| record))
    }

    pub(crate) fn start(
        &mut self,
        now: Timestamp,
        id: RunnerId,
        _app: AppId,
        revision: u32,
        allocation: &Allocation,
        cause: StartCause,
    ) {
        let record = self.runners.entry(id).or_insert_with(|| RunnerRecord::new(now, cause));
        record.revision = revision;
        record.placed = Some(now);
        record.machine_type = Some(allocation.machine_type.clone());
        record.gpus.clone_from(&allocation.gpus);
    }

    pub(crate) fn adopted(&mut self, adopted: &Adopted, app: &str) {
        let mut record = RunnerRecord::new(adopted.started_at, StartCause::Adopted);
        app.clone_into(&mut record.app);
        record.revision = adopted.revision;
        record.machine_type = Some(adopted.allocation.machine_type.clone());
        record.gpus.clone_from(&adopted.allocation.gpus);
        record.placed = Some(adopted.started_at);
        record.setup = Some(adopted.started_at);
        record.became_ready = adopted.ready;
        self.runners.insert(adopted.runner, record);
    }

    pub(crate) fn event(&mut self, now: Timestamp, event: &Event) {
        let (id, field): (_, fn(&mut RunnerRecord) -> &mut Option<Timestamp>) = match event {
            Event::PullStarted { runner } => (runner, |record| &mut record.pull_started),
            Event::SetupStarted { runner, .. } => (runner, |record| &mut record.setup),
            Event::Ready { runner } => (runner, |record| &mut record.ready),
            _ => return,
        };
        if let Some(record) = self.runners.get_mut(id) {
            field(record).get_or_insert(now);
        }
    }

    pub(crate) fn note(&mut self, decision: &Decision) {
        let Some(id) = decision.runner else { return };
        match &decision.what {
            What::Wanted { cause, .. } => {
                let record = self
                    .runners
                    .entry(id)
                    .or_insert_with(|| RunnerRecord::new(decision.at, *cause));
                record.app.clone_from(&decision.name);
            }
            What::Thawed { took } => {
                if let Some(record) = self.runners.get_mut(&id) {
                    record.rung = Some(Rung::Frozen);
                    record.thawed = Some((decision.at, *took));
                }
            }
            What::Placed { .. } | What::Ready { .. } => {
                if let Some(record) = self.runners.get_mut(&id) {
                    record.app.clone_from(&decision.name);
                    if let What::Ready { rung, .. } = decision.what {
                        record.became_ready = true;
                        record.rung = rung;
                    }
                }
            }
            What::Stopping { reason, .. } => {
                self.end_reason(decision.at, id, reason.label(), reason.to_string());
            }
            What::StartFailed { detail, .. } => {
                self.end_reason(decision.at, id, START_FAILED, detail.clone());
            }
            What::Died { detail, .. } => self.died_of(id, detail),
            What::Ended { served, .. } => self.ended(id, decision, *served),
            _ => {}
        }
    }

    fn end_reason(&mut self, at: Timestamp, id: RunnerId, label: &'static str, reason: String) {
        let Some(record) = self.runners.get_mut(&id) else { return };
        record.end_reason.get_or_insert(reason);
        record.end_label.get_or_insert(label);
        if !record.became_ready {
            record.given_up.get_or_insert(at);
        }
    }

    /// What a runner died of tells more than that it was to be stopped.
    fn died_of(&mut self, id: RunnerId, detail: &str) {
        let Some(record) = self.runners.get_mut(&id) else { return };
        record.end_label.get_or_insert(DIED);
        record.end_reason = Some(match record.end_reason.take() {
            Some(reason) => format!("{reason}: it {detail}"),
            None => detail.to_owned(),
        });
    }

    fn ended(&mut self, id: RunnerId, decision: &Decision, served: u64) {
        let Some(record) = self.runners.get_mut(&id) else { return };
        record.ended = Some(decision.at);
        record.served = served;
        self.ended.push_back(id);
        if self.ended.len() > ENDED_RUNNERS_MAX
            && let Some(oldest) = self.ended.pop_front()
        {
            self.runners.remove(&oldest);
        }
    }

    pub(crate) fn arrived(&mut self, now: Timestamp, arrival: &Arrival) {
        let record = RequestRecord {
            app: arrival.app,
            mode: arrival.mode,
            priority: arrival.priority,
            arrived: now,
            start_within: arrival.start_deadline.map(|deadline| deadline - now),
            first_wait: None,
            service: None,
            assigned: None,
            attempts: 0,
            finished: None,
        };
        self.requests.insert(arrival.request, record);
    }

    /// Nothing more is to happen to a request. Returns what became of it.
    pub(crate) fn closed(&mut self, id: RequestId) -> Option<&RequestRecord> {
        let record = self.requests.remove(&id)?;
        if self.past.len() == PAST_REQUESTS_MAX {
            self.past.pop_front();
        }
        self.past.push_back((id, record));
        self.past.back().map(|(_, record)| record)
    }

    /// The record of a request whether it is over or not: a withdrawn attempt is reported after the end
    /// of its request.
    fn request_mut(&mut self, id: RequestId) -> Option<&mut RequestRecord> {
        self.requests.get_mut(&id).or_else(|| {
            let past = self.past.iter_mut().rev().find(|(past, _)| *past == id);
            past.map(|(_, record)| record)
        })
    }

    pub(crate) fn assigned(&mut self, now: Timestamp, lease: Lease) -> Option<&RequestRecord> {
        let record = self.requests.get_mut(&lease.request)?;
        record.assigned = Some((lease.runner, now));
        record.first_wait.get_or_insert(now - record.arrived);
        record.finished = None;
        record.attempts = lease.attempt;
        Some(record)
    }

    pub(crate) fn finished(
        &mut self,
        now: Timestamp,
        lease: Lease,
        outcome: &Outcome,
    ) -> Option<&RequestRecord> {
        let record = self.request_mut(lease.request)?;
        // An attempt that was withdrawn breaks off because it was; that is no news.
        if record.attempts == lease.attempt && record.finished.is_none() {
            record.end(now, End::of(outcome));
        }
        Some(record)
    }

    pub(crate) fn refused(&mut self, now: Timestamp, id: RequestId, refusal: &Refusal) {
        if let Some(record) = self.requests.get_mut(&id) {
            record.end(now, End::Refused(refusal.to_string()));
        }
    }

    pub(crate) fn pulling(&mut self, id: RunnerId, progress: watch::Receiver<PullProgress>) {
        if let Some(record) = self.runners.get_mut(&id) {
            record.pull = Some(progress);
        }
    }

    pub(crate) fn mark(&mut self, id: RunnerId, marks: Vec<(String, Timestamp)>) {
        if let Some(record) = self.runners.get_mut(&id) {
            record.marks = marks;
            record.marks.truncate(MARKS_MAX);
        }
    }
}

impl RunnerRecord {
    fn new(created: Timestamp, cause: StartCause) -> Self {
        Self {
            app: String::new(),
            revision: 0,
            cause,
            machine_type: None,
            gpus: Vec::new(),
            created,
            placed: None,
            pull_started: None,
            setup: None,
            ready: None,
            rung: None,
            thawed: None,
            ended: None,
            served: 0,
            end_reason: None,
            end_label: None,
            became_ready: false,
            given_up: None,
            pull: None,
            marks: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use glowplug_core::CallerId;
    use glowplug_core::retry::Wish;

    use super::*;

    const RUNNER: RunnerId = RunnerId { boot: 1, sequence: 1 };

    const APP: AppId = AppId(7);

    fn arrival(request: RequestId) -> Arrival {
        Arrival {
            request,
            app: APP,
            mode: Mode::Queued,
            priority: Priority::Normal,
            start_deadline: None,
            caller: CallerId::default(),
            hint: None,
            retries: Wish::Unsaid,
            attempts: 0,
        }
    }

    fn lease(request: RequestId, attempt: u32) -> Lease {
        Lease { request, attempt, runner: RUNNER }
    }

    #[test]
    fn requests_are_remembered_for_a_while_after_their_end() {
        let at = Timestamp::from_secs;
        let mut records = Records::default();
        let waiting = RequestId(0);
        records.arrived(at(0), &arrival(waiting));
        for id in (1..).map(RequestId).take(PAST_REQUESTS_MAX + 1) {
            records.arrived(at(1), &arrival(id));
            records.assigned(at(2), lease(id, 1)).unwrap();
            records.finished(at(3), lease(id, 1), &Outcome::Disconnected).unwrap();
            assert!(records.closed(id).is_some());
            assert!(records.closed(id).is_none());
        }
        assert!(records.request(waiting).is_some(), "it is not over");
        assert!(records.request(RequestId(1)).is_none(), "it is over for too long");
        let last = records.request(RequestId(2)).unwrap();
        assert_eq!(last.waited(), Some(Duration::from_secs(1)));
        assert!(matches!(last.finished, Some((_, End::Disconnected))));
        assert_eq!(records.past.len(), PAST_REQUESTS_MAX);
        assert_eq!(records.requests.len(), 1);
    }

    #[test]
    fn a_request_waits_until_its_first_attempt_and_is_served_in_its_last() {
        let at = Timestamp::from_secs;
        let mut records = Records::default();
        let id = RequestId(1);
        records.arrived(at(0), &arrival(id));
        records.assigned(at(3), lease(id, 1)).unwrap();
        records.finished(at(4), lease(id, 1), &Outcome::Disconnected).unwrap();
        records.assigned(at(10), lease(id, 2)).unwrap();
        records.finished(at(12), lease(id, 2), &Outcome::ConnectFailed).unwrap();
        // Waits for its third attempt when its deadline passes: nobody works on it.
        records.refused(at(20), id, &Refusal::StartDeadline);
        let record = records.closed(id).unwrap();
        assert_eq!(record.first_wait, Some(Duration::from_secs(3)));
        assert_eq!(record.service, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_report_after_the_end_finds_its_request() {
        let mut records = Records::default();
        let (id, now) = (RequestId(1), Timestamp::from_secs(1));
        records.arrived(now, &arrival(id));
        records.assigned(now, lease(id, 1)).unwrap();
        records.refused(now, id, &Refusal::RequestTimeout { seconds: 5 });
        records.closed(id).unwrap();
        let record = records.finished(now, lease(id, 1), &Outcome::Disconnected).unwrap();
        assert_eq!(record.app, APP);
        assert!(
            matches!(record.finished, Some((_, End::Refused(_)))),
            "that it was withdrawn is its end"
        );
        assert!(records.finished(now, lease(RequestId(2), 1), &Outcome::Disconnected).is_none());
    }
}
