//! The node's one clock: the wall at boot plus what the monotonic clock counted since.
//!
//! So engine time never goes backwards, whatever happens to the wall clock, and still reads as a date.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use glowplug_core::Timestamp;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    wall_at_boot: Timestamp,
    boot: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(crate) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_at_boot = Timestamp::ZERO + wall;
        Self { wall_at_boot, boot: Instant::now() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.wall_at_boot + self.boot.elapsed()
    }

    /// The clock as the crates below take it.
    pub(crate) fn shared(self) -> std::sync::Arc<dyn Fn() -> Timestamp + Send + Sync> {
        std::sync::Arc::new(move || self.now())
    }
}
