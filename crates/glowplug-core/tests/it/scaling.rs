//! How many runners there are, and when they go.

use std::time::Duration;

use glowplug_core::event::Event;
use glowplug_core::request::Mode;
use glowplug_core::spec::Scaling;

use crate::fleet::{A, node, secs};
use crate::world::{Behaviour, World};

fn app(slots: u32, scaling: Scaling) -> World {
    let mut world = node(slots);
    world.add(A, scaling);
    world
}

fn arrivals(world: &mut World, count: u32) {
    for _ in 0..count {
        world.arrive(A, Mode::Queued);
    }
}

/// The worked table, with real runners: requests that run, and the runners that are there.
#[test]
fn worked_table_through_the_engine() {
    for (min, buffer, perc, places, max, rows) in [
        (1, 1, 0, 1, Some(10), &[(0, 1), (4, 5)][..]),
        (3, 2, 0, 1, Some(10), &[(0, 3), (1, 3), (5, 7), (12, 10)]),
        (0, 2, 0, 4, Some(6), &[(0, 2), (1, 3), (4, 3), (5, 4), (8, 4), (9, 5), (12, 5), (13, 6)]),
        (0, 2, 20, 1, None, &[(5, 7), (20, 24)]),
        (0, 0, 20, 1, None, &[(0, 0)]),
    ] {
        for (requests, runners) in rows {
            let mut world = node(30);
            world.behave(A, Behaviour::default());
            let scaling = Scaling {
                min_concurrency: min,
                concurrency_buffer: buffer,
                concurrency_buffer_perc: perc,
                max_multiplexing: places,
                max_concurrency: max,
                ..Scaling::default()
            };
            world.add(A, scaling);
            world.behave(A, Behaviour { service: secs(1_000), ..Behaviour::default() });
            arrivals(&mut world, *requests);
            world.run(secs(100));
            assert_eq!(world.alive(A).len(), *runners, "{requests} requests, {scaling:?}");
        }
    }
}

#[test]
fn an_idle_runner_is_kept_for_keep_alive_after_its_last_request() {
    let mut world = app(1, Scaling { keep_alive: secs(60), ..Scaling::default() });
    arrivals(&mut world, 1);
    world.run(secs(3 + 50));
    arrivals(&mut world, 1);
    world.run(secs(1 + 59));
    world.expect_states(A, "IDLE");
    world.run(secs(1));
    world.expect_states(A, "TERMINATING");
    assert!(
        world.story().contains("stopped in IDLE because it was idle for 1 min, its keep_alive")
    );
}

#[test]
fn keep_alive_of_zero_ends_a_runner_right_after_its_request() {
    let mut world = app(1, Scaling { keep_alive: Duration::ZERO, ..Scaling::default() });
    arrivals(&mut world, 1);
    world.run(secs(3));
    world.expect_states(A, "TERMINATING");
    assert_eq!(world.facts.delivered, 1);
}

#[test]
fn a_lowered_keep_alive_acts_at_once() {
    let mut world = app(1, Scaling { keep_alive: secs(3_600), ..Scaling::default() });
    arrivals(&mut world, 1);
    world.run(secs(8));
    world.add(A, Scaling { keep_alive: secs(10), ..Scaling::default() });
    world.run(secs(4));
    world.expect_states(A, "IDLE");
    world.run(secs(1));
    world.expect_states(A, "TERMINATING");
}

#[test]
fn a_runner_that_never_served_goes_after_unused_runner_timeout() {
    let unused = Some(secs(10));
    let scaling =
        Scaling { keep_alive: secs(60), unused_runner_timeout: unused, ..Scaling::default() };
    let mut world = app(3, scaling);
    arrivals(&mut world, 1);
    world.run(secs(4));
    world.handle(Event::WarmRequested { app: A, runners: 2 });
    world.run(secs(2 + 9));
    world.expect_states(A, "IDLE, IDLE");
    world.run(secs(2));
    world.expect_states(A, "IDLE");
    assert!(world.story().contains("stopped in IDLE because it got no request for 10.0 s"));
    // A floor asks for it: the rule does not hold.
    world.add(A, Scaling { min_concurrency: 2, ..scaling });
    world.run(secs(1_000));
    world.expect_states(A, "IDLE, IDLE");
}

#[test]
fn a_warm_up_outlives_a_keep_alive_that_is_shorter_than_its_setup() {
    let mut world = app(1, Scaling { keep_alive: secs(1), ..Scaling::default() });
    world.handle(Event::WarmRequested { app: A, runners: 1 });
    world.run(secs(2));
    world.expect_states(A, "IDLE");
    world.run(secs(2));
    world.expect_states(A, "");
}

#[test]
fn a_request_causes_a_start_only_after_scaling_delay() {
    let mut world = app(2, Scaling { scaling_delay: secs(5), ..Scaling::default() });
    arrivals(&mut world, 1);
    world.run(secs(4));
    world.expect_states(A, "");
    world.run(secs(1));
    world.expect_states(A, "SETUP");
    world.run(secs(2));
    // One that a warm runner takes before that causes none.
    arrivals(&mut world, 1);
    world.run(secs(4));
    world.expect_states(A, "IDLE");
    assert_eq!(world.facts.delivered, 2);
}

