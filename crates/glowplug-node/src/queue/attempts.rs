//! Runs attempts of queued requests, and makes what comes of them the requests' answers.

use std::sync::Arc;
use std::time::Duration;

use glowplug_api::ErrorType;
use glowplug_core::request::{Outcome, Refusal};
use glowplug_core::{Lease, RequestId, RunnerAddress};
use glowplug_gateway::answer::Problem;
use glowplug_gateway::attempt::{self, AttemptRequest};
use glowplug_gateway::files::APP_TOKEN;
use glowplug_gateway::host::{QueueLog, Revocation};
use glowplug_store::{
    Completed, Completion, QueuedRequest, RequestLogLine, StoreError, crash_point,
};

use super::answer::{completion, problem_completion, refusal_completion};
use super::words::Words;
use super::{Queue, cancel};
use crate::desk::{Attempt, Verdict};
use crate::host::NodeHost;
use crate::shared::Shared;

/// Log lines of one request kept while it runs.
const LOG_LINES_MAX: usize = glowplug_store::limits::REQUEST_LOG_LINES_MAX;
/// The store is asked again this often to take or give what it could not.
pub(super) const STORE_RETRY: Duration = Duration::from_secs(1);

impl Queue {
    /// Runs one attempt in a task of its own.
    pub(crate) fn attempt(shared: &Arc<Shared>, attempt: Attempt) {
        let shared = shared.clone();
        shared.tasks.clone().spawn(async move {
            shared.queue.run_attempt(&shared, attempt).await;
        });
    }

    async fn run_attempt(&self, shared: &Arc<Shared>, attempt: Attempt) {
        let Attempt { lease, address, mut revoked } = attempt;
        let reading = async {
            self.health.answers_kept().await;
            let request = read(shared, lease).await;
            if matches!(request, Ok(Some(_))) && self.is_to_be_noted(lease) {
                note(shared, lease).await;
            }
            request
        };
        let request = tokio::select! {
            biased;
            request = reading => request,
            // Withdrawn: the engine has decided what becomes of the request, and says so elsewhere.
            _ = &mut revoked => return,
        };
        let request = match request {
            Ok(Some(request)) => request,
            // It was completed elsewhere, or is another node's now.
            Ok(None) => {
                shared.desk.finish_queued(lease, Outcome::CallerGone);
                self.forget(lease.request);
                return;
            }
            Err(error) => {
                let problem = Problem::new(ErrorType::InternalError, error.to_string());
                return self.give_up(shared, lease, &problem).await;
            }
        };
        if !self.begin(lease.request) {
            return self.give_up(shared, lease, &Problem::from(Refusal::Cancelled)).await;
        }
        self.changed(lease.request);
        if self.watched.is_open() && !self.is_to_be_noted(lease) {
            tell_others(shared, lease);
        }
        self.send(shared, lease, &address, revoked, request).await;
    }

    /// Whether the attempt is on the disk before it is sent, so that a request which kills its node comes
    /// to an end. The first of a request that this node accepted is not: it would cost each request a
    /// write more.
    fn is_to_be_noted(&self, lease: Lease) -> bool {
        let taken_over = || self.live().by_id.get(&lease.request).is_some_and(|one| one.taken_over);
        lease.attempt > 1 || taken_over()
    }

