//! Apps that are scaled by what is learned of them.

use glowplug_core::auto::Settings;
use glowplug_core::event::Event;
use glowplug_core::request::Mode;
use glowplug_core::spec::{Policy, Scaling};

use crate::fleet::{A, node, secs};
use crate::world::World;

fn learned() -> Scaling {
    Scaling { policy: Policy::Auto(Settings::default()), ..Scaling::default() }
}

fn app(scaling: Scaling) -> World {
    let mut world = node(20);
    world.add(A, scaling);
    world
}

fn arrivals(world: &mut World, count: u32) {
    for _ in 0..count {
        world.arrive(A, Mode::Queued);
    }
}

/// Starts since the last look.
fn starts(world: &mut World) -> usize {
    world.story().lines().filter(|line| line.contains(" was wanted because ")).count()
}

#[test]
fn a_runner_is_kept_as_long_as_its_use_makes_it_worth() {
    let lifetime = |gap: u64| {
        let mut world = app(learned());
        for _ in 0..40 {
            arrivals(&mut world, 1);
            world.run(secs(gap));
        }
        let quiet_since = world.now;
        while !world.alive(A).is_empty() {
            world.run(secs(1));
        }
        assert!(world.story().contains("stopped in IDLE because it was idle for"));
        world.now - quiet_since
    };
    let (often, seldom) = (lifetime(5), lifetime(3_000));
    // 2 s of start, and 2 s of waiting at 12 runner-seconds each, are worth 26 s; half of it is the least.
    assert!(often > secs(13) && often < secs(600), "{often:?}");
    assert!(seldom <= secs(30), "{seldom:?}");
}

#[test]
fn what_comes_every_few_seconds_finds_its_runner() {
    let mut world = app(learned());
    for _ in 0..30 {
        arrivals(&mut world, 1);
        world.run(secs(8));
    }
    assert!(starts(&mut world) <= 3);
    for _ in 0..100 {
        arrivals(&mut world, 1);
        world.run(secs(8));
    }
    assert_eq!(starts(&mut world), 0);
}

#[test]
fn floor_buffer_and_cap_bound_what_is_learned() {
    let scaling = Scaling { min_concurrency: 2, max_concurrency: Some(3), ..learned() };
    let mut world = app(scaling);
    world.run(secs(5_000));
    assert_eq!(world.alive(A).len(), 2, "the floor");
    arrivals(&mut world, 10);
    world.run(secs(3));
    assert_eq!(world.alive(A).len(), 3, "the cap");
    let mut world = app(Scaling { concurrency_buffer: 3, ..learned() });
    world.run(secs(5_000));
    assert_eq!(world.alive(A).len(), 3, "the buffer");
}

#[test]
fn an_idle_runner_is_not_kept_beyond_the_stated_limit() {
    let settings = Settings { wait_price: 100.0, keep_max: secs(20), ..Settings::default() };
    let mut world = app(Scaling { policy: Policy::Auto(settings), ..Scaling::default() });
    for _ in 0..50 {
        arrivals(&mut world, 1);
        world.run(secs(10));
    }
    assert_eq!(world.alive(A).len(), 1);
    world.run(secs(20));
    assert!(world.alive(A).is_empty(), "{}", world.states(A));
    assert!(world.story().contains("no idle runner is kept for more than 20.0 s"));
}

#[test]
fn a_buffer_beside_what_is_learned_does_not_flap() {
    let mut world = app(Scaling { concurrency_buffer: 3, ..learned() });
    let second = |world: &mut World, nth: u64| {
        arrivals(world, 1 + u32::from(nth.is_multiple_of(3)));
        world.run(secs(1));
    };
    (0..120).for_each(|nth| second(&mut world, nth));
    starts(&mut world);
    (0..600).for_each(|nth| second(&mut world, nth));
    assert_eq!(starts(&mut world), 0, "{}", world.states(A));
}

#[test]
fn clockwork_finds_its_runner_ready() {
    let mut world = app(learned());
    for _ in 0..8 {
        arrivals(&mut world, 1);
        world.run(secs(1_800));
    }
    let story = world.story();
    assert!(story.contains("is expected to be used: the last"), "{story}");
    let served = world.facts.served;
    for _ in 0..10 {
        arrivals(&mut world, 1);
        world.run(secs(1_800));
    }
    assert_eq!(world.facts.served - served, 10);
    let story = world.story();
    assert!(!story.contains(" waited "), "a request had to wait\n{story}");
}

#[test]
fn what_somebody_asked_for_serves_out_keep_alive() {
    let mut world = app(Scaling { keep_alive: secs(300), ..learned() });
    world.handle(Event::WarmRequested { app: A, runners: 2 });
    world.run(secs(2 + 290));
    world.expect_states(A, "IDLE, IDLE");
    world.run(secs(20));
    assert!(world.alive(A).is_empty(), "{}", world.states(A));
}

#[test]
fn settings_change_while_it_runs() {
    let mut world = app(learned());
    for _ in 0..30 {
        arrivals(&mut world, 1);
        world.run(secs(10));
    }
    world.expect_states(A, "IDLE");
    world.add(A, Scaling { keep_alive: secs(1), ..Scaling::default() });
    world.run(secs(2));
    assert!(world.alive(A).is_empty(), "the fixed parameter counts again");
    world.add(A, learned());
    arrivals(&mut world, 1);
    world.run(secs(10));
    world.expect_states(A, "IDLE");
}
