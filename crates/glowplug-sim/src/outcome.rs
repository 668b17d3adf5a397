//! What a simulation measured.
//!
//! Everything here has a size of its own that does not grow with the number of requests.

mod account;
mod parts;
mod tally;
mod timeline;
mod waits;

use std::time::Duration;

use glowplug_core::decision::StartCause;

pub(crate) use account::Account;
pub use parts::{LIMITS, PartSums, Parts};
pub(crate) use tally::{Scope, Tally};
pub use waits::Waits;

/// Bits kept of waits over all apps: an error of 0.1 % at most.
const BITS_OVER_ALL: u32 = 9;
/// Of each app's: 1 % at most.
const BITS_PER_APP: u32 = 6;

/// Why a simulation ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// Nothing was to come any more, but what a floor keeps.
    #[default]
    AllOver,
    /// At [`crate::simulation::World::until`].
    Until,
    /// At the last answer, as [`crate::simulation::World::until_answered`] says.
    Answered,
    /// Requests were open for [`crate::simulation::OVERTIME_MAX`] after the last one came.
    Overtime,
    /// No request was answered or refused in [`crate::simulation::STUCK_EVENTS_MAX`] events after the last one
    /// came.
    Stuck,
}

#[derive(Clone, Debug)]
pub struct Outcome {
    pub end: End,
    /// From the first arrival that counts until the last runner had ended. Runners that a floor keeps for ever are
    /// counted until the last request had ended, or until [`crate::simulation::World::until`].
    pub span: Duration,
    /// Over all apps.
    pub total: Measures,
    /// By index of the app.
    pub apps: Vec<Measures>,
    /// Most starts within any minute of the clock.
    pub starts_per_minute_peak: u32,
    /// Events the engine was given, and wake-ups it asked for.
    pub events: u64,
    /// Over every action in its order: equal digests, equal courses.
    pub digest: u64,
    /// Runner states over time, if asked for.
    pub timeline: Vec<Moment>,
    /// Sums by part of the time, then by index of the app, if asked for: of the warm-up too.
    pub parts: Vec<Vec<PartSums>>,
}

impl Outcome {
    /// What the runners cost at these prices per hour, by index of the app. An app without one is free.
    pub fn cost(&self, prices_per_hour: &[f64]) -> f64 {
        const SECS_PER_HOUR: f64 = 3_600.0;
        let app_cost = |(app, price): (&Measures, &f64)| app.runner_seconds.total() * price;
        self.apps.iter().zip(prices_per_hour).map(app_cost).sum::<f64>() / SECS_PER_HOUR
    }
}

/// What happened to one app, or to all.
#[derive(Clone, Debug)]
pub struct Measures {
    pub requests: u64,
    /// Given to a runner and done with.
    pub answered: u64,
    /// Of them: what the caller got was a status of 500 or a broken connection, or it overran its time.
    pub failed: u64,
    pub refused: u64,
    /// Neither answered nor refused when the simulation ended.
    pub left: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Requests that found no free place when they came.
    pub cold: u64,
    /// From arrival to the first runner.
    pub waits: Waits,
    /// Runners started, by cause, in the order of [`StartCause::ALL`].
    pub starts: [u64; StartCause::ALL.len()],
    /// Starts that never became ready, but for those that were cancelled.
    pub failed_starts: u64,
    /// Work that came: the sum of what all requests take on a runner that each has for itself.
    pub service_secs: f64,
    pub runner_seconds: RunnerSeconds,
}

/// Seconds that runners held their resources, from placement to end. The parts do not overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunnerSeconds {
    /// DOCKER_PULL and SETUP of runners that served.
    pub startup: f64,
    /// With at least one request.
    pub busy: f64,
    /// Without one, of runners that served.
    pub idle: f64,
    /// The whole life of runners that never served.
    pub never_used: f64,
    /// From being told to end until it had, of runners that served.
    pub ending: f64,
    /// Without a processor. It is no part of the total: what it costs is memory.
    pub frozen: f64,
}

/// How many runners were in which state at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Since the beginning.
    pub at: Duration,
    pub starting: u32,
    pub idle: u32,
    pub busy: u32,
    /// Requests that wait.
    pub waiting: u32,
}

impl Measures {
    pub(crate) fn over_all() -> Self {
        Self::new(BITS_OVER_ALL)
    }

    pub(crate) fn per_app() -> Self {
        Self::new(BITS_PER_APP)
    }

    fn new(bits: u32) -> Self {
        Self {
            requests: 0,
            answered: 0,
            failed: 0,
            refused: 0,
            left: 0,
            retries: 0,
            cold: 0,
            waits: Waits::new(bits),
            starts: [0; StartCause::ALL.len()],
            failed_starts: 0,
            service_secs: 0.0,
            runner_seconds: RunnerSeconds::default(),
        }
    }

    pub fn starts_total(&self) -> u64 {
        self.starts.iter().sum()
    }

    /// Share of requests that found no free place. 0 without requests.
    pub fn cold_rate(&self) -> f64 {
        ratio(self.cold, self.requests)
    }
}

impl RunnerSeconds {
    pub fn total(&self) -> f64 {
        self.startup + self.busy + self.idle + self.never_used + self.ending
    }

    /// Seconds paid beside the useful ones, per useful one. `None`: nothing was useful.
    pub fn overhead(&self) -> Option<f64> {
        (self.busy > 0.0).then(|| (self.total() - self.busy) / self.busy)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.startup += other.startup;
        self.busy += other.busy;
        self.idle += other.idle;
        self.never_used += other.never_used;
        self.ending += other.ending;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share of up to 2^53")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use glowplug_core::Timestamp;

    use super::*;

    #[test]
    fn every_app_has_its_price() {
        let app = |startup, busy| Measures {
            runner_seconds: RunnerSeconds { startup, busy, ..RunnerSeconds::default() },
            ..Measures::per_app()
        };
        let apps = vec![app(600.0, 3_000.0), app(0.0, 7_200.0), app(0.0, 3_600.0)];
        let outcome =
            Outcome { apps, ..Tally::new(&Scope::default()).into_outcome(Timestamp::ZERO, 0, 0) };
        assert!((outcome.cost(&[2.0, 0.5]) - 3.0).abs() < 1e-12, "the third app is free");
    }
}
