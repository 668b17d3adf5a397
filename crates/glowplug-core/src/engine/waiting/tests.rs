use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const ALICE: CallerId = CallerId(1);
const BOB: CallerId = CallerId(2);

/// A queue whose requests are numbered as they come.
#[derive(Default)]
struct Queue {
    waiting: Waiting,
    sequence: u64,
    /// What was given out, by number.
    places: BTreeMap<u64, (Priority, Place)>,
}

impl Queue {
    fn come(&mut self, priority: Priority, caller: CallerId) -> u64 {
        self.sequence += 1;
        let place = Place {
            round: self.waiting.next_round(priority, caller),
            sequence: self.sequence,
            caller,
            arrived: Timestamp::from_secs(self.sequence),
            request: RequestId(u128::from(self.sequence)),
        };
        self.places.insert(self.sequence, (priority, place));
        self.waiting.insert(priority, place);
        self.sequence
    }

    fn come_many(&mut self, priority: Priority, caller: CallerId, count: u64) {
        for _ in 0..count {
            self.come(priority, caller);
        }
    }

    fn come_back(&mut self, sequence: u64) {
        let (priority, place) = self.places[&sequence];
        self.waiting.insert(priority, place);
    }

    fn leave(&mut self, sequence: u64) -> bool {
        let (priority, place) = self.places[&sequence];
        self.waiting.remove(priority, &place)
    }

    fn position(&self, sequence: u64) -> usize {
        let (priority, place) = self.places[&sequence];
        self.waiting.position(priority, &place)
    }

    fn pop(&mut self) -> Option<u64> {
        self.waiting.pop().map(|place| place.sequence)
    }

    fn rest(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.pop()).collect()
    }
}

#[test]
fn normal_before_low_and_first_come_first() {
    let mut line = Queue::default();
    line.come_many(Priority::Low, ALICE, 3);
    line.come_many(Priority::Normal, ALICE, 3);
    assert!(line.leave(5));
    assert_eq!(line.position(6), 1);
    // Comes back after a failed attempt.
    line.come_back(5);
    assert_eq!((line.position(5), line.position(1)), (1, 3));
    assert!(line.leave(2));
    assert!(!line.leave(2));
    assert_eq!(line.rest(), [4, 5, 6, 1, 3]);
}

#[test]
fn callers_take_turns() {
    let mut line = Queue::default();
    line.come_many(Priority::Normal, ALICE, 5);
    line.come_many(Priority::Normal, BOB, 2);
    assert_eq!(line.rest(), [1, 6, 2, 7, 3, 4, 5]);
}

#[test]
fn who_comes_again_and_again_keeps_nobody_out() {
    let mut line = Queue::default();
    line.come_many(Priority::Normal, ALICE, 10);
    let mut served = Vec::new();
    for _ in 0..10 {
        let bobs = line.come(Priority::Normal, BOB);
        while served.last() != Some(&bobs) {
            served.push(line.pop().unwrap());
        }
    }
    // One of Alice's before each of Bob's.
    let alices: Vec<u64> = served.iter().copied().step_by(2).collect();
    assert_eq!(alices, (1..=10).collect::<Vec<u64>>());
}

#[test]
fn what_is_tried_again_returns_to_its_place() {
    let mut line = Queue::default();
    line.come_many(Priority::Normal, ALICE, 3);
    line.come_many(Priority::Normal, BOB, 3);
    assert_eq!([line.pop(), line.pop(), line.pop()], [Some(1), Some(4), Some(2)]);
    line.come_back(4);
    assert_eq!(line.position(4), 0);
    assert_eq!(line.rest(), [4, 5, 3, 6]);
}

#[test]
fn a_low_request_gets_its_turn_under_endless_normal_load() {
    let mut line = Queue::default();
    line.come_many(Priority::Normal, ALICE, 1);
    let lows = [line.come(Priority::Low, ALICE), line.come(Priority::Low, BOB)];
    let mut turns = Vec::new();
    for nth in 0..3 * PASSED_OVER_MAX {
        line.come(Priority::Normal, CallerId(u64::try_from(nth % 7).unwrap()));
        if let Some(served) = line.pop().filter(|served| lows.contains(served)) {
            turns.push((nth, served));
        }
    }
    assert_eq!(turns, [(PASSED_OVER_MAX, lows[0]), (2 * PASSED_OVER_MAX + 1, lows[1])]);
}

#[test]
fn requests_ripen() {
    let mut line = Queue::default();
    for (priority, caller) in
        [(Priority::Normal, ALICE), (Priority::Low, BOB), (Priority::Normal, BOB)]
    {
        line.come(priority, caller);
    }
    let delay = Duration::from_secs(5);
    let at = Timestamp::from_secs;
    let ripe = |line: &Queue, now| line.waiting.ripe(at(now), delay);
    assert_eq!(ripe(&line, 5), (0, Some(at(6))));
    assert_eq!(ripe(&line, 6), (1, Some(at(7))));
    assert_eq!(ripe(&line, 8), (3, None));
    assert_eq!(line.waiting.ripe(at(1), Duration::ZERO), (3, None));
    line.leave(1);
    assert_eq!(ripe(&line, 7), (1, Some(at(8))));
}

#[test]
fn nothing_is_kept_of_who_has_nothing_waiting() {
    let mut line = Queue::default();
    for caller in 0..1_000 {
        line.come(Priority::Normal, CallerId(caller));
        line.come(Priority::Low, CallerId(caller));
    }
    assert_eq!(line.waiting.normal.rounds.len(), 1_000);
    line.rest();
    assert!(line.waiting.normal.rounds.is_empty() && line.waiting.low.rounds.is_empty());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Come { caller: u64, low: bool, count: u64 },
    Pop { count: usize },
    Leave { pick: usize },
    ComeBack { pick: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u64..5, any::<bool>(), 1u64..40)
            .prop_map(|(caller, low, count)| Step::Come { caller, low, count }),
        3 => (1usize..60).prop_map(|count| Step::Pop { count }),
        1 => any::<usize>().prop_map(|pick| Step::Leave { pick }),
        1 => any::<usize>().prop_map(|pick| Step::ComeBack { pick }),
    ];
    proptest::collection::vec(step, 0..60)
}

