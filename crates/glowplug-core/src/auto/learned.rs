//! What is known of one app, and what would be done by it now: for people to read.

use std::fmt;

use super::why::{KeptWhy, Ordinal};
use super::{Budget, Interest, Learner, Spare, Wake};
use crate::time::{Pretty, Timestamp};

/// Levels of an app that are told of. What is above them is like the last one, or was never used.
const LEVELS_MAX: u32 = 4;

/// The advice of a [`Learner`] at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    pub at: Timestamp,
    /// Runner-seconds that a second of waiting is worth at present.
    pub wait_price: f64,
    pub budget: Option<Budget>,
    /// What becomes of runners that turn idle now, by level.
    pub kept: Vec<KeptWhy>,
    pub spare: Option<Spare>,
    pub wake: Option<Wake>,
    pub interest: Option<Interest>,
    /// Probability that a request follows when somebody shows interest.
    pub follows: f64,
    /// Signs of interest that it was learned from.
    pub signs: f64,
}

impl Learner {
    /// What would be done now. `alive`: runners.
    pub fn learned(&self, now: Timestamp, alive: u32) -> Learned {
        let mut kept = Vec::new();
        for level in 1..=LEVELS_MAX {
            let why = self.kept(level, now).why;
            if level > alive.max(1) && why.returns <= 0.0 {
                break;
            }
            kept.push(why);
        }
        Learned {
            at: now,
            wait_price: self.wait_price(),
            budget: self.budget(),
            kept,
            spare: self.spare(now),
            wake: self.wake(now),
            interest: self.interest(now),
            follows: self.interests.as_ref().map_or(0.0, |interests| interests.chance()),
            signs: self.interests.as_ref().map_or(0.0, |interests| interests.seen()),
        }
    }
}

impl Learned {
    /// One sentence for each thing.
    pub fn sentences(&self) -> Vec<String> {
        let mut said = vec![self.price()];
        said.extend(self.kept.iter().map(kept));
        said.push(match &self.spare {
            Some(spare) => {
                let left = Pretty(spare.until - self.at);
                format!("a spare runner is wanted for another {left}: {}", spare.why)
            }
            None => "no spare runner is wanted".to_owned(),
        });
        said.push(self.wake.map_or_else(
            || "no use is foretold, since it does not come like clockwork".to_owned(),
            |wake| self.foretold(&wake),
        ));
        said.extend(self.interest.map(|interest| {
            let left = Pretty(interest.until - self.at);
            format!("a runner is wanted for another {left}: {}", interest.why)
        }));
        if self.signs > 0.0 {
            let (share, signs) = (self.follows * 100.0, self.signs);
            said.push(format!(
                "when somebody shows interest, a request follows with {share:.0} %, from {signs:.1} signs"
            ));
        }
        said
    }

    fn price(&self) -> String {
        let price = format!("a second of waiting is worth {:.1} runner-seconds", self.wait_price);
        match self.budget {
            None => price,
            Some(Budget { wait, share }) => format!(
                "{price} now, steered so that {} % of the requests wait longer than {}",
                Percent(share),
                Pretty(wait)
            ),
        }
    }

    fn foretold(&self, wake: &Wake) -> String {
        if wake.at <= self.at {
            let left = Pretty(wake.until - self.at);
            return format!("a runner is kept ready for another {left}: {}", wake.why);
        }
        format!("a runner will be started in {}: {}", Pretty(wake.at - self.at), wake.why)
    }
}

fn kept(why: &KeptWhy) -> String {
    let level = Ordinal(why.level);
    if why.lifetime.is_zero() {
        return format!("an idle {level} runner is not kept: {why}");
    }
    format!("an idle {level} runner is kept for {}: {why}", Pretty(why.lifetime))
}

/// A share as a percentage, without the digits that come from the division alone.
struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", (self.0 * 1e8).round() / 1e6)
    }
}
