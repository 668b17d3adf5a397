//! The ready runners of one app that have a free place.

use std::collections::VecDeque;

use crate::ids::RunnerId;
use crate::time::Timestamp;

/// A runner's place among them, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seat {
    pub in_flight: u32,
    pub last_used: Timestamp,
    pub runner: RunnerId,
}

/// The most loaded runner is last, and among equals the one used last: it is taken first, so that load stays
/// on few runners and the others can expire. Idle runners are in front, longest idle first.
///
/// Kept sorted in one stretch of memory. Nearly all changes are at its end, or move a seat by a few: a
/// runner that takes a request is the last seat and stays so, and one that rests is the idle one used last.
#[derive(Debug, Default)]
pub(super) struct Free(VecDeque<Seat>);

impl Free {
    /// Who takes the next request.
    pub(super) fn first_choice(&self) -> Option<RunnerId> {
        self.0.back().map(|seat| seat.runner)
    }

    /// Idle runners, longest idle first.
    pub(super) fn idle(&self) -> impl Iterator<Item = &Seat> {
        self.0.iter().take_while(|seat| seat.in_flight == 0)
    }

    /// All of them, who takes the next request first.
    pub(super) fn choices(&self) -> impl Iterator<Item = RunnerId> {
        self.0.iter().rev().map(|seat| seat.runner)
    }

    pub(super) fn insert(&mut self, seat: Seat) {
        if self.0.back().is_none_or(|last| *last < seat) {
            self.0.push_back(seat);
        } else if let Err(at) = self.0.binary_search(&seat) {
            self.0.insert(at, seat);
        }
    }

    pub(super) fn remove(&mut self, seat: Seat) {
        if self.0.back() == Some(&seat) {
            self.0.pop_back();
        } else if let Ok(at) = self.0.binary_search(&seat) {
            self.0.remove(at);
        }
    }

    /// Moves a runner from one seat to another.
    pub(super) fn shift(&mut self, from: Seat, to: Seat) {
        if self.0.back() == Some(&from) {
            self.0.pop_back();
            return self.insert(to);
        }
        let Ok(at) = self.0.binary_search(&from) else { return self.insert(to) };
        // What lies between moves by one; that is less than all that lies behind.
        let end = self.0.partition_point(|seat| *seat < to);
        let seats = self.0.make_contiguous();
        if end > at {
            seats[at..end].rotate_left(1);
            seats[end - 1] = to;
        } else {
            seats[end..=at].rotate_right(1);
            seats[end] = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert(Seat),
        Remove(usize),
        Shift(usize, Seat),
        RemoveNobody(Seat),
    }

    fn seat() -> impl Strategy<Value = Seat> {
        (0u32..4, 0u64..6, 0u32..6).prop_map(|(in_flight, at, sequence)| Seat {
            in_flight,
            last_used: Timestamp::from_secs(at),
            runner: RunnerId { boot: 1, sequence },
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => seat().prop_map(Step::Insert),
            1 => any::<usize>().prop_map(Step::Remove),
            3 => (any::<usize>(), seat()).prop_map(|(pick, to)| Step::Shift(pick, to)),
            1 => seat().prop_map(Step::RemoveNobody),
        ]
    }

    fn chosen(set: &BTreeSet<Seat>, pick: usize) -> Option<Seat> {
        set.iter().nth(pick % set.len().max(1)).copied()
    }

    proptest! {
        #[test]
        fn seats_are_in_the_order_of_an_ordered_set(
            steps in proptest::collection::vec(step(), 0..200),
        ) {
            let mut free = Free::default();
            let mut set = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Insert(seat) => {
                        free.insert(seat);
                        set.insert(seat);
                    }
                    Step::Remove(pick) => {
                        if let Some(seat) = chosen(&set, pick) {
                            free.remove(seat);
                            set.remove(&seat);
                        }
                    }
                    Step::Shift(pick, to) => {
                        if let Some(from) = chosen(&set, pick).filter(|_| !set.contains(&to)) {
                            free.shift(from, to);
                            set.remove(&from);
                            set.insert(to);
                        }
                    }
                    Step::RemoveNobody(seat) => {
                        free.remove(seat);
                        set.remove(&seat);
                    }
                }
                prop_assert!(free.0.iter().eq(&set));
                prop_assert_eq!(free.first_choice(), set.last().map(|seat| seat.runner));
                let idle = set.iter().filter(|seat| seat.in_flight == 0);
                prop_assert!(free.idle().eq(idle));
            }
        }
    }
}
