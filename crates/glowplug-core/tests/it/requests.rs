//! Requests: order, deadlines, outcomes, retries.

use std::time::Duration;

use glowplug_core::engine::Config;
use glowplug_core::event::Event;
use glowplug_core::request::{Mode, Priority, Refusal};
use glowplug_core::retry::Wish;
use glowplug_core::spec::Scaling;
use glowplug_core::{CallerId, RequestId};

use crate::fleet::{A, capacity, node, secs};
use crate::world::{Behaviour, Ending, World};

fn one_runner() -> World {
    let mut world = node(1);
    world.add(A, Scaling { max_concurrency: Some(1), ..Scaling::default() });
    world
}

fn served(world: &World) -> Vec<u128> {
    world.facts.assigned_to.iter().map(|(RequestId(id), _)| *id).collect()
}

#[test]
fn first_come_first_served_over_retries() {
    let mut world = one_runner();
    world.behave(A, Behaviour { outcome: Ending::Answers(504), ..Behaviour::default() });
    for _ in 0..3 {
        world.arrive(A, Mode::Queued);
    }
    world.run(secs(2));
    // The first fails and waits; when its delay is over it is before the third again.
    world.run(Duration::from_millis(1_100));
    world.behave(A, Behaviour::default());
    world.run(secs(10));
    assert_eq!(served(&world), [1, 2, 1, 2, 3]);
}

#[test]
fn low_priority_is_served_when_no_normal_request_waits() {
    let mut world = one_runner();
    world.arrive_as(A, Mode::Queued, Priority::Low, None, Wish::Unsaid);
    world.arrive_as(A, Mode::Queued, Priority::Low, None, Wish::Unsaid);
    world.arrive(A, Mode::Queued);
    world.run(secs(10));
    assert_eq!(served(&world), [3, 1, 2]);
}

#[test]
fn a_request_that_did_not_start_in_time_is_refused_and_the_start_goes_on() {
    let mut world = one_runner();
    world.arrive_as(A, Mode::Queued, Priority::Normal, Some(secs(1)), Wish::Unsaid);
    world.run(secs(1));
    assert_eq!(world.facts.refused[&RequestId(1)], Refusal::StartDeadline);
    world.run(secs(1));
    world.expect_states(A, "IDLE");
}

#[test]
fn a_start_deadline_counts_during_the_delay_before_a_retry() {
    let mut world = one_runner();
    world.behave(A, Behaviour { outcome: Ending::Answers(504), ..Behaviour::default() });
    let within = Some(Duration::from_millis(3_100));
    world.arrive_as(A, Mode::Queued, Priority::Normal, within, Wish::Unsaid);
    world.run(Duration::from_millis(3_099));
    assert!(world.facts.refused.is_empty());
    world.run(Duration::from_millis(1));
    assert_eq!(world.facts.refused[&RequestId(1)], Refusal::StartDeadline);
}

