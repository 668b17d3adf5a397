//! More apps than fit: who gives way, when, and that nobody starves.

use glowplug_core::engine::Config;
use glowplug_core::event::Event;
use glowplug_core::ids::AppId;
use glowplug_core::request::Mode;
use glowplug_core::resources::MachineType;
use glowplug_core::spec::{AppSpec, Scaling};
use glowplug_core::{RequestId, Timestamp};
use proptest::prelude::*;

use crate::fleet::{A, B, C, capacity, cases, node, secs, slot, slots, spec};
use crate::world::{Behaviour, Setup, World};

fn kept() -> Scaling {
    Scaling { keep_alive: secs(3_600), ..Scaling::default() }
}

#[test]
fn two_models_on_one_gpu_swap_when_one_is_idle() {
    let mut world = node(1);
    world.add(A, kept());
    world.add(B, kept());
    world.arrive(A, Mode::Queued);
    world.run(secs(5));
    world.arrive(B, Mode::Queued);
    world.run(secs(5));
    world.expect_story("
0.00 r1-1 of a was wanted because the app had never run before: 1 request(s) need 1 runner(s) plus 0 spare, 1 in all, and 0 were alive
0.00 r1-1 of a was placed as 1 slot on GPU 0 after 0 µs in PENDING
2.00 r1-1 of a became ready after 2.00 s, of it 2.00 s in SETUP, from the disk
2.00 request q1 of a waited 2.00 s for r1-1, which was started for it
5.00 r1-2 of b was wanted because the app had never run before: 1 request(s) need 1 runner(s) plus 0 spare, 1 in all, and 0 were alive
5.00 r1-2 of b waits in PENDING, since nothing fits: 1 slot wants 1000 CPU millis, 0 are free
5.00 r1-1 of a was stopped in IDLE because b needed its place
5.10 r1-1 of a is gone; it lived 5.10 s and served 1 request(s)
5.10 r1-2 of b was placed as 1 slot on GPU 0 after 100 ms in PENDING
7.10 r1-2 of b became ready after 2.10 s, of it 2.00 s in SETUP, from the disk
7.10 request q2 of b waited 2.10 s for r1-2, which was started for it
");
}

#[test]
fn a_model_in_use_gives_way_after_contention_wait_max_and_serves_its_batch() {
    let mut world = node(1);
    world.add(A, kept());
    world.add(B, kept());
    // More for A than it can ever work off.
    for _ in 0..500 {
        world.arrive(A, Mode::Queued);
    }
    world.run(secs(5));
    for _ in 0..4 {
        world.arrive(B, Mode::Queued);
    }
    world.run(secs(29));
    world.expect_states(B, "PENDING, PENDING, PENDING, PENDING");
    world.run(secs(1 + 1 + 1 + 2));
    assert!(world.states(B).starts_with("RUNNING 1"));
    world.run(secs(26));
    // The whole batch was served and nothing is left of B; then it was A's turn again.
    let served_b = (501..=504).filter(|q| world.facts.first_assigned.contains_key(&RequestId(*q)));
    assert_eq!(served_b.count(), 4);
    world.expect_states(B, "");
    assert!(world.states(A).starts_with("RUNNING 1"), "{}", world.states(A));
}

#[test]
fn what_was_freed_goes_to_the_one_it_was_freed_for() {
    let mut world = node(1);
    world.add(A, kept());
    world.add(B, kept());
    // A's many waiting starts are older than B's.
    for _ in 0..200 {
        world.arrive(A, Mode::Queued);
    }
    world.run(secs(10));
    let waiting = world.arrive(B, Mode::Queued);
    world.run(secs(40));
    let waited = world.facts.first_assigned[&waiting] - Timestamp::from_secs(10);
    assert!(waited <= secs(34), "{waited:?}");
}

#[test]
fn a_start_that_nothing_can_satisfy_does_not_block_others() {
    let mut world = node(2);
    world.add(A, Scaling { min_concurrency: 1, ..kept() });
    world.run(secs(5));
    // B wants both slots; A's floor keeps one for ever.
    let mut large = spec(B, kept());
    large.machine_types = vec![slots(2)];
    world.deploy(B, large, Behaviour::default());
    let hopeless = world.arrive(B, Mode::Queued);
    world.run(secs(100));
    world.add(C, kept());
    world.arrive(C, Mode::Queued);
    world.run(secs(10));
    assert_eq!(world.facts.delivered, 1);
    assert_eq!(world.engine.waiting(B), [hopeless]);
    // Until the floor is taken away.
    world.add(A, kept());
    world.run(secs(60));
    assert_eq!(world.facts.delivered, 2);
}

#[test]
fn the_cheapest_to_lose_gives_way() {
    // Both idle for about as long: the one that restarts faster goes.
    let mut world = node(2);
    world.add(A, kept());
    world.behave(A, Behaviour { setup: Setup::Takes(secs(60)), ..Behaviour::default() });
    world.add(B, kept());
    world.arrive(A, Mode::Queued);
    world.arrive(B, Mode::Queued);
    world.run(secs(61));
    world.arrive(B, Mode::Queued);
    world.run(secs(5));
    world.add(C, kept());
    world.arrive(C, Mode::Queued);
    world.expect_states(B, "TERMINATING");
    world.expect_states(A, "IDLE");
    // One that nothing came for in a long time goes although its restart is dear.
    world.run(secs(2_000));
    for _ in 0..3 {
        world.arrive(C, Mode::Queued);
        world.run(secs(1));
    }
    world.run(secs(1));
    world.arrive(B, Mode::Queued);
    world.expect_states(A, "TERMINATING");
}

#[test]
fn floors_and_buffers_are_never_broken() {
    let mut world = node(2);
    world.add(A, Scaling { min_concurrency: 1, ..kept() });
    world.add(B, Scaling { concurrency_buffer: 1, ..kept() });
    world.run(secs(5));
    world.add(C, kept());
    let waiting = world.arrive(C, Mode::Queued);
    world.run(secs(10_000));
    assert_eq!(world.engine.waiting(C), [waiting]);
    world.expect_states(A, "IDLE");
    world.expect_states(B, "IDLE");
}

#[test]
fn a_floor_is_kept_by_runners_that_have_a_place_not_by_those_that_wait_for_one() {
    let mut world = node(1);
    world.add(A, Scaling { min_concurrency: 1, ..kept() });
    world.behave(A, Behaviour { service: secs(50), ..Behaviour::default() });
    for _ in 0..10 {
        world.arrive(A, Mode::Queued);
    }
    world.add(B, kept());
    world.behave(B, Behaviour::default());
    world.arrive(B, Mode::Queued);
    world.run(secs(300));
    assert_eq!(world.facts.evictions, 0);
}

#[test]
fn machine_types_are_tried_in_order_and_a_free_second_beats_an_eviction() {
    let mut world = node(3);
    let mut either = spec(A, kept());
    either.machine_types = vec![slots(2), slot()];
    world.deploy(A, either, Behaviour::default());
    world.arrive(A, Mode::Queued);
    world.run(secs(3));
    world.arrive(A, Mode::Queued);
    world.arrive(A, Mode::Queued);
    world.run(secs(3));
    let placed: Vec<String> = world
        .engine
        .runners()
        .map(|view| format!("{:?}", view.allocation.map(|held| held.gpus.clone())))
        .collect();
    assert_eq!(placed, ["Some([0, 1])", "Some([2])"]);
}

#[test]
fn a_runner_of_two_gpus_is_not_starved_by_runners_of_one() {
    let mut world = node(2);
    world.add(A, kept());
    world.add(B, kept());
    world.run_saturated(secs(20), &[A, B], 10);
    let mut large = spec(C, kept());
    large.machine_types = vec![slots(2)];
    world.deploy(C, large, Behaviour::default());
    let waiting = world.arrive(C, Mode::Queued);
    world.run_saturated(secs(70), &[A, B], 10);
    let waited = world.facts.first_assigned[&waiting] - Timestamp::from_secs(20);
    assert!(waited <= secs(40), "{waited:?}");
}

#[test]
fn two_saturated_models_do_not_thrash() {
    let mut world = node(1);
    for app in [A, B] {
        world.add(app, kept());
    }
    world.run_saturated(secs(3_600), &[A, B], 10);
    // Each turn is contention_wait_max, from one loss to the next.
    let swaps = world.facts.evictions;
    assert!((80..=120).contains(&swaps), "{swaps} swaps in an hour");
    assert!(world.facts.served > 3_000, "{} served", world.facts.served);
}

/// An app in the starvation test: its size, how long it takes to start, to serve, to end.
#[derive(Clone, Debug)]
struct Rival {
    slots: u32,
    start: u64,
    service: u64,
    exit: u64,
    floor: bool,
}

fn rival() -> impl Strategy<Value = Rival> {
    (1u32..3, 0u64..20, 1u64..40, 0u64..5, prop::bool::weighted(0.2)).prop_map(
        |(slots, start, service, exit, floor)| Rival { slots, start, service, exit, floor },
    )
}

proptest! {
    #![proptest_config(cases("contention"))]

    #[test]
    fn nobody_starves(
        rivals in prop::collection::vec(rival(), 1..4),
        wanted in 1u32..3,
        wait in 1u64..60,
        late in 0u64..100,
    ) {
        expect_bounded_wait(&rivals, wanted, wait, late);
    }
}

/// Cases that random search found while the rules for contention were younger.
#[test]
fn nobody_starved_again() {
    let rival = |slots, start, service, exit, floor| Rival { slots, start, service, exit, floor };
    // Two apps with many older starts passed the place to each other.
    let two = [rival(1, 0, 1, 0, false), rival(1, 0, 1, 0, false)];
    expect_bounded_wait(&two, 1, 1, 1);
    // Small runners took piecemeal what a large one waited for.
    let three = [rival(2, 0, 1, 0, false), rival(1, 1, 2, 0, false), rival(1, 2, 2, 0, false)];
    expect_bounded_wait(&three, 2, 3, 1);
    // One app had room made for several runners before it was the next one's turn.
    let with_floors = [rival(1, 6, 11, 1, true), rival(1, 7, 9, 2, true)];
    expect_bounded_wait(&with_floors, 2, 1, 1);
    // What was kept for an app kept it from asking for more.
    expect_bounded_wait(&[rival(1, 1, 3, 0, false), rival(2, 12, 5, 0, false)], 2, 5, 32);
}

/// The bound. Under saturation by the others, an app that could be placed beside their floors waits,
/// for each one that was in line before it and then for itself, at most `contention_wait_max` until
/// it may ask for more than idle runners, and then for the slowest runner's start, turn
/// (`contention_wait_max`), request and end, and at last for its own start.
fn expect_bounded_wait(rivals: &[Rival], wanted: u32, wait: u64, late: u64) {
    let floors: u32 = rivals.iter().filter(|rival| rival.floor).map(|rival| rival.slots).sum();
    let slowest = |of: fn(&Rival) -> u64| rivals.iter().map(of).max().unwrap_or(0);
    let turn = slowest(|r| r.start) + wait + slowest(|r| r.service) + slowest(|r| r.exit);
    let bound = (wait + turn) * (rivals.len() as u64 + 1) + 2;
    let config = Config { contention_wait_max: secs(wait), ..Config::default() };
    let mut world = World::new(capacity(floors + wanted), config);
    for (nth, rival) in (10..).zip(rivals) {
        let behaviour = Behaviour {
            pull: None,
            setup: Setup::Takes(secs(rival.start)),
            service: secs(rival.service),
            exit: secs(rival.exit),
            ..Behaviour::default()
        };
        let scaling = Scaling {
            min_concurrency: u32::from(rival.floor),
            termination_grace_period: secs(5),
            ..Scaling::default()
        };
        world.deploy(AppId(nth), sized(AppId(nth), rival.slots, scaling), behaviour);
    }
    let saturated: Vec<AppId> = (10..).map(AppId).take(rivals.len()).collect();
    world.run_saturated(secs(late), &saturated, 12);
    world.deploy(A, sized(A, wanted, kept()), Behaviour::default());
    let request = world.arrive(A, Mode::Queued);
    world.run_saturated(secs(bound), &saturated, 12);
    let is_served = world.facts.first_assigned.contains_key(&request);
    assert!(is_served, "{bound} s are not enough\n{}", world.story());
    // No thrash: whoever was evicted had served, or nobody had waited for it.
    assert!(world.facts.evictions - world.facts.evicted_unwanted <= world.facts.served);
}

fn sized(app: AppId, count: u32, scaling: Scaling) -> AppSpec {
    let machine: MachineType = slots(count);
    AppSpec { machine_types: vec![machine], ..spec(app, scaling) }
}

#[test]
fn a_cancelled_wait_evicts_nobody() {
    let mut world = node(1);
    world.add(A, kept());
    for _ in 0..100 {
        world.arrive(A, Mode::Queued);
    }
    world.run(secs(5));
    world.add(B, kept());
    let request = world.arrive(B, Mode::Queued);
    world.run(secs(29));
    world.handle(Event::Cancelled { request });
    world.run(secs(200));
    assert_eq!(world.facts.evictions, 0);
}
