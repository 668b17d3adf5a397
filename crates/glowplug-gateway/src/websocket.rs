//! Websockets, of three kinds.
//!
//! | opened as | what the app gets | a place is held |
//! | --- | --- | --- |
//! | `/run/…` with `Upgrade` | the same frames, byte for byte | while the socket is open |
//! | `/ws/…/realtime` | as above: the app speaks websocket there | while the socket is open |
//! | `/ws/…` otherwise | one HTTP call for each message | while a call is answered |
//!
//! `session.rs` and `passage.rs` carry frames, `calls.rs` makes calls of them; `ending.rs` says why the gateway
//! ends a socket. Limits: [`SocketOptions`](crate::options::SocketOptions).

mod calls;
mod ending;
mod frame;
mod handshake;
mod outbox;
mod passage;
mod seat;
mod session;

use std::ops::RangeInclusive;
use std::sync::Arc;

use glowplug_api::ErrorType;
use glowplug_core::RunnerAddress;
use glowplug_core::request::Outcome;
use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;

use crate::answer::Problem;
use crate::auth;
use crate::body::{Body, RequestBody};
use crate::dispatch::{Exchange, Peer};
use crate::forward::{self, ForwardError, unless_revoked};
use crate::header::{CallerControl, receive};
use crate::host::{Access, AppRoute, Caller, DirectArrival, Revocation};
use crate::listener::Worker;
use crate::options::{HEADER_COUNT_MAX, RESPONSE_HEADER_BYTES_MAX};
use crate::path::{AppPath, query_value};
use crate::run::{Attempt, admitted, find_app, to_runner};
use crate::tokens;

use calls::Calls;
pub(crate) use seat::OpenSockets;
use seat::Seat;
use session::Session;

/// An app's answer in place of an upgrade, such as an error. Beyond it the answer is an error of ours.
const REFUSAL_BYTES_MAX: usize = 1024 * 1024;
/// The query parameter with which clients that cannot set headers authenticate.
const TOKEN: &str = "fal_jwt_token";
/// The query parameter with which a caller says that it wants the newest messages rather than all.
const MAX_BUFFERING: &str = "max_buffering";
const MAX_BUFFERING_RANGE: RangeInclusive<usize> = 1..=60;
/// The path at which the clients expect realtime, and its end where there are several.
const REALTIME: &str = "/realtime";

/// Other upgrades (`h2c`, say) are offers that may be ignored.
pub(crate) fn is_wanted<B>(request: &Request<B>) -> bool {
    let protocol = request.headers().get(header::UPGRADE);
    protocol.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Serves `/ws/{owner}/{app}[/{path}]`: HTTP over a websocket, except where the path says that the app itself
/// speaks websocket there.
pub(crate) async fn connect(
    exchange: &Exchange,
    peer: &Peer,
    target: AppPath<'_>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    if is_realtime(target) {
        return pass(exchange, peer, target, request).await;
    }
    let worker = &exchange.worker;
    let Opening { mut request, control, app, caller, seat, .. } =
        Opening::read(exchange, peer, target, request).await?;
    let answer = handshake::accept(request.headers())?;
    let caller_side = hyper::upgrade::on(&mut request);
    let (head, _) = request.into_parts();
    let (worker, path) = (worker.clone(), target.rest.to_owned());
    let calls = Calls { worker: worker.clone(), app, path, caller, control, head, seat };
    worker.tasks.spawn(calls.run(caller_side));
    Ok(answer)
}

