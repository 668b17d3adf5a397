//! Courses that can be computed by hand.

use glowplug_core::spec::Scaling;

use crate::worlds::{app, arrivals, run, secs, world};

#[test]
fn one_request_costs_its_start_its_work_and_the_keep_alive() {
    let world = world(vec![app(Scaling { keep_alive: secs(10.0), ..Scaling::default() })]);
    let outcome = run(&world, &arrivals(&[5.0]));
    let total = &outcome.total;
    assert_eq!((total.requests, total.answered, total.cold, total.starts_total()), (1, 1, 1, 1));
    assert_eq!(total.waits.mean(), secs(2.0));
    let parts = total.runner_seconds;
    assert_eq!((parts.startup, parts.busy, parts.idle, parts.ending), (2.0, 1.0, 10.0, 0.0));
    assert_eq!(outcome.span, secs(13.0));
}
