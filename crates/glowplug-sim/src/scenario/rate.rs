//! How often something comes, as a function of time, and the moments at which it does.

use std::f64::consts::TAU;

use glowplug_core::Timestamp;
use rand::RngExt;
use rand_distr::{Distribution, Exp1};
use rand_xoshiro::Xoshiro256PlusPlus;

pub(super) const DAY_SECS: f64 = 86_400.0;
const HOUR_SECS: f64 = 3_600.0;
/// Parts of the fall of a flash crowd's decay in which the rate is bounded by its value at their begin:
/// an eighth wastes one draw in sixteen.
const FALL_PARTS: f64 = 8.0;

/// Requests, bursts or sessions per second. Moments are seconds; the first of them is midnight.
#[derive(Clone, Debug, PartialEq)]
pub enum Rate {
    Constant(f64),
    /// A wave around `mean` that is highest at `peak_secs` of each day. `swing`: 0 to 1 of the mean.
    Daily {
        mean: f64,
        swing: f64,
        peak_secs: f64,
    },
    /// Of each hour of the day.
    Hourly([f64; 24]),
    /// `base`, but from `at_secs` on `times` as much: reached within `rise_secs`, and then down again by
    /// two thirds in each `fall_secs`.
    Crowd {
        base: f64,
        at_secs: f64,
        times: f64,
        rise_secs: f64,
        fall_secs: f64,
    },
}

impl Rate {
    /// As many in all.
    #[must_use]
    pub fn scaled(&self, by: f64) -> Self {
        match self {
            Self::Constant(rate) => Self::Constant(rate * by),
            Self::Daily { mean, swing, peak_secs } => {
                Self::Daily { mean: mean * by, swing: *swing, peak_secs: *peak_secs }
            }
            Self::Hourly(rates) => Self::Hourly(rates.map(|rate| rate * by)),
            Self::Crowd { base, at_secs, times, rise_secs, fall_secs } => Self::Crowd {
                base: base * by,
                at_secs: *at_secs,
                times: *times,
                rise_secs: *rise_secs,
                fall_secs: *fall_secs,
            },
        }
    }

    pub fn at(&self, secs: f64) -> f64 {
        match self {
            Self::Constant(rate) => *rate,
            Self::Daily { mean, swing, peak_secs } => {
                mean * (1.0 + swing * (TAU * (secs - peak_secs) / DAY_SECS).cos())
            }
            Self::Hourly(rates) => rates[hour_of_day(secs)],
            Self::Crowd { base, at_secs, times, rise_secs, fall_secs } => {
                let since = secs - at_secs;
                let extra = if since < 0.0 {
                    0.0
                } else if since < *rise_secs {
                    since / rise_secs
                } else {
                    ((rise_secs - since) / fall_secs).exp()
                };
                base * (1.0 + (times - 1.0) * extra)
            }
        }
    }

    /// A rate that is not exceeded from `secs` until the second, later moment.
    fn bound(&self, secs: f64) -> (f64, f64) {
        match self {
            Self::Constant(rate) => (*rate, f64::INFINITY),
            Self::Daily { mean, swing, .. } => (mean * (1.0 + swing), f64::INFINITY),
            Self::Hourly(rates) => {
                (rates[hour_of_day(secs)], ((secs / HOUR_SECS).floor() + 1.0) * HOUR_SECS)
            }
            Self::Crowd { base, at_secs, times, rise_secs, fall_secs } => {
                let full = at_secs + rise_secs;
                if secs < *at_secs {
                    (*base, *at_secs)
                } else if secs < full {
                    (base * times.max(1.0), full)
                } else {
                    (self.at(secs).max(*base), secs + fall_secs / FALL_PARTS)
                }
            }
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "moments are not negative, and a day has few hours"
)]
fn hour_of_day(secs: f64) -> usize {
    (secs / HOUR_SECS) as usize % 24
}

/// The moments of a Poisson process of that rate: more are drawn than come, and as many are dropped as
/// the rate lies below its bound.
#[derive(Clone, Debug)]
pub struct Moments {
    rate: Rate,
    random: Xoshiro256PlusPlus,
    now_secs: f64,
    end_secs: f64,
}

impl Moments {
    pub(super) fn new(
        rate: Rate,
        from_secs: f64,
        end_secs: f64,
        random: Xoshiro256PlusPlus,
    ) -> Self {
        Self { rate, random, now_secs: from_secs, end_secs }
    }
}

impl Iterator for Moments {
    type Item = Timestamp;

