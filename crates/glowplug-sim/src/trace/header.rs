//! The parts of a trace that are JSON: its header and its apps.

use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::auto::{self, Budget};
use glowplug_core::spec::{Policy, Scaling, WAIT_BUDGET_PERCENT};
use serde::{Deserialize, Serialize};

use super::App;
use super::error::Fault;
use super::limits::{NAME_BYTES_MAX, TIME_MAX};

/// Raised when a reader that does not know of a change would misunderstand the trace.
pub(super) const VERSION: u32 = 1;
/// Raised with each record or field that older readers may pass over.
pub(super) const MINOR: u32 = 1;

/// What a trace says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The wall clock at the trace's beginning; all times in it count from there. `None`: not known.
    pub began: Option<Timestamp>,
    /// The program that wrote it, for people.
    pub made_by: String,
}

#[derive(Serialize, Deserialize)]
struct HeaderLine {
    glowplug_trace: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    minor: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    began_micros: Option<u64>,
    #[serde(default)]
    made_by: String,
}

/// How a reader takes what it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// A mistake.
    Refused,
    /// Something that a newer program has added.
    Skipped,
}

impl Header {
    pub(super) fn line(&self) -> String {
        json(&HeaderLine {
            glowplug_trace: VERSION,
            minor: MINOR,
            began_micros: self.began.map(Timestamp::as_micros),
            made_by: self.made_by.clone(),
        })
    }

    pub(super) fn parse(line: &[u8]) -> Result<(Self, Unknown), Fault> {
        #[derive(Deserialize)]
        struct Version {
            glowplug_trace: u32,
        }
        // A newer header may differ in everything else.
        let version: Version = serde_json::from_slice(line).map_err(|_| Fault::NoHeader)?;
        if version.glowplug_trace > VERSION {
            return Err(Fault::Newer { found: version.glowplug_trace });
        }
        let line: HeaderLine = serde_json::from_slice(line).map_err(Fault::Header)?;
        let unknown = if line.minor > MINOR { Unknown::Skipped } else { Unknown::Refused };
        let header =
            Self { began: line.began_micros.map(Timestamp::from_micros), made_by: line.made_by };
        Ok((header, unknown))
    }
}

#[derive(Serialize, Deserialize)]
struct AppLine {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scaling: Option<ScalingLine>,
}

/// [`Scaling`] with its durations in microseconds. What is left out has the default.
#[derive(Serialize, Deserialize)]
#[serde(default)]
struct ScalingLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    auto: Option<AutoLine>,
    keep_alive_micros: u64,
    min_concurrency: u32,
    max_concurrency: Option<u32>,
    concurrency_buffer: u32,
    concurrency_buffer_perc: u32,
    scaling_delay_micros: u64,
    max_multiplexing: u32,
    startup_timeout_micros: u64,
    request_timeout_micros: u64,
    unused_runner_timeout_micros: Option<u64>,
    termination_grace_period_micros: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    frozen_for_micros: Option<u64>,
}

/// What an app aims for whose policy is `auto`. Since minor 1.
#[derive(Serialize, Deserialize)]
#[serde(default)]
struct AutoLine {
    wait_price: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_budget_micros: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_budget_share: Option<f64>,
    keep_max_micros: u64,
}

