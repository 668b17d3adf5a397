//! What came out of a simulation, for programs and for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use glowplug_core::decision::StartCause;
use glowplug_core::time::Pretty;
use glowplug_sim::outcome::{End, Measures, Moment, Outcome, RunnerSeconds};
use glowplug_sim::scenario::Scenario;
use glowplug_sim::simulation::{OVERTIME_MAX, STUCK_EVENTS_MAX};
use serde::Serialize;

use super::states;
use crate::chart::Style;
use crate::output::{Output, seconds};

/// Apps that are listed one by one for people: those with the most requests.
const APPS_SHOWN_MAX: usize = 20;

/// Ends, as programs read them.
const STUCK: &str = "stuck";
const OVERTIME: &str = "overtime";

fn ended(end: End) -> &'static str {
    match end {
        End::AllOver => "all_over",
        End::Until => "until",
        End::Answered => "answered",
        End::Overtime => OVERTIME,
        End::Stuck => STUCK,
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    scenario: String,
    pub(super) seed: u64,
    length_secs: f64,
    span_secs: f64,
    /// Why the simulation ended.
    ended: &'static str,
    #[serde(flatten)]
    total: Numbers,
    starts_per_minute_peak: u32,
    apps: BTreeMap<String, Numbers>,
    events: u64,
    /// Equal digests, equal courses.
    digest: String,
    took_secs: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timeline: Vec<State>,
    /// Expectations that did not come true.
    pub(super) unmet: Vec<Unmet>,
}

#[derive(Debug, Serialize)]
struct Numbers {
    requests: u64,
    answered: u64,
    failed: u64,
    refused: u64,
    left: u64,
    retries: u64,
    cold: u64,
    cold_rate: f64,
    wait_secs: Waits,
    starts: u64,
    starts_by_cause: BTreeMap<&'static str, u64>,
    failed_starts: u64,
    runner_seconds: Parts,
}

