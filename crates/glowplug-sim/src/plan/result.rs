//! What a plan says. These types are the output of `--json`: names are stable, units are in them.
//!
//! Seconds are fractional. `…_percent` is from 0 to 100, `…_rate` from 0 to 1. Costs are in
//! [`CostUnit`]. Everything is in a fixed order: equal inputs give equal bytes.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::setting::Setting;

/// Rises when a field changes its name or meaning; new fields alone do not raise it.
pub const FORMAT: u32 = 1;

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: u32,
    pub traffic: Summary,
    /// The part of the traffic that settings were chosen on.
    pub chosen_on: Part,
    /// The part that all numbers are of, but for [`Recommendation::chosen_numbers`]. The same as
    /// `chosen_on` when nothing was held out.
    pub reported_on: Part,
    pub cost_unit: CostUnit,
    /// The wait beyond which a request counts as over the budget.
    pub wait_budget_secs: f64,
    /// Every app as it is set now.
    pub today: Run,
    /// Every setting that was tried for all apps alike, in the order of the grid.
    pub runs: Vec<Run>,
    pub frontier: Frontier,
    /// The clairvoyant bound and other policies on the same traffic.
    pub beside: Vec<Beside>,
    pub recommendations: Vec<Recommendation>,
    /// What a reader must know to read the numbers right: samples, guesses, what was left out.
    pub notes: Vec<String>,
}

/// The traffic that was planned for, after `--from`, `--until`, `--apps` and `--sample`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub requests: u64,
    pub apps: usize,
    /// From the beginning of the traffic to its last arrival.
    pub span_secs: f64,
    /// Requests over time.
    pub profile: Profile,
    /// Where each app's times come from, by app.
    pub models: Vec<ModelRow>,
}

/// Requests counted in spans of equal length, from the beginning of the traffic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    pub bucket_secs: f64,
    pub requests: Vec<u64>,
}

/// What an app was simulated with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelRow {
    pub app: String,
    pub requests: u64,
    pub machine_type: String,
    pub setup: Source,
    /// Median of the model of SETUP.
    pub setup_median_secs: f64,
    pub service: Source,
}

/// Where a model of times comes from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The app's own recorded times.
    Own,
    /// A lognormal fitted to the few times the app has.
    OwnFitted,
    /// A lognormal fitted to the times of all apps.
    Pooled,
    /// What the user said.
    Given,
}

/// A span of the traffic, seconds since its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Part {
    pub from_secs: f64,
    pub until_secs: f64,
    pub requests: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "unit", content = "currency")]
pub enum CostUnit {
    /// No machine type has a price: an hour of a runner costs 1.
    RunnerHours,
    /// As prices are stated; empty: no currency was named.
    Money(String),
}

/// One simulation of the traffic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    pub setting: Setting,
    pub numbers: Numbers,
    /// Runner states over time; empty but for today's and the recommended settings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Numbers {
    pub requests: u64,
    pub answered: u64,
    pub refused: u64,
    /// Requests that found no free place when they came.
    pub cold: u64,
    pub cold_percent: f64,
    pub starts: Starts,
    /// Over apps with requests, each counting alike.
    pub app_cold_rate: AppColdRate,
    pub wait: Wait,
    pub runner_seconds: Seconds,
    /// Seconds paid beside the busy ones, per busy one. `null`: nothing was ever busy.
    pub overhead: Option<f64>,
    pub cost: f64,
    /// `null`: the traffic has no length.
    pub cost_per_day: Option<f64>,
    /// By app; empty for the runs of the sweep.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<AppNumbers>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Starts {
    pub total: u64,
    /// Never became ready.
    pub failed: u64,
    /// By label of [`glowplug_core::decision::StartCause`]; causes that did not occur are left out.
    pub by_cause: BTreeMap<&'static str, u64>,
    pub per_minute_peak: u32,
}

/// Quantiles over apps of the share of an app's requests that were cold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct AppColdRate {
    pub p50: f64,
    pub p75: f64,
    pub p90: f64,
}

