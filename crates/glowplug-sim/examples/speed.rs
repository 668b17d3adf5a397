//! How many of the engine's events a simulation gets through per second. Prints one JSON line per case.
//!
//! `speed [APPS RUNNERS REQUESTS]`: one case of that size instead of the usual ones.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use glowplug_core::Timestamp;
use glowplug_core::resources::{Capacity, MachineType};
use glowplug_core::spec::{AppSpec, Scaling};
use glowplug_sim::model::{AppModel, Faults, Model};
use glowplug_sim::simulation::World;
use glowplug_sim::traffic::Arrival;

/// Apps, runners in use on average over all of them, requests.
const CASES: &[(u32, u32, u64)] = &[
    (1, 1, 3_000_000),
    (1, 10, 3_000_000),
    (1, 100, 3_000_000),
    (1, 1_000, 3_000_000),
    (10, 100, 3_000_000),
    (100, 100, 3_000_000),
    (100, 1_000, 3_000_000),
    (1_000, 1_000, 3_000_000),
    (10_000, 1_000, 3_000_000),
];

const SERVICE: Duration = Duration::from_secs(1);

fn main() {
    let args: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    match args.as_slice() {
        [apps, runners, requests] => measure(narrow(*apps), narrow(*runners), *requests),
        _ => CASES.iter().for_each(|(apps, runners, requests)| measure(*apps, *runners, *requests)),
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn world(apps: u32) -> World {
    let machine = MachineType { name: "S".into(), cpu_millis: 1, ..MachineType::default() };
    let app = |nth| AppModel {
        spec: AppSpec {
            name: format!("local/app-{nth}"),
            revision: 1,
            scaling: Scaling { keep_alive: Duration::from_mins(1), ..Scaling::default() },
            machine_types: vec![machine.clone()],
        },
        pull: None,
        setup: Model::Constant(Duration::from_millis(500)),
        service: Model::Exponential { mean_secs: SERVICE.as_secs_f64() },
        exit: Model::Constant(Duration::ZERO),
        slowdown: 0.0,
        faults: Faults::default(),
    };
    World {
        seed: 1,
        capacity: Capacity { cpu_millis: 1_000_000, ..Capacity::default() },
        apps: (0..apps).map(app).collect(),
        ..World::default()
    }
}

/// As many requests at once as there are runners, on average: evenly spaced in time, each to any app.
fn traffic(
    apps: u32,
    runners: u32,
    requests: u64,
) -> impl Iterator<Item = Result<Arrival, Infallible>> {
    let gap_nanos = u64::try_from(SERVICE.as_nanos()).unwrap_or(u64::MAX) / u64::from(runners);
    (0..requests).map(move |nth| {
        // Scrambled, so that no app has a rhythm of its own.
        let scrambled = (nth ^ (nth >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let app = narrow((scrambled * u64::from(apps)) >> 32);
        Ok(Arrival::new(Timestamp::from_micros(nth * gap_nanos / 1_000), app, None))
    })
}

#[expect(clippy::disallowed_methods, reason = "this measures the simulator, from outside")]
fn clock() -> Instant {
    Instant::now()
}

#[expect(clippy::print_stdout, reason = "the result is this program's output")]
#[expect(clippy::cast_precision_loss, reason = "shown without digits")]
fn measure(apps: u32, runners: u32, requests: u64) {
    let world = world(apps);
    let began = clock();
    let outcome = world.run(traffic(apps, runners, requests)).expect("no rule is broken");
    let secs = began.elapsed().as_secs_f64();
    assert_eq!(outcome.total.answered, requests, "every request is answered");
    println!(
        "{{\"apps\":{apps},\"runners\":{runners},\"requests\":{requests},\"starts\":{},\"events\":{},\
         \"secs\":{secs:.3},\"events_per_s\":{:.0},\"requests_per_s\":{:.0},\"digest\":\"{:016x}\"}}",
        outcome.total.starts_total(),
        outcome.events,
        outcome.events as f64 / secs,
        requests as f64 / secs,
        outcome.digest,
    );
}
