//! Why the gateway ends a socket that neither side has closed, and how it says so.

use glowplug_core::Timestamp;
use glowplug_core::request::Refusal;
use serde::Serialize;
use std::time::Duration;

use super::frame::{Fault, Sender};
use crate::listener::Worker;

/// Before its runner is killed, a socket is closed, this long before at most. If the runner has less
/// than four times as long, it is a quarter of that.
const NOTICE_MAX: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// No message either way for this long.
    Idle {
        timeout: Duration,
    },
    /// The caller answers no ping.
    Unresponsive,
    /// The app's end broke off without a close.
    RunnerGone,
    /// The engine took the attempt away.
    Withdrawn(Refusal),
    /// The runner is told to end.
    RunnerLeaving,
    /// The gateway shuts down.
    ShuttingDown,
    Fault(Sender, Fault),
    /// An answer of the app broke off.
    AnswerBroken {
        reason: String,
    },
}

/// What a caller of `/realtime` is told before the close.
#[derive(Serialize)]
struct Told<'a> {
    r#type: &'static str,
    error: &'static str,
    reason: &'a str,
}

impl Ending {
    /// As the clients show it. They know `TIMEOUT` and pass over it, since whoever sends nothing misses
    /// nothing.
    fn error(&self) -> &'static str {
        match self {
            Self::Idle { .. } => "TIMEOUT",
            Self::Unresponsive => "UNRESPONSIVE",
            Self::RunnerGone | Self::AnswerBroken { .. } => "RUNNER_DISCONNECTED",
            Self::Withdrawn(Refusal::RequestTimeout { .. }) => "REQUEST_TIMEOUT",
            Self::Withdrawn(_) => "RUNNER_STOPPED",
            Self::RunnerLeaving => "RUNNER_STOPPING",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Fault(_, Fault::TooLarge { .. }) => "MESSAGE_TOO_LARGE",
            Self::Fault(_, Fault::NotText | Fault::Protocol(_)) => "PROTOCOL_ERROR",
        }
    }

    /// RFC 6455 §7.4.1.
    pub(super) fn code(&self) -> u16 {
        match self {
            // Anything else is an error to the clients.
            Self::Idle { .. } => 1000,
            Self::RunnerLeaving | Self::ShuttingDown => 1001,
            Self::Fault(Sender::Caller, Fault::Protocol(_)) => 1002,
            Self::Fault(Sender::Caller, Fault::NotText) => 1007,
            Self::Withdrawn(Refusal::RequestTimeout { .. }) => 1008,
            Self::Fault(_, Fault::TooLarge { .. }) => 1009,
            Self::Unresponsive
            | Self::RunnerGone
            | Self::AnswerBroken { .. }
            | Self::Withdrawn(_)
            | Self::Fault(Sender::App, _) => 1011,
        }
    }

    pub(super) fn reason(&self) -> String {
        match self {
            Self::Idle { timeout } => {
                format!("no message came either way for {} s", timeout.as_secs_f64())
            }
            Self::Unresponsive => "no answer came to a ping".to_owned(),
            Self::RunnerGone => "the app's end broke off".to_owned(),
            Self::Withdrawn(refusal) => refusal.to_string(),
            Self::RunnerLeaving => "the runner is being stopped: connect again".to_owned(),
            Self::ShuttingDown => "the node is shutting down".to_owned(),
            Self::Fault(_, fault) => fault.to_string(),
            Self::AnswerBroken { reason } => format!("an answer of the app broke off: {reason}"),
        }
    }

    /// The JSON frame for callers of `/realtime`.
    pub(super) fn told(&self) -> String {
        let told = Told { r#type: "x-fal-error", error: self.error(), reason: &self.reason() };
        serde_json::to_string(&told).expect("texts serialize")
    }
}

/// When a socket has to close that may be open until `grace` is over.
pub(super) fn notice(grace: Duration) -> Duration {
    grace.saturating_sub((grace / 4).min(NOTICE_MAX))
}

/// Waits until a socket has to close because the runner or the gateway goes.
pub(super) async fn leaving(worker: &Worker, runner: glowplug_core::RunnerId) -> Ending {
    let runner_leaves = async {
        let killed_at: Timestamp = worker.host.leaving(runner).await;
        tokio::time::sleep(notice(killed_at - worker.host.now())).await;
    };
    let gateway_closes = async {
        let grace = worker.shutdown().await;
        tokio::time::sleep(notice(grace)).await;
    };
    tokio::select! {
        () = runner_leaves => Ending::RunnerLeaving,
        () = gateway_closes => Ending::ShuttingDown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_closes_shortly_before_its_runner_is_killed() {
        let check = |grace_millis, expected_millis| {
            let notice = notice(Duration::from_millis(grace_millis));
            assert_eq!(notice, Duration::from_millis(expected_millis), "{grace_millis}");
        };
        check(0, 0);
        check(1_000, 750);
        check(20_000, 15_000);
        check(60_000, 55_000);
    }

    #[test]
    fn what_is_told_is_what_the_clients_read() {
        let told = Ending::Idle { timeout: Duration::from_millis(1_500) }.told();
        assert_eq!(
            told,
            r#"{"type":"x-fal-error","error":"TIMEOUT","reason":"no message came either way for 1.5 s"}"#
        );
        let timeout = Ending::Withdrawn(Refusal::RequestTimeout { seconds: 7 });
        assert_eq!((timeout.error(), timeout.code()), ("REQUEST_TIMEOUT", 1008));
        let killed = Ending::Withdrawn(Refusal::RunnerLost);
        assert_eq!((killed.error(), killed.code()), ("RUNNER_STOPPED", 1011));
    }
}
