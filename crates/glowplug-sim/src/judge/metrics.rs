//! What is measured of a policy. A policy that looks good on one number only has been asked too little.

use std::time::Duration;

use serde::Serialize;

use super::policy::{Kind, Policy};
use crate::baseline::clairvoyant::Point;
use crate::outcome::{Measures, Outcome};
use crate::plan::quantile;

/// One app under one policy: sums, so that samples of apps can be drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AppSums {
    pub requests: f64,
    pub cold: f64,
    pub waited_secs: f64,
    pub runner_secs: f64,
    /// Runner-seconds that nobody could do without: the requests packed as close as they go.
    pub needed_secs: f64,
}

/// One policy on one traffic.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub policy: String,
    pub kind: Kind,
    #[serde(flatten)]
    pub metrics: Metrics,
    #[serde(skip)]
    pub apps: Vec<AppSums>,
}

/// Names are what programs read. Several runs are averaged. What a bound cannot tell is `null`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Metrics {
    pub starts: f64,
    pub cold_percent: f64,
    /// Quantiles over apps, and the mean over them, of the share of an app's requests that were cold.
    pub app_cold_p50: f64,
    pub app_cold_p75: f64,
    pub app_cold_p90: f64,
    pub app_cold_mean: f64,
    pub wait_mean_secs: f64,
    pub wait_p50_secs: Option<f64>,
    pub wait_p90_secs: Option<f64>,
    pub wait_p95_secs: Option<f64>,
    pub wait_p99_secs: Option<f64>,
    pub over_slo_percent: Option<f64>,
    pub busy_secs: f64,
    pub startup_secs: f64,
    pub idle_secs: f64,
    pub never_used_secs: f64,
    pub ending_secs: f64,
    /// Runner-seconds beside those that nobody could do without, per one of these. Where a runner has one
    /// request at a time, they are the busy ones; where it has more, whoever spreads requests over many
    /// runners keeps more of them busy with the same work, and that is no merit.
    pub overhead: f64,
    pub starts_per_minute_peak: Option<f64>,
    /// Runner-seconds after the last request came. They are in no other number, for nobody knows what would
    /// have come next; but this is what it costs when an app is left for good.
    pub after_secs: Option<f64>,
}

impl Metrics {
    pub(super) fn of(outcome: &Outcome, apps: &[AppSums], slo: Duration) -> Self {
        let total = &outcome.total;
        let (waits, secs) = (&total.waits, &total.runner_seconds);
        let wait = |share| Some(waits.quantile(share).as_secs_f64());
        let spread = Spread::of(apps);
        Self {
            starts: count(total.starts_total()),
            cold_percent: total.cold_rate() * 100.0,
            app_cold_p50: spread.p50,
            app_cold_p75: spread.p75,
            app_cold_p90: spread.p90,
            app_cold_mean: spread.mean,
            wait_mean_secs: waits.mean().as_secs_f64(),
            wait_p50_secs: wait(0.50),
            wait_p90_secs: wait(0.90),
            wait_p95_secs: wait(0.95),
            wait_p99_secs: wait(0.99),
            over_slo_percent: Some(waits.share_over(slo) * 100.0),
            busy_secs: secs.busy,
            startup_secs: secs.startup,
            idle_secs: secs.idle,
            never_used_secs: secs.never_used,
            ending_secs: secs.ending,
            overhead: sum(apps).overhead(),
            starts_per_minute_peak: Some(f64::from(outcome.starts_per_minute_peak)),
            after_secs: None,
        }
    }

    pub(super) fn of_bound(apps: &[Point], sums: &[AppSums]) -> Self {
        let spread = Spread::of(sums);
        let all = sum(sums);
        let over = |of: fn(&Point) -> f64| apps.iter().map(of).sum::<f64>();
        Self {
            starts: over(|point| count(point.starts)),
            cold_percent: share(all.cold, all.requests) * 100.0,
            app_cold_p50: spread.p50,
            app_cold_p75: spread.p75,
            app_cold_p90: spread.p90,
            app_cold_mean: spread.mean,
            wait_mean_secs: all.wait_mean_secs(),
            busy_secs: all.needed_secs,
            startup_secs: over(|point| point.startup_secs),
            idle_secs: over(|point| point.idle_secs),
            overhead: all.overhead(),
            ..Self::default()
        }
    }

