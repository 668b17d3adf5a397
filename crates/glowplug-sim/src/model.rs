//! How long things take, and how they fail.

mod stream;
pub mod times;

use std::sync::Arc;
use std::time::Duration;

use glowplug_core::spec::AppSpec;

pub(crate) use stream::{Purpose, Sampler, Stream, micros, mix, share_of};

/// A time that is drawn anew each time it is needed.
#[derive(Clone, Debug, PartialEq)]
pub enum Model {
    /// Always the same.
    Constant(Duration),
    /// One of these, each as likely as the others. Never empty.
    Empirical(Arc<[Duration]>),
    /// One after the other, from the beginning again after the last: a replay. Never empty.
    InOrder(Arc<[Duration]>),
    /// `exp` of a normal deviate: `median_secs × exp(sigma × z)`.
    LogNormal { median_secs: f64, sigma: f64 },
    /// Memoryless.
    Exponential { mean_secs: f64 },
}

/// An app with everything the engine does not know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct AppModel {
    pub spec: AppSpec,
    /// DOCKER_PULL, of the first start only: then it is cached. Starts that come while it still runs wait
    /// for its end. `None`: it is cached from the beginning.
    pub pull: Option<Model>,
    /// SETUP.
    pub setup: Model,
    /// Of requests that do not bring their own.
    pub service: Model,
    /// From being told to end until it has.
    pub exit: Model,
    /// How much slower one request gets by each other one on its runner: with `n` at once each proceeds
    /// at `1 / (1 + slowdown × (n - 1))` of its speed. 0: not at all; 1: they share the runner.
    pub slowdown: f64,
    pub faults: Faults,
}

/// How often things go wrong, as probabilities from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// A setup ends with a crash, at a moment within it.
    pub setup_crash: f64,
    /// A setup never ends by itself.
    pub setup_hang: f64,
    /// A runner dies with the request on it.
    pub crash: f64,
    /// An attempt is answered with status 500.
    pub error: f64,
}

impl Model {
    /// The lognormal that makes these times likeliest: the mean and the deviation of their logarithms.
    /// Times of nothing have no logarithm and are left out; if there are no others, the model is nothing.
    pub fn fit_lognormal(times: &[Duration]) -> Self {
        let logs: Vec<f64> = times
            .iter()
            .filter(|time| !time.is_zero())
            .map(|time| time.as_secs_f64().ln())
            .collect();
        if logs.is_empty() {
            return Self::Constant(Duration::ZERO);
        }
        let mean = mean(logs.iter().copied(), logs.len());
        let variance = self::mean(logs.iter().map(|log| (log - mean).powi(2)), logs.len());
        Self::LogNormal { median_secs: mean.exp(), sigma: variance.sqrt() }
    }

    pub fn mean(&self) -> Duration {
        match self {
            Self::Constant(time) => *time,
            Self::Empirical(times) | Self::InOrder(times) => {
                seconds(mean(times.iter().map(Duration::as_secs_f64), times.len()))
            }
            Self::LogNormal { median_secs, sigma } => {
                seconds(median_secs * (sigma * sigma / 2.0).exp())
            }
            Self::Exponential { mean_secs } => seconds(*mean_secs),
        }
    }

    /// The time that a share of all draws, from 0 to 1, does not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let share = share.clamp(0.0, 1.0);
        match self {
            Self::Constant(time) => *time,
            Self::Empirical(times) | Self::InOrder(times) => {
                let mut sorted = times.to_vec();
                sorted.sort_unstable();
                let at = nearest(share, sorted.len());
                sorted.get(at).copied().unwrap_or_default()
            }
            Self::LogNormal { median_secs, sigma } => {
                seconds(median_secs * (sigma * normal_quantile(share)).exp())
            }
            Self::Exponential { mean_secs } => seconds(-mean_secs * (1.0 - share).ln()),
        }
    }
}

