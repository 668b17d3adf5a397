//! Attempts of queued requests, as the node runs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use glowplug_core::request::{Answer, Outcome};
use glowplug_core::{RequestId, RunnerAddress, Timestamp};
use glowplug_gateway::Forwarder;
use glowplug_gateway::attempt::{AttemptRequest, attempt, cancel};
use glowplug_gateway::options::ForwardOptions;
use serde_json::{Value, json};

use crate::upstream::{self, Upstream};
use crate::wait::until;

const ID: RequestId = RequestId(0x0192_f0a1_0000_7abc_8def_0123_4567_89ab);
const ANSWER_BYTES_MAX: usize = 100_000;

/// Its clock moves on by 10 ms each time it is read.
fn forwarder() -> Arc<Forwarder> {
    let options =
        ForwardOptions { answer_bytes_max: ANSWER_BYTES_MAX, ..ForwardOptions::default() };
    let reads = AtomicU64::new(0);
    let clock = move || Timestamp::from_micros(reads.fetch_add(10_000, Ordering::SeqCst));
    Forwarder::new(options, Arc::new(clock))
}

fn request(path: &str) -> AttemptRequest {
    AttemptRequest {
        method: "POST".to_owned(),
        path: path.to_owned(),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: Bytes::from_static(b"{\"a\":1}"),
        request_id: ID,
        endpoint: "me/app".to_owned(),
        caller: "tester".to_owned(),
    }
}

#[tokio::test]
async fn an_attempt_brings_the_whole_answer() {
    let upstream = Upstream::tcp().await;
    let address = Arc::new(upstream.address.clone());
    let forwarder = forwarder();
    let result = attempt(&forwarder, &address, request("sub?x=1")).await;
    assert_eq!(result.outcome, Outcome::Answered(Answer { status: 200, ..Answer::default() }));
    let response = result.response.unwrap();
    let seen: Value = serde_json::from_slice(&response.body).unwrap();
    let expected = json!({
        "method": "POST",
        "uri": "/sub?x=1",
        "headers": [
            "content-length: 7",
            "content-type: application/json",
            "host: localhost",
            "x-fal-caller-user-id: tester",
            "x-fal-endpoint: me/app/sub",
            format!("x-fal-request-id: {ID}"),
        ],
        "body": "{\"a\":1}",
    });
    assert_eq!(seen, expected);
    assert!(response.headers.contains(&("content-type".to_owned(), "application/json".to_owned())));

    let result = attempt(&forwarder, &address, request("orders?status=503")).await;
    let orders = Answer {
        status: 503,
        needs_retry: Some(true),
        stop_runner: Some(false),
        check_health: true,
        hints: None,
    };
    assert_eq!(result.outcome, Outcome::Answered(orders));
    let response = result.response.unwrap();
    assert!(
        response.headers.iter().all(|(name, _)| !name.contains("retry") && !name.contains("stop"))
    );

    let result = attempt(&forwarder, &address, request("big?chunks=10&bytes=1000")).await;
    assert_eq!(result.response.unwrap().body.len(), 10_000);
    assert_eq!(upstream.connections(), 2, "one more, after the 503");
}

#[tokio::test]
async fn attempts_that_bring_nothing_say_why() {
    let upstream = Upstream::tcp().await;
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart";
    let ok = |address: &RunnerAddress| Arc::new(address.clone());
    let failed = Outcome::Answered(Answer { status: 500, ..Answer::default() });
    let cases = [
        (Arc::new(upstream::nobody()), "", Outcome::ConnectFailed, "runner_connection_refused"),
        (Arc::new(upstream::raw(b"").await), "", Outcome::Disconnected, "runner_disconnected"),
        (
            Arc::new(upstream::raw(half).await),
            "",
            Outcome::Disconnected,
            "runner_incomplete_response",
        ),
        (ok(&upstream.address), "big?chunks=11&bytes=10000", failed.clone(), "runner_server_error"),
        (ok(&upstream.address), "length?bytes=100001", failed.clone(), "runner_server_error"),
        (ok(&upstream.address), "headers?bytes=17000", failed.clone(), "runner_server_error"),
        (ok(&upstream.address), "a b", failed, "internal_error"),
    ];
    for (address, path, outcome, error_type) in cases {
        let result = attempt(&forwarder(), &address, request(path)).await;
        assert_eq!(result.outcome, outcome, "{path} {error_type}");
        assert!(result.response.is_none());
        assert_eq!(result.error.unwrap().kind.as_str(), error_type);
    }
}

#[tokio::test]
async fn a_dropped_attempt_closes_its_connection() {
    let upstream = Upstream::tcp().await;
    let address = Arc::new(upstream.address.clone());
    let forwarder = forwarder();
    let running = tokio::spawn(async move { attempt(&forwarder, &address, request("hang")).await });
    let seen = &upstream.seen;
    until("the app to be asked", || (seen.requests.load(Ordering::SeqCst) == 1).then_some(()))
        .await;
    running.abort();
    until("the app to notice", || (seen.dropped.load(Ordering::SeqCst) == 1).then_some(())).await;
}

#[tokio::test]
async fn cancelling_posts_below_the_original_path() {
    let upstream = Upstream::tcp().await;
    let address = Arc::new(upstream.address.clone());
    let forwarder = forwarder();
    assert_eq!(cancel(&forwarder, &address, "sub?x=1", ID).await.unwrap(), 200);
    assert_eq!(cancel(&forwarder, &address, "", ID).await.unwrap(), 200);
    let seen = upstream.seen.uris.lock().unwrap().clone();
    assert_eq!(seen, ["POST /sub/cancel", "POST /cancel"]);
    let nobody = Arc::new(upstream::nobody());
    assert!(cancel(&forwarder, &nobody, "sub", ID).await.is_err());
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced() {
    let upstream = Upstream::tcp().await;
    let address = Arc::new(upstream.address.clone());
    let forwarder = forwarder();
    for round in 1..=5 {
        let result = attempt(&forwarder, &address, request("x")).await;
        assert!(result.error.is_none(), "{:?} in round {round}", result.error);
        assert_eq!(upstream.connections(), round);
        upstream.close_connections().await;
    }
    attempt(&forwarder, &address, request("x")).await;
    forwarder.forget(&address);
    attempt(&forwarder, &address, request("x")).await;
    assert_eq!(upstream.connections(), 7);
}