    fn each(&mut self, other: &Self, with: impl Fn(f64, f64) -> f64) {
        let pairs = [
            (&mut self.starts, other.starts),
            (&mut self.cold_percent, other.cold_percent),
            (&mut self.app_cold_p50, other.app_cold_p50),
            (&mut self.app_cold_p75, other.app_cold_p75),
            (&mut self.app_cold_p90, other.app_cold_p90),
            (&mut self.app_cold_mean, other.app_cold_mean),
            (&mut self.wait_mean_secs, other.wait_mean_secs),
            (&mut self.busy_secs, other.busy_secs),
            (&mut self.startup_secs, other.startup_secs),
            (&mut self.idle_secs, other.idle_secs),
            (&mut self.never_used_secs, other.never_used_secs),
            (&mut self.ending_secs, other.ending_secs),
            (&mut self.overhead, other.overhead),
        ];
        for (mine, theirs) in pairs {
            *mine = with(*mine, theirs);
        }
        let pairs = [
            (&mut self.wait_p50_secs, other.wait_p50_secs),
            (&mut self.wait_p90_secs, other.wait_p90_secs),
            (&mut self.wait_p95_secs, other.wait_p95_secs),
            (&mut self.wait_p99_secs, other.wait_p99_secs),
            (&mut self.over_slo_percent, other.over_slo_percent),
            (&mut self.starts_per_minute_peak, other.starts_per_minute_peak),
            (&mut self.after_secs, other.after_secs),
        ];
        for (mine, theirs) in pairs {
            *mine = mine.zip(theirs).map(|(mine, theirs)| with(mine, theirs));
        }
    }
}

impl Row {
    /// Of one policy over several traffics or draws: metrics are averaged, apps added up.
    pub(super) fn mean(policy: &Policy, runs: Vec<(Metrics, Vec<AppSums>)>) -> Self {
        let mut runs = runs.into_iter();
        let (mut metrics, mut apps) = runs.next().unwrap_or_default();
        let mut seen = 1.0;
        for (more, sums) in runs {
            seen += 1.0;
            metrics.each(&more, |mean, more| mean + (more - mean) / seen);
            for (app, more) in apps.iter_mut().zip(&sums) {
                app.add(more, 1.0);
            }
        }
        Self { policy: policy.to_string(), kind: policy.kind(), metrics, apps }
    }
}

impl AppSums {
    pub(super) fn of(measures: &Measures, needed_secs: f64) -> Self {
        Self {
            requests: count(measures.requests),
            cold: count(measures.cold),
            waited_secs: measures.waits.mean().as_secs_f64() * count(measures.waits.count()),
            runner_secs: measures.runner_seconds.total(),
            needed_secs,
        }
    }

    /// `waits`: starts are made on demand, and requests wait for them.
    pub(super) fn of_bound(point: &Point, waits: bool) -> Self {
        let waits = f64::from(u8::from(waits));
        Self {
            requests: count(point.requests),
            cold: count(point.starts) * waits,
            waited_secs: point.startup_secs * waits,
            runner_secs: point.busy_secs + point.idle_secs + point.startup_secs,
            needed_secs: point.busy_secs,
        }
    }

    /// These, so many times.
    pub(super) fn add(&mut self, other: &Self, times: f64) {
        self.requests += other.requests * times;
        self.cold += other.cold * times;
        self.waited_secs += other.waited_secs * times;
        self.runner_secs += other.runner_secs * times;
        self.needed_secs += other.needed_secs * times;
    }

    pub(super) fn overhead(&self) -> f64 {
        share(self.runner_secs - self.needed_secs, self.needed_secs)
    }

    pub(super) fn wait_mean_secs(&self) -> f64 {
        share(self.waited_secs, self.requests)
    }

    pub(super) fn cold_rate(&self) -> f64 {
        share(self.cold, self.requests)
    }
}

/// Of the cold rates of apps, each counting alike.
struct Spread {
    p50: f64,
    p75: f64,
    p90: f64,
    mean: f64,
}

impl Spread {
    fn of(apps: &[AppSums]) -> Self {
        let seen = apps.iter().filter(|app| app.requests > 0.0);
        let mut rates: Vec<f64> = seen.map(AppSums::cold_rate).collect();
        rates.sort_by(f64::total_cmp);
        let mean = share(rates.iter().sum(), count(rates.len() as u64));
        let at = |share| quantile(&rates, share);
        Self { p50: at(0.50), p75: at(0.75), p90: at(0.90), mean }
    }
}

pub(super) fn sum(apps: &[AppSums]) -> AppSums {
    let mut sum = AppSums::default();
    for app in apps {
        sum.add(app, 1.0);
    }
    sum
}

pub(super) fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
pub(super) fn count(number: u64) -> f64 {
    number as f64
}
