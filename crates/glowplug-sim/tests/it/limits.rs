//! Worlds that come to more than they may.

use std::convert::Infallible;

use glowplug_core::Timestamp;
use glowplug_core::engine;
use glowplug_core::request::Mode;
use glowplug_core::spec::Scaling;
use glowplug_sim::baseline::kpa::Kpa;
use glowplug_sim::model::{AppModel, Faults};
use glowplug_sim::outcome::{End, Outcome};
use glowplug_sim::simulation::{Failure, OVERTIME_MAX, REQUESTS_OPEN_MAX, STUCK_EVENTS_MAX, World};
use glowplug_sim::traffic::Arrival;

use crate::worlds::{app, arrivals, run, secs, world};

/// A million requests a second on one runner: what finds the line full is refused, queued or not.
#[test]
fn as_many_requests_wait_as_may_and_the_others_are_refused() {
    let scaling =
        Scaling { keep_alive: secs(10.0), max_concurrency: Some(1), ..Scaling::default() };
    let config = engine::Config { waiting_max: 40, ..engine::Config::default() };
    let world = World { engine: config, ..world(vec![app(scaling)]) };
    for mode in [Mode::Queued, Mode::Direct] {
        let traffic: Vec<Arrival> = (0..1_000)
            .map(|nth| Arrival { mode, ..Arrival::new(Timestamp::from_micros(nth), 0, None) })
            .collect();
        let total = run(&world, &traffic).total;
        assert_eq!((total.requests, total.answered, total.refused), (1_000, 40, 960), "{mode:?}");
        assert_eq!((total.left, total.cold), (0, 1_000), "{mode:?}");
    }
}

#[test]
fn a_world_with_too_many_open_requests_ends() {
    let config = engine::Config { waiting_max: usize::MAX, ..engine::Config::default() };
    let world = World { engine: config, ..world(vec![app(Scaling::default())]) };
    let traffic =
        std::iter::repeat_n(Arrival::new(Timestamp::ZERO, 0, None), REQUESTS_OPEN_MAX + 2);
    let failure = world.run(traffic.map(Ok::<_, Infallible>)).unwrap_err();
    let Failure::TooManyOpen { count, .. } = failure else { panic!("{failure}") };
    assert_eq!(count, REQUESTS_OPEN_MAX + 1);
    assert!(failure.to_string().contains("more than 1000000; let fewer come at once"), "{failure}");
}

/// Whoever keeps runners longer, or for good, pays no more than who ends them, once all is answered.
#[test]
fn nobody_pays_for_the_time_after_the_last_answer() {
    let traffic = arrivals(&[0.0, 10.0]);
    for scaling in [
        Scaling { keep_alive: secs(60.0), ..Scaling::default() },
        Scaling { keep_alive: secs(7_200.0), ..Scaling::default() },
        Scaling { min_concurrency: 1, ..Scaling::default() },
    ] {
        let world = World { until_answered: true, ..world(vec![app(scaling)]) };
        let outcome = run(&world, &traffic);
        let paid = secs(outcome.total.runner_seconds.total());
        assert_eq!((outcome.end, outcome.total.answered), (End::Answered, 2));
        assert_eq!((paid, outcome.span), (secs(11.0), secs(11.0)), "{scaling:?}");
    }
    let apps = [app(Scaling::default())];
    let ok = || traffic.iter().copied().map(Ok::<_, Infallible>);
    let answered = Kpa::default().run_answered(Timestamp::ZERO, &apps, 1, ok()).unwrap();
    let over = Kpa::default().run(&apps, 1, ok()).unwrap();
    let paid = |outcome: &Outcome| secs(outcome.total.runner_seconds.total());
    // It uses 70 % of a pod at most, and so has two.
    assert_eq!((answered.total.answered, paid(&answered)), (2, secs(22.0)));
    assert!(paid(&over) > secs(60.0), "its window comes on top");
}

/// An hour of requests for an app that never comes up: nobody waits for a day of failing starts.
#[test]
fn a_world_in_which_nothing_gets_anywhere_ends() {
    let faults = Faults { setup_crash: 1.0, ..Faults::default() };
    let stuck = world(vec![AppModel { faults, ..app(Scaling::default()) }]);
    let traffic: Vec<Arrival> =
        (0..3_600).map(|nth| Arrival::new(Timestamp::from_secs(nth), 0, None)).collect();
    let outcome = run(&stuck, &traffic);
    assert_eq!((outcome.end, outcome.total.left), (End::Stuck, 3_600));
    assert!(outcome.events < 2 * STUCK_EVENTS_MAX + 100_000, "{} events", outcome.events);
    assert!(outcome.span < OVERTIME_MAX, "{:?}", outcome.span);
    // One request alone makes few events: it may wait for its day.
    let outcome = run(&stuck, &traffic[..1]);
    assert_eq!((outcome.end, outcome.total.left), (End::Overtime, 1));
    let until = World { until: Some(Timestamp::from_secs(90)), ..stuck };
    assert_eq!(run(&until, &traffic[..1]).end, End::Until);
    assert_eq!(run(&world(vec![app(Scaling::default())]), &traffic[..1]).end, End::AllOver);
}
