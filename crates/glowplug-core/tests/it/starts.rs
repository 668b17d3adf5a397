//! Starts that fail, and why starts happen.

use glowplug_core::Rung;
use glowplug_core::decision::StartCause;
use glowplug_core::event::{Event, StopRequest};
use glowplug_core::request::{Mode, Refusal};
use glowplug_core::spec::Scaling;

use crate::fleet::{A, B, capacity, node, secs, slots, spec};
use crate::world::{Behaviour, Setup, World};

fn crashing() -> Behaviour {
    Behaviour { setup: Setup::Crashes(secs(1)), ..Behaviour::default() }
}

#[test]
fn failed_starts_wait_30_s_more_each_time() {
    let mut world = node(1);
    world.deploy(A, spec(A, Scaling::default()), crashing());
    world.arrive(A, Mode::Queued);
    world.run(secs(100));
    world.expect_story("
0.00 r1-1 of a was wanted because the app had never run before: 1 request(s) need 1 runner(s) plus 0 spare, 1 in all, and 0 were alive
0.00 r1-1 of a was placed as 1 slot on GPU 0 after 0 µs in PENDING
1.00 r1-1 of a failed to start (exit code 1); failure 1 in a row, the next try is in 30.0 s
1.00 r1-1 of a is gone; it lived 1.00 s and served 0 request(s)
1.00 r1-2 of a was wanted because the app had never run before: 1 request(s) need 1 runner(s) plus 0 spare, 1 in all, and 0 were alive
1.00 r1-2 of a waits 30.0 s in FAILURE_DELAY, since 1 start(s) in a row failed
31.00 r1-2 of a was placed as 1 slot on GPU 0 after 0 µs in PENDING
32.00 r1-2 of a failed to start (exit code 1); failure 2 in a row, the next try is in 1 min
32.00 r1-2 of a is gone; it lived 31.0 s and served 0 request(s)
32.00 r1-3 of a was wanted because the app had never run before: 1 request(s) need 1 runner(s) plus 0 spare, 1 in all, and 0 were alive
32.00 r1-3 of a waits 1 min in FAILURE_DELAY, since 2 start(s) in a row failed
92.00 r1-3 of a was placed as 1 slot on GPU 0 after 0 µs in PENDING
93.00 r1-3 of a failed to start (exit code 1); failure 3 in a row, the next try is in 1 min 30 s
93.00 r1-3 of a is gone; it lived 1 min 1 s and served 0 request(s)
93.00 r1-4 of a was wanted because the app had never run before: 1 request(s) need 1 runner(s) plus 0 spare, 1 in all, and 0 were alive
93.00 r1-4 of a waits 1 min 30 s in FAILURE_DELAY, since 3 start(s) in a row failed
");
    // From the fourth failure on: 120 s, … up to 600 s.
    world.run(secs(20_000));
    let waits: Vec<String> = world
        .story()
        .lines()
        .filter_map(|line| Some(line.split_once("the next try is in ")?.1.to_owned()))
        .collect();
    assert_eq!(waits[..3], ["2 min", "2 min 30 s", "3 min"]);
    assert_eq!(waits[14..17], ["9 min", "9 min 30 s", "10 min"]);
    assert!(waits[17..].iter().all(|wait| wait == "10 min") && waits.len() > 30, "{waits:?}");
}

#[test]
fn a_success_wakes_all_waiters_and_resets() {
    let mut world = node(3);
    world.deploy(A, spec(A, Scaling::default()), crashing());
    for _ in 0..3 {
        world.arrive(A, Mode::Queued);
    }
    world.run(secs(1));
    world.expect_states(A, "FAILURE_DELAY, FAILURE_DELAY, FAILURE_DELAY");
    // One that was started elsewhere lives.
    world.behave(A, Behaviour { service: secs(60), ..Behaviour::default() });
    let allocation = glowplug_core::resources::Allocation::default();
    let adopted = glowplug_core::RunnerId { boot: 0, sequence: 1 };
    world.adopt(adopted, A, allocation, false, false);
    world.handle(Event::Ready { runner: adopted });
    world.run(secs(0));
    world.expect_states(A, "RUNNING 1, SETUP, SETUP");
    let app = world.engine.app(A, world.now).unwrap();
    assert_eq!(app.backoff_until, None);
}

#[test]
fn starts_that_fail_together_wait_30_s_together() {
    let mut world = node(4);
    world.deploy(A, spec(A, Scaling::default()), crashing());
    for _ in 0..9 {
        world.arrive(A, Mode::Queued);
    }
    world.run(secs(30));
    assert!(world.states(A).split(", ").all(|state| state == "FAILURE_DELAY"));
    world.behave(A, Behaviour::default());
    world.run(secs(1));
    assert!(world.states(A).starts_with("SETUP, SETUP, SETUP, SETUP, PENDING"));
}

#[test]
fn the_place_of_a_failed_start_is_not_for_the_next_to_fail_on() {
    let mut world = node(1);
    world.deploy(A, spec(A, Scaling::default()), crashing());
    for _ in 0..3 {
        world.arrive(A, Mode::Queued);
    }
    world.run(secs(1));
    world.expect_states(A, "FAILURE_DELAY, FAILURE_DELAY, FAILURE_DELAY");
    world.run(secs(31));
    let failures = world.story().matches("failure 2 in a row").count();
    assert_eq!(failures, 1);
}

#[test]
fn no_room_at_the_backend_is_20_s_flat_and_no_failure() {
    let mut world = node(1);
    let behaviour = Behaviour { setup: Setup::NoRoom, ..Behaviour::default() };
    world.deploy(A, spec(A, Scaling::default()), behaviour);
    world.arrive(A, Mode::Direct);
    world.run(secs(50));
    world.expect_story("
0.00 r1-1 of a was wanted because the app had never run before: 1 request(s) need 1 runner(s) plus 0 spare, 1 in all, and 0 were alive
0.00 r1-1 of a was placed as 1 slot on GPU 0 after 0 µs in PENDING
0.00 r1-1 of a found no room (full); the next try is in 20.0 s
20.00 r1-1 of a was placed as 1 slot on GPU 0 after 0 µs in PENDING
20.00 r1-1 of a found no room (full); the next try is in 20.0 s
40.00 r1-1 of a was placed as 1 slot on GPU 0 after 0 µs in PENDING
40.00 r1-1 of a found no room (full); the next try is in 20.0 s
");
}

#[test]
fn new_code_does_not_pay_for_the_failures_of_the_old() {
    let mut world = node(1);
    world.deploy(A, spec(A, Scaling::default()), crashing());
    world.arrive(A, Mode::Queued);
    world.run(secs(100));
    world.expect_states(A, "FAILURE_DELAY");
    let mut fixed = spec(A, Scaling::default());
    fixed.revision = 2;
    world.deploy(A, fixed, Behaviour::default());
    world.run(secs(0));
    world.expect_states(A, "SETUP");
}

#[test]
fn a_direct_caller_is_told_of_a_failed_start_and_a_queued_one_waits() {
    let mut world = node(2);
    world.deploy(A, spec(A, Scaling::default()), crashing());
    let direct = world.arrive(A, Mode::Direct);
    let queued = world.arrive(A, Mode::Queued);
    world.run(secs(1));
    let told = Refusal::StartFailed { reason: "exit code 1".into() };
    assert_eq!(world.facts.refused.get(&direct), Some(&told));
    assert_eq!(world.engine.waiting(A), [queued]);
}

#[test]
fn a_direct_caller_is_told_of_a_startup_timeout() {
    let mut world = node(1);
    let scaling = Scaling { startup_timeout: secs(5), ..Scaling::default() };
    let behaviour = Behaviour { setup: Setup::Hangs, ..Behaviour::default() };
    world.deploy(A, spec(A, scaling), behaviour);
    let direct = world.arrive(A, Mode::Direct);
    world.run(secs(5));
    assert_eq!(world.facts.refused.get(&direct), Some(&Refusal::StartupTimeout { seconds: 5 }));
}

#[test]
fn a_direct_caller_waits_while_another_start_may_still_succeed() {
    let mut world = node(2);
    world.deploy(A, spec(A, Scaling::default()), crashing());
    let first = world.arrive(A, Mode::Direct);
    world.run(secs(0));
    world.behave(A, Behaviour::default());
    let second = world.arrive(A, Mode::Direct);
    world.run(secs(5));
    assert!(world.facts.refused.is_empty());
    assert_eq!(world.facts.delivered, 2);
    assert!(world.facts.first_assigned[&first] < world.facts.first_assigned[&second]);
}

#[test]
fn ill_health_in_setup_is_a_failed_start() {
    let mut world = node(1);
    world.add(A, Scaling::default());
    world.arrive(A, Mode::Queued);
    world.run(secs(1));
    let runner = world.alive(A)[0];
    world.handle(Event::Unhealthy { runner, detail: "its health check answers 500".into() });
    world.run(secs(1));
    world.expect_states(A, "FAILURE_DELAY");
}

#[test]
fn reports_about_a_runner_that_was_not_started_change_nothing() {
    let mut world = node(1);
    world.add(B, Scaling { min_concurrency: 1, ..Scaling::default() });
    world.add(A, Scaling::default());
    world.arrive(A, Mode::Queued);
    world.run(secs(5));
    let runner = world.alive(A)[0];
    for event in [
        Event::PullStarted { runner },
        Event::SetupStarted { runner, rung: Rung::ImageCached },
        Event::Ready { runner },
        Event::Exited { runner, detail: "not mine".into() },
    ] {
        world.handle(event);
        world.expect_states(A, "PENDING");
    }
}

/// The cause of the newest runner.
#[track_caller]
fn newest_cause(world: &World) -> StartCause {
    world.engine.runners().filter(|view| view.app == A).last().expect("a runner").cause
}

#[test]
fn every_start_has_its_cause() {
    let mut world = node(4);
    world.add(A, Scaling::default());
    world.arrive(A, Mode::Queued);
    assert_eq!(newest_cause(&world), StartCause::FirstDeployment);
    world.run(secs(60));
    world.arrive(A, Mode::Queued);
    assert_eq!(newest_cause(&world), StartCause::Expired);
    world.run(secs(2));
    world.arrive(A, Mode::Queued);
    assert_eq!(newest_cause(&world), StartCause::Spike);
    world.run(secs(3));
    for runner in world.alive(A) {
        world.exits(runner, secs(0), "killed by the kernel");
    }
    world.run(secs(0));
    world.arrive(A, Mode::Queued);
    assert_eq!(newest_cause(&world), StartCause::NoWarmRunner);
    world.run(secs(60));
    world.add(A, Scaling { min_concurrency: 1, ..Scaling::default() });
    assert_eq!(newest_cause(&world), StartCause::Floor);
    world.add(A, Scaling { concurrency_buffer: 2, ..Scaling::default() });
    assert_eq!(newest_cause(&world), StartCause::Buffer);
    world.run(secs(10));
    world.handle(Event::WarmRequested { app: A, runners: 3 });
    assert_eq!(newest_cause(&world), StartCause::Manual);
    world.run(secs(10));
    world.stop(world.alive(A)[0], StopRequest::ReplaceFirst);
    assert_eq!(newest_cause(&world), StartCause::Replacement);
    let runner = glowplug_core::RunnerId { boot: 0, sequence: 1 };
    world.adopt(runner, A, glowplug_core::resources::Allocation::default(), true, false);
    assert_eq!(world.engine.runner(runner).unwrap().cause, StartCause::Adopted);
}

#[test]
fn an_app_that_fits_nowhere_is_refused_with_the_reason() {
    let mut world = node(1);
    let mut large = spec(A, Scaling::default());
    large.machine_types = vec![slots(2)];
    world.deploy(A, large, Behaviour::default());
    let request = world.arrive(A, Mode::Queued);
    let refusal = world.facts.refused[&request].to_string();
    assert_eq!(
        refusal,
        "the app cannot run on this node: even with nothing else running, 2 slot wants 2000 CPU \
         millis, 1000 are free"
    );
}

#[test]
fn capacity_that_comes_starts_what_had_none_and_capacity_that_goes_refuses() {
    let mut world = node(1);
    let mut large = spec(A, Scaling { min_concurrency: 1, ..Scaling::default() });
    large.machine_types = vec![slots(2)];
    world.deploy(A, large, Behaviour::default());
    world.expect_states(A, "");
    world.handle(Event::CapacityChanged { capacity: capacity(2) });
    world.run(secs(2));
    world.expect_states(A, "IDLE");
    // The runner there is still serves; the request behind it waits for it.
    world.handle(Event::CapacityChanged { capacity: capacity(0) });
    world.arrive(A, Mode::Queued);
    let second = world.arrive(A, Mode::Queued);
    world.run(secs(0));
    world.expect_states(A, "RUNNING 1");
    // When it is gone, nothing can come.
    world.stop(world.alive(A)[0], StopRequest::Kill);
    world.run(secs(1));
    assert!(matches!(world.facts.refused[&second], Refusal::Unschedulable { .. }));
    assert_eq!(world.facts.open_requests(), []);
}
