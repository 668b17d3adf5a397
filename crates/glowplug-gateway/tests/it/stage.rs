//! An app on a real runner behind a gateway, and what is asked about its attempts.

use std::sync::Arc;

use glowplug_core::request::{Answer, Outcome};
use glowplug_gateway::Gateway;
use glowplug_gateway::host::Access;
use serde_json::Value;

use crate::host::{Plan, TableHost, gateway};
use crate::upstream::Upstream;
use crate::wait::until;

pub(crate) struct Stage {
    pub(crate) host: Arc<TableHost>,
    pub(crate) gateway: Gateway,
    pub(crate) upstream: Upstream,
}

/// An open node with the app `me/app` on a real runner.
pub(crate) async fn stage() -> Stage {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    let gateway = gateway(&host);
    Stage { host, gateway, upstream }
}

pub(crate) fn answered(status: u16) -> Outcome {
    Outcome::Answered(Answer { status, ..Answer::default() })
}

pub(crate) async fn outcome(host: &TableHost) -> Outcome {
    until("an outcome", || host.outcomes().pop()).await
}

pub(crate) fn assert_problem(
    answer: &(u16, http::HeaderMap, Value),
    status: u16,
    error_type: &str,
) {
    let (got, headers, body) = answer;
    assert_eq!(*got, status, "{body}");
    assert_eq!(body["error_type"], error_type, "{body}");
    assert_eq!(headers["x-fal-error-type"], error_type);
    assert!(!body["detail"].as_str().unwrap().is_empty());
    assert_eq!(headers["x-fal-request-id"].len(), 36);
    assert_eq!(headers["content-type"], "application/json");
}
