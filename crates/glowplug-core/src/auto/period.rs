//! Apps that wake up like clockwork: a cron job, a health check, a report on the hour.
//!
//! Between two uses of such an app a runner would idle in vain for nearly all of the time, and yet each use
//! comes when it was to be expected. So the runner is started shortly before. (The idea of a prewarm before
//! the expected gap ends is that of the hybrid histogram of Shahrad et al., ATC 2020; a mean and its
//! deviation do in place of the histogram, since only sharp periods are acted on.)
//!
//! A period is believed after `TIMES_MIN` gaps in a row near their mean. One use that comes early or not at
//! all starts the count again.

use std::time::Duration;

use super::why::WakeWhy;
use crate::time::Timestamp;

/// Gaps in a row that must be alike.
const TIMES_MIN: u32 = 4;
/// How far a gap may be off the mean and still be like it.
const OFF_MAX: f64 = 0.1;
/// The newest gap weighs at least this much in the mean.
const WEIGHT_MIN: f64 = 0.125;
/// The runner is ready this many mean deviations before the use is expected, and is kept as long after.
const MARGIN: f64 = 2.0;

/// A time at which a runner should be ready without having been asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wake {
    /// When to start it.
    pub at: Timestamp,
    /// How long it is kept if nobody comes.
    pub until: Timestamp,
    pub why: WakeWhy,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Period {
    /// When demand last rose from nothing.
    last: Option<Timestamp>,
    mean_secs: f64,
    off_secs: f64,
    /// Gaps in a row that were alike.
    alike: u32,
}

impl Period {
    /// The app woke up: demand rose from nothing.
    pub(super) fn woke(&mut self, now: Timestamp) {
        let Some(last) = self.last.replace(now) else { return };
        let gap = (now - last).as_secs_f64();
        let off = (gap - self.mean_secs).abs();
        if self.alike == 0 || off > OFF_MAX * self.mean_secs {
            (self.mean_secs, self.off_secs, self.alike) = (gap, 0.0, 1);
            return;
        }
        self.alike = self.alike.saturating_add(1);
        let weight = (1.0 / f64::from(self.alike)).max(WEIGHT_MIN);
        self.mean_secs += (gap - self.mean_secs) * weight;
        // The first deviation is from a mean of one gap: it counts as it is.
        self.off_secs += (off - self.off_secs) * if self.alike == 2 { 1.0 } else { weight };
    }

    /// When to be ready for the next use, if it can be foretold, pays, and is not past.
    /// `start_secs`: of a mean start. `worth_secs`: of avoiding it.
    pub(super) fn wake(&self, now: Timestamp, start_secs: f64, worth_secs: f64) -> Option<Wake> {
        let margin = MARGIN * self.off_secs;
        // It idles from before the expected use until that, and is idle in vain at most twice as long.
        if self.alike < TIMES_MIN || start_secs + 2.0 * margin > worth_secs {
            return None;
        }
        let expected = self.last? + Duration::from_secs_f64(self.mean_secs);
        let lead = Duration::from_secs_f64(start_secs + margin);
        let at = Timestamp::ZERO + (expected - Timestamp::ZERO).saturating_sub(lead);
        let until = expected + Duration::from_secs_f64(margin.max(start_secs));
        let why = WakeWhy {
            times: self.alike,
            period: Duration::from_secs_f64(self.mean_secs),
            off: Duration::from_secs_f64(self.off_secs),
        };
        (now < until).then_some(Wake { at, until, why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(gaps: &[u64]) -> (Period, Timestamp) {
        let (mut period, mut now) = (Period::default(), Timestamp::from_secs(1_000_000));
        period.woke(now);
        for gap in gaps {
            now = now + Duration::from_secs(*gap);
            period.woke(now);
        }
        (period, now)
    }

    #[test]
    fn only_what_repeats_is_foretold() {
        for (gaps, foretold) in [
            (&[3_600, 3_600, 3_600][..], false),
            (&[3_600, 3_600, 3_600, 3_600], true),
            (&[3_600, 3_700, 3_550, 3_610, 3_600], true),
            (&[3_600, 3_600, 3_600, 3_600, 1_800], false),
            (&[3_600, 3_600, 3_600, 3_600, 7_200], false),
            (&[10, 3_600, 3_600, 3_600, 3_600], true),
            (&[60, 3_000, 200, 9_000, 40, 5_000], false),
        ] {
            let (period, now) = after(gaps);
            assert_eq!(period.wake(now, 20.0, 600.0).is_some(), foretold, "{gaps:?}");
        }
    }

    #[test]
    fn the_runner_is_ready_before_the_use() {
        let (period, last) = after(&[3_600; 6]);
        let wake = period.wake(last, 20.0, 300.0).expect("the period is known");
        let use_at = last + Duration::from_hours(1);
        assert_eq!(
            (use_at - wake.at, wake.until - use_at),
            (Duration::from_secs(20), Duration::from_secs(20))
        );
        assert_eq!(wake.why.times, 6);
        assert_eq!(period.wake(wake.until, 20.0, 300.0), None, "it is past");
    }

    #[test]
    fn what_costs_more_than_it_saves_is_left() {
        let (period, last) = after(&[36_000, 37_000, 35_000, 36_500, 36_000, 35_500]);
        assert_eq!(period.wake(last, 20.0, 300.0), None);
        assert!(period.wake(last, 20.0, 6_000.0).is_some());
    }
}
