//! Why there is no plan.

use std::error::Error as StdError;

use super::grid::CELLS_MAX;
use super::traffic::{APPS_MAX, REQUESTS_MAX};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the trace cannot be read")]
    Trace(#[source] Box<dyn StdError + Send + Sync>),
    #[error("the trace names app {app} before it declares it")]
    UnknownApp { app: u32 },
    #[error("request {number} of the trace comes before the one before it; sort the trace by time")]
    Unsorted { number: u64 },
    #[error(
        "the trace has more than {REQUESTS_MAX} requests; narrow it with `--from` and `--until`, \
         `--apps`, or `--sample`"
    )]
    TooManyRequests,
    #[error("the trace has more than {APPS_MAX} apps; narrow it with `--apps` or `--sample`")]
    TooManyApps,
    #[error("`--from` is not before `--until`")]
    EmptySpan,
    #[error("`--sample` is not a share of the apps: more than 0 %, at most 100 %")]
    Sample,
    #[error("no app of the trace is called `{pattern}`")]
    NoSuchApp { pattern: String },
    #[error("no request of the trace is left; widen `--from`, `--until`, `--apps` or `--sample`")]
    Empty,
    #[error("no request is in the trace, so there is nothing to plan for")]
    NoRequests,
    #[error(
        "the trace records no start that became ready; say how long one takes, as in `--setup 20s`"
    )]
    NoSetup,
    #[error(
        "the trace records no service times; say how long a request takes, as in `--service 2s`"
    )]
    NoService,
    #[error(
        "machine type `{machine}` has no price, but others have; add `price_per_hour` under \
         [machine_types.{machine}]"
    )]
    NoPrice { machine: String },
    #[error("the price of machine type `{machine}` is {price}; it must be a number above 0")]
    Price { machine: String, price: f64 },
    #[error(
        "machine type `{machine}` of app `{app}` is not known; declare it under [machine_types]"
    )]
    NoMachine { app: String, machine: String },
    #[error("app `{app}`: {problem}")]
    Scaling { app: String, problem: glowplug_core::spec::ScalingError },
    #[error("`--holdout` must leave something to choose on and something to judge by: 5 % to 90 %")]
    Holdout,
    #[error("nothing came in the part of the traffic that {what}; plan with `--holdout 0`")]
    EmptyPart { what: &'static str },
    #[error(
        "{runs} settings of {apps} apps are more than {CELLS_MAX} results; narrow the apps with \
         `--apps` or `--sample`, or plan without `--thorough`"
    )]
    TooManyCells { runs: usize, apps: usize },
    #[error("the simulation of `{setting}` failed")]
    Simulation { setting: String, source: Box<dyn StdError + Send + Sync> },
    #[error("the threads for the sweep cannot be started")]
    Threads(#[source] Box<dyn StdError + Send + Sync>),
    #[error("the plan was cancelled")]
    Cancelled,
}
