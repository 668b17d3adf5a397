//! Traffic and worlds of our own making.
//!
//! | module | holds |
//! | --- | --- |
//! | `rate` | how often something comes, as a function of time |
//! | `shape` | when requests come: at random, in bursts, batches, sessions, herds |
//! | `replay` | a recorded trace as a stream among others |
//! | `source` | streams of requests, merged in order of time |
//! | `document`, `value`, `read` | from a TOML file to a scenario, or to what is wrong with it |
//! | `size` | how large a scenario may be in all |
//! | `expect` | bounds on what comes out |

mod document;
mod expect;
mod rate;
mod read;
mod replay;
mod shape;
mod size;
mod source;
mod value;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::engine;
use glowplug_core::resources::Capacity;

pub use document::{PROBLEMS_SHOWN_MAX, Problem, ScenarioError};
pub use expect::{Expectation, Unmet};
pub use rate::{Moments, Rate};
pub use replay::Replay;
pub use shape::{Arriving, PENDING_MAX, Shape};
pub use size::{APPS_MAX, EXPECTATIONS_MAX, FLOOR_RUNNERS_MAX, HAPPENINGS_MAX, STREAMS_MAX};
pub use source::{Creep, Origin, Service, Stream, Traffic, TrafficError, zipf};

pub(crate) use value::duration_of;

use crate::model::AppModel;
use crate::outcome::Outcome;
use crate::simulation::{Happening, Untidiness, World};

/// Bytes of a scenario file.
pub const SCENARIO_BYTES_MAX: u64 = 1 << 20;

/// A world, its traffic, and what is expected of them.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    /// How long traffic comes.
    pub length: Duration,
    /// When the simulation is cut off. `None`: it goes on until all is over.
    pub until: Option<Duration>,
    pub engine: engine::Config,
    pub capacity: Capacity,
    pub apps: Vec<AppModel>,
    pub streams: Vec<Stream>,
    /// In order of time.
    pub happenings: Vec<Happening>,
    pub untidiness: Untidiness,
    pub expectations: Vec<Expectation>,
}

impl Scenario {
    /// Reads a scenario; the files it names are looked for beside it.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let unreadable = |problem| ScenarioError::Read { path: path.to_owned(), problem };
        let mut text = String::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(SCENARIO_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > SCENARIO_BYTES_MAX {
            let bytes_max = SCENARIO_BYTES_MAX;
            return Err(ScenarioError::TooLarge { path: path.to_owned(), bytes_max });
        }
        let dir = path.parent().unwrap_or(Path::new(""));
        Self::parse(&path.display().to_string(), &text, dir)
    }

    /// Reads the text of a scenario. `name`: of the file, for messages; `dir`: where files it names are.
    pub fn parse(name: &str, text: &str, dir: &Path) -> Result<Self, ScenarioError> {
        read::read(text, dir)
            .map_err(|problems| ScenarioError::Invalid { name: name.to_owned(), problems })
    }

    pub fn world(&self, seed: u64) -> World {
        World {
            seed,
            engine: self.engine.clone(),
            capacity: self.capacity.clone(),
            apps: self.apps.clone(),
            untidiness: self.untidiness,
            happenings: self.happenings.clone(),
            until: self.until.map(|until| Timestamp::ZERO + until),
            ..World::default()
        }
    }

    pub fn traffic(&self, seed: u64) -> Traffic {
        Traffic::new(self.streams.clone(), seed)
    }

    /// Expectations that the outcome does not meet.
    pub fn unmet(&self, outcome: &Outcome) -> Vec<Unmet> {
        self.expectations.iter().filter_map(|expect| expect.check(outcome, self.length)).collect()
    }
}
