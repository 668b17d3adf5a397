//! Runners: a real HTTP server with a few routes, and one that writes whatever bytes it is given.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{StreamExt, stream};
use glowplug_core::RunnerAddress;
use http::header::HeaderValue;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;

use crate::socket;
use crate::wait::until;

pub(crate) type UpstreamBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// What a runner has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    pub(crate) requests: AtomicUsize,
    /// Bodies of `/hang` that were dropped because the gateway closed the connection.
    pub(crate) dropped: AtomicUsize,
    pub(crate) bytes_made: AtomicUsize,
    pub(crate) go_on: Notify,
    /// Method and path of each request.
    pub(crate) uris: Mutex<Vec<String>>,
    /// `x-fal-request-id` of each request.
    pub(crate) ids: Mutex<Vec<String>>,
    /// What `/stoppable` and `/endless` wait for, and being cancelled brings.
    stop: Notify,
    close: Notify,
    open: AtomicUsize,
}

pub(crate) struct Upstream {
    pub(crate) address: RunnerAddress,
    pub(crate) seen: Arc<Seen>,
}

impl Upstream {
    pub(crate) async fn tcp() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = RunnerAddress::Tcp(listener.local_addr().unwrap());
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                serve(stream, &shared);
            }
        });
        Self { address, seen }
    }

    pub(crate) fn unix(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, &shared);
            }
        });
        Self { address: RunnerAddress::Unix(path.to_owned()), seen }
    }

    /// Closes all connections, as a server does that has waited long enough.
    pub(crate) async fn close_connections(&self) {
        self.seen.close.notify_waiters();
        until("the connections to close", || {
            (self.seen.open.load(Ordering::SeqCst) == 0).then_some(())
        })
        .await;
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }
}

fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, seen: &Arc<Seen>) {
    seen.connections.fetch_add(1, Ordering::SeqCst);
    seen.open.fetch_add(1, Ordering::SeqCst);
    let (seen, shared) = (seen.clone(), seen.clone());
    let service = service_fn(move |request| answer(shared.clone(), request));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::spawn(async move {
        tokio::select! {
            _ = connection.with_upgrades() => {}
            () = seen.close.notified() => {}
        }
        seen.open.fetch_sub(1, Ordering::SeqCst);
    });
}