/// From arrival to the first runner, over all requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Wait {
    pub mean_secs: f64,
    pub p50_secs: f64,
    pub p95_secs: f64,
    pub p99_secs: f64,
    /// Share of requests that waited longer than [`Plan::wait_budget_secs`].
    pub over_budget_percent: f64,
}

/// Seconds that runners held their resources; the parts do not overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Seconds {
    pub busy: f64,
    pub startup: f64,
    pub idle: f64,
    pub never_used: f64,
    pub ending: f64,
    pub total: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AppNumbers {
    pub app: String,
    pub requests: u64,
    pub cold: u64,
    pub cold_percent: f64,
    pub starts: u64,
    pub wait: Wait,
    pub runner_seconds: Seconds,
    pub cost: f64,
}

/// How many runners were in which state at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    pub at_secs: f64,
    pub starting: u32,
    pub idle: u32,
    pub busy: u32,
    /// Requests that wait.
    pub waiting: u32,
}

/// Indices into [`Plan::runs`], cheapest first: no other run is as good on every axis and better on one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Frontier {
    /// The second axis beside cost.
    pub wait: WaitMeasure,
    pub by_cost_and_wait: Vec<usize>,
    /// With [`AppColdRate::p75`] as a third axis: rare apps are not abandoned for the many requests of others.
    pub with_app_p75: Vec<usize>,
}

/// Which number stands for all waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitMeasure {
    #[default]
    Mean,
    P50,
    P95,
    P99,
    OverBudget,
}

/// Something to compare with. What it cannot tell is `null`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Beside {
    pub name: String,
    /// One sentence: what it is, and what it assumes.
    pub about: String,
    pub kind: BesideKind,
    pub starts: u64,
    pub cold_percent: f64,
    pub app_cold_rate: Option<AppColdRate>,
    pub wait_mean_secs: f64,
    /// `null` for a bound: it is one of sums.
    pub wait: Option<Wait>,
    pub cost: f64,
    pub cost_per_day: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BesideKind {
    /// Nothing that must decide without knowing the future does better.
    Bound,
    /// Another system's policy.
    Policy,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recommendation {
    pub intent: Intent,
    /// The optimisation problem that was solved, in a sentence.
    pub because: String,
    /// Whether the stated budget is kept in this very simulation; `null` for intents without one.
    pub met: Option<bool>,
    /// Apps whose settings differ from today's, in order of their names.
    pub settings: Vec<AppChange>,
    /// Of a simulation of all apps with these settings together.
    pub numbers: Numbers,
    /// The same on the part the settings were chosen on; `null` when nothing was held out.
    pub chosen_numbers: Option<Numbers>,
    pub change: Change,
    pub timeline: Vec<Sample>,
    /// What to put into `glowplug.toml`: `[apps."…"]` tables with the keys to set. Empty: nothing to change.
    pub config: String,
    /// The same as a unified diff against today's values.
    pub diff: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    LatencyCritical,
    CostSensitive,
    VariableTraffic,
    /// What the user stated: `--wait-p95`, `--max-cost`.
    Budget,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AppChange {
    pub app: String,
    /// It has too few requests for a choice of its own and shares that of all such apps.
    pub pooled: bool,
    pub keys: Vec<KeyChange>,
}

/// One key of `glowplug.toml`, its values written as there; empty: it is not set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyChange {
    pub key: &'static str,
    pub from: String,
    pub to: String,
}

/// `keep_alive = 300`, or `without wait_price`.
impl fmt::Display for KeyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to.as_str() {
            "" => write!(f, "without {}", self.key),
            to => write!(f, "{} = {to}", self.key),
        }
    }
}

/// Against [`Plan::today`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Negative: cheaper. `null`: today costs nothing.
    pub cost_percent: Option<f64>,
    pub wait_mean_from_secs: f64,
    pub wait_mean_to_secs: f64,
    pub wait_p95_from_secs: f64,
    pub wait_p95_to_secs: f64,
    /// For people: "saves 31 % of cost, mean wait 4.1 s → 2.2 s".
    pub sentence: String,
}
