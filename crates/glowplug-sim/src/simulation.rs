//! The driver: engine, agenda, models and checkers on a virtual clock.
//!
//! A simulation ends when nothing is to come any more. Three things end it before that:
//!
//! - [`World::until`] comes: what is open then is left, and runners are counted up to it;
//! - without it, when the traffic is over, no request is open and only runners live that a floor keeps, or with
//!   [`World::until_answered`] whichever live: they are counted up to the last answer;
//! - without it, when requests are still open [`OVERTIME_MAX`] after the last arrival, or when none was answered
//!   or refused in [`STUCK_EVENTS_MAX`] events since, as those of an app whose starts always fail: they are
//!   left, and runners are counted up to then.
//!
//! A world has limits: [`REQUESTS_OPEN_MAX`] and [`RUNNERS_MAX`] end a simulation that outgrows them. A queued
//! request that comes when `waiting_max` of its app wait already is refused and never gets to the engine: in a
//! node, whoever accepts requests for the queue keeps that limit.
//!
//! Of the same moment, wake-ups of the engine come first, then what was under way, then arrivals.
//!
//! | file | holds |
//! | --- | --- |
//! | `driver.rs` | the loop |
//! | `agenda.rs` | what is to come |
//! | `requests.rs`, `roster.rs` | requests and runners that exist |
//! | `body.rs`, `sharing.rs` | what a runner does, and how requests share it |
//! | `checkers.rs` | what must hold |
//! | `digest.rs` | the fingerprint of a course |
//! | `happening.rs` | what happens beside the traffic |

mod agenda;
mod body;
mod checkers;
mod digest;
mod driver;
mod happening;
mod requests;
mod roster;
mod sharing;

use std::time::Duration;

use glowplug_core::engine;
use glowplug_core::resources::Capacity;
use glowplug_core::{Action, Timestamp};

use driver::{Course, Driver};
pub use happening::{Happening, What};

use crate::model::AppModel;
use crate::outcome::{Outcome, Parts};
use crate::traffic::Arrival;

/// How long after the last arrival requests may still be worked off. What is open then is left.
pub const OVERTIME_MAX: Duration = Duration::from_hours(24);
/// Events in a row, after the last arrival, by which no request is answered or refused. What is open then is
/// left.
pub const STUCK_EVENTS_MAX: u64 = 100_000;
/// Requests of one world that are open at once: neither answered nor refused.
pub const REQUESTS_OPEN_MAX: usize = 1_000_000;
/// Runners of one world that are there at once.
pub const RUNNERS_MAX: usize = 1_000_000;

/// Everything that decides the course of a simulation, but for the traffic.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub seed: u64,
    pub engine: engine::Config,
    pub capacity: Capacity,
    /// App `n` of the traffic is the `n`th of these.
    pub apps: Vec<AppModel>,
    pub untidiness: Untidiness,
    /// What happens beside the traffic, in order of time.
    pub happenings: Vec<Happening>,
    /// Nothing happens from this moment on, and runners are counted up to it. `None`: when all is over.
    pub until: Option<Timestamp>,
    /// The last answer is the end, whoever is kept after it and for how long: what comes next is not known, so
    /// nobody is charged for having waited for it. With [`World::until`] it has no meaning.
    pub until_answered: bool,
    /// A warm-up: what comes and what is spent before this moment happens, and is not counted.
    pub count_from: Timestamp,
    /// What to sum up by part of the time, beside all else.
    pub parts: Option<Parts>,
    /// Moments kept of the course of runner states; 0: none.
    pub moments_max: usize,
}

/// What happens to reports on their way to the engine, as probabilities from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Untidiness {
    pub lost: f64,
    pub late: f64,
    pub twice: f64,
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum Failure<E: std::error::Error + 'static> {
    #[error("the traffic ends early")]
    Traffic(#[source] E),
    #[error(
        "request {number} of the traffic comes at {at:?}, before the one before it at {before:?}"
    )]
    Unordered { number: u64, at: Timestamp, before: Timestamp },
    #[error("request {number} of the traffic is for app {app}, but there are only {apps}")]
    UnknownApp { number: u64, app: u32, apps: usize },
    #[error(
        "{count} requests are open at {at:?}, more than {REQUESTS_OPEN_MAX}; let fewer come at once, or \
         lower `waiting_max`"
    )]
    TooManyOpen { count: usize, at: Timestamp },
    #[error(
        "{count} runners are there at {at:?}, more than {RUNNERS_MAX}; lower `max_concurrency` or \
         `min_concurrency`, or simulate fewer apps"
    )]
    TooManyRunners { count: usize, at: Timestamp },
    #[error("{rule}, at {at:?} after event {event} ({action}); replay with `{replay}`")]
    Broken {
        rule: &'static str,
        at: Timestamp,
        /// Counted from 1.
        event: u64,
        /// What was to be done, or a state.
        action: String,
        /// Options of the command line that lead to this event again.
        replay: String,
    },
    #[error("two runs of the same differ from event {event} on; replay with `{replay}`")]
    Differs { event: u64, replay: String },
}

impl World {
    /// Lets the traffic happen until its last runner has ended.
    pub fn run<E>(
        &self,
        traffic: impl Iterator<Item = Result<Arrival, E>>,
    ) -> Result<Outcome, Failure<E>>
    where
        E: std::error::Error + 'static,
    {
        self.run_watched(traffic, |_, _, _| {})
    }

    /// As [`World::run`], and shows every action before it is performed, with its time and the number of
    /// the event that led to it, counted from 1.
    pub fn run_watched<E>(
        &self,
        traffic: impl Iterator<Item = Result<Arrival, E>>,
        watch: impl FnMut(Timestamp, u64, &Action),
    ) -> Result<Outcome, Failure<E>>
    where
        E: std::error::Error + 'static,
    {
        let mut driver = Driver::new(self, traffic, watch)?;
        while driver.step()? == Course::GoesOn {}
        driver.finish()
    }

    /// As [`World::run`], twice side by side: fails at the first event after which the two differ. `traffic`
    /// gives the same traffic each time.
    pub fn doublecheck<E, T>(&self, traffic: impl FnMut() -> T) -> Result<Outcome, Failure<E>>
    where
        E: std::error::Error + 'static,
        T: Iterator<Item = Result<Arrival, E>>,
    {
        self.doublecheck_watched(traffic, |_, _, _| {})
    }

    /// As [`World::doublecheck`], and shows the actions of one of the two as [`World::run_watched`] does.
    pub fn doublecheck_watched<E, T>(
        &self,
        mut traffic: impl FnMut() -> T,
        watch: impl FnMut(Timestamp, u64, &Action),
    ) -> Result<Outcome, Failure<E>>
    where
        E: std::error::Error + 'static,
        T: Iterator<Item = Result<Arrival, E>>,
    {
        let mut first = Driver::new(self, traffic(), watch)?;
        let mut second = Driver::new(self, traffic(), |_, _, _| {})?;
        loop {
            let courses = (first.step()?, second.step()?);
            if courses.0 != courses.1 || first.progress() != second.progress() {
                let (event, _) = first.progress();
                return Err(Failure::Differs { event, replay: first.replay() });
            }
            if courses.0 == Course::Over {
                return first.finish();
            }
        }
    }
}
