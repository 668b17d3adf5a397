//! What the autoscaler hears of an app: its concurrency, second by second.
//!
//! Pods report each second while they are ready, the activator while it holds or carries requests. A
//! second that has neither is silent. The first request after a silent second is reported at once, as
//! one whole request; the rest of its second adds only what is more than that.

use std::time::Duration;

use glowplug_core::Timestamp;

use super::decider::Observed;
use super::window::{BUCKET_MICROS, Window};

#[derive(Clone, Debug)]
pub(super) struct Reports {
    stable: Window,
    panic: Window,
    /// In seconds.
    stable_len: u64,
    /// Up to when everything is accounted for.
    counted: Timestamp,
    /// Since when, in the current second: its begin, or its first request if silence was before that.
    since: Timestamp,
    /// Requests × microseconds of the current second.
    sum: u64,
    /// Reported already of the current second.
    ahead: u64,
    /// The last second in which there was a request.
    active: Option<u64>,
    /// How many seconds before the current one had the same concurrency as the one before them.
    flat: u64,
    last_value: u64,
}

impl Reports {
    pub(super) fn new(stable: Duration, panic: Duration) -> Self {
        let seconds = |window: Duration| window.as_secs() + u64::from(window.subsec_nanos() > 0);
        let stable_len = seconds(stable).max(1);
        Self {
            stable: Window::new(stable_len),
            panic: Window::new(seconds(panic)),
            stable_len,
            counted: Timestamp::ZERO,
            since: Timestamp::ZERO,
            sum: 0,
            ahead: 0,
            active: None,
            flat: 0,
            last_value: 0,
        }
    }

    pub(super) fn second(at: Timestamp) -> u64 {
        at.as_micros() / BUCKET_MICROS
    }

    /// Averages at the end of a second that was reported. `None`: all was silent.
    pub(super) fn observed(&self, second: u64) -> Option<Observed> {
        (!self.stable.is_empty(second)).then(|| Observed {
            stable: self.stable.average(second),
            panic: self.panic.average(second),
        })
    }

    /// Both windows are full of the same.
    pub(super) fn is_flat(&self) -> bool {
        self.flat >= self.stable_len
    }

    /// Whether the request that comes now is the first one after a silent second, and so was reported at
    /// once. The other arguments say what was before it.
    pub(super) fn arrive(&mut self, now: Timestamp, concurrency: u64, pods_ready: bool) -> bool {
        self.advance(now, concurrency, pods_ready);
        let second = Self::second(now);
        let is_first = self.active.is_none_or(|active| active + 1 < second);
        self.active = Some(second);
        if is_first {
            self.since = now;
            self.ahead = BUCKET_MICROS;
            self.record(second, second + 1, BUCKET_MICROS);
        }
        is_first
    }

    /// `concurrency` was so since the last call, and pods were ready or not.
    pub(super) fn advance(&mut self, now: Timestamp, concurrency: u64, pods_ready: bool) {
        let second = Self::second(self.counted);
        let last = Self::second(now);
        if concurrency > 0 && now > self.counted {
            self.active = Some(Self::second(Timestamp::from_micros(now.as_micros() - 1)));
        }
        if last > second {
            let end = Timestamp::from_micros((second + 1) * BUCKET_MICROS);
            self.close(second, end, concurrency, pods_ready);
            self.whole_seconds(second + 1, last, concurrency, pods_ready);
            self.counted = Timestamp::from_micros(last * BUCKET_MICROS);
            self.since = self.counted;
        }
        self.sum += concurrency * span(self.counted, now);
        self.counted = now;
    }

    fn close(&mut self, second: u64, end: Timestamp, concurrency: u64, pods_ready: bool) {
        let sum = std::mem::take(&mut self.sum) + concurrency * span(self.counted, end);
        let ahead = std::mem::take(&mut self.ahead);
        // Of the time since the first request: a burst is not thinned by the silence before it.
        let part = span(self.since, end).max(1);
        let average = u128::from(sum) * u128::from(BUCKET_MICROS) / u128::from(part);
        let value = u64::try_from(average).unwrap_or(u64::MAX);
        if pods_ready || sum > 0 || ahead > 0 {
            self.record(second, second + 1, value.saturating_sub(ahead));
        }
        self.flat = if value == self.last_value && ahead == 0 { self.flat + 1 } else { 0 };
        self.last_value = value;
    }

