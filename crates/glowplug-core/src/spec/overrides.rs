//! Scaling parameters of which only some are said: by a config, by a change at run time, by a scenario.
//!
//! All of these say the same things under the same names, so they have one form and one way onto a
//! [`Scaling`]: the stronger over the weaker, and what is left open from below.

use std::time::Duration;

use super::{Policy, Scaling, ScalingError};
use crate::auto;

/// What a budget for waiting allows to be exceeded when nothing else is said: five requests in a hundred.
pub const WAIT_BUDGET_PERCENT: f64 = 5.0;

/// Names for what waiting is worth, under which the planner recommends settings too.
pub const WAIT_PRICES: [(&str, f64); 3] = [
    ("cost-sensitive", auto::Settings::COST_SENSITIVE),
    ("balanced", auto::Settings::BALANCED),
    ("latency-critical", auto::Settings::LATENCY_CRITICAL),
];

/// What a named price stands for.
pub fn wait_price(name: &str) -> Option<f64> {
    WAIT_PRICES.into_iter().find_map(|(known, price)| (known == name).then_some(price))
}

/// A [`Policy`] by name, without what it aims for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyName {
    Fixed,
    Auto,
}

impl PolicyName {
    pub const ALL: [Self; 2] = [Self::Fixed, Self::Auto];
    /// In the order of [`PolicyName::ALL`].
    pub const NAMES: &[&str] = &["fixed", "auto"];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Auto => "auto",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == name)
    }
}

impl Policy {
    pub fn name(&self) -> PolicyName {
        match self {
            Self::Fixed => PolicyName::Fixed,
            Self::Auto(_) => PolicyName::Auto,
        }
    }
}

/// The parameters that somebody has set. Names and meanings are those of [`Scaling`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overrides {
    pub policy: Option<PolicyName>,
    /// Of `policy = "auto"`: no more than `wait_budget_percent` of the requests are to wait longer. Zero
    /// takes the budget away.
    pub wait_budget: Option<Duration>,
    pub wait_budget_percent: Option<f64>,
    /// Of `policy = "auto"`: what a second of waiting is worth, in seconds of a runner.
    pub wait_price: Option<f64>,
    /// With `policy = "auto"` the longest that an idle runner is kept.
    pub keep_alive: Option<Duration>,
    pub min_concurrency: Option<u32>,
    /// Zero takes the cap away.
    pub max_concurrency: Option<u32>,
    pub concurrency_buffer: Option<u32>,
    pub concurrency_buffer_perc: Option<u32>,
    pub scaling_delay: Option<Duration>,
    pub max_multiplexing: Option<u32>,
    pub startup_timeout: Option<Duration>,
    pub request_timeout: Option<Duration>,
    pub unused_runner_timeout: Option<Duration>,
    pub termination_grace_period: Option<Duration>,
    /// Zero: none is frozen.
    pub frozen_for: Option<Duration>,
}

impl Overrides {
    /// What is set here, and where nothing is set what `weaker` says. Who asks for the fixed parameters
    /// wants nothing of what a weaker one had said about waiting.
    #[must_use]
    pub fn over(self, weaker: Self) -> Self {
        let waiting = if self.policy == Some(PolicyName::Fixed) { Self::default() } else { weaker };
        Self {
            policy: self.policy.or(weaker.policy),
            wait_budget: self.wait_budget.or(waiting.wait_budget),
            wait_budget_percent: self.wait_budget_percent.or(waiting.wait_budget_percent),
            wait_price: self.wait_price.or(waiting.wait_price),
            keep_alive: self.keep_alive.or(weaker.keep_alive),
            min_concurrency: self.min_concurrency.or(weaker.min_concurrency),
            max_concurrency: self.max_concurrency.or(weaker.max_concurrency),
            concurrency_buffer: self.concurrency_buffer.or(weaker.concurrency_buffer),
            concurrency_buffer_perc: self
                .concurrency_buffer_perc
                .or(weaker.concurrency_buffer_perc),
            scaling_delay: self.scaling_delay.or(weaker.scaling_delay),
            max_multiplexing: self.max_multiplexing.or(weaker.max_multiplexing),
            startup_timeout: self.startup_timeout.or(weaker.startup_timeout),
            request_timeout: self.request_timeout.or(weaker.request_timeout),
            unused_runner_timeout: self.unused_runner_timeout.or(weaker.unused_runner_timeout),
            termination_grace_period: self
                .termination_grace_period
                .or(weaker.termination_grace_period),
            frozen_for: self.frozen_for.or(weaker.frozen_for),
        }
    }