impl App {
    pub(super) fn line(&self) -> Result<String, Fault> {
        self.check()?;
        Ok(json(&AppLine {
            name: self.name.clone(),
            machine_type: self.machine_type.clone(),
            scaling: self.scaling.as_ref().map(ScalingLine::from),
        }))
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self, Fault> {
        let line: AppLine =
            serde_json::from_slice(text).map_err(|error| Fault::App(error.to_string()))?;
        let app = Self {
            name: line.name,
            scaling: line.scaling.as_ref().map(ScalingLine::scaling),
            machine_type: line.machine_type,
        };
        app.check()?;
        Ok(app)
    }

    fn check(&self) -> Result<(), Fault> {
        let names = [("name", Some(&self.name)), ("machine_type", self.machine_type.as_ref())];
        for (key, name) in names {
            match name.map_or(1, String::len) {
                0 => return Err(Fault::App(format!("`{key}` is empty"))),
                1..=NAME_BYTES_MAX => {}
                _ => {
                    let problem = format!("`{key}` is longer than {NAME_BYTES_MAX} bytes");
                    return Err(Fault::App(problem));
                }
            }
        }
        match &self.scaling {
            None => Ok(()),
            Some(scaling) => scaling.validate().map_err(|error| Fault::App(error.to_string())),
        }
    }
}

impl Default for ScalingLine {
    fn default() -> Self {
        Self::from(&Scaling::default())
    }
}

impl From<&Scaling> for ScalingLine {
    fn from(scaling: &Scaling) -> Self {
        Self {
            auto: match &scaling.policy {
                Policy::Fixed => None,
                Policy::Auto(settings) => Some(AutoLine::from(settings)),
            },
            keep_alive_micros: micros(scaling.keep_alive),
            min_concurrency: scaling.min_concurrency,
            max_concurrency: scaling.max_concurrency,
            concurrency_buffer: scaling.concurrency_buffer,
            concurrency_buffer_perc: scaling.concurrency_buffer_perc,
            scaling_delay_micros: micros(scaling.scaling_delay),
            max_multiplexing: scaling.max_multiplexing,
            startup_timeout_micros: micros(scaling.startup_timeout),
            request_timeout_micros: micros(scaling.request_timeout),
            unused_runner_timeout_micros: scaling.unused_runner_timeout.map(micros),
            termination_grace_period_micros: micros(scaling.termination_grace_period),
            frozen_for_micros: scaling.frozen_for.map(micros),
        }
    }
}

impl ScalingLine {
    fn scaling(&self) -> Scaling {
        Scaling {
            policy: self.auto.as_ref().map_or(Policy::Fixed, |auto| Policy::Auto(auto.settings())),
            keep_alive: Duration::from_micros(self.keep_alive_micros),
            min_concurrency: self.min_concurrency,
            max_concurrency: self.max_concurrency,
            concurrency_buffer: self.concurrency_buffer,
            concurrency_buffer_perc: self.concurrency_buffer_perc,
            scaling_delay: Duration::from_micros(self.scaling_delay_micros),
            max_multiplexing: self.max_multiplexing,
            startup_timeout: Duration::from_micros(self.startup_timeout_micros),
            request_timeout: Duration::from_micros(self.request_timeout_micros),
            unused_runner_timeout: self.unused_runner_timeout_micros.map(Duration::from_micros),
            termination_grace_period: Duration::from_micros(self.termination_grace_period_micros),
            frozen_for: self.frozen_for_micros.map(Duration::from_micros),
        }
    }
}

impl Default for AutoLine {
    fn default() -> Self {
        Self::from(&auto::Settings::default())
    }
}

impl From<&auto::Settings> for AutoLine {
    fn from(settings: &auto::Settings) -> Self {
        Self {
            wait_price: settings.wait_price,
            wait_budget_micros: settings.budget.map(|budget| micros(budget.wait)),
            wait_budget_share: settings.budget.map(|budget| budget.share),
            keep_max_micros: micros(settings.keep_max),
        }
    }
}

impl AutoLine {
    fn settings(&self) -> auto::Settings {
        let share = self.wait_budget_share.unwrap_or(WAIT_BUDGET_PERCENT / 100.0);
        auto::Settings {
            wait_price: self.wait_price,
            budget: self
                .wait_budget_micros
                .map(Duration::from_micros)
                .map(|wait| Budget { wait, share }),
            keep_max: Duration::from_micros(self.keep_max_micros),
        }
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.min(TIME_MAX).as_micros()).expect("100 years fit")
}

fn json(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("it has only texts and numbers")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
