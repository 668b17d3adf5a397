//! What follows when an app wakes up with no runner ready: is one request alone, or are there more?
//!
//! The estimate begins with what the app's rises of demand let expect and moves to what followed its own
//! earlier wakes: a job that comes alone gets no spare runner after a few times, a person who asks again
//! does.

use std::time::Duration;

use crate::time::Timestamp;

/// How many wakes the first estimate counts for.
const PRIOR_WAKES: f64 = 4.0;
/// What an older wake counts, for each newer one.
const FADE: f64 = 0.95;

/// What is to be told apart after one wake, as times after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    /// A rise of demand in here would be helped by a spare runner.
    pub helped_from: Duration,
    pub helped_to: Duration,
    /// Without a rise up to here, a spare runner was in vain.
    pub end: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    since: Timestamp,
    window: Window,
    helped: bool,
    alone: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Wakes {
    seen: f64,
    helped: f64,
    alone: f64,
    open: Option<Open>,
}

impl Wakes {
    /// The app wakes up. What followed the last time is now known.
    pub(super) fn woke(&mut self, now: Timestamp, window: Window) {
        let open = Open { since: now, window, helped: false, alone: true };
        let Some(last) = self.open.replace(open) else { return };
        self.seen = self.seen * FADE + 1.0;
        self.helped = self.helped * FADE + f64::from(u8::from(last.helped));
        self.alone = self.alone * FADE + f64::from(u8::from(last.alone));
    }

    /// Demand rose.
    pub(super) fn rose(&mut self, now: Timestamp) {
        let Some(open) = self.open.as_mut() else { return };
        let after = now - open.since;
        open.alone &= after >= open.window.end;
        open.helped |= (open.window.helped_from..open.window.helped_to).contains(&after);
    }

    /// Probability that a spare runner helps, beginning from `expected`.
    pub(super) fn chance_helped(&self, expected: f64) -> f64 {
        (self.helped + PRIOR_WAKES * expected) / (self.seen + PRIOR_WAKES)
    }

    /// Probability that it is in vain.
    pub(super) fn chance_alone(&self, expected: f64) -> f64 {
        (self.alone + PRIOR_WAKES * expected) / (self.seen + PRIOR_WAKES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_moves_to_what_followed() {
        let secs = Duration::from_secs;
        let window = Window { helped_from: secs(10), helped_to: secs(30), end: secs(40) };
        // After each wake, demand rises again this many seconds later.
        for (again, helped, alone) in [
            (None, 0.02, 0.95),
            (Some(5), 0.02, 0.15),
            (Some(20), 0.75, 0.15),
            (Some(35), 0.02, 0.15),
            (Some(60), 0.02, 0.95),
        ] {
            let mut wakes = Wakes::default();
            assert!((wakes.chance_helped(0.1) - 0.1).abs() < 1e-9);
            for nth in 0..40 {
                let now = Timestamp::from_secs(nth * 10_000);
                wakes.woke(now, window);
                if let Some(after) = again {
                    wakes.rose(now + secs(after));
                }
            }
            let found = (wakes.chance_helped(0.1), wakes.chance_alone(0.8));
            assert!(
                (found.0 - helped).abs() < 0.1 && (found.1 - alone).abs() < 0.1,
                "{again:?}: {found:?}"
            );
        }
    }
}
