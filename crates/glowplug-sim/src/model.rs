//! How long things take, and how they fail.

use std::sync::Arc;
use std::time::Duration;

use glowplug_core::spec::AppSpec;

/// A time that is drawn anew each time it is needed.
#[derive(Clone, Debug, PartialEq)]
pub enum Model {
    /// Always the same.
    Constant(Duration),
    /// One of these, each as likely as the others. Never empty.
    Empirical(Arc<[Duration]>),
    /// One after the other, from the beginning again after the last: a replay. Never empty.
    InOrder(Arc<[Duration]>),
    /// `exp` of a normal deviate: `median_secs × exp(sigma × z)`.
    LogNormal { median_secs: f64, sigma: f64 },
    /// Memoryless.
    Exponential { mean_secs: f64 },
}

/// An app with everything the engine does not know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct AppModel {
    pub spec: AppSpec,
    /// DOCKER_PULL, of the first start only: then it is cached. `None`: it is cached from the beginning.
    pub pull: Option<Model>,
    /// SETUP.
    pub setup: Model,
    /// Of requests that do not bring their own.
    pub service: Model,
    /// From being told to end until it has.
    pub exit: Model,
    /// How much slower one request gets by each other one on its runner: with `n` at once each proceeds
    /// at `1 / (1 + slowdown × (n - 1))` of its speed. 0: not at all; 1: they share the runner.
    pub slowdown: f64,
    pub faults: Faults,
}

/// How often things go wrong, as probabilities from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// A setup ends with a crash, at a moment within it.
    pub setup_crash: f64,
    /// A setup never ends by itself.
    pub setup_hang: f64,
    /// A runner dies with the request on it.
    pub crash: f64,
    /// An attempt is answered with status 500.
    pub error: f64,
}
