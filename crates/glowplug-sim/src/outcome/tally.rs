//! Counts what happens while it happens. Sums over all apps are made at the end.

use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::decision::StartCause;

use super::account::{Account, RunnerMicros};
use super::parts::{Parts, Summing};
use super::timeline::Timeline;
use super::{End, Measures, Moment, Outcome};

const MICROS_PER_MINUTE: u64 = 60_000_000;

/// What every request changes, close together; the rest apart.
#[derive(Debug)]
struct App {
    requests: u64,
    answered: u64,
    /// Given to a runner at once.
    warm: u64,
    service_micros: u64,
    rest: Box<Rest>,
}

#[derive(Debug)]
struct Rest {
    measures: Measures,
    micros: RunnerMicros,
}

/// What is counted, and from when on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scope<'a> {
    pub(crate) apps: usize,
    pub(crate) moments_max: usize,
    pub(crate) count_from: Timestamp,
    pub(crate) parts: Option<&'a Parts>,
}

#[derive(Debug)]
pub(crate) struct Tally {
    moments_max: usize,
    count_from: Timestamp,
    /// The warm-up is over.
    counting: bool,
    parts: Option<Summing>,
    apps: Vec<App>,
    total: Measures,
    timeline: Timeline,
    state: Moment,
    first_arrival: Option<Timestamp>,
    last_end: Timestamp,
    minute: u64,
    starts_in_minute: u32,
    starts_per_minute_peak: u32,
}

impl Tally {
    pub(crate) fn new(scope: &Scope<'_>) -> Self {
        let rest = || Rest { measures: Measures::per_app(), micros: RunnerMicros::default() };
        let app =
            || App { requests: 0, answered: 0, warm: 0, service_micros: 0, rest: Box::new(rest()) };
        Self {
            moments_max: scope.moments_max,
            count_from: scope.count_from,
            counting: scope.count_from == Timestamp::ZERO,
            parts: scope.parts.map(|parts| Summing::new(parts, scope.apps)),
            apps: std::iter::repeat_with(app).take(scope.apps).collect(),
            total: Measures::over_all(),
            timeline: Timeline::new(scope.moments_max, Timestamp::ZERO),
            state: Moment::default(),
            first_arrival: None,
            last_end: Timestamp::ZERO,
            minute: 0,
            starts_in_minute: 0,
            starts_per_minute_peak: 0,
        }
    }

    /// To be called before anything at `now` is counted.
    pub(crate) fn time_passes(&mut self, now: Timestamp) {
        if self.timeline.is_due(now) {
            self.timeline.keep(now, self.state);
        }
    }

    /// The next moment at which all runners must be shown to [`Tally::cut`].
    pub(crate) fn next_cut(&self) -> Timestamp {
        let warm = if self.counting { Timestamp::MAX } else { self.count_from };
        self.parts.as_ref().map_or(Timestamp::MAX, Summing::next_edge).min(warm)
    }

    /// A runner that lives at the moment of the next cut.
    pub(crate) fn cut(&mut self, app: u32, account: &mut Account) {
        let at = self.next_cut();
        if let Some(parts) = self.parts.as_mut().filter(|parts| parts.next_edge() == at) {
            parts.lived(app, account, at);
        }
        if !self.counting && self.count_from == at {
            account.begin_anew(at);
        }
    }

    /// All runners have been shown.
    pub(crate) fn pass_cut(&mut self) {
        let at = self.next_cut();
        if let Some(parts) = self.parts.as_mut().filter(|parts| parts.next_edge() == at) {
            parts.pass_edge();
        }
        if !self.counting && self.count_from == at {
            self.begin_anew();
        }
    }

    /// Forgets what was counted of the warm-up. Sums by part stay.
    fn begin_anew(&mut self) {
        let (apps, moments_max) = (self.apps.len(), self.moments_max);
        let parts = self.parts.take();
        *self = Self {
            count_from: self.count_from,
            counting: true,
            parts,
            timeline: Timeline::new(moments_max, self.count_from),
            state: self.state,
            ..Self::new(&Scope { apps, moments_max, ..Scope::default() })
        };
    }

    fn measures(&mut self, app: u32) -> &mut Measures {
        &mut self.apps[app as usize].rest.measures
    }

    pub(crate) fn arrived(&mut self, now: Timestamp, app: u32, work_micros: u64) {
        self.first_arrival.get_or_insert(now);
        let app = &mut self.apps[app as usize];
        app.requests += 1;
        app.service_micros = app.service_micros.saturating_add(work_micros);
        self.state.waiting += 1;
    }

    /// A request got its first runner.
    pub(crate) fn first_assigned(&mut self, app: u32, arrived: Timestamp, wait: Duration) {
        if let Some(parts) = &mut self.parts {
            parts.waited(app, arrived, wait);
        }
        if arrived < self.count_from {
            return;
        }
        if wait.is_zero() {
            self.apps[app as usize].warm += 1;
            return;
        }
        let measures = self.measures(app);
        measures.cold += 1;
        measures.waits.record(wait);
        self.total.waits.record(wait);
    }

    /// A request was given to a runner; `first`: to one that had none.
    pub(crate) fn assigned(&mut self, now: Timestamp, account: &mut Account, first: bool) {
        self.state.waiting -= 1;
        if first {
            account.busy(now);
            if !account.is_ending() {
                self.state.idle -= 1;
                self.state.busy += 1;
            }
        }
    }

