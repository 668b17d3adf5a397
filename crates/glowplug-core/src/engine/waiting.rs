//! The requests of one app that wait for a runner: normal before low, each in order of arrival.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ids::RequestId;
use crate::request::Priority;
use crate::time::Timestamp;

/// A request's place. `sequence` grows with arrival and is kept over retries, so a retried request
/// returns to where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub sequence: u64,
    pub arrived: Timestamp,
    pub request: RequestId,
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    normal: VecDeque<Place>,
    low: VecDeque<Place>,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.normal.len() + self.low.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn insert(&mut self, priority: Priority, place: Place) {
        let lane = self.lane(priority);
        if lane.back().is_none_or(|last| last.sequence < place.sequence) {
            lane.push_back(place);
        } else {
            let at = lane.partition_point(|other| other.sequence < place.sequence);
            lane.insert(at, place);
        }
    }

    pub(super) fn remove(&mut self, priority: Priority, sequence: u64) -> bool {
        let lane = self.lane(priority);
        match lane.binary_search_by_key(&sequence, |place| place.sequence) {
            Ok(at) => lane.remove(at).is_some(),
            Err(_) => false,
        }
    }

    pub(super) fn pop(&mut self) -> Option<Place> {
        self.normal.pop_front().or_else(|| self.low.pop_front())
    }

    /// How many are served before it.
    pub(super) fn position(&self, priority: Priority, sequence: u64) -> Option<usize> {
        let (lane, before) = match priority {
            Priority::Normal => (&self.normal, 0),
            Priority::Low => (&self.low, self.normal.len()),
        };
        let at = lane.binary_search_by_key(&sequence, |place| place.sequence).ok()?;
        Some(before + at)
    }

    pub(super) fn requests(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.normal.iter().chain(&self.low).map(|place| place.request)
    }

    /// How many have waited at least `delay`, and when the next of the others will have.
    pub(super) fn ripe(&self, now: Timestamp, delay: Duration) -> (usize, Option<Timestamp>) {
        if delay.is_zero() || self.is_empty() {
            return (self.len(), None);
        }
        let mut ripe = 0;
        let mut next = None;
        for lane in [&self.normal, &self.low] {
            let count = lane.partition_point(|place| place.arrived + delay <= now);
            ripe += count;
            let ripens = lane.get(count).map(|place| place.arrived + delay);
            next = [next, ripens].into_iter().flatten().min();
        }
        (ripe, next)
    }

    fn lane(&mut self, priority: Priority) -> &mut VecDeque<Place> {
        match priority {
            Priority::Normal => &mut self.normal,
            Priority::Low => &mut self.low,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(sequence: u64) -> Place {
        Place {
            sequence,
            arrived: Timestamp::from_secs(sequence),
            request: RequestId(u128::from(sequence)),
        }
    }

    #[test]
    fn normal_before_low_and_first_come_first() {
        let mut waiting = Waiting::default();
        for sequence in [1, 2, 3] {
            waiting.insert(Priority::Low, place(sequence));
        }
        for sequence in [4, 6] {
            waiting.insert(Priority::Normal, place(sequence));
        }
        // Comes back after a failed attempt.
        waiting.insert(Priority::Normal, place(5));
        assert_eq!(waiting.position(Priority::Normal, 5), Some(1));
        assert_eq!(waiting.position(Priority::Low, 1), Some(3));
        assert!(waiting.remove(Priority::Low, 2));
        assert!(!waiting.remove(Priority::Low, 2));
        let order: Vec<u64> =
            std::iter::from_fn(|| waiting.pop()).map(|place| place.sequence).collect();
        assert_eq!(order, [4, 5, 6, 1, 3]);
    }

    #[test]
    fn requests_ripen() {
        let mut waiting = Waiting::default();
        waiting.insert(Priority::Normal, place(10));
        waiting.insert(Priority::Low, place(11));
        waiting.insert(Priority::Normal, place(12));
        let delay = Duration::from_secs(5);
        let at = Timestamp::from_secs;
        assert_eq!(waiting.ripe(at(14), delay), (0, Some(at(15))));
        assert_eq!(waiting.ripe(at(15), delay), (1, Some(at(16))));
        assert_eq!(waiting.ripe(at(17), delay), (3, None));
        assert_eq!(waiting.ripe(at(10), Duration::ZERO), (3, None));
    }
}
