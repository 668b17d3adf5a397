//! What is to come, in order of time; of the same time, in the order in which it was entered.
//!
//! Nothing is taken out again when it becomes void: whoever meets an entry compares its generation with
//! that of the thing it is about.

use glowplug_core::Timestamp;

/// Children of an entry in the heap: four lie beside each other in memory, and the heap is half as deep as
/// one with two.
const CHILDREN: usize = 4;

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
    at: Timestamp,
    order: u64,
    pub(super) index: u32,
    pub(super) generation: u32,
    pub(super) kind: Kind,
}

impl Entry {
    /// As one number, so that comparing needs no branch.
    fn key(&self) -> u128 {
        (u128::from(self.at.as_micros()) << 64) | u128::from(self.order)
    }
}

#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// No entry is later than its children.
    heap: Vec<Entry>,
    entered: u64,
}

impl Agenda {
    pub(super) fn enter(&mut self, at: Timestamp, kind: Kind, index: u32, generation: u32) {
        self.entered += 1;
        let entry = Entry { at, order: self.entered, index, generation, kind };
        let mut hole = self.heap.len();
        self.heap.push(entry);
        let key = entry.key();
        while hole > 0 {
            let parent = (hole - 1) / CHILDREN;
            if self.heap[parent].key() <= key {
                break;
            }
            self.heap[hole] = self.heap[parent];
            hole = parent;
        }
        self.heap[hole] = entry;
    }

    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.heap.first().map(|entry| entry.at)
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        let last = self.heap.pop()?;
        let Some(first) = self.heap.first().copied() else { return Some(last) };
        self.sink(last);
        Some(first)
    }

    /// Finds the place of an entry from the top, where there is none now.
    fn sink(&mut self, entry: Entry) {
        let (key, len) = (entry.key(), self.heap.len());
        let mut hole = 0;
        loop {
            let first = hole * CHILDREN + 1;
            let Some(children) = self.heap.get(first..len.min(first + CHILDREN)) else { break };
            let keys = (first..).zip(children.iter().map(Entry::key));
            let Some((least, least_key)) = keys.min_by_key(|(_, key)| *key) else { break };
            if key <= least_key {
                break;
            }
            self.heap[hole] = self.heap[least];
            hole = least;
        }
        self.heap[hole] = entry;
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

    #[test]
    fn entries_come_in_order_of_time() {
        let mut agenda = Agenda::default();
        let mut numbers = crate::model::Stream::new(1, crate::model::Purpose::Service, 0);
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        for nth in 0..5_000 {
            let at = Timestamp::from_micros(numbers.bits() % 1_000);
            agenda.enter(at, Kind::StageEnds, nth, 0);
            expected.push((at, nth));
        }
        expected.sort_unstable();
        while let Some(at) = agenda.next_at() {
            found.extend(agenda.pop().map(|entry| (at, entry.index)));
        }
        assert_eq!(found, expected);
    }
}
