//! Apps that somebody is about to use.

use std::time::Duration;

use glowplug_core::auto::Settings;
use glowplug_core::event::Event;
use glowplug_core::request::Mode;
use glowplug_core::spec::{Policy, Scaling};

use crate::fleet::{A, node, secs};
use crate::world::World;

fn auto(keep_max: Duration) -> Scaling {
    let settings = Settings { keep_max, ..Settings::default() };
    Scaling { policy: Policy::Auto(settings), ..Scaling::default() }
}

fn app(scaling: Scaling) -> World {
    let mut world = node(20);
    world.add(A, scaling);
    world
}

fn sign(world: &mut World) {
    world.handle(Event::Interest { app: A });
}

/// How long a runner lives while somebody asks for a status every second and nothing else happens.
fn polled_life(world: &mut World) -> Duration {
    let began = world.now;
    while !world.alive(A).is_empty() {
        assert!(world.now - began < secs(100_000), "it is kept for ever");
        sign(world);
        world.run(secs(1));
    }
    world.now - began
}

#[test]
fn the_first_sign_starts_a_runner_and_says_why() {
    let mut world = app(auto(secs(14_400)));
    sign(&mut world);
    sign(&mut world);
    world.run(secs(3));
    assert_eq!(world.alive(A).len(), 1);
    let story = world.story();
    assert!(story.contains("was wanted because a request is expected"), "{story}");
    assert!(
        story.contains("somebody shows interest in the app, and with 50 % a request follows"),
        "{story}"
    );
    world.arrive(A, Mode::Queued);
    world.run(secs(1));
    assert!(!world.story().contains("waited"), "it is warm");
    let learned = world.engine.learned(A, world.now).unwrap();
    assert!((learned.signs - 1.0).abs() < 1e-9 && learned.follows > 0.6, "{learned:?}");
}

#[test]
fn signs_say_nothing_of_apps_with_fixed_parameters() {
    let mut world = app(Scaling::default());
    sign(&mut world);
    world.run(secs(3));
    assert!(world.alive(A).is_empty());
    assert_eq!(world.engine.learned(A, world.now), None);
}

#[test]
fn a_sign_counts_as_use_of_the_last_runner_for_one_further_life() {
    let served = |keep_max| {
        let mut world = app(auto(keep_max));
        for _ in 0..20 {
            world.arrive(A, Mode::Queued);
            world.run(secs(20));
        }
        assert_eq!(world.alive(A).len(), 1);
        world
    };
    let mut left_alone = served(secs(14_400));
    let began = left_alone.now;
    while !left_alone.alive(A).is_empty() {
        left_alone.run(secs(1));
    }
    let life = left_alone.now - began;
    let polled = polled_life(&mut served(secs(14_400)));
    // The runner has been idle for 19 of 20 seconds when the looking begins.
    assert!(polled > life + life / 2 && polled < life * 2 + secs(30), "{polled:?} and {life:?}");
    let bounded = polled_life(&mut served(secs(60)));
    assert!(bounded <= secs(60), "{bounded:?}: the stated limit holds");
}

#[test]
fn who_only_looks_starts_fewer_and_fewer() {
    let mut world = app(auto(secs(14_400)));
    let mut starts = Vec::new();
    for _ in 0..20 {
        sign(&mut world);
        world.run(secs(5_000));
        starts.push(world.story().lines().filter(|line| line.contains("was wanted")).count());
    }
    assert!(world.alive(A).is_empty());
    assert!(
        starts.iter().sum::<usize>() <= 4 && starts[10..].iter().all(|n| *n == 0),
        "{starts:?}"
    );
}

#[test]
fn what_was_learned_in_another_life_counts() {
    let mut before = app(auto(secs(14_400)));
    for _ in 0..40 {
        before.arrive(A, Mode::Queued);
        before.run(secs(30));
    }
    let known = before.engine.learned(A, before.now).unwrap();
    assert!(known.kept[0].returns > 10.0);

    let mut learner = glowplug_core::auto::Learner::new(&Settings::default());
    for nth in 0..40 {
        let at = glowplug_core::Timestamp::from_secs(nth * 30);
        learner.demand(at, 1, 1);
        learner.demand(at + secs(1), 0, 1);
    }
    let mut after = node(20);
    after.engine.teach(A, learner);
    after.add(A, auto(secs(14_400)));
    let taught = after.engine.learned(A, after.now).unwrap();
    assert!(taught.kept[0].returns > 10.0, "{taught:?}");
    let sentences = taught.sentences().join("\n");
    assert!(sentences.contains("an idle 1st runner is kept for"), "{sentences}");
    assert!(
        sentences.contains(&format!(
            "a second of waiting is worth {:.1} runner-seconds",
            Settings::BALANCED
        )),
        "{sentences}"
    );
    assert!(sentences.contains("no spare runner is wanted"), "{sentences}");
}