    fn whole_seconds(&mut self, from: u64, to: u64, concurrency: u64, pods_ready: bool) {
        if from >= to {
            return;
        }
        let value = concurrency * BUCKET_MICROS;
        if pods_ready || concurrency > 0 {
            self.record(from, to, value);
        }
        self.flat = to - from - 1 + if value == self.last_value { self.flat + 1 } else { 0 };
        self.last_value = value;
    }

    fn record(&mut self, from: u64, to: u64, value: u64) {
        self.stable.record(from, to, value);
        self.panic.record(from, to, value);
    }
}

/// Microseconds.
fn span(from: Timestamp, to: Timestamp) -> u64 {
    to.as_micros().saturating_sub(from.as_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(millis * 1_000)
    }

    fn reports() -> Reports {
        Reports::new(Duration::from_mins(1), Duration::from_secs(6))
    }

    fn check(reports: &Reports, second: u64, stable: f64, panic: f64) {
        let observed = reports.observed(second).unwrap();
        let near = |left: f64, right: f64| (left - right).abs() < 1e-6;
        assert!(near(observed.stable, stable), "stable at {second}: {observed:?}");
        assert!(near(observed.panic, panic), "panic at {second}: {observed:?}");
    }

    #[test]
    fn the_first_request_counts_in_full_at_once() {
        let mut reports = reports();
        assert!(reports.arrive(at(100_900), 0, false));
        check(&reports, 100, 1.0, 1.0);
        // It lasts: the rest of its second adds nothing.
        reports.advance(at(102_000), 1, false);
        check(&reports, 101, 1.0, 1.0);
    }

    #[test]
    fn a_burst_is_not_thinned_by_the_silence_before_it() {
        let mut reports = reports();
        assert!(reports.arrive(at(100_900), 0, false));
        for before in 1..5 {
            assert!(!reports.arrive(at(100_900), before, false));
        }
        reports.advance(at(101_000), 5, false);
        check(&reports, 100, 5.0, 5.0);
    }

    #[test]
    fn a_short_request_counts_as_a_second_of_its_own_only_after_silence() {
        let mut reports = reports();
        reports.advance(at(10_000), 0, true);
        // A tenth of a second in each of three seconds.
        assert!(reports.arrive(at(10_000), 0, true));
        reports.advance(at(10_100), 1, true);
        assert!(!reports.arrive(at(11_000), 0, true));
        reports.advance(at(11_100), 1, true);
        assert!(!reports.arrive(at(12_000), 0, true));
        reports.advance(at(12_100), 1, true);
        reports.advance(at(13_000), 0, true);
        // Thirteen seconds have been reported, since pods were ready from the beginning.
        check(&reports, 12, 1.2 / 13.0, 1.2 / 6.0);
        assert!(reports.arrive(at(14_500), 0, true), "second 13 was silent");
    }

    #[test]
    fn ready_pods_report_zeros_and_no_pods_report_nothing() {
        let mut with_pods = reports();
        with_pods.arrive(at(0), 0, true);
        let mut without = with_pods.clone();
        with_pods.advance(at(1_000), 1, true);
        without.advance(at(1_000), 1, false);
        with_pods.advance(at(200_000), 0, true);
        without.advance(at(200_000), 0, false);
        check(&with_pods, 199, 0.0, 0.0);
        assert!(without.observed(199).is_none());
        without.arrive(at(200_000), 0, false);
        check(&without, 200, 1.0, 1.0);
    }

    #[test]
    fn a_constant_course_is_flat_after_a_window() {
        let mut reports = reports();
        reports.arrive(at(500), 0, true);
        reports.advance(at(60_000), 1, true);
        assert!(!reports.is_flat());
        reports.advance(at(62_000), 1, true);
        assert!(reports.is_flat());
        check(&reports, 61, 1.0, 1.0);
        reports.advance(at(62_500), 1, true);
        reports.advance(at(64_000), 2, true);
        assert!(!reports.is_flat());
    }
}
