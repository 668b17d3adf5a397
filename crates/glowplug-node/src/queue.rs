//! The durable queue: what was accepted is on disk before the caller hears of it, and is completed once.
//!
//! ```text
//! submit ─► store (fsync) ─► engine ─► attempt ─┬─► deliver ─► store ─► COMPLETED
//!                              ▲                └─► retry ──┐
//!                              └────────────────────────────┘
//! ```
//!
//! The engine decides who runs when and whether an attempt counts; the store remembers; this module runs
//! the attempts between them. A request that is not complete when the node dies is found in the store at the
//! next start and queued again. Bodies are read from the store for each attempt: waiting costs no memory
//! beyond the id.

mod words;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use glowplug_api::{ErrorBody, ErrorType};
use glowplug_core::engine::RequestView;
use glowplug_core::request::{Arrival, Mode, Outcome, Priority, Refusal};
use glowplug_core::{Lease, RequestId, RunnerAddress, RunnerId, Timestamp};
use glowplug_gateway::answer::Problem;
use glowplug_gateway::attempt::{self, AttemptRequest, AttemptResult};
use glowplug_gateway::host::{
    CancelOutcome, QueueLog, QueueStatus, ResponseLookup, Submission, SubmitProblem, Submitted,
};
use glowplug_store::{
    Completed, Completion, QueuedRequest, RequestLogLine, Store, StoreError, StoredResponse,
};
use tokio::sync::watch;

use crate::apps::App;
use crate::desk::{Attempt, Verdict};
use crate::shared::Shared;

use words::{LogEnds, Words};

/// Requests read from the store at a time when the node starts.
const RESTORE_PAGE: usize = 500;
/// Complete requests dropped at a time, and between two looks.
const PURGE_BATCH: usize = 1_000;
const PURGE_INTERVAL: Duration = Duration::from_mins(1);
/// Log lines of one request kept while it runs.
const LOG_LINES_MAX: usize = glowplug_store::limits::REQUEST_LOG_LINES_MAX;
/// The store is asked again this often to take an answer that it could not take.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Requests that are accepted and not complete.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    live: Mutex<HashMap<RequestId, Live>>,
    log_ends: LogEnds,
}

#[derive(Debug)]
struct Live {
    app: String,
    logs: Vec<QueueLog>,
    /// Counts changes, for whoever follows the status.
    changed: watch::Sender<u64>,
    path: String,
    /// The app may know of it.
    sent: bool,
    cancel_asked: bool,
}

