//! `/run`: attempts that end before their answer, because the caller or the host says so.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use glowplug_core::request::{Outcome, Refusal};
use glowplug_gateway::host::Access;
use http_body_util::BodyExt;

use crate::client::{ask, ask_json, get, send};
use crate::host::{Plan, TableHost, gateway};
use crate::stage::{answered, assert_problem, outcome, stage};
use crate::upstream::Upstream;
use crate::wait::{bounded, until};

#[tokio::test]
async fn a_caller_that_leaves_ends_its_attempt() {
    let stage = stage().await;
    let address = stage.gateway.address();
    let waiting = tokio::spawn(async move { ask(address, get("/run/me/app/hang")).await });
    let seen = &stage.upstream.seen;
    until("the app to be asked", || (seen.requests.load(Ordering::SeqCst) == 1).then_some(()))
        .await;
    waiting.abort();
    assert_eq!(outcome(&stage.host).await, Outcome::CallerGone);
    until("the app to notice", || (seen.dropped.load(Ordering::SeqCst) == 1).then_some(())).await;

    let mut response = send(address, get("/run/me/app/events")).await;
    response.frame().await.unwrap().unwrap();
    drop(response);
    until("the second outcome", || (stage.host.outcomes().len() == 2).then_some(())).await;
    assert_eq!(stage.host.outcomes()[1], Outcome::CallerGone);
}

#[tokio::test]
async fn a_caller_that_leaves_while_it_waits_is_forgotten() {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Public, Plan::Wait);
    let gateway = gateway(&host);
    let address = gateway.address();

    let served = tokio::spawn(async move { ask(address, get("/run/me/app/x")).await });
    let (id, answer) = until("the first to wait", || host.waiting.lock().unwrap().pop()).await;
    answer.send(Ok(host.slot(id, &upstream.address))).unwrap();
    assert_eq!(served.await.unwrap().0, 200);

    let gone = tokio::spawn(async move { ask(address, get("/run/me/app/x")).await });
    let (id, answer) = until("the second to wait", || host.waiting.lock().unwrap().pop()).await;
    gone.abort();
    let abandoned = until("it to be abandoned", || host.abandoned.lock().unwrap().pop()).await;
    assert_eq!(abandoned, id);
    assert!(answer.is_closed());
    assert_eq!(host.outcomes(), [answered(200)]);

    let orphan = tokio::spawn(async move { ask_json(address, get("/run/me/app/x")).await });
    let (_, answer) = until("the third to wait", || host.waiting.lock().unwrap().pop()).await;
    drop(answer);
    assert_problem(&orphan.await.unwrap(), 503, "shutting_down");
}

#[tokio::test]
async fn a_withdrawn_attempt_stops() {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Public, Plan::Revocable(upstream.address.clone()));
    let gateway = gateway(&host);
    let address = gateway.address();
    let waiting = tokio::spawn(async move { ask_json(address, get("/run/me/app/hang")).await });
    let seen = &upstream.seen;
    until("the app to be asked", || (seen.requests.load(Ordering::SeqCst) == 1).then_some(()))
        .await;
    host.revoke(&Refusal::RequestTimeout { seconds: 7 });
    let answer = bounded("the refusal", waiting).await.unwrap();
    assert_problem(&answer, 504, "request_timeout");
    assert!(answer.2["detail"].as_str().unwrap().contains("7 s"));
    until("the app to notice", || (seen.dropped.load(Ordering::SeqCst) == 1).then_some(())).await;

    let mut response = send(address, get("/run/me/app/events")).await;
    response.frame().await.unwrap().unwrap();
    host.revoke(&Refusal::RequestTimeout { seconds: 7 });
    assert!(bounded("the cut", response.frame()).await.unwrap().is_err());
    until("two outcomes", || (host.outcomes().len() == 2).then_some(())).await;
    assert_eq!(host.outcomes(), [Outcome::Disconnected, Outcome::Disconnected]);
}
