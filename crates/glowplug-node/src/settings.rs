//! Scaling parameters between their forms: JSON of the API and the store, the engine's, the config's.

use std::time::Duration;

use glowplug_api::control::{ScalingPatch, ScalingView};
use glowplug_core::spec::Scaling;

use crate::config::ScalingOverrides;

/// The setting's key in the store.
pub(crate) const SCALING: &str = "scaling";

/// A patch over an earlier one.
pub(crate) fn merge(earlier: &ScalingPatch, later: &ScalingPatch) -> ScalingPatch {
    ScalingPatch {
        keep_alive: later.keep_alive.or(earlier.keep_alive),
        min_concurrency: later.min_concurrency.or(earlier.min_concurrency),
        max_concurrency: later.max_concurrency.or(earlier.max_concurrency),
        concurrency_buffer: later.concurrency_buffer.or(earlier.concurrency_buffer),
        concurrency_buffer_perc: later.concurrency_buffer_perc.or(earlier.concurrency_buffer_perc),
        scaling_delay: later.scaling_delay.or(earlier.scaling_delay),
        max_multiplexing: later.max_multiplexing.or(earlier.max_multiplexing),
        startup_timeout: later.startup_timeout.or(earlier.startup_timeout),
        request_timeout: later.request_timeout.or(earlier.request_timeout),
        unused_runner_timeout: later.unused_runner_timeout.or(earlier.unused_runner_timeout),
        termination_grace_period_seconds: later
            .termination_grace_period_seconds
            .or(earlier.termination_grace_period_seconds),
    }
}

/// Puts a patch over a scaling. Fails with the name of a duration that is none.
pub(crate) fn apply(patch: &ScalingPatch, base: Scaling) -> Result<Scaling, String> {
    let overrides = ScalingOverrides {
        keep_alive: seconds("keep_alive", patch.keep_alive)?,
        min_concurrency: patch.min_concurrency,
        max_concurrency: patch.max_concurrency,
        concurrency_buffer: patch.concurrency_buffer,
        concurrency_buffer_perc: patch.concurrency_buffer_perc,
        scaling_delay: seconds("scaling_delay", patch.scaling_delay)?,
        max_multiplexing: patch.max_multiplexing,
        startup_timeout: seconds("startup_timeout", patch.startup_timeout)?,
        request_timeout: seconds("request_timeout", patch.request_timeout)?,
        unused_runner_timeout: seconds("unused_runner_timeout", patch.unused_runner_timeout)?,
        termination_grace_period: seconds(
            "termination_grace_period_seconds",
            patch.termination_grace_period_seconds,
        )?,
    };
    let mut scaling = overrides.apply(base);
    if patch.max_concurrency == Some(0) {
        scaling.max_concurrency = None;
    }
    scaling.validate().map_err(|error| error.to_string())?;
    Ok(scaling)
}

fn seconds(key: &str, value: Option<f64>) -> Result<Option<Duration>, String> {
    value
        .map(|value| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| format!("`{key}` is {value}; it is a number of seconds, 0 or more"))
        })
        .transpose()
}

pub(crate) fn view(scaling: &Scaling) -> ScalingView {
    ScalingView {
        keep_alive: scaling.keep_alive.as_secs_f64(),
        min_concurrency: scaling.min_concurrency,
        max_concurrency: scaling.max_concurrency,
        concurrency_buffer: scaling.concurrency_buffer,
        concurrency_buffer_perc: scaling.concurrency_buffer_perc,
        scaling_delay: scaling.scaling_delay.as_secs_f64(),
        max_multiplexing: scaling.max_multiplexing,
        startup_timeout: scaling.startup_timeout.as_secs_f64(),
        request_timeout: scaling.request_timeout.as_secs_f64(),
        unused_runner_timeout: scaling.unused_runner_timeout.map(|limit| limit.as_secs_f64()),
        termination_grace_period_seconds: scaling.termination_grace_period.as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_what_it_names() {
        let patch = ScalingPatch {
            keep_alive: Some(1.5),
            max_concurrency: Some(3),
            ..ScalingPatch::default()
        };
        let scaling = apply(&patch, Scaling::default()).unwrap();
        assert_eq!(scaling.keep_alive, Duration::from_millis(1_500));
        assert_eq!(scaling.max_concurrency, Some(3));
        assert_eq!(scaling.startup_timeout, Scaling::default().startup_timeout);
        let uncap = ScalingPatch { max_concurrency: Some(0), ..ScalingPatch::default() };
        assert_eq!(apply(&uncap, scaling).unwrap().max_concurrency, None);
    }

    #[test]
    fn impossible_patches_are_refused_by_name() {
        let check = |patch: ScalingPatch, expected: &str| {
            assert_eq!(apply(&patch, Scaling::default()).unwrap_err(), expected);
        };
        check(
            ScalingPatch { keep_alive: Some(-1.0), ..ScalingPatch::default() },
            "`keep_alive` is -1; it is a number of seconds, 0 or more",
        );
        check(
            ScalingPatch {
                min_concurrency: Some(3),
                max_concurrency: Some(2),
                ..ScalingPatch::default()
            },
            "`min_concurrency` is 3, above `max_concurrency` (2)",
        );
    }

    #[test]
    fn the_later_patch_wins() {
        let one = ScalingPatch { keep_alive: Some(1.0), ..ScalingPatch::default() };
        let two = ScalingPatch { min_concurrency: Some(1), keep_alive: Some(2.0), ..one.clone() };
        assert_eq!(merge(&one, &two), two);
        assert_eq!(merge(&two, &one).keep_alive, Some(1.0));
    }
}
