//! HTTP over a websocket: calls, one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::SinkExt;
use glowplug_core::request::{Outcome, Refusal};
use glowplug_gateway::Options;
use glowplug_gateway::host::Access;
use glowplug_gateway::options::SocketOptions;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::client::{get, send, with};
use crate::host::{KEY, KEY_ID, Plan, TableHost, gateway, gateway_with};
use crate::socket::{FIELDS, Socket, closed, hear, hear_text, open, say};
use crate::stage::{answered, outcome, stage};
use crate::upstream::{self, Upstream};
use crate::wait::{bounded, until};

/// An answer as it comes.
struct Answer {
    start: Value,
    body: Vec<u8>,
}

async fn answer(socket: &mut Socket) -> Answer {
    let start: Value = serde_json::from_str(&hear_text(socket).await).unwrap();
    assert_eq!(start["type"], "start", "{start}");
    assert_eq!(start["request_id"].as_str().unwrap().len(), 36);
    let mut body = Vec::new();
    loop {
        match hear(socket).await {
            Message::Binary(bytes) => body.extend_from_slice(&bytes),
            Message::Text(text) => {
                let end: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(
                    (&end["type"], &end["request_id"]),
                    (&json!("end"), &start["request_id"])
                );
                assert!(end["time_to_first_byte_seconds"].as_f64().unwrap() >= 0.0);
                return Answer { start, body };
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn call(socket: &mut Socket, payload: &str) -> Answer {
    say(socket, payload).await;
    answer(socket).await
}

#[tokio::test]
async fn each_message_is_a_call_of_its_own() {
    let stage = stage().await;
    let mut socket = open(stage.gateway.address(), "/ws/me/app/x/y?a=1&fal_jwt_token=t").await;
    assert!(stage.host.arrivals.lock().unwrap().is_empty(), "no place is held between calls");
    let mut ids = Vec::new();
    for round in 1..=3 {
        let Answer { start, body } = call(&mut socket, r#"{"n":1}"#).await;
        assert_eq!(start["status"], 200);
        assert_eq!(start["headers"]["content-type"], "application/json");
        let seen: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&seen["method"], &seen["uri"]), (&json!("POST"), &json!("/x/y?a=1")));
        assert_eq!(seen["body"], r#"{"n":1}"#);
        let headers = seen["headers"].to_string();
        let id = start["request_id"].as_str().unwrap().to_owned();
        assert!(headers.contains(&format!("x-fal-request-id: {id}")), "{headers}");
        assert!(headers.contains("content-type: application/json"), "{headers}");
        assert!(headers.contains("x-fal-endpoint: me/app/x/y"), "{headers}");
        for hidden in ["upgrade", "sec-websocket", "fal_jwt_token"] {
            assert!(!headers.contains(hidden), "{hidden}: {headers}");
        }
        ids.push(id);
        assert_eq!(stage.host.outcomes().len(), round);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    bounded("the close", socket.close(None)).await.unwrap();
    assert_eq!(hear(&mut socket).await, Message::Close(None));
    assert_eq!(stage.host.outcomes(), [answered(200), answered(200), answered(200)]);
}

#[tokio::test]
async fn bytes_and_headers_of_the_upgrade_are_the_calls() {
    let host = Arc::new(TableHost::default());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    let gateway = gateway(&host);
    let key = format!("Key {KEY}");
    let own = [
        &FIELDS[..],
        &[("authorization", key.as_str()), ("x-own", "kept"), ("x-fal-runner-hint", "warm")],
    ]
    .concat();
    let response = send(gateway.address(), with(get("/ws/me/app"), &own)).await;
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let upgraded = bounded("the upgrade", hyper::upgrade::on(response)).await.unwrap();
    let mut socket = Socket::from_raw_socket(
        hyper_util::rt::TokioIo::new(upgraded),
        tokio_tungstenite::tungstenite::protocol::Role::Client,
        None,
    )
    .await;
    let payload = Message::binary(b"\x00\x01".to_vec());
    bounded("it to be sent", socket.send(payload)).await.unwrap();
    let seen: Value = serde_json::from_slice(&answer(&mut socket).await.body).unwrap();
    let headers = seen["headers"].to_string();
    assert!(headers.contains("content-type: application/octet-stream"), "{headers}");
    assert!(headers.contains("x-own: kept"), "{headers}");
    assert!(headers.contains(&format!("x-fal-caller-user-id: {KEY_ID}")), "{headers}");
    assert!(!headers.contains("authorization"), "{headers}");
    let arrivals = host.arrivals.lock().unwrap();
    assert_eq!(arrivals[0].hint.as_deref(), Some("warm"));
    assert_eq!(arrivals[0].caller, KEY_ID);
}

#[tokio::test]
async fn errors_are_answers() {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    host.add("me/none", Access::Private, Plan::Now(upstream::nobody()));
    host.add("me/full", Access::Private, Plan::Refuse(Refusal::QueueFull { limit: 3 }));
    let gateway = gateway(&host);
    for (path, status, error_type) in
        [("/ws/me/none", 503, "runner_connection_refused"), ("/ws/me/full", 429, "queue_full")]
    {
        let mut socket = open(gateway.address(), path).await;
        for _ in 0..2 {
            let Answer { start, body } = call(&mut socket, "{}").await;
            assert_eq!(start["status"], status);
            assert_eq!(start["headers"]["x-fal-error-type"], error_type);
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["error_type"], error_type);
        }
    }
    let mut socket = open(gateway.address(), "/ws/me/app/answer?status=422").await;
    let Answer { start, body } = call(&mut socket, "{}").await;
    assert_eq!((&start["status"], body.as_slice()), (&json!(422), &b"at last"[..]));
}

#[tokio::test]
async fn streams_come_as_they_are_made() {
    let stage = stage().await;
    let mut socket = open(stage.gateway.address(), "/ws/me/app/events").await;
    say(&mut socket, "{}").await;
    let start: Value = serde_json::from_str(&hear_text(&mut socket).await).unwrap();
    assert_eq!(start["headers"]["content-type"], "text/event-stream");
    let first = hear(&mut socket).await.into_data();
    assert_eq!(first, "data: {\"n\":0}\n\n", "the second does not exist yet");
    stage.upstream.seen.go_on.notify_one();
    assert_eq!(hear(&mut socket).await.into_data(), "data: {\"n\":1}\n\n");
    let end: Value = serde_json::from_str(&hear_text(&mut socket).await).unwrap();
    assert_eq!(end["type"], "end");
}

#[tokio::test]
async fn calls_wait_for_the_one_before() {
    let stage = stage().await;
    let mut socket = open(stage.gateway.address(), "/ws/me/app/hang").await;
    // More than wait at the gateway: the rest waits in the connection.
    for _ in 0..40 {
        say(&mut socket, "{}").await;
    }
    let seen = &stage.upstream.seen;
    for round in 1..=40 {
        until("the next call", || (seen.requests.load(Ordering::SeqCst) == round).then_some(()))
            .await;
        assert_eq!(stage.host.arrivals.lock().unwrap().len(), round);
        seen.go_on.notify_one();
        assert_eq!(answer(&mut socket).await.body, b"at last");
    }
}

#[tokio::test]
async fn a_caller_that_leaves_ends_its_call() {
    let stage = stage().await;
    let seen = &stage.upstream.seen;
    for round in 1..=2 {
        let mut socket = open(stage.gateway.address(), "/ws/me/app/stoppable").await;
        say(&mut socket, "{}").await;
        let last = |expected: &'static str| {
            let uris = &seen.uris;
            move || (uris.lock().unwrap().last()? == expected).then_some(())
        };
        until("the call", last("POST /stoppable")).await;
        if round == 1 {
            drop(socket);
        } else {
            bounded("the close", socket.close(None)).await.unwrap();
            assert_eq!(hear(&mut socket).await, Message::Close(None));
        }
        until("the outcome", || (stage.host.outcomes().len() == round).then_some(())).await;
        until("the app to be told", last("POST /stoppable/cancel")).await;
    }
    assert_eq!(stage.host.outcomes(), [Outcome::CallerGone, Outcome::CallerGone]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_closes_the_socket() {
    let host = Arc::new(TableHost::open());
    let broken = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this";
    host.add("me/app", Access::Private, Plan::Now(upstream::raw(broken).await));
    let gateway = gateway(&host);
    let mut socket = open(gateway.address(), "/ws/me/app").await;
    say(&mut socket, "{}").await;
    let mut message = hear(&mut socket).await;
    if message.is_text() && message.to_text().unwrap().contains(r#""status":502"#) {
        // It broke before any of it was passed on.
        return;
    }
    while !message.is_close() {
        assert!(!message.to_text().is_ok_and(|text| text.contains(r#""type":"end""#)));
        message = hear(&mut socket).await;
    }
    let Message::Close(Some(frame)) = message else { panic!("{message:?}") };
    assert_eq!(u16::from(frame.code), 1011);
    assert_eq!(outcome(&host).await, Outcome::Disconnected);
}

#[tokio::test]
async fn an_idle_socket_closes_but_not_while_it_is_answered() {
    let stage = stage().await;
    let short = Duration::from_millis(200);
    let sockets =
        SocketOptions { idle_timeout: short, ping_interval: short, ..SocketOptions::default() };
    let gateway = gateway_with(&stage.host, Options { sockets, ..Options::default() });
    let mut socket = open(gateway.address(), "/ws/me/app/hang").await;
    say(&mut socket, "{}").await;
    let seen = &stage.upstream.seen;
    until("the call", || (seen.requests.load(Ordering::SeqCst) == 1).then_some(())).await;
    for _ in 0..3 {
        let ping = bounded("a ping", futures::StreamExt::next(&mut socket)).await;
        assert!(matches!(ping, Some(Ok(Message::Ping(_)))), "{ping:?}");
    }
    seen.go_on.notify_one();
    assert_eq!(answer(&mut socket).await.body, b"at last");
    assert_eq!(closed(&mut socket).await.0, 1000);
}
