//! Stopping, replacing, redeploying, adopting, shutting down.

use glowplug_core::RunnerId;
use glowplug_core::event::{Event, StopRequest};
use glowplug_core::request::{Mode, Refusal};
use glowplug_core::resources::Allocation;
use glowplug_core::spec::Scaling;

use crate::fleet::{A, node, secs, spec};
use crate::world::{Behaviour, Ending, Setup, World};

/// One runner at work for 100 s, and a floor of one.
fn at_work(slots: u32) -> World {
    let mut world = node(slots);
    let scaling = Scaling { min_concurrency: 1, max_concurrency: Some(1), ..Scaling::default() };
    world.add(A, scaling);
    world.behave(A, Behaviour { service: secs(100), exit: secs(100), ..Behaviour::default() });
    world.run(secs(2));
    world.arrive(A, Mode::Queued);
    world.expect_states(A, "RUNNING 1");
    world
}

#[test]
fn stop_gives_requests_the_grace_period() {
    let mut world = at_work(2);
    world.stop(world.alive(A)[0], StopRequest::Graceful);
    world.run(secs(4));
    world.expect_states(A, "DRAINING 1, IDLE");
}

#[test]
fn kill_does_not_wait_and_the_queue_tries_again() {
    let mut world = at_work(1);
    world.stop(world.alive(A)[0], StopRequest::Kill);
    world.run(secs(0));
    world.behave(A, Behaviour::default());
    world.run(secs(10));
    assert_eq!((world.facts.delivered, world.facts.served), (1, 2));
}