/// Stops at the longest time there is: quantiles of 1 have no end.
pub(crate) fn seconds(secs: f64) -> Duration {
    Duration::try_from_secs_f64(secs.max(0.0)).unwrap_or(Duration::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a count far below 2^53")]
fn mean(values: impl Iterator<Item = f64>, count: usize) -> f64 {
    if count == 0 { 0.0 } else { values.sum::<f64>() / count as f64 }
}

/// The place among `count` sorted values that a share of them does not exceed.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a list"
)]
fn nearest(share: f64, count: usize) -> usize {
    ((share * count as f64).ceil() as usize).clamp(1, count.max(1)) - 1
}

/// The standard normal deviate that a share of all does not exceed, found by halving: right to 1e-12
/// within ±40.
fn normal_quantile(share: f64) -> f64 {
    const STEPS: usize = 60;
    let (mut low, mut high) = (-40.0_f64, 40.0_f64);
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        if normal_share(middle) < share {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The share of standard normal deviates below `deviate`: a power series near 0, a continued fraction in
/// the tails.
fn normal_share(deviate: f64) -> f64 {
    const TERMS: u32 = 200;
    const SERIES_UP_TO: f64 = 4.0;
    let density = (-deviate * deviate / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let distance = deviate.abs();
    let above = if distance < SERIES_UP_TO {
        let (mut term, mut sum) = (distance, distance);
        for nth in 1..TERMS {
            term *= distance * distance / f64::from(2 * nth + 1);
            sum += term;
        }
        0.5 - density * sum
    } else {
        let tail = (1..TERMS).rev().fold(distance, |rest, nth| distance + f64::from(nth) / rest);
        density / tail
    };
    if deviate > 0.0 { 1.0 - above } else { above }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
    }

    #[test]
    fn quantiles_of_the_normal_are_those_of_the_tables() {
        for (share, expected) in [
            (0.5, 0.0),
            (0.841_344_746_068_543, 1.0),
            (0.95, 1.644_853_626_951_47),
            (0.975, 1.959_963_984_540_05),
            (0.001, -3.090_232_306_167_81),
            (0.999_999, 4.753_424_308_822_9),
        ] {
            near(normal_quantile(share), expected, 1e-8);
        }
    }

    #[test]
    fn a_fit_finds_the_model_again() {
        let model = Model::LogNormal { median_secs: 3.0, sigma: 0.5 };
        let mut sampler = Sampler::new(&model, 1, Purpose::Setup, 0);
        let mut times: Vec<Duration> =
            (0..20_000).map(|_| Duration::from_micros(sampler.draw())).collect();
        // What took no time says nothing about what takes some.
        times.extend([Duration::ZERO; 100]);
        let Model::LogNormal { median_secs, sigma } = Model::fit_lognormal(&times) else {
            panic!("not a lognormal");
        };
        near(median_secs, 3.0, 0.03);
        near(sigma, 0.5, 0.01);
    }

    #[test]
    fn a_fit_of_nothing_is_nothing() {
        let nothing = Model::Constant(Duration::ZERO);
        assert_eq!(Model::fit_lognormal(&[]), nothing);
        assert_eq!(Model::fit_lognormal(&[Duration::ZERO]), nothing);
    }

    #[test]
    fn means_and_quantiles() {
        let secs: Arc<[Duration]> = [4, 1, 2, 3].map(Duration::from_secs).into();
        for (model, mean, median, p99) in [
            (Model::Constant(Duration::from_secs(2)), 2.0, 2.0, 2.0),
            (Model::Empirical(secs.clone()), 2.5, 2.0, 4.0),
            (Model::InOrder(secs), 2.5, 2.0, 4.0),
            (Model::LogNormal { median_secs: 2.0, sigma: 1.0 }, 3.297_442_5, 2.0, 20.480_948),
            (Model::Exponential { mean_secs: 2.0 }, 2.0, 1.386_294_4, 9.210_340_4),
        ] {
            near(model.mean().as_secs_f64(), mean, 1e-6);
            near(model.quantile(0.5).as_secs_f64(), median, 1e-6);
            near(model.quantile(0.99).as_secs_f64(), p99, 1e-5);
        }
        assert_eq!(Model::Exponential { mean_secs: 1.0 }.quantile(1.0), Duration::MAX);
    }
}
