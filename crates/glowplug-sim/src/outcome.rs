//! What a simulation measured.
//!
//! Everything here has a size of its own that does not grow with the number of requests.

use std::time::Duration;

use glowplug_core::decision::StartCause;
use hdrhistogram::Histogram;

/// Significant digits kept of waits over all apps: an error of 0.1 % at most.
const DIGITS_OVER_ALL: u8 = 3;
/// Of each app's: 1 % at most.
const DIGITS_PER_APP: u8 = 2;

#[derive(Clone, Debug)]
pub struct Outcome {
    /// From the first arrival until the last runner had ended.
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
}

/// What happened to one app, or to all.
#[derive(Clone, Debug)]
pub struct Measures {
    pub requests: u64,
    /// Given to a runner and answered.
    pub answered: u64,
    pub refused: u64,
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

/// A distribution of waits. Those of nothing are counted apart.
#[derive(Clone, Debug)]
pub struct Waits {
    none: u64,
    /// Microseconds.
    some: Histogram<u64>,
    sum_secs: f64,
}

impl Measures {
    pub(crate) fn over_all() -> Self {
        Self::new(DIGITS_OVER_ALL)
    }

    pub(crate) fn per_app() -> Self {
        Self::new(DIGITS_PER_APP)
    }

    fn new(digits: u8) -> Self {
        Self {
            requests: 0,
            answered: 0,
            refused: 0,
            retries: 0,
            cold: 0,
            waits: Waits::new(digits),
            starts: [0; StartCause::ALL.len()],
            failed_starts: 0,
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

impl Waits {
    fn new(digits: u8) -> Self {
        let some = Histogram::new(digits).expect("the number of digits is a constant within range");
        Self { none: 0, some, sum_secs: 0.0 }
    }

    pub(crate) fn record(&mut self, wait: Duration) {
        if wait.is_zero() {
            self.none += 1;
            return;
        }
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        self.some.record(micros).expect("it grows to hold any value");
        self.sum_secs += wait.as_secs_f64();
    }

    pub fn count(&self) -> u64 {
        self.none + self.some.len()
    }

    pub fn mean(&self) -> Duration {
        match self.count() {
            0 => Duration::ZERO,
            #[expect(clippy::cast_precision_loss, reason = "a mean of up to 2^53 waits")]
            count => Duration::from_secs_f64(self.sum_secs / count as f64),
        }
    }

    /// The wait that a share of all requests, from 0 to 1, does not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = rank(share, self.count());
        if rank <= self.none {
            return Duration::ZERO;
        }
        let rest = self.some.len();
        let micros = self.some.value_at_quantile(ratio(rank - self.none, rest));
        Duration::from_micros(micros)
    }

    /// Share of requests that waited longer. 0 without requests.
    pub fn share_over(&self, limit: Duration) -> f64 {
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let within = if micros == 0 { 0 } else { self.some.count_between(0, micros) };
        ratio(self.some.len() - within.min(self.some.len()), self.count())
    }
}

/// The how-manieth of `count` a quantile is, from 1.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank among up to 2^53 values"
)]
fn rank(share: f64, count: u64) -> u64 {
    // Shares such as 0.91 have no exact form: without the slack 91 of 100 would become the 92nd.
    const SLACK: f64 = 1e-9;
    ((share.clamp(0.0, 1.0) * count as f64 * (1.0 - SLACK)).ceil() as u64).max(1)
}

#[expect(clippy::cast_precision_loss, reason = "a share of up to 2^53")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_of_nothing_count() {
        let mut waits = Waits::new(3);
        for _ in 0..90 {
            waits.record(Duration::ZERO);
        }
        for secs in 1..=10 {
            waits.record(Duration::from_secs(secs));
        }
        assert_eq!(waits.count(), 100);
        assert_eq!(waits.mean(), Duration::from_secs_f64(0.55));
        assert_eq!(waits.quantile(0.5), Duration::ZERO);
        assert_eq!(waits.quantile(0.9), Duration::ZERO);
        let near = |share: f64, secs: f64| {
            let found = waits.quantile(share).as_secs_f64();
            assert!((found / secs - 1.0).abs() < 0.002, "{share}: {found} is not {secs}");
        };
        near(0.91, 1.0);
        near(0.95, 5.0);
        near(0.99, 9.0);
        near(1.0, 10.0);
        assert!((waits.share_over(Duration::from_secs(5)) - 0.05).abs() < 1e-9);
        assert!((waits.share_over(Duration::ZERO) - 0.10).abs() < 1e-9);
    }
}
