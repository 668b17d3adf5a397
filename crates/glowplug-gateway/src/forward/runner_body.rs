//! The body of a runner's answer, streamed while the runner still writes it.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::future::BoxFuture;
use glowplug_core::RunnerAddress;
use glowplug_core::request::{Answer, Outcome, Refusal};
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{AnswerBody, Connection, ForwardError, Forwarder, Revocation, revoked};
use crate::run::Attempt;

/// Drives the runner's connection, gives it back to the pool after the last byte, and reports the
/// attempt's end. Dropped before the end, it closes the connection.
pub(crate) struct RunnerBody {
    incoming: Incoming,
    /// Read ahead by [`RunnerBody::prefetch`], in this order.
    ahead: [Option<Frame<Bytes>>; 2],
    /// `None` once given back or closed.
    connection: Option<Box<Connection>>,
    keeps_connection: bool,
    forwarder: Arc<Forwarder>,
    address: Arc<RunnerAddress>,
    attempt: Option<(Attempt, Answer)>,
    revoked: Option<BoxFuture<'static, Refusal>>,
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
        status: StatusCode,
        incoming: Incoming,
        connection: Box<Connection>,
        forwarder: Arc<Forwarder>,
        address: Arc<RunnerAddress>,
    ) -> Self {
        Self {
            incoming,
            ahead: [None, None],
            connection: Some(connection),
            // Servers close a connection after an exception without having announced it (uvicorn does),
            // and a request that meets the close is lost.
            keeps_connection: !status.is_server_error(),
            forwarder,
            address,
            attempt: None,
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
        match self.ahead {
            [Some(frame), None] if frame.is_data() => Ok(AnswerBody::Whole(frame.into_data().ok())),
            [None, None] => Ok(AnswerBody::Whole(None)),
            _ => Ok(AnswerBody::Streaming(Box::new(self))),
        }
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Result<(), ForwardError> {
        for place in 0..self.ahead.len() {
            if self.incoming.is_end_stream() {
                self.release(cx);
                return Ok(());
            }
            match self.poll_incoming(cx) {
                Poll::Ready(Some(Ok(frame))) => self.ahead[place] = Some(frame),
                Poll::Ready(None) => {
                    self.release(cx);
                    return Ok(());
                }
                Poll::Ready(Some(Err(error))) => {
                    return Err(ForwardError::Incomplete { reason: error.to_string() });
                }
                Poll::Pending if self.is_cut() => {
                    let reason = "the connection closed".to_owned();
                    return Err(ForwardError::Incomplete { reason });
                }
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    /// Nothing more can come.
    fn is_cut(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| connection.is_closed())
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
    ) -> Box<Self> {
        self.attempt = Some((attempt, answer));
        self.revoked = revocation.map(|mut revocation| -> BoxFuture<'static, Refusal> {
            Box::pin(async move { revoked(&mut revocation).await })
        });
        self
    }

    /// The answer is complete.
    fn finish(&mut self, cx: &mut Context<'_>) {
        self.release(cx);
        if let Some((attempt, answer)) = self.attempt.take() {
            attempt.end(Outcome::Answered(answer));
        }
    }

    fn fail(&mut self, error: BodyError) -> BodyError {
        self.connection = None;
        if let Some((attempt, _)) = self.attempt.take() {
            attempt.end(Outcome::Disconnected);
        }
        error
    }

    fn release(&mut self, cx: &mut Context<'_>) {
        let Some(mut connection) = self.connection.take() else { return };
        if !self.keeps_connection {
            return;
        }
        if !connection.is_reusable() {
            // The connection may not have noticed yet that the exchange is over.
            connection.drive(cx);
        }
        if connection.is_reusable() {
            self.forwarder.give_back(&self.address, connection);
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        // Without a waker: what arrives in the body arrives by driving the connection, below.
        let mut unheard = Context::from_waker(Waker::noop());
        let frame = Pin::new(&mut self.incoming).poll_frame(&mut unheard);
        if frame.is_ready() {
            return frame;
        }
        if let Some(connection) = &mut self.connection {
            connection.drive(cx);
        }
        Pin::new(&mut self.incoming).poll_frame(&mut unheard)
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
                this.finish(cx);
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(revoked) = &mut this.revoked
            && let Poll::Ready(refusal) = revoked.as_mut().poll(cx)
        {
            this.revoked = None;
            return Poll::Ready(Some(Err(this.fail(BodyError::Revoked(refusal)))));
        }
        if this.is_end_stream() {
            this.finish(cx);
            return Poll::Ready(None);
        }
        match this.poll_incoming(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                // The last frame of a known length is the end: nobody will ask for another.
                if this.incoming.is_end_stream() {
                    this.finish(cx);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.finish(cx);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(this.fail(BodyError::Incomplete)))),
            Poll::Pending if this.is_cut() => {
                Poll::Ready(Some(Err(this.fail(BodyError::Incomplete))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.iter().all(Option::is_none) && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let frames = self.ahead.iter().flatten();
        let ahead = frames.filter_map(Frame::data_ref).map(Bytes::len).sum::<usize>() as u64;
        let rest = self.incoming.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint.set_lower(rest.lower().saturating_add(ahead));
        hint
    }
}
