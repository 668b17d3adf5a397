//! Knative's pod autoscaler (KPA) on the same traffic.
//!
//! The decision itself is Knative's, rule for rule (`decider.rs`), on what Knative would have measured
//! (`reports.rs`, `window.rs`). Around it stands a simulation of its own, since this autoscaler cannot
//! be had by setting the engine's parameters. Where it simplifies, it does so in Knative's favour:
//!
//! - Every request goes through the activator, which holds it until any pod has a free place. That is
//!   Knative's way for apps with few places in all; the pods' own queues come into play only beyond.
//! - Reports and decisions take no time, and pods start at once: capacity has no limit but the app's own
//!   `max_concurrency`.
//! - When pods must go, those that are not ready go first, then idle ones. Kubernetes does not know
//!   which are idle and may pick a busy pod, which then ends after its request.
//! - Nothing fails: an app's faults are left out, and so are its other scaling parameters.
//!
//! Up to three concurrent requests per pod, the oldest pod with a free place is taken; beyond, pods take
//! turns.
//!
//! State: the windows and pods of each app. Nothing grows with the number of requests but those that
//! wait.

mod app;
mod decider;
mod pod;
mod reports;
mod times;
mod window;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::decision::StartCause;

use self::app::App;
use self::decider::Rules;
use crate::model::{AppModel, mix};
use crate::outcome::{End, Measures, Outcome, RunnerSeconds};
use crate::simulation::Failure;
use crate::traffic::Arrival;

/// Pods are never meant to have less than this many requests at once, however low the target.
const TARGET_MIN: f64 = 0.01;
/// Between two decisions, however often they are asked for.
const TICK_MIN: Duration = Duration::from_millis(10);
const MINUTE_MICROS: u64 = 60_000_000;

/// What Knative lets people set, under its names where they are good. Defaults are Knative's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kpa {
    /// Between two decisions.
    pub tick: Duration,
    /// The window that counts when nothing special happens.
    pub stable: Duration,
    /// The window that bursts are seen in, as a share of `stable`.
    pub panic_share: f64,
    /// The share of its places that a pod is meant to use.
    pub target_utilization: f64,
    /// Requests at once per pod. `None`: the app's `max_multiplexing`.
    pub container_concurrency: Option<u32>,
    /// How many times the ready pods a burst must need to be one.
    pub panic_threshold: f64,
    /// By what one decision may multiply the ready pods at most.
    pub max_scale_up: f64,
    /// By what one decision may divide them at most.
    pub max_scale_down: f64,
    /// How long the last pod is kept after it was found that nobody needs it. Knative waits this long at
    /// most: not at all where the activator has been in the way of requests for as long, as it is for
    /// apps with few places in all. So Knative itself is somewhere between this and 0.
    pub grace: Duration,
}

impl Default for Kpa {
    fn default() -> Self {
        Self {
            tick: Duration::from_secs(2),
            stable: Duration::from_mins(1),
            panic_share: 0.1,
            target_utilization: 0.7,
            container_concurrency: None,
            panic_threshold: 2.0,
            max_scale_up: 1_000.0,
            max_scale_down: 2.0,
            grace: Duration::from_secs(30),
        }
    }
}

impl Kpa {
    /// Lets the traffic happen until the last pod has ended. `apps` and `seed` as those of a
    /// [`World`](crate::simulation::World).
    pub fn run<E>(
        &self,
        apps: &[AppModel],
        seed: u64,
        traffic: impl Iterator<Item = Result<Arrival, E>>,
    ) -> Result<Outcome, Failure<E>>
    where
        E: std::error::Error + 'static,
    {
        self.run_from(Timestamp::ZERO, apps, seed, traffic)
    }

    /// As [`Kpa::run`], with a warm-up: what comes and what is spent before `count_from` is not counted.
    pub fn run_from<E>(
        &self,
        count_from: Timestamp,
        apps: &[AppModel],
        seed: u64,
        traffic: impl Iterator<Item = Result<Arrival, E>>,
    ) -> Result<Outcome, Failure<E>>
    where
        E: std::error::Error + 'static,
    {
        self.run_between(count_from..Timestamp::MAX, apps, seed, traffic)
    }

    /// As [`Kpa::run_from`], and nothing happens from the end of what is counted on.
    pub fn run_between<E>(
        &self,
        counted: Range<Timestamp>,
        apps: &[AppModel],
        seed: u64,
        traffic: impl Iterator<Item = Result<Arrival, E>>,
    ) -> Result<Outcome, Failure<E>>
    where
        E: std::error::Error + 'static,
    {
        self.run_until(counted, End::Until, apps, seed, traffic)
    }

    /// As [`Kpa::run_from`], and the last answer is the end, as with
    /// [`World::until_answered`](crate::simulation::World::until_answered).
    pub fn run_answered<E>(
        &self,
        count_from: Timestamp,
        apps: &[AppModel],
        seed: u64,
        traffic: impl Iterator<Item = Result<Arrival, E>>,
    ) -> Result<Outcome, Failure<E>>
    where
        E: std::error::Error + 'static,
    {
        self.run_until(count_from..Timestamp::MAX, End::Answered, apps, seed, traffic)
    }

