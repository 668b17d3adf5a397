//! A host that is a table: apps with a fixed admission, and a queue that the test moves by hand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use glowplug_core::request::{Outcome, Refusal};
use glowplug_core::{AppId, Lease, RequestId, RunnerAddress, RunnerId, Timestamp};
use glowplug_gateway::files::Files;
use glowplug_gateway::host::{
    Access, Admission, AppProblem, AppRoute, AuthProblem, Caller, CancelOutcome, DirectArrival,
    Eta, Host, QueueStatus, ResponseLookup, Slot, StoreAway, Submission, SubmitProblem, Submitted,
};
use glowplug_gateway::token::TokenKey;
use glowplug_gateway::{Body, Fallback, Gateway, LocalAuthority, Options};
use http::Response;
use tokio::sync::{oneshot, watch};

use crate::table_files::TableFiles;

/// The one key [`TableHost`] knows.
pub(crate) const KEY: &str = "tester:s3cret";
pub(crate) const KEY_ID: &str = "tester";

/// The host's time before the test moves it.
pub(crate) const START_SECONDS: u64 = 1_700_000_000;

#[derive(Clone, Debug)]
pub(crate) enum Plan {
    Now(RunnerAddress),
    /// As `Now`, and the attempt can be withdrawn through [`TableHost::revoke`].
    Revocable(RunnerAddress),
    /// Until the test answers through [`TableHost::waiting`].
    Wait,
    Refuse(Refusal),
}

type Answer = oneshot::Sender<Result<Slot, Refusal>>;

#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) submission: Submission,
    pub(crate) status: QueueStatus,
    pub(crate) response: Option<ResponseLookup>,
    pub(crate) changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct TableHost {
    apps: Mutex<HashMap<String, (Arc<AppRoute>, Plan)>>,
    broken: Mutex<HashMap<String, String>>,
    open: bool,
    pub(crate) seconds_passed: AtomicU64,
    sequence: AtomicU64,
    pub(crate) arrivals: Mutex<Vec<DirectArrival>>,
    pub(crate) waiting: Mutex<Vec<(RequestId, Answer)>>,
    pub(crate) abandoned: Mutex<Vec<RequestId>>,
    pub(crate) finished: Mutex<Vec<(Lease, Outcome)>>,
    revocations: Mutex<Vec<oneshot::Sender<Refusal>>>,
    /// When all runners are killed that are told to end.
    leaves: watch::Sender<Option<Timestamp>>,
    pub(crate) queue: Mutex<HashMap<RequestId, Queued>>,
    /// Where it keeps files, and what signs its tokens.
    pub(crate) files: Option<(TableFiles, TokenKey)>,
    pub(crate) submit_problem: Mutex<Option<SubmitProblem>>,
    pub(crate) eta: Mutex<Option<Eta>>,
}

impl TableHost {
    /// A node without keys, as on loopback.
    pub(crate) fn open() -> Self {
        Self { open: true, ..Self::default() }
    }

    pub(crate) fn add(&self, name: &str, access: Access, plan: Plan) {
        let mut apps = self.apps.lock().unwrap();
        let id = AppId(u32::try_from(apps.len()).unwrap());
        let request_timeout = Duration::from_hours(1);
        let route = AppRoute { id, name: name.to_owned(), access, request_timeout };
        apps.insert(name.to_owned(), (Arc::new(route), plan));
    }

    pub(crate) fn break_app(&self, name: &str, reason: &str) {
        self.broken.lock().unwrap().insert(name.to_owned(), reason.to_owned());
    }

    pub(crate) fn slot(&self, request: RequestId, address: &RunnerAddress) -> Slot {
        let sequence = u32::try_from(self.sequence.fetch_add(1, Ordering::Relaxed)).unwrap();
        let lease = Lease { request, attempt: 1, runner: RunnerId { boot: 1, sequence } };
        Slot { lease, address: Arc::new(address.clone()), revoked: None }
    }

    pub(crate) fn revoke(&self, refusal: &Refusal) {
        for revocation in self.revocations.lock().unwrap().drain(..) {
            // An attempt that is over is no longer withdrawn.
            let _ = revocation.send(refusal.clone());
        }
    }

