//! What an app asks of the engine.

mod overrides;

use std::fmt;
use std::time::Duration;

pub use overrides::{Overrides, PolicyName, WAIT_BUDGET_PERCENT, WAIT_PRICES, wait_price};

use crate::auto;
use crate::resources::MachineType;
use crate::retry;

/// fal's scaling parameters, under fal's names. Defaults are fal's for a `fal.App`, but for `keep_alive`:
/// 10 s, as fal gives to anything that does not set its own (`fal.App` sets 60).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    pub policy: Policy,
    /// How long an idle runner is kept after its last request.
    pub keep_alive: Duration,
    /// Runners always alive.
    pub min_concurrency: u32,
    /// Cap on runners; `None`: as many as fit.
    pub max_concurrency: Option<u32>,
    /// Spare runners kept above demand.
    pub concurrency_buffer: u32,
    /// Spare capacity in percent of the request volume; the larger of the two buffers counts.
    pub concurrency_buffer_perc: u32,
    /// How long a request must have waited before it may cause a start.
    pub scaling_delay: Duration,
    /// Requests one runner serves at once.
    pub max_multiplexing: u32,
    /// Limit on SETUP (not on PENDING or DOCKER_PULL).
    pub startup_timeout: Duration,
    /// Limit on one attempt of a request; overrun stops the runner.
    pub request_timeout: Duration,
    /// How long a runner that never got a request is kept when neither a floor nor a buffer asks for it.
    /// `None`: `keep_alive`. (fal used 10 s up to mid-2026.)
    pub unused_runner_timeout: Option<Duration>,
    /// From SIGTERM to SIGKILL: one budget for requests in flight and `teardown()` together.
    pub termination_grace_period: Duration,
    /// For how long a runner is kept frozen that would have been ended because nothing asks for it. `None`:
    /// it is ended.
    pub frozen_for: Option<Duration>,
}

/// Who says how long idle runners are kept, and how many spare ones there are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Policy {
    /// The parameters, as they stand.
    #[default]
    Fixed,
    /// What was learned of the app's own traffic, within the parameters: never fewer runners than
    /// `min_concurrency` and `concurrency_buffer` ask for, never more than `max_concurrency`, and no idle
    /// one beyond [`auto::Settings::keep_max`], which takes the place of `keep_alive`.
    Auto(auto::Settings),
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            policy: Policy::Fixed,
            keep_alive: Duration::from_secs(10),
            min_concurrency: 0,
            max_concurrency: None,
            concurrency_buffer: 0,
            concurrency_buffer_perc: 0,
            scaling_delay: Duration::ZERO,
            max_multiplexing: 1,
            startup_timeout: Duration::from_mins(10),
            request_timeout: Duration::from_hours(1),
            unused_runner_timeout: None,
            termination_grace_period: Duration::from_secs(5),
            frozen_for: None,
        }
    }
}

/// Limits on what an app may ask for.
pub mod limits {
    /// Runners of one app: floor, buffer and cap alike.
    pub const RUNNERS_MAX: u32 = 10_000;
    /// `concurrency_buffer_perc`.
    pub const BUFFER_PERC_MAX: u32 = 10_000;
    /// `max_multiplexing`.
    pub const MULTIPLEXING_MAX: u32 = 10_000;
    /// `termination_grace_period_seconds` (fal's own limit since 2026-05).
    pub const GRACE_SECS_MAX: u64 = 3_600;
    /// Any other duration of a scaling parameter: 30 days.
    pub const DURATION_SECS_MAX: u64 = 30 * 24 * 3_600;
    /// `wait_price`, in runner-seconds for a second of waiting.
    pub const WAIT_PRICE_MAX: f64 = 1_000.0;
}

/// A value that makes no sense, alone or beside another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalingError {
    /// The parameter's name, as in the config.
    pub key: &'static str,
    pub problem: String,
}

impl fmt::Display for ScalingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.key, self.problem)
    }
}

impl std::error::Error for ScalingError {}