    /// Puts what is set in the place of what `base` says, and checks the whole.
    pub fn apply(&self, base: Scaling) -> Result<Scaling, ScalingError> {
        let scaling = Scaling {
            policy: self.policy(base.policy)?,
            keep_alive: self.keep_alive.unwrap_or(base.keep_alive),
            min_concurrency: self.min_concurrency.unwrap_or(base.min_concurrency),
            max_concurrency: match self.max_concurrency {
                Some(0) => None,
                cap => cap.or(base.max_concurrency),
            },
            concurrency_buffer: self.concurrency_buffer.unwrap_or(base.concurrency_buffer),
            concurrency_buffer_perc: self
                .concurrency_buffer_perc
                .unwrap_or(base.concurrency_buffer_perc),
            scaling_delay: self.scaling_delay.unwrap_or(base.scaling_delay),
            max_multiplexing: self.max_multiplexing.unwrap_or(base.max_multiplexing),
            startup_timeout: self.startup_timeout.unwrap_or(base.startup_timeout),
            request_timeout: self.request_timeout.unwrap_or(base.request_timeout),
            unused_runner_timeout: self.unused_runner_timeout.or(base.unused_runner_timeout),
            termination_grace_period: self
                .termination_grace_period
                .unwrap_or(base.termination_grace_period),
            frozen_for: match self.frozen_for {
                Some(Duration::ZERO) => None,
                set => set.or(base.frozen_for),
            },
        };
        scaling.validate()?;
        Ok(scaling)
    }

    fn policy(&self, base: Policy) -> Result<Policy, ScalingError> {
        let mut settings = match (self.policy, base) {
            (Some(PolicyName::Fixed), _) | (None, Policy::Fixed) => {
                return self.refuse_waiting().map(|()| Policy::Fixed);
            }
            (Some(PolicyName::Auto), Policy::Fixed) => auto::Settings::default(),
            (_, Policy::Auto(settings)) => settings,
        };
        settings.wait_price = self.wait_price.unwrap_or(settings.wait_price);
        settings.keep_max = self.keep_alive.unwrap_or(settings.keep_max);
        let percent = self.wait_budget_percent.map(|percent| percent / 100.0);
        settings.budget = match (self.wait_budget, settings.budget) {
            (Some(Duration::ZERO), _) => None,
            (Some(wait), before) => {
                let before = before.map_or(WAIT_BUDGET_PERCENT / 100.0, |budget| budget.share);
                Some(auto::Budget { wait, share: percent.unwrap_or(before) })
            }
            (None, Some(before)) => {
                Some(auto::Budget { share: percent.unwrap_or(before.share), ..before })
            }
            (None, None) if percent.is_some() => {
                let problem =
                    "is set without a budget; add `wait_budget`, such as \"2s\"".to_owned();
                return Err(ScalingError { key: "wait_budget_percent", problem });
            }
            (None, None) => None,
        };
        Ok(Policy::Auto(settings))
    }

