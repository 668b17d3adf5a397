//! Who is called next: one line for each host, and the lines take turns.
//!
//! ```text
//! places   ├──────────────────────────────────────────────────────────────┤
//! quick    ├─────────────────────────── all ──────────────────────────────┤
//! unknown  ├───────────────── three quarters ──────────────┤
//! slow     ├─── a quarter ──┤
//! ```
//!
//! So a host that does not answer, however many calls wait for it, keeps only its share of the places. And
//! however many hosts there are that do not answer, a quarter of the places is for those that do.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use glowplug_core::{RequestId, Timestamp};
use glowplug_store::Delivery;

use super::standing::{ByStanding, Known, Standing};

/// Bytes of all that waits together, and of what waits for one host. What is beyond is left to its lease:
/// the store gives it out again.
pub(super) const HELD_BYTES_MAX: usize = 32 << 20;
const LINE_BYTES_MAX: usize = HELD_BYTES_MAX / 2;
/// Above this nothing more is taken from the store.
const FULL_BYTES: usize = HELD_BYTES_MAX / 32 * 31;
/// Of a delivery besides its text.
const DELIVERY_BYTES: usize = 256;

/// A delivery that this node was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub delivery: Delivery,
    pub host: String,
    /// From then on it may be given to another node.
    pub until: Timestamp,
}

impl Waiting {
    fn bytes(&self) -> usize {
        DELIVERY_BYTES + self.delivery.url.len() + self.delivery.caller.len() + self.host.len()
    }
}

#[derive(Debug)]
struct Line {
    /// Kept here too, since a host with calls under way must not be forgotten.
    standing: Standing,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    in_flight: usize,
    /// The number of its turn, if it is among those that may be next.
    turn: Option<u64>,
}

impl Line {
    fn new(standing: Standing) -> Self {
        Self { standing, waiting: VecDeque::new(), bytes: 0, in_flight: 0, turn: None }
    }
}

#[derive(Debug)]
pub(super) struct Lines {
    by_host: HashMap<String, Line>,
    /// Hosts with somebody waiting and a free place of their own, by the numbers of their turns.
    turns: ByStanding<BTreeMap<u64, String>>,
    turns_given: u64,
    known: Known,
    /// Whatever is waiting or under way, with when it may be given to another node.
    held: HashMap<RequestId, Timestamp>,
    bytes: usize,
    in_flight: ByStanding<usize>,
    concurrency_max: usize,
    per_host_max: usize,
}

impl Lines {
    pub(super) fn new(concurrency_max: usize, per_host_max: usize) -> Self {
        Self {
            by_host: HashMap::new(),
            turns: ByStanding::default(),
            turns_given: 0,
            known: Known::default(),
            held: HashMap::new(),
            bytes: 0,
            in_flight: ByStanding::default(),
            concurrency_max,
            per_host_max,
        }
    }

