//! Every row of fal's transition table, through the engine: what leads from state to state, and what is
//! decided on the way.

use glowplug_core::event::{Event, StopRequest};
use glowplug_core::request::Mode;
use glowplug_core::spec::Scaling;

use crate::fleet::{A, B, node, secs, spec};
use crate::world::{Behaviour, Setup, World};

/// A node with one app, whose runner pulls for 3 s, sets up for 2 s and serves for 1 s.
fn one_app() -> World {
    let mut world = node(2);
    let behaviour = Behaviour { pull: Some(secs(3)), ..Behaviour::default() };
    world.deploy(A, spec(A, Scaling::default()), behaviour);
    world
}

fn at(start: World, moments: &[(u64, &str)]) -> World {
    let mut world = start;
    for (after, states) in moments {
        world.run(secs(*after));
        world.expect_states(A, states);
    }
    world
}

#[test]
fn wanted_to_pending_to_docker_pull_to_setup_to_idle_to_running_and_back() {
    let mut world = one_app();
    world.handle(Event::WarmRequested { app: A, runners: 1 });
    world.expect_states(A, "PENDING");
    let mut world = at(world, &[(0, "DOCKER_PULL"), (3, "SETUP"), (2, "IDLE")]);
    world.arrive(A, Mode::Direct);
    world.expect_states(A, "RUNNING 1");
    at(world, &[(1, "IDLE"), (10, "TERMINATING"), (1, "")]);
}

#[test]
fn pending_to_setup_when_the_image_is_cached() {
    let mut world = one_app();
    world.behave(A, Behaviour::default());
    world.arrive(A, Mode::Direct);
    world.expect_states(A, "PENDING");
    at(world, &[(0, "SETUP"), (2, "RUNNING 1")]);
}

#[test]
fn pending_for_lack_of_room() {
    let mut world = node(1);
    world.add(B, Scaling { min_concurrency: 1, ..Scaling::default() });
    world.add(A, Scaling::default());
    world.arrive(A, Mode::Queued);
    let mut world = at(world, &[(500, "PENDING")]);
    world.handle(Event::AppRemoved { app: B });
    at(world, &[(1, "SETUP")]);
}

#[test]
fn setup_to_terminated_by_a_crash_and_the_next_in_failure_delay() {
    let mut world = one_app();
    world.behave(A, Behaviour { setup: Setup::Crashes(secs(1)), ..Behaviour::default() });
    world.arrive(A, Mode::Queued);
    let mut world = at(world, &[(0, "SETUP"), (1, "FAILURE_DELAY"), (29, "FAILURE_DELAY")]);
    world.behave(A, Behaviour::default());
    at(world, &[(1, "SETUP"), (2, "RUNNING 1")]);
}

#[test]
fn setup_to_terminating_by_startup_timeout() {
    let mut world = node(2);
    let scaling = Scaling { startup_timeout: secs(7), ..Scaling::default() };
    let behaviour = Behaviour { setup: Setup::Hangs, exit: secs(3), ..Behaviour::default() };
    world.deploy(A, spec(A, scaling), behaviour);
    world.arrive(A, Mode::Queued);
    at(
        world,
        &[
            (0, "SETUP"),
            (6, "SETUP"),
            (1, "TERMINATING, FAILURE_DELAY"),
            (3, "FAILURE_DELAY"),
            (26, "FAILURE_DELAY"),
            (1, "SETUP"),
        ],
    );
}

#[test]
fn startup_timeout_does_not_count_the_pull() {
    let mut world = node(1);
    let scaling = Scaling { startup_timeout: secs(3), ..Scaling::default() };
    let behaviour = Behaviour { pull: Some(secs(3_600)), ..Behaviour::default() };
    world.deploy(A, spec(A, scaling), behaviour);
    world.arrive(A, Mode::Direct);
    at(world, &[(3_600, "SETUP"), (2, "RUNNING 1")]);
}

#[test]
fn running_to_draining_to_terminating_to_terminated() {
    let mut world = one_app();
    let behaviour = Behaviour { service: secs(2), exit: secs(4), ..Behaviour::default() };
    world.behave(A, behaviour);
    world.arrive(A, Mode::Queued);
    let mut world = at(world, &[(2, "RUNNING 1")]);
    let runner = world.alive(A)[0];
    world.stop(runner, StopRequest::Graceful);
    // Requests in flight count as demand wherever they run.
    world.expect_states(A, "DRAINING 1, PENDING");
    at(world, &[(2, "TERMINATING, IDLE"), (2, "IDLE"), (8, "TERMINATING")]);
}

#[test]
fn draining_to_terminated_when_grace_is_used_up() {
    let mut world = one_app();
    let behaviour = Behaviour { service: secs(60), exit: secs(60), ..Behaviour::default() };
    world.behave(A, behaviour);
    world.arrive(A, Mode::Direct);
    let mut world = at(world, &[(2, "RUNNING 1")]);
    let runner = world.alive(A)[0];
    world.stop(runner, StopRequest::Graceful);
    // The grace period is 5 s; the direct request is lost and nothing else is wanted.
    world.run(secs(4));
    assert!(world.states(A).starts_with("DRAINING 1"));
    world.run(secs(1));
    assert_eq!(world.facts.delivered, 1);
    assert!(!world.states(A).contains("DRAINING"));
}

#[test]
fn idle_to_terminating_by_keep_alive() {
    let mut world = one_app();
    world.behave(A, Behaviour { exit: secs(2), ..Behaviour::default() });
    world.arrive(A, Mode::Direct);
    at(world, &[(3, "IDLE"), (9, "IDLE"), (1, "TERMINATING"), (2, "")]);
}

#[test]
fn no_room_at_the_backend_to_failure_delay_and_back() {
    let mut world = one_app();
    world.behave(A, Behaviour { setup: Setup::NoRoom, ..Behaviour::default() });
    world.arrive(A, Mode::Direct);
    let mut world = at(world, &[(0, "FAILURE_DELAY"), (19, "FAILURE_DELAY")]);
    assert_eq!(world.engine.ledger().free(), (2_000, 2 << 30));
    world.behave(A, Behaviour::default());
    at(world, &[(1, "SETUP"), (2, "RUNNING 1")]);
}
