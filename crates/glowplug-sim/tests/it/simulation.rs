//! Courses that can be computed by hand.

use std::convert::Infallible;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::decision::StartCause;
use glowplug_core::request::Mode;
use glowplug_core::spec::Scaling;
use glowplug_sim::model::{AppModel, Faults, Model};
use glowplug_sim::outcome::{Measures, Moment};
use glowplug_sim::simulation::{Failure, Happening, What, World};
use glowplug_sim::traffic::Arrival;

use crate::worlds::{app, arrivals, at, room, run, secs, world};

fn keep_alive(keep_alive: f64) -> Scaling {
    Scaling { keep_alive: secs(keep_alive), ..Scaling::default() }
}

/// Startup, busy, idle, never used, ending.
fn parts(measures: &Measures) -> [Duration; 5] {
    let parts = measures.runner_seconds;
    [parts.startup, parts.busy, parts.idle, parts.never_used, parts.ending].map(secs)
}

#[test]
fn one_request_costs_its_start_its_work_and_the_keep_alive() {
    let outcome = run(&world(vec![app(keep_alive(10.0))]), &arrivals(&[5.0]));
    let total = &outcome.total;
    assert_eq!((total.requests, total.answered, total.cold, total.starts_total()), (1, 1, 1, 1));
    assert_eq!(total.waits.mean(), secs(2.0));
    assert_eq!(parts(total), [2.0, 1.0, 10.0, 0.0, 0.0].map(secs));
    assert_eq!(secs(total.service_secs), secs(1.0));
    assert_eq!(outcome.span, secs(13.0));
    assert!((outcome.cost(&[3_600.0]) - 13.0).abs() < 1e-9);
}

#[test]
fn a_frozen_runner_serves_again_and_is_not_paid_for_meanwhile() {
    let scaling = Scaling { frozen_for: Some(secs(100.0)), ..keep_alive(10.0) };
    let outcome = run(&world(vec![app(scaling)]), &arrivals(&[5.0, 50.0]));
    let total = &outcome.total;
    assert_eq!((total.answered, total.starts_total()), (2, 1));
    assert_eq!(total.waits.longest(), secs(2.0));
    // From 18 s to 50 s, and after its second rest for as long as it may be.
    assert_eq!(secs(total.runner_seconds.frozen), secs(32.0 + 100.0));
    assert_eq!(parts(total), [2.0, 2.0, 20.001, 0.0, 0.0].map(secs));
}

/// A request every `gap` seconds, each served for one.
#[test]
fn even_gaps_are_always_warm_or_never() {
    for (gap, kept, cold) in [(10, 9.001, 1), (10, 8.999, 100), (4, 60.0, 1), (4, 0.0, 100)] {
        let model = AppModel { setup: Model::Constant(Duration::ZERO), ..app(keep_alive(kept)) };
        let traffic: Vec<Arrival> =
            (0..100).map(|n| Arrival::new(Timestamp::from_secs(n * gap), 0, None)).collect();
        let outcome = run(&world(vec![model]), &traffic);
        assert_eq!(outcome.total.starts_total(), cold, "every {gap} s, kept for {kept} s");
    }
}

#[test]
fn a_wait_is_until_the_runner_is_ready() {
    let outcome = |kept| run(&world(vec![app(keep_alive(kept))]), &arrivals(&[0.0, 10.0, 20.0]));
    // The setup postpones the first end to 3 s, and so the first expiry, but not the second.
    for (kept, cold) in [(9.1, 1), (8.9, 2), (7.1, 2), (6.9, 3)] {
        assert_eq!(outcome(kept).total.cold, cold, "kept for {kept} s");
    }
    let outcome = outcome(6.9);
    assert_eq!(outcome.total.waits.longest(), secs(2.0));
    assert_eq!(outcome.total.starts[1], 2, "expired: {:?}", StartCause::ALL[1]);
}

#[test]
fn what_shares_a_runner_slows_each_other_down() {
    for (slowdown, at_secs, service, last_end) in [
        (0.0, &[0.0, 0.0, 0.0][..], 3.0, 5.0),
        (1.0, &[0.0, 0.0, 0.0], 3.0, 11.0),
        (0.5, &[0.0, 0.0], 3.0, 6.5),
        // 1 s alone, then half the speed each for 4 s; 1 s is left, alone.
        (1.0, &[2.0, 5.0], 3.0, 8.0 + 2.0),
    ] {
        let scaling = Scaling { max_multiplexing: 3, max_concurrency: Some(1), ..keep_alive(0.0) };
        let model = AppModel { slowdown, service: Model::Constant(secs(service)), ..app(scaling) };
        let outcome = run(&world(vec![model]), &arrivals(at_secs));
        let began = at_secs[0];
        assert_eq!(outcome.span, secs(last_end - began), "{slowdown} {at_secs:?}");
    }
}

