//! The status of a queued request as a stream of events, until it is complete.
//!
//! Sends an event when something changed, with only the log lines that no earlier event carried, and a
//! comment when nothing changed for a while. It asks the host again on every change it is told of; if
//! the host tells nothing (any more), at [`POLL_INTERVAL`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use glowplug_api::queue::{QueueState, StatusView};
use glowplug_core::RequestId;
use http::header::{self, HeaderValue};
use http::{HeaderName, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::watch;

use super::{Asked, Links, status_view};
use crate::body::{Body, BoxError};
use crate::host::StoreAway;
use crate::listener::Worker;

/// Between two looks at a request that nobody reports on.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
const COMMENT: &str = ": waiting\n\n";

pub(super) struct StatusStream {
    worker: Arc<Worker>,
    app: String,
    id: RequestId,
    logs: bool,
    links: Links,
    changes: Option<watch::Receiver<u64>>,
    /// The last event, its log lines and its ETA taken out.
    sent: Option<StatusView>,
    sent_logs: usize,
    complete: bool,
    /// The last look failed, so that the next one must not wait for a change.
    is_unsure: bool,
}

impl StatusStream {
    /// `None`: there is no such request.
    pub(super) async fn open(
        worker: Arc<Worker>,
        asked: &Asked<'_>,
    ) -> Result<Option<Response<Body>>, StoreAway> {
        let mut this = Self {
            // Before the first look, so that no change falls between the two.
            changes: worker.host.watch(asked.id),
            worker,
            app: asked.app.to_owned(),
            id: asked.id,
            logs: asked.logs,
            links: asked.links.clone(),
            sent: None,
            sent_logs: 0,
            complete: false,
            is_unsure: false,
        };
        let Some(first) = this.look().await? else { return Ok(None) };
        let events = stream::unfold((this, first), |(mut this, first)| async move {
            let event = match first {
                Some(first) => first,
                None => this.next().await?,
            };
            Some((Ok::<_, BoxError>(Frame::data(event)), (this, None)))
        });
        let mut answer = Response::new(Body::boxed(StreamBody::new(events)));
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Reverse proxies in front of us must not hold events back.
        let buffering = HeaderName::from_static("x-accel-buffering");
        headers.insert(buffering, HeaderValue::from_static("no"));
        Ok(Some(answer))
    }

    /// The next event or comment; `None` after the last.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.complete {
            if !self.is_unsure && !self.changed().await {
                return Some(Bytes::from_static(COMMENT.as_bytes()));
            }
            match self.look().await {
                Ok(look) => {
                    if let Some(event) = look? {
                        return Some(event);
                    }
                }
                // Whoever waits for hours need not care. What changes meanwhile may not be told of.
                Err(StoreAway { .. }) => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
        None
    }

    /// Waits for a reason to look again. False: there was none for long enough to send a comment.
    async fn changed(&mut self) -> bool {
        let comment = self.worker.options.stream_comment_interval;
        let Some(changes) = &mut self.changes else {
            tokio::time::sleep(POLL_INTERVAL.min(comment)).await;
            return POLL_INTERVAL < comment;
        };
        match tokio::time::timeout(comment, changes.changed()).await {
            Ok(Ok(())) => true,
            Ok(Err(_)) => {
                self.changes = None;
                true
            }
            Err(_) => false,
        }
    }

    /// `None`: the request is gone. `Some(None)`: nothing the caller does not know.
    async fn look(&mut self) -> Result<Option<Option<Bytes>>, StoreAway> {
        if let Some(changes) = &mut self.changes {
            changes.mark_unchanged();
        }
        let status = self.worker.host.status(&self.app, self.id, self.logs).await;
        if status.is_err() {
            self.is_unsure = true;
        }
        let Some(status) = status? else { return Ok(None) };
        self.is_unsure = false;
        let asked =
            Asked { app: &self.app, id: self.id, logs: self.logs, links: self.links.clone() };
        let mut view = status_view(status, &asked);
        self.complete = view.status == QueueState::Completed;
        let mut logs = view.logs.take();
        let news = logs.as_ref().map_or(0, |logs| logs.len().saturating_sub(self.sent_logs));
        // What was expected changes with every look, which is no news by itself.
        let eta = view.eta.take();
        if news == 0 && self.sent.as_ref() == Some(&view) {
            return Ok(Some(None));
        }
        if let Some(logs) = &mut logs {
            logs.drain(..self.sent_logs.min(logs.len()));
            self.sent_logs += news;
        }
        self.sent = Some(view.clone());
        view.logs = logs;
        view.eta = eta;
        let view = serde_json::to_string(&view).expect("our wire types serialize");
        Ok(Some(Some(Bytes::from(format!("data: {view}\n\n")))))
    }
}
