//! Distributions of waits: small, exact in count and mean, and known to a fixed relative error.

use std::time::Duration;

use super::ratio;

/// A distribution of waits. Those of nothing are counted apart.
///
/// A wait is counted in a bucket by its leading bits. Only buckets between the shortest and the longest
/// wait seen have a count in memory, so that many apps with few kinds of waits stay small.
#[derive(Clone, Debug)]
pub struct Waits {
    none: u64,
    some: u64,
    sum_micros: u128,
    longest_micros: u64,
    /// Number of the first bucket that is kept.
    first: u32,
    counts: Vec<u32>,
    /// Bits kept of a wait after its leading one: the width of a bucket is 2^-bits of its values.
    bits: u32,
}

impl Waits {
    pub(super) fn new(bits: u32) -> Self {
        Self {
            none: 0,
            some: 0,
            sum_micros: 0,
            longest_micros: 0,
            first: 0,
            counts: Vec::new(),
            bits,
        }
    }

    pub(crate) fn record(&mut self, wait: Duration) {
        if wait.is_zero() {
            self.none += 1;
            return;
        }
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        self.some += 1;
        self.sum_micros += u128::from(micros);
        self.longest_micros = self.longest_micros.max(micros);
        let at = self.make_room(self.bucket(micros));
        self.counts[at] = self.counts[at].saturating_add(1);
    }

    /// So many waits of nothing.
    pub(crate) fn record_none(&mut self, count: u64) {
        self.none += count;
    }

    /// Where a bucket's count is, after making it one that is kept.
    fn make_room(&mut self, bucket: u32) -> usize {
        if self.counts.is_empty() {
            self.first = bucket;
        }
        if bucket < self.first {
            let missing = (self.first - bucket) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, missing));
            self.first = bucket;
        }
        let at = (bucket - self.first) as usize;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        at
    }

    /// Of values below `2^(bits + 1)` each has its own bucket; then there are `2^bits` to each doubling.
    fn bucket(&self, micros: u64) -> u32 {
        let length = u64::BITS - micros.leading_zeros();
        let dropped = length.saturating_sub(self.bits + 1);
        let leading = u32::try_from(micros >> dropped).unwrap_or(u32::MAX);
        (dropped << self.bits) + leading
    }

    /// The middle of a bucket, in microseconds.
    fn middle(&self, bucket: u32) -> u64 {
        let dropped = (bucket >> self.bits).saturating_sub(1);
        let leading = u64::from(bucket - (dropped << self.bits));
        (leading << dropped) + ((1u64 << dropped) - 1) / 2
    }

    pub fn count(&self) -> u64 {
        self.none + self.some
    }

    pub fn mean(&self) -> Duration {
        match self.count() {
            0 => Duration::ZERO,
            #[expect(clippy::cast_precision_loss, reason = "a mean needs no more digits")]
            count => Duration::from_secs_f64(self.sum_micros as f64 / 1e6 / count as f64),
        }
    }

    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.longest_micros)
    }

    /// The wait that a share of all requests, from 0 to 1, does not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut left = rank(share, self.count());
        if left <= self.none {
            return Duration::ZERO;
        }
        left -= self.none;
        for (bucket, count) in (self.first..).zip(&self.counts) {
            let count = u64::from(*count);
            if left <= count {
                return Duration::from_micros(self.middle(bucket).min(self.longest_micros));
            }
            left -= count;
        }
        self.longest()
    }

    /// Share of requests that waited longer. 0 without requests.
    pub fn share_over(&self, limit: Duration) -> f64 {
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let of_limit = self.bucket(micros);
        let within: u64 = (self.first..)
            .zip(&self.counts)
            .take_while(|(bucket, _)| *bucket <= of_limit && micros > 0)
            .map(|(_, count)| u64::from(*count))
            .sum();
        ratio(self.some.saturating_sub(within), self.count())
    }
}

/// The how-manieth of `count` a quantile is, from 1.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank among up to 2^53 values"
)]
fn rank(share: f64, count: u64) -> u64 {
    // Shares such as 0.91 have no exact form: without the slack 91 of 100 would become the 92nd.
    const SLACK: f64 = 1e-9;
    ((share.clamp(0.0, 1.0) * count as f64 * (1.0 - SLACK)).ceil() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{BITS_OVER_ALL, BITS_PER_APP};

    #[test]
    fn waits_of_nothing_count() {
        let mut waits = Waits::new(BITS_OVER_ALL);
        waits.record_none(45);
        for _ in 0..45 {
            waits.record(Duration::ZERO);
        }
        for secs in 1..=10 {
            waits.record(Duration::from_secs(secs));
        }
        assert_eq!(waits.count(), 100);
        assert_eq!(waits.mean(), Duration::from_secs_f64(0.55));
        assert_eq!(waits.quantile(0.5), Duration::ZERO);
        assert_eq!(waits.quantile(0.9), Duration::ZERO);
        let near = |share: f64, secs: f64| {
            let found = waits.quantile(share).as_secs_f64();
            assert!((found / secs - 1.0).abs() < 0.001, "{share}: {found} is not {secs}");
        };
        near(0.91, 1.0);
        near(0.95, 5.0);
        near(0.99, 9.0);
        near(1.0, 10.0);
        assert!((waits.share_over(Duration::from_secs(5)) - 0.05).abs() < 1e-9);
        assert!((waits.share_over(Duration::ZERO) - 0.10).abs() < 1e-9);
        assert_eq!(Waits::new(BITS_PER_APP).quantile(0.5), Duration::ZERO);
        assert!(Waits::new(BITS_PER_APP).share_over(Duration::ZERO) <= 0.0);
    }

    #[test]
    fn the_error_is_bounded_at_every_size() {
        for (bits, error) in [(BITS_OVER_ALL, 0.001), (BITS_PER_APP, 0.01)] {
            // From long to short, so that room has to be made in front.
            for shift in (0..63).rev() {
                for micros in [1u64 << shift, (1 << shift) + (1 << shift) / 3, (2 << shift) - 1] {
                    let mut waits = Waits::new(bits);
                    waits.record(Duration::from_micros(micros.saturating_mul(2)));
                    waits.record(Duration::from_micros(micros));
                    let found = waits.quantile(0.5).as_secs_f64();
                    let exact = Duration::from_micros(micros).as_secs_f64();
                    assert!((found / exact - 1.0).abs() <= error, "{exact}: {found}");
                }
            }
        }
    }
}
