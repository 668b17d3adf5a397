//! Recorded traffic.

use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::decision::StartCause;
use glowplug_core::request::Mode;
use glowplug_core::spec::Scaling;

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
