//! A sorted list for long queues: entering, leaving and being counted take about as long with a hundred
//! thousand items as with a hundred.
//!
//! Items lie in order in pieces of at most [`PIECE_MAX`]. What comes or goes moves the items of one piece;
//! what is counted is counted by pieces.

use std::collections::VecDeque;

/// Items of one piece. More and each change moves more of them; fewer and there are more pieces to count.
const PIECE_MAX: usize = 512;

#[derive(Debug)]
pub(super) struct Ordered<T> {
    /// None of them is empty.
    pieces: VecDeque<VecDeque<T>>,
    len: usize,
}

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self { pieces: VecDeque::new(), len: 0 }
    }
}

impl<T: Ord + Copy> Ordered<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Enters an item that is not in the list yet.
    pub(super) fn insert(&mut self, item: T) {
        self.len += 1;
        let at = self.piece_of(&item).min(self.pieces.len().saturating_sub(1));
        let count = self.pieces.len();
        let Some(piece) = self.pieces.get_mut(at) else {
            return self.pieces.push_back(VecDeque::from([item]));
        };
        let is_last = at + 1 == count && piece.back().is_some_and(|last| *last < item);
        if piece.len() < PIECE_MAX {
            let within = if is_last { piece.len() } else { piece.partition_point(|x| *x < item) };
            piece.insert(within, item);
        } else if is_last {
            // What comes in order fills every piece.
            self.pieces.push_back(VecDeque::from([item]));
        } else {
            let mut upper = piece.split_off(PIECE_MAX / 2);
            let half = if upper.front().is_some_and(|first| *first < item) {
                &mut upper
            } else {
                &mut *piece
            };
            let within = half.partition_point(|x| *x < item);
            half.insert(within, item);
            self.pieces.insert(at + 1, upper);
        }
    }

    /// Takes an item out. Returns whether it was there.
    pub(super) fn remove(&mut self, item: &T) -> bool {
        let at = self.piece_of(item);
        let Some(piece) = self.pieces.get_mut(at) else { return false };
        let Ok(within) = piece.binary_search(item) else { return false };
        piece.remove(within);
        self.len -= 1;
        if piece.is_empty() {
            self.pieces.remove(at);
        }
        true
    }

    pub(super) fn pop_first(&mut self) -> Option<T> {
        let piece = self.pieces.front_mut()?;
        let item = piece.pop_front()?;
        self.len -= 1;
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        Some(item)
    }

    /// How many items are smaller than this one, which need not be in the list.
    pub(super) fn rank(&self, item: &T) -> usize {
        self.split(|other| other < item).0
    }

    /// How many items have a property that the smaller ones have and the greater ones have not, and the
    /// first of those that have not.
    pub(super) fn split(&self, has: impl Fn(&T) -> bool) -> (usize, Option<T>) {
        let full = self.pieces.partition_point(|piece| piece.back().is_some_and(&has));
        let before: usize = self.pieces.iter().take(full).map(VecDeque::len).sum();
        let Some(piece) = self.pieces.get(full) else { return (before, None) };
        let within = piece.partition_point(&has);
        (before + within, piece.get(within).copied())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }

    /// The first piece that ends with the item or behind it.
    fn piece_of(&self, item: &T) -> usize {
        self.pieces.partition_point(|piece| piece.back().is_some_and(|last| last < item))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// This many items in a row, so that pieces fill.
        Insert(u32, u32),
        Remove(u32, u32),
        Pop(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let run = || 1u32..700;
        prop_oneof![
            4 => (0u32..4_000, run()).prop_map(|(from, count)| Step::Insert(from, count)),
            2 => (0u32..4_000, run()).prop_map(|(from, count)| Step::Remove(from, count)),
            1 => run().prop_map(Step::Pop),
        ]
    }

    proptest! {
        #[test]
        fn it_holds_what_an_ordered_set_holds(
            steps in proptest::collection::vec(step(), 0..30),
            probes in proptest::collection::vec(0u32..5_000, 8),
        ) {
            let (mut list, mut set) = (Ordered::default(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Insert(from, count) => {
                        // Not in order, to fall between others.
                        for item in (from..from + count).map(|item| item * 7 % 4_999) {
                            if set.insert(item) {
                                list.insert(item);
                            }
                        }
                    }
                    Step::Remove(from, count) => {
                        for item in (from..from + count).map(|item| item * 7 % 4_999) {
                            prop_assert_eq!(list.remove(&item), set.remove(&item));
                        }
                    }
                    Step::Pop(count) => {
                        for _ in 0..count {
                            prop_assert_eq!(list.pop_first(), set.pop_first());
                        }
                    }
                }
                prop_assert_eq!(list.len(), set.len());
                prop_assert!(list.iter().eq(&set));
                prop_assert!(list.pieces.iter().all(|piece| (1..=PIECE_MAX).contains(&piece.len())));
                for probe in &probes {
                    let before = set.range(..probe).count();
                    prop_assert_eq!(list.rank(probe), before);
                    let next = set.range(probe..).next().copied();
                    prop_assert_eq!(list.split(|item| item < probe), (before, next));
                }
            }
        }
    }

    #[test]
    fn what_comes_in_order_fills_its_pieces() {
        let mut list = Ordered::default();
        for item in 0..PIECE_MAX * 10 {
            list.insert(item);
        }
        assert_eq!(list.pieces.len(), 10);
    }
}
