//! What comes: requests in order of time.

use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::request::{Mode, Priority};

/// One request, as the simulator lets it arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Since the beginning of the traffic. Never before that of the arrival before it.
    pub at: Timestamp,
    /// Index of the app among those simulated.
    pub app: u32,
    /// How long a runner works on it when it has it alone. `None`: drawn from the app's model.
    pub service: Option<Duration>,
    pub mode: Mode,
    pub priority: Priority,
    /// It must be given to a runner within this time, or it is refused.
    pub start_within: Option<Duration>,
}

impl Arrival {
    /// A queued request of normal priority without a deadline.
    pub fn new(at: Timestamp, app: u32, service: Option<Duration>) -> Self {
        Self {
            at,
            app,
            service,
            mode: Mode::Queued,
            priority: Priority::Normal,
            start_within: None,
        }
    }
}
