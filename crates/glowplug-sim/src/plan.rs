//! Plans: recorded traffic through the engine at many settings, and what is best for which intent.
//!
//! | file | holds |
//! | --- | --- |
//! | `traffic.rs`, `phases.rs` | a trace in memory; models learnt from it |
//! | `setting.rs`, `grid.rs` | what is tried |
//! | `sweep.rs` | the simulations, on all cores |
//! | `price.rs` | what an hour of a runner costs |
//! | `frontier.rs` | which runs no other run beats |
//! | `choose.rs` | one setting per app: how much money buys how much less waiting |
//! | `intent.rs` | the optimisation problem behind each recommendation |
//! | `change.rs`, `diff.rs` | what differs from today, as text for `glowplug.toml` |
//! | `beside.rs` | the bound and other policies on the same traffic |
//! | `result.rs` | what a plan says: the `--json` output |
//!
//! Settings are chosen app by app from runs in which all apps had the same setting. Without a capacity apps
//! do not feel each other and this is exact; with one it is an estimate. Either way what is recommended is
//! simulated once more as a whole, and the numbers shown are those of that simulation.
//!
//! What was chosen on some traffic looks better on it than on any other. When the last quarter of the
//! traffic is at least a whole day, it is held out: settings are chosen on the first three quarters, and all
//! numbers are of the last one, with all that was before as a warm-up that is simulated and not counted: a
//! learner begins with what it knows by then, and runners as they would be. A shorter quarter would be one
//! time of day, and tell less than it hides.
//! Apps with few requests do not get a setting of their own, but one for all of them.

mod beside;
mod change;
mod choose;
mod diff;
mod error;
mod frontier;
mod grid;
mod intent;
mod numbers;
mod options;
mod phases;
mod planner;
mod price;
pub mod result;
pub mod setting;
mod sweep;
mod traffic;

pub(crate) use numbers::quantile;
pub(crate) use sweep::unbounded;

pub use error::Error;
pub use grid::Grid;
pub use options::{Budget, Holdout, Options, Progress, Silent};
pub use planner::plan;
pub use price::Prices;
pub use traffic::{APPS_MAX, Filter, REQUESTS_MAX, TracedApp, Traffic};
