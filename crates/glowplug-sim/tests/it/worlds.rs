//! Worlds and traffic to begin with.

use std::convert::Infallible;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::resources::{Capacity, MachineType};
use glowplug_core::retry::Rules;
use glowplug_core::spec::{AppSpec, Scaling};
use glowplug_sim::model::{AppModel, Faults, Model};
use glowplug_sim::outcome::Outcome;
use glowplug_sim::simulation::World;
use glowplug_sim::traffic::Arrival;

pub(crate) fn secs(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

pub(crate) fn at(secs: f64) -> Timestamp {
    Timestamp::ZERO + Duration::from_secs_f64(secs)
}

pub(crate) fn machine() -> MachineType {
    MachineType { name: "m".into(), cpu_millis: 1_000, ..MachineType::default() }
}

/// Sets up in 2 s, serves for 1 s, ends at once.
pub(crate) fn app(scaling: Scaling) -> AppModel {
    AppModel {
        spec: AppSpec {
            name: "local/app".into(),
            revision: 1,
            scaling,
            machine_types: vec![machine()],
            retry: Rules::default(),
        },
        pull: None,
        setup: Model::Constant(secs(2.0)),
        service: Model::Constant(secs(1.0)),
        exit: Model::Constant(Duration::ZERO),
        slowdown: 0.0,
        faults: Faults::default(),
    }
}

/// Room for so many runners of such apps.
pub(crate) fn room(runners: u64) -> Capacity {
    Capacity { cpu_millis: runners * 1_000, ..Capacity::default() }
}

pub(crate) fn world(apps: Vec<AppModel>) -> World {
    World { seed: 1, capacity: room(10_000), apps, ..World::default() }
}

/// Requests of app 0 at these seconds.
pub(crate) fn arrivals(at_secs: &[f64]) -> Vec<Arrival> {
    at_secs.iter().map(|secs| Arrival::new(at(*secs), 0, None)).collect()
}

pub(crate) fn run(world: &World, traffic: &[Arrival]) -> Outcome {
    world.run(traffic.iter().copied().map(Ok::<_, Infallible>)).expect("no rule is broken")
}
