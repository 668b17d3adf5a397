//! What the gateway asks of the node it runs in.
//!
//! The gateway holds connections, not policy: it never picks a runner, never retries, never stores. The
//! node implements [`Host`] over its engine and its store; tests implement it over a table.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use glowplug_core::request::{Outcome, Priority, Refusal};
use glowplug_core::retry::Wish;
use glowplug_core::{AppId, Lease, RequestId, RunnerAddress, RunnerId, Timestamp};
use tokio::sync::{oneshot, watch};

use crate::files::Files;
use crate::token::TokenKey;

pub trait Host: Send + Sync + 'static {
    /// The app if it is ready to be called, found without waiting. `name` is `owner/app[--env]`.
    fn app(&self, name: &str) -> Option<Arc<AppRoute>>;

    /// As [`Host::app`], but waits while the app is being prepared (its environment built, say).
    fn prepared_app<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Arc<AppRoute>, AppProblem>>;

    /// Which caller a credential belongs to. `key`: what followed `Key ` or `Bearer ` in the header.
    fn authenticate(&self, key: Option<&str>) -> Result<Caller, AuthProblem>;

    /// A direct request wants a runner.
    fn arrive(&self, arrival: DirectArrival) -> Admission;

    /// The caller of a waiting direct request went away. Harmless after its admission was answered:
    /// the slot then comes back through [`Host::finished`].
    fn abandoned(&self, request: RequestId);

    /// An attempt ended. Exactly once for each [`Slot`] handed out.
    fn finished(&self, lease: Lease, outcome: Outcome);

    /// Puts a request into the durable queue; answered when it is on disk.
    fn submit(&self, submission: Submission) -> BoxFuture<'_, Result<Submitted, SubmitProblem>>;

    /// `None`: there is no such request of this app.
    fn status(
        &self,
        app: &str,
        id: RequestId,
        logs: bool,
    ) -> BoxFuture<'_, Result<Option<QueueStatus>, StoreAway>>;

    /// Changes whenever the status of the request may have changed. `None`: unknown or long complete.
    fn watch(&self, id: RequestId) -> Option<watch::Receiver<u64>>;

    fn response(
        &self,
        app: &str,
        id: RequestId,
    ) -> BoxFuture<'_, Result<ResponseLookup, StoreAway>>;

    fn cancel(&self, app: &str, id: RequestId) -> BoxFuture<'_, Result<CancelOutcome, StoreAway>>;

    /// Waits until a runner is told to end, and says when it is killed if it has not. For ever if it is
    /// not to end.
    fn leaving(&self, runner: RunnerId) -> BoxFuture<'static, Timestamp> {
        let _ = runner;
        Box::pin(std::future::pending())
    }

    /// What signs the tokens of this node. `None`: it gives out none.
    fn tokens(&self) -> Option<&TokenKey> {
        None
    }

    /// Whether a token made for this caller (a key id, or nobody) still means something.
    fn still_knows(&self, key_id: &str) -> bool {
        key_id.is_empty() && self.authenticate(None).is_ok()
    }

    /// Where uploaded files are kept. `None`: nowhere.
    fn files(&self) -> Option<&dyn Files> {
        None
    }

    fn now(&self) -> Timestamp;
}

