//! A direct request: waits for a runner with its caller, and carries the bytes between the two.

use std::sync::Arc;

use glowplug_api::ErrorType;
use glowplug_core::request::{Answer, Outcome, Refusal};
use glowplug_core::retry::{self, Again, Condition};
use glowplug_core::{Lease, RequestId, RunnerAddress};
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri, Version, request};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use crate::answer::Problem;
use crate::auth;
use crate::body::{Body, RequestBody};
use crate::dispatch::Exchange;
use crate::files::APP_TOKEN;
use crate::forward::{AnswerBody, Connection, ForwardError, LeftBehind, withdrawal};
use crate::header::{CALLER, CallerControl, ENDPOINT, NEEDS_RETRY, REQUEST_ID, receive};
use crate::host::{Admission, AppProblem, AppRoute, Caller, DirectArrival, Host, Revocation, Slot};
use crate::listener::Worker;
use crate::path::AppPath;

/// Serves `/run/{owner}/{app}[/{path}]`.
pub(crate) async fn direct(
    exchange: &Exchange,
    target: AppPath<'_>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Problem> {
    let worker = &exchange.worker;
    let (mut parts, body) = request.into_parts();
    let control = receive(&mut parts.headers, worker.options.header_bytes_max)
        .map_err(|error| Problem::from(&error))?;
    let app = find_app(&*worker.host, target.app, &parts.headers).await?;
    let caller = auth::admit(&*worker.host, app.access, &mut parts.headers, None)?;
    let body = RequestBody::from_caller(body, worker.options.run_body_bytes_max)
        .ok_or_else(|| ForwardError::BodyTooLarge.problem())?;
    let call = Call { app: &app, caller: &caller, control: &control };
    self::call(exchange, target, call, parts, body).await
}

/// What is known of a direct request before it is sent.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) app: &'a AppRoute,
    pub(crate) caller: &'a Caller,
    pub(crate) control: &'a CallerControl,
}

/// Waits for a place and asks the app.
pub(crate) async fn call(
    exchange: &Exchange,
    target: AppPath<'_>,
    call: Call<'_>,
    mut parts: request::Parts,
    body: RequestBody,
) -> Result<Response<Body>, Problem> {
    let worker = &exchange.worker;
    let Call { app, caller, control } = call;
    let start_deadline = control.start_timeout.map(|timeout| worker.host.now() + timeout);
    let arrival = DirectArrival {
        request: exchange.id,
        app: app.id,
        start_deadline,
        caller: caller.key_id.clone(),
        hint: control.hint.clone(),
    };
    let slot = admitted(worker, arrival).await?;
    let mut underway = Underway::new(worker, slot, target.rest);
    to_runner(&mut parts, exchange, target, caller);
    match underway.send(Request::from_parts(parts, body)).await {
        Ok(response) => underway.answered(response),
        Err(error) => Err(underway.failed(&error)),
    }
}

/// The app of that name, once it can be called.
pub(crate) async fn find_app(
    host: &dyn Host,
    name: &str,
    headers: &HeaderMap,
) -> Result<Arc<AppRoute>, Problem> {
    if let Some(app) = host.app(name) {
        return Ok(app);
    }
    host.prepared_app(name).await.map_err(|problem| match problem {
        AppProblem::Unknown { nearest } => {
            // What other apps there are is not for everyone to know.
            let nearest = nearest.filter(|_| auth::knows_node(host, headers));
            let hint = nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            Problem::new(ErrorType::AppNotFound, format!("there is no app `{name}`{hint}"))
        }
        AppProblem::Broken { reason } => {
            Problem::new(ErrorType::AppBroken, format!("the app `{name}` cannot start: {reason}"))
        }
    })
}

