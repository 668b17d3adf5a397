//! What the report draws.

use super::svg::{Figure, Scale};
use super::words;
use crate::plan::result::{Beside, Numbers, Plan, Profile, Sample, Wait, WaitMeasure};

const SECS_PER_DAY: f64 = 86_400.0;

/// Every setting that was tried, by what it costs and how long it lets requests wait.
pub(super) fn frontier(plan: &Plan) -> String {
    let place = |numbers: &Numbers| (cost(plan, numbers.cost), wait(plan, &numbers.wait));
    let all = || {
        let tried = plan.runs.iter().map(|run| &run.numbers);
        let chosen = plan.recommendations.iter().map(|choice| &choice.numbers);
        let own = tried.chain(chosen).chain([&plan.today.numbers]).map(place);
        let others = plan.beside.iter().filter_map(|beside| place_beside(plan, beside));
        own.chain(others).collect::<Vec<_>>()
    };
    let places = all();
    let x = Scale::fitting(places.iter().map(|(x, _)| *x));
    let y = Scale::from_zero(places.iter().map(|(_, y)| *y));
    let x_name = format!("cost {}", words::cost_unit(plan));
    let y_name = words::wait_measure(plan.frontier.wait, plan.wait_budget_secs);
    let y_label = match plan.frontier.wait {
        WaitMeasure::OverBudget => words::percent,
        _ => words::secs,
    };
    let mut figure = Figure::new((x, &x_name, words::number), (y, &y_name, y_label));
    let best = || plan.frontier.by_cost_and_wait.iter().filter_map(|at| plan.runs.get(*at));
    figure.line("frontier", best().map(|run| place(&run.numbers)));
    for (at, run) in plan.runs.iter().enumerate() {
        let class = if plan.frontier.by_cost_and_wait.contains(&at) { "frontier" } else { "" };
        let about = words::about(plan, &run.setting.to_string(), &run.numbers);
        figure.point(class, place(&run.numbers), &about);
    }
    for beside in &plan.beside {
        let Some(at) = place_beside(plan, beside) else { continue };
        let class = words::beside_class(beside.kind);
        figure.point(class, at, &format!("{}\n{}", beside.name, beside.about));
    }
    let at = place(&plan.today.numbers);
    figure.point("today big", at, &words::about(plan, "as today", &plan.today.numbers));
    figure.label(at, "today");
    for choice in &plan.recommendations {
        let name = words::intent(choice.intent);
        let at = place(&choice.numbers);
        figure.point("choice big", at, &words::about(plan, name, &choice.numbers));
        figure.label(at, name);
    }
    figure.finish("Cost and waiting of every setting that was tried")
}

/// Of a bound only the mean wait is known.
fn place_beside(plan: &Plan, beside: &Beside) -> Option<(f64, f64)> {
    let waited = match (&beside.wait, plan.frontier.wait) {
        (Some(waited), _) => wait(plan, waited),
        (None, WaitMeasure::Mean) => beside.wait_mean_secs,
        (None, _) => return None,
    };
    Some((cost(plan, beside.cost), waited))
}

fn cost(plan: &Plan, whole: f64) -> f64 {
    let days = (plan.reported_on.until_secs - plan.reported_on.from_secs) / SECS_PER_DAY;
    if days > 0.0 { whole / days } else { whole }
}

fn wait(plan: &Plan, wait: &Wait) -> f64 {
    match plan.frontier.wait {
        WaitMeasure::Mean => wait.mean_secs,
        WaitMeasure::P50 => wait.p50_secs,
        WaitMeasure::P95 => wait.p95_secs,
        WaitMeasure::P99 => wait.p99_secs,
        WaitMeasure::OverBudget => wait.over_budget_percent,
    }
}

/// Requests over the whole of the traffic.
pub(super) fn course(profile: &Profile) -> String {
    let days = profile_span(profile) > 2.0 * SECS_PER_DAY;
    let unit = if days { SECS_PER_DAY } else { 3_600.0 };
    let name = if days { "days since the beginning" } else { "hours since the beginning" };
    let points = profile.requests.iter().zip(0_u32..).map(|(count, nth)| {
        (f64::from(nth) * profile.bucket_secs / unit, as_f64(*count) / profile.bucket_secs * 60.0)
    });
    area(points.collect(), name)
}

