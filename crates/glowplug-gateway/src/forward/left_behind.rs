//! Work whose caller left before it was answered.
//!
//! ```text
//! caller leaves ──► POST <path>/cancel ──┬─ taken ──────────────────► read on to the end of the answer
//!                                        └─ no such path ─┬─ not begun to answer ─► as above
//!                                                         └─ answering ───► hang up
//! ```
//!
//! The app is asked to stop, as it is for a queued request, and its place counts as taken until it has
//! stopped: a runner never works on more requests than it may. What it still answers is thrown away.
//! Limits: [`LEFT_BEHIND_MAX`], [`LEFT_BEHIND_TIMEOUT`], [`HANG_UP_TIMEOUT`], and `request_timeout`, after
//! which the engine withdraws this attempt like any other.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use glowplug_core::RunnerAddress;
use glowplug_core::request::{Answer, Outcome, Refusal};
use glowplug_core::retry::{self, RunnerFate};
use tokio::runtime::Handle;

use super::codec::BodyFault;
use super::{Connection, ForwardError};
use crate::attempt;
use crate::header;
use crate::run::Attempt;

/// Attempts that one worker sees to their end for nobody. Beyond it the connection to the runner closes at
/// once, and its place counts as free though the app may not have noticed.
pub(super) const LEFT_BEHIND_MAX: usize = 4_096;
/// For an app to end what nobody waits for, where nothing else limits it. A runner that does not is ended:
/// it would be given more than it may have at once.
const LEFT_BEHIND_TIMEOUT: Duration = Duration::from_hours(1);
/// For an app to close a connection on which it streams, after our side of it was closed.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct LeftBehind {
    pub(crate) connection: Box<Connection>,
    pub(crate) address: Arc<RunnerAddress>,
    pub(crate) attempt: Attempt,
    pub(crate) revoked: Option<BoxFuture<'static, Refusal>>,
    /// Below the app, as called.
    pub(crate) path: String,
    /// What the head of the answer said, if it had come.
    pub(crate) answer: Option<Answer>,
}

impl LeftBehind {
    /// Sees to the end of it in a task of its own. To be called from where the caller's side is dropped.
    pub(crate) fn leave(self) {
        // A request that is not whole cannot be worked on, and its app notices that the rest is missing.
        if !self.connection.has_sent() {
            return;
        }
        let worker = self.attempt.worker().clone();
        let room = worker.forwarder.left_behind.clone().try_acquire_owned();
        let (Ok(place), Ok(_)) = (room, Handle::try_current()) else { return };
        worker.tasks.clone().spawn(async move {
            self.end().await;
            drop(place);
        });
    }

    async fn end(mut self) {
        let worker = self.attempt.worker().clone();
        let withdrawn = self.revoked.take().unwrap_or_else(|| std::future::pending().boxed());
        let outcome = tokio::select! {
            biased;
            outcome = self.work() => outcome,
            // The engine has decided on the runner already.
            _ = withdrawn => Outcome::Disconnected,
            () = tokio::time::sleep(LEFT_BEHIND_TIMEOUT) => Outcome::Disconnected,
            // The runners end with the node, so that there is nothing to wait for.
            () = worker.closing() => Outcome::CallerGone,
        };
        let Self { connection, address, attempt, .. } = self;
        worker.forwarder.give_back(&address, connection);
        attempt.end(outcome);
    }

    /// Until the app has ended its work.
    async fn work(&mut self) -> Outcome {
        let worker = self.attempt.worker().clone();
        let request = self.attempt.request();
        let path = self.path.strip_prefix('/').unwrap_or_default();
        let told = attempt::cancel(&worker.forwarder, &self.address, path, request);
        let told = told.map(|status| matches!(status, Ok(200..=299))).shared();
        let answer = if let Some(answer) = self.answer.take() {
            answer
        } else {
            let answered = tokio::select! {
                answered = head(&mut self.connection) => answered,
                () = told.clone().then(|_| std::future::pending()) => return Outcome::CallerGone,
            };
            match answered {
                Ok(answer) => answer,
                Err(error) => return error.outcome(),
            }
        };
        tokio::select! {
            biased;
            rest = discard(&mut self.connection) => match rest {
                Ok(()) => return ended(answer),
                Err(_) => return Outcome::Disconnected,
            },
            false = told => {}
        }
        // It has no other way to learn of it. What it makes of it no longer counts against it.
        let hung_up = async {
            self.connection.hang_up().await;
            discard(&mut self.connection).await
        };
        let _ = tokio::time::timeout(HANG_UP_TIMEOUT, hung_up).await;
        Outcome::CallerGone
    }
}

/// An answer nobody wanted says nothing of the request, but may say something of the runner.
fn ended(answer: Answer) -> Outcome {
    let answered = Outcome::Answered(answer);
    match retry::judge(&answered).0 {
        RunnerFate::Keep => Outcome::CallerGone,
        RunnerFate::Probe | RunnerFate::Stop => answered,
    }
}

async fn head(connection: &mut Connection) -> Result<Answer, ForwardError> {
    let mut head = poll_fn(|cx| connection.poll_head(cx)).await?;
    header::answer(head.status.as_u16(), &mut head.headers)
        .map_err(|error| ForwardError::HeadersTooLarge { reason: error.to_string() })
}

async fn discard(connection: &mut Connection) -> Result<(), BodyFault> {
    while let Some(frame) = poll_fn(|cx| connection.poll_frame(cx)).await {
        frame?;
    }
    Ok(())
}