/// Announces a request and waits for its slot.
pub(crate) async fn admitted(worker: &Worker, arrival: DirectArrival) -> Result<Slot, Problem> {
    let request = arrival.request;
    match worker.host.arrive(arrival) {
        Admission::Now(slot) => Ok(slot),
        Admission::Refused(refusal) => Err(refusal.into()),
        Admission::Wait(answer) => Waiting { worker, request, answer: Some(answer) }.slot().await,
    }
}

/// A request that waits. Dropped before its answer came, it says so to the host.
struct Waiting<'a> {
    worker: &'a Worker,
    request: RequestId,
    answer: Option<oneshot::Receiver<Result<Slot, Refusal>>>,
}

impl Waiting<'_> {
    async fn slot(mut self) -> Result<Slot, Problem> {
        let answer = match &mut self.answer {
            Some(answer) => answer.await,
            None => return Err(shutting_down()),
        };
        self.answer = None;
        match answer {
            Ok(admission) => admission.map_err(Problem::from),
            Err(_) => Err(shutting_down()),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(mut answer) = self.answer.take() else { return };
        let host = &self.worker.host;
        answer.close();
        match answer.try_recv() {
            // The slot was on its way when the caller went.
            Ok(Ok(slot)) => host.finished(slot.lease, Outcome::CallerGone),
            Ok(Err(_)) => {}
            Err(_) => host.abandoned(self.request),
        }
    }
}

fn shutting_down() -> Problem {
    Problem::new(ErrorType::ShuttingDown, "this node is shutting down")
}

/// An attempt that has its slot. However it ends, panic and cancellation included, the host hears of it
/// exactly once.
pub(crate) struct Attempt {
    worker: Arc<Worker>,
    request: RequestId,
    /// `None` once reported.
    lease: Option<Lease>,
}

impl Attempt {
    pub(crate) fn new(worker: Arc<Worker>, lease: Lease) -> Self {
        Self { worker, request: lease.request, lease: Some(lease) }
    }

    pub(crate) fn request(&self) -> RequestId {
        self.request
    }

    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    pub(crate) fn end(mut self, outcome: Outcome) {
        self.report(outcome);
    }

    fn report(&mut self, outcome: Outcome) {
        if let Some(lease) = self.lease.take() {
            self.worker.host.finished(lease, outcome);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.report(Outcome::CallerGone);
    }
}

/// An attempt until the head of its answer has come. Dropped before, because its caller left, it is seen to
/// its end without one.
struct Underway<'a> {
    attempt: Option<Attempt>,
    connection: Option<Box<Connection>>,
    address: Arc<RunnerAddress>,
    revocation: Option<Revocation>,
    /// Below the app, as called.
    path: &'a str,
}

impl<'a> Underway<'a> {
    fn new(worker: &Arc<Worker>, slot: Slot, path: &'a str) -> Self {
        Self {
            attempt: Some(Attempt::new(worker.clone(), slot.lease)),
            connection: None,
            address: slot.address,
            revocation: slot.revoked,
            path,
        }
    }

    async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<AnswerBody>, ForwardError> {
        let attempt = self.attempt.as_ref().expect("it has not ended");
        let revocation = self.revocation.as_mut();
        let forwarder = &attempt.worker.forwarder;
        forwarder.exchange_until(&mut self.connection, &self.address, request, revocation).await
    }

    fn answered(mut self, response: Response<AnswerBody>) -> Result<Response<Body>, Problem> {
        let attempt = self.attempt.take().expect("it has not ended");
        to_caller(response, attempt, self.revocation.take(), self.path)
    }

    fn failed(mut self, error: &ForwardError) -> Problem {
        self.connection = None;
        if let Some(attempt) = self.attempt.take() {
            attempt.end(error.outcome());
        }
        error.problem()
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let Some(attempt) = self.attempt.take() else { return };
        let Some(connection) = self.connection.take() else { return };
        let address = self.address.clone();
        let revoked = self.revocation.take().map(withdrawal);
        let path = self.path.to_owned();
        LeftBehind { connection, address, attempt, revoked, path, answer: None }.leave();
    }
}

