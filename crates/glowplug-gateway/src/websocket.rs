//! Websockets: after the upgrade, raw bytes both ways until either side closes.
//!
//! A socket is one attempt and holds its slot for as long as it is open. The frames are not looked at.

use std::pin::pin;
use std::sync::Arc;

use glowplug_api::ErrorType;
use glowplug_core::RunnerAddress;
use glowplug_core::request::{Answer, Outcome};
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;

use crate::answer::Problem;
use crate::auth;
use crate::body::{Body, RequestBody};
use crate::dispatch::Exchange;
use crate::forward::{self, ForwardError, revoked};
use crate::header::receive;
use crate::host::{DirectArrival, Revocation};
use crate::listener::Worker;
use crate::options::{HEADER_COUNT_MAX, RESPONSE_HEADER_BYTES_MAX};
use crate::path::{AppPath, query_value};
use crate::run::{Attempt, admitted, find_app, to_runner};

/// Buffer of each direction.
const PUMP_BYTES: usize = 16 * 1024;
/// An app's answer in place of an upgrade, such as an error. Beyond it the answer is an error of ours.
const REFUSAL_BYTES_MAX: usize = 1024 * 1024;
/// The query parameter with which clients that cannot set headers authenticate.
const TOKEN: &str = "fal_jwt_token";

/// Other upgrades (`h2c`, say) are offers that may be ignored.
pub(crate) fn is_wanted<B>(request: &Request<B>) -> bool {
    let protocol = request.headers().get(header::UPGRADE);
    protocol.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Serves `/ws/{owner}/{app}[/{path}]`, and upgrades on `/run`.
pub(crate) async fn connect(
    exchange: &Exchange,
    target: AppPath<'_>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let worker = &exchange.worker;
    let wanted = is_wanted(&request);
    let caller_side = hyper::upgrade::on(&mut request);
    let (mut parts, _) = request.into_parts();
    let control = receive(&mut parts.headers, worker.options.header_bytes_max)
        .map_err(|error| Problem::from(&error))?;
    let Some(protocol) = control.upgrade.filter(|_| wanted) else {
        let detail = "a websocket is expected here: send `Upgrade: websocket`";
        return Err(Problem::new(ErrorType::BadRequest, detail));
    };
    let app = find_app(&*worker.host, target.app, &parts.headers).await?;
    let token = parts.uri.query().and_then(|query| query_value(query, TOKEN));
    let token = token.map(|token| percent_decode_str(token).decode_utf8_lossy().into_owned());
    let caller = auth::admit(&*worker.host, app.access, &mut parts.headers, token.as_deref())?;
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
    let sockets = Sockets { caller: caller_side, runner: runner_side };
    worker.tasks.spawn(sockets.pump(attempt, slot.revoked));
    Ok(Response::from_parts(parts, Body::empty()))
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
    let mut exchange = pin!(exchange);
    let Some(revocation) = revocation else { return exchange.await };
    tokio::select! {
        biased;
        answer = exchange.as_mut() => answer,
        refusal = revoked(revocation) => Err(ForwardError::Revoked(refusal)),
    }
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

struct Sockets {
    caller: OnUpgrade,
    runner: OnUpgrade,
}

impl Sockets {
    async fn pump(self, attempt: Attempt, revocation: Option<Revocation>) {
        let (caller, runner) = match futures::try_join!(self.caller, self.runner) {
            Ok(sockets) => sockets,
            Err(error) => {
                tracing::debug!(%error, "a websocket ended before it was open");
                return attempt.end(Outcome::Disconnected);
            }
        };
        let withdrawn = async {
            match revocation {
                Some(mut revocation) => revoked(&mut revocation).await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            () = carry(caller, runner) => {
                let status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
                Outcome::Answered(Answer { status, ..Answer::default() })
            }
            _ = withdrawn => Outcome::Disconnected,
        };
        attempt.end(outcome);
    }
}

/// Until both sides have closed, or one broke.
async fn carry(caller: Upgraded, runner: Upgraded) {
    let (mut caller, mut runner) = (TokioIo::new(caller), TokioIo::new(runner));
    let pumped =
        tokio::io::copy_bidirectional_with_sizes(&mut caller, &mut runner, PUMP_BYTES, PUMP_BYTES);
    if let Err(error) = pumped.await {
        tracing::debug!(%error, "a websocket broke");
    }
}