async fn answer(
    seen: Arc<Seen>,
    request: Request<Incoming>,
) -> Result<Response<UpstreamBody>, Infallible> {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let path = request.uri().path().to_owned();
    seen.uris.lock().unwrap().push(format!("{} {path}", request.method()));
    let id = request.headers().get("x-fal-request-id").map(|id| id.to_str().unwrap().to_owned());
    seen.ids.lock().unwrap().push(id.unwrap_or_default());
    let number = |name: &str| -> usize {
        let query = request.uri().query().unwrap_or_default();
        let value = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    Ok(match path.as_str() {
        "/upload" => upload(request).await,
        "/big" => chunks(seen, number("chunks"), number("bytes")),
        "/length" => whole(&vec![b'x'; number("bytes")]),
        "/events" => events(seen),
        "/hang" => hang(seen, number("status")).await,
        "/stoppable" => stoppable(&seen).await,
        "/endless" => endless(seen),
        "/stoppable/cancel" | "/endless/cancel" => {
            seen.stop.notify_one();
            whole(b"{}")
        }
        "/hang/cancel" | "/events/cancel" => with_status(404),
        "/trailers" => trailers(request).await,
        "/duplex" => {
            Response::new(request.into_body().map_err(std::io::Error::other).boxed_unsync())
        }
        "/early" => whole(b"early"),
        path if path.ends_with("/realtime") || path == "/socket" => socket::accept(seen, request),
        "/orders" => orders(number("status")),
        "/answer" => plain_answer(&request, number("status")),
        "/headers" => many_headers(number("bytes")),
        _ => echo(request).await,
    })
}

fn whole(bytes: &[u8]) -> Response<UpstreamBody> {
    let body = Full::new(Bytes::copy_from_slice(bytes)).map_err(|never| match never {});
    Response::new(body.boxed_unsync())
}

/// Says what it was asked, as JSON.
async fn echo(request: Request<Incoming>) -> Response<UpstreamBody> {
    let (head, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return whole(error.to_string().as_bytes()),
    };
    let mut headers: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    headers.sort();
    let seen = json!({
        "method": head.method.as_str(),
        "uri": head.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    let mut response = whole(seen.to_string().as_bytes());
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

/// Counts a body without keeping it.
async fn upload(request: Request<Incoming>) -> Response<UpstreamBody> {
    let mut body = request.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len),
            Err(_) => break,
        }
    }
    whole(bytes.to_string().as_bytes())
}

/// `chunks` pieces of `bytes` each, counted as they are made.
fn chunks(seen: Arc<Seen>, chunks: usize, bytes: usize) -> Response<UpstreamBody> {
    let piece = Bytes::from(vec![b'x'; bytes]);
    let pieces = stream::iter(0..chunks).map(move |_| {
        seen.bytes_made.fetch_add(piece.len(), Ordering::SeqCst);
        Ok(Frame::data(piece.clone()))
    });
    Response::new(StreamBody::new(pieces).boxed_unsync())
}

/// Two events, the second after [`Seen::go_on`].
fn events(seen: Arc<Seen>) -> Response<UpstreamBody> {
    let events = stream::unfold((0, seen), |(sent, seen)| async move {
        match sent {
            0 => {}
            1 => seen.go_on.notified().await,
            _ => return None,
        }
        let event = Bytes::from(format!("data: {{\"n\":{sent}}}\n\n"));
        Some((Ok(Frame::data(event)), (sent + 1, seen)))
    });
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

struct CountDrop(Arc<Seen>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// Answers only after [`Seen::go_on`].
async fn hang(seen: Arc<Seen>, status: usize) -> Response<UpstreamBody> {
    let noticed = CountDrop(seen);
    noticed.0.go_on.notified().await;
    std::mem::forget(noticed);
    with_status(status.max(200))
}

/// Works until it is cancelled.
async fn stoppable(seen: &Seen) -> Response<UpstreamBody> {
    seen.stop.notified().await;
    with_status(499)
}

/// Answers one event, and then nothing until it is cancelled.
fn endless(seen: Arc<Seen>) -> Response<UpstreamBody> {
    let events = stream::unfold((0, seen), |(sent, seen)| async move {
        if sent > 0 {
            seen.stop.notified().await;
            return None;
        }
        Some((Ok(Frame::data(Bytes::from_static(b"data: 0\n\n"))), (sent + 1, seen)))
    });
    Response::new(StreamBody::new(events).boxed_unsync())
}

fn with_status(status: usize) -> Response<UpstreamBody> {
    let mut response = whole(b"at last");
    *response.status_mut() = StatusCode::from_u16(u16::try_from(status).unwrap()).unwrap();
    response
}

/// The request's trailers as the response's.
async fn trailers(request: Request<Incoming>) -> Response<UpstreamBody> {
    let collected = request.into_body().collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let frames = [Ok(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(stream::iter(frames));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
    response
}

/// Everything an app may tell the gateway.
fn orders(status: usize) -> Response<UpstreamBody> {
    let mut response = whole(b"orders");
    *response.status_mut() = StatusCode::from_u16(u16::try_from(status).unwrap()).unwrap();
    let headers = response.headers_mut();
    headers.insert("x-fal-needs-retry", HeaderValue::from_static("1"));
    headers.insert("x-fal-stop-runner", HeaderValue::from_static("0"));
    headers.insert("x-fal-runner-health-check", HeaderValue::from_static("true"));
    headers.insert("x-fal-billable-units", HeaderValue::from_static("2"));
    headers.insert("x-fal-request-id", HeaderValue::from_static("forged"));
    response
}

/// A status, and `x-fal-needs-retry` if it was asked for.
fn plain_answer(request: &Request<Incoming>, status: usize) -> Response<UpstreamBody> {
    let mut response = with_status(status);
    let query = request.uri().query().unwrap_or_default();
    if let Some(value) = query.split('&').find_map(|pair| pair.strip_prefix("needs_retry=")) {
        response.headers_mut().insert("x-fal-needs-retry", value.parse().unwrap());
    }
    response
}

fn many_headers(bytes: usize) -> Response<UpstreamBody> {
    let mut response = whole(b"headers");
    let value = HeaderValue::from_str(&"v".repeat(bytes)).unwrap();
    response.headers_mut().insert("x-long", value);
    response
}

/// A runner that reads one request's head, writes `answer` and closes, for each connection.
pub(crate) async fn raw(answer: &'static [u8]) -> RunnerAddress {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                match stream.read_buf(&mut head).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            let _ = stream.write_all(answer).await;
        }
    });
    RunnerAddress::Tcp(address)
}

/// An address at which nobody listens.
pub(crate) fn nobody() -> RunnerAddress {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    RunnerAddress::Tcp(address)
}
