//! How often each runner of an app is asked for again: its first, its second, its third, and so on.
//!
//! Requests go to the runner that was used last, so the runner that has been idle longest is the one that
//! only the highest demand asks for. With `n` runners alive its level is `n`: it is used again exactly when
//! demand comes back to `n`, and it has been idle since demand last fell below. That makes every level a
//! question of its own: keep it warm until it is asked for again, or not?
//!
//! A level's clock runs only while it is idle, so that a long job does not look like a long silence.
//!
//! From level 8 on, neighbours share a band, four bands to each doubling, so that memory grows with the
//! logarithm of the runners: 48 bands at most, 24 bytes each, made when they are first reached.

use super::memory::Memory;
use crate::time::Timestamp;

/// Levels below this one have a band each.
const EXACT_BELOW: u32 = 8;

#[derive(Clone, Copy, Debug)]
struct Band {
    returns: Memory,
    /// When demand last fell below it. The memory is as of then.
    left: Timestamp,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Levels {
    demand: u32,
    bands: Vec<Band>,
}

/// What is known of a level that is idle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idle {
    pub returns: Memory,
    /// Since when.
    pub left: Timestamp,
}

impl Levels {
    pub(super) fn demand(&self) -> u32 {
        self.demand
    }

    /// Takes in that demand is `demand` runners from now on.
    pub(super) fn set(&mut self, now: Timestamp, demand: u32) {
        let (before, after) = (reached(self.demand), reached(demand));
        while self.bands.len() < after {
            self.bands.push(Band { returns: Memory::default(), left: now });
        }
        for band in self.bands.iter_mut().take(after).skip(before) {
            band.returns.note((now - band.left).as_secs_f64());
        }
        for band in self.bands.iter_mut().take(before).skip(after) {
            band.left = now;
        }
        self.demand = demand;
    }

    /// What is known of `level`, if demand ever reached it. `idle_since`: of its runner.
    pub(super) fn idle(&self, level: u32, idle_since: Timestamp) -> Option<Idle> {
        let band = self.bands.get(reached(level).checked_sub(1)?)?;
        // Demand may be inside the band and yet below this level.
        let in_use = reached(self.demand) >= reached(level);
        let left = if in_use { idle_since } else { band.left };
        Some(Idle { returns: band.returns, left })
    }
}

/// How many bands a demand reaches.
fn reached(demand: u32) -> usize {
    if demand < EXACT_BELOW {
        return demand as usize;
    }
    let octave = demand.ilog2();
    let quarter = (demand >> (octave - 2)) & 3;
    (EXACT_BELOW + (octave - EXACT_BELOW.ilog2()) * 4 + quarter) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::limits::RUNNERS_MAX;

    #[test]
    fn bands_are_exact_at_first_and_then_four_to_an_octave() {
        for (demand, bands) in [
            (0, 0),
            (1, 1),
            (7, 7),
            (8, 8),
            (9, 8),
            (10, 9),
            (12, 10),
            (14, 11),
            (15, 11),
            (16, 12),
            (31, 15),
            (32, 16),
        ] {
            assert_eq!(reached(demand), bands, "{demand}");
        }
        assert_eq!(reached(RUNNERS_MAX), 48);
        assert!((1..=RUNNERS_MAX).all(|level| reached(level) >= reached(level - 1)));
        assert_eq!(size_of::<Band>(), 24);
    }

    #[test]
    fn a_level_counts_its_own_returns() {
        let mut levels = Levels::default();
        let at = Timestamp::from_secs;
        // Demand 1, 2, 1, 2, 1, 0: the first level was reached once, the second twice.
        for (secs, demand) in [(0, 1), (1, 2), (2, 1), (3, 2), (4, 1), (5, 0)] {
            levels.set(at(secs), demand);
        }
        let count = |level| levels.idle(level, at(5)).map(|idle| idle.returns.count().round());
        assert_eq!([count(1), count(2), count(3)], [Some(1.0), Some(2.0), None]);
        let left = |level| levels.idle(level, at(9)).map(|idle| idle.left);
        assert_eq!([left(1), left(2)], [Some(at(5)), Some(at(4))]);
    }

    #[test]
    fn time_in_use_is_no_silence() {
        let (mut short, mut long) = (Levels::default(), Levels::default());
        for (levels, job_secs) in [(&mut short, 1), (&mut long, 3_000)] {
            let mut now = 0;
            for _ in 0..50 {
                levels.set(Timestamp::from_secs(now), 1);
                now += job_secs;
                levels.set(Timestamp::from_secs(now), 0);
                now += 10;
            }
        }
        let rate = |levels: &Levels| levels.idle(1, Timestamp::ZERO).map(|idle| idle.returns);
        assert_eq!(rate(&short), rate(&long));
    }

    #[test]
    fn inside_a_band_the_runner_itself_tells_since_when() {
        let mut levels = Levels::default();
        levels.set(Timestamp::from_secs(1), 15);
        levels.set(Timestamp::from_secs(2), 14);
        let idle_since = Timestamp::from_secs(2);
        assert_eq!(levels.idle(15, idle_since).map(|idle| idle.left), Some(idle_since));
    }
}