#[test]
fn a_buffer_stays_ahead_of_demand() {
    let mut world = app(9, Scaling { concurrency_buffer: 2, ..Scaling::default() });
    world.run(secs(5));
    world.expect_states(A, "IDLE, IDLE");
    world.behave(A, Behaviour { service: secs(100), ..Behaviour::default() });
    arrivals(&mut world, 1);
    world.run(secs(2));
    world.expect_states(A, "IDLE, RUNNING 1, IDLE");
    world.run(secs(200));
    world.expect_states(A, "IDLE, IDLE");
}

#[test]
fn a_percentage_gives_nothing_at_rest_and_grows_with_traffic() {
    let mut world = app(9, Scaling { concurrency_buffer_perc: 50, ..Scaling::default() });
    world.behave(A, Behaviour { service: secs(100), ..Behaviour::default() });
    world.run(secs(5));
    world.expect_states(A, "");
    arrivals(&mut world, 4);
    world.run(secs(5));
    assert_eq!(world.alive(A).len(), 6);
}

#[test]
fn a_buffer_is_left_alone_while_the_load_goes_up_and_down() {
    let scaling = Scaling { concurrency_buffer: 3, ..Scaling::default() };
    let mut world = app(20, scaling);
    let keep_alive = scaling.keep_alive.as_secs();
    // One or two at a time, for longer than what is idle is kept.
    for second in 0..4 * keep_alive {
        arrivals(&mut world, 1 + u32::from(second % 3 == 0));
        world.run(secs(1));
    }
    let before = world.alive(A);
    assert_eq!(before.len(), 5, "{}", world.states(A));
    for second in 0..4 * keep_alive {
        arrivals(&mut world, 1 + u32::from(second % 3 == 0));
        world.run(secs(1));
        assert_eq!(world.alive(A), before, "after {second} s");
    }
    world.run(secs(2 * keep_alive + 5));
    assert_eq!(world.alive(A).len(), 3);
}

#[test]
fn a_lowered_cap_ends_idle_runners_at_once_and_running_ones_when_done() {
    let mut world = app(3, Scaling { keep_alive: secs(3_600), ..Scaling::default() });
    world.behave(A, Behaviour { service: secs(10), ..Behaviour::default() });
    arrivals(&mut world, 3);
    world.run(secs(2 + 10));
    arrivals(&mut world, 2);
    world.expect_states(A, "IDLE, RUNNING 1, RUNNING 1");
    let capped =
        Scaling { max_concurrency: Some(1), keep_alive: secs(3_600), ..Scaling::default() };
    world.deploy(A, crate::fleet::spec(A, capped), world.behaviours[&A]);
    world.expect_states(A, "TERMINATING, RUNNING 1, RUNNING 1");
    world.run(secs(11));
    assert_eq!(world.alive(A).len(), 1);
    assert_eq!(world.facts.delivered, 5);
}

#[test]
fn a_floor_raised_at_run_time_starts_runners_now() {
    let mut world = app(3, Scaling::default());
    world.add(A, Scaling { min_concurrency: 2, ..Scaling::default() });
    world.run(secs(2));
    world.expect_states(A, "IDLE, IDLE");
    world.run(secs(1_000));
    world.expect_states(A, "IDLE, IDLE");
    world.add(A, Scaling::default());
    world.run(secs(1));
    world.expect_states(A, "");
}

#[test]
fn the_cap_holds_and_requests_wait() {
    let mut world = app(9, Scaling { max_concurrency: Some(2), ..Scaling::default() });
    arrivals(&mut world, 10);
    world.run(secs(2));
    world.expect_states(A, "RUNNING 1, RUNNING 1");
    world.run(secs(5));
    assert_eq!(world.facts.delivered, 10);
}

#[test]
fn load_is_packed_on_few_runners_so_that_others_expire() {
    let mut world = app(3, Scaling { max_multiplexing: 3, ..Scaling::default() });
    arrivals(&mut world, 6);
    world.run(secs(2));
    world.expect_states(A, "RUNNING 3, RUNNING 3");
    world.run(secs(1));
    // Two at a time, for longer than keep_alive: the most recently used takes both.
    for _ in 0..12 {
        arrivals(&mut world, 2);
        assert!(world.states(A).contains("RUNNING 2"), "{}", world.states(A));
        world.run(secs(1));
    }
    assert_eq!(world.alive(A).len(), 1);
}

#[test]
fn a_start_nobody_needs_any_more_is_cancelled_cheapest_first() {
    let mut world = app(1, Scaling { keep_alive: secs(1), ..Scaling::default() });
    let first = world.arrive(A, Mode::Queued);
    let second = world.arrive(A, Mode::Queued);
    world.run(secs(0));
    world.expect_states(A, "SETUP, PENDING");
    world.handle(Event::Cancelled { request: second });
    world.expect_states(A, "SETUP");
    world.handle(Event::Cancelled { request: first });
    world.expect_states(A, "SETUP");
    world.run(secs(1));
    world.expect_states(A, "TERMINATING");
}
