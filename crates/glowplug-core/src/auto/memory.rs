//! How often something comes, remembered at three lengths.
//!
//! Each length holds a count that fades: it grows by one with every event and shrinks by half over about
//! 0.7 of its length. A count divided by its length is a rate, and the mean of the three rates is the
//! estimate. With the short one alone every pause would look like the end; with the long one alone a burst
//! would be missed. Right after a first event, with nothing else known, the estimate falls about as
//! `1 / time`, which is how the pauses of people look when nothing is known of them.
//!
//! The lengths are a decade apart and weigh the same. Weights fitted to recorded traffic were not better on
//! traffic they were not fitted to, so there are none.

/// What the three counts look back on.
pub(super) const LENGTHS_SECS: [f64; 3] = [60.0, 600.0, 6_000.0];

/// Their share in the estimate.
const WEIGHT: f64 = 1.0 / 3.0;

/// Fading counts. The owner knows when they were last brought up to date.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Memory([f32; 3]);

impl Memory {
    /// Lets `secs` pass, then counts one event.
    #[expect(clippy::cast_possible_truncation, reason = "a count needs no more than seven digits")]
    pub(super) fn note(&mut self, secs: f64) {
        for (count, length) in self.0.iter_mut().zip(LENGTHS_SECS) {
            *count = (f64::from(*count) * (-secs / length).exp() + 1.0) as f32;
        }
    }

    /// Events per second to expect when `secs` have passed without one. Falls with `secs`.
    pub(super) fn rate(&self, secs: f64) -> f64 {
        self.terms().map(|(count, length)| WEIGHT * count * (-secs / length).exp() / length).sum()
    }

    /// Events to expect from `from` to `to` seconds after `passed` seconds without one.
    pub(super) fn expected(&self, passed: f64, from: f64, to: f64) -> f64 {
        self.terms()
            .map(|(count, length)| {
                let after = |secs: f64| (-(passed + secs) / length).exp();
                WEIGHT * count * (after(from) - after(to))
            })
            .sum()
    }

    /// The longest look back: about how many events the last hundred minutes held.
    pub(super) fn count(&self) -> f64 {
        f64::from(self.0[2])
    }

    fn terms(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.0.iter().map(|count| f64::from(*count)).zip(LENGTHS_SECS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events a fixed time apart, long enough for all lengths to have filled.
    fn steady(gap_secs: f64) -> Memory {
        let mut memory = Memory::default();
        for _ in 0..100_000 {
            memory.note(gap_secs);
        }
        memory
    }

    #[test]
    fn a_steady_rate_is_found() {
        for gap in [1.0, 7.0, 30.0] {
            // Seen in the middle of a gap, so that no event is counted too fresh or too faded.
            let estimate = steady(gap).rate(gap / 2.0) * gap;
            assert!((0.98..1.02).contains(&estimate), "gap {gap}: {estimate} of the rate");
        }
    }

    #[test]
    fn nothing_is_expected_of_the_unknown() {
        assert!(Memory::default().rate(0.0).abs() < f64::EPSILON);
        assert!(Memory::default().expected(0.0, 0.0, 1e9).abs() < f64::EPSILON);
    }

    #[test]
    fn the_expectation_is_the_rate_summed_up() {
        let memory = steady(5.0);
        let summed: f64 =
            (0..1_000).map(|at| memory.rate(3.0 + 0.05 + f64::from(at) / 10.0) / 10.0).sum();
        let at_once = memory.expected(3.0, 0.0, 100.0);
        assert!((summed / at_once - 1.0).abs() < 1e-3, "{summed} and {at_once}");
    }

    #[test]
    fn one_event_is_forgotten_about_as_one_over_time() {
        let mut memory = Memory::default();
        memory.note(0.0);
        for secs in [30.0, 100.0, 300.0, 1_000.0, 3_000.0] {
            let times = memory.rate(secs) * secs;
            assert!((0.1..0.2).contains(&times), "after {secs} s: {times}");
        }
    }
}