#[test]
fn an_overrun_ends_the_runner_and_the_request_is_tried_again() {
    let mut world = node(2);
    world.add(A, Scaling { request_timeout: secs(5), ..Scaling::default() });
    world.behave(A, Behaviour { outcome: Ending::Hangs, ..Behaviour::default() });
    world.arrive(A, Mode::Queued);
    world.run(secs(3));
    world.behave(A, Behaviour::default());
    world.run(secs(20));
    assert_eq!(world.facts.delivered, 1);
    world.expect_story("
0.00 r1-1 of a was wanted because the app had never run before: 1 request(s) need 1 runner(s) plus 0 spare, 1 in all, and 0 were alive
0.00 r1-1 of a was placed as 1 slot on GPU 0 after 0 µs in PENDING
2.00 r1-1 of a became ready after 2.00 s, of it 2.00 s in SETUP, from the disk
2.00 request q1 of a waited 2.00 s for r1-1, which was started for it
7.00 attempt 1 of request q1 of a failed on r1-1 (timeout); it is tried again in 236 ms
7.00 r1-1 of a was stopped in RUNNING because request q1 overran its request_timeout of 5 s
7.00 r1-1 of a is gone; it lived 7.00 s and served 1 request(s)
7.24 r1-2 of a was wanted because no warm runner was left: 1 request(s) need 1 runner(s) plus 0 spare, 1 in all, and 0 were alive
7.24 r1-2 of a was placed as 1 slot on GPU 0 after 0 µs in PENDING
9.24 r1-2 of a became ready after 2.00 s, of it 2.00 s in SETUP, from the disk
9.24 request q1 of a waited 9.24 s for r1-2, which was started for it (attempt 2)
20.24 r1-2 of a was stopped in IDLE because it was idle for 10.0 s, its keep_alive
20.34 r1-2 of a is gone; it lived 13.1 s and served 1 request(s)
");
}

#[test]
fn an_overrun_of_a_direct_request_is_its_answer() {
    let mut world = one_runner();
    world.add(A, Scaling { request_timeout: secs(5), ..Scaling::default() });
    world.behave(A, Behaviour { outcome: Ending::Hangs, ..Behaviour::default() });
    world.arrive(A, Mode::Direct);
    world.run(secs(8));
    assert_eq!((world.facts.delivered, served(&world).len()), (1, 1));
}

#[test]
fn a_503_ends_the_runner_and_the_request_is_tried_on_another() {
    let mut world = one_runner();
    world.behave(A, Behaviour { outcome: Ending::Answers(503), ..Behaviour::default() });
    world.arrive(A, Mode::Queued);
    world.run(secs(2));
    world.behave(A, Behaviour::default());
    world.run(secs(10));
    let runners: Vec<_> = world.facts.assigned_to.iter().map(|(_, runner)| *runner).collect();
    assert_eq!(runners.len(), 2);
    assert_ne!(runners[0], runners[1]);
    assert_eq!(world.facts.delivered, 1);
}

#[test]
fn ten_attempts_at_most_and_then_the_last_answer_counts() {
    let mut world = one_runner();
    world.behave(A, Behaviour { outcome: Ending::Answers(504), ..Behaviour::default() });
    world.arrive(A, Mode::Queued);
    world.run(secs(1_000));
    assert_eq!((world.facts.delivered, served(&world).len()), (1, 10));
}

#[test]
fn a_caller_may_forbid_retries_and_a_direct_request_has_none() {
    for (mode, retries) in [(Mode::Queued, Wish::Never), (Mode::Direct, Wish::Unsaid)] {
        let mut world = one_runner();
        world.behave(A, Behaviour { outcome: Ending::Breaks, ..Behaviour::default() });
        world.arrive_as(A, mode, Priority::Normal, None, retries);
        world.run(secs(100));
        assert_eq!((world.facts.delivered, served(&world).len()), (1, 1));
    }
}

#[test]
fn a_cancelled_request_is_not_tried_again() {
    let mut world = one_runner();
    world.behave(A, Behaviour { outcome: Ending::Answers(503), ..Behaviour::default() });
    let request = world.arrive(A, Mode::Queued);
    world.run(secs(2));
    world.handle(Event::Cancelled { request });
    world.run(secs(100));
    assert_eq!((world.facts.delivered, served(&world).len()), (1, 1));
}

#[test]
fn a_request_cancelled_between_two_attempts_ends_there() {
    let mut world = one_runner();
    world.behave(A, Behaviour { outcome: Ending::Answers(504), ..Behaviour::default() });
    let request = world.arrive(A, Mode::Queued);
    world.run(secs(3));
    world.handle(Event::Cancelled { request });
    assert_eq!(world.facts.refused[&request], Refusal::Cancelled);
    assert!(world.engine.request(request).is_none());
}

#[test]
fn a_gateway_that_never_reports_is_given_up_after_its_runner() {
    let mut world = one_runner();
    world.behave(A, Behaviour { outcome: Ending::Hangs, ..Behaviour::default() });
    world.arrive(A, Mode::Queued);
    world.run(secs(3));
    let runner = world.alive(A)[0];
    world.behave(A, Behaviour::default());
    world.handle(Event::Exited { runner, detail: "signal 9".into() });
    world.run(secs(9));
    assert_eq!(served(&world).len(), 1);
    world.run(secs(5));
    assert_eq!((world.facts.delivered, served(&world).len()), (1, 2));
}

#[test]
fn requests_of_a_removed_app_are_refused_even_between_attempts() {
    let mut world = one_runner();
    world.behave(A, Behaviour { outcome: Ending::Answers(504), ..Behaviour::default() });
    world.arrive(A, Mode::Queued);
    world.arrive(A, Mode::Queued);
    world.arrive(A, Mode::Queued);
    // One between attempts, one on the runner, one waiting.
    world.run(Duration::from_millis(3_100));
    world.handle(Event::AppRemoved { app: A });
    assert_eq!(world.facts.refused.len(), 2);
    world.run(secs(10));
    assert_eq!((world.facts.delivered, world.facts.open_requests().len()), (1, 0));
    assert!(world.engine.app(A, world.now).is_none());
    let late = world.arrive(A, Mode::Queued);
    assert_eq!(world.facts.refused[&late], Refusal::AppRemoved);
}

#[test]
fn an_app_that_comes_back_while_its_runners_end_stays() {
    let mut world = one_runner();
    world.behave(A, Behaviour { exit: secs(4), ..Behaviour::default() });
    world.arrive(A, Mode::Queued);
    world.run(secs(4));
    world.handle(Event::AppRemoved { app: A });
    world.run(secs(1));
    world.add(A, Scaling::default());
    world.run(secs(10));
    world.arrive(A, Mode::Queued);
    world.run(secs(3));
    assert_eq!(world.facts.delivered, 2);
}

#[test]
fn only_a_direct_request_is_refused_for_the_number_that_waits() {
    let config = Config { waiting_max: 2, ..Config::default() };
    let mut world = World::new(capacity(1), config);
    world.add(A, Scaling::default());
    for _ in 0..5 {
        world.arrive(A, Mode::Queued);
    }
    let direct = world.arrive(A, Mode::Direct);
    assert_eq!(world.facts.refused[&direct], Refusal::QueueFull { limit: 2 });
    world.run(secs(20));
    assert_eq!(world.facts.delivered, 5);
}

#[test]
fn callers_of_one_app_take_turns() {
    let mut world = one_runner();
    let alices: Vec<RequestId> = (0..5).map(|_| world.arrive_from(A, CallerId(1))).collect();
    let bob = world.arrive_from(A, CallerId(2));
    assert_eq!(world.engine.waiting(A)[..3], [alices[0], bob, alices[1]]);
    world.run(secs(4));
    // Bob again, who has nothing waiting now: behind one of Alice's, before all others.
    let again = world.arrive_from(A, CallerId(2));
    let at = world.engine.waiting(A).iter().position(|id| *id == again);
    assert!(at.is_some_and(|at| at <= 1), "{at:?}");
}
