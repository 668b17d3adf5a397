//! One app under Knative's autoscaler: its pods, the requests that are held for them, and what was
//! reported.
//!
//! ```text
//! arrival ──► held by the activator ──► pod with a free place ──► finished
//!    │                  ▲ late binding: whichever pod is free first
//!    └── report ──► windows ──► decider, each tick ──► scale to zero? ──► pods
//! ```
//!
//! Nothing happens at an app without pods and requests: it has no ticks until the next request.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::decision::StartCause;

use super::decider::{Decider, Rules};
use super::pod::{Pod, State};
use super::reports::Reports;
use super::times::Times;
use super::{Kpa, Ledger, TICK_MIN};
use crate::model::{AppModel, micros};
use crate::traffic::Arrival;

/// Up to so many requests at once per pod Knative fills its pods in order, beyond it takes turns.
const FIRST_AVAILABLE_CONCURRENCY_MAX: u32 = 3;

#[derive(Debug)]
pub(super) struct App {
    index: u32,
    times: Times,
    rules: Rules,
    tick: Duration,
    grace: Duration,
    concurrency_per_pod: u32,
    pods_max: u32,
    slowdown: f64,

    decider: Decider,
    reports: Reports,
    activity: Activity,
    /// Pods the decider wanted last.
    wanted: u32,
    /// No tick changes anything until something else happens.
    settled: bool,

    agenda: BinaryHeap<Reverse<(Timestamp, Event)>>,
    /// By number of the start.
    pods: BTreeMap<u64, Pod>,
    /// Ready, with a free place.
    open: BTreeSet<u64>,
    /// The pod whose turn it is, or the next one that is open.
    turn: u64,
    starting: u32,
    ready: u32,
    started: u64,
    was_ready: bool,
    held: VecDeque<Held>,
    in_flight: u32,
    /// Still to come, and not to be counted.
    answers_of_before: u64,
    last_tick: Timestamp,
    last_arrival: Timestamp,
}

/// Knative's own state of an app, which rules when the last pod may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    /// Wanted, and none is ready.
    Activating,
    Active {
        since: Timestamp,
    },
    Inactive {
        since: Timestamp,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Finished {
        pod: u64,
    },
    Ready {
        pod: u64,
    },
    /// A held request may have waited for too long.
    Overdue,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    at: Timestamp,
    service: Duration,
    deadline: Timestamp,
}

impl App {
    pub(super) fn new(index: u32, kpa: &Kpa, model: &AppModel, seed: u64) -> Self {
        let scaling = &model.spec.scaling;
        let concurrency = kpa.container_concurrency.unwrap_or(scaling.max_multiplexing).max(1);
        Self {
            index,
            times: Times::new(model, seed, index),
            rules: kpa.rules(concurrency),
            tick: kpa.tick.max(TICK_MIN),
            grace: kpa.grace,
            concurrency_per_pod: concurrency,
            pods_max: scaling.max_concurrency.unwrap_or(u32::MAX),
            slowdown: model.slowdown,
            decider: Decider::default(),
            reports: Reports::new(kpa.stable, kpa.panic_window()),
            activity: Activity::Inactive { since: Timestamp::ZERO },
            wanted: 0,
            settled: false,
            agenda: BinaryHeap::new(),
            pods: BTreeMap::new(),
            open: BTreeSet::new(),
            turn: 0,
            starting: 0,
            ready: 0,
            started: 0,
            was_ready: false,
            held: VecDeque::new(),
            in_flight: 0,
            answers_of_before: 0,
            last_tick: Timestamp::ZERO,
            last_arrival: Timestamp::ZERO,
        }
    }

    /// A request comes; all that is before it has happened.
    pub(super) fn arrive(&mut self, ledger: &mut Ledger, arrival: &Arrival) {
        let now = arrival.at;
        self.last_arrival = now;
        self.wake(now);
        let is_first = self.reports.arrive(now, self.concurrency(), self.ready > 0);
        let service = arrival.service.unwrap_or_else(|| self.times.service());
        let deadline = arrival.start_within.map_or(Timestamp::MAX, |within| now + within);
        ledger.each(self.index, |measures| {
            measures.requests += 1;
            measures.service_secs += service.as_secs_f64();
            measures.cold += u64::from(self.open.is_empty());
        });
        self.held.push_back(Held { at: now, service, deadline });
        if !self.open.is_empty() {
            self.hand_out(ledger, now);
        } else if arrival.start_within.is_some() {
            self.agenda.push(Reverse((deadline, Event::Overdue)));
        }
        if is_first && self.wanted == 0 {
            // The activator does not wait for its next report when it holds a request for an app without
            // pods.
            let second = Reports::second(now);
            self.decide(ledger, now, second);
        }
    }

