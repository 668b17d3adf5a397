//! Random numbers: a stream of its own for each purpose and app.
//!
//! So the nth request of an app takes as long, and its nth start too, whatever else is set differently:
//! two outcomes differ by what was changed, and not by luck.

use std::sync::Arc;
use std::time::Duration;

use rand_distr::{Distribution, Exp1, StandardNormal};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::Model;

/// What random numbers are drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Pull = 1,
    Setup,
    Service,
    Exit,
    StartFaults,
    RequestFaults,
    Untidiness,
}

/// The numbers of one purpose and app.
#[derive(Clone, Debug)]
pub(crate) struct Stream(Xoshiro256PlusPlus);

impl Stream {
    pub(crate) fn new(seed: u64, purpose: Purpose, app: u32) -> Self {
        let place = ((purpose as u64) << 32) | u64::from(app);
        Self(Xoshiro256PlusPlus::seed_from_u64(mix(seed ^ mix(place))))
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// From 0 up to, but without, 1.
    pub(crate) fn share(&mut self) -> f64 {
        share_of(self.bits())
    }
}

/// Scrambles a number: the finalizer of SplitMix64.
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Random bits as a number from 0 up to, but without, 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
pub(crate) fn share_of(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// A model with its stream.
#[derive(Clone, Debug)]
pub(crate) struct Sampler {
    model: Model,
    stream: Stream,
    /// Of those in order.
    next: usize,
}

impl Sampler {
    pub(crate) fn new(model: &Model, seed: u64, purpose: Purpose, app: u32) -> Self {
        Self { model: model.clone(), stream: Stream::new(seed, purpose, app), next: 0 }
    }

    /// In microseconds.
    pub(crate) fn draw(&mut self) -> u64 {
        match &self.model {
            Model::Constant(time) => micros(*time),
            Model::Empirical(times) => {
                let bits = self.stream.bits();
                pick(times, |count| scaled(bits, count))
            }
            Model::InOrder(times) => {
                let nth = self.next;
                self.next += 1;
                pick(times, |count| nth % count)
            }
            Model::LogNormal { median_secs, sigma } => {
                let deviate: f64 = StandardNormal.sample(&mut self.stream.0);
                micros_of_secs(median_secs * (sigma * deviate).exp())
            }
            Model::Exponential { mean_secs } => {
                let times_mean: f64 = Exp1.sample(&mut self.stream.0);
                micros_of_secs(mean_secs * times_mean)
            }
        }
    }
}

fn pick(times: &Arc<[Duration]>, nth: impl FnOnce(usize) -> usize) -> u64 {
    if times.is_empty() { 0 } else { micros(times[nth(times.len())]) }
}

/// Random bits as a number below `count`.
#[expect(clippy::cast_possible_truncation, reason = "less than a length")]
fn scaled(bits: u64, count: usize) -> usize {
    ((u128::from(bits) * count as u128) >> 64) as usize
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts saturate")]
fn micros_of_secs(secs: f64) -> u64 {
    (secs * 1e6 + 0.5) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_purpose_and_app() {
        let first = |seed, purpose, app| Stream::new(seed, purpose, app).bits();
        let one = first(1, Purpose::Setup, 0);
        assert_eq!(one, first(1, Purpose::Setup, 0));
        assert_ne!(one, first(2, Purpose::Setup, 0));
        assert_ne!(one, first(1, Purpose::Service, 0));
        assert_ne!(one, first(1, Purpose::Setup, 1));
    }

    #[test]
    fn draws_have_the_mean_of_their_model() {
        let secs = |list: &[u64]| list.iter().copied().map(Duration::from_secs).collect();
        for (model, tolerance) in [
            (Model::Constant(Duration::from_secs(3)), 0.0),
            (Model::Empirical(secs(&[1, 2, 9])), 0.05),
            (Model::InOrder(secs(&[1, 2, 9])), 0.001),
            (Model::LogNormal { median_secs: 2.0, sigma: 0.8 }, 0.05),
            (Model::Exponential { mean_secs: 5.0 }, 0.05),
        ] {
            let mut sampler = Sampler::new(&model, 7, Purpose::Service, 3);
            let count: u32 = 30_000;
            let sum: f64 =
                (0..count).map(|_| Duration::from_micros(sampler.draw()).as_secs_f64()).sum();
            let (found, expected) = (sum / f64::from(count), model.mean().as_secs_f64());
            assert!((found / expected - 1.0).abs() <= tolerance, "{model:?}: {found}");
        }
    }
}
