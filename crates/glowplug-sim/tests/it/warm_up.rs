//! What is counted when a part of the traffic is a warm-up, and sums by part of the time.

use std::convert::Infallible;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::auto;
use glowplug_core::spec::{Policy, Scaling};
use glowplug_sim::baseline::clairvoyant;
use glowplug_sim::baseline::kpa::Kpa;
use glowplug_sim::model::{AppModel, Model};
use glowplug_sim::outcome::{PartSums, Parts, RunnerSeconds};
use glowplug_sim::simulation::World;
use glowplug_sim::traffic::Arrival;

use crate::worlds::{self, at, secs};

const EDGES_SECS: [f64; 3] = [1_000.0, 2_500.5, 2_501.0];
const LIMITS: [Duration; 2] = [Duration::ZERO, Duration::from_millis(1_500)];

/// Gaps of all lengths, overlapping work, two apps.
fn traffic() -> Vec<Arrival> {
    let mut state = 7_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let mut micros = 0;
    let next = |_| {
        micros += if random(5) == 0 { random(90_000_000) } else { random(3_000_000) };
        let service = Duration::from_micros(1 + random(9_000_000));
        let app = u32::from(random(4) == 0);
        Arrival::new(Timestamp::from_micros(micros), app, Some(service))
    };
    (0..600).map(next).collect()
}

fn apps(policy: Policy) -> Vec<AppModel> {
    let scaling = Scaling { policy, keep_alive: secs(20.0), ..Scaling::default() };
    let app = AppModel {
        setup: Model::LogNormal { median_secs: 5.0, sigma: 0.5 },
        exit: Model::Constant(secs(0.7)),
        ..worlds::app(scaling)
    };
    vec![app; 2]
}

fn policies() -> [Policy; 2] {
    [Policy::Fixed, Policy::Auto(auto::Settings::default())]
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-3, "{found} is not {expected}");
}

fn total(parts: &[Vec<PartSums>]) -> PartSums {
    let mut total = PartSums::default();
    parts.iter().flatten().for_each(|sums| total.add(sums));
    total
}

fn micros(seconds: f64) -> f64 {
    seconds * 1e6
}

#[expect(clippy::cast_precision_loss, reason = "some thousand seconds")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[test]
fn parts_add_up_to_the_whole() {
    let traffic = traffic();
    for policy in policies() {
        let parts = Some(Parts { edges: EDGES_SECS.map(at).to_vec(), limits: LIMITS });
        let outcome = worlds::run(&World { parts, ..worlds::world(apps(policy)) }, &traffic);
        assert_eq!(outcome.parts.len(), 4);
        // The third is half a second long.
        for part in [0, 1, 3] {
            assert!(outcome.parts[part].iter().all(|sums| sums.runner_micros > 0), "part {part}");
        }
        let (sums, whole) = (total(&outcome.parts), &outcome.total);
        assert_eq!(sums.requests, whole.requests);
        assert_eq!(sums.over[0], whole.cold);
        assert!(sums.over[1] > 0 && sums.over[1] < sums.over[0]);
        near(as_f64(sums.runner_micros), micros(whole.runner_seconds.total()));
        near(as_f64(sums.waited_micros) / 6e8, whole.waits.mean().as_secs_f64());
        let came_in = |part: usize| {
            let from = part.checked_sub(1).map_or(Timestamp::ZERO, |before| at(EDGES_SECS[before]));
            let until = EDGES_SECS.get(part).map_or(Timestamp::MAX, |edge| at(*edge));
            traffic.iter().filter(|one| (from..until).contains(&one.at)).count() as u64
        };
        for (part, sums) in outcome.parts.iter().enumerate() {
            assert_eq!(sums[0].requests + sums[1].requests, came_in(part), "part {part}");
        }
    }
}

#[test]
fn a_warm_up_happens_and_does_not_count() {
    let traffic = traffic();
    for policy in policies() {
        let world = worlds::world(apps(policy));
        let cold = worlds::run(&world, &traffic);
        for edge in EDGES_SECS {
            let count_from = at(edge);
            let parts = Some(Parts { edges: vec![count_from], limits: LIMITS });
            let warm = worlds::run(&World { count_from, parts, ..world.clone() }, &traffic);
            assert_eq!(warm.digest, cold.digest, "the course is the same");
            let after = traffic.iter().filter(|one| one.at >= count_from).count() as u64;
            let (whole, sums) = (&warm.total, total(&warm.parts[1..]));
            assert_eq!(whole.requests, after);
            assert_eq!((whole.answered, whole.waits.count()), (after, after));
            assert_eq!((sums.requests, sums.over[0]), (after, whole.cold));
            near(as_f64(sums.runner_micros), micros(whole.runner_seconds.total()));
            assert!(whole.starts_total() < cold.total.starts_total());
            assert!(whole.runner_seconds.busy < cold.total.runner_seconds.busy);
        }
    }
}

#[test]
fn a_warm_up_that_never_ends_leaves_nothing_to_count() {
    let traffic = traffic();
    let count_from = at(1e9);
    let world = World { count_from, ..worlds::world(apps(Policy::Fixed)) };
    let outcomes = [
        worlds::run(&world, &traffic),
        Kpa::default().run_from(count_from, &world.apps, 1, ok(&traffic)).unwrap(),
    ];
    for outcome in outcomes {
        assert_eq!((outcome.total.requests, outcome.total.waits.count()), (0, 0));
        assert_eq!(outcome.total.runner_seconds, RunnerSeconds::default());
    }
}

fn ok(traffic: &[Arrival]) -> impl Iterator<Item = Result<Arrival, Infallible>> {
    traffic.iter().copied().map(Ok)
}

#[test]
fn who_is_refused_after_the_warm_up_came_before_it() {
    let app = AppModel { setup: Model::Constant(secs(30.0)), ..worlds::app(Scaling::default()) };
    let early =
        Arrival { start_within: Some(secs(20.0)), ..Arrival::new(at(0.0), 0, Some(secs(1.0))) };
    let traffic = [early, Arrival::new(at(40.0), 0, Some(secs(1.0)))];
    let outcome = Kpa::default().run_from(at(10.0), &[app], 1, ok(&traffic)).unwrap();
    let total = outcome.total;
    assert_eq!((total.requests, total.answered, total.refused), (1, 1, 0));
}

#[test]
fn others_are_counted_from_the_same_moment() {
    let traffic = traffic();
    let apps = apps(Policy::Fixed);
    let keep = [secs(30.0)];
    let kpa = |from| Kpa::default().run_from(from, &apps, 1, ok(&traffic)).unwrap();
    let bound = |from| clairvoyant::bound_from(from, &apps, 1, ok(&traffic), &keep).unwrap().total;
    let (kpa_whole, bound_whole) = (kpa(Timestamp::ZERO), bound(Timestamp::ZERO));
    for edge in EDGES_SECS {
        let after = traffic.iter().filter(|one| one.at >= at(edge)).count() as u64;
        let (kpa, bound) = (kpa(at(edge)), bound(at(edge)));
        let total = &kpa.total;
        assert_eq!(
            (total.requests, total.answered, total.waits.count()),
            (after, after, after),
            "from {edge} s on"
        );
        assert_eq!(bound[0].requests, after);
        assert!(total.runner_seconds.total() < kpa_whole.total.runner_seconds.total());
        assert!(bound[0].busy_secs < bound_whole[0].busy_secs);
        assert!(bound[0].idle_secs < bound_whole[0].idle_secs);
    }
}
