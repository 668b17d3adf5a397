//! What an attempt's outcome means for the request and for the runner (fal's table of runner answers).

use std::fmt;
use std::time::Duration;

use crate::request::{Mode, Outcome};

/// Attempts of one request in all, the first included (fal's ceiling).
pub const ATTEMPTS_MAX: u32 = 10;
/// Wait before the second attempt; doubles from then on.
pub const DELAY_FIRST: Duration = Duration::from_millis(250);
pub const DELAY_CAP: Duration = Duration::from_secs(30);

/// fal's names for what may be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    Timeout,
    ClientError,
    ServerError,
    ConnectionError,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "timeout",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::ConnectionError => "connection_error",
        })
    }
}

/// Additional attempts by condition, as `retry_config` of an app or `X-Fal-Retry-Config` of a caller has
/// them. A condition that is not named keeps what holds without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    pub timeout: Option<u32>,
    pub client_error: Option<u32>,
    pub server_error: Option<u32>,
    pub connection_error: Option<u32>,
}

/// A set of conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions(u8);

impl Conditions {
    pub const NONE: Self = Self(0);

    pub fn contains(self, condition: Condition) -> bool {
        self.0 & Self::bit(condition) != 0
    }

    fn bit(condition: Condition) -> u8 {
        1 << condition as u8
    }
}

impl FromIterator<Condition> for Conditions {
    fn from_iter<I: IntoIterator<Item = Condition>>(conditions: I) -> Self {
        Self(conditions.into_iter().fold(0, |set, condition| set | Self::bit(condition)))
    }
}

/// What an app says about retries of its requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// `retry_config`.
    pub budgets: Budgets,
    /// `skip_retry_conditions`: what is not retried unless a budget or the app's answer says so.
    pub skip: Conditions,
}

/// What a caller says about retries of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// Nothing: what the app says holds.
    #[default]
    Unsaid,
    /// `X-Fal-No-Retry`: beats everything else.
    Never,
    /// `X-Fal-Retry-Config`: beats what the app says.
    Budgets(Budgets),
}

/// What to do with the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunnerFate {
    Keep,
    /// See whether it still accepts connections; stop it if not.
    Probe,
    Stop,
}

/// The fate of the runner and the condition under which the request may be tried again.
pub fn judge(outcome: &Outcome) -> (RunnerFate, Option<Condition>) {
    let (fate, condition) = match outcome {
        Outcome::CallerGone => return (RunnerFate::Keep, None),
        Outcome::ConnectFailed => return (RunnerFate::Probe, Some(Condition::ConnectionError)),
        Outcome::Disconnected => return (RunnerFate::Stop, Some(Condition::ConnectionError)),
        Outcome::Answered(answer) => match answer.status {
            503 => (RunnerFate::Stop, Some(Condition::ServerError)),
            504 => (RunnerFate::Probe, Some(Condition::ServerError)),
            500 | 502 => (RunnerFate::Probe, None),
            _ => (RunnerFate::Keep, None),
        },
    };
    let Outcome::Answered(answer) = outcome else { return (fate, condition) };
    let fate = match answer.stop_runner {
        Some(true) => RunnerFate::Stop,
        Some(false) => RunnerFate::Keep,
        None if answer.check_health && fate == RunnerFate::Keep => RunnerFate::Probe,
        None => fate,
    };
    // The app's word counts for server errors and 429 alone.
    let condition = match answer.needs_retry {
        Some(true) if answer.status >= 500 || answer.status == 429 => Some(Condition::ServerError),
        Some(false) => None,
        _ => condition,
    };
    (fate, condition)
}

/// How long a request waits before its next attempt; `None`: it gets no other.
pub fn delay(mode: Mode, no_retry: bool, attempts: u32) -> Option<Duration> {
    if mode == Mode::Direct || no_retry || attempts >= ATTEMPTS_MAX {
        return None;
    }
    let doublings = attempts.saturating_sub(1).min(16);
    Some(DELAY_CAP.min(DELAY_FIRST.saturating_mul(1 << doublings)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Answer;

    fn answered(status: u16) -> Answer {
        Answer { status, ..Answer::default() }
    }

    #[test]
    fn fals_table_of_answers() {
        use Condition::{ConnectionError, ServerError};
        use RunnerFate::{Keep, Probe, Stop};
        for (outcome, fate, condition) in [
            (Outcome::Answered(answered(200)), Keep, None),
            (Outcome::Answered(answered(302)), Keep, None),
            (Outcome::Answered(answered(422)), Keep, None),
            (Outcome::Answered(answered(500)), Probe, None),
            (Outcome::Answered(answered(502)), Probe, None),
            (Outcome::Answered(answered(503)), Stop, Some(ServerError)),
            (Outcome::Answered(answered(504)), Probe, Some(ServerError)),
            (Outcome::Disconnected, Stop, Some(ConnectionError)),
            (Outcome::ConnectFailed, Probe, Some(ConnectionError)),
            (Outcome::CallerGone, Keep, None),
        ] {
            assert_eq!(judge(&outcome), (fate, condition), "{outcome:?}");
        }
    }

    #[test]
    fn the_apps_word_beats_the_status() {
        let check = |answer: Answer, expected| {
            assert_eq!(judge(&Outcome::Answered(answer)), expected);
        };
        check(
            Answer { stop_runner: Some(false), ..answered(503) },
            (RunnerFate::Keep, Some(Condition::ServerError)),
        );
        check(Answer { stop_runner: Some(true), ..answered(200) }, (RunnerFate::Stop, None));
        check(Answer { needs_retry: Some(false), ..answered(503) }, (RunnerFate::Stop, None));
        check(
            Answer { needs_retry: Some(true), ..answered(429) },
            (RunnerFate::Keep, Some(Condition::ServerError)),
        );
        check(Answer { needs_retry: Some(true), ..answered(404) }, (RunnerFate::Keep, None));
        check(Answer { check_health: true, ..answered(200) }, (RunnerFate::Probe, None));
    }

    #[test]
    fn ten_attempts_in_all_and_none_for_direct_calls() {
        assert_eq!(delay(Mode::Queued, false, 1), Some(DELAY_FIRST));
        assert_eq!(delay(Mode::Queued, false, 2), Some(DELAY_FIRST * 2));
        assert_eq!(delay(Mode::Queued, false, 9), Some(DELAY_CAP));
        assert_eq!(delay(Mode::Queued, false, 10), None);
        assert_eq!(delay(Mode::Queued, true, 1), None);
        assert_eq!(delay(Mode::Direct, false, 1), None);
    }
}
