//! What it is worth to an app that one start is avoided, in runner-seconds.
//!
//! ```text
//! worth = mean start × (1 + wait price) × rarity
//! ```
//!
//! An avoided start saves the runner-seconds of the start itself, and a request the wait for it, at a price
//! per second of waiting. The price is given, or steered by a budget: with every request the logarithm of
//! `1 + price` moves up if it waited too long and down if it did not, in the proportion at which the two
//! balance exactly when the stated share waits too long. However the traffic behaves, the share over `n`
//! requests then differs from the stated one by at most `limits / (STEP × n)` as long as the price is inside its limits
//! (the argument is that of adaptive conformal inference, Gibbs and Candès 2021).
//!
//! Rarity counts in favour of apps that are seldom used. To a busy app one start among thousands of requests
//! is nothing; to somebody who comes five times a week it is a fifth of all they see.

use std::time::Duration;

use super::{Budget, Settings};
use crate::time::Timestamp;

/// A start is assumed to take this long until one was measured.
const START_UNKNOWN_SECS: f64 = 20.0;
/// And a request to keep its runner for this long.
const SERVICE_UNKNOWN_SECS: f64 = 40.0;
/// The newest start weighs at least this much in the mean; before, all weigh the same.
const START_WEIGHT: f64 = 1.0 / 16.0;
const SERVICE_WEIGHT: f64 = 1.0 / 16.0;
/// A mean start is never taken to be shorter, so that a lifetime is never a few milliseconds.
const START_SECS_MIN: f64 = 0.1;

/// How far one late request moves the logarithm of the price; one in time moves it back by a fraction.
const STEP: f64 = 0.1;
/// Bounds of a steered price, in runner-seconds for a second of waiting.
pub(super) const WAIT_PRICE_MAX: f64 = 120.0;
const WAIT_PRICE_MIN: f64 = 0.5;

/// What the use of an app is counted over.
const USE_SECS: f64 = 3.0 * 86_400.0;
/// An app with this much use is worth its plain price.
const USE_USUAL: f64 = 50.0;
/// The price changes with this power of the use.
const USE_POWER: f64 = 0.1;
const RARITY_MIN: f64 = 0.5;
const RARITY_MAX: f64 = 2.0;

/// Mean of durations: of all at first, then of the last ones.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Mean {
    secs: f64,
    seen: u32,
}

impl Mean {
    fn note(&mut self, took: Duration, weight_min: f64) {
        self.seen = self.seen.saturating_add(1);
        let weight = (1.0 / f64::from(self.seen)).max(weight_min);
        self.secs += (took.as_secs_f64() - self.secs) * weight;
    }

