//! Who is called next: one line for each host, and the lines take turns.
//!
//! So a host that does not answer, however many calls wait for it, keeps only its share of the places.

use std::collections::{HashMap, VecDeque};

use glowplug_core::{RequestId, Timestamp};
use glowplug_store::Delivery;

/// Bytes of all that waits together, and of what waits for one host. What is beyond is left to its lease:
/// the store gives it out again.
pub(super) const HELD_BYTES_MAX: usize = 32 << 20;
const LINE_BYTES_MAX: usize = HELD_BYTES_MAX / 2;
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

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    in_flight: usize,
    /// It is among those that may be next.
    listed: bool,
}

#[derive(Debug)]
pub(super) struct Lines {
    by_host: HashMap<String, Line>,
    /// Hosts with somebody waiting and a free place, in the order of their turns.
    turns: VecDeque<String>,
    /// Whatever is waiting or under way, with when it may be given to another node.
    held: HashMap<RequestId, Timestamp>,
    bytes: usize,
    in_flight: usize,
    concurrency_max: usize,
    per_host_max: usize,
}

impl Lines {
    pub(super) fn new(concurrency_max: usize, per_host_max: usize) -> Self {
        Self {
            by_host: HashMap::new(),
            turns: VecDeque::new(),
            held: HashMap::new(),
            bytes: 0,
            in_flight: 0,
            concurrency_max,
            per_host_max,
        }
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
        let line = self.by_host.entry(host.clone()).or_default();
        line.bytes += bytes;
        line.waiting.push_back(waiting);
        self.list(host);
    }

    /// The next to be called, if there is a place for it. Left out is what may be with
    /// another node before a call has ended.
    pub(super) fn next(&mut self, calls_end_by: Timestamp) -> Option<Waiting> {
        while self.in_flight < self.concurrency_max {
            let host = self.turns.pop_front()?;
            let line = self.by_host.get_mut(&host)?;
            line.listed = false;
            let found = line.waiting.pop_front();
            if let Some(waiting) = &found {
                line.bytes -= waiting.bytes();
                self.bytes -= waiting.bytes();
                let request = waiting.delivery.request;
                let usable = self.held.get(&request).is_some_and(|until| *until > calls_end_by);
                if usable {
                    line.in_flight += 1;
                    self.in_flight += 1;
                    self.list(host);
                    return found;
                }
                self.held.remove(&request);
            }
            self.list(host);
        }
        None
    }

    /// A call is over.
    pub(super) fn done(&mut self, waiting: &Waiting) {
        self.held.remove(&waiting.delivery.request);
        self.in_flight -= 1;
        if let Some(line) = self.by_host.get_mut(&waiting.host) {
            line.in_flight -= 1;
        }
        self.list(waiting.host.clone());
    }

    /// Gives a host its turn, the last, if it has use for one; forgets it if there is nothing of it left.
    fn list(&mut self, host: String) {
        let Some(line) = self.by_host.get_mut(&host) else { return };
        if line.waiting.is_empty() {
            if line.in_flight == 0 && !line.listed {
                self.by_host.remove(&host);
            }
        } else if !line.listed && line.in_flight < self.per_host_max {
            line.listed = true;
            self.turns.push_back(host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Timestamp = Timestamp::from_secs(1_000);

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
        let mut lines = Lines::new(5, 2);
        for number in 0..10_000 {
            lines.push(waiting("dead", number, LATER));
        }
        lines.push(waiting("a", 20_000, LATER));
        lines.push(waiting("a", 20_001, LATER));
        lines.push(waiting("b", 30_000, LATER));
        let order: Vec<_> = std::iter::from_fn(|| next(&mut lines)).collect();
        let expected = [("dead", 0), ("a", 20_000), ("b", 30_000), ("dead", 1), ("a", 20_001)];
        assert_eq!(order, expected.map(|(host, number)| (host.to_owned(), number)));
        lines.done(&waiting("a", 20_000, LATER));
        assert_eq!(next(&mut lines), None, "`dead` has its two places");
        lines.push(waiting("c", 40_000, LATER));
        assert_eq!(next(&mut lines), Some(("c".to_owned(), 40_000)));
        lines.done(&waiting("dead", 0, LATER));
        assert_eq!(next(&mut lines), Some(("dead".to_owned(), 2)));
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
        lines.done(&waiting("a", 1, LATER));
        assert!(lines.by_host.is_empty() && lines.held.is_empty() && lines.turns.is_empty());
        assert_eq!((lines.bytes, lines.in_flight), (0, 0));
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
        assert!(lines.bytes <= LINE_BYTES_MAX);
        assert!(fill(&mut lines, "other") > 50_000);
        assert!(fill(&mut lines, "third") < 2);
        assert!(lines.bytes <= HELD_BYTES_MAX);
    }
}
