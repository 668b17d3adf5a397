//! `/api/v1`, `/metrics`, `/healthz`, `/readyz`: everything the port serves that is not the data plane.
//!
//! The routes and their types are described in `glowplug_api::control`. Reading takes any key, changing
//! things and reading the recorded traffic an ADMIN key; a node without keys on loopback is open. That
//! somebody is about to use an app may be said by everyone who may use it.

mod images;
mod prewarm;
mod queued;
mod recordings;
mod webhooks;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use glowplug_api::control::{
    FlushView, KeyCreated, KeyRequest, KeyView, LogLineView, PrewarmRequest, ScalingPatch,
};
use glowplug_api::{ErrorBody, ErrorType};
use glowplug_core::event::StopRequest;
use glowplug_core::{Event, RequestId, RunnerId};
use glowplug_gateway::Body;
use glowplug_runner::{LogLine, LogStream};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::apps::App;
use crate::metrics::AppGauges;
use crate::shared::Shared;
use crate::{keys, scale, views, why};

/// Bytes of a body sent to the control API.
const BODY_BYTES_MAX: usize = 1 << 20;

type Answer = Result<Response<Body>, Failure>;

/// An error on its way to the wire.
struct Failure {
    kind: ErrorType,
    detail: String,
}

impl Failure {
    fn new(kind: ErrorType, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    fn no_runner(id: RunnerId) -> Self {
        Self::new(
            ErrorType::NotFound,
            format!("there is no runner {id}; see `glowplug runners list`"),
        )
    }
}

pub(crate) async fn serve(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let answer = route(&shared, request).await;
    answer.unwrap_or_else(|failure| {
        let body = ErrorBody { detail: failure.detail, error_type: failure.kind };
        let status = StatusCode::from_u16(failure.kind.status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json(status, &body);
        let kind = header::HeaderValue::from_static(failure.kind.as_str());
        response.headers_mut().insert("x-fal-error-type", kind);
        response
    })
}

async fn route(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let method = request.method().clone();
    match (&method, segments.as_slice()) {
        (&Method::GET, ["healthz"]) => Ok(text("ok\n")),
        (&Method::GET, ["readyz"]) => readyz(shared).await,
        (&Method::GET, ["metrics"]) => Ok(metrics(shared)),
        (&Method::GET, [".well-known", "jwks.json"]) => Ok(webhooks::public_keys(shared)),
        (&Method::GET, []) => Ok(text("glowplug serves here; its API is below /api/v1\n")),
        (_, ["api", "v1", rest @ ..]) => {
            // The recordings tell of the traffic of all apps, the queue holds what callers sent.
            let is_all_apps = matches!(rest.first(), Some(&("trace" | "queue")));
            let reads = method == Method::GET && !is_all_apps;
            let announces = method == Method::POST && prewarm::announces(&request, rest);
            if !(announces && prewarm::is_for_all(shared, rest)) {
                authorize(shared, &request, reads || announces)?;
            }
            api(shared, &method, rest, request).await
        }
        _ => Err(not_found(&method, &path)),
    }
}

fn not_found(method: &Method, path: &str) -> Failure {
    Failure::new(ErrorType::NotFound, format!("there is no {method} {path} here"))
}

fn authorize(
    shared: &Shared,
    request: &Request<Incoming>,
    for_any_key: bool,
) -> Result<(), Failure> {
    if shared.is_open() {
        return Ok(());
    }
    let key = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Key ").or_else(|| value.strip_prefix("Bearer ")));
    let caller = keys::authenticate(&shared.keys(), key).map_err(|_| {
        Failure::new(
            ErrorType::Unauthorized,
            "this node wants a key: pass `--key`, or set GLOWPLUG_KEY to `id:secret`",
        )
    })?;
    if caller.admin || for_any_key {
        return Ok(());
    }
    Err(Failure::new(ErrorType::Forbidden, "this takes a key with the scope ADMIN"))
}

async fn api(
    shared: &Arc<Shared>,
    method: &Method,
    segments: &[&str],
    request: Request<Incoming>,
) -> Answer {
    let query = query(request.uri().query().unwrap_or_default());
    match (method, segments) {
        (&Method::GET, ["node"]) => Ok(json(StatusCode::OK, &views::node(shared))),
        (&Method::GET, ["apps"]) => {
            let apps: Vec<_> = shared.apps.all().map(|app| views::app(shared, app)).collect();
            Ok(json(StatusCode::OK, &apps))
        }
        (_, ["apps", owner, name, rest @ ..]) => {
            let app = find_app(shared, &format!("{owner}/{name}"))?;
            app_route(shared, method, &app, rest, request).await
        }
        (&Method::GET, ["runners"]) => {
            let ended = query.get("ended").is_some_and(|value| value == "true");
            let app = query.get("app").map(String::as_str);
            let runners = shared.desk.read(|state, now| views::runners(state, now, app, ended));
            Ok(json(StatusCode::OK, &runners))
        }
        (_, ["runners", id, rest @ ..]) => {
            let id = id
                .parse()
                .map_err(|error| Failure::new(ErrorType::BadRequest, format!("{error}")))?;
            runner_route(shared, method, id, rest, &query).await
        }
        (_, ["queue", rest @ ..]) => queued::route(shared, method, rest, &query, request).await,
        (_, ["images", rest @ ..]) => images::route(shared, method, rest, request).await,
        (&Method::GET, ["trace"]) => recordings::export(shared, &query).await,
        (&Method::GET, ["trace", "status"]) => Ok(recordings::status(shared).await),
        (&Method::GET, ["why", rest @ ..]) => explain(shared, &decoded(&rest.join("/"))).await,
        (_, ["webhooks", id, rest @ ..]) => webhooks::about(shared, method, id, rest).await,
        (&Method::GET, ["keys"]) => Ok(json(StatusCode::OK, &key_views(shared))),
        (&Method::POST, ["keys"]) => create_key(shared, body(request).await?).await,
        (&Method::DELETE, ["keys", id]) => revoke_key(shared, id).await,
        _ => Err(not_found(method, &format!("/api/v1/{}", segments.join("/")))),
    }
}

async fn app_route(
    shared: &Arc<Shared>,
    method: &Method,
    app: &Arc<App>,
    segments: &[&str],
    request: Request<Incoming>,
) -> Answer {
    let query = query(request.uri().query().unwrap_or_default());
    match (method, segments) {
        (&Method::GET, []) => Ok(json(StatusCode::OK, &views::app(shared, app))),
        (&Method::PATCH, ["scaling"]) => {
            let patch: ScalingPatch = body(request).await?;
            scale::change(shared, app, &patch)
                .await
                .map_err(|(kind, detail)| Failure { kind, detail })?;
            Ok(json(StatusCode::OK, &views::app(shared, app)))
        }
        (&Method::POST, ["prewarm"]) => {
            let bytes = bytes(request).await?;
            let mut wanted =
                if bytes.is_empty() { PrewarmRequest::default() } else { parse(&bytes)? };
            prewarm::read_intent(&query, &mut wanted)?;
            Ok(json(StatusCode::OK, &prewarm::prewarm(shared, app, &wanted)?))
        }
        (&Method::GET, ["queue"]) => Ok(json(StatusCode::OK, &views::queue(shared, app))),
        (&Method::DELETE, ["queue"]) => {
            let removed = shared.queue.flush(shared, app).await;
            Ok(json(StatusCode::OK, &FlushView { app: app.name().to_owned(), removed }))
        }
        _ => Err(not_found(method, request.uri().path())),
    }
}

async fn runner_route(
    shared: &Arc<Shared>,
    method: &Method,
    id: RunnerId,
    segments: &[&str],
    query: &HashMap<String, String>,
) -> Answer {
    let view = || shared.runner_view(id).ok_or_else(|| Failure::no_runner(id));
    match (method, segments) {
        (&Method::GET, []) => Ok(json(StatusCode::OK, &view()?)),
        (&Method::POST, ["stop" | "kill"]) => {
            view()?;
            let replace = query.get("replace").is_some_and(|value| value == "true");
            let how = match segments {
                ["kill"] => StopRequest::Kill,
                _ if replace => StopRequest::ReplaceFirst,
                _ => StopRequest::Graceful,
            };
            shared.desk.report(Event::StopRequested { runner: id, how });
            Ok(json(StatusCode::OK, &view()?))
        }
        (&Method::GET, ["logs"]) => {
            let from = match query.get("from").map(|value| value.parse()) {
                None => 0,
                Some(Ok(from)) => from,
                Some(Err(_)) => {
                    let detail = "`from` is not a line number";
                    return Err(Failure::new(ErrorType::BadRequest, detail));
                }
            };
            let follow = query.get("follow").is_some_and(|value| value == "true");
            logs(shared, id, from, follow).await
        }
        _ => Err(not_found(method, &format!("/api/v1/runners/{id}/{}", segments.join("/")))),
    }
}

async fn logs(shared: &Shared, id: RunnerId, from: u64, follow: bool) -> Answer {
    let lines = shared.backend.logs(id, from, follow).await.map_err(|_| Failure::no_runner(id))?;
    let frames = lines.map(|line| {
        let mut json = serde_json::to_vec(&log_line(line)).unwrap_or_default();
        json.push(b'\n');
        Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(json)))
    });
    let mut response = Response::new(Body::boxed(StreamBody::new(frames)));
    let kind = header::HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

fn log_line(line: LogLine) -> LogLineView {
    let stream = match line.stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
        LogStream::Supervisor => "supervisor",
    };
    LogLineView {
        number: line.number,
        at_micros: line.at_micros,
        stream: stream.to_owned(),
        text: line.text,
    }
}