    /// Lets everything happen that does up to a moment, that moment included.
    pub(super) fn advance(&mut self, ledger: &mut Ledger, until: Timestamp) {
        loop {
            let event_at = self.agenda.peek().map_or(Timestamp::MAX, |Reverse((at, _))| *at);
            let tick_at = self.next_tick();
            let at = event_at.min(tick_at);
            if at > until || at == Timestamp::MAX {
                return;
            }
            ledger.events += 1;
            if event_at > tick_at {
                self.tick(ledger, tick_at);
                continue;
            }
            let Some(Reverse((at, event))) = self.agenda.pop() else {
                return;
            };
            match event {
                Event::Finished { pod } => self.finish(ledger, at, pod),
                Event::Ready { pod } => self.pod_is_ready(ledger, at, pod),
                Event::Overdue => self.refuse_overdue(ledger, at),
            }
        }
    }

    /// Lets everything happen up to the last answer, and says when that was, or when the last request came.
    pub(super) fn answer_all(&mut self, ledger: &mut Ledger) -> Timestamp {
        let mut now = self.last_arrival;
        while self.concurrency() > 0 {
            let event_at = self.agenda.peek().map_or(Timestamp::MAX, |Reverse((at, _))| *at);
            let next = event_at.min(self.next_tick());
            if next == Timestamp::MAX {
                break;
            }
            self.advance(ledger, next);
            now = next;
        }
        now
    }

    /// Closes the books on what is left at the end.
    pub(super) fn cut_off(&mut self, ledger: &mut Ledger, end: Timestamp) {
        for pod in std::mem::take(&mut self.pods).into_values() {
            ledger.ended(self.index, end, &pod.close(end));
        }
        let counts = |held: &&Held| held.at >= ledger.count_from;
        let left = self.held.iter().filter(counts).count() as u64;
        ledger.each(self.index, |measures| measures.left += left);
    }

    /// What was before counts no more, and neither do the answers to it.
    pub(super) fn begin_anew(&mut self, now: Timestamp) {
        self.answers_of_before = self.concurrency();
        for pod in self.pods.values_mut() {
            pod.begin_anew(now);
        }
    }

    fn concurrency(&self) -> u64 {
        u64::from(self.in_flight) + self.held.len() as u64
    }

    /// Accounts for the time up to now, before something changes.
    fn report(&mut self, now: Timestamp) {
        self.wake(now);
        self.reports.advance(now, self.concurrency(), self.ready > 0);
    }

    fn finish(&mut self, ledger: &mut Ledger, now: Timestamp, number: u64) {
        let Some(pod) = self.pods.get_mut(&number) else {
            // It was announced twice, and has ended since.
            return;
        };
        if !pod.finish(now, self.slowdown) {
            return;
        }
        let next = pod.announce(now, self.slowdown);
        let (state, requests) = (pod.state, pod.requests());
        self.report(now);
        self.in_flight -= 1;
        match self.answers_of_before {
            0 => ledger.each(self.index, |measures| measures.answered += 1),
            _ => self.answers_of_before -= 1,
        }
        if let Some(at) = next {
            self.agenda.push(Reverse((at, Event::Finished { pod: number })));
        }
        match state {
            State::Draining if requests == 0 => self.end(ledger, now, number),
            State::Draining => {}
            State::Starting | State::Ready => {
                self.open.insert(number);
                self.hand_out(ledger, now);
            }
        }
    }

    fn pod_is_ready(&mut self, ledger: &mut Ledger, now: Timestamp, number: u64) {
        let Some(pod) = self.pods.get_mut(&number) else {
            // It was given up before.
            return;
        };
        pod.ready(now);
        self.report(now);
        self.starting -= 1;
        self.ready += 1;
        self.was_ready = true;
        if self.activity == Activity::Activating {
            self.activity = Activity::Active { since: now };
        }
        self.open.insert(number);
        self.hand_out(ledger, now);
    }

    /// Gives held requests to pods with a free place, the longest waiting first.
    fn hand_out(&mut self, ledger: &mut Ledger, now: Timestamp) {
        while let Some(number) = self.next_open()
            && let Some(held) = self.held.pop_front()
        {
            let pod = self.pods.get_mut(&number).expect("what is open exists");
            if let Some(at) = pod.assign(now, held.service, self.slowdown) {
                self.agenda.push(Reverse((at, Event::Finished { pod: number })));
            }
            if pod.requests() >= self.concurrency_per_pod as usize {
                self.open.remove(&number);
            }
            self.turn = number + 1;
            self.in_flight += 1;
            ledger.waited(self.index, now, held.at);
        }
    }

    fn next_open(&self) -> Option<u64> {
        let first = self.open.first().copied();
        if self.concurrency_per_pod <= FIRST_AVAILABLE_CONCURRENCY_MAX {
            return first;
        }
        self.open.range(self.turn..).next().copied().or(first)
    }

    fn refuse_overdue(&mut self, ledger: &mut Ledger, now: Timestamp) {
        self.report(now);
        let (mut refused, mut refused_of_before) = (0, 0);
        self.held.retain(|held| {
            let stays = held.deadline > now;
            if held.at < ledger.count_from {
                refused_of_before += u64::from(!stays);
            } else {
                refused += u64::from(!stays);
            }
            stays
        });
        // They get no answer that would have to be left out.
        self.answers_of_before -= refused_of_before;
        ledger.each(self.index, |measures| measures.refused += refused);
    }

