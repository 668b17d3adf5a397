//! Random fleets, random and hostile schedules. Cases: 256, or `PROPTEST_CASES`.

use std::time::Duration;

use glowplug_core::Rung;
use glowplug_core::auto::{Budget, Settings};
use glowplug_core::engine::Config;
use glowplug_core::event::{Event, StopRequest};
use glowplug_core::ids::{AppId, Lease, RequestId, RunnerId};
use glowplug_core::request::{Answer, Mode, Outcome, Priority};
use glowplug_core::resources::{Allocation, Capacity, Gpu, MachineType};
use glowplug_core::retry::{Rules, Wish};
use glowplug_core::spec::{AppSpec, Policy, Scaling};
use proptest::prelude::*;

use crate::fleet::cases;
use crate::world::{Behaviour, Ending, Setup, World};

const APPS: u32 = 4;

#[derive(Clone, Debug)]
enum Step {
    Wait {
        millis: u64,
    },
    Oversleep {
        secs: u64,
    },
    Arrive {
        app: u32,
        direct: bool,
        low: bool,
        no_retry: bool,
        start_within_ms: Option<u64>,
    },
    Burst {
        app: u32,
        requests: u8,
    },
    Cancel {
        pick: usize,
    },
    Deploy {
        app: u32,
        plan: Box<AppPlan>,
    },
    Behave {
        app: u32,
        behaviour: Behaviour,
    },
    Remove {
        app: u32,
    },
    Resize {
        capacity: Capacity,
    },
    Stop {
        pick: usize,
        how: StopRequest,
    },
    Warm {
        app: u32,
        runners: u32,
    },
    Interest {
        app: u32,
    },
    Capture {
        app: u32,
        forgo: bool,
    },
    Crash {
        pick: usize,
    },
    Sicken {
        pick: usize,
    },
    /// A report that may be untimely or about nobody.
    Stray {
        pick: usize,
        kind: u8,
    },
    /// An outcome for a lease that may be of the past.
    StrayOutcome {
        pick: usize,
        attempt: u32,
        outcome: Outcome,
    },
    Adopt {
        app: u32,
        sequence: u32,
        gpu: Option<u32>,
        ready: bool,
        frozen: bool,
        boot: u32,
    },
    ShutDown,
}

#[derive(Clone, Debug)]
struct AppPlan {
    revision: u32,
    scaling: Scaling,
    machine_types: Vec<MachineType>,
    behaviour: Behaviour,
}

impl AppPlan {
    fn spec(&self, app: u32) -> AppSpec {
        AppSpec {
            name: format!("local/app{app}"),
            revision: self.revision,
            scaling: self.scaling,
            machine_types: self.machine_types.clone(),
            retry: Rules::default(),
        }
    }
}

fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (0u64..20_000).prop_map(Duration::from_millis),
        2 => (0u64..600).prop_map(Duration::from_secs),
        1 => Just(Duration::ZERO),
        1 => Just(Duration::MAX),
    ]
}

/// A limit that seldom strikes.
fn limit() -> impl Strategy<Value = Duration> {
    prop_oneof![3 => (60u64..600).prop_map(Duration::from_secs), 1 => span()]
}

