//! Runners that are kept without a processor, and runners of which snapshots are taken.

use std::time::Duration;

use glowplug_core::Rung;
use glowplug_core::engine::Config;
use glowplug_core::event::Event;
use glowplug_core::ids::{AppId, RunnerId};
use glowplug_core::request::Mode;
use glowplug_core::resources::{Allocation, Capacity};
use glowplug_core::spec::Scaling;

use crate::fleet::{A, B, node, secs, spec};
use crate::world::{Behaviour, Setup, World};

/// What a runner of the fleet's apps takes when it has no GPU.
fn processors(slots: u64) -> Capacity {
    Capacity { cpu_millis: slots, ..Capacity::default() }
}

fn freezes() -> Scaling {
    Scaling { frozen_for: Some(secs(100)), ..Scaling::default() }
}

/// An app whose runners take one slot of the processor; it sets up for 2 s and serves for 1 s.
fn deploy(world: &mut World, app: AppId, scaling: Scaling) {
    let mut spec = spec(app, scaling);
    for machine in &mut spec.machine_types {
        (machine.cpu_millis, machine.memory_bytes, machine.gpus) = (1, 0, 0);
    }
    world.deploy(app, spec, Behaviour::default());
}

fn world(slots: u64, frozen_memory_max: u64) -> World {
    World::new(processors(slots), Config { frozen_memory_max, ..Config::default() })
}

/// With A's first runner frozen: at 13 s.
fn with_one_frozen(slots: u64) -> World {
    let mut world = world(slots, 4 << 30);
    deploy(&mut world, A, freezes());
    world.arrive(A, Mode::Direct);
    world.run(secs(13));
    world.expect_states(A, "IDLE (frozen)");
    world
}

#[test]
fn a_runner_is_frozen_instead_of_ended_and_serves_again() {
    let mut world = with_one_frozen(2);
    world.run(secs(50));
    world.arrive(A, Mode::Direct);
    world.expect_states(A, "IDLE (thawing)");
    world.run(Duration::from_millis(2));
    world.expect_states(A, "RUNNING 1");
    let ladder = world.engine.app(A, world.now).unwrap().ladder;
    let measured = ladder.get(Rung::Frozen).unwrap();
    assert_eq!((measured.wakes, measured.last), (1, Duration::from_millis(2)));
    assert_eq!(ladder.get(Rung::ImageCached).unwrap().last, secs(2));
    world.run(secs(11));
    world.expect_states(A, "IDLE (frozen)");
    let story = world.story();
    for sentence in [
        "was frozen instead of stopped: it was idle for 10.0 s, its keep_alive",
        "is thawed after 50.0 s, because the last warm runner had expired while nothing came",
        "became ready after 2.0 ms, from a frozen runner",
        "which was thawed for it",
    ] {
        assert!(story.contains(sentence), "{sentence}\n{story}");
    }
    world.run(secs(100));
    world.expect_states(A, "TERMINATING");
    assert!(world.story().contains("it was frozen for 1 min 40 s, its frozen_for"));
}

#[test]
fn frozen_runners_are_thawed_before_any_is_started() {
    let mut world = world(8, 4 << 30);
    deploy(&mut world, A, freezes());
    for _ in 0..2 {
        world.arrive(A, Mode::Direct);
    }
    world.run(secs(13));
    world.expect_states(A, "IDLE (frozen), IDLE (frozen)");
    for _ in 0..3 {
        world.arrive(A, Mode::Direct);
    }
    world.expect_states(A, "IDLE (thawing), IDLE (thawing), PENDING");
    world.run(secs(13));
    // A person who wants warm runners gets them thawed, too.
    world.expect_states(A, "IDLE (frozen), IDLE (frozen), IDLE (frozen)");
    world.handle(Event::WarmRequested { app: A, runners: 2 });
    world.run(secs(1));
    world.expect_states(A, "IDLE (frozen), IDLE, IDLE");
}

#[test]
fn a_frozen_runner_keeps_no_floor_and_fills_no_cap() {
    let mut world = with_one_frozen(2);
    let scaling = Scaling { max_concurrency: Some(1), min_concurrency: 1, ..freezes() };
    deploy(&mut world, A, scaling);
    // The floor asks for a runner: the frozen one is not one, but is the next to be one.
    world.run(secs(1));
    world.expect_states(A, "IDLE");
    world.run(secs(1_000));
    world.expect_states(A, "IDLE");
}

#[test]
fn a_frozen_runner_is_the_first_to_go() {
    let mut world = with_one_frozen(2);
    deploy(&mut world, B, Scaling { keep_alive: secs(1_000), ..Scaling::default() });
    world.arrive(B, Mode::Direct);
    world.run(secs(5));
    // The room is full, with B idle and A frozen. B's own spike takes A's place.
    for _ in 0..2 {
        world.arrive(B, Mode::Direct);
    }
    world.run(Duration::from_millis(1));
    world.expect_states(A, "TERMINATING");
    world.run(secs(5));
    world.expect_states(A, "");
    world.expect_states(B, "IDLE, IDLE");
    // Also where only a floor asks, for which nobody idle would have to go.
    let mut world = with_one_frozen(1);
    deploy(&mut world, B, Scaling { min_concurrency: 1, ..Scaling::default() });
    world.run(secs(5));
    world.expect_states(A, "");
    world.expect_states(B, "IDLE");
}