impl Queue {
    fn live(&self) -> MutexGuard<'_, HashMap<RequestId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, id: RequestId, app: &str, path: &str) {
        let live = Live {
            app: app.to_owned(),
            logs: Vec::new(),
            changed: watch::channel(0).0,
            path: path.to_owned(),
            sent: false,
            cancel_asked: false,
        };
        self.live().insert(id, live);
    }

    fn changed(&self, id: RequestId) {
        if let Some(live) = self.live().get(&id) {
            live.changed.send_modify(|count| *count += 1);
        }
    }

    pub(crate) fn watch(&self, id: RequestId) -> Option<watch::Receiver<u64>> {
        self.live().get(&id).map(|live| live.changed.subscribe())
    }

    pub(crate) fn runner_ended(&self, runner: RunnerId) {
        self.log_ends.forget(runner);
    }

    /// Notes that the app gets the request now, unless it was cancelled before.
    fn begin(&self, id: RequestId) -> bool {
        match self.live().get_mut(&id) {
            Some(live) if live.cancel_asked => false,
            Some(live) => {
                live.sent = true;
                true
            }
            None => true,
        }
    }

    /// Accepts a request: when this returns, it is on disk and in line.
    pub(crate) async fn submit(
        &self,
        shared: &Arc<Shared>,
        submission: Submission,
    ) -> Result<Submitted, SubmitProblem> {
        let app = submission.app.clone();
        let node_limit = shared.config.node.limits.waiting_max as usize;
        let limit = submission.queue_length_max.unwrap_or(node_limit).min(node_limit);
        let waiting = shared
            .desk
            .read(|state, now| state.engine.app(app.id, now).map_or(0, |app| app.waiting));
        // The caller's limit is on what waits before it, so one more than the limit is too many.
        if waiting > limit || waiting >= node_limit {
            return Err(SubmitProblem::QueueFull { limit });
        }
        let arrival = Arrival {
            request: submission.id,
            app: app.id,
            mode: Mode::Queued,
            priority: submission.priority,
            start_deadline: submission.start_deadline,
            no_retry: submission.no_retry,
        };
        let record = QueuedRequest {
            id: submission.id,
            app: app.name.clone(),
            path: submission.path,
            method: submission.method,
            headers: submission.headers,
            body: submission.body,
            priority: store_priority(submission.priority),
            submitted_at: shared.desk.now(),
            start_deadline: submission.start_deadline,
            no_retry: submission.no_retry,
            webhook_url: submission.webhook_url,
            caller: submission.caller.key_id,
        };
        self.enter(submission.id, &app.name, &record.path);
        // A caller that goes away now must not leave a request on disk that nobody serves, so this goes
        // on without it.
        let shared = shared.clone();
        let accepting = shared.tasks.clone().spawn(async move {
            if let Err(error) = shared.store.submit(record).await {
                shared.queue.live().remove(&arrival.request);
                return Err(SubmitProblem::Unavailable { reason: error.to_string() });
            }
            Ok(Submitted { queue_position: shared.desk.arrive_queued(arrival) })
        });
        let gone = |error: tokio::task::JoinError| SubmitProblem::Unavailable {
            reason: error.to_string(),
        };
        accepting.await.map_err(gone).and_then(|accepted| accepted)
    }

    /// Takes up what an earlier life of the node had accepted for an app and not completed.
    pub(crate) fn restore(&self, shared: &Arc<Shared>, pending: Vec<PendingRequest>, app: &App) {
        let count = pending.len();
        for request in pending {
            self.enter(request.id, app.name(), &request.path);
            shared.desk.arrive_queued(Arrival {
                request: request.id,
                app: app.id,
                mode: Mode::Queued,
                priority: request.priority,
                start_deadline: request.start_deadline,
                no_retry: request.no_retry,
            });
        }
        if count > 0 {
            tracing::info!(
                app = app.name(),
                count,
                "queued requests of an earlier run are waiting again"
            );
        }
    }

    /// Runs one attempt in a task of its own.
    pub(crate) fn attempt(shared: &Arc<Shared>, attempt: Attempt) {
        let shared = shared.clone();
        shared.tasks.clone().spawn(async move {
            shared.queue.run_attempt(&shared, attempt).await;
        });
    }

    async fn run_attempt(&self, shared: &Arc<Shared>, attempt: Attempt) {
        let Attempt { lease, address, mut revoked } = attempt;
        let request = match shared.store.pending_request(lease.request).await {
            Ok(Some(request)) => request,
            // It was cancelled before its app was ready.
            Ok(None) => {
                shared.desk.finish_queued(lease, Outcome::CallerGone);
                self.live().remove(&lease.request);
                return;
            }
            Err(error) => {
                tracing::error!(request = %lease.request, "cannot be read: {error}");
                shared.desk.finish_queued(lease, Outcome::ConnectFailed);
                return;
            }
        };
        let began = shared.desk.now();
        if !self.begin(lease.request) {
            if matches!(shared.desk.finish_queued(lease, Outcome::CallerGone), Verdict::Deliver) {
                let completion = refusal_completion(&Refusal::Cancelled, began, lease.attempt);
                self.complete(shared, lease.request, completion).await;
            }
            return;
        }
        self.changed(lease.request);
        let request = AttemptRequest {
            request_id: lease.request,
            endpoint: request.app,
            method: request.method,
            path: request.path,
            headers: request.headers,
            body: request.body.into(),
            caller: request.caller,
        };
        let mut words = Words::new(shared, lease, began);
        let run = attempt::attempt(&shared.forwarder, &address, request);
        let result = tokio::select! {
            biased;
            result = run => result,
            // Withdrawn: the engine has decided what becomes of the request, and says so elsewhere.
            _ = revoked.wait_for(Option::is_some) => return,
            never = words.follow() => match never {},
        };
        let ended = shared.desk.now();
        // While its place is still taken, so that the next request's words are not among them.
        words.take_last().await;
        match shared.desk.finish_queued(lease, result.outcome.clone()) {
            Verdict::Deliver => {
                let completion = completion(result, ended, ended - began, lease.attempt);
                self.complete(shared, lease.request, completion).await;
            }
            Verdict::Retry => self.changed(lease.request),
            Verdict::Void => {}
        }
    }

    /// Adds a line to the log of a request.
    fn said(&self, id: RequestId, line: QueueLog) {
        if let Some(live) = self.live().get_mut(&id)
            && live.logs.len() < LOG_LINES_MAX
        {
            live.logs.push(line);
            live.changed.send_modify(|count| *count += 1);
        }
    }

    /// Makes an answer the request's, durably, however long the store takes.
    async fn complete(&self, shared: &Arc<Shared>, id: RequestId, completion: Completion) {
        self.keep_logs(shared, id).await;
        loop {
            match shared.store.complete(id, completion.clone()).await {
                Ok(Completed::Recorded) => break,
                Ok(other) => {
                    tracing::error!(request = %id, ?other, "an answer came twice");
                    break;
                }
                Err(error) => {
                    tracing::error!(request = %id, "its answer cannot be kept yet: {error}");
                    tokio::time::sleep(STORE_RETRY).await;
                    if shared.tasks.is_closed() {
                        // The node ends. The request stays accepted and runs again at the next start.
                        return;
                    }
                }
            }
        }
        let live = self.live().remove(&id);
        if let Some(live) = live {
            live.changed.send_modify(|count| *count += 1);
        }
    }

    async fn keep_logs(&self, shared: &Arc<Shared>, id: RequestId) {
        let lines: Vec<RequestLogLine> = match self.live().get(&id) {
            Some(live) => live.logs.iter().map(stored_line).collect(),
            None => return,
        };
        if lines.is_empty() {
            return;
        }
        if let Err(error) = shared.store.append_request_logs(id, lines).await {
            tracing::warn!(request = %id, "its log lines could not be kept: {error}");
        }
    }

    /// Ends a request that gets no answer of its app's.
    pub(crate) fn refused(
        &self,
        shared: &Arc<Shared>,
        id: RequestId,
        refusal: Refusal,
        attempts: u32,
    ) {
        if !self.live().contains_key(&id) {
            return;
        }
        let shared = shared.clone();
        shared.tasks.clone().spawn(async move {
            let completion = refusal_completion(&refusal, shared.desk.now(), attempts);
            shared.queue.complete(&shared, id, completion).await;
        });
    }

    pub(crate) async fn cancel(
        &self,
        shared: &Arc<Shared>,
        app: &str,
        id: RequestId,
    ) -> CancelOutcome {
        let live = self.live().get(&id).map(|live| (live.app == app, live.changed.subscribe()));
        match live {
            Some((false, _)) => CancelOutcome::Unknown,
            Some((true, mut changes)) => {
                let in_engine = || shared.desk.read(|state, _| state.engine.request(id));
                if in_engine().is_none() {
                    // Its answer is on the way to the disk.
                    return CancelOutcome::AlreadyCompleted;
                }
                shared.desk.abandon(id);
                if in_engine().is_some() {
                    return CancelOutcome::Requested;
                }
                // Whoever is told so must not see it run after all, not even in a next life of the node.
                while changes.changed().await.is_ok() {}
                CancelOutcome::Removed
            }
            None => match shared.store.request(id).await {
                Ok(Some(record)) if record.app == app && record.completed.is_none() => {
                    // Of an earlier life, and its app is not ready to take it up.
                    let completion = refusal_completion(&Refusal::Cancelled, shared.desk.now(), 0);
                    self.complete(shared, id, completion).await;
                    CancelOutcome::Removed
                }
                Ok(Some(record)) if record.app == app => CancelOutcome::AlreadyCompleted,
                _ => CancelOutcome::Unknown,
            },
        }
    }

    /// Tells the app that the caller gave up: `POST <path>/cancel` on the same runner.
    pub(crate) fn interrupt(
        &self,
        shared: &Arc<Shared>,
        lease: Lease,
        address: Arc<RunnerAddress>,
    ) {
        let path = match self.live().get_mut(&lease.request) {
            Some(live) if !live.cancel_asked => {
                live.cancel_asked = true;
                if !live.sent {
                    return;
                }
                live.path.clone()
            }
            _ => return,
        };
        let shared = shared.clone();
        shared.tasks.clone().spawn(async move {
            let told = attempt::cancel(&shared.forwarder, &address, &path, lease.request).await;
            tracing::debug!(request = %lease.request, ?told, "the app was told of the cancellation");
        });
    }

    /// Cancels everything of an app that waits. Returns how many.
    pub(crate) fn flush(&self, shared: &Shared, app: &App) -> usize {
        let waiting = shared.desk.read(|state, _| state.engine.waiting(app.id));
        let queued: Vec<RequestId> = {
            let live = self.live();
            waiting.into_iter().filter(|id| live.contains_key(id)).collect()
        };
        for id in &queued {
            shared.desk.abandon(*id);
        }
        queued.len()
    }

    pub(crate) async fn status(
        &self,
        shared: &Shared,
        app: &str,
        id: RequestId,
        logs: bool,
    ) -> Option<QueueStatus> {
        let live = self
            .live()
            .get(&id)
            .map(|live| (live.app == app, if logs { live.logs.clone() } else { Vec::new() }));
        if let Some((same_app, logs)) = live {
            if !same_app {
                return None;
            }
            let view = shared.desk.read(|state, _| state.engine.request(id));
            return Some(match view {
                Some(RequestView::Waiting { position }) => QueueStatus::InQueue { position, logs },
                // Not with the engine: its answer is on the way to the disk.
                Some(RequestView::InFlight { .. }) | None => QueueStatus::InProgress { logs },
            });
        }
        let record = shared.store.request(id).await.ok()??;
        if record.app != app {
            return None;
        }
        let logs = if logs { self.stored_logs(shared, id).await } else { Vec::new() };
        Some(match record.completed {
            Some(done) => QueueStatus::Completed {
                logs,
                inference_seconds: done.inference_seconds,
                error: done.error,
            },
            // Of an app that is not in the config now: it waits for the app's return.
            None => QueueStatus::InQueue { position: 0, logs },
        })
    }

    async fn stored_logs(&self, shared: &Shared, id: RequestId) -> Vec<QueueLog> {
        let lines = shared.store.request_logs(id).await.unwrap_or_default();
        lines
            .into_iter()
            .map(|line| QueueLog {
                message: line.message,
                level: line.level,
                source: line.source,
                at: line.at,
            })
            .collect()
    }

    pub(crate) async fn response(
        &self,
        shared: &Shared,
        app: &str,
        id: RequestId,
    ) -> ResponseLookup {
        match self.status(shared, app, id, false).await {
            None => ResponseLookup::Unknown,
            Some(QueueStatus::Completed { .. }) => match shared.store.response(id).await {
                Ok(Some(StoredResponse { status, headers, body })) => {
                    ResponseLookup::Ready { status, headers, body }
                }
                _ => ResponseLookup::Unknown,
            },
            Some(waiting) => ResponseLookup::NotYet(waiting),
        }
    }
}