#[test]
fn only_the_first_start_pulls_and_others_wait_for_it() {
    let model = AppModel { pull: Some(Model::Constant(secs(7.0))), ..app(keep_alive(0.0)) };
    let outcome = run(&world(vec![model.clone()]), &arrivals(&[0.0, 3.0, 60.0]));
    let waits = &outcome.total.waits;
    assert_eq!(waits.longest(), secs(9.0));
    assert_eq!(waits.mean(), secs((9.0 + 6.0 + 2.0) / 3.0));
    let redeployed = |revision| {
        let spec = glowplug_core::spec::AppSpec { revision, ..model.spec.clone() };
        let what = What::Deploy { app: 0, spec };
        let happenings = vec![Happening { at: at(30.0), what }];
        let world = World { happenings, ..world(vec![model.clone()]) };
        run(&world, &arrivals(&[0.0, 60.0])).total.waits.mean()
    };
    assert_eq!(redeployed(1), secs(f64::midpoint(9.0, 2.0)), "new settings pull nothing");
    assert_eq!(redeployed(2), secs(9.0), "new code does");
}

/// A crash breaks all that is on the runner, and a queued request is tried again on another.
#[test]
fn who_is_on_a_runner_that_dies_is_tried_again_or_told() {
    let scaling = Scaling { max_multiplexing: 4, max_concurrency: Some(1), ..keep_alive(30.0) };
    let model = AppModel { service: Model::Constant(secs(10.0)), ..app(scaling) };
    let kill = Happening { at: at(5.0), what: What::Kill { app: 0, runners: 1 } };
    let world = World { happenings: vec![kill], ..world(vec![model]) };
    let mut traffic = arrivals(&[0.0, 0.0, 0.0]);
    traffic[1].mode = Mode::Direct;
    let total = run(&world, &traffic).total;
    assert_eq!((total.answered, total.failed, total.retries), (3, 1, 2));
    assert_eq!(total.starts_total(), 2);
    assert_eq!(
        parts(&total)[1],
        secs(3.0 + 10.0),
        "busy until its death, and the second all along"
    );
}

#[test]
fn crashes_and_hangs_in_setup_are_failed_starts() {
    let fail = |faults: Faults, mode: Mode| {
        let scaling = Scaling { startup_timeout: secs(60.0), ..keep_alive(1.0) };
        let model = AppModel { faults, ..app(scaling) };
        let heal = What::Faults { app: 0, faults: Faults::default() };
        let happenings = vec![Happening { at: at(5.0), what: heal }];
        let world = World { happenings, ..world(vec![model]) };
        let traffic = [Arrival { mode, ..arrivals(&[0.0])[0] }];
        run(&world, &traffic).total
    };
    let crash = Faults { setup_crash: 1.0, ..Faults::default() };
    let hang = Faults { setup_hang: 1.0, ..Faults::default() };
    for faults in [crash, hang] {
        let queued = fail(faults, Mode::Queued);
        assert_eq!((queued.failed_starts, queued.starts_total(), queued.answered), (1, 2, 1));
        let direct = fail(faults, Mode::Direct);
        assert_eq!((direct.failed_starts, direct.refused, direct.cold), (1, 1, 1));
    }
    assert!(fail(hang, Mode::Queued).waits.mean() > secs(60.0));
    assert!(fail(crash, Mode::Queued).waits.mean() < secs(35.0));
}

#[test]
fn an_answer_of_500_is_an_answer() {
    let model =
        AppModel { faults: Faults { error: 1.0, ..Faults::default() }, ..app(keep_alive(1.0)) };
    let total = run(&world(vec![model]), &arrivals(&[0.0, 0.5])).total;
    assert_eq!((total.answered, total.failed, total.retries), (2, 2, 0));
}

