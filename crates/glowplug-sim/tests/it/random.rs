//! Random worlds: nothing breaks a rule, every request ends, and every second is accounted for. Cases: 256,
//! or `PROPTEST_CASES`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use glowplug_core::action::Action;
use glowplug_core::request::{Mode, Priority};
use glowplug_core::resources::{Capacity, Gpu, MachineType};
use glowplug_core::retry::Rules;
use glowplug_core::spec::{AppSpec, Policy, Scaling};
use glowplug_core::{RunnerId, Timestamp};
use glowplug_sim::model::{AppModel, Faults, Model};
use glowplug_sim::outcome::{Measures, Outcome};
use glowplug_sim::simulation::{Happening, Untidiness, What, World};
use glowplug_sim::traffic::Arrival;
use proptest::prelude::*;
use proptest::test_runner::Config;

const APPS: u32 = 3;
const CASES: u32 = 256;
/// For some eighty requests and a day of trying.
const EVENTS_MAX: u64 = 200_000;

fn cases() -> Config {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    Config { cases: cases.unwrap_or(CASES), failure_persistence: None, ..Config::default() }
}

fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn model() -> impl Strategy<Value = Model> {
    prop_oneof![
        millis(0..9_000).prop_map(Model::Constant),
        proptest::collection::vec(millis(0..9_000), 1..4).prop_map(|t| Model::Empirical(t.into())),
        proptest::collection::vec(millis(0..9_000), 1..4).prop_map(|t| Model::InOrder(t.into())),
        (0.01f64..5.0, 0.0f64..1.5)
            .prop_map(|(median_secs, sigma)| Model::LogNormal { median_secs, sigma }),
        (0.01f64..5.0).prop_map(|mean_secs| Model::Exponential { mean_secs }),
    ]
}

fn faults() -> impl Strategy<Value = Faults> {
    let rarely = || prop_oneof![3 => Just(0.0), 1 => 0.0f64..0.4];
    (rarely(), rarely(), rarely(), rarely()).prop_map(|(setup_crash, setup_hang, crash, error)| {
        Faults { setup_crash, setup_hang, crash, error }
    })
}

fn scaling() -> impl Strategy<Value = Scaling> {
    let seldom = || prop_oneof![3 => Just(0u32), 1 => 0u32..3];
    let counts = (
        seldom(),
        prop_oneof![1 => Just(None), 2 => (2u32..6).prop_map(Some)],
        seldom(),
        prop_oneof![3 => Just(0u32), 1 => 0u32..200],
        prop_oneof![2 => Just(1u32), 2 => 2u32..6],
    );
    let spans = (
        millis(0..40_000),
        prop_oneof![2 => Just(Duration::ZERO), 1 => millis(0..9_000)],
        millis(2_000..90_000),
        prop_oneof![2 => Just(Duration::from_mins(10)), 1 => millis(1_000..20_000)],
        proptest::option::of(millis(0..20_000)),
        millis(0..9_000),
        proptest::option::of(millis(0..60_000)),
    );
    (counts, spans).prop_map(
        |((min, max, buffer, perc, mux), (keep, delay, start, request, unused, grace, frozen))| {
            Scaling {
                policy: Policy::Fixed,
                keep_alive: keep,
                min_concurrency: min,
                max_concurrency: max,
                concurrency_buffer: buffer,
                concurrency_buffer_perc: perc,
                scaling_delay: delay,
                max_multiplexing: mux,
                startup_timeout: start,
                request_timeout: request,
                unused_runner_timeout: unused,
                termination_grace_period: grace,
                frozen_for: frozen,
            }
        },
    )
}

fn machine_types() -> impl Strategy<Value = Vec<MachineType>> {
    let machine = (0u64..3, 0u64..3, 0u32..3, prop_oneof![2 => Just(None), 1 => Just(Some("A"))])
        .prop_map(|(cpu_millis, memory_bytes, gpus, kind)| MachineType {
            name: format!("{cpu_millis}c{memory_bytes}m{gpus}g{}", kind.unwrap_or("x")),
            cpu_millis,
            memory_bytes,
            gpus,
            gpu_kind: kind.map(str::to_owned),
            gpu_memory_bytes: 0,
        });
    proptest::collection::vec(machine, 1..3)
}

