//! `/api/v1/trace`: what was recorded, as one trace, streamed while it is made.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use glowplug_api::ErrorType;
use glowplug_api::control::{TRACE_BYTES_EXPECTED, TraceStatusView};
use glowplug_core::Timestamp;
use glowplug_gateway::Body;
use http::{Response, StatusCode, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::{Answer, Failure, json};
use crate::config::{DEFAULT_OWNER, parse_duration};
use crate::recorder::{EXPORTS_MAX, Error, Export, Recorded, Recorder, Selection};
use crate::shared::Shared;

/// Bytes sent at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks made that the caller has not taken; then the making waits.
const CHUNKS_MAX: usize = 8;

pub(super) async fn status(shared: &Arc<Shared>) -> Response<Body> {
    let recorder = shared.recorder.as_ref();
    let recorded = match recorder.cloned() {
        None => Recorded::default(),
        Some(recorder) => {
            let shared = shared.clone();
            let looking = move || recorder.recorded(&shared.desk, &shared.metrics);
            tokio::task::spawn_blocking(looking).await.unwrap_or_default()
        }
    };
    let view = TraceStatusView {
        enabled: recorder.is_some(),
        segments: recorded.segments,
        bytes: recorded.bytes,
        bytes_max: shared.config.node.recorder.bytes_max,
        records: recorded.records,
        dropped: recorder.map_or(0, |recorder| recorder.dropped()),
        first_micros: recorded.first.map(Timestamp::as_micros),
        last_micros: recorded.last.map(Timestamp::as_micros),
    };
    json(StatusCode::OK, &view)
}

pub(super) async fn export(shared: &Arc<Shared>, query: &HashMap<String, String>) -> Answer {
    let Some(recorder) = shared.recorder.clone() else {
        let detail =
            "this node does not record its traffic; set `enabled = true` below [node.recorder]";
        return Err(Failure::new(ErrorType::NotFound, detail));
    };
    let selection = selection(shared, query)?;
    let Some(permit) = recorder.admit_export() else {
        let detail = format!("{EXPORTS_MAX} exports are being made already; try again");
        return Err(Failure::new(ErrorType::Conflict, detail));
    };
    let export = prepare(shared, recorder, selection).await?;
    let bytes_expected = export.bytes_expected();
    let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
    let making = move || {
        make(export, &sender);
        drop(permit);
    };
    // It ends when the trace is complete or the caller has gone.
    drop(tokio::task::spawn_blocking(making));
    let chunks = stream::unfold(chunks, |mut chunks| async {
        let chunk: io::Result<Bytes> = chunks.recv().await?;
        Some((chunk.map(Frame::data), chunks))
    });
    let mut response = Response::new(Body::boxed(StreamBody::new(chunks)));
    let kind = header::HeaderValue::from_static("application/zstd");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(TRACE_BYTES_EXPECTED, bytes_expected.into());
    Ok(response)
}

async fn prepare(
    shared: &Arc<Shared>,
    recorder: Arc<Recorder>,
    selection: Selection,
) -> Result<Export, Failure> {
    let shared = shared.clone();
    let preparing = move || recorder.export(&shared.desk, &shared.metrics, &selection);
    let prepared = tokio::task::spawn_blocking(preparing).await;
    let prepared = prepared
        .map_err(|error| Failure::new(ErrorType::InternalError, format!("no export: {error}")))?;
    prepared.map_err(|error| {
        let kind = match error {
            Error::UnknownApp { .. } => ErrorType::AppNotFound,
            Error::Unreadable { .. } | Error::Trace(_) => ErrorType::InternalError,
        };
        Failure::new(kind, crate::runner_task::chain(&error))
    })
}

fn selection(shared: &Shared, query: &HashMap<String, String>) -> Result<Selection, Failure> {
    let since = match query.get("since") {
        None => None,
        Some(text) => {
            let ago = parse_duration(text).ok_or_else(|| {
                let detail = format!("`since` is `{text}`; write a duration such as 24h");
                Failure::new(ErrorType::BadRequest, detail)
            })?;
            let now = shared.desk.now() - Timestamp::ZERO;
            Some(Timestamp::ZERO + now.saturating_sub(ago))
        }
    };
    let apps = query.get("app").map(String::as_str).unwrap_or_default();
    let apps = apps.split(',').filter(|name| !name.is_empty()).map(|name| {
        if name.contains('/') { name.to_owned() } else { format!("{DEFAULT_OWNER}/{name}") }
    });
    Ok(Selection { since, apps: apps.collect() })
}

fn make(export: Export, chunks: &mpsc::Sender<io::Result<Bytes>>) {
    let out = BufWriter::with_capacity(CHUNK_BYTES, Chunks(chunks.clone()));
    match export.write(out) {
        Ok(exported) => {
            for damaged in exported.damaged {
                tracing::warn!("a file of the recorder could not be read to its end: {damaged}");
            }
        }
        Err(error) if chunks.is_closed() => tracing::debug!("an export was broken off: {error}"),
        Err(error) => {
            let error = crate::runner_task::chain(&error);
            tracing::warn!("an export failed: {error}");
            // Breaks the answer off, so that nobody takes it for a complete trace.
            drop(chunks.blocking_send(Err(io::Error::other(error))));
        }
    }
}

/// Hands over what is written to it.
struct Chunks(mpsc::Sender<io::Result<Bytes>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = Ok(Bytes::copy_from_slice(bytes));
        match self.0.blocking_send(chunk) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
