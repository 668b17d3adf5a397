//! A plan as a terminal shows it.

use std::fmt::Write as _;

use glowplug_sim::plan::result::{CostUnit, Intent, Numbers, Plan, Recommendation};

use crate::output::{Output, plain, seconds};

/// Rows of the frontier that are printed; the page has all.
const FRONTIER_ROWS_MAX: usize = 12;
/// Changed apps that are named for each recommendation.
const APPS_NAMED_MAX: usize = 5;

const HEADER: &[&str] = &[
    "SETTING",
    "COST/DAY",
    "MEAN WAIT",
    "P95",
    "P99",
    "OVER",
    "COLD",
    "APP P75",
    "STARTS",
    "PEAK/MIN",
    "BUSY H",
    "STARTUP H",
    "IDLE H",
    "UNUSED H",
];

pub(super) fn of(plan: &Plan, output: Output) -> String {
    let mut text = summary(plan);
    let mut rows = vec![row("today", &plan.today.numbers)];
    rows.extend(
        plan.recommendations.iter().map(|choice| row(intent(choice.intent), &choice.numbers)),
    );
    let _ = writeln!(text, "\n{}", output.table(HEADER, rows, ""));
    for choice in &plan.recommendations {
        text += &recommendation(choice);
    }
    let _ = writeln!(text, "\nThe frontier: nothing that was tried is both cheaper and quicker.");
    let frontier = thinned(&plan.frontier.by_cost_and_wait);
    let runs = frontier.iter().filter_map(|at| plan.runs.get(*at));
    let mut rows: Vec<_> = runs.map(|run| row(&run.setting.to_string(), &run.numbers)).collect();
    rows.extend(plan.beside.iter().map(beside));
    let _ = writeln!(text, "{}", output.table(HEADER, rows, "no setting was tried"));
    for note in &plan.notes {
        let _ = writeln!(text, "\nNote: {}", plain(note));
    }
    text
}

fn summary(plan: &Plan) -> String {
    let traffic = &plan.traffic;
    let mut text = format!(
        "{} requests to {} app(s) over {}; costs in {}\n",
        traffic.requests,
        traffic.apps,
        seconds(traffic.span_secs),
        match &plan.cost_unit {
            CostUnit::RunnerHours => "runner hours (no machine type has a price)",
            CostUnit::Money(currency) if currency.is_empty() => "the currency of your prices",
            CostUnit::Money(currency) => currency,
        }
    );
    if plan.chosen_on != plan.reported_on {
        let (chosen, told) = (&plan.chosen_on, &plan.reported_on);
        let _ = writeln!(
            text,
            "settings are chosen on the first {}, all numbers are of the {} after it",
            seconds(chosen.until_secs - chosen.from_secs),
            seconds(told.until_secs - told.from_secs),
        );
    }
    text
}

fn recommendation(choice: &Recommendation) -> String {
    let mut text = format!("\n{}: {}\n", intent(choice.intent), choice.change.sentence);
    if choice.met == Some(false) {
        text += "  no setting that was tried keeps this budget; this is the nearest\n";
    }
    let _ = writeln!(text, "  {}", choice.because);
    for app in choice.settings.iter().take(APPS_NAMED_MAX) {
        let keys = app.keys.iter().map(ToString::to_string);
        let _ = writeln!(text, "  {}  {}", plain(&app.app), keys.collect::<Vec<_>>().join(", "));
    }
    match choice.settings.len() {
        0 => text += "  nothing to change\n",
        more if more > APPS_NAMED_MAX => {
            let _ = writeln!(
                text,
                "  and {} more; `--diff {}` prints all",
                more - APPS_NAMED_MAX,
                intent(choice.intent)
            );
        }
        _ => {}
    }
    text
}

/// Evenly over the whole, first and last included.
fn thinned(all: &[usize]) -> Vec<usize> {
    if all.len() <= FRONTIER_ROWS_MAX {
        return all.to_vec();
    }
    let last = all.len() - 1;
    (0..FRONTIER_ROWS_MAX).map(|nth| all[nth * last / (FRONTIER_ROWS_MAX - 1)]).collect()
}

/// As it is called on the command line.
fn intent(intent: Intent) -> &'static str {
    match intent {
        Intent::LatencyCritical => "latency-critical",
        Intent::CostSensitive => "cost-sensitive",
        Intent::VariableTraffic => "variable-traffic",
        Intent::Budget => "budget",
    }
}

fn row(name: &str, numbers: &Numbers) -> Vec<String> {
    let (wait, held) = (&numbers.wait, &numbers.runner_seconds);
    let hours = |secs: f64| format!("{:.1}", secs / 3_600.0);
    vec![
        name.to_owned(),
        cost(numbers.cost_per_day),
        seconds(wait.mean_secs),
        seconds(wait.p95_secs),
        seconds(wait.p99_secs),
        format!("{:.1} %", wait.over_budget_percent),
        format!("{:.1} %", numbers.cold_percent),
        format!("{:.1} %", numbers.app_cold_rate.p75 * 100.0),
        numbers.starts.total.to_string(),
        numbers.starts.per_minute_peak.to_string(),
        hours(held.busy),
        hours(held.startup),
        hours(held.idle),
        hours(held.never_used),
    ]
}

fn beside(beside: &glowplug_sim::plan::result::Beside) -> Vec<String> {
    let unknown = || "–".to_owned();
    let wait = |of: fn(&glowplug_sim::plan::result::Wait) -> f64| {
        beside.wait.as_ref().map_or_else(unknown, |wait| seconds(of(wait)))
    };
    let mut row = vec![
        beside.name.clone(),
        cost(beside.cost_per_day),
        seconds(beside.wait_mean_secs),
        wait(|wait| wait.p95_secs),
        wait(|wait| wait.p99_secs),
        beside
            .wait
            .as_ref()
            .map_or_else(unknown, |wait| format!("{:.1} %", wait.over_budget_percent)),
        format!("{:.1} %", beside.cold_percent),
        beside.app_cold_rate.map_or_else(unknown, |rate| format!("{:.1} %", rate.p75 * 100.0)),
        beside.starts.to_string(),
    ];
    row.resize_with(HEADER.len(), unknown);
    row
}

fn cost(cost: Option<f64>) -> String {
    cost.map_or_else(|| "–".to_owned(), |cost| format!("{cost:.2}"))
}
