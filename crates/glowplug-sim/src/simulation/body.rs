//! What a runner really is and does, whatever the engine has heard of it.
//!
//! ```text
//! Placed ──► Pulling ──► SettingUp ──► Serving ──► Ending ──► Gone
//!    └────────────────────▲   └──────────┴── dies ─────────────▲
//! ```

use glowplug_core::Timestamp;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Placed,
    Pulling,
    SettingUp,
    Serving,
    /// Told to end. What is on it may finish first.
    Ending,
    Gone,
}

/// How a setup ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SetupEnd {
    #[default]
    Ready,
    Crash,
    /// Not by itself.
    Never,
}

#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) stage: Stage,
    /// Requests that it works on.
    pub(super) on: Vec<u32>,
    /// Its reports come in order: none before those that were held up until then.
    pub(super) reported_until: Option<Timestamp>,
}

/// What was drawn for it when it was started.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) setup_micros: u64,
    pub(super) setup_end: SetupEnd,
    pub(super) exit_micros: u64,
    /// When it is killed, if it is told to end and has not.
    pub(super) killed_at: Timestamp,
}
