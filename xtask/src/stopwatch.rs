//! The only clock of this program: how long something took, and waiting for something with a bound.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "measuring is what this program is for")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Microseconds since the Unix epoch, to compare with what a node on this machine says.
#[expect(clippy::disallowed_methods, reason = "measuring is what this program is for")]
pub(crate) fn wall_clock_micros() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Looks every `pause` until `look` finds something, for at most `bound`.
pub(crate) fn wait_for<T>(
    bound: Duration,
    pause: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let watch = Stopwatch::start();
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if watch.elapsed() >= bound {
            return Ok(None);
        }
        thread::sleep(pause);
    }
}
