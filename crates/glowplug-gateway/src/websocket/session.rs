//! One socket from its upgrade to its end: what may end it, and how both sides are told.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::BytesMut;
use glowplug_core::RunnerId;
use glowplug_core::request::{Answer, Outcome};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};

use super::ending::{Ending, leaving};
use super::frame::{self, Sender};
use super::outbox::Outbox;
use super::passage::{Passage, Passed};
use super::seat::Seat;
use crate::forward::revoked;
use crate::host::Revocation;
use crate::listener::Worker;
use crate::options::SocketOptions;
use crate::run::Attempt;

/// What the gateway reports of a socket that ended in good order.
const SWITCHED: u16 = 101;
/// And of one whose app's end broke: as for any such answer, the engine has the runner looked at.
const BROKEN: u16 = 502;

/// A socket that is being opened.
pub(super) struct Session {
    pub(super) caller: OnUpgrade,
    pub(super) app: OnUpgrade,
    pub(super) options: SocketOptions,
    /// See [`Outbox::new`].
    pub(super) max_buffering: Option<usize>,
    /// Whether the caller reads the gateway's JSON frames.
    pub(super) is_realtime: bool,
    pub(super) seat: Seat,
}

impl Session {
    /// Carries the socket to its end. `runner`: whose end is the socket's, too.
    pub(super) async fn run(
        self,
        worker: Arc<Worker>,
        runner: RunnerId,
        attempt: Attempt,
        revocation: Option<Revocation>,
    ) {
        let (caller, app) = match futures::try_join!(self.caller, self.app) {
            Ok(sockets) => sockets,
            Err(error) => {
                tracing::debug!(%error, "a websocket ended before it was open");
                return attempt.end(Outcome::Disconnected);
            }
        };
        let outbox = Outbox::new(self.max_buffering, self.options.message_bytes_max);
        let (caller, app) = (TokioIo::new(caller), TokioIo::new(app));
        let passage = Passage::new(caller, app, outbox, self.options.message_bytes_max);
        let mut open =
            Open { passage, options: self.options, is_realtime: self.is_realtime, pinged: None };
        let withdrawn = async {
            match revocation {
                Some(mut revocation) => Ending::Withdrawn(revoked(&mut revocation).await),
                None => std::future::pending().await,
            }
        };
        let ended = async {
            tokio::select! {
                ending = withdrawn => ending,
                ending = leaving(&worker, runner) => ending,
            }
        };
        let outcome = open.carry(ended).await;
        let dropped = open.passage.outbox.dropped();
        if dropped > 0 {
            tracing::debug!(dropped, "a websocket's caller was too slow for all messages");
        }
        attempt.end(outcome);
        drop(self.seat);
    }
}

/// A socket that is open.
struct Open<C, A> {
    passage: Passage<C, A>,
    options: SocketOptions,
    is_realtime: bool,
    /// Since when the caller owes a sign of life.
    pinged: Option<Instant>,
}

/// What woke an open socket.
enum Woken {
    Passed(Passed),
    Ended(Ending),
    Time,
}

