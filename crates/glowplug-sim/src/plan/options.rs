//! What a plan is made with.

use std::collections::BTreeMap;
use std::time::Duration;

use glowplug_core::resources::{Capacity, MachineType};
use glowplug_core::spec::Scaling;

use super::grid::Grid;
use super::price::Prices;
use super::result::WaitMeasure;
use super::setting::Setting;
use crate::model::Model;

/// Requests below which an app shares the setting of all such apps: fewer gaps than this say little about
/// gaps to come.
const OWN_SETTING_REQUESTS_MIN: u64 = 50;
/// The wait beyond which a caller counts as kept waiting.
const WAIT_BUDGET: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// SETUP of every app. `None`: as recorded.
    pub setup: Option<Model>,
    /// Of requests that do not bring their own. `None`: as recorded.
    pub service: Option<Model>,
    /// How much requests on one runner slow each other: [`crate::model::AppModel::slowdown`].
    pub slowdown: f64,
    /// What the node has. `None`: everything fits.
    pub capacity: Option<Capacity>,
    /// By name. Needed when there is a capacity.
    pub machines: BTreeMap<String, MachineType>,
    /// Of apps whose trace does not name one.
    pub default_machine: String,
    pub prices: Prices,
    /// Settings of the config, by app; they go before those the trace recorded.
    pub configured: BTreeMap<String, Scaling>,
    /// Machine types of the config, by app; they go before those the trace recorded.
    pub configured_machines: BTreeMap<String, String>,
    /// Of apps about which neither says anything.
    pub default_scaling: Scaling,
    /// The text of the user's `glowplug.toml`, to make a diff against. `None`: against today's values alone.
    pub config: Option<String>,
    pub wait_budget: Duration,
    /// The second axis of the frontier.
    pub wait_measure: WaitMeasure,
    pub budget: Budget,
    pub grid: Grid,
    pub holdout: Holdout,
    /// Apps with fewer requests share one setting.
    pub own_setting_requests_min: u64,
    /// `None`: as many as there are cores. The result does not depend on it.
    pub threads: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            setup: None,
            service: None,
            slowdown: 0.0,
            capacity: None,
            machines: BTreeMap::new(),
            default_machine: "default".to_owned(),
            prices: Prices::default(),
            configured: BTreeMap::new(),
            configured_machines: BTreeMap::new(),
            default_scaling: Scaling::default(),
            config: None,
            wait_budget: WAIT_BUDGET,
            wait_measure: WaitMeasure::default(),
            budget: Budget::default(),
            grid: Grid::default(),
            holdout: Holdout::default(),
            own_setting_requests_min: OWN_SETTING_REQUESTS_MIN,
            threads: None,
        }
    }
}

/// What the user states.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budget {
    /// This much of waiting at most: `--wait-mean`, `--wait-p50`, `--wait-p95`, `--wait-p99`.
    /// [`WaitMeasure::OverBudget`] asks that at most 1 % of requests wait longer than the time.
    pub wait: Option<(WaitMeasure, Duration)>,
    /// In the unit of the prices, or runner-hours.
    pub cost_per_day: Option<f64>,
}

/// How much of the traffic, from its end, settings are judged by and not chosen on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Holdout {
    /// A quarter, if that is at least a day.
    #[default]
    Auto,
    Off,
    /// From 0.05 to 0.9.
    Share(f64),
}

/// Hears how far the work is, from several threads at once.
pub trait Progress: Sync {
    /// Called once, before the first simulation. Recommendations need a few simulations more.
    fn planned(&self, _simulations: usize, _requests: u64) {}
    /// Requests that some simulation has come past since the last call.
    fn requests(&self, _count: u64) {}
    fn simulated(&self, _setting: &Setting) {}
    /// Asked every few thousand requests; `true` ends the plan with [`super::Error::Cancelled`].
    fn cancelled(&self) -> bool {
        false
    }
}

/// Nobody listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}