    fn or(self, unknown_secs: f64) -> f64 {
        if self.seen == 0 { unknown_secs } else { self.secs }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Worth {
    budget: Option<Budget>,
    /// Of `1 + price`.
    logarithm: f64,
    start: Mean,
    service: Mean,
    /// By how much a start differs from the one before.
    spread: Mean,
    last_start: Option<Duration>,
    uses: f64,
    used_at: Timestamp,
}

impl Worth {
    pub(super) fn new(settings: &Settings) -> Self {
        let price = match settings.budget {
            Some(_) => settings.wait_price.clamp(WAIT_PRICE_MIN, WAIT_PRICE_MAX),
            None => settings.wait_price.max(0.0),
        };
        Self {
            budget: settings.budget,
            logarithm: price.ln_1p(),
            start: Mean::default(),
            service: Mean::default(),
            spread: Mean::default(),
            last_start: None,
            uses: 0.0,
            used_at: Timestamp::ZERO,
        }
    }

    /// Aims for something else, with what is known. A price that is steered already is steered on.
    pub(super) fn configure(&mut self, settings: &Settings) {
        if self.budget.is_none() || settings.budget.is_none() {
            self.logarithm = Self::new(settings).logarithm;
        }
        self.budget = settings.budget;
    }

    /// Demand has risen.
    pub(super) fn used(&mut self, now: Timestamp) {
        self.uses = self.uses * (-(now - self.used_at).as_secs_f64() / USE_SECS).exp() + 1.0;
        self.used_at = now;
    }

    pub(super) fn started(&mut self, took: Duration) {
        self.start.note(took, START_WEIGHT);
        if let Some(last) = self.last_start.replace(took) {
            self.spread.note(took.abs_diff(last), START_WEIGHT);
        }
    }

    pub(super) fn served(&mut self, took: Duration) {
        self.service.note(took, SERVICE_WEIGHT);
    }

    /// Steers the price, if there is a budget.
    pub(super) fn waited(&mut self, wait: Duration) {
        let Some(budget) = self.budget else { return };
        let late = if wait > budget.wait { 1.0 } else { 0.0 };
        let moved = self.logarithm + STEP * (late - budget.share.clamp(0.0, 1.0));
        self.logarithm = moved.clamp(WAIT_PRICE_MIN.ln_1p(), WAIT_PRICE_MAX.ln_1p());
    }

    pub(super) fn budget(&self) -> Option<Budget> {
        self.budget
    }

    pub(super) fn start_secs(&self) -> f64 {
        self.start.or(START_UNKNOWN_SECS).max(START_SECS_MIN)
    }

    pub(super) fn service_secs(&self) -> f64 {
        self.service.or(SERVICE_UNKNOWN_SECS)
    }

    /// How much sooner the first of two starts is ready than a single one, on average: half of what two
    /// differ by. Starts in a row are compared, so what makes them all slow or all fast does not count.
    pub(super) fn sooner_secs(&self) -> f64 {
        self.spread.or(0.0) / 2.0
    }

    /// Runner-seconds that one second of waiting is worth.
    pub(super) fn wait_price(&self) -> f64 {
        self.logarithm.exp_m1()
    }

    /// Runner-seconds that one avoided start is worth.
    pub(super) fn secs(&self) -> f64 {
        self.plain_secs() * self.rarity()
    }

    /// The same for an app that is used as often as most.
    pub(super) fn plain_secs(&self) -> f64 {
        self.start_secs() * self.logarithm.exp()
    }

    /// Runner-seconds that it is worth to have the first of two starts and not wait for a single one.
    pub(super) fn sooner_worth_secs(&self) -> f64 {
        self.sooner_secs() * self.wait_price() * self.rarity()
    }

    /// Use is as of the last one: an app does not become rarer while it rests.
    fn rarity(&self) -> f64 {
        let uses = self.uses.max(1.0);
        (USE_POWER * (USE_USUAL / uses).ln()).exp().clamp(RARITY_MIN, RARITY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_avoided_start_is_worth_the_start_and_the_wait() {
        let check = |price, start_secs, uses, expected: f64| {
            let mut worth = Worth::new(&Settings { wait_price: price, ..Settings::default() });
            worth.started(SECOND * start_secs);
            (0..uses).for_each(|_| worth.used(Timestamp::ZERO));
            assert!((worth.secs() / expected - 1.0).abs() < 0.01, "{} of {expected}", worth.secs());
        };
        check(0.0, 10, 50, 10.0);
        check(12.0, 10, 50, 130.0);
        check(12.0, 40, 50, 520.0);
        check(12.0, 10, 1, 192.0);
        check(12.0, 10, 5_000, 82.0);
    }

    #[test]
    fn the_mean_forgets_slowly() {
        let mut worth = Worth::new(&Settings::default());
        assert!((worth.start_secs() - START_UNKNOWN_SECS).abs() < 1e-9);
        worth.started(SECOND * 10);
        worth.started(SECOND * 20);
        assert!((worth.start_secs() - 15.0).abs() < 1e-9);
        (0..200).for_each(|_| worth.started(SECOND * 2));
        assert!((worth.start_secs() - 2.0).abs() < 0.1);
    }

    #[test]
    fn a_budget_moves_the_price_until_its_share_waits() {
        let budget = Budget { wait: SECOND * 2, share: 0.1 };
        let mut worth = Worth::new(&Settings { budget: Some(budget), ..Settings::default() });
        let first = worth.wait_price();
        // One late request of ten: the price stays where it is.
        for nth in 0..1_000 {
            worth.waited(if nth % 10 == 9 { SECOND * 3 } else { SECOND });
        }
        assert!((worth.wait_price() / first - 1.0).abs() < 0.01);
        (0..10).for_each(|_| worth.waited(SECOND * 3));
        assert!(worth.wait_price() > first * 2.0);
        (0..10_000).for_each(|_| worth.waited(SECOND * 3));
        assert!((worth.wait_price() - WAIT_PRICE_MAX).abs() < 1e-6);
        (0..10_000).for_each(|_| worth.waited(SECOND));
        assert!((worth.wait_price() - WAIT_PRICE_MIN).abs() < 1e-6);
    }
}
