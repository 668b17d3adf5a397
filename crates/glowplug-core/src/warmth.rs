//! Warmth: what a runner's wake-up begins with.
//!
//! ```text
//! IDLE ─► FROZEN ─► ZYGOTE ─► SNAPSHOT ─► IMAGE CACHED ─► COLD
//! wakes sooner, costs more to hold          wakes later, costs less
//! ```
//!
//! A rung says how far up an app's next runner stands already. Lifecycle states stay fal's; the rung is
//! what is said beside them.

use std::fmt;
use std::time::Duration;

/// From the warmest to the coldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// A runner that is set up and waits.
    Idle,
    /// A runner that is set up and gets no processor until it is thawed.
    Frozen,
    /// A process that has imported what the app imports; the runner is forked from it.
    Zygote,
    /// The memory of a runner that was set up, kept on the disk.
    Snapshot,
    /// Nothing of a runner, but its image or environment is on the disk.
    ImageCached,
    /// Nothing: its image or environment must be fetched or built first.
    Cold,
}

impl Rung {
    /// From the warmest to the coldest.
    pub const ALL: [Self; 6] =
        [Self::Idle, Self::Frozen, Self::Zygote, Self::Snapshot, Self::ImageCached, Self::Cold];

    /// On the wire, in settings and as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Frozen => "frozen",
            Self::Zygote => "zygote",
            Self::Snapshot => "snapshot",
            Self::ImageCached => "image_cached",
            Self::Cold => "cold",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rung| rung.as_str() == name)
    }

    /// Its place in [`Rung::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// As the end of "it became ready …".
impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "from a warm runner",
            Self::Frozen => "from a frozen runner",
            Self::Zygote => "from a zygote",
            Self::Snapshot => "from a snapshot",
            Self::ImageCached => "from the disk",
            Self::Cold => "from nothing",
        })
    }
}

/// How long the wake-ups of one app took, by rung.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ladder([Option<Measured>; Rung::ALL.len()]);

/// Wake-ups from one rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    pub wakes: u64,
    /// Smoothed: each new one weighs a quarter.
    pub typical: Duration,
    pub last: Duration,
}

impl Ladder {
    /// Takes a wake-up in: from when the runner had its place to when it was ready.
    pub fn measured(&mut self, rung: Rung, took: Duration) {
        let known = &mut self.0[rung.index()];
        *known = Some(match *known {
            None => Measured { wakes: 1, typical: took, last: took },
            Some(known) => Measured {
                wakes: known.wakes.saturating_add(1),
                typical: known.typical.saturating_mul(3).saturating_add(took) / 4,
                last: took,
            },
        });
    }

    pub fn get(&self, rung: Rung) -> Option<Measured> {
        self.0[rung.index()]
    }

    /// What was measured, warmest first.
    pub fn rungs(&self) -> impl Iterator<Item = (Rung, Measured)> {
        Rung::ALL.into_iter().filter_map(|rung| Some((rung, self.get(rung)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_order_is_by_warmth() {
        for (place, rung) in Rung::ALL.into_iter().enumerate() {
            assert_eq!(Rung::parse(rung.as_str()), Some(rung));
            assert_eq!(rung.index(), place);
        }
        assert!(Rung::ALL.is_sorted());
        assert_eq!(Rung::parse("IDLE"), None);
    }

    #[test]
    fn a_ladder_leans_towards_what_was_measured_last() {
        let mut ladder = Ladder::default();
        assert_eq!(ladder.rungs().count(), 0);
        for millis in [400, 400, 800] {
            ladder.measured(Rung::Cold, Duration::from_millis(millis));
        }
        ladder.measured(Rung::Frozen, Duration::from_micros(900));
        let typical: Vec<(Rung, u64, u128)> = ladder
            .rungs()
            .map(|(rung, measured)| (rung, measured.wakes, measured.typical.as_micros()))
            .collect();
        assert_eq!(typical, [(Rung::Frozen, 1, 900), (Rung::Cold, 3, 500_000)]);
        ladder.measured(Rung::Cold, Duration::MAX);
        assert_eq!(ladder.get(Rung::Cold).map(|measured| measured.last), Some(Duration::MAX));
    }
}
