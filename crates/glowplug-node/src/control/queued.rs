//! `/api/v1/queue`: the requests of all apps, one by one and as a whole.
//!
//! Exports and imports are streamed: neither side holds more than a few requests of them.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use glowplug_api::ErrorType;
use glowplug_api::control::{BackupRequest, BackupView, CancelView, MovedView, QueuedView};
use glowplug_core::RequestId;
use glowplug_gateway::Body;
use glowplug_gateway::host::{CancelOutcome, QueueStatus, StoreAway};
use glowplug_store::{DeliveryState, RequestRecord, StoreError};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::mpsc;

use super::{Answer, Failure, body, json, not_found};
use crate::config::DEFAULT_OWNER;
use crate::queue;
use crate::queue_export::{self, Import, Lines};
use crate::shared::Shared;

/// Lines made that the caller has not taken; then the making waits.
const LINES_WAITING_MAX: usize = 4;
/// Requests listed where the caller names no number, and at most.
const LISTED: usize = 100;
const LISTED_MAX: usize = 10_000;

pub(super) async fn route(
    shared: &Arc<Shared>,
    method: &Method,
    segments: &[&str],
    query: &HashMap<String, String>,
    request: Request<Incoming>,
) -> Answer {
    match (method, segments) {
        (&Method::GET, []) => list(shared, query).await,
        (&Method::GET, ["export"]) => Ok(export(shared, query)),
        (&Method::POST, ["import"]) => import(shared, request.into_body()).await,
        (&Method::POST, ["backup"]) => backup(shared, &body::<BackupRequest>(request).await?).await,
        (&Method::GET, [id]) => show(shared, id).await,
        (&Method::DELETE, [id]) => cancel(shared, id).await,
        _ => Err(not_found(method, &format!("/api/v1/queue/{}", segments.join("/")))),
    }
}

fn refused(error: &StoreError) -> Failure {
    let kind = match error {
        StoreError::Full { .. } => ErrorType::StorageFull,
        StoreError::Unsupported { .. } => ErrorType::BadRequest,
        StoreError::TooLarge { .. } => ErrorType::PayloadTooLarge,
        _ => ErrorType::StoreUnavailable,
    };
    Failure::new(kind, error.to_string())
}

fn app_of(query: &HashMap<String, String>) -> Option<String> {
    let name = query.get("app")?;
    Some(if name.contains('/') { name.clone() } else { format!("{DEFAULT_OWNER}/{name}") })
}

async fn list(shared: &Arc<Shared>, query: &HashMap<String, String>) -> Answer {
    let app = app_of(query);
    let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(LISTED);
    let limit = limit.min(LISTED_MAX);
    let state = query.get("state").map_or("open", String::as_str);
    let mut views = match state {
        "queued" | "running" | "open" | "all" => shared.queue.list(shared, app.as_deref()),
        "completed" => Vec::new(),
        other => {
            let detail = format!(
                "`state` is `{other}`; it is one of: open, queued, running, completed, all"
            );
            return Err(Failure::new(ErrorType::BadRequest, detail));
        }
    };
    match state {
        "queued" => views.retain(|view| view.position.is_some()),
        "running" => views.retain(|view| view.position.is_none()),
        _ => {}
    }
    if matches!(state, "completed" | "all") {
        let ended = shared.store.completed(app, limit).await.map_err(|error| refused(&error))?;
        views.extend(ended.iter().map(completed));
    }
    views.truncate(limit);
    Ok(json(StatusCode::OK, &views))
}

fn completed(record: &RequestRecord) -> QueuedView {
    let mut view = about(record);
    "COMPLETED".clone_into(&mut view.state);
    view
}

/// What the store says of a request.
fn about(record: &RequestRecord) -> QueuedView {
    let mut view = QueuedView {
        id: record.id.to_string(),
        app: record.app.clone(),
        submitted_at_micros: Some(record.submitted_at.as_micros()),
        owner: Some(record.owner),
        ..QueuedView::default()
    };
    if let Some(done) = &record.completed {
        view.completed_at_micros = Some(done.at.as_micros());
        view.status = Some(done.status);
        view.error = done.error.as_ref().map(|(message, _)| message.clone());
        view.attempts = Some(done.attempts);
    }
    view
}

fn parse_id(id: &str) -> Result<RequestId, Failure> {
    id.parse().map_err(|error| Failure::new(ErrorType::BadRequest, format!("{error}")))
}

fn away(away: StoreAway) -> Failure {
    Failure::new(ErrorType::StoreUnavailable, away.reason)
}

fn unknown(id: RequestId) -> Failure {
    let detail = format!("there is no request {id}; its answer may not be kept any more");
    Failure::new(ErrorType::NotFound, detail)
}

