//! What becomes of a webhook after a call.

use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_gateway::webhook::{Outcome, WebhookOptions};
use glowplug_store::{Delivery, DeliveryState};

/// The longest pause is never less.
const DELAY_MAX_LEAST: Duration = Duration::from_secs(1);
/// A pause is up to this share of itself shorter or longer, so that calls that failed together do not come
/// back together.
const JITTER: f64 = 0.2;

/// Pauses that double from call to call, up to one that spreads the rest over the life of the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    calls_max: u32,
    first_delay: Duration,
    delay_max: Duration,
    /// How long an answer is kept.
    retention: Duration,
}

impl Schedule {
    pub(super) fn new(options: &WebhookOptions, retention: Duration) -> Self {
        let pauses = options.calls_max.saturating_sub(1).max(1);
        Self {
            calls_max: options.calls_max,
            first_delay: options.first_delay,
            delay_max: (retention / pauses).max(DELAY_MAX_LEAST),
            retention,
        }
    }

    /// The state after a call that ended `now`, and why the call did not count. `luck`: within 0 and 1.
    pub(super) fn after(
        &self,
        delivery: &Delivery,
        outcome: &Outcome,
        now: Timestamp,
        luck: f64,
    ) -> (DeliveryState, Option<String>) {
        let problem = match outcome {
            Outcome::Answered(200..300) => return (DeliveryState::Delivered, None),
            Outcome::Answered(status @ 300..400) => {
                let problem = format!("answered {status}, and webhooks do not follow redirects");
                return (DeliveryState::Failed, Some(problem));
            }
            Outcome::Refused(reason) => return (DeliveryState::Failed, Some(reason.clone())),
            Outcome::Answered(status) => format!("answered {status}, and only 2xx counts"),
            Outcome::Failed(reason) => reason.clone(),
        };
        let calls = delivery.attempts.saturating_add(1);
        let again_at = now + self.pause(calls, luck);
        let expires_at = delivery.completed_at + self.retention;
        if calls >= self.calls_max {
            let problem = format!("{problem}; that was the last of {calls} calls");
            return (DeliveryState::Failed, Some(problem));
        }
        if again_at >= expires_at {
            let problem = format!("{problem}; the answer is dropped before the next call");
            return (DeliveryState::Failed, Some(problem));
        }
        (DeliveryState::Due(again_at), Some(problem))
    }

    fn pause(&self, calls: u32, luck: f64) -> Duration {
        let doublings = calls.saturating_sub(1).min(31);
        let even = self.first_delay.saturating_mul(1 << doublings).min(self.delay_max);
        even.mul_f64(1.0 + JITTER * (2.0 * luck - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use glowplug_core::RequestId;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const END: Timestamp = Timestamp::from_secs(1_000_000);

    fn delivery(attempts: u32) -> Delivery {
        Delivery {
            request: RequestId(1),
            url: "http://h/".to_owned(),
            caller: String::new(),
            completed_at: END,
            attempts,
        }
    }

    fn schedule(retention: Duration) -> Schedule {
        Schedule::new(&WebhookOptions::default(), retention)
    }

    #[test]
    fn an_outcome_decides() {
        let failed = |problem: &str| (Err(()), problem.to_owned());
        let again = |problem: &str| (Ok(()), problem.to_owned());
        for (outcome, (state, problem)) in [
            (Outcome::Answered(301), failed("redirects")),
            (Outcome::Answered(308), failed("redirects")),
            (Outcome::Answered(399), failed("redirects")),
            (Outcome::Refused("not there".to_owned()), failed("not there")),
            (Outcome::Answered(101), again("only 2xx")),
            (Outcome::Answered(400), again("only 2xx")),
            (Outcome::Answered(404), again("only 2xx")),
            (Outcome::Answered(410), again("only 2xx")),
            (Outcome::Answered(429), again("only 2xx")),
            (Outcome::Answered(500), again("only 2xx")),
            (Outcome::Answered(503), again("only 2xx")),
            (Outcome::Failed("no answer".to_owned()), again("no answer")),
        ] {
            let (next, said) = schedule(HOUR).after(&delivery(0), &outcome, END, 0.5);
            let expected = match state {
                Ok(()) => DeliveryState::Due(END + Duration::from_secs(5)),
                Err(()) => DeliveryState::Failed,
            };
            assert_eq!(next, expected, "{outcome:?}");
            assert!(said.unwrap().contains(&problem), "{outcome:?}");
        }
        for status in [200, 201, 204, 299] {
            let after = schedule(HOUR).after(&delivery(40), &Outcome::Answered(status), END, 0.5);
            assert_eq!(after, (DeliveryState::Delivered, None));
        }
    }

    /// The times of all calls to a receiver that fails each one at once, in seconds from the end.
    fn calls(retention: Duration, luck: impl Fn(u32) -> f64) -> (Vec<f64>, String) {
        let schedule = schedule(retention);
        let mut now = END;
        let mut times = Vec::new();
        loop {
            let attempts = u32::try_from(times.len()).unwrap();
            times.push((now - END).as_secs_f64());
            let outcome = Outcome::Answered(500);
            match schedule.after(&delivery(attempts), &outcome, now, luck(attempts)) {
                (DeliveryState::Due(at), _) => now = at,
                (DeliveryState::Failed, problem) => return (times, problem.unwrap()),
                (DeliveryState::Delivered, _) => unreachable!("it always fails"),
            }
        }
    }

    #[test]
    fn pauses_double_and_then_spread_over_the_life_of_the_answer() {
        let (times, problem) = calls(HOUR, |_| 0.5);
        assert_eq!(times.len(), 31, "{problem}");
        assert_eq!(times[..7], [0.0, 5.0, 15.0, 35.0, 75.0, 155.0, 275.0]);
        assert!((3_000.0..3_600.0).contains(times.last().unwrap()), "{times:?}");
        assert!(problem.contains("the last of 31 calls"), "{problem}");
    }

    #[test]
    fn whatever_the_retention_and_the_luck_nothing_is_called_after_the_end() {
        let month = Duration::from_hours(720);
        for retention in [Duration::from_secs(1), Duration::from_mins(6), HOUR, month] {
            for luck in [0.0, 0.25, 0.5, 0.75, 1.0] {
                let (times, problem) = calls(retention, |_| luck);
                assert!((1..=31).contains(&times.len()), "{times:?}");
                assert!(*times.last().unwrap() < retention.as_secs_f64(), "{times:?}");
                assert!(times.is_sorted(), "{times:?}");
                let why = if times.len() == 31 { "the last of 31" } else { "is dropped before" };
                assert!(problem.contains(why), "{problem}");
            }
        }
        assert_eq!(calls(Duration::from_secs(1), |_| 0.5).0.len(), 1);
        assert_eq!(calls(Duration::from_mins(6), |_| 0.5).0.len(), 31);
    }

    #[test]
    fn luck_moves_a_pause_by_a_fifth() {
        let at = |luck| calls(HOUR, |_| luck).0[1];
        assert!((at(0.0) - 4.0).abs() < 1e-6 && (at(1.0) - 6.0).abs() < 1e-6);
    }

    #[test]
    fn long_calls_shorten_the_list_and_never_pass_the_end() {
        let schedule = schedule(HOUR);
        let late = END + Duration::from_secs(3_500);
        let after = schedule.after(&delivery(20), &Outcome::Failed("slow".to_owned()), late, 0.5);
        assert_eq!(after.0, DeliveryState::Failed);
        assert!(after.1.unwrap().contains("slow; the answer is dropped"));
    }
}
