//! One pod: what it works on, how fast, and what became of its seconds.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use glowplug_core::Timestamp;

use crate::outcome::{Account, RunnerSeconds};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Starting,
    Ready,
    /// Gets no more requests, and ends with its last one.
    Draining,
}

#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) state: State,
    account: Account,
    /// Up to when its work is counted.
    counted: Timestamp,
    /// Microseconds of work it has done for each request that was on it all the time.
    work: f64,
    /// At which `work` each of its requests is finished; in microseconds, as their bits: they are never
    /// negative, so that their order is the numbers'.
    ends: BinaryHeap<Reverse<u64>>,
    /// The moment at which the next one finishes, as it was last announced.
    announced: Option<Timestamp>,
}

impl Pod {
    pub(super) fn start(now: Timestamp) -> Self {
        Self {
            state: State::Starting,
            account: Account::new(now),
            counted: now,
            work: 0.0,
            ends: BinaryHeap::new(),
            announced: None,
        }
    }

    pub(super) fn requests(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn ready(&mut self, now: Timestamp) {
        self.account.ready(now);
        self.state = State::Ready;
    }

    /// Takes a request. `Some`: from now on the next one to finish is expected at that moment.
    pub(super) fn assign(
        &mut self,
        now: Timestamp,
        service: Duration,
        slowdown: f64,
    ) -> Option<Timestamp> {
        self.proceed(now, slowdown);
        if self.ends.is_empty() {
            self.account.busy(now);
        }
        let end = self.work + micros(service);
        self.ends.push(Reverse(end.to_bits()));
        self.announce(now, slowdown)
    }

    /// The first of its requests is done, if `at` is what was announced last.
    pub(super) fn finish(&mut self, at: Timestamp, slowdown: f64) -> bool {
        if self.announced != Some(at) {
            return false;
        }
        self.proceed(at, slowdown);
        self.ends.pop();
        if self.ends.is_empty() {
            self.account.free(at);
        }
        self.announced = None;
        true
    }

    /// As [`Self::assign`] says it, after a request has finished.
    pub(super) fn announce(&mut self, now: Timestamp, slowdown: f64) -> Option<Timestamp> {
        let Reverse(first) = self.ends.peek()?;
        let left = (f64::from_bits(*first) - self.work).max(0.0);
        let at = now + duration((left * slowness(self.ends.len(), slowdown)).ceil());
        (self.announced != Some(at)).then(|| {
            self.announced = Some(at);
            at
        })
    }

    pub(super) fn drain(&mut self, now: Timestamp) {
        self.account.told_to_end(now);
        self.state = State::Draining;
    }

    /// What was before counts no more.
    pub(super) fn begin_anew(&mut self, now: Timestamp) {
        self.account.begin_anew(now);
    }

    /// Where its seconds went, when it has ended.
    pub(super) fn close(self, ended: Timestamp) -> RunnerSeconds {
        self.account.close(ended).seconds()
    }

    fn proceed(&mut self, now: Timestamp, slowdown: f64) {
        self.work += micros(now - self.counted) / slowness(self.ends.len(), slowdown);
        self.counted = now;
    }
}

/// How much longer a request takes with so many at once.
fn slowness(requests: usize, slowdown: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "limited by the app's multiplexing")]
    let others = requests.saturating_sub(1) as f64;
    1.0 + slowdown * others
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 285 years")]
fn micros(span: Duration) -> f64 {
    span.as_micros() as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "never negative, and the conversion stops at the end of the range"
)]
fn duration(micros: f64) -> Duration {
    Duration::from_micros(micros as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    const TEN: Duration = Duration::from_secs(10);

    #[test]
    fn seconds_are_told_apart() {
        let mut pod = Pod::start(at(100));
        pod.ready(at(120));
        assert_eq!(pod.assign(at(125), TEN, 0.0), Some(at(135)));
        assert!(pod.finish(at(135), 0.0));
        assert_eq!(pod.announce(at(135), 0.0), None);
        pod.drain(at(165));
        let seconds = pod.close(at(167));
        let expected = RunnerSeconds {
            startup: 20.0,
            busy: 10.0,
            idle: 35.0,
            never_used: 0.0,
            ending: 2.0,
            frozen: 0.0,
        };
        assert_eq!(seconds, expected);
    }

    #[test]
    fn what_never_served_is_wasted_as_a_whole() {
        let mut pod = Pod::start(at(0));
        pod.ready(at(20));
        let wasted = RunnerSeconds { never_used: 91.0, ..RunnerSeconds::default() };
        pod.drain(at(90));
        assert_eq!(pod.close(at(91)), wasted);
    }

    #[test]
    fn requests_share_a_pod_that_slows_down() {
        let mut pod = Pod::start(at(0));
        pod.ready(at(0));
        assert_eq!(pod.assign(at(0), TEN, 1.0), Some(at(10)));
        // After 4 s there are two, at half the speed each: the 6 s left of the first become 12.
        assert_eq!(pod.assign(at(4), TEN, 1.0), Some(at(16)));
        assert!(!pod.finish(at(10), 1.0), "that was announced before the second came");
        assert!(pod.finish(at(16), 1.0));
        // The second has done 6 of its 10 s and is alone now.
        assert_eq!(pod.announce(at(16), 1.0), Some(at(20)));
        assert!(pod.finish(at(20), 1.0));
        let seconds = pod.close(at(20));
        assert_eq!(seconds, RunnerSeconds { busy: 20.0, ..RunnerSeconds::default() });
    }

    #[test]
    fn requests_beside_each_other_do_not_disturb_without_slowdown() {
        let mut pod = Pod::start(at(0));
        pod.ready(at(0));
        assert_eq!(pod.assign(at(0), TEN, 0.0), Some(at(10)));
        assert_eq!(pod.assign(at(4), TEN, 0.0), None, "the first is still the next to finish");
        assert!(pod.finish(at(10), 0.0));
        assert_eq!(pod.announce(at(10), 0.0), Some(at(14)));
    }
}