/// Serves upgrades on `/run`: the app speaks websocket itself.
pub(crate) async fn pass(
    exchange: &Exchange,
    peer: &Peer,
    target: AppPath<'_>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let worker = &exchange.worker;
    let Opening { mut request, control, app, caller, seat, protocol, max_buffering } =
        Opening::read(exchange, peer, target, request).await?;
    let caller_side = hyper::upgrade::on(&mut request);
    let (mut parts, _) = request.into_parts();
    let start_deadline = control.start_timeout.map(|timeout| worker.host.now() + timeout);
    let arrival = DirectArrival {
        request: exchange.id,
        app: app.id,
        start_deadline,
        caller: caller.key_id.clone(),
        hint: control.hint,
    };
    let mut slot = admitted(worker, arrival).await?;
    let attempt = Attempt::new(worker.clone(), slot.lease);
    to_runner(&mut parts, exchange, target, &caller);
    if max_buffering.is_some() {
        // Compression carries over from one message to the next, so that none could be left out.
        parts.headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    }
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(header::UPGRADE, protocol.clone());
    let request = Request::from_parts(parts, RequestBody::Full(None));
    let answered = upgrade(worker, &slot.address, request, slot.revoked.as_mut()).await;
    let response = match answered {
        Ok(response) => response,
        Err(error) => {
            attempt.end(error.outcome());
            return Err(error.problem());
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return refused(response, attempt).await;
    }
    let (mut parts, runner_side) = switched(response);
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(header::UPGRADE, protocol);
    let session = Session {
        caller: caller_side,
        app: runner_side,
        options: worker.options.sockets.clone(),
        max_buffering,
        is_realtime: is_realtime(target) || max_buffering.is_some(),
        seat,
    };
    let runner = slot.lease.runner;
    worker.tasks.spawn(session.run(worker.clone(), runner, attempt, slot.revoked));
    Ok(Response::from_parts(parts, Body::empty()))
}

/// Whether the app speaks websocket there, in messages of which the gateway's may be one.
fn is_realtime(target: AppPath<'_>) -> bool {
    target.rest == REALTIME || target.rest.ends_with(REALTIME)
}

/// An upgrade that was asked for, by someone who may.
struct Opening {
    request: Request<Incoming>,
    control: CallerControl,
    app: Arc<AppRoute>,
    caller: Caller,
    seat: Seat,
    protocol: HeaderValue,
    max_buffering: Option<usize>,
}

impl Opening {
    async fn read(
        exchange: &Exchange,
        peer: &Peer,
        target: AppPath<'_>,
        mut request: Request<Incoming>,
    ) -> Result<Self, Problem> {
        let worker = &exchange.worker;
        let wanted = is_wanted(&request);
        let mut control = receive(request.headers_mut(), worker.options.header_bytes_max)
            .map_err(|error| Problem::from(&error))?;
        let Some(protocol) = control.upgrade.take().filter(|_| wanted) else {
            let detail = "a websocket is expected here: send `Upgrade: websocket`";
            return Err(Problem::new(ErrorType::BadRequest, detail));
        };
        // Where its bytes end is where frames begin, and an app may see that elsewhere than we do.
        if !request.body().is_end_stream() {
            let detail = "a request that opens a websocket has no body";
            return Err(Problem::new(ErrorType::BadRequest, detail));
        }
        let query = request.uri().query().unwrap_or_default();
        let max_buffering = max_buffering(query)?;
        let token = query_value(query, TOKEN);
        let token = token.map(|token| percent_decode_str(token).decode_utf8_lossy().into_owned());
        let app = find_app(&*worker.host, target.app, request.headers()).await?;
        let headers = request.headers_mut();
        let signed = token.as_deref().map(|token| tokens::caller(&*worker.host, token, target.app));
        let caller = match signed.transpose()?.flatten() {
            Some(caller) => {
                // A key that came beside the token is no business of the app's either.
                drop(auth::admit(&*worker.host, Access::Public, headers, None));
                caller
            }
            None => auth::admit(&*worker.host, app.access, headers, token.as_deref())?,
        };
        let seat = worker.sockets.seat(&caller, peer.address.ip())?;
        if token.is_some() {
            *request.uri_mut() = without_token(request.uri());
        }
        Ok(Self { request, control, app, caller, seat, protocol, max_buffering })
    }
}

fn max_buffering(query: &str) -> Result<Option<usize>, Problem> {
    let Some(value) = query_value(query, MAX_BUFFERING) else { return Ok(None) };
    match value.parse() {
        Ok(messages) if MAX_BUFFERING_RANGE.contains(&messages) => Ok(Some(messages)),
        _ => {
            let (least, most) = (MAX_BUFFERING_RANGE.start(), MAX_BUFFERING_RANGE.end());
            let detail =
                format!("`{MAX_BUFFERING}={value}` is not a number from {least} to {most}");
            Err(Problem::new(ErrorType::BadRequest, detail))
        }
    }
}

/// The token is a secret between caller and node, as the header is.
fn without_token(uri: &Uri) -> Uri {
    let query = uri.query().unwrap_or_default();
    let is_token = |pair: &&str| pair.split('=').next() != Some(TOKEN);
    let kept: Vec<&str> = query.split('&').filter(is_token).collect();
    let path = if kept.is_empty() {
        uri.path().to_owned()
    } else {
        [uri.path(), "?", &kept.join("&")].concat()
    };
    let mut parts = uri.clone().into_parts();
    let path = PathAndQuery::try_from(path);
    parts.path_and_query = Some(path.expect("a part of a query that was parsed is a query"));
    Uri::from_parts(parts).expect("only its query has changed")
}

/// Sends the request on a connection of its own, which stays open after the upgrade.
async fn upgrade(
    worker: &Worker,
    address: &Arc<RunnerAddress>,
    request: Request<RequestBody>,
    revocation: Option<&mut Revocation>,
) -> Result<Response<Incoming>, ForwardError> {
    let exchange = async {
        let stream = forward::connect_stream(address, worker.forwarder.options()).await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_header_size(2 * RESPONSE_HEADER_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failure(&error))?;
        worker.tasks.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a runner's connection ended early");
            }
        });
        sender.send_request(request).await.map_err(|error| failure(&error))
    };
    unless_revoked(exchange, revocation).await
}