fn capacity() -> impl Strategy<Value = Capacity> {
    (1u64..12, 1u64..12, proptest::collection::vec(any::<bool>(), 0..4)).prop_map(
        |(cpu_millis, memory_bytes, gpus)| Capacity {
            cpu_millis,
            memory_bytes,
            gpus: (0..)
                .zip(gpus)
                .map(|(index, is_a)| Gpu {
                    index,
                    kind: if is_a { "A" } else { "B" }.into(),
                    memory_bytes: 0,
                })
                .collect(),
        },
    )
}

fn spec() -> impl Strategy<Value = AppSpec> {
    (1u32..3, scaling(), machine_types()).prop_map(|(revision, scaling, machine_types)| AppSpec {
        name: "local/app".into(),
        revision,
        scaling,
        machine_types,
        retry: Rules::default(),
    })
}

fn app() -> impl Strategy<Value = AppModel> {
    let slowdown = prop_oneof![Just(0.0), 0.0f64..2.0];
    let times = (proptest::option::of(model()), model(), model(), model());
    (spec(), times, slowdown, faults()).prop_map(
        |(spec, (pull, setup, service, exit), slowdown, faults)| AppModel {
            spec,
            pull,
            setup,
            service,
            exit,
            slowdown,
            faults,
        },
    )
}

fn happening() -> impl Strategy<Value = Happening> {
    let what = prop_oneof![
        3 => (0..APPS, spec()).prop_map(|(app, spec)| What::Deploy { app, spec }),
        1 => (0..APPS).prop_map(|app| What::Remove { app }),
        2 => capacity().prop_map(|capacity| What::Resize { capacity }),
        2 => (0..APPS, faults()).prop_map(|(app, faults)| What::Faults { app, faults }),
        3 => (0..APPS, 0u32..4).prop_map(|(app, runners)| What::Kill { app, runners }),
        2 => (0..APPS, 0u32..4).prop_map(|(app, runners)| What::Warm { app, runners }),
        1 => Just(What::ShutDown),
    ];
    (0u64..200, what).prop_map(|(secs, what)| Happening { at: Timestamp::from_secs(secs), what })
}

fn untidiness() -> impl Strategy<Value = Untidiness> {
    let share = || prop_oneof![Just(0.0), 0.0f64..0.3];
    (share(), share(), share()).prop_map(|(lost, late, twice)| Untidiness { lost, late, twice })
}

fn world() -> impl Strategy<Value = World> {
    let until = prop_oneof![
        5 => Just(None),
        1 => (0u64..300).prop_map(|secs| Some(Timestamp::from_secs(secs))),
    ];
    let happenings = prop_oneof![
        1 => Just(Vec::new()),
        1 => proptest::collection::vec(happening(), 0..6),
    ];
    let apps = proptest::collection::vec(app(), APPS as usize);
    (any::<u64>(), capacity(), apps, untidiness(), happenings, until).prop_map(
        |(seed, capacity, apps, untidiness, happenings, until)| World {
            seed,
            capacity,
            apps,
            untidiness,
            happenings,
            until,
            moments_max: 50,
            ..World::default()
        },
    )
}

fn traffic() -> impl Strategy<Value = Vec<Arrival>> {
    let gap = prop_oneof![2 => Just(0u64), 4 => 0u64..2_000, 1 => 0u64..60_000];
    let service = prop_oneof![2 => Just(None), 1 => millis(0..9_000).prop_map(Some)];
    let request = (
        gap,
        0..APPS,
        service,
        any::<bool>(),
        any::<bool>(),
        proptest::option::weighted(0.2, millis(0..30_000)),
    );
    proptest::collection::vec(request, 0..80).prop_map(|requests| {
        let mut at = Timestamp::ZERO;
        let arrive = |(gap, app, service, direct, low, start_within)| {
            at = at + Duration::from_millis(gap);
            Arrival {
                at,
                app,
                service,
                mode: if direct { Mode::Direct } else { Mode::Queued },
                priority: if low { Priority::Low } else { Priority::Normal },
                start_within,
            }
        };
        requests.into_iter().map(arrive).collect()
    })
}

fn without_floor(scaling: Scaling) -> Scaling {
    Scaling { min_concurrency: 0, concurrency_buffer: 0, ..scaling }
}