impl Scaling {
    /// Refuses values that no runner count could satisfy.
    pub fn validate(&self) -> Result<(), ScalingError> {
        let fail = |key, problem: String| Err(ScalingError { key, problem });
        for (key, value, max) in [
            ("min_concurrency", self.min_concurrency, limits::RUNNERS_MAX),
            ("max_concurrency", self.max_concurrency.unwrap_or(1), limits::RUNNERS_MAX),
            ("concurrency_buffer", self.concurrency_buffer, limits::RUNNERS_MAX),
            ("concurrency_buffer_perc", self.concurrency_buffer_perc, limits::BUFFER_PERC_MAX),
            ("max_multiplexing", self.max_multiplexing, limits::MULTIPLEXING_MAX),
        ] {
            if value > max {
                return fail(key, format!("is {value}; at most {max} is allowed"));
            }
        }
        for (key, value, max) in [
            ("keep_alive", self.keep_alive, limits::DURATION_SECS_MAX),
            ("scaling_delay", self.scaling_delay, limits::DURATION_SECS_MAX),
            ("startup_timeout", self.startup_timeout, limits::DURATION_SECS_MAX),
            ("request_timeout", self.request_timeout, limits::DURATION_SECS_MAX),
            ("frozen_for", self.frozen_for.unwrap_or_default(), limits::DURATION_SECS_MAX),
            (
                "termination_grace_period_seconds",
                self.termination_grace_period,
                limits::GRACE_SECS_MAX,
            ),
        ] {
            if value > Duration::from_secs(max) {
                return fail(key, format!("is {} s; at most {max} s is allowed", value.as_secs()));
            }
        }
        if let Policy::Auto(settings) = &self.policy {
            settings.validate()?;
        }
        if self.max_multiplexing == 0 {
            return fail("max_multiplexing", "is 0; a runner must serve at least 1 request".into());
        }
        if self.startup_timeout.is_zero() {
            return fail("startup_timeout", "is 0; a runner needs some time to set up".into());
        }
        if self.request_timeout.is_zero() {
            return fail(
                "request_timeout",
                "is 0; a request needs some time to be answered".into(),
            );
        }
        match self.max_concurrency {
            Some(0) => fail("max_concurrency", "is 0; leave it out for no cap".into()),
            Some(max) if self.min_concurrency > max => fail(
                "min_concurrency",
                format!("is {}, above `max_concurrency` ({max})", self.min_concurrency),
            ),
            _ => Ok(()),
        }
    }
}

impl auto::Settings {
    fn validate(&self) -> Result<(), ScalingError> {
        let fail = |key, problem: String| Err(ScalingError { key, problem });
        let price_max = limits::WAIT_PRICE_MAX;
        if !(0.0..=price_max).contains(&self.wait_price) {
            let problem = format!("is {}; it must be 0 to {price_max}", self.wait_price);
            return fail("wait_price", problem);
        }
        let Some(auto::Budget { wait, share }) = self.budget else { return Ok(()) };
        if wait > Duration::from_secs(limits::DURATION_SECS_MAX) {
            let problem = format!(
                "is {} s; at most {} s is allowed",
                wait.as_secs(),
                limits::DURATION_SECS_MAX
            );
            return fail("wait_budget", problem);
        }
        let percent = share * 100.0;
        if percent > 0.0 && percent < 100.0 {
            return Ok(());
        }
        fail("wait_budget_percent", format!("is {percent}; it must be above 0 and below 100"))
    }
}

/// An app as the engine sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct AppSpec {
    /// `owner/app[--env]`, for the sentences of decisions.
    pub name: String,
    /// Counts deployments of new code. Runners of older revisions take no new requests.
    pub revision: u32,
    pub scaling: Scaling,
    /// Tried in order, first fit wins. Never empty.
    pub machine_types: Vec<MachineType>,
    /// What of its queued requests is tried again.
    pub retry: retry::Rules,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(Scaling::default().validate(), Ok(()));
    }

    #[test]
    fn impossible_values_are_named() {
        let check = |scaling: Scaling, expected: &str| {
            assert_eq!(scaling.validate().unwrap_err().to_string(), expected);
        };
        let base = Scaling::default;
        check(
            Scaling { min_concurrency: 5, max_concurrency: Some(2), ..base() },
            "`min_concurrency` is 5, above `max_concurrency` (2)",
        );
        check(
            Scaling { max_concurrency: Some(0), ..base() },
            "`max_concurrency` is 0; leave it out for no cap",
        );
        check(
            Scaling { max_multiplexing: 0, ..base() },
            "`max_multiplexing` is 0; a runner must serve at least 1 request",
        );
        check(
            Scaling { concurrency_buffer: 10_001, ..base() },
            "`concurrency_buffer` is 10001; at most 10000 is allowed",
        );
        check(
            Scaling { termination_grace_period: Duration::from_hours(2), ..base() },
            "`termination_grace_period_seconds` is 7200 s; at most 3600 s is allowed",
        );
    }
}