    /// There is hardly room for more, whatever its host.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > FULL_BYTES
    }

    /// Puts a delivery in line, or notes that one which is there already was given to this node again.
    pub(super) fn push(&mut self, waiting: Waiting) {
        if let Some(until) = self.held.get_mut(&waiting.delivery.request) {
            *until = waiting.until;
            return;
        }
        let bytes = waiting.bytes();
        let line_bytes = self.by_host.get(&waiting.host).map_or(0, |line| line.bytes);
        if self.bytes + bytes > HELD_BYTES_MAX || line_bytes + bytes > LINE_BYTES_MAX {
            return;
        }
        self.held.insert(waiting.delivery.request, waiting.until);
        self.bytes += bytes;
        let host = waiting.host.clone();
        let known = self.known.of(&host);
        let line = self.by_host.entry(host.clone()).or_insert_with(|| Line::new(known));
        line.bytes += bytes;
        line.waiting.push_back(waiting);
        self.list(host);
    }

    /// The next to be called, if there is a place for it. Left out is what may be with
    /// another node before a call has ended.
    pub(super) fn next(&mut self, calls_end_by: Timestamp) -> Option<Waiting> {
        while let Some(standing) = self.whose_turn() {
            let (_, host) = self.turns.of_mut(standing).pop_first()?;
            let line = self.by_host.get_mut(&host)?;
            line.turn = None;
            let waiting = line.waiting.pop_front()?;
            line.bytes -= waiting.bytes();
            self.bytes -= waiting.bytes();
            let request = waiting.delivery.request;
            let usable = self.held.get(&request).is_some_and(|until| *until > calls_end_by);
            if usable {
                line.in_flight += 1;
                *self.in_flight.of_mut(standing) += 1;
            } else {
                self.held.remove(&request);
            }
            self.list(host);
            if usable {
                return Some(waiting);
            }
        }
        None
    }

    /// Among the standings for which there is a place, the one whose first host has waited longest.
    fn whose_turn(&self) -> Option<Standing> {
        let first = |standing: Standing| self.turns.of(standing).first_key_value();
        let able = Standing::ALL.into_iter().filter(|standing| self.has_place(*standing));
        able.filter_map(|standing| Some((first(standing)?.0, standing)))
            .min_by_key(|(number, _)| *number)
            .map(|(_, standing)| standing)
    }

    fn has_place(&self, standing: Standing) -> bool {
        let [quick, unknown, slow] = Standing::ALL.map(|standing| *self.in_flight.of(standing));
        let quarter = self.concurrency_max / 4;
        let all = quick + unknown + slow < self.concurrency_max;
        match standing {
            Standing::Quick => all,
            Standing::Unknown => all && unknown + slow < self.concurrency_max - quarter,
            Standing::Slow => all && slow < quarter.max(1),
        }
    }

    /// A call is over. `took`: how long it held its place; `None` if it was not made.
    pub(super) fn done(&mut self, waiting: &Waiting, took: Option<Duration>) {
        self.held.remove(&waiting.delivery.request);
        let Some(line) = self.by_host.get_mut(&waiting.host) else { return };
        let before = line.standing;
        let under_way = line.in_flight;
        line.in_flight -= 1;
        if let Some(took) = took {
            line.standing = Standing::after(took);
            self.known.note(&waiting.host, line.standing);
        }
        // Its calls that are still under way count as what it is known for now, and so does its turn.
        *self.in_flight.of_mut(before) -= under_way;
        *self.in_flight.of_mut(line.standing) += line.in_flight;
        if before != line.standing
            && let Some(number) = line.turn.take()
            && let Some(host) = self.turns.of_mut(before).remove(&number)
            && line.in_flight < places_max(self.per_host_max, line.standing)
        {
            line.turn = Some(number);
            self.turns.of_mut(line.standing).insert(number, host);
        }
        self.list(waiting.host.clone());
    }

    /// Gives a host its turn, the last, if it has use for one; forgets it if there is nothing of it left.
    fn list(&mut self, host: String) {
        let Some(line) = self.by_host.get_mut(&host) else { return };
        let places_max = places_max(self.per_host_max, line.standing);
        if line.waiting.is_empty() {
            if line.in_flight == 0 {
                self.by_host.remove(&host);
            }
        } else if line.turn.is_none() && line.in_flight < places_max {
            self.turns_given += 1;
            line.turn = Some(self.turns_given);
            self.turns.of_mut(line.standing).insert(self.turns_given, host);
        }
    }
}