fn find_app(shared: &Shared, name: &str) -> Result<Arc<App>, Failure> {
    shared.apps.by_name(name).cloned().ok_or_else(|| {
        use glowplug_gateway::host::AppProblem;
        let nearest = match shared.apps.unknown(name) {
            AppProblem::Unknown { nearest: Some(nearest) } => {
                format!("; did you mean `{nearest}`?")
            }
            _ => String::new(),
        };
        Failure::new(ErrorType::AppNotFound, format!("there is no app `{name}`{nearest}"))
    })
}

/// A request, a runner, or an app: told apart by how they are written.
async fn explain(shared: &Arc<Shared>, id: &str) -> Answer {
    let journal = async |subject: String| {
        let records = shared.store.journal(subject, why::RECORDS_MAX).await;
        records.map(why::decisions).map_err(|error| {
            Failure::new(ErrorType::StoreUnavailable, format!("decisions cannot be read: {error}"))
        })
    };
    if let Ok(runner) = id.parse::<RunnerId>() {
        let decisions = journal(format!("runner:{runner}")).await?;
        let view = why::runner(shared, runner, decisions);
        return view.map(|view| json(StatusCode::OK, &view)).ok_or(Failure::no_runner(runner));
    }
    if let Ok(request) = id.parse::<RequestId>() {
        let decisions = journal(format!("request:{request}")).await?;
        let view = why::request(shared, request, decisions);
        return view.map(|view| json(StatusCode::OK, &view)).ok_or_else(|| {
            let detail = format!("nothing is known of request {request}; it may be too long ago");
            Failure::new(ErrorType::NotFound, detail)
        });
    }
    let name = if id.contains('/') { id.to_owned() } else { format!("local/{id}") };
    let app = find_app(shared, &name)?;
    let decisions = journal(format!("app:{name}")).await?;
    let view = views::app(shared, &app);
    Ok(json(StatusCode::OK, &why::app(shared, &app, &view, decisions)))
}