    /// An attempt is over; `last`: its runner has no other.
    pub(crate) fn released(
        &mut self,
        now: Timestamp,
        account: &mut Account,
        last: bool,
        gone: bool,
    ) {
        if last && !gone {
            account.free(now);
            if !account.is_ending() {
                self.state.busy -= 1;
                self.state.idle += 1;
            }
        }
    }

    pub(crate) fn answered(&mut self, app: u32, arrived: Timestamp, failed: bool) {
        if arrived < self.count_from {
            return;
        }
        self.apps[app as usize].answered += 1;
        if failed {
            self.measures(app).failed += 1;
        }
    }

    pub(crate) fn retried(&mut self, app: u32) {
        self.state.waiting += 1;
        self.measures(app).retries += 1;
    }

    /// `never_began`: it got no runner at all.
    pub(crate) fn refused(&mut self, app: u32, arrived: Timestamp, never_began: bool) {
        self.state.waiting -= 1;
        if arrived < self.count_from {
            return;
        }
        let measures = self.measures(app);
        measures.refused += 1;
        measures.cold += u64::from(never_began);
    }

    pub(crate) fn left(&mut self, app: u32, arrived: Timestamp, never_began: bool) {
        if arrived < self.count_from {
            return;
        }
        let measures = self.measures(app);
        measures.left += 1;
        measures.cold += u64::from(never_began);
    }

    pub(crate) fn started(&mut self, now: Timestamp, app: u32, cause: StartCause) {
        let nth = StartCause::ALL.iter().position(|other| *other == cause).unwrap_or_default();
        self.measures(app).starts[nth] += 1;
        self.state.starting += 1;
        let minute = now.as_micros() / MICROS_PER_MINUTE;
        if minute != self.minute {
            (self.minute, self.starts_in_minute) = (minute, 0);
        }
        self.starts_in_minute += 1;
        self.starts_per_minute_peak = self.starts_per_minute_peak.max(self.starts_in_minute);
    }

    pub(crate) fn ready(&mut self, now: Timestamp, account: &mut Account) {
        account.ready(now);
        self.state.starting -= 1;
        self.state.idle += 1;
    }

    pub(crate) fn start_failed(&mut self, app: u32) {
        self.measures(app).failed_starts += 1;
    }

    /// `in_use`: it has requests.
    pub(crate) fn told_to_end(&mut self, now: Timestamp, account: &mut Account, in_use: bool) {
        if !account.is_ending() {
            self.leave(account, in_use);
            account.told_to_end(now);
        }
    }

    /// A runner that is neither ending nor ended counts no more.
    fn leave(&mut self, account: &Account, in_use: bool) {
        match (account.was_ready(), in_use) {
            (false, _) => self.state.starting -= 1,
            (true, true) => self.state.busy -= 1,
            (true, false) => self.state.idle -= 1,
        }
    }

    /// Closes the books on a runner.
    pub(crate) fn ended(&mut self, now: Timestamp, app: u32, account: &mut Account, in_use: bool) {
        // The engine may tell it to end all the same before it hears of this.
        self.told_to_end(now, account, in_use);
        self.last_end = self.last_end.max(now);
        if let Some(parts) = &mut self.parts {
            parts.lived(app, account, now);
        }
        self.apps[app as usize].rest.micros.add(account.close(now));
    }

    pub(crate) fn into_outcome(mut self, end: Timestamp, events: u64, digest: u64) -> Outcome {
        if !self.counting {
            // All was over before the warm-up was.
            self.begin_anew();
        }
        self.last_end = self.last_end.max(end);
        self.time_passes(self.last_end);
        let mut micros = RunnerMicros::default();
        let (mut warm, mut service_micros) = (0, 0);
        let mut apps = Vec::with_capacity(self.apps.len());
        for app in self.apps {
            let mut measures = app.rest.measures;
            (measures.requests, measures.answered) = (app.requests, app.answered);
            measures.waits.record_none(app.warm);
            measures.runner_seconds = app.rest.micros.seconds();
            measures.service_secs = seconds(u128::from(app.service_micros));
            micros.add(app.rest.micros);
            service_micros += u128::from(app.service_micros);
            warm += app.warm;
            self.total.add_counts(&measures);
            apps.push(measures);
        }
        self.total.waits.record_none(warm);
        self.total.service_secs = seconds(service_micros);
        self.total.runner_seconds = micros.seconds();
        Outcome {
            end: End::default(),
            span: self.last_end.since(self.first_arrival.unwrap_or(self.last_end)),
            total: self.total,
            apps,
            starts_per_minute_peak: self.starts_per_minute_peak,
            events,
            digest,
            timeline: self.timeline.into_moments(),
            parts: self.parts.map_or_else(Vec::new, Summing::into_sums),
        }
    }
}

impl Measures {
    /// Adds what can be added: not distributions, nor seconds.
    fn add_counts(&mut self, other: &Self) {
        self.requests += other.requests;
        self.answered += other.answered;
        self.failed += other.failed;
        self.refused += other.refused;
        self.left += other.left;
        self.retries += other.retries;
        self.cold += other.cold;
        self.failed_starts += other.failed_starts;
        for (sum, count) in self.starts.iter_mut().zip(other.starts) {
            *sum += count;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a sum needs no more digits")]
fn seconds(micros: u128) -> f64 {
    micros as f64 / 1e6
}
