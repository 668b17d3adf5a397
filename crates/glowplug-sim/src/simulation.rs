//! The driver: engine, agenda, models and checkers on a virtual clock.

use glowplug_core::engine;
use glowplug_core::resources::Capacity;

use crate::model::AppModel;
use crate::outcome::Outcome;
use crate::traffic::Arrival;

/// Everything that decides the course of a simulation, but for the traffic.
#[derive(Clone, Debug)]
pub struct World {
    pub seed: u64,
    pub engine: engine::Config,
    pub capacity: Capacity,
    /// App `n` of the traffic is the `n`th of these.
    pub apps: Vec<AppModel>,
    pub untidiness: Untidiness,
    /// Moments kept of the course of runner states; 0: none.
    pub moments_max: usize,
}

/// What happens to reports on their way to the engine, as probabilities from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Untidiness {
    pub lost: f64,
    pub late: f64,
    pub twice: f64,
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum Failure<E: std::error::Error + 'static> {
    #[error("the traffic ends early")]
    Traffic(#[source] E),
}

impl World {
    /// Lets the traffic happen until its last runner has ended.
    pub fn run<E>(
        &self,
        _traffic: impl Iterator<Item = Result<Arrival, E>>,
    ) -> Result<Outcome, Failure<E>>
    where
        E: std::error::Error + 'static,
    {
        unimplemented!("lands with the driver")
    }
}