/// `null`, if no request got a runner: then nobody knows how long one waits.
#[derive(Debug, Serialize)]
struct Waits {
    mean: Option<f64>,
    p50: Option<f64>,
    p90: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Parts {
    total: f64,
    startup: f64,
    busy: f64,
    idle: f64,
    never_used: f64,
    ending: f64,
}

#[derive(Debug, Serialize)]
struct State {
    at_secs: f64,
    starting: u32,
    idle: u32,
    busy: u32,
    waiting: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct Unmet {
    pub(super) quantity: &'static str,
    pub(super) app: Option<String>,
    pub(super) line: usize,
    pub(super) found: String,
    pub(super) expected: String,
}

impl Report {
    pub(super) fn new(
        name: &str,
        seed: u64,
        scenario: &Scenario,
        outcome: &Outcome,
        took: Duration,
    ) -> Self {
        let app_name = |app: u32| scenario.apps.get(app as usize).map(|app| app.spec.name.clone());
        let apps = (0..).zip(&outcome.apps);
        Self {
            scenario: name.to_owned(),
            seed,
            length_secs: scenario.length.as_secs_f64(),
            span_secs: outcome.span.as_secs_f64(),
            ended: ended(outcome.end),
            total: Numbers::of(&outcome.total),
            starts_per_minute_peak: outcome.starts_per_minute_peak,
            apps: apps.filter_map(|(nth, app)| Some((app_name(nth)?, Numbers::of(app)))).collect(),
            events: outcome.events,
            digest: format!("{:016x}", outcome.digest),
            took_secs: took.as_secs_f64(),
            timeline: outcome.timeline.iter().map(State::of).collect(),
            unmet: scenario
                .unmet(outcome)
                .into_iter()
                .map(|unmet| Unmet {
                    quantity: unmet.quantity,
                    app: unmet.app.and_then(app_name),
                    line: unmet.line,
                    found: unmet.found,
                    expected: unmet.expected,
                })
                .collect(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a speed that people read")]
    pub(super) fn text(&self, output: Output, style: Style) -> String {
        let mut text = format!(
            "{}, seed {}: {} of traffic for {} app(s), {} events in {} ({:.2} million a second)\n\n",
            self.scenario,
            self.seed,
            seconds(self.length_secs),
            self.apps.len(),
            self.events,
            seconds(self.took_secs),
            self.events as f64 / self.took_secs.max(1e-6) / 1e6,
        );
        text += &self.app_table(output);
        text += "\n\n";
        text += &self.starts();
        if let Some(cut_off) = self.cut_off() {
            text += "\n\n";
            text += &cut_off;
        }
        text += "\n\n";
        text += &parts_table(&self.total.runner_seconds, output);
        if !self.timeline.is_empty() {
            text += "\n\n";
            text += &self.states(style);
        }
        text
    }

    fn app_table(&self, output: Output) -> String {
        let mut apps: Vec<_> = self.apps.iter().collect();
        apps.sort_by_key(|(_, numbers)| std::cmp::Reverse(numbers.requests));
        let left_out = apps.len().saturating_sub(APPS_SHOWN_MAX);
        let mut rows: Vec<Vec<String>> = apps
            .iter()
            .take(APPS_SHOWN_MAX)
            .map(|(name, numbers)| numbers.row((*name).clone()))
            .collect();
        if apps.len() > 1 {
            rows.push(self.total.row("all".to_owned()));
        }
        let header = [
            "APP",
            "REQUESTS",
            "REFUSED",
            "FAILED",
            "UNANSWERED",
            "COLD",
            "WAIT MEAN",
            "P50",
            "P95",
            "P99",
            "STARTS",
            "RUNNER H",
            "BUSY",
        ];
        let mut table = output.table(&header, rows, "the scenario has no apps");
        if left_out > 0 {
            let _ = write!(table, "\n({left_out} apps with fewer requests are not listed)");
        }
        table
    }

    fn starts(&self) -> String {
        let causes = self.total.starts_by_cause.iter().filter(|(_, count)| **count > 0);
        let causes: Vec<String> =
            causes.map(|(cause, count)| format!("{} {count}", cause.replace('_', " "))).collect();
        format!(
            "{} start(s): {}; {} failed; at most {} within a minute; {} retries",
            self.total.starts,
            if causes.is_empty() { "none".to_owned() } else { causes.join(", ") },
            self.total.failed_starts,
            self.starts_per_minute_peak,
            self.total.retries,
        )
    }

    /// That it ended before every request was answered, if it did so by itself.
    fn cut_off(&self) -> Option<String> {
        let left = self.total.left;
        match self.ended {
            STUCK => Some(format!(
                "ended: in the last {STUCK_EVENTS_MAX} events no request was answered or refused, and none came; \
                 {left} are left unanswered. Look at the failed starts, or say `until` to see more"
            )),
            OVERTIME => Some(format!(
                "ended: {} after the last request came, {left} are left unanswered. Look at the failed starts, \
                 or say `until` to see more",
                Pretty(OVERTIME_MAX)
            )),
            _ => None,
        }
    }

    fn states(&self, style: Style) -> String {
        let row = |name, of: fn(&State) -> u32| (name, self.timeline.iter().map(of).collect());
        let rows: [(&str, Vec<u32>); 4] = [
            row("starting", |state| state.starting),
            row("idle", |state| state.idle),
            row("busy", |state| state.busy),
            row("waiting", |state| state.waiting),
        ];
        states::draw(&rows, self.span_secs, style)
    }
}

impl Numbers {
    fn of(measures: &Measures) -> Self {
        let waits = &measures.waits;
        let known = |wait: Duration| (waits.count() > 0).then_some(wait.as_secs_f64());
        let quantile = |share| known(waits.quantile(share));
        Self {
            requests: measures.requests,
            answered: measures.answered,
            failed: measures.failed,
            refused: measures.refused,
            left: measures.left,
            retries: measures.retries,
            cold: measures.cold,
            cold_rate: measures.cold_rate(),
            wait_secs: Waits {
                mean: known(waits.mean()),
                p50: quantile(0.5),
                p90: quantile(0.9),
                p95: quantile(0.95),
                p99: quantile(0.99),
                max: quantile(1.0),
            },
            starts: measures.starts_total(),
            starts_by_cause: StartCause::ALL
                .into_iter()
                .map(StartCause::label)
                .zip(measures.starts)
                .filter(|(_, count)| *count > 0)
                .collect(),
            failed_starts: measures.failed_starts,
            runner_seconds: Parts::of(&measures.runner_seconds),
        }
    }

    fn row(&self, name: String) -> Vec<String> {
        let waits = &self.wait_secs;
        vec![
            name,
            self.requests.to_string(),
            self.refused.to_string(),
            self.failed.to_string(),
            self.left.to_string(),
            if self.requests > 0 { format!("{:.1} %", self.cold_rate * 100.0) } else { unknown() },
            wait(waits.mean),
            wait(waits.p50),
            wait(waits.p95),
            wait(waits.p99),
            self.starts.to_string(),
            format!("{:.2}", self.runner_seconds.total / 3_600.0),
            percent(self.runner_seconds.busy, self.runner_seconds.total),
        ]
    }
}

impl Parts {
    fn of(seconds: &RunnerSeconds) -> Self {
        Self {
            total: seconds.total(),
            startup: seconds.startup,
            busy: seconds.busy,
            idle: seconds.idle,
            never_used: seconds.never_used,
            ending: seconds.ending,
        }
    }
}

impl State {
    fn of(moment: &Moment) -> Self {
        Self {
            at_secs: moment.at.as_secs_f64(),
            starting: moment.starting,
            idle: moment.idle,
            busy: moment.busy,
            waiting: moment.waiting,
        }
    }
}

fn unknown() -> String {
    "–".to_owned()
}

fn wait(secs: Option<f64>) -> String {
    secs.map_or_else(unknown, seconds)
}

fn percent(part: f64, whole: f64) -> String {
    if whole > 0.0 { format!("{:.1} %", part / whole * 100.0) } else { "0 %".to_owned() }
}

/// What runners spent their time on.
fn parts_table(parts: &Parts, output: Output) -> String {
    let rows = [
        ("busy", parts.busy),
        ("startup", parts.startup),
        ("idle", parts.idle),
        ("never used", parts.never_used),
        ("ending", parts.ending),
        ("all", parts.total),
    ];
    let row = |(name, secs): (&str, f64)| {
        vec![name.to_owned(), format!("{secs:.0}"), percent(secs, parts.total)]
    };
    output.table(&["RUNNERS WERE", "SECONDS", "SHARE"], rows.map(row).into(), "")
}

/// One line per seed.
pub(super) fn by_seed(reports: &[Report], output: Output) -> String {
    let row = |report: &Report| {
        let mut row = report.total.row(report.seed.to_string());
        row.push(match report.unmet.len() {
            0 => "ok".to_owned(),
            count => format!("{count} not as expected"),
        });
        row
    };
    let header = [
        "SEED",
        "REQUESTS",
        "REFUSED",
        "FAILED",
        "UNANSWERED",
        "COLD",
        "WAIT MEAN",
        "P50",
        "P95",
        "P99",
        "STARTS",
        "RUNNER H",
        "BUSY",
        "EXPECTED",
    ];
    output.table(&header, reports.iter().map(row).collect(), "no seeds")
}