async fn show(shared: &Arc<Shared>, id: &str) -> Answer {
    let id = parse_id(id)?;
    let record = shared.store.request(id).await.map_err(|error| refused(&error))?;
    let record = record.ok_or_else(|| unknown(id))?;
    let status = shared.queue.status(shared, &record.app, id, true).await.map_err(away)?;
    let delivery = shared.store.delivery(id).await.map_err(|error| refused(&error))?;
    let mut view = about(&record);
    if let Some(delivery) = delivery {
        let state = match delivery.state {
            DeliveryState::Due(_) => "due",
            DeliveryState::Delivered => "delivered",
            DeliveryState::Failed => "failed",
        };
        view.webhook = Some(delivery.url);
        view.webhook_state = Some(state.to_owned());
    }
    let (state, logs) = match status {
        Some(QueueStatus::InQueue { position, logs, .. }) => {
            view.position = Some(position);
            ("IN_QUEUE", logs)
        }
        Some(QueueStatus::InProgress { logs }) => ("IN_PROGRESS", logs),
        Some(QueueStatus::Completed { logs, .. }) => ("COMPLETED", logs),
        None => return Err(unknown(id)),
    };
    state.clone_into(&mut view.state);
    view.logs = logs.into_iter().map(|line| line.message).collect();
    Ok(json(StatusCode::OK, &view))
}

async fn cancel(shared: &Arc<Shared>, id: &str) -> Answer {
    let id = parse_id(id)?;
    let record = shared.store.request(id).await.map_err(|error| refused(&error))?;
    let record = record.ok_or_else(|| unknown(id))?;
    let outcome = match shared.queue.cancel(shared, &record.app, id).await.map_err(away)? {
        CancelOutcome::Removed => "removed",
        CancelOutcome::Requested => "requested",
        CancelOutcome::AlreadyCompleted => "completed before",
        CancelOutcome::Unknown => return Err(unknown(id)),
    };
    Ok(json(StatusCode::OK, &CancelView { id: id.to_string(), outcome: outcome.to_owned() }))
}

fn export(shared: &Arc<Shared>, query: &HashMap<String, String>) -> Response<Body> {
    let (store, app) = (shared.store.clone(), app_of(query));
    let (sender, lines) = mpsc::channel::<io::Result<Bytes>>(LINES_WAITING_MAX);
    // It ends when the queue is written or the caller has gone.
    shared.tasks.spawn(async move {
        let to = |line: Vec<u8>| {
            let sender = sender.clone();
            async move { sender.send(Ok(line.into())).await.is_ok() }
        };
        if let Err(error) = queue_export::export(&*store, app.as_deref(), to).await {
            tracing::warn!("an export of the queue failed: {error}");
            // Breaks the answer off, so that nobody takes it for a complete one.
            drop(sender.send(Err(io::Error::other(error))).await);
        }
    });
    let lines = stream::unfold(lines, |mut lines| async {
        let line = lines.recv().await?;
        Some((line.map(Frame::data), lines))
    });
    let mut response = Response::new(Body::boxed(StreamBody::new(lines)));
    let kind = header::HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn import(shared: &Arc<Shared>, mut body: Incoming) -> Answer {
    let wrong = |error: queue_export::Error| {
        let kind = match &error {
            queue_export::Error::Store(error)
            | queue_export::Error::Kept { problem: error, .. } => refused(error).kind,
            _ => ErrorType::BadRequest,
        };
        Failure::new(kind, error.to_string())
    };
    let (mut lines, mut import) = (Lines::default(), Import::new(&*shared.store));
    let read = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let detail = format!("the import broke off: {error}");
                Failure::new(ErrorType::BadRequest, detail)
            })?;
            let Ok(piece) = frame.into_data() else { continue };
            lines.push(&piece).map_err(wrong)?;
            while let Some(line) = lines.next_line() {
                import.line(&line).await.map_err(wrong)?;
            }
        }
        if let Some(rest) = lines.rest() {
            import.line(&rest).await.map_err(wrong)?;
        }
        import.finish().map_err(wrong)
    };
    let moved = read.await;
    // What was taken in is served, however far that was.
    if let Err(error) = queue::take_over(shared).await {
        tracing::warn!("imported requests could not be taken up yet: {error}");
    }
    let moved = moved?;
    Ok(json(StatusCode::OK, &MovedView { requests: moved.requests, known: moved.known }))
}

async fn backup(shared: &Arc<Shared>, wanted: &BackupRequest) -> Answer {
    let path = Path::new(&wanted.path);
    if !path.is_absolute() {
        let detail = format!("`{}` does not begin at the root of the node's files", wanted.path);
        return Err(Failure::new(ErrorType::BadRequest, detail));
    }
    shared.store.backup(PathBuf::from(path)).await.map_err(|error| refused(&error))?;
    let bytes = tokio::fs::metadata(path).await.map_or(0, |data| data.len());
    Ok(json(StatusCode::OK, &BackupView { path: wanted.path.clone(), bytes }))
}