    /// Tells all runners to end by then.
    pub(crate) fn leave(&self, by: Timestamp) {
        self.leaves.send_replace(Some(by));
    }

    /// The outcomes so far, each of which must have its own lease.
    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        let finished = self.finished.lock().unwrap();
        let mut leases: Vec<_> = finished.iter().map(|(lease, _)| *lease).collect();
        leases.sort();
        leases.dedup();
        assert_eq!(leases.len(), finished.len(), "an attempt was reported twice");
        finished.iter().map(|(_, outcome)| outcome.clone()).collect()
    }

    /// Moves a queued request on and tells its watchers.
    pub(crate) fn set_status(&self, id: RequestId, status: QueueStatus) {
        let mut queue = self.queue.lock().unwrap();
        let queued = queue.get_mut(&id).expect("the request was submitted");
        queued.status = status;
        queued.changed.send_modify(|version| *version += 1);
    }

    pub(crate) fn set_response(
        &self,
        id: RequestId,
        status: u16,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        let mut queue = self.queue.lock().unwrap();
        let queued = queue.get_mut(&id).expect("the request was submitted");
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let (headers, body) = (headers.collect(), body.to_vec());
        queued.response = Some(ResponseLookup::Ready { status, headers, body });
    }

    fn of<T>(&self, app: &str, id: RequestId, read: impl FnOnce(&mut Queued) -> T) -> Option<T> {
        let mut queue = self.queue.lock().unwrap();
        let queued = queue.get_mut(&id).filter(|queued| queued.submission.app.name == app)?;
        Some(read(queued))
    }
}

impl Host for TableHost {
    fn app(&self, name: &str) -> Option<Arc<AppRoute>> {
        self.apps.lock().unwrap().get(name).map(|(route, _)| route.clone())
    }

    fn prepared_app<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Arc<AppRoute>, AppProblem>> {
        async move {
            if let Some(reason) = self.broken.lock().unwrap().get(name) {
                return Err(AppProblem::Broken { reason: reason.clone() });
            }
            let nearest = self.apps.lock().unwrap().keys().min().cloned();
            self.app(name).ok_or(AppProblem::Unknown { nearest })
        }
        .boxed()
    }

    fn authenticate(&self, key: Option<&str>) -> Result<Caller, AuthProblem> {
        match key {
            _ if self.open => Ok(Caller { key_id: String::new(), admin: true }),
            None => Err(AuthProblem::Missing),
            Some(KEY) => Ok(Caller { key_id: KEY_ID.to_owned(), admin: false }),
            Some(_) => Err(AuthProblem::Wrong),
        }
    }

    fn arrive(&self, arrival: DirectArrival) -> Admission {
        let plan = {
            let apps = self.apps.lock().unwrap();
            apps.values().find(|(route, _)| route.id == arrival.app).unwrap().1.clone()
        };
        let request = arrival.request;
        self.arrivals.lock().unwrap().push(arrival);
        match plan {
            Plan::Now(address) => Admission::Now(self.slot(request, &address)),
            Plan::Revocable(address) => {
                let (revocation, revoked) = oneshot::channel();
                self.revocations.lock().unwrap().push(revocation);
                Admission::Now(Slot { revoked: Some(revoked), ..self.slot(request, &address) })
            }
            Plan::Wait => {
                let (answer, waiting) = oneshot::channel();
                self.waiting.lock().unwrap().push((request, answer));
                Admission::Wait(waiting)
            }
            Plan::Refuse(refusal) => Admission::Refused(refusal),
        }
    }

    fn abandoned(&self, request: RequestId) {
        self.abandoned.lock().unwrap().push(request);
    }

    fn finished(&self, lease: Lease, outcome: Outcome) {
        self.finished.lock().unwrap().push((lease, outcome));
    }

