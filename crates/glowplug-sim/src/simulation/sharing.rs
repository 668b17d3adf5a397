//! Requests that share a runner and slow each other down.
//!
//! All that share it proceed at the same speed, so one number says how far everybody has come since the
//! runner was last empty: the work that a request would have got which was there all the time. A request is
//! done when that number has grown by its own work. Whatever joins or leaves changes the speed, and nothing
//! has to be done for the others.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use glowplug_core::Timestamp;

/// A request's share, until the common progress reaches `until`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    /// Microseconds of work.
    until: f64,
    pub(super) request: u32,
    pub(super) generation: u32,
}

#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Microseconds of work that each has got.
    progress: f64,
    at: Timestamp,
    members: u32,
    /// May hold some that have left: who pops one looks whether it is still there.
    shares: BinaryHeap<Reverse<Share>>,
    /// Entries of the agenda with another one are void.
    pub(super) generation: u32,
}

impl Eq for Share {}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        // Of equal work, the one that was begun first.
        self.until.total_cmp(&other.until).then(self.generation.cmp(&other.generation))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Sharing {
    /// Time that one microsecond of everybody's work takes.
    fn stretch(&self, slowdown: f64) -> f64 {
        1.0 + slowdown * f64::from(self.members.saturating_sub(1))
    }

    fn proceed(&mut self, now: Timestamp, slowdown: f64) {
        if self.members == 0 {
            self.progress = 0.0;
            self.shares.clear();
        } else {
            #[expect(clippy::cast_precision_loss, reason = "spans below 2^53 microseconds")]
            let micros = now.since(self.at).as_micros() as f64;
            self.progress += micros / self.stretch(slowdown);
        }
        self.at = now;
    }

    #[expect(clippy::cast_precision_loss, reason = "work below 2^53 microseconds")]
    pub(super) fn join(
        &mut self,
        now: Timestamp,
        slowdown: f64,
        (request, generation): (u32, u32),
        work_micros: u64,
    ) {
        self.proceed(now, slowdown);
        self.members += 1;
        let until = self.progress + work_micros as f64;
        self.shares.push(Reverse(Share { until, request, generation }));
    }

    /// One of them goes: it is done, or was taken away.
    pub(super) fn leave(&mut self, now: Timestamp, slowdown: f64) {
        self.proceed(now, slowdown);
        self.members -= 1;
    }

    /// Who is done next, and when, if nothing changes. `is_there`: whether a share's request still is.
    pub(super) fn next(
        &mut self,
        slowdown: f64,
        is_there: impl Fn(&Share) -> bool,
    ) -> Option<(Timestamp, Share)> {
        while let Some(Reverse(share)) = self.shares.peek().copied() {
            if is_there(&share) {
                let left_micros = (share.until - self.progress).max(0.0) * self.stretch(slowdown);
                return Some((self.at + micros_rounded_up(left_micros), share));
            }
            self.shares.pop();
        }
        None
    }
}

/// What lies closer above a whole microsecond than floating point tells apart is that microsecond.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts saturate")]
fn micros_rounded_up(micros: f64) -> Duration {
    const SLACK_MICROS: f64 = 1e-3;
    Duration::from_micros((micros - SLACK_MICROS).ceil().max(0.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays arrivals of (second, work in seconds) and returns when each is done, in order of the arrivals.
    fn play(slowdown: f64, arrivals: &[(u64, u64)]) -> Vec<f64> {
        let mut sharing = Sharing::default();
        let mut done: Vec<Option<f64>> = vec![None; arrivals.len()];
        let mut coming = (0u32..).zip(arrivals.iter().copied()).peekable();
        loop {
            let next = sharing.next(slowdown, |share| done[share.request as usize].is_none());
            let arrival = coming.peek().map(|(_, (secs, _))| Timestamp::from_secs(*secs));
            match (next, arrival) {
                (Some((at, share)), arrival) if arrival.is_none_or(|arrival| at <= arrival) => {
                    sharing.leave(at, slowdown);
                    done[share.request as usize] = Some((at - Timestamp::ZERO).as_secs_f64());
                }
                (_, Some(at)) => {
                    let (nth, (_, work)) = coming.next().unwrap();
                    sharing.join(at, slowdown, (nth, nth + 1), work * 1_000_000);
                }
                (None, None) => break,
                (Some(_), None) => unreachable!("it comes before nothing"),
            }
        }
        done.into_iter().flatten().collect()
    }

    #[test]
    fn finishes_are_those_computed_by_hand() {
        for (slowdown, arrivals, expected) in [
            // Alone.
            (1.0, &[(0, 10)][..], &[10.0][..]),
            // Half each: 2 s of work take 4 s; the other has then 8 s left, alone.
            (1.0, &[(0, 10), (0, 2)], &[12.0, 4.0]),
            // 4 s alone, then half each until both have done 6 more.
            (1.0, &[(0, 10), (4, 6)], &[16.0, 16.0]),
            // Three at a third of the speed, then two at half, then one.
            (1.0, &[(0, 1), (0, 2), (0, 3)], &[3.0, 5.0, 6.0]),
            // A quarter slower for each other one.
            (0.25, &[(0, 8), (0, 4)], &[9.0, 5.0]),
            // Empty in between.
            (1.0, &[(0, 1), (5, 1), (5, 1)], &[1.0, 7.0, 7.0]),
        ] {
            assert_eq!(play(slowdown, arrivals), expected, "{slowdown} {arrivals:?}");
        }
    }

    #[test]
    fn who_was_taken_away_slows_nobody_down() {
        let mut sharing = Sharing::default();
        sharing.join(Timestamp::ZERO, 1.0, (0, 1), 10_000_000);
        sharing.join(Timestamp::ZERO, 1.0, (1, 2), 4_000_000);
        sharing.leave(Timestamp::from_secs(2), 1.0);
        let next = sharing.next(1.0, |share| share.request == 0);
        assert_eq!(
            next.unwrap().0,
            Timestamp::from_secs(11),
            "1 s of 10 was done in the first 2 s"
        );
    }
}
