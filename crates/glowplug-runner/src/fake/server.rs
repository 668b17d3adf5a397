//! What a fake runner answers.
//!
//! Every request is echoed as JSON (method, path, headers, length of the body, the runner's id), but for
//! `/sleep/MILLISECONDS`, which is echoed later, `/status/CODE`, and `/crash`, which ends the runner.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use super::runner::{FakeRunner, Order};
use crate::backend::RunnerAddress;

/// Open at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 4_096;
const SLEEP_MAX: Duration = Duration::from_hours(1);

pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(super) async fn bind(address: &RunnerAddress) -> io::Result<Self> {
        match address {
            RunnerAddress::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            RunnerAddress::Unix(path) => UnixListener::bind(path).map(Self::Unix),
            // A fake has no world of its own.
            RunnerAddress::InNamespace { .. } | RunnerAddress::UnixInNamespace { .. } => {
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    }
}

/// Serves until it is dropped, and all its connections with it.
pub(super) async fn serve(listener: Listener, runner: Arc<FakeRunner>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let runner = Arc::clone(&runner);
        // A connection that broke before it was accepted is the client's business.
        match &listener {
            Listener::Tcp(listener) => {
                if let Ok((stream, _)) = listener.accept().await {
                    connections.spawn(connection(stream, runner));
                }
            }
            Listener::Unix(listener) => {
                if let Ok((stream, _)) = listener.accept().await {
                    connections.spawn(connection(stream, runner));
                }
            }
        }
    }
}

async fn connection<S>(stream: S, runner: Arc<FakeRunner>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| answer(Arc::clone(&runner), request));
    // Its end, however it comes about, is the client's business.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    runner: Arc<FakeRunner>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    runner.runs().await;
    let path = request.uri().path().to_owned();
    if runner.answers_unhealthy(&path) {
        return Ok(respond(StatusCode::INTERNAL_SERVER_ERROR, "{\"healthy\":false}".to_owned()));
    }
    let mut status = StatusCode::OK;
    let mut segments = path.trim_start_matches('/').split('/');
    match (segments.next(), segments.next()) {
        (Some("crash"), None) => return crash(&runner).await,
        (Some("say"), None) => runner.say("said"),
        (Some("sleep"), Some(millis)) => {
            let span = Duration::from_millis(millis.parse().unwrap_or(0));
            tokio::time::sleep(span.min(SLEEP_MAX)).await;
        }
        (Some("status"), Some(code)) => {
            let code = code.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
            status = code.unwrap_or(StatusCode::BAD_REQUEST);
        }
        _ if runner.crashes_now() => return crash(&runner).await,
        _ => {}
    }
    let (head, mut body) = request.into_parts();
    let mut body_bytes = 0_u64;
    while let Some(Ok(frame)) = body.frame().await {
        body_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    let header = |name: &http::HeaderName, value: &http::HeaderValue| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let headers: BTreeMap<String, String> =
        head.headers.iter().map(|(name, value)| header(name, value)).collect();
    let echo = serde_json::json!({
        "method": head.method.as_str(),
        "path": head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
        "headers": headers,
        "body_bytes": body_bytes,
        "runner": runner.id().to_string(),
    });
    Ok(respond(status, echo.to_string()))
}

/// Never answers: the runner's end drops this connection.
async fn crash(runner: &FakeRunner) -> Result<Response<Full<Bytes>>, Infallible> {
    runner.order(Order::Crash);
    std::future::pending().await
}

fn respond(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}