    fn run_until<E>(
        &self,
        counted: Range<Timestamp>,
        why: End,
        apps: &[AppModel],
        seed: u64,
        traffic: impl Iterator<Item = Result<Arrival, E>>,
    ) -> Result<Outcome, Failure<E>>
    where
        E: std::error::Error + 'static,
    {
        let Range { start: count_from, end: mut until } = counted;
        let mut ledger = Ledger::new(apps.len(), Timestamp::ZERO);
        let mut running: Vec<App> =
            (0..).zip(apps).map(|(index, model)| App::new(index, self, model, seed)).collect();
        for arrival in super::in_order(apps.len(), traffic) {
            let arrival = arrival?;
            if arrival.at >= until {
                break;
            }
            if arrival.at >= count_from && ledger.count_from < count_from {
                for app in &mut running {
                    app.advance(&mut ledger, count_from);
                    app.begin_anew(count_from);
                }
                ledger = Ledger::new(apps.len(), count_from);
            }
            ledger.first.get_or_insert(arrival.at);
            ledger.events += 1;
            let app = &mut running[arrival.app as usize];
            app.advance(&mut ledger, arrival.at);
            app.arrive(&mut ledger, &arrival);
        }
        if why == End::Answered {
            let answered = running.iter_mut().map(|app| app.answer_all(&mut ledger));
            until = answered.max().unwrap_or(until);
        }
        for app in &mut running {
            app.advance(&mut ledger, until);
            app.cut_off(&mut ledger, until);
        }
        if ledger.count_from < count_from {
            // All came before the warm-up was over.
            ledger = Ledger::new(apps.len(), count_from);
        }
        Ok(ledger.close())
    }

    fn rules(&self, concurrency: u32) -> Rules {
        Rules {
            target: (f64::from(concurrency) * self.target_utilization).max(TARGET_MIN),
            panic_threshold: self.panic_threshold,
            max_scale_up: self.max_scale_up,
            max_scale_down: self.max_scale_down,
            stable: self.stable,
        }
    }

    fn panic_window(&self) -> Duration {
        self.stable.mul_f64(self.panic_share.clamp(0.0, 1.0))
    }
}

/// What was measured so far.
#[derive(Debug)]
struct Ledger {
    /// Requests that came before do not count.
    count_from: Timestamp,
    total: Measures,
    apps: Vec<Measures>,
    /// Apps are simulated each on its own, so that starts do not come in order of time. Limited by the
    /// traffic's length.
    starts_by_minute: BTreeMap<u64, u32>,
    first: Option<Timestamp>,
    last_end: Timestamp,
    events: u64,
    /// One for each app, for the same reason.
    digests: Vec<u64>,
}

impl Ledger {
    fn new(apps: usize, count_from: Timestamp) -> Self {
        Self {
            count_from,
            total: Measures::over_all(),
            apps: (0..apps).map(|_| Measures::per_app()).collect(),
            starts_by_minute: BTreeMap::new(),
            first: None,
            last_end: Timestamp::ZERO,
            events: 0,
            digests: vec![0; apps],
        }
    }

    fn each(&mut self, app: u32, record: impl Fn(&mut Measures)) {
        record(&mut self.total);
        record(&mut self.apps[app as usize]);
    }

    fn waited(&mut self, app: u32, now: Timestamp, arrived: Timestamp) {
        if arrived >= self.count_from {
            self.each(app, |measures| measures.waits.record(now - arrived));
        }
        self.digest(app, now, 1);
    }

    fn started(&mut self, app: u32, now: Timestamp, cause: StartCause) {
        let at = StartCause::ALL.iter().position(|known| *known == cause);
        let at = at.expect("all causes are among all causes");
        self.each(app, |measures| measures.starts[at] += 1);
        *self.starts_by_minute.entry(now.as_micros() / MINUTE_MICROS).or_default() += 1;
        self.digest(app, now, 2);
    }

    fn ended(&mut self, app: u32, at: Timestamp, seconds: &RunnerSeconds) {
        self.each(app, |measures| measures.runner_seconds.add(seconds));
        self.last_end = self.last_end.max(at);
        self.digest(app, at, 3);
    }

    fn digest(&mut self, app: u32, at: Timestamp, what: u64) {
        let digest = &mut self.digests[app as usize];
        *digest = mix(mix(*digest ^ at.as_micros()) ^ what);
    }

    fn close(self) -> Outcome {
        Outcome {
            end: End::default(),
            span: self.first.map_or(Duration::ZERO, |first| self.last_end - first),
            total: self.total,
            apps: self.apps,
            starts_per_minute_peak: self.starts_by_minute.into_values().max().unwrap_or(0),
            events: self.events,
            digest: self.digests.into_iter().fold(0, |digest, app| mix(digest ^ app)),
            timeline: Vec::new(),
            parts: Vec::new(),
        }
    }
}