    fn submit(&self, submission: Submission) -> BoxFuture<'_, Result<Submitted, SubmitProblem>> {
        async move {
            if let Some(problem) = self.submit_problem.lock().unwrap().clone() {
                return Err(problem);
            }
            let mut queue = self.queue.lock().unwrap();
            let position = queue.len();
            let eta = self.eta.lock().unwrap().clone();
            let status = QueueStatus::InQueue { position, eta: eta.clone(), logs: Vec::new() };
            let changed = watch::channel(0).0;
            let id = submission.id;
            let before = queue.iter().find(|(_, queued)| {
                submission.idempotency_key.is_some()
                    && queued.submission.idempotency_key == submission.idempotency_key
            });
            if let Some((id, _)) = before {
                return Ok(Submitted { id: *id, queue_position: 0, eta: None });
            }
            queue.insert(id, Queued { submission, status, response: None, changed });
            Ok(Submitted { id, queue_position: position, eta })
        }
        .boxed()
    }

    fn status(
        &self,
        app: &str,
        id: RequestId,
        logs: bool,
    ) -> BoxFuture<'_, Result<Option<QueueStatus>, StoreAway>> {
        let status = self.of(app, id, |queued| queued.status.clone()).map(|mut status| {
            let (QueueStatus::InQueue { logs: lines, .. }
            | QueueStatus::InProgress { logs: lines }
            | QueueStatus::Completed { logs: lines, .. }) = &mut status;
            if !logs {
                lines.clear();
            }
            status
        });
        std::future::ready(Ok(status)).boxed()
    }

    fn watch(&self, id: RequestId) -> Option<watch::Receiver<u64>> {
        self.queue.lock().unwrap().get(&id).map(|queued| queued.changed.subscribe())
    }

    fn response(
        &self,
        app: &str,
        id: RequestId,
    ) -> BoxFuture<'_, Result<ResponseLookup, StoreAway>> {
        let found = self.of(app, id, |queued| {
            let response = queued.response.clone();
            response.unwrap_or_else(|| ResponseLookup::NotYet(queued.status.clone()))
        });
        std::future::ready(Ok(found.unwrap_or(ResponseLookup::Unknown))).boxed()
    }

    fn cancel(&self, app: &str, id: RequestId) -> BoxFuture<'_, Result<CancelOutcome, StoreAway>> {
        let outcome = self.of(app, id, |queued| match queued.status {
            QueueStatus::InQueue { .. } => CancelOutcome::Removed,
            QueueStatus::InProgress { .. } => CancelOutcome::Requested,
            QueueStatus::Completed { .. } => CancelOutcome::AlreadyCompleted,
        });
        std::future::ready(Ok(outcome.unwrap_or(CancelOutcome::Unknown))).boxed()
    }

    fn leaving(&self, _runner: RunnerId) -> BoxFuture<'static, Timestamp> {
        let mut leaves = self.leaves.subscribe();
        async move {
            let leave = leaves.wait_for(Option::is_some).await.ok().and_then(|by| *by);
            match leave {
                Some(by) => by,
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn tokens(&self) -> Option<&TokenKey> {
        self.files.as_ref().map(|(_, key)| key)
    }

    fn still_knows(&self, key_id: &str) -> bool {
        key_id == KEY_ID || (self.open && key_id.is_empty())
    }

    fn files(&self) -> Option<&dyn Files> {
        self.files.as_ref().map(|(files, _)| files as &dyn Files)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_secs(START_SECONDS + self.seconds_passed.load(Ordering::Relaxed))
    }
}

/// A gateway on a port of its own, with two workers.
pub(crate) fn gateway(host: &Arc<TableHost>) -> Gateway {
    gateway_with(host, Options::default())
}

pub(crate) fn gateway_with(host: &Arc<TableHost>, options: Options) -> Gateway {
    bind(host, options, None)
}

pub(crate) fn bind(
    host: &Arc<TableHost>,
    options: Options,
    tls: Option<&Arc<LocalAuthority>>,
) -> Gateway {
    let host: Arc<dyn Host> = host.clone();
    let options = Options { workers: 2, ..options };
    Gateway::bind("127.0.0.1:0".parse().unwrap(), &host, &options, tls, &fallback()).unwrap()
}

/// Answers with the path it was asked for.
fn fallback() -> Fallback {
    Arc::new(|request| {
        let body = format!("fallback {} {}", request.method(), request.uri().path());
        async move { Response::new(Body::full(body)) }.boxed()
    })
}