    fn next(&mut self) -> Option<Timestamp> {
        while self.now_secs < self.end_secs {
            let (most, until) = self.rate.bound(self.now_secs);
            let gap: f64 = Exp1.sample(&mut self.random);
            let next = self.now_secs + gap / most;
            // Nothing within the part: memory it has none, so what was drawn for it is forgotten.
            if !(most > 0.0 && next < until) {
                self.now_secs = until;
                continue;
            }
            self.now_secs = next;
            if next < self.end_secs && self.random.random::<f64>() * most < self.rate.at(next) {
                return Some(moment(next));
            }
        }
        None
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "moments are not negative, and ages before 2^64 microseconds"
)]
pub(super) fn moment(secs: f64) -> Timestamp {
    Timestamp::from_micros((secs * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn moments(rate: Rate, end_secs: f64) -> Vec<f64> {
        Moments::new(rate, 0.0, end_secs, Xoshiro256PlusPlus::seed_from_u64(7))
            .map(|at| at.since(Timestamp::ZERO).as_secs_f64())
            .collect()
    }

    /// The number between two moments is Poisson distributed, so its standard error is its root.
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    fn check(moments: &[f64], from: f64, to: f64, expected: f64) {
        let found = moments.iter().filter(|at| (from..to).contains(*at)).count() as f64;
        assert!(
            (found - expected).abs() <= 3.0 * expected.sqrt(),
            "{found} from {from} to {to}, not {expected}"
        );
    }

    #[test]
    fn a_constant_rate_has_its_mean_and_no_memory() {
        let moments = moments(Rate::Constant(5.0), 2_000.0);
        check(&moments, 0.0, 2_000.0, 10_000.0);
        check(&moments, 500.0, 600.0, 500.0);
        let gaps: Vec<f64> = moments.windows(2).map(|two| two[1] - two[0]).collect();
        let mean = 0.2;
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let share = gaps.iter().filter(|gap| **gap > mean).count() as f64 / gaps.len() as f64;
        assert!((share - (-1.0_f64).exp()).abs() < 0.015, "{share}");
    }

    #[test]
    fn a_day_swings_around_its_mean() {
        let rate = Rate::Daily { mean: 0.2, swing: 0.8, peak_secs: 14.0 * HOUR_SECS };
        let moments = moments(rate, DAY_SECS);
        check(&moments, 0.0, DAY_SECS, 0.2 * DAY_SECS);
        // The integral of the wave over the two hours around its peak, and around its low.
        let half = (TAU / 24.0).sin() * DAY_SECS / TAU;
        let over = |swing: f64| 0.2 * (2.0 * HOUR_SECS + swing * 2.0 * half);
        check(&moments, 13.0 * HOUR_SECS, 15.0 * HOUR_SECS, over(0.8));
        check(&moments, HOUR_SECS, 3.0 * HOUR_SECS, over(-0.8));
    }

    #[test]
    fn hours_have_rates_of_their_own() {
        let mut rates = [0.0; 24];
        rates[9] = 0.5;
        rates[23] = 0.1;
        let moments = moments(Rate::Hourly(rates), 2.0 * DAY_SECS);
        for day in [0.0, DAY_SECS] {
            check(&moments, day + 9.0 * HOUR_SECS, day + 10.0 * HOUR_SECS, 1_800.0);
            check(&moments, day + 23.0 * HOUR_SECS, day + DAY_SECS, 360.0);
            check(&moments, day, day + 9.0 * HOUR_SECS, 0.0);
        }
    }

    #[test]
    fn a_crowd_comes_at_once_and_leaves_slowly() {
        let rate = Rate::Crowd {
            base: 2.0,
            at_secs: 1_000.0,
            times: 50.0,
            rise_secs: 10.0,
            fall_secs: 100.0,
        };
        let moments = moments(rate, 3_000.0);
        check(&moments, 0.0, 1_000.0, 2_000.0);
        check(&moments, 1_000.0, 1_010.0, 2.0 * 10.0 * (1.0 + 49.0 / 2.0));
        let fallen = 100.0 * (1.0 - (-1.0_f64).exp());
        check(&moments, 1_010.0, 1_110.0, 2.0 * (100.0 + 49.0 * fallen));
        check(&moments, 2_500.0, 3_000.0, 1_000.0);
    }

    #[test]
    fn a_rate_of_nothing_ends() {
        assert_eq!(moments(Rate::Constant(0.0), 1e6), [] as [f64; 0]);
        assert_eq!(moments(Rate::Hourly([0.0; 24]), 1e6), [] as [f64; 0]);
    }
}
