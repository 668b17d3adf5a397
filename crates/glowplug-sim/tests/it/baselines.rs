//! What is shown beside the engine: Knative's autoscaler and the clairvoyant bound, against courses
//! worked out by hand and against a simulation of fixed parameters that shares nothing with the engine.

mod fixed;

use std::convert::Infallible;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::decision::StartCause;
use glowplug_core::spec::Scaling;
use glowplug_sim::baseline::clairvoyant::{self, Point};
use glowplug_sim::baseline::kpa::Kpa;
use glowplug_sim::model::{AppModel, Model};
use glowplug_sim::outcome::{Outcome, RunnerSeconds};
use glowplug_sim::simulation::Failure;
use glowplug_sim::traffic::Arrival;

use crate::worlds;

const SETUP: Duration = Duration::from_secs(20);

fn app(scaling: Scaling) -> AppModel {
    AppModel { setup: Model::Constant(SETUP), ..worlds::app(scaling) }
}

/// Requests of app 0: at a second, for so many.
fn requests(list: &[(u64, u64)]) -> Vec<Arrival> {
    let arrival = |&(at, service): &(u64, u64)| {
        Arrival::new(Timestamp::from_secs(at), 0, Some(Duration::from_secs(service)))
    };
    list.iter().map(arrival).collect()
}

fn ok(traffic: &[Arrival]) -> impl Iterator<Item = Result<Arrival, Infallible>> {
    traffic.iter().copied().map(Ok)
}

fn run(kpa: &Kpa, apps: &[AppModel], traffic: &[Arrival]) -> Outcome {
    kpa.run(apps, 1, ok(traffic)).expect("the traffic is in order")
}

fn causes(outcome: &Outcome) -> Vec<(StartCause, u64)> {
    let counts = StartCause::ALL.into_iter().zip(outcome.total.starts);
    counts.filter(|(_, count)| *count > 0).collect()
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
}

/// Pseudo-random traffic for three apps, in order of time: quiet hours and bursts.
fn mixed_traffic() -> Vec<Arrival> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut at = 0;
    let mut traffic = Vec::new();
    for _ in 0..3_000 {
        at += if random(40) == 0 { random(900_000_000) } else { random(3_000_000) };
        let app = u32::try_from(random(3)).expect("below 3");
        let service = Duration::from_micros(1 + random(20_000_000));
        traffic.push(Arrival::new(Timestamp::from_micros(at), app, Some(service)));
    }
    traffic
}

fn mixed_traffic_of(app: u32) -> Vec<Arrival> {
    mixed_traffic().into_iter().filter(|arrival| arrival.app == app).collect()
}

/// One request of 10 s, worked out by hand. It comes at 100 s and panics the autoscaler: 1 / 0.7 wants
/// two pods where none is, and does so until both are ready at 120 s; the last tick at which it did is
/// 118. So panic ends with the tick at 180, and the second pod, never used, goes. The stable window has
/// forgotten the request with the tick at 190; after the grace the first pod goes too. With a target of
/// a whole request there is neither a panic nor a second pod.
#[test]
fn one_request_to_kpa() {
    let check = |kpa: Kpa, starts, idle, never_used, span| {
        let outcome = run(&kpa, &[app(Scaling::default())], &requests(&[(100, 10)]));
        assert_eq!(causes(&outcome), [(StartCause::FirstDeployment, starts)], "{kpa:?}");
        let expected = RunnerSeconds {
            startup: 20.0,
            busy: 10.0,
            idle,
            never_used,
            ..RunnerSeconds::default()
        };
        assert_eq!(outcome.total.runner_seconds, expected, "{kpa:?}");
        assert_eq!(outcome.span, Duration::from_secs(span), "{kpa:?}");
        assert_eq!(outcome.total.waits.mean(), SETUP);
        assert_eq!((outcome.total.cold, outcome.total.answered), (1, 1));
    };
    let kpa = Kpa::default();
    check(kpa, 2, 90.0, 80.0, 120);
    check(Kpa { grace: Duration::ZERO, ..kpa }, 2, 60.0, 80.0, 90);
    check(Kpa { target_utilization: 1.0, ..kpa }, 1, 90.0, 0.0, 120);
    let slow = Kpa { stable: Duration::from_mins(5), target_utilization: 1.0, ..kpa };
    // 130 + 300, and it must have been active for as long: since 120.
    check(slow, 1, 330.0, 0.0, 360);
    // Four requests fit on a pod: one is enough, and no burst.
    check(Kpa { container_concurrency: Some(4), ..kpa }, 1, 90.0, 0.0, 120);
}