#[test]
fn stop_with_replace_starts_the_other_first_above_the_cap() {
    let mut world = at_work(2);
    world.behave(A, Behaviour { service: secs(1), exit: secs(1), ..Behaviour::default() });
    let old = world.alive(A)[0];
    world.story.clear();
    world.stop(old, StopRequest::ReplaceFirst);
    world.run(secs(1));
    world.expect_states(A, "RUNNING 1, SETUP");
    world.run(secs(4));
    world.expect_states(A, "IDLE");
    assert_ne!(world.alive(A)[0], old);
    world.expect_story("
2.00 r1-2 of a was wanted because it replaces a runner that was told to end: 1 request(s) need 1 runner(s) plus 0 spare, 1 in all, and 1 were alive
2.00 r1-2 of a was placed as 1 slot on GPU 1 after 0 µs in PENDING
4.00 r1-2 of a became ready after 2.00 s, of it 2.00 s in SETUP, from the disk
4.00 r1-1 of a was stopped in RUNNING because r1-2 took its place
5.00 attempt 1 of request q1 of a failed on r1-1 (connection_error); it is tried again in 236 ms
5.00 r1-1 of a is gone; it lived 5.00 s and served 1 request(s)
5.24 request q1 of a waited 3.24 s for r1-2, which was started for it (attempt 2)
");
}

#[test]
fn a_runner_stays_if_its_replacement_fails() {
    let mut world = at_work(2);
    world.behave(A, Behaviour { setup: Setup::Crashes(secs(1)), ..Behaviour::default() });
    let old = world.alive(A)[0];
    world.stop(old, StopRequest::ReplaceFirst);
    world.run(secs(40));
    assert_eq!(world.alive(A), [old]);
}

#[test]
fn replacing_a_start_that_has_nothing_starts_another() {
    let mut world = node(1);
    world.deploy(
        A,
        spec(A, Scaling { min_concurrency: 1, ..Scaling::default() }),
        Behaviour { setup: Setup::NoRoom, ..Behaviour::default() },
    );
    world.run(secs(0));
    let old = world.alive(A)[0];
    world.behave(A, Behaviour::default());
    world.stop(old, StopRequest::ReplaceFirst);
    world.run(secs(2));
    world.expect_states(A, "IDLE");
}

#[test]
fn new_code_ends_old_runners_after_what_they_are_at() {
    let mut world = at_work(3);
    let mut newer = spec(A, Scaling { min_concurrency: 1, ..Scaling::default() });
    newer.revision = 2;
    world.behave(A, Behaviour::default());
    world.handle(Event::AppChanged { app: A, spec: newer });
    world.run(secs(5));
    let states = world.states(A);
    assert!(states.starts_with("DRAINING 1, IDLE"), "{states}");
    world.run(secs(100));
    assert_eq!((world.facts.delivered, world.facts.served), (1, 1));
    world.expect_states(A, "IDLE");
}

#[test]
fn a_request_to_stop_ends_the_patience_with_a_draining_runner() {
    let mut world = at_work(3);
    let old = world.alive(A)[0];
    let mut newer = spec(A, Scaling::default());
    newer.revision = 2;
    world.behave(A, Behaviour { exit: secs(100), ..Behaviour::default() });
    world.handle(Event::AppChanged { app: A, spec: newer });
    world.run(secs(10));
    assert_eq!(world.engine.runner(old).unwrap().in_flight, 1);
    world.stop(old, StopRequest::Graceful);
    world.run(secs(6));
    assert!(world.engine.runner(old).is_none());
}

#[test]
fn an_adopted_runner_serves_and_is_not_started() {
    let mut world = node(1);
    world.add(A, Scaling::default());
    let slot = Allocation {
        machine_type: "1 slot".into(),
        cpu_millis: 1_000,
        memory_bytes: 1 << 30,
        gpus: vec![0],
    };
    let runner = RunnerId { boot: 0, sequence: 1 };
    world.adopt(runner, A, slot.clone(), true, false);
    let request = world.arrive(A, Mode::Queued);
    assert_eq!(world.facts.assigned_to, [(request, runner)]);
    assert_eq!(world.engine.ledger().free(), (0, 0));
    // Told twice, it is still one.
    world.adopt(runner, A, slot, true, false);
    assert_eq!(world.engine.runner_count(), 1);
    world.run(secs(20));
    assert_eq!(world.engine.ledger().free(), (1_000, 1 << 30));
}

#[test]
fn an_adopted_runner_of_old_code_or_no_app_ends() {
    let mut world = node(2);
    world.add(A, Scaling::default());
    let stranger = RunnerId { boot: 0, sequence: 1 };
    world.adopt(stranger, crate::fleet::B, Allocation::default(), true, false);
    world.run(secs(1));
    assert!(world.engine.runner(stranger).is_none());
    let mut newer = spec(A, Scaling::default());
    newer.revision = 2;
    let old = RunnerId { boot: 0, sequence: 2 };
    world.adopt(old, A, Allocation::default(), true, false);
    world.handle(Event::AppChanged { app: A, spec: newer });
    world.run(secs(1));
    assert!(world.engine.runner(old).is_none());
}

#[test]
fn ids_stay_unique_even_if_a_boot_number_is_used_twice() {
    let mut world = node(2);
    world.add(A, Scaling { max_multiplexing: 1, ..Scaling::default() });
    world.adopt(RunnerId { boot: 1, sequence: 1 }, A, Allocation::default(), true, false);
    world.arrive(A, Mode::Queued);
    world.arrive(A, Mode::Queued);
    world.run(secs(10));
    assert_eq!(world.facts.delivered, 2);
}

#[test]
fn a_runner_that_ignores_its_end_is_killed_again_and_again() {
    let mut world = at_work(2);
    let runner = world.alive(A)[0];
    world.run(secs(1));
    // Nobody performs what the engine asks for.
    world.engine.handle(world.now, Event::StopRequested { runner, how: StopRequest::Kill });
    let mut kills = 0;
    for _ in 0..4 {
        while let Some(action) = world.engine.next_action() {
            let kill = matches!(
                action,
                glowplug_core::Action::Stop { runner: told, grace: None, .. } if told == runner
            );
            kills += u32::from(kill);
        }
        world.now = world.now + secs(10);
        world.engine.advance(world.now);
    }
    assert_eq!(kills, 4);
}

#[test]
fn shutting_down_ends_everything_and_keeps_the_queue() {
    let mut world = at_work(3);
    world.add(A, Scaling { max_concurrency: Some(2), concurrency_buffer: 1, ..Scaling::default() });
    let mut newer = spec(A, Scaling { max_concurrency: Some(1), ..Scaling::default() });
    newer.revision = 2;
    world.behave(A, Behaviour { outcome: Ending::Hangs, exit: secs(100), ..Behaviour::default() });
    world.handle(Event::AppChanged { app: A, spec: newer });
    world.arrive(A, Mode::Queued);
    let queued = world.arrive(A, Mode::Queued);
    let direct = world.arrive(A, Mode::Direct);
    world.run(secs(6));
    // One drains softly, one runs, two wait.
    world.expect_states(A, "DRAINING 1, RUNNING 1");
    world.handle(Event::ShutDown);
    assert_eq!(world.facts.refused[&direct], Refusal::ShuttingDown);
    world.run(secs(6));
    assert_eq!(world.engine.runner_count(), 0);
    assert!(world.engine.waiting(A).contains(&queued));
    world.run(secs(1_000));
    assert_eq!(world.engine.runner_count(), 0);
}

#[test]
fn a_runner_taken_over_that_turns_out_dead_is_no_failed_start() {
    let mut world = node(1);
    world.add(A, Scaling::default());
    let runner = RunnerId { boot: 0, sequence: 1 };
    world.adopt(runner, A, Allocation::default(), false, false);
    world.arrive(A, Mode::Queued);
    world.handle(Event::Exited { runner, detail: "it died with the node".into() });
    world.run(secs(0));
    world.expect_states(A, "SETUP");
}
