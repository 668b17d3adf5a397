//! The requests of one app that wait for a runner, in the order in which they are served.
//!
//! ```text
//!            round 8        round 9          round 10
//! normal   │ a3  b1  c1  │  a4  b2  d1   │   a5  …          served from the left
//! low      │ e1          │  e2
//! ```
//!
//! Each lane is served fairly between callers: a caller's requests lie in rounds of their own, one after
//! the other, and within a round who came first is first. A caller that has nothing waiting joins the round
//! after the one being served, so that nobody overtakes those in line by coming again and again, and
//! nothing need be remembered of who has nothing waiting: what is kept is bounded by what waits.
//!
//! Normal comes before low, but not for ever: [`PASSED_OVER_MAX`].
//!
//! A place is given out once. A request that is tried again comes back to the one it had.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ordered::Ordered;
use crate::ids::{CallerId, RequestId};
use crate::request::Priority;
use crate::time::Timestamp;

/// Normal requests that are served in a row while a low one waits. Then comes a low one, so that low
/// requests get at least one turn in a hundred and one.
pub const PASSED_OVER_MAX: usize = 100;

/// A request's place, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub round: u64,
    /// Grows with arrival; no two are alike.
    pub sequence: u64,
    pub caller: CallerId,
    pub arrived: Timestamp,
    pub request: RequestId,
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    normal: Lane,
    low: Lane,
    /// All of them, in order of arrival.
    arrivals: Ordered<(Timestamp, u64)>,
    /// Normal requests served since a low one was, while one waited.
    passed_over: usize,
}

#[derive(Debug, Default)]
struct Lane {
    places: Ordered<Place>,
    /// The same by caller: who has how much, and up to which round.
    rounds: BTreeSet<(CallerId, u64, u64)>,
    /// The last that was begun.
    round: u64,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.arrivals.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The round for a request that has just come, whether it will wait or not.
    pub(super) fn next_round(&self, priority: Priority, caller: CallerId) -> u64 {
        let lane = self.lane(priority);
        // As for every request that finds a free runner.
        if lane.is_empty() {
            return lane.round + 1;
        }
        let mut own = lane.rounds.range((caller, 0, 0)..=(caller, u64::MAX, u64::MAX));
        own.next_back().map_or(0, |(_, round, _)| *round).max(lane.round) + 1
    }

    pub(super) fn insert(&mut self, priority: Priority, place: Place) {
        self.arrivals.insert((place.arrived, place.sequence));
        let lane = self.lane_mut(priority);
        lane.rounds.insert((place.caller, place.round, place.sequence));
        lane.places.insert(place);
    }

    pub(super) fn remove(&mut self, priority: Priority, place: &Place) -> bool {
        let lane = self.lane_mut(priority);
        let was_there = lane.places.remove(place);
        if was_there {
            lane.rounds.remove(&(place.caller, place.round, place.sequence));
            self.arrivals.remove(&(place.arrived, place.sequence));
        }
        was_there
    }

    pub(super) fn pop(&mut self) -> Option<Place> {
        let lows_turn = self.normal.is_empty() || self.passed_over >= PASSED_OVER_MAX;
        let low = if lows_turn { self.low.pop() } else { None };
        let place = if let Some(place) = low {
            self.passed_over = 0;
            place
        } else {
            let place = self.normal.pop()?;
            self.passed_over = if self.low.is_empty() { 0 } else { self.passed_over + 1 };
            place
        };
        self.arrivals.remove(&(place.arrived, place.sequence));
        Some(place)
    }

    /// How many are served before it if nobody else comes. It need not be in line just now.
    pub(super) fn position(&self, priority: Priority, place: &Place) -> usize {
        let rank = self.lane(priority).places.rank(place);
        let passed_over = if self.low.is_empty() { 0 } else { self.passed_over };
        match priority {
            Priority::Normal => {
                let lows = (rank + passed_over) / PASSED_OVER_MAX;
                rank + lows.min(self.low.places.len())
            }
            Priority::Low => {
                let normals = ((rank + 1) * PASSED_OVER_MAX).saturating_sub(passed_over);
                rank + normals.min(self.normal.places.len())
            }
        }
    }

    /// All, in the order in which they are served if nobody else comes.
    pub(super) fn requests(&self) -> impl Iterator<Item = RequestId> + '_ {
        let (mut normal, mut low) = (self.normal.places.iter(), self.low.places.iter().peekable());
        let mut passed_over = self.passed_over;
        std::iter::from_fn(move || {
            if passed_over >= PASSED_OVER_MAX
                && let Some(place) = low.next()
            {
                passed_over = 0;
                return Some(place.request);
            }
            let Some(place) = normal.next() else { return low.next().map(|place| place.request) };
            passed_over = if low.peek().is_some() { passed_over + 1 } else { 0 };
            Some(place.request)
        })
    }

    /// How many have waited at least `delay`, and when the next of the others will have.
    pub(super) fn ripe(&self, now: Timestamp, delay: Duration) -> (usize, Option<Timestamp>) {
        if delay.is_zero() {
            return (self.len(), None);
        }
        let (ripe, next) = self.arrivals.split(|(arrived, _)| *arrived + delay <= now);
        (ripe, next.map(|(arrived, _)| arrived + delay))
    }

    fn lane(&self, priority: Priority) -> &Lane {
        match priority {
            Priority::Normal => &self.normal,
            Priority::Low => &self.low,
        }
    }

    fn lane_mut(&mut self, priority: Priority) -> &mut Lane {
        match priority {
            Priority::Normal => &mut self.normal,
            Priority::Low => &mut self.low,
        }
    }
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.places.len() == 0
    }

    fn pop(&mut self) -> Option<Place> {
        let place = self.places.pop_first()?;
        // What is tried again may be of a round that is over.
        self.round = self.round.max(place.round);
        self.rounds.remove(&(place.caller, place.round, place.sequence));
        Some(place)
    }
}

#[cfg(test)]
mod tests;
