//! What an attempt's outcome means for the request and for the runner (fal's table of runner answers).
//!
//! Two questions are kept apart. [`judge`] looks at the outcome alone: what becomes of the runner, and under
//! which condition the request could be tried again. [`Course`] then says whether it is: caller before app
//! before platform, each condition within its budget, and never more than [`ATTEMPTS_MAX`].

mod course;

use std::fmt;

pub use course::{ATTEMPTS_MAX, Course, Delays};

use crate::request::Outcome;

/// fal's names for what may be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The attempt overran `request_timeout`.
    Timeout,
    /// An answer of 400 to 499. Tried again only if a budget or the app asks for it.
    ClientError,
    /// An answer of 503 or 504, or any of 500 to 599 that the app wants tried again.
    ServerError,
    /// No connection, or one that broke before the answer was complete.
    ConnectionError,
}

impl Condition {
    pub const ALL: [Self; 4] =
        [Self::Timeout, Self::ClientError, Self::ServerError, Self::ConnectionError];

    /// Whether it is tried again when neither caller nor app say anything.
    fn is_retried_unasked(self) -> bool {
        self != Self::ClientError
    }
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

/// Whether an outcome may be tried again, as far as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It is the request's answer.
    No,
    /// If what caller, app and platform say of the condition allows it.
    On(Condition),
    /// The app asks for it with its answer, and need not have the condition in its settings. Budgets hold.
    Asked(Condition),
}

/// What an attempt's outcome means for its runner and for its request.
pub fn judge(outcome: &Outcome) -> (RunnerFate, Again) {
    let answer = match outcome {
        Outcome::CallerGone => return (RunnerFate::Keep, Again::No),
        Outcome::ConnectFailed => {
            return (RunnerFate::Probe, Again::On(Condition::ConnectionError));
        }
        Outcome::Disconnected => return (RunnerFate::Stop, Again::On(Condition::ConnectionError)),
        Outcome::Answered(answer) => answer,
    };
    let (fate, again) = match answer.status {
        503 => (RunnerFate::Stop, Again::On(Condition::ServerError)),
        504 => (RunnerFate::Probe, Again::On(Condition::ServerError)),
        500 | 502 => (RunnerFate::Probe, Again::No),
        400..=499 => (RunnerFate::Keep, Again::On(Condition::ClientError)),
        _ => (RunnerFate::Keep, Again::No),
    };
    let fate = match answer.stop_runner {
        Some(true) => RunnerFate::Stop,
        Some(false) => RunnerFate::Keep,
        None if answer.check_health && fate == RunnerFate::Keep => RunnerFate::Probe,
        None => fate,
    };
    // The app's word counts for server errors and 429 alone.
    let again = match (answer.needs_retry, answer.status) {
        (Some(true), 500..) => Again::Asked(Condition::ServerError),
        (Some(true), 429) => Again::Asked(Condition::ClientError),
        (Some(false), 429 | 500..) => Again::No,
        _ => again,
    };
    (fate, again)
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
        use Again::{No, On};
        use Condition::{ClientError, ConnectionError, ServerError};
        use RunnerFate::{Keep, Probe, Stop};
        for (outcome, fate, again) in [
            (Outcome::Answered(answered(200)), Keep, No),
            (Outcome::Answered(answered(302)), Keep, No),
            (Outcome::Answered(answered(422)), Keep, On(ClientError)),
            (Outcome::Answered(answered(429)), Keep, On(ClientError)),
            (Outcome::Answered(answered(500)), Probe, No),
            (Outcome::Answered(answered(502)), Probe, No),
            (Outcome::Answered(answered(503)), Stop, On(ServerError)),
            (Outcome::Answered(answered(504)), Probe, On(ServerError)),
            (Outcome::Disconnected, Stop, On(ConnectionError)),
            (Outcome::ConnectFailed, Probe, On(ConnectionError)),
            (Outcome::CallerGone, Keep, No),
        ] {
            assert_eq!(judge(&outcome), (fate, again), "{outcome:?}");
        }
    }

    #[test]
    fn the_apps_word_beats_the_status() {
        use Again::{Asked, No, On};
        use Condition::{ClientError, ServerError};
        use RunnerFate::{Keep, Probe, Stop};
        let needs = |status, needs| Answer { needs_retry: Some(needs), ..answered(status) };
        let stop = |status, stop| Answer { stop_runner: Some(stop), ..answered(status) };
        for (answer, fate, again) in [
            (stop(503, false), Keep, On(ServerError)),
            (stop(200, true), Stop, No),
            (needs(500, true), Probe, Asked(ServerError)),
            (needs(502, true), Probe, Asked(ServerError)),
            (needs(503, true), Stop, Asked(ServerError)),
            (needs(503, false), Stop, No),
            (needs(504, false), Probe, No),
            (needs(429, true), Keep, Asked(ClientError)),
            (needs(429, false), Keep, No),
            (needs(404, true), Keep, On(ClientError)),
            (needs(404, false), Keep, On(ClientError)),
            (needs(200, true), Keep, No),
            (Answer { check_health: true, ..answered(200) }, Probe, No),
        ] {
            assert_eq!(judge(&Outcome::Answered(answer.clone())), (fate, again), "{answer:?}");
        }
    }
}
