//! Records by id, for look-ups in constant time.
//!
//! Records lie in slots that are used again; an index of twice as many cells or more, with linear probing,
//! says in which. The cells' order depends on hashes and is never shown: whoever goes over all records
//! gets them in the order of their slots, which follows from what came and went, and from nothing else.
//!
//! The hash is fixed, so that runs are alike. Ids are given out by the node and by simulators, never by
//! callers, so nobody can choose many that meet in one cell.

use crate::ids::{AppId, RequestId, RunnerId};

/// Cells of the smallest index. A power of two, as every other.
const CELLS_MIN: usize = 8;

/// What records are found by.
pub(super) trait Key: Copy + Ord {
    /// A hash, good in its upper bits above all.
    fn hash(self) -> u32;
}

#[derive(Debug)]
pub(super) struct Table<K, V> {
    cells: Vec<Cell>,
    slots: Vec<Option<(K, V)>>,
    vacant: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    hash: u32,
    slot: u32,
}

impl Cell {
    const EMPTY: Self = Self { hash: 0, slot: u32::MAX };

    fn is_empty(self) -> bool {
        self.slot == u32::MAX
    }
}

impl<K: Key, V> Table<K, V> {
    pub(super) const fn new() -> Self {
        Self { cells: Vec::new(), slots: Vec::new(), vacant: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.find(*key).is_some()
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let cell = self.find(*key)?;
        self.slots[self.slot(cell)].as_ref().map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let cell = self.find(*key)?;
        let slot = self.slot(cell);
        self.slots[slot].as_mut().map(|(_, value)| value)
    }

    /// Enters a record, and returns the one it displaces.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(known) = self.get_mut(&key) {
            return Some(std::mem::replace(known, value));
        }
        if (self.len() + 1) * 2 > self.cells.len() {
            self.grow();
        }
        let record = Some((key, value));
        let slot = if let Some(slot) = self.vacant.pop() {
            self.slots[slot as usize] = record;
            slot
        } else {
            self.slots.push(record);
            u32::try_from(self.slots.len() - 1).expect("memory ends before four thousand million")
        };
        self.enter(Cell { hash: key.hash(), slot });
        None
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let cell = self.find(*key)?;
        let slot = self.cells[cell].slot;
        self.close_gap(cell);
        self.vacant.push(slot);
        self.slots[slot as usize].take().map(|(_, value)| value)
    }

    /// All records, in an order of no meaning: who decides by it sorts first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.slots.iter().flatten().map(|(key, value)| (*key, value))
    }

    /// All keys in their order.
    pub(super) fn sorted_keys(&self) -> Vec<K> {
        let mut keys: Vec<K> = self.iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys
    }

    /// The cell that knows the key's slot.
    fn find(&self, key: K) -> Option<usize> {
        let hash = key.hash();
        let mut at = self.home(hash);
        loop {
            let cell = *self.cells.get(at)?;
            if cell.is_empty() {
                return None;
            }
            if cell.hash == hash
                && self.slots[cell.slot as usize].as_ref().is_some_and(|(known, _)| *known == key)
            {
                return Some(at);
            }
            at = self.after(at);
        }
    }

    fn slot(&self, cell: usize) -> usize {
        self.cells[cell].slot as usize
    }

    /// Where a search for the hash begins.
    fn home(&self, hash: u32) -> usize {
        // The upper bits of the hash: as many as count the cells.
        let cells = self.cells.len() as u64;
        usize::try_from((u64::from(hash) * cells) >> 32).unwrap_or(0)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.cells.len() - 1)
    }

    fn enter(&mut self, cell: Cell) {
        let mut at = self.home(cell.hash);
        while !self.cells[at].is_empty() {
            at = self.after(at);
        }
        self.cells[at] = cell;
    }

    /// Empties a cell and moves those behind it up, so that no search ends before what it looks for.
    fn close_gap(&mut self, gap: usize) {
        let mask = self.cells.len() - 1;
        let (mut gap, mut at) = (gap, self.after(gap));
        while !self.cells[at].is_empty() {
            let from_home = at.wrapping_sub(self.home(self.cells[at].hash)) & mask;
            if from_home >= at.wrapping_sub(gap) & mask {
                self.cells[gap] = self.cells[at];
                gap = at;
            }
            at = self.after(at);
        }
        self.cells[gap] = Cell::EMPTY;
    }

    fn grow(&mut self) {
        let cells = (self.cells.len() * 2).max(CELLS_MIN);
        let before = std::mem::replace(&mut self.cells, vec![Cell::EMPTY; cells]);
        for cell in before.into_iter().filter(|cell| !cell.is_empty()) {
            self.enter(cell);
        }
    }
}

