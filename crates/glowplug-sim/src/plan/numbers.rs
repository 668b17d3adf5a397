//! From what a simulation measured to what a plan says, and to what settings are chosen by.

use std::collections::BTreeMap;
use std::time::Duration;

use glowplug_core::decision::StartCause;

use super::result::{AppColdRate, AppNumbers, Numbers, Sample, Seconds, Starts, Wait, WaitMeasure};
use crate::outcome::{LIMITS, Measures, Moment, Outcome, PartSums, RunnerSeconds, Waits};

const MICROS_PER_SEC: f64 = 1e6;
const SECS_PER_HOUR: f64 = 3_600.0;
const SECS_PER_DAY: f64 = 24.0 * SECS_PER_HOUR;

/// What counts as too long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) wait_budget: Duration,
    /// The time in the user's stated budget, if there is one.
    pub(super) goal: Option<Duration>,
}

/// What an app is simulated as, for what it costs.
#[derive(Clone, Debug)]
pub(super) struct Priced {
    pub(super) name: String,
    pub(super) per_hour: f64,
}

impl Priced {
    pub(super) fn cost(&self, runner_secs: f64) -> f64 {
        runner_secs / SECS_PER_HOUR * self.per_hour
    }
}

/// One app at one setting: sums, so that those of several apps may be added.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cell {
    pub(super) cost: f64,
    pub(super) runner_secs: f64,
    /// Seconds that all requests together waited.
    pub(super) waited_secs: f64,
    /// Requests that waited longer than the budget.
    pub(super) over_budget: f64,
    /// Requests that waited longer than the goal.
    pub(super) over_goal: f64,
}

impl Limits {
    /// In the order in which cells take them from [`PartSums::over`].
    pub(super) fn of_cells(&self) -> [Duration; LIMITS] {
        [self.wait_budget, self.goal.unwrap_or(Duration::MAX)]
    }
}

impl Cell {
    fn of(sums: &PartSums, app: &Priced) -> Self {
        let [over_budget, over_goal] = sums.over.map(whole);
        let runner_secs = whole(sums.runner_micros) / MICROS_PER_SEC;
        Self {
            cost: app.cost(runner_secs),
            runner_secs,
            waited_secs: whole(sums.waited_micros) / MICROS_PER_SEC,
            over_budget,
            over_goal,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.cost += other.cost;
        self.runner_secs += other.runner_secs;
        self.waited_secs += other.waited_secs;
        self.over_budget += other.over_budget;
        self.over_goal += other.over_goal;
    }
}

/// By part, then by app.
pub(super) fn cells(outcome: &Outcome, apps: &[Priced]) -> Vec<Vec<Cell>> {
    let cell = |(sums, app): (&PartSums, &Priced)| Cell::of(sums, app);
    let part = |sums: &Vec<PartSums>| sums.iter().zip(apps).map(cell).collect();
    outcome.parts.iter().map(part).collect()
}

/// By app, over some parts.
pub(super) fn sum_of_parts(parts: &[Vec<Cell>]) -> Vec<Cell> {
    let mut sums = vec![Cell::default(); parts.first().map_or(0, Vec::len)];
    for part in parts {
        for (sum, cell) in sums.iter_mut().zip(part) {
            sum.add(cell);
        }
    }
    sums
}

/// All but the numbers by app.
pub(super) fn totals(
    outcome: &Outcome,
    apps: &[Priced],
    limits: &Limits,
    span: Duration,
) -> Numbers {
    let total = &outcome.total;
    let cost: f64 = outcome.apps.iter().zip(apps).map(|(app, priced)| cost(app, priced)).sum();
    Numbers {
        requests: total.requests,
        answered: total.answered,
        refused: total.refused,
        cold: total.cold,
        cold_percent: total.cold_rate() * 100.0,
        starts: starts(outcome),
        app_cold_rate: app_cold_rate(&outcome.apps),
        wait: wait(&total.waits, limits.wait_budget),
        runner_seconds: seconds(&total.runner_seconds),
        overhead: total.runner_seconds.overhead(),
        cost,
        cost_per_day: per_day(cost, span),
        apps: Vec::new(),
    }
}

pub(super) fn per_day(cost: f64, span: Duration) -> Option<f64> {
    (!span.is_zero()).then(|| cost / span.as_secs_f64() * SECS_PER_DAY)
}

pub(super) fn days(span: Duration) -> f64 {
    span.as_secs_f64() / SECS_PER_DAY
}

pub(super) fn by_app(outcome: &Outcome, apps: &[Priced], limits: &Limits) -> Vec<AppNumbers> {
    let row = |(measures, app): (&Measures, &Priced)| AppNumbers {
        app: app.name.clone(),
        requests: measures.requests,
        cold: measures.cold,
        cold_percent: measures.cold_rate() * 100.0,
        starts: measures.starts_total(),
        wait: wait(&measures.waits, limits.wait_budget),
        runner_seconds: seconds(&measures.runner_seconds),
        cost: cost(measures, app),
    };
    outcome.apps.iter().zip(apps).map(row).collect()
}

fn cost(measures: &Measures, app: &Priced) -> f64 {
    app.cost(measures.runner_seconds.total())
}

fn starts(outcome: &Outcome) -> Starts {
    let total = &outcome.total;
    let by_cause: BTreeMap<&'static str, u64> = StartCause::ALL
        .iter()
        .zip(total.starts)
        .filter(|(_, count)| *count > 0)
        .map(|(cause, count)| (cause.label(), count))
        .collect();
    Starts {
        total: total.starts_total(),
        failed: total.failed_starts,
        by_cause,
        per_minute_peak: outcome.starts_per_minute_peak,
    }
}

fn app_cold_rate(apps: &[Measures]) -> AppColdRate {
    let mut rates: Vec<f64> =
        apps.iter().filter(|app| app.requests > 0).map(Measures::cold_rate).collect();
    rates.sort_by(f64::total_cmp);
    AppColdRate {
        p50: quantile(&rates, 0.50),
        p75: quantile(&rates, 0.75),
        p90: quantile(&rates, 0.90),
    }
}

/// Of sorted values, between the two nearest where it falls between them; 0 of none.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    #[expect(clippy::cast_precision_loss, reason = "a number of apps")]
    let place = share * last as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in the list"
    )]
    let below = place as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

