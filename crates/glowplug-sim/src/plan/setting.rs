//! One way to scale, as the sweep tries it on every app.

use std::fmt;
use std::time::Duration;

use glowplug_core::auto;
use glowplug_core::spec::{Policy, Scaling};
use glowplug_core::time::Pretty;
use serde::{Serialize, Serializer};

/// What is tried. Parameters it does not name stay as they are set today.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "policy")]
pub enum Setting {
    /// Every app as it is.
    Today,
    Fixed(Fixed),
    Auto(Auto),
    /// Each app its own: what is recommended is made of several.
    PerApp,
}

/// fal's parameters with fixed values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fixed {
    #[serde(rename = "keep_alive_secs", serialize_with = "secs")]
    pub keep_alive: Duration,
    pub min_concurrency: u32,
    pub concurrency_buffer: u32,
    pub concurrency_buffer_perc: u32,
    #[serde(rename = "scaling_delay_secs", serialize_with = "secs")]
    pub scaling_delay: Duration,
}

/// `policy = "auto"`, with neither a floor nor buffers beside it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Auto {
    pub wait_price: f64,
    /// What the policy is to keep. The price is then only where it begins.
    #[serde(flatten)]
    pub budget: Option<WaitBudget>,
}

/// A share of the requests is to wait no longer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WaitBudget {
    #[serde(rename = "wait_budget_secs", serialize_with = "secs")]
    pub wait: Duration,
    /// Of the requests, that may.
    #[serde(rename = "wait_budget_percent")]
    pub percent: f64,
}

fn secs<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

impl Setting {
    /// What an app with the scaling `today` gets.
    pub fn apply(&self, today: Scaling) -> Scaling {
        match self {
            Self::Today | Self::PerApp => today,
            Self::Fixed(fixed) => fixed.apply(today),
            Self::Auto(auto) => auto.apply(today),
        }
    }
}

impl Fixed {
    fn apply(&self, today: Scaling) -> Scaling {
        let cap = today.max_concurrency.unwrap_or(u32::MAX);
        Scaling {
            policy: Policy::Fixed,
            keep_alive: self.keep_alive,
            // A floor above the app's own cap is refused by the node.
            min_concurrency: self.min_concurrency.min(cap),
            concurrency_buffer: self.concurrency_buffer,
            concurrency_buffer_perc: self.concurrency_buffer_perc,
            scaling_delay: self.scaling_delay,
            ..today
        }
    }
}

impl Auto {
    fn apply(&self, today: Scaling) -> Scaling {
        let keep_max = match today.policy {
            Policy::Auto(settings) => settings.keep_max,
            Policy::Fixed => auto::Settings::default().keep_max,
        };
        let budget = self.budget.map(|WaitBudget { wait, percent }| {
            let share = percent / 100.0;
            auto::Budget { wait, share }
        });
        Scaling {
            policy: Policy::Auto(auto::Settings { wait_price: self.wait_price, budget, keep_max }),
            min_concurrency: 0,
            concurrency_buffer: 0,
            concurrency_buffer_perc: 0,
            scaling_delay: Duration::ZERO,
            ..today
        }
    }
}

impl Default for Auto {
    fn default() -> Self {
        Self { wait_price: auto::Settings::default().wait_price, budget: None }
    }
}

/// `auto, wait price 12` or `keep_alive 1 min, buffer 1`; parameters at 0 are left out, but for `keep_alive`.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fixed = match self {
            Self::Today => return f.write_str("as today"),
            Self::PerApp => return f.write_str("per app"),
            Self::Auto(Auto { budget: Some(WaitBudget { wait, percent }), .. }) => {
                let kept = 100.0 - percent;
                return write!(f, "auto, {kept} % within {}", Pretty(*wait));
            }
            Self::Auto(auto) => return write!(f, "auto, wait price {}", auto.wait_price),
            Self::Fixed(fixed) => fixed,
        };
        if fixed.keep_alive.is_zero() {
            f.write_str("keep_alive 0")?;
        } else {
            write!(f, "keep_alive {}", Pretty(fixed.keep_alive))?;
        }
        if fixed.min_concurrency > 0 {
            write!(f, ", min {}", fixed.min_concurrency)?;
        }
        if fixed.concurrency_buffer > 0 {
            write!(f, ", buffer {}", fixed.concurrency_buffer)?;
        }
        if fixed.concurrency_buffer_perc > 0 {
            write!(f, ", buffer {} %", fixed.concurrency_buffer_perc)?;
        }
        if !fixed.scaling_delay.is_zero() {
            write!(f, ", delay {}", Pretty(fixed.scaling_delay))?;
        }
        Ok(())
    }
}