/// A queued request without its bytes.
#[derive(Debug)]
pub(crate) struct PendingRequest {
    pub id: RequestId,
    pub app: String,
    path: String,
    priority: Priority,
    start_deadline: Option<Timestamp>,
    no_retry: bool,
}

/// Everything that earlier lives of the node accepted and did not complete, in order.
pub(crate) async fn pending(store: &dyn Store) -> Result<Vec<PendingRequest>, StoreError> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = store.pending(after, RESTORE_PAGE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = Some(last.id);
        all.extend(page.into_iter().map(|request| PendingRequest {
            id: request.id,
            app: request.app,
            path: request.path,
            priority: match request.priority {
                glowplug_store::Priority::Normal => Priority::Normal,
                glowplug_store::Priority::Low => Priority::Low,
            },
            start_deadline: request.start_deadline,
            no_retry: request.no_retry,
        }));
    }
}

/// Drops what has been complete for longer than answers are kept.
pub(crate) async fn purge(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(PURGE_INTERVAL);
    loop {
        ticks.tick().await;
        let keep = shared.config.node.answer_retention;
        let before = Timestamp::ZERO + (shared.desk.now() - Timestamp::ZERO).saturating_sub(keep);
        loop {
            match shared.store.purge(before, PURGE_BATCH).await {
                Ok(PURGE_BATCH..) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!("old answers could not be dropped: {error}");
                    break;
                }
            }
        }
    }
}

