//! How long an app waits after failed starts: 30 s more each time, 600 s at most (fal's numbers). Any
//! runner of the app that becomes ready ends it.

use std::time::Duration;

use crate::time::Timestamp;

pub const STEP: Duration = Duration::from_secs(30);
pub const CAP: Duration = Duration::from_secs(600);
/// Between tries when the backend found no room although the ledger did. Not a failure of the app.
pub const NO_ROOM: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    until: Option<Timestamp>,
}

impl Backoff {
    /// Counts a failed start and returns when the next may be tried.
    pub fn fail(&mut self, now: Timestamp) -> Timestamp {
        self.failures = self.failures.saturating_add(1);
        let until = now + CAP.min(STEP.saturating_mul(self.failures));
        self.until = Some(until);
        until
    }

    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Starts failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The moment before which nothing may start, if it lies ahead.
    pub fn active(&self, now: Timestamp) -> Option<Timestamp> {
        self.until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_seconds_more_each_time_up_to_ten_minutes() {
        let now = Timestamp::from_secs(1_000);
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..22).map(|_| (backoff.fail(now) - now).as_secs()).collect();
        assert_eq!(waits[..4], [30, 60, 90, 120]);
        assert_eq!(waits[18..], [570, 600, 600, 600]);
        assert_eq!(backoff.active(now), Some(now + CAP));
        backoff.reset();
        assert_eq!(backoff.active(now), None);
        assert_eq!((backoff.fail(now) - now).as_secs(), 30);
    }

    #[test]
    fn a_wait_that_is_over_is_not_active() {
        let mut backoff = Backoff::default();
        let until = backoff.fail(Timestamp::ZERO);
        assert_eq!(backoff.active(until), None);
    }
}
