//! Signs that somebody is about to use an app: its page was opened, the status of a request is asked for.
//!
//! ```text
//! with no runner alive one is started while
//!     chance that a request follows × worth of an avoided start
//!         > chance that none does × (a start and the life of the app's last runner)
//! with the last one idle, its idle time begins anew
//! ```
//!
//! The chance is learned: a sign is followed if a request comes within a start and that life. Signs that
//! come while one is still open are the same one, so that a page that asks every second says no more than
//! one that asks once. Signs while requests are served say nothing: the runner is in use.
//!
//! Signs alone keep a runner for one further life at most, and never beyond the longest time that idle
//! runners are kept.

use std::fmt;
use std::time::Duration;

use super::span;
use crate::time::{Pretty, Timestamp};

/// What the first estimate counts for: one of two signs is followed.
const PRIOR_SEEN: f64 = 2.0;
const PRIOR_FOLLOWED: f64 = 1.0;
/// What an older sign counts, for each newer one.
const FADE: f64 = 0.95;

/// The app's runner that goes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// There is no runner.
    None,
    /// It has no time of its own yet.
    Starting,
    Idle {
        since: Timestamp,
    },
}

/// What a start of the app takes and saves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stakes {
    pub start_secs: f64,
    /// Of an avoided start.
    pub worth_secs: f64,
    /// How long the app's last runner is kept.
    pub lifetime: Duration,
    pub keep_max: Duration,
}

/// A runner is wanted, since somebody is about to use the app.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interest {
    pub until: Timestamp,
    pub why: InterestWhy,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InterestWhy {
    /// Probability that a request follows.
    pub chance: f64,
    /// How long the runner is kept for it.
    pub lifetime: Duration,
    pub start: Duration,
    /// What it is worth to avoid a start, in time of a runner.
    pub worth: Duration,
}

impl fmt::Display for InterestWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "somebody shows interest in the app, and with {:.0} % a request follows within {}; a start takes {}, and \
             to avoid one is worth {} of a runner",
            self.chance * 100.0,
            Pretty(self.lifetime),
            Pretty(self.start),
            Pretty(self.worth)
        )
    }
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    interest: Interest,
    /// No sign moves the end beyond this.
    bound: Timestamp,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Interests {
    seen: f64,
    followed: f64,
    /// Up to when a request follows the last sign.
    open: Option<Timestamp>,
    hold: Option<Hold>,
}

impl Interests {
    /// Probability that a request follows a sign.
    pub(super) fn chance(&self) -> f64 {
        (self.followed + PRIOR_FOLLOWED) / (self.seen + PRIOR_SEEN)
    }

    /// Signs that the chance was learned from.
    pub(super) fn seen(&self) -> f64 {
        self.seen
    }

    /// A sign, while nothing is asked of the app.
    pub(super) fn sign(&mut self, now: Timestamp, last: Last, stakes: &Stakes) {
        let start = span(stakes.start_secs);
        if self.open.is_none_or(|until| until < now) {
            self.close(now);
            self.open = Some(now + start + stakes.lifetime);
        }
        let longest = (stakes.lifetime * 2).min(stakes.keep_max);
        let (anew, bound) = match last {
            Last::None => (now + start + stakes.lifetime, now + start + longest),
            Last::Starting => (now + stakes.lifetime, Timestamp::ZERO),
            Last::Idle { since } => (now + stakes.lifetime, since + longest),
        };
        if let Some(hold) = self.hold.as_mut().filter(|hold| hold.interest.until > now) {
            hold.interest.until = anew.min(hold.bound).max(hold.interest.until);
            return;
        }
        let until = anew.min(bound);
        let pays = last != Last::None || self.pays(stakes);
        let why = InterestWhy {
            chance: self.chance(),
            lifetime: stakes.lifetime,
            start,
            worth: span(stakes.worth_secs),
        };
        self.hold =
            (pays && until > now).then_some(Hold { interest: Interest { until, why }, bound });
    }

    fn pays(&self, stakes: &Stakes) -> bool {
        let chance = self.chance();
        let in_vain = stakes.start_secs + stakes.lifetime.as_secs_f64();
        chance * stakes.worth_secs > (1.0 - chance) * in_vain
    }

    /// A request came after a time without any.
    pub(super) fn requested(&mut self, now: Timestamp) {
        self.close(now);
        self.hold = None;
    }

