//! The queue over HTTP: submit, status, result, cancel. What waits where, only the host knows.
//!
//! The codes are chosen for two clients at once: one polls until 200 and takes 202 for pending, the
//! other reads `status`. 409 and 429 mean "try the same again" to both, so they are never an answer
//! about a request's state.

mod status_stream;
mod submit;

use std::net::SocketAddr;

use glowplug_api::ErrorType;
use glowplug_api::queue::{
    CancelState, CancelView, EtaView, Links, LogView, MetricsView, QueueState, StatusView,
};
use glowplug_core::RequestId;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, request};
use hyper::body::Incoming;

use crate::answer::{Problem, json};
use crate::auth;
use crate::body::Body;
use crate::dispatch::{Exchange, Peer, authority};
use crate::header::ETA_SECONDS;
use crate::host::{
    Access, Caller, CancelOutcome, Eta, QueueLog, QueueStatus, ResponseLookup, StoreAway,
};
use crate::identity;
use crate::path::{QueuedAction, query_value};
use crate::run::find_app;

pub(crate) use submit::submit;

/// Serves what is below `/queue/{owner}/{app}/requests/{id}`.
pub(crate) async fn about(
    exchange: &mut Exchange,
    peer: &Peer,
    app: &str,
    id: &str,
    action: QueuedAction,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let (mut parts, _) = request.into_parts();
    let worker = exchange.worker.clone();
    let host = &*worker.host;
    admit(exchange, app, &mut parts.headers).await?;
    let Ok(id) = id.parse::<RequestId>() else { return Ok(not_found(app, id)) };
    // The answer is about that request, and the clients read its id from the header.
    exchange.id_header = identity::header(id);
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    let is_cancel = matches!(parts.method, Method::PUT | Method::POST);
    let links = links(peer, &parts, worker.address, app, id);
    let asked = Asked { app, id, logs: wants_logs(parts.uri.query()), links };
    match action {
        QueuedAction::Cancel if !is_cancel => Ok(wrong_method("PUT")),
        QueuedAction::Status | QueuedAction::StatusStream | QueuedAction::Response if !is_read => {
            Ok(wrong_method("GET"))
        }
        QueuedAction::Status => Ok(match host.status(app, id, asked.logs).await? {
            Some(status) => status_answer(status, &asked),
            None => not_found(app, &id.to_string()),
        }),
        QueuedAction::StatusStream => {
            let stream = status_stream::StatusStream::open(worker.clone(), &asked).await?;
            Ok(stream.unwrap_or_else(|| not_found(app, &id.to_string())))
        }
        QueuedAction::Response => response(host.response(app, id).await?, app, id),
        QueuedAction::Cancel => Ok(cancelled(host.cancel(app, id).await?, app, id)),
    }
}

impl From<StoreAway> for Problem {
    fn from(away: StoreAway) -> Self {
        let detail = format!("the request cannot be looked up now: {}", away.reason);
        Self::new(ErrorType::StoreUnavailable, detail)
    }
}

/// A question about one queued request.
#[derive(Clone, Debug)]
struct Asked<'a> {
    app: &'a str,
    id: RequestId,
    logs: bool,
    links: Links,
}

async fn admit(exchange: &Exchange, app: &str, headers: &mut HeaderMap) -> Result<Caller, Problem> {
    let host = &*exchange.worker.host;
    let access = match host.app(app) {
        Some(app) => app.access,
        // Its requests outlive an app that was removed or cannot be prepared now. Whoever has a key may
        // ask about them; for the others it must be known that the app is public.
        None if auth::knows_node(host, headers) => Access::Private,
        None => find_app(host, app, headers).await?.access,
    };
    auth::admit(host, access, headers, None)
}