/// A request in flight may finish within the grace period of a runner that is told to end.
#[test]
fn the_end_takes_as_long_as_its_work_but_no_longer_than_its_grace() {
    for (grace, exit, ended) in [(20.0, 3.0, 12.0 + 3.0), (20.0, 60.0, 5.0 + 20.0), (4.0, 3.0, 9.0)]
    {
        let scaling = Scaling { termination_grace_period: secs(grace), ..keep_alive(60.0) };
        let model = AppModel {
            service: Model::Constant(secs(10.0)),
            exit: Model::Constant(secs(exit)),
            ..app(scaling)
        };
        let happenings = vec![Happening { at: at(5.0), what: What::ShutDown }];
        let world = World { happenings, ..world(vec![model]) };
        let outcome = run(&world, &arrivals(&[0.0]));
        assert_eq!(outcome.span, secs(ended), "grace {grace}, exit {exit}");
        assert_eq!(parts(&outcome.total), [2.0, 3.0, 0.0, 0.0, ended - 5.0].map(secs));
        assert_eq!(outcome.total.left, u64::from(grace < 7.0), "it stays in the queue");
    }
}

#[test]
fn floors_are_counted_up_to_the_end_that_is_stated() {
    let scaling = Scaling { min_concurrency: 1, ..keep_alive(1.0) };
    let floor = world(vec![app(scaling)]);
    let outcome = run(&floor, &arrivals(&[10.0]));
    assert_eq!(parts(&outcome.total), [2.0, 1.0, 8.0, 0.0, 0.0].map(secs), "until the last answer");
    assert_eq!(outcome.total.cold, 0);
    let world = World { until: Some(at(100.0)), ..floor };
    let outcome = run(&world, &arrivals(&[10.0]));
    assert_eq!(parts(&outcome.total), [2.0, 1.0, 97.0, 0.0, 0.0].map(secs));
    assert_eq!(outcome.span, secs(90.0));
}

#[test]
fn what_is_open_at_the_end_that_is_stated_is_left() {
    let world = World { until: Some(at(2.5)), ..world(vec![app(keep_alive(1.0))]) };
    let outcome = run(&world, &arrivals(&[0.0, 1.0, 2.0, 3.0]));
    let total = &outcome.total;
    assert_eq!((total.requests, total.answered, total.left, total.waits.count()), (3, 0, 3, 1));
    assert_eq!(total.cold, 3);
}

#[test]
fn what_nobody_has_room_for_is_left() {
    let scaling = Scaling { min_concurrency: 1, ..keep_alive(1.0) };
    let world = World { capacity: room(1), ..world(vec![app(scaling), app(keep_alive(1.0))]) };
    let traffic = [Arrival::new(at(5.0), 1, None)];
    let outcome = run(&world, &traffic);
    assert_eq!((outcome.apps[1].left, outcome.apps[1].cold), (1, 1));
}

#[test]
fn the_busiest_minute_is_one_of_the_clock() {
    let traffic = arrivals(&[50.0, 55.0, 62.0, 65.0, 70.0]);
    let outcome = run(&world(vec![app(keep_alive(0.0))]), &traffic);
    assert_eq!(outcome.starts_per_minute_peak, 3);
}

#[test]
fn moments_show_what_runs() {
    let world = World { moments_max: 64, ..world(vec![app(keep_alive(10.0))]) };
    let outcome = run(&world, &arrivals(&[0.0]));
    let moments = &outcome.timeline;
    assert!((32..=64).contains(&moments.len()), "{}", moments.len());
    let step = moments[1].at;
    for (which, state, length) in [
        ("starting", (|moment| moment.starting) as fn(&Moment) -> u32, secs(2.0)),
        ("waiting", |moment| moment.waiting, secs(2.0)),
        ("busy", |moment| moment.busy, secs(1.0)),
        ("idle", |moment| moment.idle, secs(10.0)),
    ] {
        let found: Duration =
            moments.iter().filter(|moment| state(moment) == 1).map(|_| step).sum();
        assert!(found.abs_diff(length) <= step, "{which} for {found:?}, not {length:?}");
    }
}

#[test]
fn traffic_that_makes_no_sense_is_refused() {
    let world = world(vec![app(keep_alive(1.0))]);
    let check = |traffic: Vec<Arrival>, expected: &str| {
        let failure = world.run(traffic.into_iter().map(Ok::<_, Infallible>)).unwrap_err();
        assert_eq!(failure.to_string(), expected);
    };
    let unordered =
        "request 2 of the traffic comes at 1.000000s, before the one before it at 2.000000s";
    check(arrivals(&[2.0, 1.0]), unordered);
    let unknown = "request 1 of the traffic is for app 1, but there are only 1";
    check(vec![Arrival::new(at(0.0), 1, None)], unknown);
    let broken = [Ok(arrivals(&[0.0])[0]), Err(std::fmt::Error)];
    assert!(matches!(world.run(broken.into_iter()), Err(Failure::Traffic(_))));
}