/// Requests by the hour of the day, if there is more than a day of them.
pub(super) fn day(profile: &Profile) -> Option<String> {
    const PARTS: usize = 96;
    let span = profile_span(profile);
    if span < 1.5 * SECS_PER_DAY || profile.bucket_secs > SECS_PER_DAY / 24.0 {
        return None;
    }
    let mut parts = vec![(0.0, 0.0); PARTS];
    for (count, nth) in profile.requests.iter().zip(0_u32..) {
        let at = f64::from(nth) * profile.bucket_secs % SECS_PER_DAY / SECS_PER_DAY;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of the day times 96"
        )]
        let part = ((at * as_f64(PARTS as u64)) as usize).min(PARTS - 1);
        parts[part].0 += as_f64(*count);
        parts[part].1 += profile.bucket_secs;
    }
    let points = parts.into_iter().zip(0_u32..).filter(|((_, secs), _)| *secs > 0.0).map(
        |((count, secs), nth)| (f64::from(nth) * 24.0 / as_f64(PARTS as u64), count / secs * 60.0),
    );
    Some(area(points.collect(), "hours since the beginning, days laid over each other"))
}

fn profile_span(profile: &Profile) -> f64 {
    as_f64(profile.requests.len() as u64) * profile.bucket_secs
}

fn area(points: Vec<(f64, f64)>, x_name: &str) -> String {
    let end = points.last().map_or(1.0, |(x, _)| x.max(f64::MIN_POSITIVE));
    let x = Scale::Linear { low: 0.0, high: end };
    let y = Scale::from_zero(points.iter().map(|(_, y)| *y));
    let mut figure =
        Figure::new((x, x_name, words::number), (y, "requests per minute", words::number));
    let band: Vec<_> = points.into_iter().map(|(x, y)| (x, 0.0, y)).collect();
    figure.band("requests", "requests per minute", &band);
    figure.finish("Requests over time")
}

/// Runner states over time, one above the other, and the requests that wait.
pub(super) fn states(timeline: &[Sample], runners_max: f64) -> String {
    let end = timeline.last().map_or(1.0, |sample| sample.at_secs);
    let unit = if end > 2.0 * SECS_PER_DAY { SECS_PER_DAY } else { 3_600.0 };
    let name =
        if unit > 3_600.0 { "days since the beginning" } else { "hours since the beginning" };
    let x = Scale::Linear { low: 0.0, high: (end / unit).max(f64::MIN_POSITIVE) };
    let y = Scale::from_zero([runners_max].into_iter());
    let mut figure = Figure::new((x, name, words::number), (y, "runners", words::number));
    let mut layer = |class: &str, lower: fn(&Sample) -> u32, upper: fn(&Sample) -> u32| {
        let points: Vec<_> = timeline
            .iter()
            .map(|sample| {
                let (lower, upper) = (lower(sample), upper(sample));
                (sample.at_secs / unit, f64::from(lower), f64::from(upper))
            })
            .collect();
        figure.band(class, class, &points);
    };
    layer("busy", |_| 0, |s| s.busy);
    layer("idle", |s| s.busy, |s| s.busy + s.idle);
    layer("starting", |s| s.busy + s.idle, |s| s.busy + s.idle + s.starting);
    let waiting = timeline.iter().map(|s| (s.at_secs / unit, f64::from(s.waiting)));
    figure.line("waiting", waiting);
    figure.finish("Runner states over time")
}

/// The most runners at once in any of several courses: one scale for all makes them comparable.
pub(super) fn runners_max<'a>(timelines: impl Iterator<Item = &'a [Sample]>) -> f64 {
    let runners = |sample: &Sample| f64::from(sample.starting + sample.idle + sample.busy);
    timelines.flatten().map(runners).fold(1.0, f64::max)
}

#[expect(clippy::cast_precision_loss, reason = "counts that are drawn")]
fn as_f64(count: u64) -> f64 {
    count as f64
}
