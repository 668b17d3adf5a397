//! What is to come, in order of time; of the same time, in the order in which it was entered.
//!
//! Nothing is taken out again when it becomes void: whoever meets an entry compares its generation with
//! that of the thing it is about.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use glowplug_core::Timestamp;

/// What an entry's index and generation are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A request: an attempt is over.
    AttemptEnds,
    /// A request: its connection could not be made.
    ConnectFails,
    /// A runner: its next stage.
    StageEnds,
    /// A runner: the first of the requests that share it is done.
    SharedWorkEnds,
    /// A report that was held up.
    ReportComes,
    /// A happening of the scenario.
    Happens,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) at: Timestamp,
    order: u64,
    pub(super) index: u32,
    pub(super) generation: u32,
    pub(super) kind: Kind,
}

impl Ord for Entry {
    /// The earliest is the greatest, since the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Debug, Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Entry>,
    entered: u64,
}

impl Agenda {
    pub(super) fn enter(&mut self, at: Timestamp, kind: Kind, index: u32, generation: u32) {
        self.entered += 1;
        self.heap.push(Entry { at, order: self.entered, index, generation, kind });
    }

    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.heap.peek().map(|entry| entry.at)
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        self.heap.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_the_same_time_keep_their_order() {
        let mut agenda = Agenda::default();
        for (secs, index) in [(2, 0), (1, 1), (2, 2), (1, 3), (0, 4)] {
            agenda.enter(Timestamp::from_secs(secs), Kind::StageEnds, index, 0);
        }
        assert_eq!(agenda.next_at(), Some(Timestamp::ZERO));
        let order: Vec<u32> =
            std::iter::from_fn(|| agenda.pop()).map(|entry| entry.index).collect();
        assert_eq!(order, [4, 1, 3, 0, 2]);
    }
}
