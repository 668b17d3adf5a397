//! The one kind of time the engine knows.
//!
//! The engine has no clock. Every call into it carries the moment at which its driver makes the call:
//! the node's monotonic clock anchored to the wall at boot, or the simulator's virtual clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Microseconds since the Unix epoch, never going backwards within one driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch. Simulations start here.
    pub const ZERO: Self = Self(0);
    /// Later than any moment the engine will see.
    pub const MAX: Self = Self(u64::MAX);

    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000_000)
    }

    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero if `earlier` is in fact later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// This moment moved by `span`, stopping at [`Timestamp::MAX`].
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        self.saturating_add(span)
    }
}

impl Sub for Timestamp {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// A length of time as people read it: `350 µs`, `4.2 ms`, `1.30 s`, `12.5 s`, `3 min 20 s`, `2 h 5 min`.
#[derive(Clone, Copy, Debug)]
pub struct Pretty(pub Duration);

impl fmt::Display for Pretty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        let secs = self.0.as_secs();
        #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
        let micros_float = micros as f64;
        match micros {
            0..1_000 => write!(f, "{micros} µs"),
            1_000..10_000 => write!(f, "{:.1} ms", micros_float / 1e3),
            10_000..1_000_000 => write!(f, "{} ms", micros / 1_000),
            1_000_000..10_000_000 => write!(f, "{:.2} s", micros_float / 1e6),
            10_000_000..60_000_000 => write!(f, "{:.1} s", micros_float / 1e6),
            _ if secs < 3_600 => match secs % 60 {
                0 => write!(f, "{} min", secs / 60),
                rest => write!(f, "{} min {rest} s", secs / 60),
            },
            _ => match secs / 60 % 60 {
                0 => write!(f, "{} h", secs / 3_600),
                rest => write!(f, "{} h {rest} min", secs / 3_600),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_speech() {
        let check = |micros, expected: &str| {
            assert_eq!(Pretty(Duration::from_micros(micros)).to_string(), expected);
        };
        check(350, "350 µs");
        check(4_210, "4.2 ms");
        check(48_900, "48 ms");
        check(1_300_000, "1.30 s");
        check(12_500_000, "12.5 s");
        check(60_000_000, "1 min");
        check(200_000_000, "3 min 20 s");
        check(7_500_000_000, "2 h 5 min");
    }

    #[test]
    fn time_never_runs_backwards() {
        let (early, late) = (Timestamp::from_secs(1), Timestamp::from_secs(3));
        assert_eq!(late - early, Duration::from_secs(2));
        assert_eq!(early - late, Duration::ZERO);
        assert_eq!(Timestamp::MAX + Duration::from_secs(1), Timestamp::MAX);
    }
}
