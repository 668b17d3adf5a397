//! Runs attempts of queued requests, and makes what comes of them the requests' answers.

use std::sync::Arc;
use std::time::Duration;

use glowplug_api::ErrorType;
use glowplug_core::request::{Outcome, Refusal};
use glowplug_core::{Lease, RequestId, RunnerAddress};
use glowplug_gateway::answer::Problem;
use glowplug_gateway::attempt::{self, AttemptRequest};
use glowplug_gateway::host::QueueLog;
use glowplug_store::{Completed, Completion, RequestLogLine, StoreError};

use super::Queue;
use super::answer::{completion, problem_completion, refusal_completion};
use super::words::Words;
use crate::desk::{Attempt, Verdict};
use crate::shared::Shared;

/// Log lines of one request kept while it runs.
const LOG_LINES_MAX: usize = glowplug_store::limits::REQUEST_LOG_LINES_MAX;
/// The store is asked again this often to take an answer that it could not take.
const STORE_RETRY: Duration = Duration::from_secs(1);

impl Queue {
    /// Runs one attempt in a task of its own.
    pub(crate) fn attempt(shared: &Arc<Shared>, attempt: Attempt) {
        let shared = shared.clone();
        shared.tasks.clone().spawn(async move {
            shared.queue.run_attempt(&shared, attempt).await;
        });
    }

    async fn run_attempt(&self, shared: &Arc<Shared>, attempt: Attempt) {
        let Attempt { lease, address, revoked } = attempt;
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
                self.unreadable(shared, lease, &error).await;
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
            _ = revoked => return,
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

    /// The store does not give the request out: it is tried again, and fails when it may not be any more.
    async fn unreadable(&self, shared: &Arc<Shared>, lease: Lease, error: &StoreError) {
        let now = shared.desk.now();
        match shared.desk.finish_queued(lease, Outcome::ConnectFailed) {
            Verdict::Deliver => {
                let problem = Problem::new(ErrorType::StoreUnavailable, error.to_string());
                let completion = problem_completion(&problem, now, lease.attempt);
                self.complete(shared, lease.request, completion).await;
            }
            Verdict::Retry => self.changed(lease.request),
            Verdict::Void => {}
        }
    }

    /// Adds a line to the log of a request.
    pub(super) fn said(&self, id: RequestId, line: QueueLog) {
        if let Some(live) = self.live().get_mut(&id)
            && live.logs.len() < LOG_LINES_MAX
        {
            live.logs.push(line);
            live.changed.send_modify(|count| *count += 1);
        }
    }

    /// Makes an answer the request's, durably, however long the store takes.
    pub(super) async fn complete(
        &self,
        shared: &Arc<Shared>,
        id: RequestId,
        mut completion: Completion,
    ) {
        self.keep_logs(shared, id).await;
        loop {
            match shared.store.complete(id, completion.clone()).await {
                Ok(Completed::Recorded) => break,
                Err(error @ StoreError::TooLarge { .. }) => {
                    let problem =
                        Problem::new(ErrorType::RunnerIncompleteResponse, error.to_string());
                    completion = problem_completion(&problem, completion.at, completion.attempts);
                }
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
}

fn stored_line(line: &QueueLog) -> RequestLogLine {
    RequestLogLine {
        at: line.at,
        level: line.level.clone(),
        source: line.source.clone(),
        message: line.message.clone(),
    }
}