/// Seven requests for an hour need ten pods at 70 %; the first alone is known when the first two are
/// started. While nothing changes there are no ticks to be had.
#[test]
fn constant_load_under_kpa() {
    let traffic = requests(&[(0, 3_600); 7]);
    let outcome = run(&Kpa::default(), &[app(Scaling::default())], &traffic);
    assert_eq!(outcome.total.starts_total(), 10);
    assert_eq!(outcome.starts_per_minute_peak, 10);
    near(outcome.total.runner_seconds.busy, 7.0 * 3_600.0);
    // Three are not used for over an hour.
    assert!(outcome.total.runner_seconds.never_used > 3.0 * 3_600.0);
    assert!(outcome.events < 400, "{} events, but an hour has 1,800 ticks", outcome.events);

    let capped = app(Scaling { max_concurrency: Some(5), ..Scaling::default() });
    let outcome = run(&Kpa::default(), &[capped], &traffic);
    assert_eq!(outcome.total.starts_total(), 5);
    assert_eq!(outcome.total.waits.quantile(1.0).as_secs() / 100, 36, "two had to wait an hour");
}

/// A request during the grace is served warm and ends the wish for zero; one after it starts anew.
#[test]
fn scale_to_zero_and_back_under_kpa() {
    let kpa = Kpa { target_utilization: 1.0, ..Kpa::default() };
    let check = |second_at, starts: &[(StartCause, u64)]| {
        let outcome =
            run(&kpa, &[app(Scaling::default())], &requests(&[(100, 10), (second_at, 10)]));
        assert_eq!(causes(&outcome), starts, "second request at {second_at} s");
    };
    let first = (StartCause::FirstDeployment, 1);
    check(135, &[first]);
    check(200, &[first]);
    check(219, &[first]);
    check(221, &[first, (StartCause::Expired, 1)]);
}

#[test]
fn an_idle_app_costs_kpa_nothing() {
    let year = 365 * 24 * 3_600;
    let outcome = run(&Kpa::default(), &[app(Scaling::default())], &requests(&[(0, 1), (year, 1)]));
    assert_eq!(outcome.total.cold, 2);
    assert!(outcome.events < 400, "{} events", outcome.events);
}

#[test]
fn kpa_refuses_what_waits_too_long() {
    let mut traffic = requests(&[(0, 5), (1, 5), (2, 5)]);
    traffic[1].start_within = Some(Duration::from_secs(10));
    traffic[2].start_within = Some(Duration::from_mins(1));
    let outcome = run(&Kpa::default(), &[app(Scaling::default())], &traffic);
    assert_eq!((outcome.total.answered, outcome.total.refused), (2, 1));
    assert_eq!(outcome.total.waits.count(), 2);
}

/// Up to three at once fill a pod before the next; beyond, pods take turns. Of two that come together,
/// on pods that make each of a pair three times as slow, the first way makes one pod busy for 30 s, and
/// the second way two for 10 s each.
#[test]
fn pods_for_many_at_once_take_turns_under_kpa() {
    let check = |concurrency, busy| {
        let mut model = app(Scaling { max_multiplexing: concurrency, ..Scaling::default() });
        model.slowdown = 2.0;
        // Twelve make for several pods, which are still there when the two come.
        let mut traffic = requests(&[(0, 10); 12]);
        traffic.extend(requests(&[(100, 10), (100, 10)]));
        let twelve = run(&Kpa::default(), std::slice::from_ref(&model), &traffic[..12]);
        let all = run(&Kpa::default(), &[model], &traffic);
        assert_eq!(all.total.cold, 12, "{concurrency} at once");
        near(all.total.runner_seconds.busy - twelve.total.runner_seconds.busy, busy);
    };
    check(3, 30.0);
    check(4, 20.0);
}

#[test]
fn apps_do_not_feel_each_other_under_kpa() {
    let traffic = mixed_traffic();
    let scaling = |max_multiplexing| Scaling { max_multiplexing, ..Scaling::default() };
    let apps = [app(scaling(1)), app(scaling(2)), app(scaling(8))];
    let kpa = Kpa::default();
    let together = run(&kpa, &apps, &traffic);
    assert_eq!(together.digest, run(&kpa, &apps, &traffic).digest);
    for nth in 0..3 {
        let alone = &run(&kpa, &apps, &mixed_traffic_of(nth)).apps[nth as usize];
        let beside = &together.apps[nth as usize];
        assert_eq!((alone.starts, alone.cold), (beside.starts, beside.cold));
        assert_eq!(alone.runner_seconds, beside.runner_seconds);
        assert_eq!(alone.waits.mean(), beside.waits.mean());
        assert_eq!(alone.answered, alone.requests);
    }
    let sum: f64 = together.apps.iter().map(|app| app.runner_seconds.total()).sum();
    assert!((sum / together.total.runner_seconds.total() - 1.0).abs() < 1e-9);
}

#[test]
fn baselines_refuse_traffic_that_is_not_in_order() {
    let backwards = requests(&[(5, 1), (3, 1)]);
    let check = |failure: Failure<Infallible>| {
        assert!(matches!(failure, Failure::Unordered { number: 2, .. }), "{failure}");
    };
    let apps = [app(Scaling::default())];
    check(Kpa::default().run(&apps, 1, ok(&backwards)).unwrap_err());
    check(clairvoyant::bound(&apps, 1, ok(&backwards), &[]).unwrap_err());
    let unknown = Kpa::default().run(&[], 1, ok(&backwards)).unwrap_err();
    assert!(matches!(unknown, Failure::UnknownApp { app: 0, apps: 0, .. }), "{unknown}");
}