fn scaling() -> impl Strategy<Value = Scaling> {
    let small = || prop_oneof![6 => 0u32..4, 1 => 0u32..100];
    let counts = (
        prop_oneof![3 => Just(0u32), 1 => small()],
        prop_oneof![2 => Just(None), 3 => (1u32..6).prop_map(Some), 1 => Just(Some(0))],
        prop_oneof![3 => Just(0u32), 1 => small()],
        prop_oneof![3 => Just(0u32), 1 => 0u32..500],
        prop_oneof![3 => Just(1u32), 2 => 2u32..5, 1 => Just(0), 1 => Just(u32::MAX)],
    );
    let maybe = || proptest::option::of(span());
    let spans = (span(), span(), limit(), limit(), maybe(), span(), maybe());
    (policy(), counts, spans).prop_map(
        |(
            policy,
            (min, max, buffer, perc, mux),
            (keep, delay, start, request, unused, grace, frozen),
        )| {
            Scaling {
                policy,
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

fn policy() -> impl Strategy<Value = Policy> {
    let budget = (span(), 0.0..0.5).prop_map(|(wait, share)| Budget { wait, share });
    let settings = (0.0..50.0, proptest::option::of(budget), span())
        .prop_map(|(wait_price, budget, keep_max)| Settings { wait_price, budget, keep_max });
    prop_oneof![2 => Just(Policy::Fixed), 1 => settings.prop_map(Policy::Auto)]
}

fn machine_type() -> impl Strategy<Value = MachineType> {
    let kind = prop_oneof![4 => Just(None), 1 => Just(Some("A")), 1 => Just(Some("B"))];
    (0u64..4, 0u64..4, 0u32..3, kind, prop_oneof![5 => Just(0u64), 1 => 0u64..100]).prop_map(
        |(cpu, memory, gpus, kind, gpu_memory)| MachineType {
            name: format!("{cpu}c{memory}m{gpus}g{}{gpu_memory}", kind.unwrap_or("x")),
            cpu_millis: cpu,
            memory_bytes: memory,
            gpus,
            gpu_kind: kind.map(str::to_owned),
            gpu_memory_bytes: gpu_memory,
        },
    )
}

fn machine_types() -> impl Strategy<Value = Vec<MachineType>> {
    prop_oneof![
        1 => Just(Vec::new()),
        20 => proptest::collection::vec(machine_type(), 1..4),
    ]
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    let setup = prop_oneof![
        15 => (0u64..10_000).prop_map(|ms| Setup::Takes(Duration::from_millis(ms))),
        1 => (0u64..5_000).prop_map(|ms| Setup::Crashes(Duration::from_millis(ms))),
        1 => Just(Setup::Hangs),
        1 => Just(Setup::NoRoom),
    ];
    let outcome = prop_oneof![
        15 => Just(Ending::Answers(200)),
        2 => prop_oneof![Just(500u16), Just(503), Just(504)].prop_map(Ending::Answers),
        1 => Just(Ending::Breaks),
        1 => Just(Ending::CannotConnect),
        1 => Just(Ending::RunnerDies),
        1 => Just(Ending::Hangs),
    ];
    let short = || (0u64..8_000).prop_map(Duration::from_millis);
    (proptest::option::of(short()), setup, short(), outcome, short()).prop_map(
        |(pull, setup, service, outcome, exit)| Behaviour { pull, setup, service, outcome, exit },
    )
}

fn app_plan() -> impl Strategy<Value = AppPlan> {
    (0u32..3, scaling(), machine_types(), behaviour()).prop_map(
        |(revision, scaling, machine_types, behaviour)| AppPlan {
            revision,
            scaling,
            machine_types,
            behaviour,
        },
    )
}

fn capacity() -> impl Strategy<Value = Capacity> {
    (0u64..9, 0u64..9, proptest::collection::vec((any::<bool>(), 0u64..100), 0..4)).prop_map(
        |(cpu_millis, memory_bytes, gpus)| Capacity {
            cpu_millis,
            memory_bytes,
            gpus: (0..)
                .zip(gpus)
                .map(|(index, (is_a, memory_bytes))| Gpu {
                    index,
                    kind: if is_a { "A" } else { "B" }.into(),
                    memory_bytes,
                })
                .collect(),
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let header = || proptest::option::of(any::<bool>());
    prop_oneof![
        Just(Outcome::ConnectFailed),
        Just(Outcome::Disconnected),
        Just(Outcome::CallerGone),
        (200u16..600, header(), header(), any::<bool>()).prop_map(
            |(status, needs_retry, stop_runner, check_health)| Outcome::Answered(Answer {
                status,
                needs_retry,
                stop_runner,
                check_health,
                hints: None,
            })
        ),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let app = || 0..APPS;
    let how = prop_oneof![
        Just(StopRequest::Graceful),
        Just(StopRequest::ReplaceFirst),
        Just(StopRequest::Kill),
    ];
    let arrive = (
        app(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        prop_oneof![3 => Just(None), 1 => (0u64..40_000).prop_map(Some)],
    )
        .prop_map(|(app, direct, low, no_retry, start_within_ms)| Step::Arrive {
            app,
            direct,
            low,
            no_retry,
            start_within_ms,
        });
    prop_oneof![
        10 => prop_oneof![0u64..3_000, 0u64..60_000].prop_map(|millis| Step::Wait { millis }),
        1 => (0u64..1_000).prop_map(|secs| Step::Oversleep { secs }),
        16 => arrive,
        4 => (app(), 1u8..30).prop_map(|(app, requests)| Step::Burst { app, requests }),
        2 => any::<usize>().prop_map(|pick| Step::Cancel { pick }),
        3 => (app(), app_plan())
            .prop_map(|(app, plan)| Step::Deploy { app, plan: Box::new(plan) }),
        3 => (app(), behaviour()).prop_map(|(app, behaviour)| Step::Behave { app, behaviour }),
        1 => app().prop_map(|app| Step::Remove { app }),
        1 => capacity().prop_map(|capacity| Step::Resize { capacity }),
        3 => (any::<usize>(), how).prop_map(|(pick, how)| Step::Stop { pick, how }),
        1 => (app(), prop_oneof![0u32..5, Just(u32::MAX)])
            .prop_map(|(app, runners)| Step::Warm { app, runners }),
        2 => app().prop_map(|app| Step::Interest { app }),
        2 => any::<usize>().prop_map(|pick| Step::Crash { pick }),
        1 => any::<usize>().prop_map(|pick| Step::Sicken { pick }),
        3 => (any::<usize>(), 0u8..9).prop_map(|(pick, kind)| Step::Stray { pick, kind }),
        2 => (any::<usize>(), 0u32..4, outcome())
            .prop_map(|(pick, attempt, outcome)| Step::StrayOutcome { pick, attempt, outcome }),
        1 => (app(), any::<bool>()).prop_map(|(app, forgo)| Step::Capture { app, forgo }),
        1 => (app(), 0u32..40, proptest::option::of(0u32..4), any::<[bool; 2]>(), 1u32..3)
            .prop_map(|(app, sequence, gpu, [ready, frozen], boot)| {
                Step::Adopt { app, sequence, gpu, ready, frozen, boot }
            }),
        1 => Just(Step::ShutDown),
    ]
}

fn chosen<T: Copy>(items: &[T], pick: usize) -> Option<T> {
    (!items.is_empty()).then(|| items[pick % items.len()])
}

fn take_step(world: &mut World, step: Step) {
    match step {
        Step::Wait { millis } => world.run(Duration::from_millis(millis)),
        Step::Oversleep { secs } => world.oversleep(Duration::from_secs(secs)),
        Step::Arrive { app, direct, low, no_retry, start_within_ms } => {
            let mode = if direct { Mode::Direct } else { Mode::Queued };
            let priority = if low { Priority::Low } else { Priority::Normal };
            let retries = if no_retry { Wish::Never } else { Wish::Unsaid };
            let start_within = start_within_ms.map(Duration::from_millis);
            world.arrive_as(AppId(app), mode, priority, start_within, retries);
        }
        Step::Burst { app, requests } => {
            for _ in 0..requests {
                world.arrive(AppId(app), Mode::Queued);
            }
        }
        Step::Cancel { pick } => {
            let request = chosen(&world.facts.open_requests(), pick).unwrap_or(RequestId(0));
            world.handle(Event::Cancelled { request });
        }
        Step::Deploy { app, plan } => world.deploy(AppId(app), plan.spec(app), plan.behaviour),
        Step::Behave { app, behaviour } => {
            world.behaviours.insert(AppId(app), behaviour);
        }
        Step::Remove { app } => world.handle(Event::AppRemoved { app: AppId(app) }),
        Step::Resize { capacity } => world.handle(Event::CapacityChanged { capacity }),
        Step::Interest { app } => world.handle(Event::Interest { app: AppId(app) }),
        Step::Warm { app, runners } => {
            world.handle(Event::WarmRequested { app: AppId(app), runners });
        }
        Step::Capture { app, forgo: false } => {
            world.handle(Event::CaptureRequested { app: AppId(app) });
        }
        Step::Capture { app, forgo: true } => {
            world.handle(Event::CaptureForgone { app: AppId(app) });
        }
        Step::Adopt { app, sequence, gpu, ready, frozen, boot } => {
            let allocation = Allocation {
                machine_type: "adopted".into(),
                cpu_millis: u64::from(sequence % 4),
                memory_bytes: if sequence == 7 { u64::MAX } else { 1 },
                gpus: gpu.into_iter().collect(),
            };
            // An earlier boot, or (against the rules) this one.
            let runner = RunnerId { boot, sequence };
            if boot < 2 || !world.facts.runner_ids().contains(&runner) {
                world.adopt(runner, AppId(app), allocation, ready, frozen);
            }
        }
        Step::ShutDown => world.handle(Event::ShutDown),
        Step::Stop { pick, .. }
        | Step::Crash { pick }
        | Step::Sicken { pick }
        | Step::Stray { pick, .. } => {
            let nobody = RunnerId { boot: 9, sequence: 9 };
            let runner = chosen(&world.facts.runner_ids(), pick).unwrap_or(nobody);
            stray(world, &step, runner);
        }
        Step::StrayOutcome { pick, attempt, outcome } => {
            if let Some(lease) = chosen(&world.facts.leases(), pick) {
                let attempt = if attempt == 0 { lease.attempt } else { attempt };
                world.handle(Event::Finished { lease: Lease { attempt, ..lease }, outcome });
            }
        }
    }
}

fn stray(world: &mut World, step: &Step, runner: RunnerId) {
    let detail = || "for no reason".to_owned();
    match *step {
        Step::Stop { how, .. } => world.stop(runner, how),
        Step::Crash { .. } => world.exits(runner, Duration::ZERO, "crashed"),
        Step::Sicken { .. } => world.handle(Event::Unhealthy { runner, detail: detail() }),
        Step::Stray { kind, .. } => world.handle(match kind {
            0 => Event::PullStarted { runner },
            1 => Event::SetupStarted { runner, rung: Rung::ImageCached },
            2 => Event::Ready { runner },
            3 => Event::NoRoom { runner, detail: detail() },
            4 => Event::Exited { runner, detail: detail() },
            5 => Event::Frozen { runner, held_bytes: 2 },
            6 => Event::Thawed { runner },
            7 => Event::FreezeFailed { runner, detail: detail() },
            _ => Event::Unhealthy { runner, detail: detail() },
        }),
        _ => {}
    }
}

/// Faults stop: every app is sane, small and healthy, and the node is large.
fn heal(world: &mut World, was_shut_down: bool) {
    if was_shut_down {
        return;
    }
    world.untidy = false;
    let gpu = |index| Gpu { index, kind: "A".into(), memory_bytes: 1_000 };
    let capacity = Capacity { cpu_millis: 4, memory_bytes: 4, gpus: (0..2).map(gpu).collect() };
    world.handle(Event::CapacityChanged { capacity });
    for app in 0..APPS {
        let machine = MachineType {
            name: "healed".into(),
            cpu_millis: u64::from(app),
            memory_bytes: 1,
            gpus: app % 3,
            ..MachineType::default()
        };
        let scaling = Scaling {
            startup_timeout: Duration::from_secs(100),
            request_timeout: Duration::from_secs(100),
            ..Scaling::default()
        };
        let spec = AppSpec {
            name: format!("local/app{app}"),
            revision: 100,
            scaling,
            machine_types: vec![machine],
            retry: Rules::default(),
        };
        world.deploy(AppId(app), spec, Behaviour::default());
    }
    // What hangs without any limit of its own (a pull, a lost end) is ended by hand.
    for runner in world.facts.runner_ids() {
        world.exits(runner, Duration::ZERO, "swept up");
    }
}

fn play(capacity: Capacity, plans: &[AppPlan], steps: Vec<Step>, untidy: bool) {
    let config = Config { boot: 2, waiting_max: 40, frozen_memory_max: 2, ..Config::default() };
    let mut world = World::new(capacity, config);
    world.untidy = untidy;
    for (app, plan) in (0..).zip(plans) {
        world.deploy(AppId(app), plan.spec(app), plan.behaviour);
    }
    let was_shut_down = steps.iter().any(|step| matches!(step, Step::ShutDown));
    for step in steps {
        take_step(&mut world, step);
    }
    heal(&mut world, was_shut_down);
    if !was_shut_down {
        world.run(Duration::from_hours(3));
        let open = world.facts.open_requests();
        assert!(open.is_empty(), "still waiting: {open:?}\n{}", world.story());
    }
    for app in 0..APPS {
        world.handle(Event::AppRemoved { app: AppId(app) });
    }
    for runner in world.facts.runner_ids() {
        world.exits(runner, Duration::ZERO, "swept up");
    }
    world.run_out();
    assert_eq!(world.engine.runner_count(), 0, "{}", world.story());
    assert_eq!(world.facts.open_requests(), []);
    for app in 0..APPS {
        assert!(world.engine.app(AppId(app), world.now).is_none());
    }
}

proptest! {
    #![proptest_config(cases("random"))]

    /// Whatever comes, in whatever order: no rule is broken, nothing is lost, nothing stays behind.
    #[test]
    fn nothing_breaks_the_rules(
        capacity in capacity(),
        plans in proptest::collection::vec(app_plan(), 1..=APPS as usize),
        steps in proptest::collection::vec(step(), 0..80),
        untidy in any::<bool>(),
        shuts_down in prop::bool::weighted(0.1),
    ) {
        let mut steps = steps;
        steps.retain(|step| shuts_down || !matches!(step, Step::ShutDown));
        play(capacity, &plans, steps, untidy);
    }
}
