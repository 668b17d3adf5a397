//! Recorded traffic: our own format, and readers for other people's.
//!
//! ```text
//! .gptrace ─────────────► Reader ──┐
//! CSV, logs ─► Row ─► reorder ─► declare ─┼─► Record, Record, … ─► select ─► arrivals ─► the simulator
//! counts per minute ─► spread ──┘                                     └──► summarize ─► the planner
//! ```
//!
//! Everything here streams: what is held in memory has a named limit and does not grow with the file.
//! `docs/reference/trace-format.md` describes the format and what is read besides it.

mod detect;
mod error;
mod header;
mod import;
mod line;
mod lines;
mod open;
mod options;
mod reader;
mod rules;
mod select;
mod summary;
mod writer;

use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::decision::StartCause;
use glowplug_core::request::{Mode, Priority};
use glowplug_core::spec::Scaling;

pub use error::{Error, Fault};
pub use header::Header;
pub use import::LeftOut;
pub use open::{Trace, open};
pub use options::{Format, Names, NoService, Options, Stamp, TokenTimes, Unit};
pub use reader::Reader;
pub use select::{Selected, Selection, arrivals, select};
pub use summary::{AppSummary, Lengths, SAMPLES_MAX, Summary};
pub use writer::{LEVEL_DEFAULT, Writer};

/// What a trace may hold.
pub mod limits {
    use std::time::Duration;

    /// Bytes of one line, its end not counted; of a CSV row with all lines that its quotes hold together.
    pub const LINE_BYTES_MAX: usize = 1024 * 1024;
    /// Apps of one trace.
    pub const APPS_MAX: u32 = 1_000_000;
    /// Bytes of an app's name, of its machine type and of the reason of a stop.
    pub const NAME_BYTES_MAX: usize = 512;
    /// Moments since the beginning, and lengths of time: 100 years, so that no sum of them overflows.
    pub const TIME_MAX: Duration = Duration::from_hours(100 * 365 * 24);
}

/// One line of a trace. An app comes before everything that names it. Requests come in order of arrival;
/// starts and stops in order of their own `at`, somewhere among them.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    App(App),
    Request(Request),
    Start(Start),
    Stop(Stop),
}

/// Declares the next app; the first one is app 0.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// No two apps of a trace have the same.
    pub name: String,
    /// As it was set when the trace was recorded; `None`: not known.
    pub scaling: Option<Scaling>,
    pub machine_type: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// When it came, since the trace's beginning.
    pub at: Timestamp,
    pub app: u32,
    pub mode: Mode,
    pub priority: Priority,
    /// It had to be given to a runner within this time.
    pub start_within: Option<Duration>,
    /// How long a runner worked on it. `None`: not known, or it never got one.
    pub service: Option<Duration>,
    /// From arrival to its first runner. `None`: not known, or it never got one.
    pub waited: Option<Duration>,
    pub attempts: u32,
    /// `None`: not known, or no answer.
    pub status: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Start {
    /// When the runner was wanted.
    pub at: Timestamp,
    pub app: u32,
    pub cause: StartCause,
    /// From wanted to placed.
    pub pending: Duration,
    /// `None`: what it needed was cached.
    pub pull: Option<Duration>,
    /// From the program's start to its readiness, or to its failure.
    pub setup: Duration,
    pub ready: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    pub at: Timestamp,
    pub app: u32,
    /// [`glowplug_core::decision::StopReason::label`].
    pub reason: String,
    /// From wanted to ended.
    pub lived: Duration,
    pub served: u64,
}

impl App {
    /// An app of which nothing but its name is known.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), scaling: None, machine_type: None }
    }
}

impl Request {
    /// A queued request of normal priority, tried once, of which no more is known.
    pub fn new(at: Timestamp, app: u32, service: Option<Duration>) -> Self {
        Self {
            at,
            app,
            mode: Mode::Queued,
            priority: Priority::Normal,
            start_within: None,
            service,
            waited: None,
            attempts: 1,
            status: None,
        }
    }
}
