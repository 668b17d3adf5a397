//! Concurrency averaged over a sliding window of one-second buckets, as Knative's autoscaler keeps it.
//!
//! Two rules of it matter for the outcome. A window that is not full yet is averaged over what it has,
//! so the first request after a long silence counts in full at once. Seconds in which nothing was
//! reported count as zero, unless nothing was for as long as the window: then it begins anew.

/// Of a bucket. Values are in requests × microseconds, so that they add up without error.
pub(super) const BUCKET_MICROS: u64 = 1_000_000;

#[derive(Clone, Debug)]
pub(super) struct Window {
    /// A ring: second `n` is at `n % len`.
    buckets: Box<[u64]>,
    total: u64,
    /// The second the window began with.
    first: u64,
    /// The second that was written last. `None`: nothing was, ever.
    last: Option<u64>,
}

impl Window {
    /// `seconds` is at least 1.
    pub(super) fn new(seconds: u64) -> Self {
        let len = usize::try_from(seconds.max(1)).expect("a window of seconds fits into memory");
        Self { buckets: vec![0; len].into(), total: 0, first: 0, last: None }
    }

    /// Adds to each second from `from` up to, without it, `to`. Seconds are never before the last one
    /// written.
    pub(super) fn record(&mut self, from: u64, to: u64, value: u64) {
        // What has left the window by the time of `to` need not be written.
        let skipped_to = to.saturating_sub(self.len()).max(from);
        if skipped_to > from {
            self.move_to(skipped_to - 1, from);
        }
        for second in skipped_to..to {
            self.move_to(second, second);
            let at = self.index(second);
            self.buckets[at] += value;
            self.total += value;
        }
    }

    /// Nothing was reported within the window, nor in the second before it: there is nothing to decide
    /// on.
    pub(super) fn is_empty(&self, second: u64) -> bool {
        self.last.is_none_or(|last| second.saturating_sub(last) > self.len())
    }

    /// In requests, at the end of a second that is not before the last one written. 0 when nothing was
    /// reported within the window.
    pub(super) fn average(&self, second: u64) -> f64 {
        let Some(last) = self.last else {
            return 0.0;
        };
        let silent = second.saturating_sub(last);
        if silent >= self.len() {
            return 0.0;
        }
        let gone: u64 = (last + 1..=last + silent).map(|gone| self.buckets[self.index(gone)]).sum();
        let buckets = (last - self.first + 1).min(self.len() - silent);
        // Rounded down to a millionth, as Knative does.
        let micros = (self.total - gone) / buckets;
        #[expect(clippy::cast_precision_loss, reason = "an average of up to 2^53")]
        let requests = micros as f64 / BUCKET_MICROS as f64;
        requests
    }

    /// Makes `second` the last one written. `since`: the first second of what is being written.
    fn move_to(&mut self, second: u64, since: u64) {
        let Some(last) = self.last else {
            (self.first, self.last) = (since, Some(second));
            return;
        };
        if since.saturating_sub(last) >= self.len() {
            self.first = since;
        }
        if second.saturating_sub(last) >= self.len() {
            self.buckets.fill(0);
            self.total = 0;
        } else {
            for stale in last + 1..=second {
                let at = self.index(stale);
                self.total -= std::mem::take(&mut self.buckets[at]);
            }
        }
        self.last = Some(second.max(last));
    }

    fn len(&self) -> u64 {
        self.buckets.len() as u64
    }

    fn index(&self, second: u64) -> usize {
        usize::try_from(second % self.len()).expect("below the length of a slice")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(from, to, requests)` are recorded, then the average at a second is asked for.
    fn check(window_secs: u64, recorded: &[(u64, u64, u64)], second: u64, expected: f64) {
        let mut window = Window::new(window_secs);
        for &(from, to, requests) in recorded {
            window.record(from, to, requests * BUCKET_MICROS);
        }
        let found = window.average(second);
        assert!((found - expected).abs() < 1e-6, "{recorded:?} at {second}: {found}");
    }

    #[test]
    fn averages_are_over_what_the_window_has() {
        check(6, &[], 3, 0.0);
        // A window that began a moment ago is not thinned by the silence before it.
        check(6, &[(100, 101, 4)], 100, 4.0);
        check(6, &[(100, 101, 4), (101, 102, 0)], 101, 2.0);
        // A full window counts each of its seconds.
        check(6, &[(0, 5, 0), (5, 6, 6)], 5, 1.0);
        check(6, &[(0, 50, 0), (50, 52, 3)], 51, 1.0);
        // What has left it is gone.
        check(6, &[(0, 6, 6), (6, 12, 3)], 11, 3.0);
        check(6, &[(0, 6, 6), (6, 9, 0)], 8, 3.0);
    }

    #[test]
    fn silence_counts_as_zero_until_the_window_has_passed() {
        // Seconds 1 to 3 said nothing: they are empty.
        check(6, &[(0, 1, 6), (4, 5, 4)], 4, 2.0);
        // Asked later than written: over the seconds that are left of it.
        check(6, &[(0, 6, 6)], 8, 6.0);
        check(6, &[(0, 6, 6)], 11, 0.0);
        // A whole window of silence: it begins anew.
        check(6, &[(0, 6, 6), (20, 21, 2)], 20, 2.0);
        check(6, &[(0, 6, 6), (11, 12, 2)], 11, 2.0);
        check(6, &[(0, 6, 6), (10, 11, 2)], 10, 8.0 / 6.0);
    }

    #[test]
    fn a_window_is_empty_a_second_after_its_last_left_it() {
        let mut window = Window::new(6);
        assert!(window.is_empty(0));
        window.record(3, 4, BUCKET_MICROS);
        for (second, expected) in [(3, false), (9, false), (10, true)] {
            assert_eq!(window.is_empty(second), expected, "at {second}");
        }
    }

    #[test]
    fn many_seconds_at_once_are_the_same_as_one_by_one() {
        for (before, from, to) in
            [(1, 1, 3), (1, 1, 40), (3, 5, 9), (3, 5, 40), (3, 20, 22), (3, 20, 90)]
        {
            let mut at_once = Window::new(6);
            at_once.record(0, before, 7);
            let mut one_by_one = at_once.clone();
            at_once.record(from, to, 5);
            for second in from..to {
                one_by_one.record(second, second + 1, 5);
            }
            for second in to - 1..to + 8 {
                let (left, right) = (at_once.average(second), one_by_one.average(second));
                assert!((left - right).abs() < 1e-9, "{from}..{to} at {second}: {left}, {right}");
            }
        }
    }
}
