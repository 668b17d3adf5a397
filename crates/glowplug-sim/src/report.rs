//! A plan as one HTML page that needs nothing else: figures, tables and the config to apply.
//!
//! Style, script and drawings are in the page itself; it loads nothing, so it can be read offline, mailed
//! and kept. All names in it come from traces and are escaped.
//!
//! Limits: [`APP_ROWS_MAX`].

mod figures;
mod svg;
mod tables;
mod words;

use std::fmt::Write as _;

use crate::plan::result::{Change, Numbers, Plan, Recommendation};
pub use svg::escaped;

/// Apps that the page's table lists: those with the most requests.
pub const APP_ROWS_MAX: usize = 2_000;

/// The looks of all pages that Glowplug writes.
pub const STYLE: &str = include_str!("report/style.css");
/// Sorts tables.
pub const SCRIPT: &str = include_str!("report/page.js");

/// The whole page.
pub fn html(plan: &Plan) -> String {
    let mut page = String::new();
    page.push_str("<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n");
    page.push_str("<meta name=viewport content='width=device-width, initial-scale=1'>\n");
    page.push_str("<title>Glowplug plan</title>\n");
    // Writing to a string does not fail, here and below.
    let _ = writeln!(page, "<style>\n{STYLE}</style>");
    head(&mut page, plan);
    choices(&mut page, plan);
    frontier(&mut page, plan);
    traffic(&mut page, plan);
    states(&mut page, plan);
    let _ = writeln!(page, "<h2>Apps</h2>\n{}", tables::apps(plan));
    configs(&mut page, plan);
    notes(&mut page, plan);
    let _ = writeln!(page, "<script>\n{SCRIPT}</script>\n</html>");
    page
}

fn head(page: &mut String, plan: &Plan) {
    let traffic = &plan.traffic;
    let _ = writeln!(
        page,
        "<h1>What each setting would cost</h1>\n<p class=soft>{} requests to {} app{} over {}, through \
         the engine that runs them in production.</p>",
        words::count(traffic.requests),
        words::count(traffic.apps as u64),
        if traffic.apps == 1 { "" } else { "s" },
        words::secs(traffic.span_secs),
    );
    if plan.chosen_on != plan.reported_on {
        let _ = writeln!(
            page,
            "<p>Settings were chosen on the first {}; every number here is of the {} after it, which they \
             had not seen.</p>",
            words::secs(plan.chosen_on.until_secs - plan.chosen_on.from_secs),
            words::secs(plan.reported_on.until_secs - plan.reported_on.from_secs),
        );
    }
}

fn choices(page: &mut String, plan: &Plan) {
    page.push_str("<h2>Recommended</h2>\n<div class=cards>\n");
    let today = &plan.today.numbers;
    let _ = writeln!(
        page,
        "<section class=card><h3>today</h3><p class=sentence>as it is set now</p>{}</section>",
        facts(plan, today)
    );
    for choice in &plan.recommendations {
        let missed = match choice.met {
            Some(false) => "<p class=missed>No setting that was tried keeps this budget.</p>",
            _ => "",
        };
        let _ = writeln!(
            page,
            "<section class=card><h3>{}</h3><p class=sentence>{}</p>{missed}{}<p class=soft>{}</p></section>",
            words::intent(choice.intent),
            escaped(&sentence(choice)),
            facts(plan, &choice.numbers),
            escaped(&choice.because),
        );
    }
    page.push_str("</div>\n");
}

fn sentence(choice: &Recommendation) -> String {
    let Change { sentence, .. } = &choice.change;
    match choice.settings.len() {
        0 => "keep everything as it is".to_owned(),
        1 => format!("1 app changes: {sentence}"),
        apps => format!("{apps} apps change: {sentence}"),
    }
}

fn facts(plan: &Plan, numbers: &Numbers) -> String {
    let rows = [
        (format!("cost {}", words::cost_unit(plan)), words::cost(numbers.cost_per_day)),
        ("mean wait".to_owned(), words::secs(numbers.wait.mean_secs)),
        ("95 % wait at most".to_owned(), words::secs(numbers.wait.p95_secs)),
        (
            format!("over {}", words::secs(plan.wait_budget_secs)),
            words::percent(numbers.wait.over_budget_percent),
        ),
        ("cold".to_owned(), words::percent(numbers.cold_percent)),
        ("starts".to_owned(), words::count(numbers.starts.total)),
    ];
    let rows = rows.map(|(name, value)| format!("<dt>{}</dt><dd>{value}</dd>", escaped(&name)));
    format!("<dl>{}</dl>", rows.concat())
}

fn key(entries: &[(&str, &str)]) -> String {
    let entries =
        entries.iter().map(|(class, name)| format!("<li><i class='{class}'></i>{name}</li>"));
    format!("<ul class=key>{}</ul>", entries.collect::<String>())
}

fn frontier(page: &mut String, plan: &Plan) {
    let key = key(&[
        ("frontier", "nothing that was tried is both cheaper and quicker"),
        ("", "tried"),
        ("today", "today"),
        ("choice", "recommended"),
        ("policy", "another system's policy"),
        ("bound", "knowing the future"),
    ]);
    let _ = writeln!(
        page,
        "<h2>Cost against waiting</h2>\n<figure>{}<figcaption>{key}Left is cheaper, down is quicker. \
         Rest the pointer on a mark for its numbers.</figcaption></figure>\n{}",
        figures::frontier(plan),
        tables::settings(plan),
    );
}

fn traffic(page: &mut String, plan: &Plan) {
    let profile = &plan.traffic.profile;
    let _ = writeln!(page, "<h2>Traffic</h2>\n<figure>{}</figure>", figures::course(profile));
    if let Some(day) = figures::day(profile) {
        let _ = writeln!(page, "<figure>{day}</figure>");
    }
}

fn states(page: &mut String, plan: &Plan) {
    let choices = plan.recommendations.iter();
    let courses: Vec<_> = std::iter::once(("today", plan.today.timeline.as_slice()))
        .chain(choices.map(|choice| (words::intent(choice.intent), choice.timeline.as_slice())))
        .filter(|(_, timeline)| !timeline.is_empty())
        .collect();
    if courses.is_empty() {
        return;
    }
    let key = key(&[
        ("busy", "busy"),
        ("", "idle"),
        ("starting", "starting"),
        ("waiting", "requests that wait"),
    ]);
    let _ = writeln!(page, "<h2>Runners over time</h2>\n{key}");
    let runners_max = figures::runners_max(courses.iter().map(|(_, timeline)| *timeline));
    for (name, timeline) in courses {
        let _ = writeln!(
            page,
            "<figure>{}<figcaption>{name}</figcaption></figure>",
            figures::states(timeline, runners_max)
        );
    }
}

fn configs(page: &mut String, plan: &Plan) {
    page.push_str("<h2>Config to apply</h2>\n");
    for choice in plan.recommendations.iter().filter(|choice| !choice.config.is_empty()) {
        let _ = writeln!(
            page,
            "<details><summary>{}</summary><pre>{}</pre></details>",
            words::intent(choice.intent),
            escaped(&choice.config)
        );
    }
}

fn notes(page: &mut String, plan: &Plan) {
    if plan.notes.is_empty() {
        return;
    }
    page.push_str("<h2>How to read this</h2>\n<ul>\n");
    for note in &plan.notes {
        let _ = writeln!(page, "<li>{}</li>", escaped(note));
    }
    page.push_str("</ul>\n");
}

#[cfg(test)]
mod tests;
