//! Scaling parameters between their forms: JSON of the API and the store, and the engine's.

use std::time::Duration;

use glowplug_api::control::{Policy, ScalingPatch, ScalingView};
use glowplug_core::spec::{self, Overrides, PolicyName, Scaling};

/// The setting's key in the store.
pub(crate) const SCALING: &str = "scaling";

/// What a patch sets. Fails with the name of a duration that is none.
pub(crate) fn overrides(patch: &ScalingPatch) -> Result<Overrides, String> {
    Ok(Overrides {
        policy: patch.policy.map(|policy| match policy {
            Policy::Fixed => PolicyName::Fixed,
            Policy::Auto => PolicyName::Auto,
        }),
        wait_budget: seconds("wait_budget", patch.wait_budget)?,
        wait_budget_percent: patch.wait_budget_percent,
        wait_price: patch.wait_price,
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
        frozen_for: None,
        termination_grace_period: seconds(
            "termination_grace_period_seconds",
            patch.termination_grace_period_seconds,
        )?,
    })
}

/// The patch that sets the same.
pub(crate) fn patch(overrides: &Overrides) -> ScalingPatch {
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64());
    ScalingPatch {
        policy: overrides.policy.map(policy),
        wait_budget: seconds(overrides.wait_budget),
        wait_budget_percent: overrides.wait_budget_percent,
        wait_price: overrides.wait_price,
        keep_alive: seconds(overrides.keep_alive),
        min_concurrency: overrides.min_concurrency,
        max_concurrency: overrides.max_concurrency,
        concurrency_buffer: overrides.concurrency_buffer,
        concurrency_buffer_perc: overrides.concurrency_buffer_perc,
        scaling_delay: seconds(overrides.scaling_delay),
        max_multiplexing: overrides.max_multiplexing,
        startup_timeout: seconds(overrides.startup_timeout),
        request_timeout: seconds(overrides.request_timeout),
        unused_runner_timeout: seconds(overrides.unused_runner_timeout),
        termination_grace_period_seconds: seconds(overrides.termination_grace_period),
    }
}

fn policy(name: PolicyName) -> Policy {
    match name {
        PolicyName::Fixed => Policy::Fixed,
        PolicyName::Auto => Policy::Auto,
    }
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
    let aims = match &scaling.policy {
        spec::Policy::Fixed => None,
        spec::Policy::Auto(settings) => Some(settings),
    };
    let budget = aims.and_then(|aims| aims.budget);
    ScalingView {
        policy: policy(scaling.policy.name()),
        wait_budget: budget.map(|budget| budget.wait.as_secs_f64()),
        wait_budget_percent: budget.map(|budget| percent(budget.share)),
        wait_price: aims.map(|aims| aims.wait_price),
        keep_alive: aims.map_or(scaling.keep_alive, |aims| aims.keep_max).as_secs_f64(),
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

/// Without the last digits, which come from the division alone.
fn percent(share: f64) -> f64 {
    (share * 1e8).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(patch: &ScalingPatch, base: Scaling) -> Result<Scaling, String> {
        overrides(patch)?.apply(base).map_err(|error| error.to_string())
    }

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
        check(
            ScalingPatch { wait_budget: Some(2.0), ..ScalingPatch::default() },
            "`wait_budget` is for apps with `policy = \"auto\"`; add that, or leave this out",
        );
    }

    #[test]
    fn a_patch_says_the_same_after_it_was_stored() {
        let json = r#"{"policy":"auto","wait_budget":2.0,"wait_budget_percent":1.0,"wait_price":7.5,
            "keep_alive":1.5,"min_concurrency":1,"max_concurrency":2,"concurrency_buffer":3,
            "concurrency_buffer_perc":4,"scaling_delay":5.0,"max_multiplexing":6,"startup_timeout":7.0,
            "request_timeout":8.0,"unused_runner_timeout":9.0,"termination_grace_period_seconds":10.0}"#;
        let one: ScalingPatch = serde_json::from_str(json).unwrap();
        assert_eq!(patch(&overrides(&one).unwrap()), one);
        let none = ScalingPatch::default();
        assert_eq!(patch(&overrides(&none).unwrap()), none);
    }

    #[test]
    fn a_view_shows_what_is_aimed_for() {
        let shown = |patch: ScalingPatch| {
            let view = view(&apply(&patch, Scaling::default()).unwrap());
            (
                view.policy,
                view.wait_budget,
                view.wait_budget_percent,
                view.wait_price,
                view.keep_alive,
            )
        };
        let none = ScalingPatch::default;
        let balanced = spec::wait_price("balanced");
        assert_eq!(shown(none()), (Policy::Fixed, None, None, None, 10.0));
        let auto = ScalingPatch { policy: Some(Policy::Auto), ..none() };
        assert_eq!(shown(auto.clone()), (Policy::Auto, None, None, balanced, 14_400.0));
        let stated = ScalingPatch {
            wait_budget: Some(2.0),
            wait_budget_percent: Some(7.0),
            keep_alive: Some(30.0),
            ..auto
        };
        assert_eq!(shown(stated), (Policy::Auto, Some(2.0), Some(7.0), balanced, 30.0));
    }
}