/// From the actions alone: when each runner was started, and when it was dropped.
fn watched(world: &World, traffic: &[Arrival]) -> (Outcome, BTreeMap<RunnerId, Timestamp>, f64) {
    let mut alive = BTreeMap::new();
    let mut secs = 0.0;
    let outcome = world.run_watched(
        traffic.iter().copied().map(Ok::<_, Infallible>),
        |now, events, action| {
            assert!(events < EVENTS_MAX, "it does not come to rest: {now:?} {action:?}");
            match action {
                Action::Start { runner, .. } => {
                    alive.insert(*runner, now);
                }
                Action::Forget { runner } => {
                    secs += alive.remove(runner).map_or(0.0, |placed| (now - placed).as_secs_f64());
                }
                _ => {}
            }
        },
    );
    (outcome.unwrap_or_else(|failure| panic!("{failure}")), alive, secs)
}

fn check_sums(world: &World, traffic: &[Arrival], outcome: &Outcome) {
    let total = &outcome.total;
    assert_eq!(total.requests, total.answered + total.refused + total.left);
    let came = traffic.iter().filter(|arrival| world.until.is_none_or(|until| arrival.at < until));
    assert_eq!(total.requests, came.count() as u64);
    assert!(total.failed <= total.answered);
    assert!(total.cold <= total.requests);
    assert!(total.waits.count() <= total.requests);
    for (measure, sum) in [
        (total.requests, outcome.apps.iter().map(|app| app.requests).sum::<u64>()),
        (total.cold, outcome.apps.iter().map(|app| app.cold).sum()),
        (total.waits.count(), outcome.apps.iter().map(|app| app.waits.count()).sum()),
        (total.starts_total(), outcome.apps.iter().map(Measures::starts_total).sum()),
    ] {
        assert_eq!(measure, sum, "the whole is the sum of its parts");
    }
    assert!(outcome.timeline.len() <= world.moments_max);
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn nothing_breaks_the_rules(world in world(), traffic in traffic()) {
        let (outcome, _, _) = watched(&world, &traffic);
        check_sums(&world, &traffic, &outcome);
    }

    /// Where starts can succeed and no floor takes the room, every request ends.
    #[test]
    fn nothing_is_left_where_starts_succeed(world in world(), traffic in traffic()) {
        let apps = world.apps.iter().map(|app| {
            let scaling = Scaling {
                startup_timeout: Duration::from_mins(10),
                ..without_floor(app.spec.scaling)
            };
            let spec = AppSpec { scaling, ..app.spec.clone() };
            let setup = Model::Constant(app.setup.mean());
            AppModel { spec, setup, faults: Faults::default(), ..app.clone() }
        });
        let world = World { apps: apps.collect(), happenings: Vec::new(), until: None, ..world };
        let (outcome, _, _) = watched(&world, &traffic);
        prop_assert_eq!(outcome.total.left, 0);
    }

    /// Where reports are punctual, a runner is dropped the moment it has ended.
    #[test]
    fn every_second_is_accounted_for(world in world(), traffic in traffic()) {
        let apps = world.apps.iter().map(|app| AppModel {
            spec: AppSpec { scaling: without_floor(app.spec.scaling), ..app.spec.clone() },
            ..app.clone()
        });
        let world = World {
            apps: apps.collect(),
            untidiness: Untidiness::default(),
            happenings: Vec::new(),
            until: None,
            ..world
        };
        let (outcome, alive, secs) = watched(&world, &traffic);
        // Only a simulation that is cut off, since some requests never end, ends with runners.
        prop_assert!(alive.is_empty() || outcome.total.left > 0);
        let end = traffic.first().map_or(Timestamp::ZERO, |first| first.at + outcome.span);
        let secs = secs + alive.values().map(|placed| (end - *placed).as_secs_f64()).sum::<f64>();
        let parts = outcome.total.runner_seconds.total() + outcome.total.runner_seconds.frozen;
        prop_assert!((parts - secs).abs() < 1e-6 * (1.0 + secs), "{} is not {}", parts, secs);
    }

    #[test]
    fn the_same_is_the_same_again(world in world(), traffic in traffic()) {
        let again = || traffic.iter().copied().map(Ok::<_, Infallible>);
        let outcome = world.doublecheck(again).unwrap_or_else(|failure| panic!("{failure}"));
        let (once, _, _) = watched(&world, &traffic);
        prop_assert_eq!(outcome.digest, once.digest);
        prop_assert_eq!(outcome.timeline, once.timeline);
    }
}