    /// The fixed parameters keep to no budget, and whoever states one should know.
    fn refuse_waiting(&self) -> Result<(), ScalingError> {
        let set = [
            ("wait_budget", self.wait_budget.is_some_and(|wait| !wait.is_zero())),
            ("wait_budget_percent", self.wait_budget_percent.is_some()),
            ("wait_price", self.wait_price.is_some()),
        ];
        match set.into_iter().find(|(_, set)| *set) {
            None => Ok(()),
            Some((key, _)) => {
                let problem = "is for apps with `policy = \"auto\"`; add that, or leave this out";
                Err(ScalingError { key, problem: problem.to_owned() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn auto() -> Overrides {
        Overrides { policy: Some(PolicyName::Auto), ..Overrides::default() }
    }

    fn settings(overrides: &Overrides, base: Scaling) -> auto::Settings {
        match overrides.apply(base).map(|scaling| scaling.policy) {
            Ok(Policy::Auto(settings)) => settings,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_set_comes_from_below() {
        let class =
            Scaling { keep_alive: SECOND * 60, max_concurrency: Some(3), ..Scaling::default() };
        assert_eq!(Overrides::default().apply(class), Ok(class));
        let set = Overrides {
            keep_alive: Some(SECOND),
            max_concurrency: Some(0),
            ..Overrides::default()
        };
        let expected = Scaling { keep_alive: SECOND, max_concurrency: None, ..class };
        assert_eq!(set.apply(class), Ok(expected));
    }

    #[test]
    fn a_policy_is_made_of_what_is_said() {
        let class = Scaling { keep_alive: SECOND * 60, ..Scaling::default() };
        assert_eq!(settings(&auto(), class), auto::Settings::default(), "the class bounds nothing");
        let stated = Overrides { wait_budget: Some(SECOND * 2), ..auto() };
        let budget = auto::Budget { wait: SECOND * 2, share: 0.05 };
        let expected = auto::Settings { budget: Some(budget), ..auto::Settings::default() };
        assert_eq!(settings(&stated, class), expected);
        let more = Overrides {
            wait_budget_percent: Some(1.0),
            wait_price: wait_price("latency-critical"),
            keep_alive: Some(SECOND * 90),
            ..stated
        };
        let expected = auto::Settings {
            wait_price: 30.0,
            budget: Some(auto::Budget { share: 0.01, ..budget }),
            keep_max: SECOND * 90,
        };
        assert_eq!(settings(&more, class), expected);
        // A change of one of them leaves the others.
        let base = more.apply(class).expect("valid");
        let change = Overrides { wait_price: Some(7.0), ..Overrides::default() };
        assert_eq!(settings(&change, base), auto::Settings { wait_price: 7.0, ..expected });
        let none = Overrides { wait_budget: Some(Duration::ZERO), ..Overrides::default() };
        assert_eq!(settings(&none, base), auto::Settings { budget: None, ..expected });
    }

    #[test]
    fn the_stronger_wins_and_fixed_forgets_what_was_said_of_waiting() {
        let config = Overrides {
            wait_budget: Some(SECOND),
            wait_price: Some(3.0),
            min_concurrency: Some(1),
            ..auto()
        };
        let change = Overrides { wait_price: Some(4.0), ..Overrides::default() };
        assert_eq!(change.over(config), Overrides { wait_price: Some(4.0), ..config });
        let fixed = Overrides { policy: Some(PolicyName::Fixed), ..Overrides::default() };
        let expected = Overrides { min_concurrency: Some(1), ..fixed };
        assert_eq!(fixed.over(config), expected);
        assert_eq!(expected.apply(Scaling::default()).map(|s| s.policy), Ok(Policy::Fixed));
    }

    #[test]
    fn what_says_nothing_alone_is_refused_with_the_fix() {
        let check = |overrides: Overrides, expected: &str| {
            let error = overrides.apply(Scaling::default()).expect_err("it makes no sense");
            assert_eq!(error.to_string(), expected);
        };
        let base = Overrides::default;
        let fix = "is for apps with `policy = \"auto\"`; add that, or leave this out";
        check(Overrides { wait_budget: Some(SECOND), ..base() }, &format!("`wait_budget` {fix}"));
        check(Overrides { wait_price: Some(1.0), ..base() }, &format!("`wait_price` {fix}"));
        check(
            Overrides { wait_budget_percent: Some(1.0), ..auto() },
            "`wait_budget_percent` is set without a budget; add `wait_budget`, such as \"2s\"",
        );
        check(
            Overrides { wait_price: Some(-1.0), ..auto() },
            "`wait_price` is -1; it must be 0 to 1000",
        );
        check(
            Overrides { wait_price: Some(f64::NAN), ..auto() },
            "`wait_price` is NaN; it must be 0 to 1000",
        );
        for percent in [0.0, 100.0, f64::NAN] {
            check(
                Overrides {
                    wait_budget: Some(SECOND),
                    wait_budget_percent: Some(percent),
                    ..auto()
                },
                &format!("`wait_budget_percent` is {percent}; it must be above 0 and below 100"),
            );
        }
        check(
            Overrides { wait_budget: Some(SECOND * 2_592_001), ..auto() },
            "`wait_budget` is 2592001 s; at most 2592000 s is allowed",
        );
    }

    #[test]
    fn policies_are_named() {
        for (policy, name) in PolicyName::ALL.into_iter().zip(PolicyName::NAMES) {
            assert_eq!((policy.as_str(), PolicyName::parse(name)), (*name, Some(policy)));
        }
        assert_eq!(PolicyName::parse("AUTO"), None);
    }
}
