//! `/run`: attempts that end before their answer, because the caller or the host says so.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::{StreamExt, stream};
use glowplug_core::request::{Outcome, Refusal};
use glowplug_gateway::host::Access;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use crate::client::{ask, ask_json, get, send};
use crate::host::{Plan, TableHost, gateway};
use crate::stage::{Stage, answered, assert_problem, outcome, stage};
use crate::upstream::Upstream;
use crate::wait::{BOUND, bounded, until};

/// Asks for `path` and leaves once the app has been asked.
async fn ask_and_leave(stage: &Stage, path: &'static str) {
    let address = stage.gateway.address();
    let seen = &stage.upstream.seen;
    let before = seen.requests.load(Ordering::SeqCst);
    let asking = tokio::spawn(async move { ask(address, get(path)).await });
    let asked = || (seen.requests.load(Ordering::SeqCst) > before).then_some(());
    until("the app to be asked", asked).await;
    asking.abort();
}

/// What the app was asked last, once it is `expected`.
async fn asked(stage: &Stage, expected: &str) {
    let uris = &stage.upstream.seen.uris;
    let last = || (uris.lock().unwrap().last()? == expected).then_some(());
    until(expected, last).await;
}

#[tokio::test]
async fn work_that_cannot_be_cancelled_keeps_its_place_until_it_is_done() {
    let stage = stage().await;
    let cases = [
        ("/run/me/app/hang", Outcome::CallerGone),
        ("/run/me/app/hang?status=404", Outcome::CallerGone),
        // These say something of the runner.
        ("/run/me/app/hang?status=500", answered(500)),
        ("/run/me/app/hang?status=503", answered(503)),
    ];
    for (path, expected) in cases {
        let finished = stage.host.outcomes().len();
        ask_and_leave(&stage, path).await;
        asked(&stage, "POST /hang/cancel").await;
        // The app goes on serving others meanwhile, and still has the request.
        ask(stage.gateway.address(), get("/run/me/app/x")).await;
        assert_eq!(stage.host.outcomes()[finished..], [answered(200)]);
        stage.upstream.seen.go_on.notify_one();
        until("the outcome", || (stage.host.outcomes().len() == finished + 2).then_some(())).await;
        assert_eq!(stage.host.outcomes()[finished + 1], expected);
    }
    assert_eq!(stage.upstream.seen.dropped.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_app_is_told_when_the_caller_leaves() {
    let stage = stage().await;
    ask_and_leave(&stage, "/run/me/app/stoppable?x=1").await;
    assert_eq!(outcome(&stage.host).await, Outcome::CallerGone);
    let seen = &stage.upstream.seen;
    assert_eq!(*seen.uris.lock().unwrap(), ["GET /stoppable", "POST /stoppable/cancel"]);
    let ids = seen.ids.lock().unwrap().clone();
    assert_eq!(ids, [ids[0].clone(), ids[0].clone()]);
    assert_eq!(ids[0], stage.host.arrivals.lock().unwrap()[0].request.to_string());
    // What is used again has nothing left of it.
    for _ in 0..8 {
        let (status, _, body) = ask_json(stage.gateway.address(), get("/run/me/app/x")).await;
        assert_eq!((status, body["uri"].as_str()), (200, Some("/x")));
    }
}

#[tokio::test]
async fn streams_end_when_their_caller_leaves() {
    let stage = stage().await;
    let address = stage.gateway.address();
    let seen = &stage.upstream.seen;
    for (path, cancel) in [
        ("/run/me/app/endless", "POST /endless/cancel"),
        // Cannot be cancelled: it notices that its connection closes.
        ("/run/me/app/events", "POST /events/cancel"),
    ] {
        let finished = stage.host.outcomes().len();
        let mut response = send(address, get(path)).await;
        response.frame().await.unwrap().unwrap();
        drop(response);
        until("the outcome", || (stage.host.outcomes().len() > finished).then_some(())).await;
        assert_eq!(stage.host.outcomes()[finished..], [Outcome::CallerGone], "{path}");
        assert_eq!(seen.uris.lock().unwrap().last().unwrap(), cancel);
    }
}

#[tokio::test]
async fn a_request_that_is_not_whole_is_dropped_at_once() {
    let stage = stage().await;
    let never = stream::once(async { Ok(Frame::data(Bytes::from("first of many"))) })
        .chain(stream::pending::<Result<_, std::io::Error>>());
    let request = Request::post("/run/me/app/upload").body(StreamBody::new(never)).unwrap();
    let address = stage.gateway.address();
    let asking = tokio::spawn(async move { send(address, request).await });
    let seen = &stage.upstream.seen;
    until("the app to be asked", || (seen.requests.load(Ordering::SeqCst) == 1).then_some(()))
        .await;
    asking.abort();
    assert_eq!(outcome(&stage.host).await, Outcome::CallerGone);
    assert_eq!(*seen.uris.lock().unwrap(), ["POST /upload"]);
}

#[tokio::test]
async fn what_was_left_behind_ends_with_its_runner_and_with_its_time() {
    let stage = stage().await;
    ask_and_leave(&stage, "/run/me/app/hang").await;
    asked(&stage, "POST /hang/cancel").await;
    stage.upstream.close_connections().await;
    assert_eq!(outcome(&stage.host).await, Outcome::Disconnected);

    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Public, Plan::Revocable(upstream.address.clone()));
    let stage = Stage { gateway: gateway(&host), host, upstream };
    ask_and_leave(&stage, "/run/me/app/hang").await;
    asked(&stage, "POST /hang/cancel").await;
    stage.host.revoke(&Refusal::RequestTimeout { seconds: 7 });
    assert_eq!(outcome(&stage.host).await, Outcome::Disconnected);
    let seen = &stage.upstream.seen;
    until("the app to notice", || (seen.dropped.load(Ordering::SeqCst) == 1).then_some(())).await;
}

#[tokio::test]
async fn a_gateway_that_closes_does_not_wait_for_what_was_left_behind() {
    let stage = stage().await;
    ask_and_leave(&stage, "/run/me/app/hang").await;
    asked(&stage, "POST /hang/cancel").await;
    let Stage { host, gateway, upstream: _upstream } = stage;
    bounded("the gateway to close", gateway.shutdown(BOUND)).await;
    assert_eq!(host.outcomes(), [Outcome::CallerGone]);
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
