//! Expected times until the answer, against what then happens.

use std::time::Duration;

use glowplug_core::request::Mode;
use glowplug_core::spec::Scaling;
use glowplug_core::{RequestId, Timestamp};

use crate::fleet::{A, node, secs};
use crate::world::World;

/// A node on which an app has served once: attempts take 1 s, starts 2 s.
fn experienced(slots: u32, scaling: Scaling) -> World {
    let mut world = node(slots);
    world.add(A, scaling);
    world.arrive(A, Mode::Queued);
    world.run(secs(60));
    world
}

fn answered_at(world: &World, request: RequestId) -> Option<Timestamp> {
    world.facts.first_assigned.get(&request).map(|at| *at + secs(1))
}

#[test]
fn nothing_is_said_where_nothing_is_known() {
    let mut world = node(1);
    world.add(A, Scaling::default());
    let first = world.arrive(A, Mode::Queued);
    let second = world.arrive(A, Mode::Queued);
    assert_eq!(world.engine.eta(second, world.now), None, "no attempt was ever over");
    world.run(Duration::from_millis(2_500));
    assert_eq!(world.engine.eta(first, world.now), None, "it runs");
    world.run(secs(1));
    assert_eq!(world.engine.eta(first, world.now), None, "it is over");
    assert_eq!(world.engine.eta(RequestId(99), world.now), None, "nobody knows it");
}

#[test]
fn it_is_what_then_happens_where_all_times_are_known() {
    for (slots, multiplexing, count) in [(1, 1, 1), (1, 1, 7), (3, 1, 20), (2, 4, 30), (4, 2, 3)] {
        let scaling = Scaling { max_multiplexing: multiplexing, ..Scaling::default() };
        let mut world = experienced(slots, scaling);
        let requests: Vec<RequestId> = (0..count).map(|_| world.arrive(A, Mode::Queued)).collect();
        for ahead in [Duration::ZERO, Duration::from_millis(1_300), Duration::from_millis(2_700)] {
            world.run(ahead);
            let now = world.now;
            let waiting = requests.iter().filter_map(|id| Some((*id, world.engine.eta(*id, now)?)));
            let expected: Vec<_> = waiting.map(|(id, eta)| (id, now + eta.after, eta)).collect();
            let mut ahead_of_time = experienced(slots, scaling);
            for _ in 0..count {
                ahead_of_time.arrive(A, Mode::Queued);
            }
            ahead_of_time.run(secs(100));
            for (id, expected, eta) in expected {
                let at = answered_at(&ahead_of_time, id).expect("all were served");
                let (expected, actual) = (expected - now, at - now);
                let off = expected.abs_diff(actual);
                assert!(
                    off * 10 <= actual + secs(1),
                    "{slots} {multiplexing} {count}: {actual:?}, not {expected:?} ({})",
                    eta.basis
                );
            }
        }
    }
}

#[test]
fn the_basis_says_what_it_was_made_of() {
    let mut world = experienced(1, Scaling::default());
    world.arrive(A, Mode::Queued);
    let last = world.arrive(A, Mode::Queued);
    let eta = world.engine.eta(last, world.now).map(|eta| (eta.after, eta.basis.to_string()));
    let basis = "1 ahead on 1 place, 1.00 s each; the next runner is ready in about 2.00 s";
    assert_eq!(eta, Some((secs(4), basis.to_owned())));
}
