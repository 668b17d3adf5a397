//! Many runs in order of time become one.
//!
//! A request is written down when it is over, so one that took long lies in a later file than those that
//! came with it: files overlap. Each is in order of itself, and the one whose next record is the earliest
//! gives it. A run is opened when its time comes and dropped at its end, so that as few are open as overlap.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use glowplug_core::Timestamp;
use glowplug_sim::trace::{Error, Record};

use super::segment::at;

pub(super) type Records = Box<dyn Iterator<Item = Result<Record, Error>> + Send>;

pub(super) struct Run {
    /// No record of it is earlier.
    pub first: Timestamp,
    /// For messages.
    pub name: String,
    pub open: Box<dyn FnOnce() -> Result<Records, Error> + Send>,
}

pub(super) struct Merge {
    /// Not yet opened, the earliest first.
    waiting: VecDeque<Run>,
    open: BinaryHeap<Reverse<Head>>,
    opened: usize,
    /// Runs that ended early, and why.
    damaged: Vec<String>,
}

/// An open run, ordered by its next record.
struct Head {
    next: Record,
    /// Runs are equal in nothing else.
    order: usize,
    name: String,
    rest: Records,
}

impl Merge {
    pub(super) fn new(mut runs: Vec<Run>) -> Self {
        runs.sort_by_key(|run| run.first);
        let (open, damaged) = (BinaryHeap::new(), Vec::new());
        Self { waiting: runs.into(), open, opened: 0, damaged }
    }

    pub(super) fn damaged(self) -> Vec<String> {
        self.damaged
    }

    fn open_what_is_due(&mut self) {
        while let Some(run) = self.waiting.front() {
            let is_due = self.open.peek().is_none_or(|Reverse(head)| run.first <= at(&head.next));
            if !is_due {
                return;
            }
            let Some(run) = self.waiting.pop_front() else { return };
            self.opened += 1;
            match (run.open)() {
                Ok(records) => self.advance(self.opened, run.name, records),
                Err(error) => self.give_up(&run.name, &error),
            }
        }
    }

    fn advance(&mut self, order: usize, name: String, mut rest: Records) {
        match rest.next() {
            None => {}
            Some(Ok(next)) => self.open.push(Reverse(Head { next, order, name, rest })),
            Some(Err(error)) => self.give_up(&name, &error),
        }
    }

    /// What came of a run before it broke off is good.
    fn give_up(&mut self, name: &str, error: &Error) {
        self.damaged.push(format!("{name}: {error}"));
    }
}

impl Iterator for Merge {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        self.open_what_is_due();
        let Reverse(Head { next, order, name, rest }) = self.open.pop()?;
        self.advance(order, name, rest);
        Some(next)
    }
}

impl Head {
    fn key(&self) -> (Timestamp, usize) {
        (at(&self.next), self.order)
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use glowplug_sim::trace::Request;
    use proptest::prelude::*;

    use super::*;

    fn request(secs: u64, app: u32) -> Record {
        Record::Request(Request::new(Timestamp::from_secs(secs), app, None))
    }

    fn run(records: Vec<Result<Record, Error>>) -> Run {
        let first = records.first().and_then(|record| record.as_ref().ok()).map(at);
        Run {
            first: first.unwrap_or_default(),
            name: format!("a run of {}", records.len()),
            open: Box::new(move || Ok(Box::new(records.into_iter()) as Records)),
        }
    }

    proptest! {
        #[test]
        fn merged_runs_are_their_records_in_order(
            runs in proptest::collection::vec(proptest::collection::vec(0_u64..50, 0..20), 0..8)
        ) {
            let sorted = runs.into_iter().map(|mut secs| {
                secs.sort_unstable();
                secs
            });
            let runs: Vec<Vec<Record>> = (0..)
                .zip(sorted)
                .map(|(app, secs)| secs.into_iter().map(|secs| request(secs, app)).collect())
                .collect();
            let mut expected: Vec<Record> = runs.concat();
            expected.sort_by_key(at);
            let merge = Merge::new(
                runs.into_iter().map(|records| run(records.into_iter().map(Ok).collect())).collect(),
            );
            let merged: Vec<Record> = merge.collect();
            prop_assert!(merged.is_sorted_by_key(at));
            let key = |record: &Record| format!("{record:?}");
            let sort = |mut records: Vec<Record>| {
                records.sort_by_key(key);
                records
            };
            prop_assert_eq!(sort(merged), sort(expected));
        }
    }

    #[test]
    fn a_run_is_open_only_while_it_is_needed() {
        let alive = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let runs = (0..10).map(|nth| {
            let (alive, most) = (alive.clone(), most.clone());
            let guard = move || {
                let now = alive.fetch_add(1, Ordering::Relaxed) + 1;
                most.fetch_max(now, Ordering::Relaxed);
                Alive(alive)
            };
            let open = move || {
                let guard = guard();
                // The last one of each came before the first one of the next run.
                let secs = [nth * 10, nth * 10 + 5, nth * 10 + 10];
                Ok(Box::new(secs.into_iter().map(move |secs| {
                    let _alive = &guard;
                    Ok(request(secs, 0))
                })) as Records)
            };
            let (first, name) = (Timestamp::from_secs(nth * 10), nth.to_string());
            Run { first, name, open: Box::new(open) }
        });
        let merged: Vec<Record> = Merge::new(runs.collect()).collect();
        assert_eq!(merged.len(), 30);
        assert!(merged.is_sorted_by_key(at));
        assert_eq!(most.load(Ordering::Relaxed), 2, "each overlaps the next one only");
    }

    struct Alive(Arc<AtomicUsize>);

    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_damaged_run_gives_what_it_has() {
        let broken = run(vec![Ok(request(1, 0)), Ok(request(3, 0)), Err(Error::Cut { line: 4 })]);
        let unreadable = Run {
            first: Timestamp::from_secs(2),
            name: "gone".into(),
            open: Box::new(|| Err(Error::Empty)),
        };
        let whole = run(vec![Ok(request(2, 1)), Ok(request(4, 1))]);
        let mut merge = Merge::new(vec![whole, broken, unreadable]);
        let merged: Vec<Record> = merge.by_ref().collect();
        assert_eq!(merged, [request(1, 0), request(2, 1), request(3, 0), request(4, 1)]);
        let damaged = merge.damaged();
        assert_eq!(damaged.len(), 2);
        assert!(damaged[0].starts_with("gone: "), "{damaged:?}");
        assert!(damaged[1].contains("after line 4"), "{damaged:?}");
    }
}
