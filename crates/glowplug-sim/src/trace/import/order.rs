//! Rows in order of arrival.
//!
//! A log is written when requests end, and whole seconds hide who came first. So rows wait in a heap until
//! no earlier one can come: until the file is one window further. When more than [`WAITING_MAX`] wait,
//! the earliest go all the same, and only a row that should have gone before them is an error.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::super::error::{Error, Fault};
use super::apps::Apps;
use super::{LeftOut, Row, Rows};

/// Rows that wait for earlier ones: about 80 MiB of them.
const WAITING_MAX: usize = 1_000_000;

pub(super) struct InOrder<S> {
    rows: S,
    window: Duration,
    /// The earliest on top.
    waiting: BinaryHeap<Waiting>,
    waiting_max: usize,
    /// How far the file is.
    written: u64,
    /// When the row that went last had come.
    last: u64,
    over: bool,
}

struct Waiting(Row);

impl<S: Rows> InOrder<S> {
    pub(super) fn new(rows: S, window: Duration) -> Self {
        Self {
            rows,
            window,
            waiting: BinaryHeap::new(),
            waiting_max: WAITING_MAX,
            written: 0,
            last: 0,
            over: false,
        }
    }

    pub(super) fn apps(&self) -> &Apps {
        self.rows.apps()
    }

    pub(super) fn left_out(&self) -> LeftOut {
        self.rows.left_out()
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Row>, Error> {
        while !self.over && !self.earliest_may_go() {
            let Some(row) = self.rows.next_row()? else {
                self.over = true;
                break;
            };
            if row.at < self.last {
                let earlier = Duration::from_micros(self.last - row.at);
                return Err(Fault::Unsorted { earlier, window: self.window }.at(row.line));
            }
            self.written = self.written.max(row.written);
            self.waiting.push(Waiting(row));
        }
        let Some(Waiting(row)) = self.waiting.pop() else { return Ok(None) };
        self.last = row.at;
        Ok(Some(row))
    }

    fn earliest_may_go(&self) -> bool {
        let window = u64::try_from(self.window.as_micros()).unwrap_or(u64::MAX);
        let sure = self.written.saturating_sub(window);
        let earliest = self.waiting.peek();
        earliest.is_some_and(|row| row.0.at <= sure) || self.waiting.len() >= self.waiting_max
    }
}

impl Ord for Waiting {
    /// Of two that came at once, the first in the file goes first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.0.at, other.0.line).cmp(&(self.0.at, self.0.line))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

#[cfg(test)]
mod tests {
    use glowplug_core::request::Mode;

    use super::*;

    /// Rows by arrival and by the moment they were written, in seconds.
    struct Given {
        rows: Vec<(u64, u64)>,
        next: usize,
        apps: Apps,
    }

    impl Rows for Given {
        fn next_row(&mut self) -> Result<Option<Row>, Error> {
            let Some((at, written)) = self.rows.get(self.next) else { return Ok(None) };
            self.next += 1;
            Ok(Some(Row {
                line: self.next as u64,
                at: at * 1_000_000,
                written: written * 1_000_000,
                app: 0,
                mode: Mode::Direct,
                service: None,
                status: None,
            }))
        }

        fn apps(&self) -> &Apps {
            &self.apps
        }

        fn left_out(&self) -> LeftOut {
            LeftOut::default()
        }
    }

    /// The lines in the order in which they go, or what is wrong.
    fn order(rows: &[(u64, u64)], window: u64, waiting_max: usize) -> Result<Vec<u64>, String> {
        let given = Given { rows: rows.to_vec(), next: 0, apps: Apps::default() };
        let mut ordered = InOrder::new(given, Duration::from_secs(window));
        ordered.waiting_max = waiting_max;
        let mut lines = Vec::new();
        while let Some(row) = ordered.next_row().map_err(|error| error.to_string())? {
            lines.push(row.line);
        }
        Ok(lines)
    }

    #[test]
    fn rows_go_in_order_of_arrival() {
        let check = |rows: &[(u64, u64)], window, expected: &[u64]| {
            assert_eq!(order(rows, window, 100).unwrap(), expected);
        };
        check(&[(1, 1), (1, 1), (2, 2)], 0, &[1, 2, 3]);
        check(&[(2, 2), (1, 1), (3, 3)], 1, &[2, 1, 3]);
        // Written when they ended: the second came first.
        check(&[(9, 10), (1, 11), (10, 12)], 10, &[2, 1, 3]);
        check(&[], 10, &[]);
    }

    #[test]
    fn a_row_that_comes_too_late_is_an_error() {
        let problem = "line 3: it came 2.00 s before one that went ahead of it, and the reorder \
                       window is 1.00 s: sort the file by time, or raise `--reorder`";
        assert_eq!(order(&[(1, 1), (5, 5), (3, 3)], 1, 100).unwrap(), [1, 3, 2]);
        assert_eq!(order(&[(5, 5), (9, 9), (3, 3)], 1, 100).unwrap_err(), problem);
    }

    #[test]
    fn more_than_the_limit_do_not_wait() {
        let rows: Vec<(u64, u64)> = (0..100).map(|at| (at, at)).collect();
        let expected: Vec<u64> = (1..=100).collect();
        assert_eq!(order(&rows, 1_000, 3).unwrap(), expected);
        assert!(order(&[(5, 5), (6, 6), (7, 7), (1, 8)], 1_000, 3).is_err());
    }
}
