//! How long an app waits after failed starts: 30 s more each time, 600 s at most (fal's numbers). Any
//! runner of the app that becomes ready ends it.
//!
//! Starts that were under way together and fail together count once: ten runners that meet the same
//! broken network are one reason to wait, not ten.

use std::time::Duration;

use crate::time::Timestamp;

pub const STEP: Duration = Duration::from_secs(30);
pub const CAP: Duration = Duration::from_mins(10);
/// Between tries when the backend found no room although the ledger did. Not a failure of the app.
pub const NO_ROOM: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    /// When the failure that was counted last happened.
    counted_at: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Backoff {
    /// Counts a failed start that began at `began`, and returns when the next may be tried.
    pub fn fail(&mut self, now: Timestamp, began: Timestamp) -> Timestamp {
        let was_under_way = self.counted_at.is_some_and(|counted_at| began <= counted_at);
        match self.active(now) {
            Some(until) if was_under_way => return until,
            _ if was_under_way => {}
            _ => {
                self.failures = self.failures.saturating_add(1);
                self.counted_at = Some(now);
            }
        }
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
        let mut now = Timestamp::from_secs(1_000);
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..22 {
            now = now + Duration::from_secs(1);
            waits.push((backoff.fail(now, now) - now).as_secs());
        }
        assert_eq!(waits[..4], [30, 60, 90, 120]);
        assert_eq!(waits[18..], [570, 600, 600, 600]);
        assert_eq!(backoff.active(now), Some(now + CAP));
        backoff.reset();
        assert_eq!(backoff.active(now), None);
        assert_eq!((backoff.fail(now, now) - now).as_secs(), 30);
    }

    #[test]
    fn a_wait_that_is_over_is_not_active() {
        let mut backoff = Backoff::default();
        let until = backoff.fail(Timestamp::ZERO, Timestamp::ZERO);
        assert_eq!(backoff.active(until), None);
    }

    #[test]
    fn starts_that_fail_together_count_once() {
        let at = Timestamp::from_secs;
        let mut backoff = Backoff::default();
        assert_eq!(backoff.fail(at(10), at(0)), at(40));
        assert_eq!(backoff.fail(at(12), at(5)), at(40));
        // One of the same batch that dragged on: the wait begins anew, but is no longer.
        assert_eq!(backoff.fail(at(50), at(5)), at(80));
        assert_eq!(backoff.failures(), 1);
        assert_eq!(backoff.fail(at(51), at(41)), at(111));
        assert_eq!(backoff.failures(), 2);
    }
}
