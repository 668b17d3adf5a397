//! One HTTP/1.1 connection to a runner, driven by whoever waits on it.
//!
//! A request and its answer are independent of one another: the rest of a request's body is still sent
//! while its answer comes, and an answer may come before its request is complete. The connection can
//! be used again when both are complete. Limits: [`READ_BYTES_MAX`], and those of the codec.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use glowplug_core::RunnerAddress;
use http::header::{self, HeaderName};
use http::{Method, Request, request};
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use super::codec::{
    AnswerDecoder, BodyFault, Framing, Head, HeadFault, Outbox, Parsed, encode_chunk, encode_end,
    encode_head, parse_head,
};
use super::{ForwardError, Stream};
use crate::body::{RequestBody, RequestBodyError};
use crate::options::ForwardOptions;

/// What a read makes room for at first. It doubles with each read that fills it.
const READ_BYTES_MIN: usize = 8 * 1024;
/// What a read makes room for at most. Large enough that streams move in few system calls.
const READ_BYTES_MAX: usize = 256 * 1024;
/// Interim answers (`100 Continue`, `103 Early Hints`) passed over before an answer.
const INTERIM_ANSWERS_MAX: u32 = 16;

#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    /// Read and not yet decoded.
    received: BytesMut,
    read_bytes: usize,
    outbox: Outbox,
    /// What is left of the request's body.
    upload: Option<Upload>,
    method: Method,
    interim_answers: u32,
    answer: AnswerDecoder,
    /// The runner says it will, and nothing speaks against it.
    keeps_open: bool,
    /// The runner was sent some of the present request.
    begun: bool,
    /// The head of the present answer has not come.
    awaits_head: bool,
}

/// A request's body on its way.
#[derive(Debug)]
struct Upload {
    body: RequestBody,
    framing: Framing,
    /// The trailers that the request's head announced.
    announced: Vec<HeaderName>,
}

/// Opens a connection to a runner.
pub(super) async fn connect(
    address: &Arc<RunnerAddress>,
    options: &ForwardOptions,
) -> Result<Box<Connection>, ForwardError> {
    let stream = connect_stream(address, options).await?;
    Ok(Box::new(Connection::new(stream)))
}

pub(crate) async fn connect_stream(
    address: &Arc<RunnerAddress>,
    options: &ForwardOptions,
) -> Result<Stream, ForwardError> {
    match tokio::time::timeout(options.connect_timeout, Stream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(source)) => Err(ForwardError::Connect { address: address.clone(), source }),
        Err(_) => Err(ForwardError::ConnectTimeout {
            address: address.clone(),
            seconds: options.connect_timeout.as_secs_f64(),
        }),
    }
}