/// What the gateway knows of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRoute {
    pub id: AppId,
    /// `owner/app[--env]`.
    pub name: String,
    pub access: Access,
    /// Limit on one attempt; enforced by the engine, shown in errors here.
    pub request_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only with a key of this node (or without any while the node is open on loopback).
    Private,
    /// Anyone.
    Public,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppProblem {
    /// No such app; `nearest` is the most similar name there is.
    Unknown { nearest: Option<String> },
    /// The app exists but could not be prepared (import error, bad requirements, …).
    Broken { reason: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Caller {
    /// Key id; empty when the node is open.
    pub key_id: String,
    pub admin: bool,
}

impl Caller {
    /// Came without a key of this node, to an app that is open to anyone.
    pub fn is_anonymous(&self) -> bool {
        self.key_id.is_empty() && !self.admin
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthProblem {
    Missing,
    Wrong,
}

#[derive(Clone, Debug)]
pub struct DirectArrival {
    pub request: RequestId,
    pub app: AppId,
    pub start_deadline: Option<Timestamp>,
    /// Key id of the caller; empty when the node is open.
    pub caller: String,
    /// `X-Fal-Runner-Hint`.
    pub hint: Option<String>,
}

/// The answer to an arrival.
#[derive(Debug)]
pub enum Admission {
    /// A warm runner has a free place: go.
    Now(Slot),
    /// Wait for one. Dropping the receiver does not cancel: call [`Host::abandoned`].
    Wait(oneshot::Receiver<Result<Slot, Refusal>>),
    Refused(Refusal),
}

/// The right to send one attempt to one runner. Ends by [`Host::finished`] with its lease.
#[derive(Debug)]
pub struct Slot {
    pub lease: Lease,
    pub address: Arc<RunnerAddress>,
    /// `None` where nothing can withdraw it.
    pub revoked: Option<Revocation>,
}

/// Brings the refusal when the engine withdraws an attempt (request_timeout, kill): stop forwarding. It
/// breaks off when the attempt can no longer be withdrawn.
pub type Revocation = oneshot::Receiver<Refusal>;

/// A request for the queue, headers cleaned of gateway control.
#[derive(Clone, Debug)]
pub struct Submission {
    pub id: RequestId,
    pub app: Arc<AppRoute>,
    /// Below the app, without leading slash, query included.
    pub path: String,
    pub method: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub priority: Priority,
    pub start_deadline: Option<Timestamp>,
    pub retries: Wish,
    /// `X-Fal-Runner-Hint`.
    pub hint: Option<String>,
    /// `Idempotency-Key`: what this caller submits under it again is the same request.
    pub idempotency_key: Option<String>,
    /// Whether the payload is kept as long as the answer (not with `X-Fal-Store-IO: 0`).
    pub keep_payload: bool,
    pub webhook_url: Option<String>,
    /// `fal_max_queue_length`: refuse when more wait already.
    pub queue_length_max: Option<usize>,
    pub caller: Caller,
}

#[derive(Clone, Debug)]
pub struct Submitted {
    /// The submission's own id, or that of the earlier one with the same idempotency key.
    pub id: RequestId,
    pub queue_position: usize,
    pub eta: Option<Eta>,
}

/// When a waiting request is expected to be answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Eta {
    /// From now.
    pub seconds: f64,
    /// What the number was made of, for people: "3 requests ahead on 2 runners, 4.1 s each".
    pub basis: String,
}

#[derive(Clone, Debug)]
pub enum SubmitProblem {
    /// More requests wait than the caller or the node allows.
    QueueFull {
        limit: usize,
    },
    /// The store cannot take it now (read-only, damaged, …).
    Unavailable {
        reason: String,
    },
    /// There is no room on the disk for it.
    StorageFull {
        reason: String,
    },
    /// The caller used the idempotency key for another request before.
    KeyReused {
        earlier: RequestId,
    },
    /// The node does not call this address.
    WebhookNotAllowed {
        reason: String,
    },
    Refused(Refusal),
}

/// The store cannot be asked, so that nobody knows what became of a request. That is not the same as
/// that there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreAway {
    pub reason: String,
}

/// State of a queued request, ready to be put on the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum QueueStatus {
    InQueue {
        position: usize,
        eta: Option<Eta>,
        logs: Vec<QueueLog>,
    },
    InProgress {
        logs: Vec<QueueLog>,
    },
    Completed {
        logs: Vec<QueueLog>,
        inference_seconds: Option<f64>,
        error: Option<(String, String)>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueLog {
    pub message: String,
    pub level: String,
    pub source: String,
    pub at: Timestamp,
}

#[derive(Clone, Debug)]
pub enum ResponseLookup {
    Unknown,
    NotYet(QueueStatus),
    Ready { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// Was waiting; is gone.
    Removed,
    /// Is being worked on; the app was told.
    Requested,
    AlreadyCompleted,
    Unknown,
}
