//! Routing hints: which free runner a request gets.

use glowplug_core::HintId;
use glowplug_core::event::Event;
use glowplug_core::ids::{RequestId, RunnerId};
use glowplug_core::request::{Answer, Hints, Mode, Outcome};
use glowplug_core::spec::Scaling;

use crate::fleet::{A, node, secs};
use crate::world::{Behaviour, Ending, World};

/// Three idle runners, of which the last is taken if nobody asks for another. `hints`: what each said with
/// its last answer.
fn three(hints: [Option<&str>; 3]) -> (World, [RunnerId; 3]) {
    let mut world = node(3);
    world.add(A, Scaling { min_concurrency: 3, ..Scaling::default() });
    world.behave(A, Behaviour { outcome: Ending::Hangs, ..Behaviour::default() });
    world.run(secs(5));
    for _ in 0..3 {
        world.arrive(A, Mode::Direct);
    }
    let runners: [RunnerId; 3] = world.alive(A).try_into().expect("three are kept");
    for (runner, hints) in runners.iter().zip(hints) {
        world.run(secs(1));
        let lease = world.facts.leases_on(*runner)[0];
        let hints = hints.map(Hints::parse);
        let outcome = Outcome::Answered(Answer { status: 200, hints, ..Answer::default() });
        world.handle(Event::Finished { lease, outcome });
    }
    world.story();
    (world, runners)
}

fn ask(world: &mut World, hint: Option<&str>) -> RequestId {
    world.arrive_wishing(A, Mode::Direct, hint.map(HintId::of))
}

fn runner_of(world: &World, request: RequestId) -> Option<RunnerId> {
    let assigned = &world.facts.assigned_to;
    assigned.iter().rev().find(|(id, _)| *id == request).map(|(_, runner)| *runner)
}

#[test]
fn a_free_runner_with_the_hint_is_preferred() {
    let last = 2;
    for (hints, hint, expected) in [
        // Without a wish, or without an answer to it, the order is the one there is.
        ([Some("a"), Some("b"), Some("c")], None, last),
        ([Some("a"), Some("b"), Some("c")], Some("d"), last),
        ([None, None, None], Some("a"), last),
        // One that has exactly the hint.
        ([Some("a"), Some("b"), Some("c")], Some("a"), 0),
        ([Some("x, a ,y"), Some("b"), None], Some("a"), 0),
        ([Some("ab"), Some("A"), Some("c")], Some("a"), last),
        // Of several the one that would be taken anyway.
        ([Some("a"), Some("a"), Some("c")], Some("a"), 1),
        // An empty list accepts every hint, but a runner that names it is better.
        ([Some("b"), Some(""), Some("c")], Some("a"), 1),
        ([Some("a"), Some(""), Some("")], Some("a"), 0),
    ] {
        let (mut world, runners) = three(hints);
        let request = ask(&mut world, hint);
        assert_eq!(runner_of(&world, request), Some(runners[expected]), "{hints:?} {hint:?}");
        assert_eq!(world.story().contains("since"), expected != last);
    }
}

#[test]
fn a_hint_never_waits_for_its_runner() {
    let (mut world, runners) = three([Some("a"), Some("b"), Some("b")]);
    let first = ask(&mut world, Some("a"));
    let second = ask(&mut world, Some("a"));
    assert_eq!(runner_of(&world, first), Some(runners[0]));
    assert_eq!(runner_of(&world, second), Some(runners[2]));
    world
        .expect_story("8.00 request q4 of a went to r1-1 and not to r1-3, since r1-1 has its hint");
}

#[test]
fn a_request_that_waited_has_its_wish_too() {
    let (mut world, runners) = three([Some("a"), Some("b"), Some("c")]);
    let busy: Vec<RequestId> = (0..3).map(|_| ask(&mut world, None)).collect();
    let waits = ask(&mut world, Some("b"));
    let runner = runner_of(&world, busy[0]).unwrap();
    world.run(secs(1));
    let lease = world.facts.leases_on(runner)[0];
    let answer = Answer { status: 200, ..Answer::default() };
    world.handle(Event::Finished { lease, outcome: Outcome::Answered(answer) });
    assert_eq!(runner_of(&world, waits), Some(runner), "the only free one");
    assert!(runners.contains(&runner));
}