/// The same order, from a list that is looked through each time.
#[derive(Default)]
struct Model {
    waiting: Vec<(Priority, Place)>,
    served_round: BTreeMap<Priority, u64>,
    passed_over: usize,
}

impl Model {
    fn round(&self, priority: Priority, caller: CallerId) -> u64 {
        let own = self.waiting.iter().filter(|(p, place)| *p == priority && place.caller == caller);
        let served = self.served_round.get(&priority).copied().unwrap_or(0);
        own.map(|(_, place)| place.round).chain([served]).max().unwrap_or(0) + 1
    }

    fn first(&self, priority: Priority) -> Option<Place> {
        let lane = self.waiting.iter().filter(|(p, _)| *p == priority);
        lane.map(|(_, place)| *place).min_by_key(|place| (place.round, place.sequence))
    }

    fn pop(&mut self) -> Option<Place> {
        let (normal, low) = (self.first(Priority::Normal), self.first(Priority::Low));
        let (priority, place) = match (normal, low) {
            (None, None) => return None,
            (Some(_), Some(low)) if self.passed_over >= PASSED_OVER_MAX => (Priority::Low, low),
            (None, Some(low)) => (Priority::Low, low),
            (Some(normal), _) => (Priority::Normal, normal),
        };
        let is_passed_over = priority == Priority::Normal && low.is_some();
        self.passed_over = if is_passed_over { self.passed_over + 1 } else { 0 };
        let round = self.served_round.entry(priority).or_default();
        *round = place.round.max(*round);
        self.waiting.retain(|(_, other)| other.sequence != place.sequence);
        Some(place)
    }
}

proptest! {
    #[test]
    fn the_order_is_that_of_a_simple_model(steps in steps()) {
        let (mut line, mut model) = (Queue::default(), Model::default());
        let mut served = Vec::new();
        for step in steps {
            match step {
                Step::Come { caller, low, count } => {
                    let priority = if low { Priority::Low } else { Priority::Normal };
                    for _ in 0..count {
                        let round = model.round(priority, CallerId(caller));
                        let sequence = line.come(priority, CallerId(caller));
                        let (_, place) = line.places[&sequence];
                        prop_assert_eq!(place.round, round);
                        model.waiting.push((priority, place));
                    }
                }
                Step::Pop { count } => {
                    for _ in 0..count {
                        let place = line.waiting.pop();
                        prop_assert_eq!(place, model.pop());
                        served.extend(place.map(|place| place.sequence));
                    }
                }
                Step::Leave { pick } if !model.waiting.is_empty() => {
                    let (_, place) = model.waiting.swap_remove(pick % model.waiting.len());
                    prop_assert!(line.leave(place.sequence));
                }
                Step::ComeBack { pick } if !served.is_empty() => {
                    let sequence = served.swap_remove(pick % served.len());
                    line.come_back(sequence);
                    model.waiting.push(line.places[&sequence]);
                }
                Step::Leave { .. } | Step::ComeBack { .. } => {}
            }
            prop_assert_eq!(line.waiting.len(), model.waiting.len());
        }
        let order: Vec<RequestId> = line.waiting.requests().collect();
        for (at, request) in order.iter().enumerate() {
            let sequence = u64::try_from(request.0).unwrap();
            prop_assert_eq!(line.position(sequence), at, "{} of {:?}", sequence, &order);
        }
        let popped: Vec<RequestId> =
            std::iter::from_fn(|| line.waiting.pop()).map(|place| place.request).collect();
        prop_assert_eq!(popped, order);
    }

    /// Whoever always has something waiting gets as much as anybody else who has, but for two; and who
    /// comes with nothing waiting is served before anybody else is served three times.
    #[test]
    fn callers_get_equal_shares(
        backlogs in proptest::collection::vec(1u64..60, 2..6),
        newcomers in proptest::collection::vec(1usize..50, 0..5),
        pops in 1usize..150,
    ) {
        let mut line = Queue::default();
        for (caller, count) in (0..).zip(&backlogs) {
            line.come_many(Priority::Normal, CallerId(caller), *count);
        }
        let (mut shares, mut left) = (vec![0u64; backlogs.len()], backlogs.clone());
        let mut newcomer = None;
        for nth in 0..pops {
            if newcomer.is_none() && newcomers.contains(&nth) {
                newcomer = Some((line.come(Priority::Normal, CallerId(99)), shares.clone()));
            }
            let Some(served) = line.pop() else { break };
            let caller = line.places[&served].1.caller.0;
            if let Some((_, before)) = newcomer.take_if(|(request, _)| *request == served) {
                for (now, then) in shares.iter().zip(&before) {
                    prop_assert!(now - then <= 2, "{shares:?} {before:?}");
                }
            }
            let Ok(caller) = usize::try_from(caller) else { continue };
            if caller < shares.len() {
                shares[caller] += 1;
                left[caller] -= 1;
            }
            let backlogged = || (0..shares.len()).filter(|caller| left[*caller] > 0);
            let most = backlogged().map(|caller| shares[caller]).max().unwrap_or(0);
            let least = backlogged().map(|caller| shares[caller]).min().unwrap_or(0);
            prop_assert!(most - least <= 2, "{shares:?} {left:?}");
        }
    }
}
