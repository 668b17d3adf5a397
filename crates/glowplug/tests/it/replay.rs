//! What the simulator says of recorded traffic is what the node did.

use std::convert::Infallible;
use std::time::Duration;

use glowplug_core::decision::StartCause;
use glowplug_core::engine;
use glowplug_core::resources::{Capacity, MachineType};
use glowplug_core::retry::Rules;
use glowplug_core::spec::AppSpec;
use glowplug_sim::model::{AppModel, Faults, Model};
use glowplug_sim::simulation::World;
use glowplug_sim::trace::{Request, Start};
use glowplug_sim::traffic::Arrival;

use super::recorded::{self, Caller, Node, Trace};

/// Requests that come at once, and how long each takes.
type Burst = (&'static str, &'static [&'static str]);

/// Some of every kind: a first start, expiries, spikes, waiting at the cap, warm requests.
const BURSTS: [&[Burst]; 5] = [
    &[("free", &["0.05"]), ("free", &["0.1", "0.2", "0.15"]), ("free", &["0.05"])],
    &[("capped", &["0.2", "0.1", "0.05", "0.1", "0.2"]), ("capped", &["0.05"])],
    &[("free", &["0.1"]), ("capped", &["0.1"]), ("free", &["0.2", "0.2"])],
    &[("free", &["0.05", "0.05"]), ("free", &["0.05"]), ("free", &["0.05"])],
    &[("capped", &["0.1", "0.1", "0.1"]), ("free", &["0.1", "0.05", "0.05", "0.2"])],
];

const CONFIG: &str = "[apps.free]\n$APP\nkeep_alive = 0.5\nenv = { SETUP = '0.3' }\n\
                      [apps.capped]\n$APP\nkeep_alive = 0.5\nmax_concurrency = 2\n\
                      env = { SETUP = '0.3' }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_run_replays_as_it_was() {
    let node = recorded::start(CONFIG);
    load(&node).await;
    let trace = node.export(&[]);
    let requests: usize = BURSTS.iter().flat_map(|bursts| *bursts).map(|(_, all)| all.len()).sum();
    assert_eq!(trace.requests.len(), requests);
    let world = world(&trace);
    let outcome = world
        .run(trace.requests.iter().map(|request| Ok::<_, Infallible>(arrival(request))))
        .unwrap();

    let recorded = starts(&trace);
    assert_eq!(outcome.total.starts, recorded, "by cause, in the order of StartCause::ALL");
    assert!(recorded[cause(StartCause::Expired)] > 3, "the load was to cause cold starts");
    assert!(recorded[cause(StartCause::Spike)] > 3, "and spikes");
    assert_eq!(outcome.total.answered, trace.requests.len() as u64);

    let was = mean_wait(&trace);
    let predicted = outcome.total.waits.mean();
    let difference = predicted.abs_diff(was);
    assert!(difference <= was.mul_f64(0.05) + LATENESS, "{predicted:?} was to be {was:?}");
    for (index, app) in (0..).zip(&trace.apps) {
        let waited = |request: &&Request| request.waited > Some(Duration::ZERO);
        let own = trace.requests.iter().filter(|request| request.app == index);
        let cold = own.filter(waited).count() as u64;
        assert_eq!(outcome.apps[index as usize].cold, cold, "{}", app.name);
    }
}

/// A node is told of an event a little after it happened, and of time passing by a timer that counts
/// milliseconds: that much may lie between two events which the simulator sees at once.
const LATENESS: Duration = Duration::from_millis(1);

/// One round after the other, each when nothing is left of the one before.
async fn load(node: &Node) {
    for bursts in BURSTS {
        for (app, requests) in bursts {
            burst(&node.caller(), app, requests).await;
        }
        node.wait_for_quiet().await;
    }
}

/// All at once, every other one through the queue, and waits for the last.
async fn burst(caller: &Caller, app: &'static str, requests: &[&str]) {
    let calls = (0..).zip(requests).map(|(nth, seconds)| {
        let (caller, query) = (caller.clone(), format!("seconds={seconds}"));
        tokio::spawn(async move {
            if nth % 2 == 0 {
                assert_eq!(caller.run(app, &query).await, 200);
            } else {
                let id = caller.submit(app, &query).await;
                caller.completed(app, &id).await;
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

/// The node's apps with the times that its starts took, in their order.
fn world(trace: &Trace) -> World {
    let capacity = Capacity { cpu_millis: 64_000, memory_bytes: 64 << 30, gpus: Vec::new() };
    let apps = (0..).zip(&trace.apps).map(|(index, app)| {
        let starts = trace.starts.iter().filter(|start| start.app == index);
        // One that was cancelled would have taken longer, nobody knows how long.
        let setup = |start: &Start| if start.ready { start.setup } else { Duration::from_hours(1) };
        let setups: Vec<Duration> = starts.map(setup).collect();
        let machine = MachineType {
            name: "small".into(),
            cpu_millis: 1,
            memory_bytes: 1,
            gpus: 0,
            gpu_kind: None,
            gpu_memory_bytes: 0,
        };
        AppModel {
            spec: AppSpec {
                name: app.name.clone(),
                revision: 1,
                scaling: app.scaling.unwrap(),
                machine_types: vec![machine],
                retry: Rules::default(),
            },
            pull: None,
            setup: Model::InOrder(setups.into()),
            service: Model::Constant(Duration::ZERO),
            exit: Model::Constant(Duration::from_millis(20)),
            slowdown: 0.0,
            faults: Faults::default(),
        }
    });
    World { engine: engine::Config::default(), capacity, apps: apps.collect(), ..World::default() }
}

fn arrival(request: &Request) -> Arrival {
    let Request { at, app, service, mode, priority, start_within, .. } = *request;
    Arrival { at, app, service, mode, priority, start_within }
}

fn cause(cause: StartCause) -> usize {
    StartCause::ALL.iter().position(|other| *other == cause).unwrap()
}

/// By cause, in the order of [`StartCause::ALL`].
fn starts(trace: &Trace) -> [u64; StartCause::ALL.len()] {
    let mut starts = [0; StartCause::ALL.len()];
    for start in &trace.starts {
        starts[cause(start.cause)] += 1;
    }
    starts
}

fn mean_wait(trace: &Trace) -> Duration {
    let waited = trace.requests.iter().map(|request| request.waited.unwrap());
    waited.sum::<Duration>() / u32::try_from(trace.requests.len()).unwrap()
}