#[test]
fn what_holds_too_much_goes_oldest_first() {
    let mut world = world(8, 2);
    deploy(&mut world, A, freezes());
    for wait in [1, 1, 1, 20] {
        world.arrive(A, Mode::Direct);
        world.run(secs(wait));
    }
    // Each is told to hold one byte.
    world.expect_states(A, "IDLE (frozen), IDLE (frozen)");
    assert!(
        world.story().contains("r1-1 of a was stopped in IDLE (frozen) because frozen runners")
    );
}

#[test]
fn a_host_that_cannot_freeze_is_asked_again_later() {
    let mut world = world(8, 4 << 30);
    deploy(&mut world, A, freezes());
    world.arrive(A, Mode::Direct);
    world.run(secs(5));
    world.behave(A, Behaviour { setup: Setup::Hangs, ..Behaviour::default() });
    world.run(secs(20));
    world.expect_states(A, "");
    assert!(world.story().contains("it could not be frozen: no control groups"));
    world.behave(A, Behaviour::default());
    world.arrive(A, Mode::Direct);
    world.run(secs(20));
    world.expect_states(A, "");
    assert!(!world.story().contains("frozen"));
    world.run(secs(600));
    world.arrive(A, Mode::Direct);
    world.run(secs(20));
    world.expect_states(A, "IDLE (frozen)");
}

#[test]
fn what_is_frozen_ends_with_its_app_its_code_and_its_wish() {
    let check = |change: fn(&mut World)| {
        let mut world = with_one_frozen(2);
        change(&mut world);
        world.run(secs(1));
        world.expect_states(A, "");
    };
    check(|world| world.handle(Event::AppRemoved { app: A }));
    check(|world| world.handle(Event::ShutDown));
    check(|world| deploy(world, A, Scaling::default()));
    check(|world| {
        let mut newer = spec(A, freezes());
        newer.revision += 1;
        world.deploy(A, newer, Behaviour::default());
    });
}

#[test]
fn one_with_gpus_is_ended() {
    let mut world = node(1);
    world.add(A, freezes());
    world.arrive(A, Mode::Direct);
    world.run(secs(14));
    world.expect_states(A, "");
}

#[test]
fn one_that_does_not_come_back_is_given_up() {
    let mut world = with_one_frozen(2);
    let frozen = world.engine.runners().next().unwrap().id;
    world.engine.handle(world.now, Event::WarmRequested { app: A, runners: 1 });
    // Nobody performs the thaw.
    while world.engine.next_action().is_some() {}
    for _ in 0..2 {
        let at = world.engine.next_wakeup().unwrap();
        world.engine.advance(at);
    }
    let view = world.engine.runner(frozen).unwrap();
    assert!(view.stop.unwrap().to_string().contains("was not thawed within 10 s"));
}

#[test]
fn a_frozen_runner_of_an_earlier_life_is_taken_over_as_one() {
    let mut world = world(2, 4 << 30);
    deploy(&mut world, A, freezes());
    let runner = RunnerId { boot: 0, sequence: 7 };
    let allocation = Allocation { cpu_millis: 1, ..Allocation::default() };
    world.adopt(runner, A, allocation, true, true);
    world.expect_states(A, "IDLE (frozen)");
    world.arrive(A, Mode::Direct);
    world.run(secs(3));
    assert!(world.story().contains("r0-7 of a became ready after 2.0 ms, from a frozen runner"));
}

#[test]
fn a_capture_takes_room_that_nobody_wants_and_serves_nobody() {
    let mut world = world(2, 4 << 30);
    deploy(&mut world, A, Scaling::default());
    deploy(&mut world, B, Scaling::default());
    world.arrive(A, Mode::Direct);
    world.handle(Event::CaptureRequested { app: A });
    world.run(secs(1));
    world.expect_states(A, "SETUP, SETUP");
    world.arrive(A, Mode::Direct);
    // The capture is in the way of A's own second runner.
    world.expect_states(A, "SETUP, TERMINATING, PENDING");
    world.run(secs(20));
    world.expect_states(A, "");
    // Wished while there is no room: it starts when there is some.
    for _ in 0..2 {
        world.arrive(B, Mode::Direct);
    }
    world.handle(Event::CaptureRequested { app: A });
    world.expect_states(A, "");
    world.run(secs(14));
    world.expect_states(A, "SETUP");
    world.run(secs(3));
    world.expect_states(A, "IDLE");
    world.arrive(A, Mode::Direct);
    world.run(secs(1));
    world.expect_states(A, "IDLE, SETUP");
    world.run(secs(900));
    world.expect_states(A, "");
    assert!(world.story().contains("no snapshot was taken of it within 600 s"));
}

#[test]
fn a_capture_that_fails_does_not_delay_starts() {
    let mut world = world(2, 4 << 30);
    deploy(&mut world, A, Scaling::default());
    world.behave(A, Behaviour { setup: Setup::Crashes(secs(1)), ..Behaviour::default() });
    world.handle(Event::CaptureRequested { app: A });
    world.run(secs(1));
    world.expect_states(A, "");
    world.behave(A, Behaviour::default());
    world.arrive(A, Mode::Direct);
    world.run(secs(1));
    world.expect_states(A, "SETUP");
    // One that is not wanted any more never starts.
    world.handle(Event::CaptureForgone { app: A });
    world.run(secs(100));
    world.expect_states(A, "");
}