    fn is_asleep(&self) -> bool {
        self.starting + self.ready == 0 && self.wanted == 0 && self.concurrency() == 0
    }

    fn next_tick(&self) -> Timestamp {
        if self.settled || self.is_asleep() {
            return Timestamp::MAX;
        }
        self.last_tick + self.tick
    }

    /// After a time without ticks they go on where they would be, had there been some.
    fn wake(&mut self, now: Timestamp) {
        if self.settled || self.is_asleep() {
            let tick = micros(self.tick).max(1);
            self.last_tick = Timestamp::from_micros(now.as_micros() / tick * tick);
            self.settled = false;
        }
    }

    fn tick(&mut self, ledger: &mut Ledger, now: Timestamp) {
        self.last_tick = now;
        self.report(now);
        let second = Reports::second(now).saturating_sub(1);
        let before = self.ready;
        self.decide(ledger, now, second);
        let changed = self.ready != before || self.starting > 0 || self.wanted == 0;
        self.settled = !changed && self.reports.is_flat() && !self.decider.is_panicking();
    }

    /// One cycle of the autoscaler, on what was reported up to the end of a second.
    fn decide(&mut self, ledger: &mut Ledger, now: Timestamp, second: u64) {
        let Some(observed) = self.reports.observed(second) else {
            return;
        };
        self.wanted = self.decider.decide(&self.rules, now, self.ready, observed);
        let pods = match self.wanted.min(self.pods_max) {
            0 => self.leave_last(now),
            pods => {
                self.activate(now);
                Some(pods)
            }
        };
        if let Some(pods) = pods {
            self.scale(ledger, now, pods);
        }
    }

    /// What zero wanted pods mean for the last one. `None`: all stays as it is for now.
    fn leave_last(&mut self, now: Timestamp) -> Option<u32> {
        match self.activity {
            Activity::Activating => None,
            Activity::Active { since } if now - since < self.rules.stable => Some(1),
            Activity::Active { .. } => {
                self.activity = Activity::Inactive { since: now };
                self.grace.is_zero().then_some(0)
            }
            Activity::Inactive { since } => (now - since >= self.grace).then_some(0),
        }
    }

    fn activate(&mut self, now: Timestamp) {
        if self.ready == 0 {
            self.activity = Activity::Activating;
        } else if !matches!(self.activity, Activity::Active { .. }) {
            self.activity = Activity::Active { since: now };
        }
    }

    fn scale(&mut self, ledger: &mut Ledger, now: Timestamp, pods: u32) {
        let alive = self.starting + self.ready;
        for _ in alive..pods {
            self.start(ledger, now);
        }
        if pods < alive {
            self.give_up(ledger, now, alive - pods);
        }
    }

    fn start(&mut self, ledger: &mut Ledger, now: Timestamp) {
        let cause = if !self.open.is_empty() {
            StartCause::Buffer
        } else if self.ready > 0 {
            StartCause::Spike
        } else if self.was_ready {
            StartCause::Expired
        } else {
            StartCause::FirstDeployment
        };
        let number = self.started;
        self.started += 1;
        self.starting += 1;
        self.pods.insert(number, Pod::start(now));
        let ready_at = self.times.ready(now);
        self.agenda.push(Reverse((ready_at, Event::Ready { pod: number })));
        ledger.started(self.index, now, cause);
    }

    /// Pods that are not ready go first, then idle ones, then busy ones; the newest of each first.
    fn give_up(&mut self, ledger: &mut Ledger, now: Timestamp, pods: u32) {
        let rank = |pod: &Pod| match (pod.state, pod.requests()) {
            (State::Draining, _) => None,
            (State::Starting, _) => Some(0_u8),
            (State::Ready, 0) => Some(1),
            (State::Ready, _) => Some(2),
        };
        let mut leaving: Vec<(u8, Reverse<u64>)> = self
            .pods
            .iter()
            .filter_map(|(number, pod)| Some((rank(pod)?, Reverse(*number))))
            .collect();
        leaving.sort_unstable();
        self.report(now);
        for &(rank, Reverse(number)) in leaving.iter().take(pods as usize) {
            self.open.remove(&number);
            match rank {
                0 => self.starting -= 1,
                _ => self.ready -= 1,
            }
            let pod = self.pods.get_mut(&number).expect("it was just found");
            pod.drain(now);
            if pod.requests() == 0 {
                self.end(ledger, now, number);
            }
        }
    }

    fn end(&mut self, ledger: &mut Ledger, now: Timestamp, number: u64) {
        let pod = self.pods.remove(&number).expect("it ends once");
        let exit = self.times.exit();
        let at = now + exit;
        ledger.ended(self.index, at, &pod.close(at));
    }
}