impl<C, A> Open<C, A>
where
    C: AsyncRead + AsyncWrite + Unpin,
    A: AsyncRead + AsyncWrite + Unpin,
{
    /// Carries until the socket is over. `ended`: what else may end it.
    async fn carry(&mut self, ended: impl Future<Output = Ending>) -> Outcome {
        let mut ended = Box::pin(ended);
        loop {
            let closing = self.passage.caller.has_closed || self.passage.app.has_closed;
            let due = self.due();
            let woken = tokio::select! {
                biased;
                // First: a runner whose time is over is killed after its sockets are told why, and its
                // end may have broken off before this one is looked at again.
                ending = &mut ended => Woken::Ended(ending),
                passed = poll_fn(|cx| self.poll_passage(cx, closing)) => match passed {
                    Some(passed) => Woken::Passed(passed),
                    // A close has passed just now: from here on the other side has little time.
                    None => continue,
                },
                () = sleep_until(due) => Woken::Time,
            };
            match woken {
                Woken::Passed(passed) => return self.passed(passed).await,
                Woken::Ended(ending) => {
                    let is_withdrawn = matches!(ending, Ending::Withdrawn(_));
                    self.end(&ending).await;
                    return if is_withdrawn { Outcome::Disconnected } else { answered(SWITCHED) };
                }
                Woken::Time if closing => return answered(SWITCHED),
                Woken::Time => {
                    if let Some(ending) = self.look_after() {
                        self.end(&ending).await;
                        return answered(SWITCHED);
                    }
                }
            }
        }
    }

    fn poll_passage(
        &mut self,
        cx: &mut std::task::Context<'_>,
        was_closing: bool,
    ) -> Poll<Option<Passed>> {
        if let Poll::Ready(passed) = self.passage.poll(cx) {
            return Poll::Ready(Some(passed));
        }
        if !was_closing && (self.passage.caller.has_closed || self.passage.app.has_closed) {
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    /// When time alone has something to say.
    fn due(&self) -> Instant {
        let (passage, options) = (&self.passage, &self.options);
        if passage.caller.has_closed || passage.app.has_closed {
            return Instant::now() + options.close_timeout;
        }
        let sign_of_life = match self.pinged {
            Some(pinged) => pinged + options.pong_timeout,
            None => passage.last_heard + options.ping_interval,
        };
        sign_of_life.min(passage.last_message + options.idle_timeout)
    }

    /// Ends an idle socket, and pings a silent caller.
    fn look_after(&mut self) -> Option<Ending> {
        let now = Instant::now();
        let (passage, options) = (&mut self.passage, &self.options);
        if now >= passage.last_message + options.idle_timeout {
            return Some(Ending::Idle { timeout: options.idle_timeout });
        }
        match self.pinged {
            Some(pinged) if passage.last_heard >= pinged => self.pinged = None,
            Some(pinged) if now >= pinged + options.pong_timeout => {
                return Some(Ending::Unresponsive);
            }
            None if now >= passage.last_heard + options.ping_interval => {
                if passage.outbox.is_between_frames(&passage.app.scanner) {
                    self.pinged = Some(now);
                    let mut ping = BytesMut::new();
                    frame::ping(&mut ping);
                    passage.outbox.say(&ping);
                } else {
                    // In the middle of a frame of the app's there is no place for one of ours.
                    passage.last_heard = now;
                }
            }
            Some(_) | None => {}
        }
        None
    }

    async fn passed(&mut self, passed: Passed) -> Outcome {
        let passage = &self.passage;
        match passed {
            Passed::AppGone if passage.caller.has_closed || passage.app.has_closed => {
                self.part_from_caller().await;
                answered(SWITCHED)
            }
            Passed::AppGone => {
                self.end(&Ending::RunnerGone).await;
                answered(BROKEN)
            }
            Passed::CallerGone => {
                self.part_from_app().await;
                answered(SWITCHED)
            }
            Passed::Fault(sender, fault) => {
                self.end(&Ending::Fault(sender, fault)).await;
                answered(if sender == Sender::App { BROKEN } else { SWITCHED })
            }
        }
    }

    /// Tells both sides, and waits a little for the caller's answer.
    async fn end(&mut self, ending: &Ending) {
        tracing::debug!(reason = ending.reason(), "a websocket is closed");
        let (code, reason) = (ending.code(), ending.reason());
        let passage = &mut self.passage;
        let scanner = &passage.app.scanner;
        if !passage.app.has_closed && passage.outbox.is_between_frames(scanner) {
            let mut last = BytesMut::new();
            if self.is_realtime && passage.outbox.is_between_messages(scanner) {
                frame::text(&ending.told(), &mut last);
            }
            frame::close(Sender::Caller, code, &reason, &mut last);
            passage.outbox.say_last(&last);
        }
        let mut close = BytesMut::new();
        frame::close(Sender::App, code, &reason, &mut close);
        passage.say_to_app(&close);
        // What the app does not take at once it is not waited for with.
        let _ = poll_fn(|cx| Poll::Ready(passage.poll_write_app(cx))).await;
        self.part_from_caller().await;
    }

    /// Sends the caller what waits for it, and waits for its close.
    async fn part_from_caller(&mut self) {
        let passage = &mut self.passage;
        let parting = async {
            if poll_fn(|cx| passage.poll_write_caller(cx)).await {
                poll_fn(|cx| passage.caller.poll_forget(cx)).await;
                poll_fn(|cx| passage.caller.poll_shutdown(cx)).await;
            }
        };
        if timeout(self.options.close_timeout, parting).await.is_err() {
            tracing::debug!("a websocket's caller did not answer the close");
        }
    }

    /// Sends the app what its caller said last, and waits until it has noticed the caller's end.
    async fn part_from_app(&mut self) {
        let passage = &mut self.passage;
        let parting = async {
            if poll_fn(|cx| passage.poll_write_app(cx)).await {
                poll_fn(|cx| passage.app.poll_shutdown(cx)).await;
                poll_fn(|cx| passage.app.poll_forget(cx)).await;
            }
        };
        if timeout(self.options.close_timeout, parting).await.is_err() {
            tracing::debug!("a websocket's app did not notice that its caller is gone");
        }
    }
}

fn answered(status: u16) -> Outcome {
    Outcome::Answered(Answer { status, ..Answer::default() })
}

#[cfg(test)]
mod tests;