/// Rewrites a caller's request into the one its app gets.
pub(crate) fn to_runner(
    parts: &mut request::Parts,
    exchange: &Exchange,
    target: AppPath<'_>,
    caller: &Caller,
) {
    let headers = &mut parts.headers;
    if parts.version == Version::HTTP_2 {
        join_cookies(headers);
    }
    if !headers.contains_key(header::HOST) {
        let authority = parts.uri.authority().map_or("localhost", |authority| authority.as_str());
        let host = HeaderValue::from_str(authority);
        headers.insert(header::HOST, host.unwrap_or(HeaderValue::from_static("localhost")));
    }
    headers.insert(REQUEST_ID, exchange.id_header.clone());
    headers.insert(ENDPOINT, endpoint(target));
    if !caller.key_id.is_empty()
        && let Ok(key_id) = HeaderValue::from_str(&caller.key_id)
    {
        headers.insert(CALLER, key_id);
    }
    let worker = &exchange.worker;
    if let Some(token) = worker.app_tokens.of(&*worker.host, &caller.key_id) {
        headers.insert(APP_TOKEN, token);
    }
    parts.uri = runner_uri(target.rest, parts.uri.query());
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
}

/// HTTP/2 may split cookies over several fields, HTTP/1.1 may not (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if let (Some(first), Some(second)) = (cookies.next(), cookies.next()) {
        let all: Vec<&[u8]> =
            [first, second].into_iter().chain(cookies).map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
            headers.insert(header::COOKIE, joined);
        }
    }
}

/// `x-fal-endpoint`: the app and the path below it, as called.
fn endpoint(target: AppPath<'_>) -> HeaderValue {
    let value = match target.rest {
        "" | "/" => HeaderValue::from_str(target.app),
        rest => HeaderValue::from_str(&[target.app, rest].concat()),
    };
    value.expect("a path that was parsed is a valid header value")
}

/// The path and query as the app sees them.
fn runner_uri(rest: &str, query: Option<&str>) -> Uri {
    let path = if rest.is_empty() { "/" } else { rest };
    let target = match query {
        None if path == "/" => return Uri::from_static("/"),
        None => PathAndQuery::try_from(path),
        Some(query) => PathAndQuery::try_from([path, "?", query].concat()),
    };
    Uri::from(target.expect("a part of a path that was parsed is a path"))
}

/// Rewrites an app's answer into the one its caller gets.
fn to_caller(
    response: Response<AnswerBody>,
    attempt: Attempt,
    revocation: Option<Revocation>,
    path: &str,
) -> Result<Response<Body>, Problem> {
    let (mut parts, body) = response.into_parts();
    let answer = match crate::header::answer(parts.status.as_u16(), &mut parts.headers) {
        Ok(answer) => answer,
        Err(error) => {
            let error = ForwardError::HeadersTooLarge { reason: error.to_string() };
            attempt.end(error.outcome());
            return Err(error.problem());
        }
    };
    if may_be_tried_again(&answer) {
        parts.headers.insert(NEEDS_RETRY, HeaderValue::from_static("1"));
    }
    let body = match body {
        AnswerBody::Whole(bytes) => {
            attempt.end(Outcome::Answered(answer));
            Body::full(bytes)
        }
        AnswerBody::Streaming(body) => {
            Body::runner(body.carry(attempt, answer, revocation, path.to_owned()))
        }
    };
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    Ok(Response::from_parts(parts, body))
}

/// Whether a queued request would get another attempt after this answer. A direct one gets none, but its
/// caller is told.
fn may_be_tried_again(answer: &Answer) -> bool {
    if answer.status < 400 {
        return false;
    }
    let (_, again) = retry::judge(&Outcome::Answered(answer.clone()));
    // An answer of 400 to 499 is tried again only where somebody asks for it.
    !matches!(again, Again::No | Again::On(Condition::ClientError))
}
