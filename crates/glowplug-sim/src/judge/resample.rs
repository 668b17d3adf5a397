//! How far a difference between two policies depends on which apps there happen to be: the apps are drawn
//! anew, with repetition, many times, the same draw for both.

use serde::Serialize;

use super::metrics::{AppSums, share, sum};
use crate::model::mix;
use crate::plan::quantile;

/// An estimate, and where 90 of 100 samples of apps put it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Interval {
    pub low: f64,
    /// Of the apps that there are.
    pub found: f64,
    pub high: f64,
}

const LOW: f64 = 0.05;
const HIGH: f64 = 0.95;
/// Mean wait and overhead in percent; the third quartile and the mean of the apps' cold rates.
const MEASURES: usize = 4;

/// Apps by their cold rate, so that quantiles of a sample need no sorting.
struct Ranked<'a> {
    apps: &'a [AppSums],
    by_rate: Vec<(f64, usize)>,
}

impl<'a> Ranked<'a> {
    fn new(apps: &'a [AppSums]) -> Self {
        let seen = apps.iter().enumerate().filter(|(_, app)| app.requests > 0.0);
        let mut by_rate: Vec<(f64, usize)> = seen.map(|(at, app)| (app.cold_rate(), at)).collect();
        by_rate.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self { apps, by_rate }
    }

    /// Mean wait, overhead, and the cold rates' third quartile and mean, with each app taken so many times.
    fn measure(&self, times: &[u32]) -> [f64; MEASURES] {
        let mut all = AppSums::default();
        for (app, times) in self.apps.iter().zip(times) {
            all.add(app, f64::from(*times));
        }
        let mut rates = Vec::with_capacity(self.apps.len());
        for (rate, app) in &self.by_rate {
            rates.extend(std::iter::repeat_n(*rate, times[*app] as usize));
        }
        #[expect(clippy::cast_precision_loss, reason = "a number of apps")]
        let mean = share(rates.iter().sum(), rates.len() as f64);
        [all.wait_mean_secs(), all.overhead(), quantile(&rates, 0.75), mean]
    }
}

/// From `other` to `ours`: mean wait and overhead in percent, then the third quartile and the mean of the
/// apps' cold rates.
pub(super) fn differences(
    ours: &[AppSums],
    other: &[AppSums],
    samples: u32,
    seed: u64,
) -> [Interval; MEASURES] {
    let (one, two) = (Ranked::new(ours), Ranked::new(other));
    let difference = |times: &[u32]| {
        let (ours, other) = (one.measure(times), two.measure(times));
        let percent = |at: usize| (share(ours[at], other[at]) - 1.0) * 100.0;
        [percent(0), percent(1), ours[2] - other[2], ours[3] - other[3]]
    };
    let found = difference(&vec![1; ours.len()]);
    let mut drawn: [Vec<f64>; MEASURES] = std::array::from_fn(|_| Vec::new());
    for sample in 0..samples {
        let times = draw(ours.len(), mix(seed ^ u64::from(sample)));
        if sum(other).needed_secs > 0.0 {
            for (values, value) in drawn.iter_mut().zip(difference(&times)) {
                values.push(value);
            }
        }
    }
    std::array::from_fn(|at| {
        drawn[at].sort_by(f64::total_cmp);
        let end =
            |share| if drawn[at].is_empty() { found[at] } else { quantile(&drawn[at], share) };
        Interval { low: end(LOW), found: found[at], high: end(HIGH) }
    })
}

/// How often each app is in a sample of as many as there are.
fn draw(apps: usize, seed: u64) -> Vec<u32> {
    let mut times = vec![0; apps];
    for nth in 0..apps as u64 {
        #[expect(clippy::cast_possible_truncation, reason = "less than the number of apps")]
        let app = ((u128::from(mix(seed ^ (nth << 20))) * apps as u128) >> 64) as usize;
        times[app] += 1;
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apps(waits: &[f64]) -> Vec<AppSums> {
        let app = |wait: &f64| AppSums {
            requests: 10.0,
            cold: wait / 2.0,
            waited_secs: *wait,
            runner_secs: 150.0,
            needed_secs: 100.0,
        };
        waits.iter().map(app).collect()
    }

    #[test]
    fn what_holds_for_every_app_has_no_width() {
        let (ours, other) = (apps(&[2.0, 4.0, 8.0]), apps(&[4.0, 8.0, 16.0]));
        let [wait, overhead, ..] = differences(&ours, &other, 200, 1);
        let sure = |value| Interval { low: value, found: value, high: value };
        assert_eq!(wait, sure(-50.0));
        assert_eq!(overhead, sure(0.0));
    }

    #[test]
    fn what_one_app_decides_is_not_sure() {
        let other = apps(&[4.0; 30]);
        let mut ours = other.clone();
        ours[7].waited_secs = 40.0;
        let [wait, ..] = differences(&ours, &other, 1_000, 1);
        assert!((wait.found - 30.0).abs() < 1e-9, "{wait:?}");
        assert!(
            wait.low <= 0.0 && wait.high >= 60.0,
            "the app is in a sample never, or twice: {wait:?}"
        );
        assert_eq!(
            differences(&ours, &other, 1_000, 1)[0],
            wait,
            "the same seed, the same samples"
        );
    }

    #[test]
    fn samples_are_as_large_as_what_they_are_of() {
        let mut seen = vec![0; 50];
        for seed in 0..400 {
            let times = draw(50, mix(seed));
            assert_eq!(times.iter().sum::<u32>(), 50);
            for (seen, times) in seen.iter_mut().zip(times) {
                *seen += times;
            }
        }
        assert!(seen.iter().all(|times| (300..500).contains(times)), "{seen:?}");
    }
}