fn wait(waits: &Waits, budget: Duration) -> Wait {
    let quantile = |share| waits.quantile(share).as_secs_f64();
    Wait {
        mean_secs: waits.mean().as_secs_f64(),
        p50_secs: quantile(0.50),
        p95_secs: quantile(0.95),
        p99_secs: quantile(0.99),
        over_budget_percent: waits.share_over(budget) * 100.0,
    }
}

fn seconds(parts: &RunnerSeconds) -> Seconds {
    Seconds {
        busy: parts.busy,
        startup: parts.startup,
        idle: parts.idle,
        never_used: parts.never_used,
        ending: parts.ending,
        total: parts.total(),
    }
}

pub(super) fn timeline(moments: &[Moment]) -> Vec<Sample> {
    let sample = |moment: &Moment| Sample {
        at_secs: moment.at.as_secs_f64(),
        starting: moment.starting,
        idle: moment.idle,
        busy: moment.busy,
        waiting: moment.waiting,
    };
    moments.iter().map(sample).collect()
}

impl Wait {
    /// In seconds, but for [`WaitMeasure::OverBudget`], which is in percent.
    pub fn by(&self, measure: WaitMeasure) -> f64 {
        match measure {
            WaitMeasure::Mean => self.mean_secs,
            WaitMeasure::P50 => self.p50_secs,
            WaitMeasure::P95 => self.p95_secs,
            WaitMeasure::P99 => self.p99_secs,
            WaitMeasure::OverBudget => self.over_budget_percent,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
pub(super) fn whole(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_fall_between_values() {
        for (sorted, share, expected) in [
            (&[][..], 0.5, 0.0),
            (&[0.3], 0.75, 0.3),
            (&[0.0, 1.0], 0.5, 0.5),
            (&[0.0, 1.0, 2.0, 3.0, 4.0], 0.75, 3.0),
            (&[0.0, 1.0, 2.0, 3.0, 4.0], 0.9, 3.6),
        ] {
            assert!((quantile(sorted, share) - expected).abs() < 1e-12, "{sorted:?} {share}");
        }
    }
}