    /// What became of the last sign is known.
    fn close(&mut self, now: Timestamp) {
        let Some(until) = self.open.take() else { return };
        self.seen = self.seen * FADE + 1.0;
        self.followed = self.followed * FADE + f64::from(u8::from(now <= until));
    }

    /// Whether a runner is wanted at this moment for a request that was announced.
    pub(super) fn wanted(&self, now: Timestamp) -> Option<Interest> {
        self.hold.map(|hold| hold.interest).filter(|interest| now < interest.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A start of 10 s, worth 130 s, and a life of 60 s.
    fn stakes() -> Stakes {
        Stakes {
            start_secs: 10.0,
            worth_secs: 130.0,
            lifetime: SECOND * 60,
            keep_max: SECOND * 600,
        }
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + secs)
    }

    fn until(interests: &Interests, now: Timestamp) -> Option<u64> {
        let interest = interests.wanted(now)?;
        Some((interest.until - at(0)).as_secs())
    }

    #[test]
    fn the_first_sign_starts_a_runner_and_a_request_ends_the_matter() {
        let mut interests = Interests::default();
        interests.sign(at(0), Last::None, &stakes());
        assert_eq!(until(&interests, at(0)), Some(70));
        assert_eq!(until(&interests, at(70)), None);
        interests.requested(at(30));
        assert_eq!(until(&interests, at(30)), None);
        assert!((interests.chance() - 2.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn signs_that_are_never_followed_stop_to_start_runners() {
        let mut interests = Interests::default();
        let mut started = Vec::new();
        for nth in 0..30 {
            let now = at(nth * 1_000);
            interests.sign(now, Last::None, &stakes());
            started.push(interests.wanted(now).is_some());
        }
        // 130/2 > 70/2 and 130/3 is less than 70 × 2/3.
        assert_eq!(started.iter().filter(|started| **started).count(), 1, "{started:?}");
        // It is learned as fast that they are followed again.
        for nth in 30..40 {
            interests.sign(at(nth * 1_000), Last::None, &stakes());
            interests.requested(at(nth * 1_000 + 20));
        }
        interests.sign(at(40_000), Last::None, &stakes());
        assert!(interests.wanted(at(40_000)).is_some(), "{}", interests.chance());
    }

    #[test]
    fn many_signs_at_a_time_are_one() {
        let mut interests = Interests::default();
        for secs in 0..70 {
            interests.sign(at(secs), Last::None, &stakes());
        }
        assert!(interests.seen().abs() < 1e-9, "it is still open");
        interests.requested(at(70));
        assert!((interests.seen() - 1.0).abs() < 1e-9);
        interests.sign(at(100), Last::None, &stakes());
        interests.requested(at(171));
        assert!((interests.chance() - 1.95 / 3.95).abs() < 1e-9, "too late to follow");
    }

    #[test]
    fn polling_alone_keeps_a_runner_for_one_further_life() {
        let idle = Last::Idle { since: at(0) };
        let poll = |keep_max: Duration| {
            let mut interests = Interests::default();
            for secs in (0..1_000).step_by(5) {
                interests.sign(at(secs), idle, &Stakes { keep_max, ..stakes() });
            }
            (0..1_000).rev().find(|secs| {
                let mut interests = Interests::default();
                for before in (0..=*secs).step_by(5) {
                    interests.sign(at(before), idle, &Stakes { keep_max, ..stakes() });
                }
                interests.wanted(at(*secs)).is_some()
            })
        };
        assert_eq!(poll(SECOND * 600), Some(119));
        assert_eq!(poll(SECOND * 90), Some(89), "the longest time for idle runners bounds it");
        assert_eq!(poll(SECOND * 60), Some(59));
    }

    #[test]
    fn what_still_starts_is_held_by_what_wanted_it() {
        let mut interests = Interests::default();
        interests.sign(at(0), Last::Starting, &stakes());
        assert_eq!(until(&interests, at(0)), None, "another reason has started it");
        interests.sign(at(0), Last::None, &stakes());
        interests.sign(at(9), Last::Starting, &stakes());
        assert_eq!(until(&interests, at(9)), Some(70), "not earlier than it was");
        interests.sign(at(40), Last::Idle { since: at(10) }, &stakes());
        assert_eq!(until(&interests, at(40)), Some(100));
        interests.sign(at(90), Last::Idle { since: at(10) }, &stakes());
        assert_eq!(until(&interests, at(90)), Some(130), "a start and two lives");
    }
}
