//! The course of runner states, in a fixed number of moments over a time that is not known beforehand:
//! when they are all taken, every second one goes and the others' distance doubles.

use std::time::Duration;

use glowplug_core::Timestamp;

use super::Moment;

/// Between two moments, at first.
const STEP_FIRST: Duration = Duration::from_millis(1);

#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    moments: Vec<Moment>,
    moments_max: usize,
    step: Duration,
    begin: Timestamp,
    next: Timestamp,
}

impl Timeline {
    pub(crate) fn new(moments_max: usize, begin: Timestamp) -> Self {
        // Two are the fewest that can be halved; none at all are never due.
        let next = if moments_max == 0 { Timestamp::MAX } else { begin };
        let moments_max = moments_max.max(2);
        Self { moments: Vec::new(), moments_max, step: STEP_FIRST, begin, next }
    }

    /// Whether a moment lies before `now`, so that the state up to now has to be kept.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        self.next < now
    }

    /// Keeps what was the state from the last change until just before `now`.
    pub(crate) fn keep(&mut self, now: Timestamp, state: Moment) {
        while self.next < now {
            if self.moments.len() == self.moments_max {
                self.halve();
                continue;
            }
            let at = self.next.since(self.begin);
            self.moments.push(Moment { at, ..state });
            self.next = self.next + self.step;
        }
    }

    fn halve(&mut self) {
        let mut nth = 0;
        self.moments.retain(|_| {
            nth += 1;
            nth % 2 == 1
        });
        self.step *= 2;
        let last = self.moments.last().map_or(Duration::ZERO, |moment| moment.at);
        self.next = self.begin + last + self.step;
    }

    pub(crate) fn into_moments(self) -> Vec<Moment> {
        self.moments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_stay_few_and_evenly_spaced() {
        for (moments_max, secs) in
            [(2, 1), (3, 1_000), (100, 7), (100, 30_000_000), (1_000, 86_400)]
        {
            let mut timeline = Timeline::new(moments_max, Timestamp::ZERO);
            for tenth in 1..=10 {
                let now = Timestamp::from_secs(secs * tenth / 10);
                timeline
                    .keep(now, Moment { idle: u32::try_from(tenth).unwrap(), ..Moment::default() });
            }
            let moments = timeline.into_moments();
            assert!(moments.len() <= moments_max && moments.len() >= moments_max / 2);
            let step = moments[1].at;
            for (nth, moment) in (0..).zip(&moments) {
                assert_eq!(moment.at, step * nth, "{moments_max} over {secs} s");
            }
            let last = moments[moments.len() - 1];
            assert!(last.at + step * 2 > Duration::from_secs(secs), "it covers the whole span");
        }
    }

    #[test]
    fn a_moment_shows_the_state_before_the_change() {
        let mut timeline = Timeline::new(10, Timestamp::ZERO);
        let state = |idle| Moment { idle, ..Moment::default() };
        timeline.keep(Timestamp::from_micros(1_500), state(1));
        timeline.keep(Timestamp::from_micros(2_500), state(2));
        let idle: Vec<u32> = timeline.into_moments().iter().map(|moment| moment.idle).collect();
        assert_eq!(idle, [1, 1, 2]);
    }

    #[test]
    fn none_are_kept_unless_asked_for() {
        let timeline = Timeline::new(0, Timestamp::ZERO);
        assert!(!timeline.is_due(Timestamp::from_secs(1)));
        assert_eq!(timeline.into_moments(), []);
    }
}