/// Places of one host.
fn places_max(per_host_max: usize, standing: Standing) -> usize {
    match standing {
        Standing::Quick | Standing::Unknown => per_host_max,
        Standing::Slow => (per_host_max / 4).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::super::standing;
    use super::*;

    const LATER: Timestamp = Timestamp::from_secs(1_000);
    const QUICK: Option<Duration> = Some(Duration::from_millis(1));
    const SLOW: Option<Duration> = Some(standing::SLOW);

    fn waiting(host: &str, number: u128, until: Timestamp) -> Waiting {
        let delivery = Delivery {
            request: RequestId(number),
            url: format!("http://{host}/"),
            caller: String::new(),
            completed_at: Timestamp::ZERO,
            attempts: 0,
        };
        Waiting { delivery, host: host.to_owned(), until }
    }

    fn next(lines: &mut Lines) -> Option<(String, u128)> {
        lines.next(Timestamp::ZERO).map(|next| (next.host, next.delivery.request.0))
    }

    #[test]
    fn hosts_take_turns_and_none_takes_all_places() {
        let mut lines = Lines::new(7, 2);
        for number in 0..10_000 {
            lines.push(waiting("dead", number, LATER));
        }
        lines.push(waiting("a", 20_000, LATER));
        lines.push(waiting("a", 20_001, LATER));
        lines.push(waiting("b", 30_000, LATER));
        let order: Vec<_> = std::iter::from_fn(|| next(&mut lines)).collect();
        let expected = [("dead", 0), ("a", 20_000), ("b", 30_000), ("dead", 1), ("a", 20_001)];
        assert_eq!(order, expected.map(|(host, number)| (host.to_owned(), number)));
        lines.done(&waiting("a", 20_000, LATER), QUICK);
        assert_eq!(next(&mut lines), None, "`dead` has its two places");
        lines.push(waiting("c", 40_000, LATER));
        assert_eq!(next(&mut lines), Some(("c".to_owned(), 40_000)));
        lines.done(&waiting("dead", 0, LATER), QUICK);
        assert_eq!(next(&mut lines), Some(("dead".to_owned(), 2)));
    }

    /// How many get a place of those that were put in line, by the beginning of their host's name.
    fn placed(lines: &mut Lines, name: &str) -> usize {
        std::iter::from_fn(|| next(lines)).filter(|(host, _)| host.starts_with(name)).count()
    }

    #[test]
    fn hosts_that_hang_leave_places_to_others_however_many_they_are() {
        let mut lines = Lines::new(64, 8);
        let known = |lines: &mut Lines, host: &str, took| {
            lines.push(waiting(host, 1, LATER));
            next(lines).unwrap();
            lines.done(&waiting(host, 1, LATER), took);
        };
        for host in 0..20 {
            known(&mut lines, &format!("hangs{host}"), SLOW);
        }
        known(&mut lines, "good", QUICK);
        for number in 0..20 * 100 {
            lines.push(waiting(&format!("hangs{}", number % 20), 100 + number, LATER));
        }
        assert_eq!(placed(&mut lines, "hangs"), 16, "a quarter of all");
        assert_eq!(lines.by_host["hangs0"].in_flight, 1, "they take turns");
        // Somebody makes up names that all lead to what hangs.
        for number in 0..1_000 {
            lines.push(waiting(&format!("new{number}"), 10_000 + number, LATER));
        }
        assert_eq!(placed(&mut lines, "new"), 32, "together three quarters of all");
        for number in 0..100 {
            lines.push(waiting("good", 20_000 + number, LATER));
        }
        assert_eq!(placed(&mut lines, "good"), 8, "all that one host may have");
        assert_eq!(lines.in_flight, ByStanding([8, 32, 16]));
        // One that hung answers again.
        lines.done(&waiting("hangs0", 100, LATER), QUICK);
        assert_eq!(next(&mut lines).unwrap().0, "hangs16", "its place is for the next that hangs");
        assert_eq!(placed(&mut lines, "hangs0"), 8, "and it has places like any that answers");
    }

    #[test]
    fn what_is_learnt_of_a_host_counts_for_its_calls_under_way() {
        let mut lines = Lines::new(64, 8);
        for number in 0..20 {
            lines.push(waiting("a", number, LATER));
        }
        assert_eq!((placed(&mut lines, "a"), lines.in_flight), (8, ByStanding([0, 8, 0])));
        lines.done(&waiting("a", 0, LATER), SLOW);
        assert_eq!((next(&mut lines), lines.in_flight), (None, ByStanding([0, 0, 7])));
        for number in 1..6 {
            lines.done(&waiting("a", number, LATER), None);
            assert_eq!(next(&mut lines), None, "two of a slow host's are under way");
        }
        lines.done(&waiting("a", 6, LATER), SLOW);
        assert_eq!(next(&mut lines), Some(("a".to_owned(), 8)));
        lines.done(&waiting("a", 7, LATER), QUICK);
        assert_eq!((placed(&mut lines, "a"), lines.in_flight), (7, ByStanding([8, 0, 0])));
    }

    #[test]
    fn what_another_node_may_have_is_left_out() {
        let mut lines = Lines::new(9, 9);
        lines.push(waiting("a", 1, Timestamp::from_secs(10)));
        lines.push(waiting("a", 2, Timestamp::from_secs(30)));
        lines.push(waiting("a", 3, Timestamp::from_secs(10)));
        // This node was given the third again.
        lines.push(waiting("a", 3, Timestamp::from_secs(40)));
        let calls_end_by = Timestamp::from_secs(20);
        let mut taken = || lines.next(calls_end_by).map(|waiting| waiting.delivery.request.0);
        assert_eq!((taken(), taken(), taken()), (Some(2), Some(3), None));
        lines.push(waiting("a", 1, Timestamp::from_secs(50)));
        let next = lines.next(calls_end_by).map(|waiting| waiting.delivery.request.0);
        assert_eq!(next, Some(1), "what was left out can be given out again");
    }

    #[test]
    fn what_is_under_way_is_not_taken_twice() {
        let mut lines = Lines::new(9, 9);
        lines.push(waiting("a", 1, LATER));
        assert!(next(&mut lines).is_some());
        lines.push(waiting("a", 1, LATER));
        assert_eq!(next(&mut lines), None);
        lines.done(&waiting("a", 1, LATER), QUICK);
        assert!(lines.by_host.is_empty() && lines.held.is_empty());
        assert!(Standing::ALL.iter().all(|standing| lines.turns.of(*standing).is_empty()));
        assert_eq!((lines.bytes, lines.in_flight), (0, ByStanding::default()));
    }

    #[test]
    fn what_is_held_has_a_limit_and_one_host_does_not_fill_it() {
        let mut lines = Lines::new(1, 1);
        let mut number = 0;
        let mut fill = |lines: &mut Lines, host: &str| {
            let before = lines.held.len();
            for _ in 0..HELD_BYTES_MAX / DELIVERY_BYTES {
                number += 1;
                lines.push(waiting(host, number, LATER));
            }
            lines.held.len() - before
        };
        assert!(fill(&mut lines, "dead") > 50_000);
        assert!(lines.bytes <= LINE_BYTES_MAX && !lines.is_full());
        assert!(fill(&mut lines, "other") > 50_000);
        assert!(fill(&mut lines, "third") < 2);
        assert!(lines.bytes <= HELD_BYTES_MAX && lines.is_full());
    }
}