/// What went wrong before there was an answer.
fn failure(error: &hyper::Error) -> ForwardError {
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

/// The app answered like any other request.
async fn refused(
    response: Response<Incoming>,
    attempt: Attempt,
) -> Result<Response<Body>, Problem> {
    let (mut parts, body) = response.into_parts();
    let result = match crate::header::answer(parts.status.as_u16(), &mut parts.headers) {
        Ok(answer) => match Limited::new(body, REFUSAL_BYTES_MAX).collect().await {
            Ok(body) => Ok((answer, body.to_bytes())),
            Err(error) => Err(ForwardError::Incomplete { reason: error.to_string() }),
        },
        Err(error) => Err(ForwardError::HeadersTooLarge { reason: error.to_string() }),
    };
    match result {
        Ok((answer, body)) => {
            attempt.end(Outcome::Answered(answer));
            parts.extensions.clear();
            Ok(Response::from_parts(parts, Body::full(body)))
        }
        Err(error) => {
            attempt.end(error.outcome());
            Err(error.problem())
        }
    }
}

fn switched(response: Response<Incoming>) -> (http::response::Parts, OnUpgrade) {
    let mut response = response;
    let runner_side = hyper::upgrade::on(&mut response);
    let (mut parts, _) = response.into_parts();
    // An upgrade has no body and no order to the gateway, and its size was limited by the parser.
    let _ = crate::header::answer(parts.status.as_u16(), &mut parts.headers);
    parts.extensions.clear();
    (parts, runner_side)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_buffering_is_what_the_clients_allow() {
        let check = |query: &str, expected: Option<Option<usize>>| {
            assert_eq!(max_buffering(query).ok(), expected, "{query}");
        };
        check("", Some(None));
        check("a=1", Some(None));
        check("max_buffering=1", Some(Some(1)));
        check("fal_jwt_token=x&max_buffering=60", Some(Some(60)));
        for bad in ["0", "61", "-1", "2.5", "", "two"] {
            check(&format!("max_buffering={bad}"), None);
        }
        let problem = max_buffering("max_buffering=61").unwrap_err();
        assert_eq!(problem.detail, "`max_buffering=61` is not a number from 1 to 60");
    }

    #[test]
    fn the_app_does_not_see_the_token() {
        let cases = [
            ("/a?fal_jwt_token=x", "/a"),
            ("/a?fal_jwt_token=x&max_buffering=2", "/a?max_buffering=2"),
            ("/a?b&fal_jwt_token=x&c=d", "/a?b&c=d"),
            ("/a?xfal_jwt_token=x", "/a?xfal_jwt_token=x"),
            ("http://host/a?fal_jwt_token", "http://host/a"),
        ];
        for (uri, expected) in cases {
            assert_eq!(without_token(&Uri::from_static(uri)).to_string(), expected);
        }
    }

    #[test]
    fn realtime_is_told_by_the_path() {
        let check = |rest, expected| {
            assert_eq!(is_realtime(AppPath { app: "me/app", rest }), expected, "{rest}");
        };
        check("/realtime", true);
        check("/v2/realtime", true);
        check("", false);
        check("/", false);
        check("/surrealtime", false);
        check("/realtime/x", false);
    }
}