/// An odd number without pattern: multiplying by it carries every bit into the upper ones.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

fn upper_half(word: u64) -> u32 {
    (word >> 32) as u32
}

impl Key for AppId {
    fn hash(self) -> u32 {
        upper_half(u64::from(self.0).wrapping_mul(SPREAD))
    }
}

impl Key for RunnerId {
    fn hash(self) -> u32 {
        let word = u64::from(self.boot) << 32 | u64::from(self.sequence);
        upper_half(word.wrapping_mul(SPREAD))
    }
}

impl Key for RequestId {
    fn hash(self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "each half is meant")]
        let (high, low) = ((self.0 >> 64) as u64, self.0 as u64);
        // A UUID's random bits are in both halves.
        let word = low ^ high.wrapping_mul(SPREAD).rotate_left(32);
        upper_half(word.wrapping_mul(SPREAD))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A key that meets many others in its cell.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Crowded(u32);

    impl Key for Crowded {
        fn hash(self) -> u32 {
            // Few homes, the last cell among them, so that searches go round the end.
            (self.0 % 3).wrapping_sub(1) << 30
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert(u32),
        Remove(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0u32..40).prop_map(Step::Insert),
            2 => (0u32..40).prop_map(Step::Remove),
        ];
        proptest::collection::vec(step, 0..300)
    }

    fn as_an_ordered_map<K: Key + std::fmt::Debug>(key: impl Fn(u32) -> K, steps: &[Step]) {
        let mut table = Table::new();
        let mut map = BTreeMap::new();
        for (nth, step) in steps.iter().enumerate() {
            match *step {
                Step::Insert(id) => {
                    assert_eq!(table.insert(key(id), nth), map.insert(key(id), nth));
                }
                Step::Remove(id) => assert_eq!(table.remove(&key(id)), map.remove(&key(id))),
            }
            assert_eq!(table.len(), map.len());
        }
        for id in 0..40 {
            assert_eq!(table.get(&key(id)), map.get(&key(id)));
            assert_eq!(table.contains_key(&key(id)), map.contains_key(&key(id)));
            assert_eq!(table.get_mut(&key(id)), map.get_mut(&key(id)));
        }
        assert_eq!(table.sorted_keys(), map.keys().copied().collect::<Vec<K>>());
        let mut records: Vec<(K, usize)> = table.iter().map(|(key, at)| (key, *at)).collect();
        records.sort_unstable();
        assert_eq!(records, map.into_iter().collect::<Vec<(K, usize)>>());
    }

    proptest! {
        #[test]
        fn a_table_holds_what_an_ordered_map_holds(steps in steps()) {
            as_an_ordered_map(Crowded, &steps);
            as_an_ordered_map(AppId, &steps);
            as_an_ordered_map(|id| RunnerId { boot: id / 7, sequence: id }, &steps);
            as_an_ordered_map(|id| RequestId(u128::from(id) << 57), &steps);
        }
    }

    /// How far the keys lie from their homes on average: half a cell if nothing but chance is at
    /// work.
    fn average_search<K: Key>(keys: impl Iterator<Item = K>) -> f64 {
        let mut table = Table::new();
        for key in keys {
            table.insert(key, ());
        }
        let mask = table.cells.len() - 1;
        let taken = table.cells.iter().enumerate().filter(|(_, cell)| !cell.is_empty());
        let steps: usize =
            taken.map(|(at, cell)| at.wrapping_sub(table.home(cell.hash)) & mask).sum();
        f64::from(u32::try_from(steps).unwrap()) / f64::from(u32::try_from(table.len()).unwrap())
    }

    #[test]
    fn ids_as_they_are_given_out_do_not_crowd() {
        let count = 1 << 16;
        let check = |what, steps| assert!(steps < 5.0, "{what}: {steps} cells on average");
        check("dense apps", average_search((0..count).map(AppId)));
        check("far apart apps", average_search((0..count).map(|id| AppId(id << 16))));
        let runner = |id| RunnerId { boot: id % 8, sequence: id / 8 };
        check("runners", average_search((0..count).map(runner)));
        check("counted requests", average_search((0..count).map(|id| RequestId(id.into()))));
        let uuid = |id: u32| {
            let random = u128::from(id).wrapping_mul(0x5851_f42d_4c95_7f2d_1405_7b7e_f767_814f);
            RequestId((0x0192_f0a1_0000 + u128::from(id / 50)) << 80 | 7 << 76 | random >> 66)
        };
        check("UUIDs", average_search((0..count).map(uuid)));
    }
}
