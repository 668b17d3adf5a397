//! The node as the gateway sees it.

use std::sync::Arc;

use futures::future::BoxFuture;
use glowplug_core::request::Outcome;
use glowplug_core::{Lease, RequestId, RunnerId, Timestamp};
use glowplug_gateway::files::Files;
use glowplug_gateway::host::{
    Admission, AppProblem, AppRoute, AuthProblem, Caller, CancelOutcome, DirectArrival, Host,
    QueueStatus, ResponseLookup, StoreAway, Submission, SubmitProblem, Submitted,
};
use glowplug_gateway::token::TokenKey;
use tokio::sync::watch;

use crate::shared::Shared;
use crate::{interest, keys};

/// A handle, so that what outlives a call can hold on to the node.
pub(crate) struct NodeHost(pub(crate) Arc<Shared>);

impl Host for NodeHost {
    fn app(&self, name: &str) -> Option<Arc<AppRoute>> {
        self.0.apps.route(name)
    }

    fn prepared_app<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Arc<AppRoute>, AppProblem>> {
        Box::pin(async move {
            let app = self.0.apps.by_name(name).ok_or_else(|| self.0.apps.unknown(name))?;
            Ok(app.settled().await?.route.clone())
        })
    }

    fn authenticate(&self, key: Option<&str>) -> Result<Caller, AuthProblem> {
        if self.0.is_open() {
            return Ok(Caller { key_id: String::new(), admin: true });
        }
        keys::authenticate(&self.0.keys(), key)
    }

    fn arrive(&self, mut arrival: DirectArrival) -> Admission {
        if arrival.start_deadline.is_none() {
            let app = self.0.apps.by_id(arrival.app);
            let timeout = app.and_then(|app| app.start_timeout());
            arrival.start_deadline = timeout.map(|timeout| self.0.desk.now() + timeout);
        }
        self.0.desk.arrive_direct(&arrival)
    }

    fn abandoned(&self, request: RequestId) {
        self.0.desk.abandon(request);
    }

    fn finished(&self, lease: Lease, outcome: Outcome) {
        self.0.desk.finish_direct(lease, outcome);
    }

    fn submit(&self, submission: Submission) -> BoxFuture<'_, Result<Submitted, SubmitProblem>> {
        Box::pin(async move {
            if let Some(url) = &submission.webhook_url {
                self.0.webhooks.check(url).map_err(|error| SubmitProblem::WebhookNotAllowed {
                    reason: error.to_string(),
                })?;
            }
            self.0.queue.submit(&self.0, submission).await
        })
    }

    fn status(
        &self,
        app: &str,
        id: RequestId,
        logs: bool,
    ) -> BoxFuture<'_, Result<Option<QueueStatus>, StoreAway>> {
        let app = app.to_owned();
        Box::pin(async move {
            let Some(status) = self.0.queue.status(&self.0, &app, id, logs).await? else {
                return Ok(None);
            };
            if let Some(app) = self.0.apps.by_name(&app) {
                interest::shown(&self.0, app);
            }
            Ok(Some(status))
        })
    }

    fn watch(&self, id: RequestId) -> Option<watch::Receiver<u64>> {
        self.0.queue.watch(id)
    }

    fn response(
        &self,
        app: &str,
        id: RequestId,
    ) -> BoxFuture<'_, Result<ResponseLookup, StoreAway>> {
        let app = app.to_owned();
        Box::pin(async move { self.0.queue.response(&self.0, &app, id).await })
    }

    fn cancel(&self, app: &str, id: RequestId) -> BoxFuture<'_, Result<CancelOutcome, StoreAway>> {
        let app = app.to_owned();
        Box::pin(async move { self.0.queue.cancel(&self.0, &app, id).await })
    }

    fn leaving(&self, runner: RunnerId) -> BoxFuture<'static, Timestamp> {
        let leaving = self.0.desk.leaving(runner);
        Box::pin(async move {
            let Some(mut leaving) = leaving else { return std::future::pending().await };
            let killed_at = leaving.wait_for(Option::is_some).await.ok().and_then(|at| *at);
            match killed_at {
                Some(killed_at) => killed_at,
                // The runner has ended by itself, which its sockets notice.
                None => std::future::pending().await,
            }
        })
    }

    fn tokens(&self) -> Option<&TokenKey> {
        Some(&self.0.files.tokens)
    }

    fn still_knows(&self, key_id: &str) -> bool {
        if key_id.is_empty() {
            return self.0.is_open();
        }
        self.0.keys().iter().any(|key| key.id == key_id)
    }

    fn files(&self) -> Option<&dyn Files> {
        Some(&self.0.files)
    }

    fn now(&self) -> Timestamp {
        self.0.desk.now()
    }
}
