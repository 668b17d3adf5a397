//! The reasons of learned decisions, with the numbers they were made from.

use std::fmt;
use std::time::Duration;

use crate::time::{Pretty, Timestamp};

/// How long an idle runner is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kept {
    pub until: Timestamp,
    pub why: KeptWhy,
}

/// Why for so long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeptWhy {
    /// 1: the app's last runner.
    pub level: u32,
    /// How often it was asked for again of late: a count that fades over a hundred minutes of its idle time.
    pub returns: f64,
    pub lifetime: Duration,
    /// A mean start.
    pub start: Duration,
    /// What it is worth to avoid one, in time of a runner.
    pub worth: Duration,
    pub bound: KeptBound,
}

/// What set the lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptBound {
    /// Demand never asked for such a runner.
    NeverUsed,
    /// After that time it is asked for too seldom.
    Returns,
    /// The least that an app's last runner gets.
    Floor,
    /// The most that its worth allows, however often it was asked for.
    BreakEven,
    /// The most that any runner gets.
    Longest,
}

impl fmt::Display for KeptWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (level, lifetime) = (Ordinal(self.level), Pretty(self.lifetime));
        let (start, worth) = (Pretty(self.start), Pretty(self.worth));
        match self.bound {
            KeptBound::NeverUsed => {
                return write!(f, "demand never asked for a {level} runner");
            }
            KeptBound::Returns => write!(
                f,
                "the {level} runner was asked for again {:.1} times in its last 100 idle minutes, and after {lifetime} \
                 that is too seldom to wait for",
                self.returns
            )?,
            KeptBound::Floor => {
                write!(f, "the last runner of an app is kept for at least {lifetime}")?;
            }
            KeptBound::BreakEven => write!(
                f,
                "the {level} runner was asked for again {:.1} times in its last 100 idle minutes, but is kept \
                 for {lifetime} at most, twice what it is worth",
                self.returns
            )?,
            KeptBound::Longest => write!(f, "no idle runner is kept for more than {lifetime}")?,
        }
        write!(f, "; a start takes {start}, and to avoid one is worth {worth} of a runner")
    }
}

/// Why a spare runner is wanted although demand does not ask for one yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpareWhy {
    /// Probability that another request comes while a spare runner helps it.
    pub chance: f64,
    /// How much sooner the first of two starts is ready than a single one.
    pub sooner: Duration,
    /// How long what there is will be starting and busy.
    pub busy: Duration,
    pub start: Duration,
    /// What it is worth to avoid a start, in time of a runner.
    pub worth: Duration,
}

impl fmt::Display for SpareWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the app wakes up and what starts now is busy for {}; with {:.0} % another request comes that a spare \
             runner helps, and the first of two starts is ready {} sooner; a start takes {}, and to avoid one is \
             worth {} of a runner",
            Pretty(self.busy),
            self.chance * 100.0,
            Pretty(self.sooner),
            Pretty(self.start),
            Pretty(self.worth)
        )
    }
}

/// Why a runner is started before its request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WakeWhy {
    /// How often in a row the app woke up this long after the time before.
    pub times: u32,
    pub period: Duration,
    /// How far the last ones were off, on average.
    pub off: Duration,
}

impl fmt::Display for WakeWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the last {} uses came every {}, {} off on average",
            self.times,
            Pretty(self.period),
            Pretty(self.off)
        )
    }
}

/// 1st, 2nd, 3rd, 4th.
pub(super) struct Ordinal(pub(super) u32);

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match (self.0 % 10, self.0 % 100) {
            (_, 11..=13) => "th",
            (1, _) => "st",
            (2, _) => "nd",
            (3, _) => "rd",
            _ => "th",
        };
        write!(f, "{}{suffix}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn reasons_are_sentences_with_their_numbers() {
        let kept = |bound, level| {
            KeptWhy {
                level,
                returns: 14.2,
                lifetime: SECOND * 150,
                start: SECOND * 20,
                worth: SECOND * 300,
                bound,
            }
            .to_string()
        };
        let tail = "; a start takes 20.0 s, and to avoid one is worth 5 min of a runner";
        for (said, expected) in [
            (
                kept(KeptBound::Returns, 2),
                format!("the 2nd runner was asked for again 14.2 times in its last 100 idle minutes, and after 2 min 30 s that is too seldom to wait for{tail}"),
            ),
            (kept(KeptBound::Floor, 1), format!("the last runner of an app is kept for at least 2 min 30 s{tail}")),
            (
                kept(KeptBound::BreakEven, 2),
                format!("the 2nd runner was asked for again 14.2 times in its last 100 idle minutes, but is kept for 2 min 30 s at most, twice what it is worth{tail}"),
            ),
            (kept(KeptBound::Longest, 1), format!("no idle runner is kept for more than 2 min 30 s{tail}")),
            (kept(KeptBound::NeverUsed, 3), "demand never asked for a 3rd runner".to_owned()),
            (
                WakeWhy { times: 5, period: SECOND * 600, off: SECOND * 12 }.to_string(),
                "the last 5 uses came every 10 min, 12.0 s off on average".to_owned(),
            ),
            (
                SpareWhy { chance: 0.312, sooner: SECOND * 4, busy: SECOND * 45, start: SECOND * 20, worth: SECOND * 300 }.to_string(),
                "the app wakes up and what starts now is busy for 45.0 s; with 31 % another request comes that a spare runner helps, and the first of two starts is ready 4.00 s sooner; a start takes 20.0 s, and to avoid one is worth 5 min of a runner".to_owned(),
            ),
        ] {
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn ordinals_read_as_spoken() {
        let said: Vec<String> =
            [1, 2, 3, 4, 11, 12, 21, 112, 123].iter().map(|n| Ordinal(*n).to_string()).collect();
        assert_eq!(said, ["1st", "2nd", "3rd", "4th", "11th", "12th", "21st", "112th", "123rd"]);
    }
}