fn key_views(shared: &Shared) -> Vec<KeyView> {
    shared
        .keys()
        .into_iter()
        .map(|key| KeyView {
            id: key.id,
            alias: key.alias,
            scope: key.scope,
            created_at_micros: key.created_at.as_micros(),
        })
        .collect()
}

async fn create_key(shared: &Shared, wanted: KeyRequest) -> Answer {
    let scope = wanted.scope.to_ascii_uppercase();
    if scope != keys::SCOPE_ADMIN && scope != keys::SCOPE_API {
        let detail = format!("`{}` is not a scope: API or ADMIN", wanted.scope);
        return Err(Failure::new(ErrorType::BadRequest, detail));
    }
    if shared.keys().len() >= keys::KEYS_MAX {
        let detail = format!("there are {} keys already; revoke some", keys::KEYS_MAX);
        return Err(Failure::new(ErrorType::Conflict, detail));
    }
    let (record, secret) = keys::create(wanted.alias, scope, shared.desk.now());
    let id = record.id.clone();
    shared.store.put_key(record).await.map_err(unavailable)?;
    shared.reload_keys().await.map_err(unavailable)?;
    Ok(json(StatusCode::CREATED, &KeyCreated { id, secret }))
}

async fn revoke_key(shared: &Shared, id: &str) -> Answer {
    let existed = shared.store.delete_key(id.to_owned()).await.map_err(unavailable)?;
    shared.reload_keys().await.map_err(unavailable)?;
    if !existed {
        return Err(Failure::new(ErrorType::NotFound, format!("there is no key `{id}`")));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unavailable(error: glowplug_store::StoreError) -> Failure {
    Failure::new(ErrorType::StoreUnavailable, error.to_string())
}

async fn readyz(shared: &Shared) -> Answer {
    let checked = shared.store.check().await;
    let health = &shared.queue.health;
    match &checked {
        // What it refused is told until it takes a request again, or long enough ago.
        Ok(()) if health.is_over(shared.desk.now()) => health.note(shared, None),
        Ok(()) => {}
        Err(error) => health.note(shared, Some(error)),
    }
    match health.trouble() {
        None => Ok(text("ready\n")),
        Some(trouble) => {
            let since = jiff::Timestamp::from_microsecond(
                i64::try_from(trouble.since.as_micros()).unwrap_or(i64::MAX),
            )
            .map_or_else(|_| "some time".to_owned(), |since| format!("{since:.0}"));
            let detail = format!("the store refuses work since {since}: {}", trouble.problem);
            Err(Failure::new(ErrorType::StoreUnavailable, detail))
        }
    }
}

fn metrics(shared: &Shared) -> Response<Body> {
    let gauges = shared.desk.read(|state, now| {
        let mut gauges: HashMap<_, _> = shared
            .apps
            .all()
            .filter_map(|app| {
                let view = state.engine.app(app.id, now)?;
                let gauges = AppGauges {
                    app: app.id,
                    queued: view.waiting,
                    in_flight: view.in_flight,
                    runners: HashMap::new(),
                };
                Some((app.id, gauges))
            })
            .collect();
        for runner in state.engine.runners() {
            if let Some(gauges) = gauges.get_mut(&runner.app) {
                *gauges.runners.entry(runner.state).or_default() += 1;
            }
        }
        gauges.into_values().collect::<Vec<_>>()
    });
    shared.metrics.files_kept(shared.files.usage());
    let mut response = text(shared.metrics.render(&gauges));
    let kind = header::HeaderValue::from_static(
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    );
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn text(text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    glowplug_gateway::answer::json(status, body)
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Failure> {
    parse(&bytes(request).await?)
}

async fn bytes(request: Request<Incoming>) -> Result<Bytes, Failure> {
    let collected = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let collected = collected.map_err(|_| {
        let detail = format!("the body is larger than {BODY_BYTES_MAX} bytes or broke off");
        Failure::new(ErrorType::PayloadTooLarge, detail)
    })?;
    Ok(collected.to_bytes())
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::new(ErrorType::BadRequest, format!("the body is not what is wanted here: {error}"))
    })
}

fn query(text: &str) -> HashMap<String, String> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, "true"));
            (decoded(key), decoded(value))
        })
        .collect()
}

/// An app's name may come with its slash encoded.
fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}
