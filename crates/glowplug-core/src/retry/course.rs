//! The course of one request through its attempts: what its caller said, and what it has used up.

use std::time::Duration;

use super::{Again, Budgets, Condition, Rules, Wish};
use crate::ids::RequestId;
use crate::request::Mode;

/// Attempts of one request in all, the first included (fal's ceiling).
pub const ATTEMPTS_MAX: u32 = 10;

/// How long requests wait between their attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// Longest wait before the second attempt; doubles from then on.
    pub first: Duration,
    pub max: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self { first: Duration::from_millis(250), max: Duration::from_secs(30) }
    }
}

/// How many additional attempts a request gets under which condition, and how many it has had. Small, since
/// every waiting request has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    forbidden: bool,
    /// The caller's budgets, by condition.
    asked: [Option<u8>; Condition::ALL.len()],
    /// Additional attempts so far, by condition.
    spent: [u8; Condition::ALL.len()],
    /// Attempts elsewhere, of which it is not known how they ended.
    before: u8,
}

impl Course {
    pub fn new(mode: Mode, wish: Wish) -> Self {
        // What is above the ceiling is the ceiling.
        let small = |budget: u32| u8::try_from(budget.min(ATTEMPTS_MAX)).unwrap_or(u8::MAX);
        let asked = match wish {
            Wish::Budgets(budgets) => Condition::ALL.map(|condition| budgets.of(condition)),
            Wish::Unsaid | Wish::Never => [None; Condition::ALL.len()],
        };
        Self {
            forbidden: mode == Mode::Direct || wish == Wish::Never,
            asked: asked.map(|budget| budget.map(small)),
            spent: [0; Condition::ALL.len()],
            before: 0,
        }
    }

    /// The request had so many attempts before. They count towards the ceiling, and use up no budget.
    #[must_use]
    pub fn after(self, attempts: u32) -> Self {
        Self { before: u8::try_from(attempts.min(ATTEMPTS_MAX)).unwrap_or(u8::MAX), ..self }
    }

    /// No attempt has ended here.
    pub fn is_new(&self) -> bool {
        self.spent_total() == 0
    }

    fn spent_total(&self) -> u32 {
        self.spent.iter().map(|spent| u32::from(*spent)).sum()
    }

    /// Nobody wants another attempt, however this one ends.
    pub fn forbid(&mut self) {
        self.forbidden = true;
    }

    /// Whether an attempt that ended so is followed by another, and under which condition. Counts it if so.
    pub fn go_on(&mut self, again: Again, rules: &Rules) -> Option<Condition> {
        let (condition, app_asks) = match again {
            Again::No => return None,
            Again::On(condition) => (condition, false),
            Again::Asked(condition) => (condition, true),
        };
        let attempts = 1 + u32::from(self.before) + self.spent_total();
        if self.forbidden || attempts >= ATTEMPTS_MAX {
            return None;
        }
        let caller = self.asked[condition as usize].map(u32::from);
        let spent = &mut self.spent[condition as usize];
        let allowed = match caller.or(rules.budgets.of(condition)) {
            Some(budget) => u32::from(*spent) < budget,
            None => app_asks || (condition.is_retried_unasked() && !rules.skip.contains(condition)),
        };
        if allowed {
            *spent += 1;
        }
        allowed.then_some(condition)
    }
}

impl Budgets {
    pub fn of(&self, condition: Condition) -> Option<u32> {
        match condition {
            Condition::Timeout => self.timeout,
            Condition::ClientError => self.client_error,
            Condition::ServerError => self.server_error,
            Condition::ConnectionError => self.connection_error,
        }
    }
}

impl Delays {
    /// How long a request waits after so many attempts: half of a time that doubles, and of the other half
    /// as much as its id says, so that requests that failed together do not come back together.
    pub fn after(&self, request: RequestId, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(16);
        let longest = self.max.min(self.first.saturating_mul(1 << doublings));
        let half = longest / 2;
        half + half.saturating_mul(luck(request, attempts)) / LUCK_MAX
    }
}

const LUCK_MAX: u32 = 1 << 10;