impl Connection {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            received: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
            outbox: Outbox::default(),
            upload: None,
            method: Method::GET,
            interim_answers: 0,
            answer: AnswerDecoder::End,
            keeps_open: true,
            begun: false,
            awaits_head: false,
        }
    }

    /// Whether an idle connection is over: it has nothing else to say.
    pub(super) async fn is_stale(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.poll_receive(cx).is_ready())).await
    }

    /// Sends a request and waits for the head of its answer. To be called on an idle connection.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Head, ForwardError> {
        let (head, body) = request.into_parts();
        let framing = Framing::of(&body);
        self.begun = false;
        self.awaits_head = true;
        encode_head(&head, framing, &mut self.outbox);
        if framing != Framing::Empty {
            let announced = announced_trailers(&head, framing);
            self.upload = Some(Upload { body, framing, announced });
            self.gather().await?;
        }
        self.method = head.method;
        self.interim_answers = 0;
        poll_fn(|cx| self.poll_head(cx)).await
    }

    /// Puts the first piece of a body beside the head, so that a small request is one write. It mostly
    /// lies right behind the caller's head, but is only looked for when it is asked for: hence the
    /// second try, one turn later.
    async fn gather(&mut self) -> Result<(), RequestBodyError> {
        let mut tries = 0..2;
        poll_fn(|cx| {
            let gathered = self.poll_upload(cx);
            tries.next();
            match gathered {
                Poll::Pending if tries.is_empty() => Poll::Ready(Ok(())),
                Poll::Pending => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Ready(gathered) => Poll::Ready(gathered),
            }
        })
        .await
    }

    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, ForwardError>> {
        self.send_on(cx)?;
        loop {
            if !self.received.is_empty()
                && let Some(head) = self.take_head()?
            {
                return Poll::Ready(Ok(head));
            }
            match ready!(self.poll_receive(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(ForwardError::Disconnected)),
                Ok(_) => {}
            }
        }
    }

    /// Passes over interim answers.
    fn take_head(&mut self) -> Result<Option<Head>, HeadFault> {
        loop {
            match parse_head(&mut self.received, &self.method)? {
                Parsed::Partial => return Ok(None),
                Parsed::Interim if self.interim_answers == INTERIM_ANSWERS_MAX => {
                    return Err(HeadFault::Framing("too many interim answers came before it"));
                }
                Parsed::Interim => self.interim_answers += 1,
                Parsed::Head { head, body, keeps_open } => {
                    self.answer = body;
                    self.awaits_head = false;
                    // Servers close a connection after an exception without having announced it (uvicorn
                    // does), and a request that meets the close is lost.
                    self.keeps_open &= keeps_open && !head.status.is_server_error();
                    return Ok(Some(head));
                }
            }
        }
    }

    /// The answer's body, if all of it came along with the head and its length says so.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        let bytes = self.answer.size_hint().exact()?;
        if bytes > self.received.len() as u64 {
            return None;
        }
        let frame = self.answer.decode(&mut self.received).ok()?;
        Some(frame.and_then(|frame| frame.into_data().ok()).unwrap_or_default())
    }

    /// The next piece of the answer's body.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if self.send_on(cx).is_err() {
            return Poll::Ready(Some(Err(BodyFault::Cut)));
        }
        loop {
            if let Some(frame) = self.answer.decode(&mut self.received)? {
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.answer.is_end() {
                return Poll::Ready(None);
            }
            match ready!(self.poll_receive(cx)) {
                Ok(0) => self.answer.close()?,
                Ok(_) => {}
                Err(_) => return Poll::Ready(Some(Err(BodyFault::Cut))),
            }
        }
    }

    /// All of the answer was taken.
    pub(super) fn is_answered(&self) -> bool {
        self.answer.is_end()
    }

    /// The runner has the request, and nothing of it depends on its caller any more.
    pub(super) fn has_sent(&self) -> bool {
        self.begun && self.upload.is_none()
    }

    /// Closes our side, and leaves the runner's open.
    pub(super) async fn hang_up(&mut self) {
        self.keeps_open = false;
        // A side that cannot be closed is closed already.
        let _ = poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await;
    }

    /// How much of the answer's body is to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }

    /// Both messages of the last exchange are complete, and the runner keeps the connection open.
    pub(super) fn is_reusable(&self) -> bool {
        self.keeps_open
            && !self.awaits_head
            && self.upload.is_none()
            && self.outbox.is_empty()
            && self.answer.is_end()
            && self.received.is_empty()
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.received.reserve(self.read_bytes);
        let room = self.received.capacity() - self.received.len();
        let read = ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.received))?;
        if read == room {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        }
        Poll::Ready(Ok(read))
    }

    /// Sends as much of the request as goes now. Fails if the caller does not send its body.
    fn send_on(&mut self, cx: &mut Context<'_>) -> Result<(), RequestBodyError> {
        while self.poll_write(cx).is_ready() && self.upload.is_some() {
            match self.poll_upload(cx) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Writes all that is encoded. A runner that reads no further may have answered nevertheless, so
    /// that it does not is no failure yet.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.outbox.is_empty() {
            let slices = self.outbox.slices();
            match ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices)) {
                Ok(bytes) if bytes > 0 => {
                    self.begun = true;
                    self.outbox.advance(bytes);
                }
                Ok(_) | Err(_) => {
                    self.upload = None;
                    self.keeps_open = false;
                    self.outbox.clear();
                }
            }
        }
        Poll::Ready(())
    }

    /// Encodes the next piece of the request's body.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestBodyError>> {
        let Some(upload) = &mut self.upload else { return Poll::Ready(Ok(())) };
        let frame = ready!(Pin::new(&mut upload.body).poll_frame(cx)).transpose()?;
        if upload.encode(frame, &mut self.outbox)? {
            self.upload = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl Framing {
    fn of(body: &RequestBody) -> Self {
        match body.size_hint().exact() {
            _ if body.is_end_stream() => Self::Empty,
            Some(bytes) => Self::Length(bytes),
            None => Self::Chunked,
        }
    }
}

impl Upload {
    /// Returns whether it is complete. `None`: the body is at its end.
    fn encode(
        &mut self,
        frame: Option<Frame<Bytes>>,
        outbox: &mut Outbox,
    ) -> Result<bool, RequestBodyError> {
        let frame = frame.map(Frame::into_data);
        match (&mut self.framing, frame) {
            // More or less than was announced would be read as a part of another request, or wait for one.
            (Framing::Length(left), Some(Ok(data))) => {
                let length = data.len() as u64;
                *left = left.checked_sub(length).ok_or(RequestBodyError::Length)?;
                outbox.set_data(data);
                Ok(*left == 0)
            }
            (Framing::Empty | Framing::Length(0), _) => Ok(true),
            (Framing::Length(_), _) => Err(RequestBodyError::Length),
            (Framing::Chunked, Some(Ok(data))) => {
                encode_chunk(data, outbox);
                Ok(false)
            }
            (Framing::Chunked, Some(Err(frame))) => {
                encode_end(frame.trailers_ref(), &self.announced, outbox);
                Ok(true)
            }
            (Framing::Chunked, None) => {
                encode_end(None, &self.announced, outbox);
                Ok(true)
            }
        }
    }
}

fn announced_trailers(head: &request::Parts, framing: Framing) -> Vec<HeaderName> {
    if framing != Framing::Chunked {
        return Vec::new();
    }
    head.headers
        .get_all(header::TRAILER)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}

#[cfg(test)]
mod tests;
