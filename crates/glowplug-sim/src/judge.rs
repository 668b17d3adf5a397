//! Policies on the same traffic, held against each other: what each does, which dominates which, and how
//! sure that is.
//!
//! | file | holds |
//! | --- | --- |
//! | `policy.rs` | who takes part, and the fields that are usually set against each other |
//! | `field.rs` | the simulations, on all cores |
//! | `metrics.rs` | what is measured of each, always all of it together |
//! | `compare.rs` | who is beaten by whom, and by how much |
//! | `resample.rs` | how much of a difference is owed to which apps there happen to be |
//!
//! Rules. Every policy runs through the same simulator with the same draws. One *dominates* another if it is
//! as good on every metric of a named set and better on one, at points that were simulated: nothing is
//! interpolated. Intervals are of a paired bootstrap over apps, since apps, not requests, are what differs
//! from one user to the next.
//!
//! Memory: the requests, and one set of measures per policy that runs at the moment.

mod compare;
mod field;
mod metrics;
mod policy;
mod resample;

use std::time::Duration;

use serde::Serialize;

pub use compare::{Beaten, Contest, Pair, Side};
pub use field::{Error, Question, Setup, run};
pub use metrics::{AppSums, Metrics, Row};
pub use policy::{FIXED_SECS, Kind, Policy, WAIT_PRICES, auto, usual};
pub use resample::Interval;

/// What a trial found.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub requests: u64,
    pub apps: usize,
    pub span_secs: f64,
    pub rows: Vec<Row>,
    pub contests: Vec<Contest>,
    /// The automatic policy at each price against its nearest neighbours among the others.
    pub pairs: Vec<Pair>,
}

/// Waits beyond this are counted, if nothing else is asked for.
pub const SLO: Duration = Duration::from_secs(2);
