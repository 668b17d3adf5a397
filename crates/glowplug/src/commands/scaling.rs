//! fal's scaling parameters as flags, for `run` and for `apps scale`.

use std::time::Duration;

use glowplug_api::control::{Policy, ScalingPatch};
use glowplug_core::spec::{WAIT_PRICES, wait_price};
use glowplug_node::config::{FlagSetting, FlagValue, parse_duration, write_duration};

/// Durations are seconds, or text such as `30s` or `5m`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ScalingFlags {
    /// Who scales: the parameters as they stand, or what is learned of the app's traffic, within them
    #[arg(long, value_name = "POLICY", value_parser = policy)]
    policy: Option<Policy>,
    /// With `--policy auto`: how long a request may wait for its runner; 0 takes the budget away
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait_budget: Option<Duration>,
    /// How many of a hundred requests may wait longer than that [default: 5]
    #[arg(long, value_name = "PERCENT")]
    wait_budget_percent: Option<f64>,
    /// With `--policy auto`: what a second of waiting is worth, in seconds of a runner, or one of
    /// cost-sensitive, balanced, latency-critical
    #[arg(long, value_name = "PRICE", value_parser = price)]
    wait_price: Option<f64>,
    /// How long a runner is kept after its last request; with `--policy auto` at most
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    keep_alive: Option<Duration>,
    /// Runners that always live
    #[arg(long, value_name = "N")]
    min_concurrency: Option<u32>,
    /// Runners that may live at once; 0 takes the cap away
    #[arg(long, value_name = "N")]
    max_concurrency: Option<u32>,
    /// Spare runners kept above demand
    #[arg(long, value_name = "N")]
    concurrency_buffer: Option<u32>,
    /// Spare runners in percent of the requests at hand
    #[arg(long, value_name = "PERCENT")]
    concurrency_buffer_perc: Option<u32>,
    /// How long a request must have waited before it may cause a start
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    scaling_delay: Option<Duration>,
    /// Requests that one runner serves at once
    #[arg(long, value_name = "N")]
    max_multiplexing: Option<u32>,
    /// How long setup may take
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    startup_timeout: Option<Duration>,
    /// How long one attempt of a request may take
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    request_timeout: Option<Duration>,
    /// How long a runner is kept that never got a request
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    unused_runner_timeout: Option<Duration>,
    /// From SIGTERM to SIGKILL when a runner is stopped
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    termination_grace_period_seconds: Option<Duration>,
}

fn policy(text: &str) -> Result<Policy, String> {
    match text {
        "fixed" => Ok(Policy::Fixed),
        "auto" => Ok(Policy::Auto),
        _ => Err("write fixed or auto".to_owned()),
    }
}

fn price(text: &str) -> Result<f64, String> {
    let named = || text.parse().ok().filter(|price: &f64| price.is_finite());
    wait_price(text).or_else(named).ok_or_else(|| {
        let names = WAIT_PRICES.map(|(name, _)| name).join(", ");
        format!("write a number, or one of {names}")
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .ok_or_else(|| "write a number of seconds, or text such as 30s or 5m".to_owned())
}

impl ScalingFlags {
    /// What is to change, for a running node.
    pub(crate) fn patch(&self) -> ScalingPatch {
        let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64());
        ScalingPatch {
            policy: self.policy,
            wait_budget: seconds(self.wait_budget),
            wait_budget_percent: self.wait_budget_percent,
            wait_price: self.wait_price,
            keep_alive: seconds(self.keep_alive),
            min_concurrency: self.min_concurrency,
            max_concurrency: self.max_concurrency,
            concurrency_buffer: self.concurrency_buffer,
            concurrency_buffer_perc: self.concurrency_buffer_perc,
            scaling_delay: seconds(self.scaling_delay),
            max_multiplexing: self.max_multiplexing,
            startup_timeout: seconds(self.startup_timeout),
            request_timeout: seconds(self.request_timeout),
            unused_runner_timeout: seconds(self.unused_runner_timeout),
            termination_grace_period_seconds: seconds(self.termination_grace_period_seconds),
        }
    }

    /// What is set, as settings of the app in a config.
    pub(crate) fn settings(&self, app: &str) -> Vec<FlagSetting> {
        let count = |value: Option<u32>| value.map(|value| value.to_string());
        let time = |value: Option<Duration>| value.map(write_duration);
        let number = |value: Option<f64>| value.map(|value| value.to_string());
        let policy = self.policy.map(|policy| match policy {
            Policy::Fixed => "fixed".to_owned(),
            Policy::Auto => "auto".to_owned(),
        });
        [
            ("policy", policy),
            ("wait_budget", time(self.wait_budget)),
            ("wait_budget_percent", number(self.wait_budget_percent)),
            ("wait_price", number(self.wait_price)),
            ("keep_alive", time(self.keep_alive)),
            ("min_concurrency", count(self.min_concurrency)),
            ("max_concurrency", count(self.max_concurrency)),
            ("concurrency_buffer", count(self.concurrency_buffer)),
            ("concurrency_buffer_perc", count(self.concurrency_buffer_perc)),
            ("scaling_delay", time(self.scaling_delay)),
            ("max_multiplexing", count(self.max_multiplexing)),
            ("startup_timeout", time(self.startup_timeout)),
            ("request_timeout", time(self.request_timeout)),
            ("unused_runner_timeout", time(self.unused_runner_timeout)),
            ("termination_grace_period_seconds", time(self.termination_grace_period_seconds)),
        ]
        .into_iter()
        .filter_map(|(key, value)| {
            let flag = format!("--{}", key.replace('_', "-"));
            Some(FlagSetting::app(app, &flag, key, FlagValue::Text(value?)))
        })
        .collect()
    }
}
