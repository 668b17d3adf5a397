//! Who takes part.

use std::fmt;
use std::time::Duration;

use glowplug_core::auto;
use glowplug_core::spec::{self, Scaling};
use glowplug_core::time::Pretty;
use serde::Serialize;

/// Values of `keep_alive` that are tried.
pub const FIXED_SECS: [u64; 17] =
    [0, 10, 30, 60, 120, 180, 240, 300, 450, 600, 900, 1_200, 1_800, 2_400, 3_600, 5_400, 7_200];
/// Prices of waiting at which the automatic policy is tried: about as many as there are fixed values, so that
/// neither side dominates for being asked more often.
pub const WAIT_PRICES: [f64; 17] = [
    0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 16.0, 20.0, 25.0, 30.0, 40.0, 60.0, 90.0, 120.0,
];
const KPA_STABLE_SECS: [u64; 3] = [60, 300, 600];
const KPA_UTILIZATION_PERCENT: [u32; 2] = [70, 100];
const KPA_GRACE_SECS: [u64; 2] = [30, 0];
/// Gaps that are kept through by who knows their length.
const GAPS_SECS: [u64; 4] = [60, 300, 600, 1_800];

/// One way to scale all apps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// `keep_alive` alone.
    Fixed {
        keep_alive: Duration,
    },
    Auto(auto::Settings),
    Kpa {
        stable: Duration,
        utilization_percent: u32,
        grace: Duration,
    },
    /// Knows the future, and starts on demand.
    Clairvoyant {
        keep_gaps_within: Duration,
    },
    /// Knows the future, and starts in time: no request waits.
    InTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Fixed,
    Auto,
    Kpa,
    /// Not to be had by who does not know the future.
    Bound,
}

impl Policy {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Fixed { .. } => Kind::Fixed,
            Self::Auto(_) => Kind::Auto,
            Self::Kpa { .. } => Kind::Kpa,
            Self::Clairvoyant { .. } | Self::InTime => Kind::Bound,
        }
    }

    /// What an app with the scaling `base` gets, if the policy is one of the engine's.
    pub(super) fn scaling(&self, base: Scaling) -> Option<Scaling> {
        match self {
            Self::Fixed { keep_alive } => Some(Scaling { keep_alive: *keep_alive, ..base }),
            Self::Auto(settings) => Some(Scaling { policy: spec::Policy::Auto(*settings), ..base }),
            _ => None,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed { keep_alive } => write!(f, "keep_alive {} s", keep_alive.as_secs()),
            Self::Auto(auto::Settings { budget: Some(budget), .. }) => {
                let kept = (1.0 - budget.share) * 100.0;
                write!(f, "auto, {kept} % within {}", Pretty(budget.wait))
            }
            Self::Auto(settings) => write!(f, "auto, wait price {}", settings.wait_price),
            Self::Kpa { stable, utilization_percent, grace } => write!(
                f,
                "KPA, stable {} s, {utilization_percent} %, grace {} s",
                stable.as_secs(),
                grace.as_secs()
            ),
            Self::Clairvoyant { keep_gaps_within } => {
                write!(f, "clairvoyant, gaps up to {} s", keep_gaps_within.as_secs())
            }
            Self::InTime => f.write_str("clairvoyant, just in time"),
        }
    }
}

/// The automatic policy at some prices.
pub fn auto(prices: &[f64]) -> Vec<Policy> {
    let at = |price: &f64| auto::Settings { wait_price: *price, ..auto::Settings::default() };
    prices.iter().map(at).map(Policy::Auto).collect()
}

/// All that are set against each other if nothing else is asked for.
pub fn usual() -> Vec<Policy> {
    let mut policies: Vec<Policy> = FIXED_SECS
        .iter()
        .map(|secs| Policy::Fixed { keep_alive: Duration::from_secs(*secs) })
        .collect();
    for stable_secs in KPA_STABLE_SECS {
        for utilization_percent in KPA_UTILIZATION_PERCENT {
            policies.extend(KPA_GRACE_SECS.map(|grace_secs| Policy::Kpa {
                stable: Duration::from_secs(stable_secs),
                utilization_percent,
                grace: Duration::from_secs(grace_secs),
            }));
        }
    }
    let mut prices = WAIT_PRICES.to_vec();
    let usual = auto::Settings::default().wait_price;
    if !prices.contains(&usual) {
        prices.push(usual);
    }
    policies.extend(auto(&prices));
    policies.extend(
        GAPS_SECS.map(|secs| Policy::Clairvoyant { keep_gaps_within: Duration::from_secs(secs) }),
    );
    policies.push(Policy::InTime);
    policies
}
