//! Bodies of answers, and of the requests sent to runners.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use crate::forward::RunnerBody;
use crate::listener::OpenExchange;

pub type BoxError = Box<dyn Error + Send + Sync>;

/// The body of an answer. Answers carried from a runner stream; everything else is made of [`Bytes`] or
/// of any other body.
#[derive(Debug)]
pub struct Body {
    kind: Kind,
    /// What is over with this body.
    exchange: Option<OpenExchange>,
}

#[derive(Debug)]
enum Kind {
    Full(Option<Bytes>),
    Runner(Box<RunnerBody>),
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
}

impl Body {
    pub fn empty() -> Self {
        Self::of(Kind::Full(None))
    }

    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::of(Kind::Full((!bytes.is_empty()).then_some(bytes)))
    }

    /// Any other body, such as a stream.
    pub fn boxed<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self::of(Kind::Boxed(body.map_err(Into::into).boxed_unsync()))
    }

    pub(crate) fn runner(body: Box<RunnerBody>) -> Self {
        Self::of(Kind::Runner(body))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, exchange: None }
    }

    /// Ties the end of an exchange to the end of this body.
    pub(crate) fn ends(mut self, exchange: OpenExchange) -> Self {
        self.exchange = Some(exchange);
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.kind {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Runner(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Kind::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Runner(body) => body.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, length)),
            Kind::Runner(body) => body.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

/// The body of a request to a runner.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// Straight from the caller's connection, its length known to be allowed.
    Caller(Incoming),
    /// From the caller's connection, counted on the way because its length is not known.
    Counted {
        body: Incoming,
        left: u64,
    },
    Full(Option<Bytes>),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestBodyError {
    /// The caller's connection broke, or what came was not HTTP.
    #[error("the caller's body broke off")]
    Caller(#[source] hyper::Error),
    #[error("the request's body is larger than this node allows")]
    TooLarge,
    #[error("the body is not as long as its length says")]
    Length,
}

impl RequestBody {
    /// `None`: the body says itself that it is longer than `bytes_max`.
    pub(crate) fn from_caller(body: Incoming, bytes_max: u64) -> Option<Self> {
        let size = http_body::Body::size_hint(&body);
        match size.upper() {
            Some(bytes) if bytes <= bytes_max => Some(Self::Caller(body)),
            None if size.lower() <= bytes_max => Some(Self::Counted { body, left: bytes_max }),
            _ => None,
        }
    }

    pub(crate) fn full(bytes: Bytes) -> Self {
        Self::Full((!bytes.is_empty()).then_some(bytes))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match &mut *self {
            Self::Caller(body) => Pin::new(body).poll_frame(cx).map_err(RequestBodyError::Caller),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Counted { body, left } => {
                let frame = Pin::new(body).poll_frame(cx).map_err(RequestBodyError::Caller);
                if let Poll::Ready(Some(Ok(frame))) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    match left.checked_sub(length(data)) {
                        Some(rest) => *left = rest,
                        None => return Poll::Ready(Some(Err(RequestBodyError::TooLarge))),
                    }
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Caller(body) | Self::Counted { body, .. } => body.is_end_stream(),
            Self::Full(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Caller(body) | Self::Counted { body, .. } => body.size_hint(),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, length)),
        }
    }
}

fn length(bytes: &Bytes) -> u64 {
    bytes.len() as u64
}