    async fn send(
        &self,
        shared: &Arc<Shared>,
        lease: Lease,
        address: &Arc<RunnerAddress>,
        revoked: Revocation,
        request: QueuedRequest,
    ) {
        let began = shared.desk.now();
        let mut headers = request.headers;
        let host = NodeHost(shared.clone());
        let token = shared.files.app_tokens.of(&host, &request.caller);
        if let Some(token) = token.as_ref().and_then(|token| token.to_str().ok()) {
            headers.push((APP_TOKEN.to_string(), token.to_owned()));
        }
        let request = AttemptRequest {
            request_id: lease.request,
            endpoint: request.app,
            method: request.method,
            path: request.path,
            headers,
            body: request.body.into(),
            caller: request.caller,
        };
        let mut words = Words::new(shared, lease, began);
        let run = attempt::attempt(&shared.forwarder, address, request);
        let result = tokio::select! {
            biased;
            result = run => result,
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

    /// Ends a request whose attempt was not sent, and will not be.
    async fn give_up(&self, shared: &Arc<Shared>, lease: Lease, problem: &Problem) {
        if shared.desk.finish_queued(lease, Outcome::CallerGone) == Verdict::Deliver {
            let completion = problem_completion(problem, shared.desk.now(), lease.attempt);
            self.complete(shared, lease.request, completion).await;
        }
    }

    /// Adds a line to the log of a request.
    pub(super) fn said(&self, id: RequestId, line: QueueLog) {
        if let Some(live) = self.live().by_id.get_mut(&id)
            && live.logs.len() < LOG_LINES_MAX
        {
            live.logs.push(line);
            live.tell();
        }
    }

    /// Makes an answer the request's, durably, however long the store takes.
    pub(super) async fn complete(
        &self,
        shared: &Arc<Shared>,
        id: RequestId,
        completion: Completion,
    ) {
        crash_point("queue.answered");
        self.keep_logs(shared, id).await;
        let kept = match self.try_complete(shared, id, &completion).await {
            Err(error) => {
                tracing::error!(request = %id, "its answer cannot be kept yet: {error}");
                self.health.answer_waits();
                let kept = self.insist(shared, id, completion).await;
                self.health.answer_kept();
                kept
            }
            Ok(kept) => Some(kept),
        };
        match kept {
            Some(Completed::Recorded) => crash_point("queue.completed"),
            // An earlier try was recorded although it seemed to fail, or another node was first.
            Some(Completed::AlreadyComplete) => {
                tracing::debug!(request = %id, "it was complete before");
            }
            Some(Completed::Fenced) => {
                tracing::info!(request = %id, "another node has taken it over; this answer is dropped");
            }
            Some(Completed::UnknownRequest) => {
                tracing::error!(request = %id, "an answer came to a request that does not exist");
            }
            // The node ends. The request stays accepted and runs again at the next start.
            None => return,
        }
        shared.webhooks.wake();
        let live = self.forget(id);
        if kept != Some(Completed::Fenced) && live.is_some_and(|live| live.cancel_kept) {
            cancel::unmark(shared, id).await;
        }
    }

    /// Tries until it succeeds; `None` if the node ends before.
    async fn insist(
        &self,
        shared: &Arc<Shared>,
        id: RequestId,
        completion: Completion,
    ) -> Option<Completed> {
        while !shared.tasks.is_closed() {
            tokio::time::sleep(STORE_RETRY).await;
            if let Ok(kept) = self.try_complete(shared, id, &completion).await {
                return Some(kept);
            }
        }
        None
    }

    /// An answer that no store would take is replaced by one that says so.
    async fn try_complete(
        &self,
        shared: &Arc<Shared>,
        id: RequestId,
        completion: &Completion,
    ) -> Result<Completed, StoreError> {
        let mut kept = shared.store.complete(id, completion.clone()).await;
        if let Err(error @ StoreError::TooLarge { .. }) = &kept {
            let problem = Problem::new(ErrorType::RunnerIncompleteResponse, error.to_string());
            let instead = problem_completion(&problem, completion.at, completion.attempts);
            kept = shared.store.complete(id, instead).await;
        }
        self.health.note_answer(shared, kept.as_ref().err());
        kept
    }

    async fn keep_logs(&self, shared: &Arc<Shared>, id: RequestId) {
        let lines: Vec<RequestLogLine> = match self.live().by_id.get(&id) {
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
        if !self.live().by_id.contains_key(&id) {
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
        let path = match self.live().by_id.get_mut(&lease.request) {
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

/// The request with its body, however long the store takes to give it out: that it cannot is not the
/// request's fault, and must not use up its attempts. Fails if the body is damaged.
async fn read(shared: &Shared, lease: Lease) -> Result<Option<QueuedRequest>, StoreError> {
    let id = lease.request;
    loop {
        let found = shared.store.pending_request(id).await;
        // After the reading: who owns it at its end may send it.
        let found = match found {
            Ok(Some(_)) if shared.queue.watched.is_open() => match shared.store.request(id).await {
                Ok(record) => found.map(|found| {
                    found.filter(|_| record.is_some_and(|record| record.owner == shared.boot))
                }),
                Err(error) => Err(error),
            },
            found => found,
        };
        match found {
            Err(StoreError::BodyDamaged { .. }) | Ok(_) => return found,
            Err(error) => {
                tracing::error!(request = %id, "it cannot be read yet: {error}");
                shared.queue.health.note(shared, Some(&error));
                tokio::time::sleep(STORE_RETRY).await;
            }
        }
    }
}

/// Writes down that the attempt begins, however long the store takes.
async fn note(shared: &Shared, lease: Lease) {
    while let Err(error) = shared.store.started(lease.request, lease.attempt).await {
        tracing::error!(request = %lease.request, "its attempt cannot be noted yet: {error}");
        shared.queue.health.note(shared, Some(&error));
        tokio::time::sleep(STORE_RETRY).await;
    }
    crash_point("queue.attempt.noted");
}

/// Tells other nodes that the request is being worked on.
fn tell_others(shared: &Arc<Shared>, lease: Lease) {
    let store = shared.store.clone();
    shared.tasks.spawn(async move {
        if let Err(error) = store.started(lease.request, lease.attempt).await {
            tracing::debug!(request = %lease.request, "other nodes do not know that it runs: {error}");
        }
    });
}

fn stored_line(line: &QueueLog) -> RequestLogLine {
    RequestLogLine {
        at: line.at,
        level: line.level.clone(),
        source: line.source.clone(),
        message: line.message.clone(),
    }
}
