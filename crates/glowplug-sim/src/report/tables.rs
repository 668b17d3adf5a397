//! The report's tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::svg::escaped;
use super::{APP_ROWS_MAX, words};
use crate::plan::result::{AppNumbers, Numbers, Plan};

/// Today, what is recommended, the frontier, and what stands beside.
pub(super) fn settings(plan: &Plan) -> String {
    let mut rows = row(plan, "today", &plan.today.numbers, true);
    for choice in &plan.recommendations {
        rows += &row(plan, words::intent(choice.intent), &choice.numbers, true);
    }
    for run in plan.frontier.by_cost_and_wait.iter().filter_map(|at| plan.runs.get(*at)) {
        rows += &row(plan, &run.setting.to_string(), &run.numbers, false);
    }
    for beside in &plan.beside {
        let wait = |of: fn(&crate::plan::result::Wait) -> f64| {
            beside.wait.as_ref().map_or_else(|| "–".to_owned(), |wait| words::secs(of(wait)))
        };
        let p75 = beside.app_cold_rate.map_or_else(dash, |rate| words::percent(rate.p75 * 100.0));
        let over =
            beside.wait.as_ref().map_or_else(dash, |w| words::percent(w.over_budget_percent));
        let _ = writeln!(
            rows,
            "<tr title='{}'><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{over}</td><td>{}</td><td>{p75}</td><td>{}</td><td>–</td></tr>",
            escaped(&beside.about),
            escaped(&beside.name),
            words::cost(beside.cost_per_day),
            words::secs(beside.wait_mean_secs),
            wait(|wait| wait.p50_secs),
            wait(|wait| wait.p95_secs),
            wait(|wait| wait.p99_secs),
            words::percent(beside.cold_percent),
            words::count(beside.starts),
        );
    }
    format!(
        "<div class=scroll><table><thead><tr><th>setting</th><th>cost<br>{}</th><th>mean wait</th>\
         <th>50 %</th><th>95 %</th><th>99 %</th><th>over {}</th><th>cold</th><th>cold, app at 75 %</th>\
         <th>starts</th><th>busy / startup / idle / unused h</th></tr></thead><tbody>\n{rows}</tbody></table></div>",
        escaped(&words::cost_unit(plan)),
        words::secs(plan.wait_budget_secs),
    )
}

fn dash() -> String {
    "–".to_owned()
}

fn row(plan: &Plan, name: &str, numbers: &Numbers, strong: bool) -> String {
    let (wait, seconds) = (&numbers.wait, &numbers.runner_seconds);
    let hours = |secs: f64| words::number(secs / 3_600.0);
    format!(
        "<tr{} title='{}'><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
         <td>{}</td><td>{}</td><td>{}</td><td>{} / {} / {} / {}</td></tr>\n",
        if strong { " class=strong" } else { "" },
        escaped(&causes(plan, numbers)),
        escaped(name),
        words::cost(numbers.cost_per_day),
        words::secs(wait.mean_secs),
        words::secs(wait.p50_secs),
        words::secs(wait.p95_secs),
        words::secs(wait.p99_secs),
        words::percent(wait.over_budget_percent),
        words::percent(numbers.cold_percent),
        words::percent(numbers.app_cold_rate.p75 * 100.0),
        words::count(numbers.starts.total),
        hours(seconds.busy),
        hours(seconds.startup),
        hours(seconds.idle),
        hours(seconds.never_used),
    )
}

fn causes(plan: &Plan, numbers: &Numbers) -> String {
    let mut text = words::about(plan, "starts by cause", numbers);
    for (cause, count) in &numbers.starts.by_cause {
        let _ = write!(text, "\n{cause}: {}", words::count(*count));
    }
    let _ = write!(text, "\nat most {} a minute", numbers.starts.per_minute_peak);
    text
}

/// One row an app: today, and with each recommendation. Heads sort.
pub(super) fn apps(plan: &Plan) -> String {
    let mut today: Vec<&AppNumbers> = plan.today.numbers.apps.iter().collect();
    today.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.app.cmp(&b.app)));
    let left_out = today.len().saturating_sub(APP_ROWS_MAX);
    let choices: Vec<BTreeMap<&str, &AppNumbers>> = plan
        .recommendations
        .iter()
        .map(|choice| choice.numbers.apps.iter().map(|app| (app.app.as_str(), app)).collect())
        .collect();
    let mut head = String::from("<th data-sort>app</th><th data-sort>requests</th>");
    let names = std::iter::once("today")
        .chain(plan.recommendations.iter().map(|choice| words::intent(choice.intent)));
    for name in names {
        for column in ["cold", "mean wait", "cost"] {
            let _ = write!(head, "<th data-sort>{name}<br>{column}</th>");
        }
    }
    let mut rows = String::new();
    for app in today.into_iter().take(APP_ROWS_MAX) {
        let _ = write!(
            rows,
            "<tr><td>{}</td><td data-value='{}'>{}</td>{}",
            escaped(&app.app),
            app.requests,
            words::count(app.requests),
            cells(plan, Some(app))
        );
        for choice in &choices {
            rows += &cells(plan, choice.get(app.app.as_str()).copied());
        }
        rows.push_str("</tr>\n");
    }
    let rest = match left_out {
        0 => String::new(),
        some => format!("<p class=soft>{some} apps with fewer requests are not listed.</p>"),
    };
    format!(
        "<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>{rest}"
    )
}

fn cells(plan: &Plan, app: Option<&AppNumbers>) -> String {
    let Some(app) = app else { return "<td>–</td><td>–</td><td>–</td>".to_owned() };
    let days = (plan.reported_on.until_secs - plan.reported_on.from_secs) / 86_400.0;
    let cost = if days > 0.0 { app.cost / days } else { app.cost };
    format!(
        "<td data-value='{}'>{}</td><td data-value='{}'>{}</td><td data-value='{cost}'>{}</td>",
        app.cold_percent,
        words::percent(app.cold_percent),
        app.wait.mean_secs,
        words::secs(app.wait.mean_secs),
        words::number(cost),
    )
}
