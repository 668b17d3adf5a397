//! The body of a runner's answer, streamed while the runner still writes it.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use glowplug_core::RunnerAddress;
use glowplug_core::request::{Answer, Outcome, Refusal};
use http_body::{Body, Frame, SizeHint};

use super::codec::BodyFault;
use super::{AnswerBody, Connection, ForwardError, Forwarder, LeftBehind, withdrawal};
use crate::host::Revocation;
use crate::run::Attempt;

/// Drives the runner's connection, gives it back to the pool after the last byte, and reports the
/// attempt's end. Dropped before the end, it closes the connection, or leaves it behind with its attempt.
pub(crate) struct RunnerBody {
    /// Read ahead by [`RunnerBody::prefetch`], in this order.
    ahead: [Option<Frame<Bytes>>; 2],
    /// `None` once given back or closed.
    connection: Option<Box<Connection>>,
    forwarder: Arc<Forwarder>,
    address: Arc<RunnerAddress>,
    carried: Option<Carried>,
    revoked: Option<BoxFuture<'static, Refusal>>,
}

/// The attempt that ends with the body.
struct Carried {
    attempt: Attempt,
    answer: Answer,
    /// Below the app.
    path: String,
}

impl fmt::Debug for RunnerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerBody").field("address", &self.address).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the runner closed the connection before its answer was complete")]
    Incomplete,
    #[error("{0}")]
    Revoked(Refusal),
}

impl RunnerBody {
    pub(super) fn new(
        connection: Box<Connection>,
        forwarder: Arc<Forwarder>,
        address: Arc<RunnerAddress>,
    ) -> Self {
        Self {
            ahead: [None, None],
            connection: Some(connection),
            forwarder,
            address,
            carried: None,
            revoked: None,
        }
    }

    /// Takes what came along with the head. A small answer is complete with it, and then needs none of
    /// the streaming; one that broke off at once can still be answered with an error.
    pub(super) async fn prefetch(mut self) -> Result<AnswerBody, ForwardError> {
        poll_fn(|cx| Poll::Ready(self.read_ahead(cx))).await?;
        if self.connection.is_some() {
            return Ok(AnswerBody::Streaming(Box::new(self)));
        }
        match &mut self.ahead {
            [Some(frame), None] if frame.is_data() => {
                let bytes = std::mem::replace(frame, Frame::data(Bytes::new())).into_data();
                Ok(AnswerBody::Whole(bytes.unwrap_or_default()))
            }
            [None, None] => Ok(AnswerBody::Whole(Bytes::new())),
            _ => Ok(AnswerBody::Streaming(Box::new(self))),
        }
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Result<(), ForwardError> {
        for place in 0..self.ahead.len() {
            match self.poll_connection(cx) {
                Poll::Ready(Some(Ok(frame))) => self.ahead[place] = Some(frame),
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(fault))) => {
                    return Err(ForwardError::Incomplete { reason: fault.to_string() });
                }
                Poll::Pending => return Ok(()),
            }
        }
        if self.is_received() {
            self.release();
        }
        Ok(())
    }

    /// Nothing more is to come from the runner.
    fn is_received(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| connection.is_answered())
    }

    fn take_ahead(&mut self) -> Option<Frame<Bytes>> {
        let [first, second] = &mut self.ahead;
        first.take().or_else(|| second.take())
    }

    /// Ties an attempt's end to this body's, and this body's to the slot's.
    pub(crate) fn carry(
        mut self: Box<Self>,
        attempt: Attempt,
        answer: Answer,
        revocation: Option<Revocation>,
        path: String,
    ) -> Box<Self> {
        self.carried = Some(Carried { attempt, answer, path });
        self.revoked = revocation.map(withdrawal);
        self
    }

    /// The answer is complete.
    fn finish(&mut self) {
        self.release();
        if let Some(Carried { attempt, answer, .. }) = self.carried.take() {
            attempt.end(Outcome::Answered(answer));
        }
    }

    fn fail(&mut self, error: BodyError) -> BodyError {
        self.connection = None;
        if let Some(Carried { attempt, .. }) = self.carried.take() {
            attempt.end(Outcome::Disconnected);
        }
        error
    }

    fn release(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.forwarder.give_back(&self.address, connection);
        }
    }

    fn poll_connection(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match &mut self.connection {
            Some(connection) => connection.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }
}

impl Drop for RunnerBody {
    fn drop(&mut self) {
        let Some(Carried { attempt, answer, path }) = self.carried.take() else { return };
        let Some(connection) = self.connection.take() else { return };
        let address = self.address.clone();
        let (revoked, answer) = (self.revoked.take(), Some(answer));
        LeftBehind { connection, address, attempt, revoked, path, answer }.leave();
    }
}

impl Body for RunnerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(frame) = this.take_ahead() {
            if this.is_end_stream() {
                this.finish();
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(revoked) = &mut this.revoked
            && let Poll::Ready(refusal) = revoked.as_mut().poll(cx)
        {
            this.revoked = None;
            return Poll::Ready(Some(Err(this.fail(BodyError::Revoked(refusal)))));
        }
        match this.poll_connection(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                // The last frame of a known length is the end: nobody will ask for another.
                if this.is_received() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(this.fail(BodyError::Incomplete)))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.iter().all(Option::is_none) && self.is_received()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = match &self.connection {
            Some(connection) => connection.size_hint(),
            // A body with trailers cannot be sent by its length.
            None if self.ahead.iter().flatten().any(Frame::is_trailers) => SizeHint::default(),
            None => SizeHint::with_exact(0),
        };
        let frames = self.ahead.iter().flatten();
        let ahead = frames.filter_map(Frame::data_ref).map(Bytes::len).sum::<usize>() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint.set_lower(hint.lower().saturating_add(ahead));
        hint
    }
}
