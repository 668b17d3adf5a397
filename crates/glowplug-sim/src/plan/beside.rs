//! What is shown beside our own engine, on the same traffic: the clairvoyant bound and Knative's autoscaler.
//!
//! Neither knows a capacity: with one, they are better off than the engine.

use std::time::Duration;

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::Error;
use super::numbers;
use super::result::{Beside, BesideKind};
use super::setting::Setting;
use super::sweep::{Cancelled, Stage, failed};
use super::traffic::Course;
use crate::baseline::clairvoyant::{self, Bound};
use crate::baseline::kpa::Kpa;
use crate::simulation::Failure;

/// Knative's stable windows that are tried; the first is its default.
const KPA_STABLE_SECS: [u64; 3] = [60, 300, 600];
/// Gaps that are kept through by who knows their length.
const GAPS_SECS: [u64; 6] = [10, 60, 300, 600, 1_800, 3_600];
/// Lengths of starts that gaps are weighed against, app by app; beyond, the nearest serves.
const STARTS_MAX: usize = 256;

/// By name, always in the same order.
pub(super) fn all(stage: &Stage<'_>, course: Course<'_>) -> Result<Vec<Beside>, Error> {
    let bound = || clairvoyant(stage, course);
    let policies = || -> Vec<Result<Beside, Error>> {
        KPA_STABLE_SECS.into_par_iter().map(|secs| kpa(stage, course, secs)).collect()
    };
    let (bound, policies) = rayon::join(bound, policies);
    let mut all = bound?;
    for policy in policies {
        all.push(policy?);
    }
    Ok(all)
}

fn kpa(stage: &Stage<'_>, course: Course<'_>, stable_secs: u64) -> Result<Beside, Error> {
    let stable = Duration::from_secs(stable_secs);
    let outcome = Kpa { stable, ..Kpa::default() }
        .run_answered(
            course.count_from,
            stage.models(),
            stage.seed(),
            stage.watched(course.traffic),
        )
        .map_err(fail)?;
    let numbers = numbers::totals(&outcome, &stage.apps, stage.limits(), course.span());
    Ok(Beside {
        name: format!("KPA, stable window {stable_secs} s"),
        about: "Knative's pod autoscaler with its defaults but for the window; pods start at once \
                and requests wait in one queue"
            .to_owned(),
        kind: BesideKind::Policy,
        starts: numbers.starts.total,
        cold_percent: numbers.cold_percent,
        app_cold_rate: Some(numbers.app_cold_rate),
        wait_mean_secs: numbers.wait.mean_secs,
        wait: Some(numbers.wait),
        cost: numbers.cost,
        cost_per_day: numbers.cost_per_day,
    })
}

fn clairvoyant(stage: &Stage<'_>, course: Course<'_>) -> Result<Vec<Beside>, Error> {
    let limits = limits(stage);
    let traffic = stage.watched(course.traffic);
    let (count_from, seed) = (course.count_from, stage.seed());
    let bound = clairvoyant::bound_from(count_from, stage.models(), seed, traffic, &limits)
        .map_err(fail)?;
    let mut all = vec![in_time(stage, course, &bound)];
    for (nth, within) in limits.iter().enumerate() {
        if GAPS_SECS.map(Duration::from_secs).contains(within) {
            all.push(on_demand(stage, course, &bound, nth));
        }
    }
    Ok(all)
}

/// The gaps that are shown, and the length of each app's start.
fn limits(stage: &Stage<'_>) -> Vec<Duration> {
    let mut starts: Vec<Duration> = stage.models().iter().map(|app| app.setup.mean()).collect();
    starts.sort_unstable();
    starts.dedup();
    let step = starts.len().div_ceil(STARTS_MAX).max(1);
    let mut limits: Vec<Duration> = starts.into_iter().step_by(step).collect();
    limits.extend(GAPS_SECS.map(Duration::from_secs));
    limits.sort_unstable();
    limits.dedup();
    limits
}

/// Every start is made ahead, so that no request waits: each app at its cheapest limit.
fn in_time(stage: &Stage<'_>, course: Course<'_>, bound: &Bound) -> Beside {
    let paid = |point: &clairvoyant::Point| point.idle_secs + point.startup_secs;
    let (mut starts, mut cost) = (0, 0.0);
    for (points, app) in bound.apps.iter().zip(&stage.apps) {
        let Some(best) = points.iter().min_by(|a, b| paid(a).total_cmp(&paid(b))) else { continue };
        starts += best.starts;
        cost += app.cost(best.busy_secs + paid(best));
    }
    Beside {
        name: "clairvoyant, just in time".to_owned(),
        about: "knows every request before it comes and starts each runner just in time: no \
                request waits, and no policy without waits costs less"
            .to_owned(),
        kind: BesideKind::Bound,
        starts,
        cold_percent: 0.0,
        app_cold_rate: None,
        wait_mean_secs: 0.0,
        wait: None,
        cost,
        cost_per_day: numbers::per_day(cost, course.span()),
    }
}

/// Starts are made when a request has come, as ours are.
fn on_demand(stage: &Stage<'_>, course: Course<'_>, bound: &Bound, nth: usize) -> Beside {
    let total = &bound.total[nth];
    let cost = bound.apps.iter().zip(&stage.apps).map(|(points, app)| {
        let point = &points[nth];
        app.cost(point.busy_secs + point.idle_secs + point.startup_secs)
    });
    let cost = cost.sum();
    Beside {
        name: format!("clairvoyant, gaps up to {} s", total.keep_gaps_within.as_secs()),
        about: "keeps an idle runner exactly when it will be needed within that time; starts on \
                demand, and a request that waits delays no other"
            .to_owned(),
        kind: BesideKind::Bound,
        starts: total.starts,
        cold_percent: total.cold_rate() * 100.0,
        app_cold_rate: None,
        wait_mean_secs: total.wait_mean().as_secs_f64(),
        wait: None,
        cost,
        cost_per_day: numbers::per_day(cost, course.span()),
    }
}

fn fail(failure: Failure<Cancelled>) -> Error {
    match failure {
        Failure::Traffic(Cancelled) => Error::Cancelled,
        other => failed(&Setting::Today, other),
    }
}