fn store_priority(priority: Priority) -> glowplug_store::Priority {
    match priority {
        Priority::Normal => glowplug_store::Priority::Normal,
        Priority::Low => glowplug_store::Priority::Low,
    }
}

fn stored_line(line: &QueueLog) -> RequestLogLine {
    RequestLogLine {
        at: line.at,
        level: line.level.clone(),
        source: line.source.clone(),
        message: line.message.clone(),
    }
}

/// An attempt's result as the request's answer: the app's own, or ours where there is none.
fn completion(result: AttemptResult, at: Timestamp, took: Duration, attempts: u32) -> Completion {
    let error = result
        .error
        .as_ref()
        .map(|problem| (problem.detail.clone(), problem.kind.as_str().to_owned()));
    let response = match (result.response, result.error) {
        (Some(response), _) => StoredResponse {
            status: response.status,
            headers: response.headers,
            body: response.body.into(),
        },
        (None, Some(problem)) => problem_response(&problem),
        (None, None) => {
            let detail = "the attempt ended without an answer";
            problem_response(&Problem::new(ErrorType::InternalError, detail))
        }
    };
    let error = error.or_else(|| {
        (response.status >= 400).then(|| {
            let kind = if response.status >= 500 { "runner_server_error" } else { "bad_request" };
            (format!("Invalid status code: {}", response.status), kind.to_owned())
        })
    });
    Completion { at, response, error, inference_seconds: Some(took.as_secs_f64()), attempts }
}

fn refusal_completion(refusal: &Refusal, at: Timestamp, attempts: u32) -> Completion {
    let problem = Problem::from(refusal.clone());
    let response = problem_response(&problem);
    let error = Some((problem.detail, problem.kind.as_str().to_owned()));
    Completion { at, response, error, inference_seconds: None, attempts }
}

/// What a direct caller would have been answered.
fn problem_response(problem: &Problem) -> StoredResponse {
    let answer = problem.answer();
    let headers = answer.headers().iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let body = ErrorBody { detail: problem.detail.clone(), error_type: problem.kind };
    StoredResponse {
        status: problem.kind.status(),
        headers: headers.collect(),
        body: serde_json::to_vec(&body).unwrap_or_default(),
    }
}