/// Gaps of 10, 30 and 100 s on the first server; the second is needed at 5 s and again at 165 s.
#[test]
fn clairvoyant_on_gaps_made_by_hand() {
    let traffic = requests(&[(0, 10), (5, 2), (20, 5), (55, 5), (160, 10), (165, 1)]);
    let limits = [0, 10, 99, 158, 30].map(Duration::from_secs);
    let bound = clairvoyant::bound(&[app(Scaling::default())], 1, ok(&traffic), &limits).unwrap();
    let point = |nth: usize, starts: u32, idle_secs| Point {
        keep_gaps_within: limits[nth],
        requests: 6,
        starts: starts.into(),
        busy_secs: 33.0,
        idle_secs,
        startup_secs: f64::from(starts) * 20.0,
    };
    // In the order asked for. 7 to 165 s is the one gap of the second server.
    let expected = vec![
        point(0, 6, 0.0),
        point(1, 5, 10.0),
        point(2, 4, 40.0),
        point(3, 2, 10.0 + 30.0 + 100.0 + 158.0),
        point(4, 4, 40.0),
    ];
    assert_eq!(bound.total, expected);
    assert_eq!(bound.apps, [expected]);
}

#[test]
fn clairvoyant_packs_what_one_runner_can_serve_at_once() {
    let traffic = requests(&[(0, 10), (1, 10), (2, 10), (30, 5)]);
    let model = app(Scaling { max_multiplexing: 2, ..Scaling::default() });
    let keep = [Duration::from_mins(1)];
    let bound = clairvoyant::bound(&[model], 1, ok(&traffic), &keep).unwrap();
    // The first is needed from 0 to 12, the second from 2 to 10, and the first again from 30 to 35.
    let Point { starts, busy_secs, idle_secs, .. } = bound.total[0];
    assert_eq!(starts, 2);
    near(busy_secs, 12.0 + 8.0 + 5.0);
    near(idle_secs, 18.0);
}

/// Whoever serves each request as it comes pays at least the bound, at every price of a start.
#[test]
fn nobody_who_never_waits_beats_the_clairvoyant() {
    let traffic = mixed_traffic_of(0);
    let prices = [1, 10, 30, 100, 300, 1_000].map(Duration::from_secs);
    let model = app(Scaling::default());
    let bound = clairvoyant::bound(&[model], 1, ok(&traffic), &prices).unwrap().total;
    for keep_alive in [0, 1, 10, 30, 60, 100, 300, 1_000, 10_000].map(Duration::from_secs) {
        let course = fixed::run(&traffic, keep_alive, Duration::ZERO);
        assert_eq!(course.waited, Duration::ZERO);
        for Point { keep_gaps_within, starts, idle_secs, .. } in &bound {
            let price = keep_gaps_within.as_secs_f64();
            let best = idle_secs + price * f64::from(u32::try_from(*starts).unwrap());
            let paid = course.idle.as_secs_f64() + price * f64::from(course.starts);
            assert!(paid >= best - 1e-3, "{keep_alive:?} at {price} s: {paid} beats {best}");
        }
    }
    // And it is a choice that can be made: those prices lie on one curve, fewer starts for more idle
    // time.
    for pair in bound.windows(2) {
        assert!(pair[0].starts > pair[1].starts && pair[0].idle_secs < pair[1].idle_secs);
    }
}

/// Two simulations that share no line: the engine in its world, and the rules of `keep_alive` in the
/// plainest way.
#[test]
fn the_engine_does_what_its_parameters_say() {
    let traffic = mixed_traffic_of(0);
    for (keep_alive, setup) in [
        (0, 0),
        (60, 0),
        (0, 20),
        (1, 20),
        (10, 3),
        (10, 20),
        (60, 20),
        (60, 90),
        (300, 350),
        (3_600, 20),
    ] {
        let (keep_alive, setup) = (Duration::from_secs(keep_alive), Duration::from_secs(setup));
        let mut model = app(Scaling { keep_alive, ..Scaling::default() });
        model.setup = Model::Constant(setup);
        let outcome = worlds::run(&worlds::world(vec![model]), &traffic);
        let expected = fixed::run(&traffic, keep_alive, setup);
        let about = format!("keep_alive {keep_alive:?}, setup {setup:?}");
        let total = &outcome.total;
        assert_eq!(total.answered, traffic.len() as u64, "{about}");
        assert_eq!(total.starts_total(), u64::from(expected.starts), "{about}");
        assert_eq!(total.cold, u64::from(expected.cold), "{about}");
        let requests = u32::try_from(traffic.len()).unwrap();
        near(total.waits.mean().as_secs_f64(), (expected.waited / requests).as_secs_f64());
    }
}
