//! `/run`: what a caller is told when there is no answer of its app.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use glowplug_core::request::{Outcome, Refusal};
use glowplug_gateway::Options;
use glowplug_gateway::host::Access;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use crate::client::{ask, ask_json, get, post, send, with};
use crate::host::{KEY, Plan, TableHost, gateway, gateway_with};
use crate::stage::{answered, assert_problem, outcome, stage};
use crate::upstream::{self, Upstream};
use crate::wait::bounded;

#[tokio::test]
async fn unreachable_runners_are_reported() {
    let host = Arc::new(TableHost::open());
    host.add("me/app", Access::Public, Plan::Now(upstream::nobody()));
    let gateway = gateway(&host);
    let answer = ask_json(gateway.address(), post("/run/me/app", "x")).await;
    assert_problem(&answer, 503, "runner_connection_refused");
    assert_eq!(answer.1["x-fal-needs-retry"], "1");
    assert_eq!(host.outcomes(), [Outcome::ConnectFailed]);
}

#[tokio::test]
async fn broken_answers_become_clear_errors() {
    let cases: [(&'static [u8], u16, &str); 6] = [
        (b"", 503, "runner_disconnected"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", 503, "runner_disconnected"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart", 502, "runner_incomplete_response"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 502, "runner_incomplete_response"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", 502, "runner_incomplete_response"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            502,
            "runner_incomplete_response",
        ),
    ];
    for (bytes, status, error_type) in cases {
        let host = Arc::new(TableHost::open());
        host.add("me/app", Access::Public, Plan::Now(upstream::raw(bytes).await));
        let gateway = gateway(&host);
        let response = send(gateway.address(), post("/run/me/app", "x")).await;
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(outcome(&host).await, Outcome::Disconnected, "{text}");
        let cut = response.status() == 200;
        let (head, body) = response.into_parts();
        let body = bounded("the body", body.collect()).await;
        if cut {
            // The head was passed on before the body broke: the caller sees a broken body.
            assert_eq!(error_type, "runner_incomplete_response");
            assert!(body.is_err(), "{text}");
        } else {
            let body = serde_json::from_slice(&body.unwrap().to_bytes()).unwrap();
            assert_eq!(head.headers["x-fal-needs-retry"], "1", "{text}");
            assert_problem(&(head.status.as_u16(), head.headers, body), status, error_type);
        }
    }
}

#[tokio::test]
async fn an_apps_header_block_has_a_limit() {
    let stage = stage().await;
    for (bytes, fits) in [(15_000, true), (17_000, false), (200_000, false)] {
        let path = format!("/run/me/app/headers?bytes={bytes}");
        let response = ask(stage.gateway.address(), get(&path)).await;
        if fits {
            assert_eq!(response.0, 200);
            continue;
        }
        let body = serde_json::from_slice(&response.2).unwrap();
        assert_problem(&(response.0, response.1, body), 500, "runner_server_error");
        assert_eq!(stage.host.outcomes().pop(), Some(answered(500)));
    }
}

#[tokio::test]
async fn refusals_have_their_status() {
    let reason = || "no".to_owned();
    let cases = [
        (Refusal::StartDeadline, 504, "request_timeout", false),
        (Refusal::StartFailed { reason: reason() }, 503, "app_broken", true),
        (Refusal::StartupTimeout { seconds: 5 }, 504, "startup_timeout", true),
        (Refusal::Unschedulable { reason: reason() }, 503, "runner_scheduling_failure", false),
        (Refusal::AppRemoved, 404, "app_not_found", false),
        (Refusal::Cancelled, 499, "client_cancelled", false),
        (Refusal::QueueFull { limit: 3 }, 429, "queue_full", false),
        (Refusal::RequestTimeout { seconds: 3 }, 504, "request_timeout", true),
        (Refusal::RunnerLost, 503, "runner_disconnected", true),
        (Refusal::ShuttingDown, 503, "shutting_down", true),
    ];
    for (refusal, status, error_type, temporary) in cases {
        let host = Arc::new(TableHost::open());
        host.add("me/app", Access::Public, Plan::Refuse(refusal.clone()));
        let gateway = gateway(&host);
        let answer = ask_json(gateway.address(), post("/run/me/app", "x")).await;
        assert_problem(&answer, status, error_type);
        let user = (refusal == Refusal::StartDeadline).then_some("user");
        let sent = answer.1.get("x-fal-request-timeout-type").map(|value| value.to_str().unwrap());
        assert_eq!(sent, user, "{refusal:?}");
        assert_eq!(answer.1.contains_key("x-fal-needs-retry"), temporary, "{refusal:?}");
        assert!(host.outcomes().is_empty());
    }
}

#[tokio::test]
async fn unknown_and_broken_apps_are_named() {
    let host = Arc::new(TableHost::default());
    host.add("me/app", Access::Private, Plan::Wait);
    host.break_app("me/broken", "no module named torch");
    let gateway = gateway(&host);
    let address = gateway.address();
    let known = with(get("/run/me/ap"), &[("authorization", &format!("Key {KEY}"))]);
    let answer = ask_json(address, known).await;
    assert_problem(&answer, 404, "app_not_found");
    assert_eq!(answer.2["detail"], "there is no app `me/ap`; did you mean `me/app`?");
    let answer = ask_json(address, get("/run/me/ap")).await;
    assert_eq!(answer.2["detail"], "there is no app `me/ap`");
    let answer = ask_json(address, get("/run/me/broken")).await;
    assert_problem(&answer, 503, "app_broken");
    assert!(answer.2["detail"].as_str().unwrap().contains("no module named torch"));
    for path in ["/run", "/run/me", "/run/me/", "/run/me/a%20b", "/run//app"] {
        assert_problem(&ask_json(address, get(path)).await, 404, "not_found");
    }
    let (status, headers, body) = ask(address, get("/elsewhere")).await;
    assert_eq!((status, &body[..]), (200, &b"fallback GET /elsewhere"[..]));
    assert_eq!(headers["x-fal-request-id"].len(), 36);
}

#[tokio::test]
async fn oversized_requests_are_refused() {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Public, Plan::Now(upstream.address.clone()));
    let options =
        Options { header_bytes_max: 8_192, run_body_bytes_max: 100_000, ..Options::default() };
    let gateway = gateway_with(&host, options);
    let address = gateway.address();

    let answer = ask_json(address, post("/run/me/app/upload", vec![0; 100_001])).await;
    assert_problem(&answer, 413, "payload_too_large");
    assert!(host.arrivals.lock().unwrap().is_empty(), "it never asked for a runner");
    let (status, _, body) = ask(address, post("/run/me/app/upload", vec![0; 100_000])).await;
    assert_eq!((status, &body[..]), (200, &b"100000"[..]));

    let pieces = stream::iter(0..200)
        .map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b'y'; 1_000]))));
    let request = Request::post("/run/me/app/upload").body(StreamBody::new(pieces)).unwrap();
    let (head, body) = send(address, request).await.into_parts();
    let body = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
    assert_problem(&(head.status.as_u16(), head.headers, body), 413, "payload_too_large");

    let long = "v".repeat(9_000);
    let answer = ask_json(address, with(get("/run/me/app"), &[("x-long", &long)])).await;
    assert_problem(&answer, 431, "headers_too_large");
    let longer = "v".repeat(60_000);
    let (status, _, _) = ask(address, with(get("/run/me/app"), &[("x-long", &longer)])).await;
    assert_eq!(status, 431);
}