/// A number up to [`LUCK_MAX`] that follows from a request and an attempt without any pattern.
fn luck(request: RequestId, attempts: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "each half is meant")]
    let (high, low) = ((request.0 >> 64) as u64, request.0 as u64);
    let mut word = high ^ low.rotate_left(29) ^ (u64::from(attempts) << 58);
    // Two rounds of multiplying and folding carry every bit into every other.
    for odd in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        word = (word ^ (word >> 33)).wrapping_mul(odd);
    }
    u32::try_from(word >> 32).unwrap_or(0) % (LUCK_MAX + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::Conditions;

    /// How many additional attempts there are when every one ends in the same way.
    fn attempts(mode: Mode, wish: Wish, rules: Rules, again: Again) -> u32 {
        let mut course = Course::new(mode, wish);
        1 + u32::try_from(std::iter::from_fn(|| course.go_on(again, &rules)).take(99).count())
            .unwrap()
    }

    #[test]
    fn attempts_elsewhere_count_towards_the_ceiling() {
        let again = Again::On(Condition::ServerError);
        for (before, expected) in [(0, 9), (1, 8), (8, 1), (9, 0), (10, 0), (u32::MAX, 0)] {
            let mut course = Course::new(Mode::Queued, Wish::Unsaid).after(before);
            let rules = Rules::default();
            let more = std::iter::from_fn(|| course.go_on(again, &rules)).take(99).count();
            assert_eq!(more, expected, "after {before}");
        }
    }

    fn budgets(server_error: u32) -> Budgets {
        Budgets { server_error: Some(server_error), ..Budgets::default() }
    }

    #[test]
    fn who_has_the_last_word() {
        use Again::{Asked, No, On};
        use Condition::{ClientError, ConnectionError, ServerError, Timeout};
        use Mode::{Direct, Queued};
        use Wish::{Never, Unsaid};
        let plain = Rules::default();
        let app = |budgets| Rules { budgets, ..plain };
        let skip = |condition| Rules { skip: Conditions::from_iter([condition]), ..plain };
        let both = |budgets, condition| Rules { skip: skip(condition).skip, budgets };
        let caller = Wish::Budgets;
        for (mode, wish, rules, again, expected) in [
            // The platform: all but client errors, up to the ceiling.
            (Queued, Unsaid, plain, On(Timeout), 10),
            (Queued, Unsaid, plain, On(ServerError), 10),
            (Queued, Unsaid, plain, On(ConnectionError), 10),
            (Queued, Unsaid, plain, On(ClientError), 1),
            (Queued, Unsaid, plain, Asked(ServerError), 10),
            (Queued, Unsaid, plain, Asked(ClientError), 10),
            (Queued, Unsaid, plain, No, 1),
            // A direct call has one attempt, whatever anybody says.
            (Direct, Unsaid, plain, On(ServerError), 1),
            (Direct, caller(budgets(3)), app(budgets(3)), Asked(ServerError), 1),
            // The app's skip list, which its answers beat, and other conditions.
            (Queued, Unsaid, skip(ServerError), On(ServerError), 1),
            (Queued, Unsaid, skip(ServerError), On(Timeout), 10),
            (Queued, Unsaid, skip(ServerError), Asked(ServerError), 10),
            // The app's budgets, which beat its skip list, and bound its answers.
            (Queued, Unsaid, app(budgets(2)), On(ServerError), 3),
            (Queued, Unsaid, app(budgets(2)), On(Timeout), 10),
            (Queued, Unsaid, app(budgets(2)), Asked(ServerError), 3),
            (Queued, Unsaid, app(budgets(0)), On(ServerError), 1),
            (Queued, Unsaid, both(budgets(2), ServerError), On(ServerError), 3),
            (Queued, Unsaid, app(budgets(70_000)), On(ServerError), 10),
            // The caller's budgets, which beat the app's where they name the condition.
            (Queued, caller(budgets(1)), app(budgets(5)), On(ServerError), 2),
            (Queued, caller(budgets(5)), app(budgets(1)), On(ServerError), 6),
            (Queued, caller(budgets(4)), skip(ServerError), On(ServerError), 5),
            (Queued, caller(budgets(70_000)), plain, On(ServerError), 10),
            (Queued, caller(Budgets::default()), app(budgets(1)), On(ServerError), 2),
            // A budget may allow what the platform does not.
            (
                Queued,
                Unsaid,
                app(Budgets { client_error: Some(2), ..Budgets::default() }),
                On(ClientError),
                3,
            ),
            // The caller's No beats everything.
            (Queued, Never, app(budgets(5)), On(ServerError), 1),
            (Queued, Never, plain, Asked(ServerError), 1),
        ] {
            let found = attempts(mode, wish, rules, again);
            assert_eq!(found, expected, "{mode:?} {wish:?} {rules:?} {again:?}");
        }
    }

    #[test]
    fn each_condition_has_a_budget_of_its_own_below_one_ceiling() {
        use Condition::{ConnectionError, ServerError, Timeout};
        let budgets = Budgets { timeout: Some(1), server_error: Some(2), ..Budgets::default() };
        let rules = Rules { budgets, ..Rules::default() };
        let mut course = Course::new(Mode::Queued, Wish::Unsaid);
        let mut go_on = |condition| course.go_on(Again::On(condition), &rules).is_some();
        assert!(go_on(ServerError) && go_on(Timeout) && go_on(ServerError));
        assert!(!go_on(ServerError) && !go_on(Timeout));
        // Three were spent; of the ten, six are left beside the first.
        assert_eq!((0..20).filter(|_| go_on(ConnectionError)).count(), 6);
    }

    #[test]
    fn a_cancelled_request_is_not_tried_again() {
        let mut course = Course::new(Mode::Queued, Wish::Unsaid);
        course.forbid();
        assert_eq!(course.go_on(Again::On(Condition::ServerError), &Rules::default()), None);
    }

    #[test]
    fn waits_double_and_are_spread() {
        let delays = Delays::default();
        let delay = |request, attempts| delays.after(request, attempts);
        for attempts in 1..ATTEMPTS_MAX {
            let longest = delays.max.min(delays.first * (1 << (attempts - 1)));
            let waits: Vec<Duration> =
                (0..1_000).map(|id| delay(RequestId(id << 70), attempts)).collect();
            assert!(waits.iter().all(|wait| (longest / 2..=longest).contains(wait)));
            // A tenth of the span holds about a tenth of them.
            for tenth in 0..10 {
                let from = longest / 2 + longest / 20 * tenth;
                let held = waits.iter().filter(|wait| (from..from + longest / 20).contains(wait));
                let held = held.count();
                assert!((60..150).contains(&held), "{attempts} {tenth}: {held}");
            }
        }
        assert_eq!(delay(RequestId(7), 3), delay(RequestId(7), 3));
        assert_ne!(delay(RequestId(7), 3) / 2, delay(RequestId(8), 3) / 2);
    }
}
