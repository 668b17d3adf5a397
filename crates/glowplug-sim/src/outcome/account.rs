//! What one runner's time was spent on, to the microsecond.

use glowplug_core::Timestamp;

use super::RunnerSeconds;

/// The life of a runner so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    placed: Timestamp,
    ready: Option<Timestamp>,
    told_to_end: Option<Timestamp>,
    /// Of those before it was told to end.
    busy_micros: u64,
    busy_since: Option<Timestamp>,
    served: bool,
    frozen_micros: u64,
    frozen_since: Option<Timestamp>,
}

/// As [`RunnerSeconds`], in microseconds: sums of these are exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunnerMicros {
    pub(crate) startup: u64,
    pub(crate) busy: u64,
    pub(crate) idle: u64,
    pub(crate) never_used: u64,
    pub(crate) ending: u64,
    pub(crate) frozen: u64,
}

impl Account {
    pub(crate) fn new(placed: Timestamp) -> Self {
        Self {
            placed,
            ready: None,
            told_to_end: None,
            busy_micros: 0,
            busy_since: None,
            served: false,
            frozen_micros: 0,
            frozen_since: None,
        }
    }

    pub(crate) fn placed(&self) -> Timestamp {
        self.placed
    }

    /// What was before counts no more.
    pub(crate) fn begin_anew(&mut self, now: Timestamp) {
        self.placed = self.placed.max(now);
        self.ready = self.ready.map(|ready| ready.max(now));
        self.told_to_end = self.told_to_end.map(|told| told.max(now));
        self.busy_since = self.busy_since.map(|since| since.max(now));
        self.busy_micros = 0;
        self.frozen_since = self.frozen_since.map(|since| since.max(now));
        self.frozen_micros = 0;
    }

    pub(crate) fn ready(&mut self, now: Timestamp) {
        self.ready.get_or_insert(now);
    }

    pub(crate) fn was_ready(&self) -> bool {
        self.ready.is_some()
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.told_to_end.is_some()
    }

    /// It has requests now and had none.
    pub(crate) fn busy(&mut self, now: Timestamp) {
        self.served = true;
        if self.told_to_end.is_none() {
            self.busy_since = Some(now);
        }
    }

    /// It has no requests any more.
    pub(crate) fn free(&mut self, now: Timestamp) {
        if let Some(since) = self.busy_since.take() {
            self.busy_micros += micros_between(since, now);
        }
    }

    /// It has no processor any more.
    pub(crate) fn freeze(&mut self, now: Timestamp) {
        self.frozen_since = Some(now);
    }

    /// It has one again.
    pub(crate) fn thaw(&mut self, now: Timestamp) {
        if let Some(since) = self.frozen_since.take() {
            self.frozen_micros += micros_between(since, now);
        }
    }

    pub(crate) fn told_to_end(&mut self, now: Timestamp) {
        if self.told_to_end.is_none() {
            self.told_to_end = Some(now);
            self.thaw(now);
            self.free(now);
        }
    }

    /// Its time up to `end`, divided.
    pub(crate) fn close(mut self, end: Timestamp) -> RunnerMicros {
        self.thaw(end);
        let frozen = self.frozen_micros;
        let whole = micros_between(self.placed, end).saturating_sub(frozen);
        if !self.served {
            return RunnerMicros { never_used: whole, frozen, ..RunnerMicros::default() };
        }
        self.free(end);
        let startup = micros_between(self.placed, self.ready.unwrap_or(end).min(end));
        let ending = micros_between(self.told_to_end.unwrap_or(end), end);
        let rest = whole.saturating_sub(startup).saturating_sub(ending);
        let busy = self.busy_micros.min(rest);
        RunnerMicros { startup, busy, idle: rest - busy, never_used: 0, ending, frozen }
    }
}

fn micros_between(from: Timestamp, to: Timestamp) -> u64 {
    to.as_micros().saturating_sub(from.as_micros())
}

impl RunnerMicros {
    pub(crate) fn add(&mut self, other: Self) {
        self.startup += other.startup;
        self.busy += other.busy;
        self.idle += other.idle;
        self.never_used += other.never_used;
        self.ending += other.ending;
        self.frozen += other.frozen;
    }

    pub(crate) fn seconds(self) -> RunnerSeconds {
        #[expect(clippy::cast_precision_loss, reason = "up to 285 runner-years are exact")]
        let seconds = |micros: u64| micros as f64 / 1e6;
        RunnerSeconds {
            startup: seconds(self.startup),
            busy: seconds(self.busy),
            idle: seconds(self.idle),
            never_used: seconds(self.never_used),
            ending: seconds(self.ending),
            frozen: seconds(self.frozen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn the_parts_do_not_overlap() {
        let mut account = Account::new(at(10));
        account.ready(at(15));
        account.busy(at(16));
        account.free(at(18));
        account.busy(at(20));
        // What it still works off after it was told to end belongs to its end.
        account.told_to_end(at(23));
        account.free(at(24));
        let parts = account.close(at(25));
        let secs = |secs: u64| secs * 1_000_000;
        let expected = RunnerMicros {
            startup: secs(5),
            busy: secs(5),
            idle: secs(3),
            never_used: 0,
            ending: secs(2),
            frozen: 0,
        };
        assert_eq!(parts, expected);
    }

    #[test]
    fn of_a_runner_that_lived_before_only_the_rest_counts() {
        let mut account = Account::new(at(10));
        account.ready(at(15));
        account.busy(at(16));
        account.free(at(18));
        account.busy(at(20));
        account.begin_anew(at(21));
        account.free(at(23));
        account.told_to_end(at(30));
        let parts = account.close(at(31));
        let secs = |secs: u64| secs * 1_000_000;
        let expected = RunnerMicros { busy: secs(2), idle: secs(7), ending: secs(1), ..parts };
        assert_eq!(parts, expected);
        assert_eq!((parts.startup, parts.never_used), (0, 0));
        // Its start is counted from that moment on too.
        let mut account = Account::new(at(10));
        account.begin_anew(at(14));
        account.ready(at(15));
        account.busy(at(15));
        assert_eq!(account.close(at(16)).startup, secs(1));
    }

    #[test]
    fn a_runner_that_never_served_is_all_waste() {
        let mut account = Account::new(at(10));
        account.ready(at(15));
        account.told_to_end(at(20));
        assert_eq!(account.close(at(21)).never_used, 11_000_000);
        assert_eq!(Account::new(at(10)).close(at(5)), RunnerMicros::default());
    }

    #[test]
    fn a_runner_that_dies_in_use_was_busy_until_then() {
        let mut account = Account::new(at(0));
        account.ready(at(1));
        account.busy(at(1));
        let parts = account.close(at(4));
        assert_eq!((parts.startup, parts.busy), (1_000_000, 3_000_000));
    }

    #[test]
    fn frozen_time_is_apart() {
        let mut account = Account::new(at(10));
        account.ready(at(12));
        account.busy(at(12));
        account.free(at(15));
        account.freeze(at(20));
        account.thaw(at(50));
        account.freeze(at(60));
        account.told_to_end(at(90));
        let secs = |secs: u64| secs * 1_000_000;
        let expected = RunnerMicros {
            startup: secs(2),
            busy: secs(3),
            idle: secs(15),
            never_used: 0,
            ending: secs(1),
            frozen: secs(60),
        };
        assert_eq!(account.close(at(91)), expected);
    }
}