fn wrong_method(allowed: &'static str) -> Response<Body> {
    let detail = format!("this address takes {allowed}");
    let mut answer = Problem::new(ErrorType::MethodNotAllowed, detail).answer();
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn not_found(app: &str, id: &str) -> Response<Body> {
    let detail = format!("`{app}` has no request `{id}`, or its result is no longer kept");
    let body = CancelView {
        status: CancelState::NotFound,
        detail: Some(detail),
        error_type: Some(ErrorType::NotFound),
    };
    Problem::new(ErrorType::NotFound, "").answer_with(&body)
}

fn status_answer(status: QueueStatus, asked: &Asked<'_>) -> Response<Body> {
    let view = status_view(status, asked);
    let code = match view.status {
        QueueState::Completed => StatusCode::OK,
        QueueState::InQueue | QueueState::InProgress => StatusCode::ACCEPTED,
    };
    let mut answer = json(code, &view);
    tell_eta(answer.headers_mut(), view.eta.as_ref());
    answer
}

fn status_view(status: QueueStatus, asked: &Asked<'_>) -> StatusView {
    let mut view = StatusView {
        status: QueueState::InProgress,
        request_id: asked.id.to_string(),
        links: asked.links.clone(),
        queue_position: None,
        eta: None,
        logs: None,
        metrics: MetricsView::default(),
        error: None,
        error_type: None,
    };
    let logs = match status {
        QueueStatus::InQueue { position, eta, logs } => {
            view.eta = eta.map(eta_view);
            view.status = QueueState::InQueue;
            view.queue_position = Some(position);
            logs
        }
        QueueStatus::InProgress { logs } => logs,
        QueueStatus::Completed { logs, inference_seconds, error } => {
            view.status = QueueState::Completed;
            view.metrics.inference_time = inference_seconds;
            (view.error, view.error_type) = error.unzip();
            logs
        }
    };
    view.logs = asked.logs.then(|| logs.into_iter().map(log_view).collect());
    view
}

fn eta_view(eta: Eta) -> EtaView {
    EtaView { seconds: eta.seconds, basis: eta.basis }
}

fn tell_eta(headers: &mut HeaderMap, eta: Option<&EtaView>) {
    let Some(eta) = eta else { return };
    if let Ok(seconds) = HeaderValue::from_str(&format!("{:.3}", eta.seconds)) {
        headers.insert(ETA_SECONDS, seconds);
    }
}

fn log_view(log: QueueLog) -> LogView {
    let micros = i64::try_from(log.at.as_micros()).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX);
    LogView {
        message: log.message,
        timestamp: at.to_string(),
        level: log.level,
        source: log.source,
    }
}

fn response(lookup: ResponseLookup, app: &str, id: RequestId) -> Result<Response<Body>, Problem> {
    let (status, headers, body) = match lookup {
        ResponseLookup::Unknown => return Ok(not_found(app, &id.to_string())),
        ResponseLookup::NotYet(_) => {
            return Err(Problem::new(ErrorType::BadRequest, "Request is still in progress"));
        }
        ResponseLookup::Ready { status, headers, body } => (status, headers, body),
    };
    let mut answer = Response::new(Body::full(body));
    *answer.status_mut() = StatusCode::from_u16(status).map_err(|_| {
        Problem::new(ErrorType::InternalError, format!("the stored status {status} is not one"))
    })?;
    for (name, value) in &headers {
        let field = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
        if let (Ok(name), Ok(value)) = field
            // The body is sent in one piece, whatever way it once came.
            && name != header::CONTENT_LENGTH
            && name != header::TRANSFER_ENCODING
        {
            answer.headers_mut().append(name, value);
        }
    }
    Ok(answer)
}

fn cancelled(outcome: CancelOutcome, app: &str, id: RequestId) -> Response<Body> {
    let state = |status| CancelView { status, detail: None, error_type: None };
    match outcome {
        CancelOutcome::Removed => json(StatusCode::OK, &state(CancelState::Ok)),
        CancelOutcome::Requested => {
            json(StatusCode::ACCEPTED, &state(CancelState::CancellationRequested))
        }
        CancelOutcome::AlreadyCompleted => {
            let body = CancelView {
                status: CancelState::AlreadyCompleted,
                detail: Some("the request is complete already".to_owned()),
                error_type: Some(ErrorType::BadRequest),
            };
            Problem::new(ErrorType::BadRequest, "").answer_with(&body)
        }
        CancelOutcome::Unknown => not_found(app, &id.to_string()),
    }
}

/// Addresses of one request, built from how its caller reached us.
fn links(
    peer: &Peer,
    parts: &request::Parts,
    listen: SocketAddr,
    app: &str,
    id: RequestId,
) -> Links {
    let authority = authority(&parts.headers, &parts.uri)
        .map_or_else(|| listen.to_string(), |authority| authority.to_string());
    let response_url = format!("{}/{app}/requests/{id}", peer.queue_base(&authority));
    Links {
        status_url: format!("{response_url}/status"),
        cancel_url: format!("{response_url}/cancel"),
        response_url,
    }
}

fn wants_logs(query: Option<&str>) -> bool {
    let value = query.and_then(|query| query_value(query, "logs"));
    value.is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_yes_asks_for_logs() {
        for (query, expected) in [
            (Some("logs=1"), true),
            (Some("logs=true"), true),
            (Some("logs=True"), true),
            (Some("logs=0"), false),
            (Some("logs=False"), false),
            (Some("logs="), false),
            (Some("x=1"), false),
            (None, false),
        ] {
            assert_eq!(wants_logs(query), expected, "{query:?}");
        }
    }
}
