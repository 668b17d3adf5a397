//! One HTTP/1.1 connection to a runner, driven by whoever waits on it.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use glowplug_core::RunnerAddress;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;

use super::relay::{Relay, RelayedBody};
use super::stream::RelayedStream;
use super::{ForwardError, Stream};
use crate::body::{RequestBody, RequestBodyError};
use crate::options::{ForwardOptions, HEADER_COUNT_MAX, RESPONSE_HEADER_BYTES_MAX};

/// Read and write buffer. Large enough that streams move in few system calls.
const BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Where the parser gives up on a head. Above [`RESPONSE_HEADER_BYTES_MAX`], so that a block a little
/// over that limit is still counted exactly and named in the error.
const HEAD_BYTES_MAX: usize = 2 * RESPONSE_HEADER_BYTES_MAX;

pub(crate) struct Connection {
    sender: http1::SendRequest<RelayedBody>,
    driven: Driven,
}

/// The connection proper, and how it is polled.
struct Driven {
    /// `None` once closed.
    http: Option<http1::Connection<RelayedStream, RelayedBody>>,
    relay: Arc<Relay>,
    /// Wakes `relay`.
    parts: Waker,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

pub(super) enum SendError {
    /// The connection was closed before anything of the request was written.
    Unsent(Box<Request<RequestBody>>),
    Failed(ForwardError),
}

/// Opens a connection to a runner.
pub(super) async fn connect(
    address: &Arc<RunnerAddress>,
    options: &ForwardOptions,
) -> Result<Box<Connection>, ForwardError> {
    let stream = connect_stream(address, options).await?;
    let relay = Relay::new();
    let stream = RelayedStream { stream, relay: relay.clone() };
    let (sender, http) = builder().handshake(stream).await.map_err(|error| {
        ForwardError::Connect { address: address.clone(), source: io::Error::other(error) }
    })?;
    let parts = Waker::from(relay.clone());
    Ok(Box::new(Connection { sender, driven: Driven { http: Some(http), relay, parts } }))
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

pub(crate) fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_BYTES_MAX).max_header_size(HEAD_BYTES_MAX);
    builder
}

impl Connection {
    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        mut self: Box<Self>,
        request: Request<RequestBody>,
    ) -> Result<(Box<Self>, Response<Incoming>), SendError> {
        let relay = self.driven.relay.clone();
        let request = request.map(|body| RelayedBody { body, relay });
        let mut answer = pin!(self.sender.try_send_request(request));
        let driven = &mut self.driven;
        let result = poll_fn(|cx| {
            driven.drive(cx);
            // The answer comes out of the connection just driven, from nowhere else.
            match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending if driven.http.is_none() => Poll::Ready(None),
                answer => answer.map(Some),
            }
        })
        .await;
        match result {
            Some(Ok(response)) => Ok((self, response)),
            Some(Err(mut error)) => Err(match error.take_message() {
                Some(unsent) => SendError::Unsent(Box::new(unsent.map(|relayed| relayed.body))),
                None => SendError::Failed(failure(error.error())),
            }),
            None => Err(SendError::Failed(ForwardError::Disconnected)),
        }
    }

    /// Moves bytes in both directions as far as they go now.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        self.driven.drive(cx);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.driven.http.is_none()
    }

    /// Both messages of the last exchange are complete, and the runner keeps the connection open.
    pub(super) fn is_reusable(&self) -> bool {
        !self.is_closed() && self.sender.is_ready()
    }
}

impl Driven {
    /// A connection that is over is dropped at once: only then does it hand back a request of which it
    /// has written nothing.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(http) = &mut self.http
            && self.relay.drive(&self.parts, cx, |cx| Pin::new(http).poll(cx)).is_ready()
        {
            self.http = None;
        }
    }
}

/// What went wrong before there was a head.
pub(crate) fn failure(error: &hyper::Error) -> ForwardError {
    if let Some(body) = error.source().and_then(|source| source.downcast_ref::<RequestBodyError>())
    {
        return match body {
            RequestBodyError::Caller(_) => ForwardError::CallerGone,
            RequestBodyError::TooLarge => ForwardError::BodyTooLarge,
        };
    }
    if error.is_parse_too_large() {
        let reason =
            format!("more than {HEADER_COUNT_MAX} fields or {RESPONSE_HEADER_BYTES_MAX} bytes");
        ForwardError::HeadersTooLarge { reason }
    } else if error.is_parse() {
        ForwardError::Malformed { reason: error.to_string() }
    } else {
        ForwardError::Disconnected
    }
}
