//! The same, from the same; and nothing else differs than what was set differently.

use std::convert::Infallible;
use std::time::Duration;

use glowplug_core::action::Action;
use glowplug_core::spec::Scaling;
use glowplug_core::{RequestId, Timestamp};
use glowplug_sim::model::{AppModel, Faults, Model};
use glowplug_sim::simulation::{Failure, Untidiness, World};
use glowplug_sim::traffic::Arrival;

use crate::worlds::{app, run, secs, world};

fn random_app(keep_alive: f64) -> AppModel {
    AppModel {
        pull: Some(Model::Exponential { mean_secs: 3.0 }),
        setup: Model::LogNormal { median_secs: 4.0, sigma: 0.5 },
        service: Model::Exponential { mean_secs: 2.0 },
        exit: Model::Exponential { mean_secs: 1.0 },
        faults: Faults { setup_crash: 0.05, setup_hang: 0.01, crash: 0.02, error: 0.1 },
        ..app(Scaling { keep_alive: secs(keep_alive), ..Scaling::default() })
    }
}

fn random_world(seed: u64) -> World {
    let untidiness = Untidiness { lost: 0.05, late: 0.1, twice: 0.1 };
    World { seed, untidiness, ..world(vec![random_app(20.0), random_app(3.0)]) }
}

/// Uneven, to two apps.
fn traffic() -> Vec<Arrival> {
    (0..2_000u64)
        .map(|nth| {
            let at = Timestamp::from_micros(nth * 1_500_000 + nth * nth % 997 * 1_000);
            Arrival::new(at, u32::from(nth % 3 == 0), None)
        })
        .collect()
}

#[test]
fn a_seed_decides_everything() {
    let traffic = traffic();
    let again = || traffic.iter().copied().map(Ok::<_, Infallible>);
    let outcome = random_world(1).doublecheck(again).unwrap();
    assert_eq!(outcome.digest, run(&random_world(1), &traffic).digest);
    assert_ne!(outcome.digest, run(&random_world(2), &traffic).digest);
    assert!(outcome.total.failed_starts > 0 && outcome.total.failed > 0, "something goes wrong");
}

#[test]
fn the_first_event_that_differs_is_named() {
    let traffic = traffic();
    let mut times = 0;
    let other = || {
        times += 1;
        let mut other = traffic.clone();
        other[700].service = (times == 2).then_some(Duration::from_secs(1));
        other.into_iter().map(Ok::<_, Infallible>)
    };
    let failure = random_world(1).doublecheck(other).unwrap_err();
    let Failure::Differs { event, replay } = failure else { panic!("{failure}") };
    assert!(event > 1_400, "each of the first 700 is at least two events: {event}");
    assert_eq!(replay, format!("--seed 1 --event {event}"));
}

/// When each request of app 0 was first given to a runner and how long that took it, with nothing waiting
/// for room.
fn service_times(world: &World, traffic: &[Arrival]) -> Vec<(RequestId, Duration)> {
    let mut began = std::collections::BTreeMap::new();
    let mut times = Vec::new();
    let watch = |now: Timestamp, _, action: &Action| match action {
        Action::Assign { lease, .. } => {
            began.insert(lease.request, now);
        }
        Action::Deliver { lease } => times.push((lease.request, now - began[&lease.request])),
        _ => {}
    };
    world
        .run_watched(traffic.iter().copied().map(Ok::<_, Infallible>), watch)
        .expect("no rule is broken");
    times.sort_unstable();
    times
}

#[test]
fn settings_change_no_draws() {
    let calm = |keep_alive, setup| {
        let model = random_app(keep_alive);
        let faults = Faults::default();
        world(vec![AppModel { faults, setup, ..model }, app(Scaling::default())])
    };
    let setup = || Model::LogNormal { median_secs: 4.0, sigma: 0.5 };
    let traffic = traffic();
    let base = service_times(&calm(20.0, setup()), &traffic);
    assert_eq!(base.len(), traffic.len());
    for (keep_alive, setup) in [
        (0.0, setup()),
        (600.0, setup()),
        (20.0, Model::Exponential { mean_secs: 9.0 }),
        (20.0, Model::Constant(Duration::ZERO)),
    ] {
        assert_eq!(service_times(&calm(keep_alive, setup), &traffic), base);
    }
}

/// Setup times in order of the starts.
#[test]
fn the_nth_start_takes_as_long_whatever_the_settings() {
    let setups = |keep_alive: f64| {
        let model = AppModel { faults: Faults::default(), pull: None, ..random_app(keep_alive) };
        let world = world(vec![model]);
        // One at a time, so that the wait is the setup.
        let traffic: Vec<Arrival> =
            (0..200).map(|n| Arrival::new(Timestamp::from_secs(n * 120), 0, None)).collect();
        let mut came = std::collections::BTreeMap::new();
        let mut waits = Vec::new();
        let watch = |now: Timestamp, _, action: &Action| match action {
            Action::Start { runner, .. } => {
                came.insert(*runner, now);
            }
            Action::Assign { lease, .. } => {
                waits.extend(came.remove(&lease.runner).map(|at| now - at));
            }
            _ => {}
        };
        world
            .run_watched(traffic.into_iter().map(Ok::<_, Infallible>), watch)
            .expect("no rule is broken");
        waits
    };
    let (often, seldom) = (setups(1.0), setups(118.0));
    assert_eq!(often.len(), 200);
    assert!(seldom.len() > 5 && seldom.len() < 195, "{}", seldom.len());
    assert_eq!(often[..seldom.len()], seldom);
}
