//! `/run`: what the app gets, what the caller gets, and what the host is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::{StreamExt, stream};
use glowplug_core::request::{Answer, Outcome, Refusal};
use glowplug_gateway::host::Access;
use glowplug_gateway::{Gateway, Options};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};

use crate::client::{ask, ask_json, get, post, raw, send, with};
use crate::host::{KEY, Plan, TableHost, gateway, gateway_with};
use crate::upstream::{self, Upstream};
use crate::wait::{bounded, until};

struct Stage {
    host: Arc<TableHost>,
    gateway: Gateway,
    upstream: Upstream,
}

/// An open node with the app `me/app` on a real runner.
async fn stage() -> Stage {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    let gateway = gateway(&host);
    Stage { host, gateway, upstream }
}

fn answered(status: u16) -> Outcome {
    Outcome::Answered(Answer { status, ..Answer::default() })
}

async fn outcome(host: &TableHost) -> Outcome {
    until("an outcome", || host.outcomes().pop()).await
}

fn assert_problem(answer: &(u16, http::HeaderMap, Value), status: u16, error_type: &str) {
    let (got, headers, body) = answer;
    assert_eq!(*got, status, "{body}");
    assert_eq!(body["error_type"], error_type, "{body}");
    assert_eq!(headers["x-fal-error-type"], error_type);
    assert!(!body["detail"].as_str().unwrap().is_empty());
    assert_eq!(headers["x-fal-request-id"].len(), 36);
    assert_eq!(headers["content-type"], "application/json");
}

#[tokio::test]
async fn a_request_reaches_its_app_and_the_answer_its_caller() {
    let stage = stage().await;
    let address = stage.gateway.address();
    let request = with(
        post("/run/me/app/sub/path?a=1&b=%20", r#"{"prompt":"x"}"#),
        &[
            ("host", "example.test"),
            ("accept", "application/json"),
            ("authorization", "Key some:secret"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("x-fal-caller-user-id", "forged"),
            ("x-fal-request-id", "forged"),
            ("x-fal-runner-hint", "a"),
            ("x-own", "kept"),
        ],
    );
    let (status, headers, body) = ask_json(address, request).await;
    assert_eq!(status, 200);
    let id = headers["x-fal-request-id"].to_str().unwrap();
    let expected = json!({
        "method": "POST",
        "uri": "/sub/path?a=1&b=%20",
        "headers": [
            "accept: application/json",
            "content-length: 14",
            "host: example.test",
            "x-fal-endpoint: me/app/sub/path",
            format!("x-fal-request-id: {id}"),
            "x-own: kept",
        ],
        "body": r#"{"prompt":"x"}"#,
    });
    assert_eq!(body, expected);
    assert_eq!(outcome(&stage.host).await, answered(200));
    assert_eq!(stage.host.arrivals.lock().unwrap()[0].request.to_string(), id);
}

#[tokio::test]
async fn any_method_and_path_is_passed_on() {
    let stage = stage().await;
    let cases = [
        ("GET", "/run/me/app", "/"),
        ("GET", "/run/me/app?x", "/?x"),
        ("GET", "/run/me/app/", "/"),
        ("PUT", "/run/me/app//a/../b", "//a/../b"),
        ("DELETE", "/run/me/app/a?b=c?d", "/a?b=c?d"),
        ("PATCH", "/run/me/app/%2e%2e", "/%2e%2e"),
        ("BREW", "/run/me/app/pot", "/pot"),
        ("OPTIONS", "/run/me/app/x", "/x"),
    ];
    for (method, path, expected) in cases {
        let mut request = get(path);
        *request.method_mut() = method.parse().unwrap();
        let (status, _, body) = ask_json(stage.gateway.address(), request).await;
        assert_eq!(
            (status, &body["uri"], &body["method"]),
            (200, &json!(expected), &json!(method))
        );
    }
    let mut head = get("/run/me/app");
    *head.method_mut() = http::Method::HEAD;
    let (status, headers, body) = ask(stage.gateway.address(), head).await;
    assert_eq!((status, body.len()), (200, 0));
    assert!(headers["content-length"].to_str().unwrap().parse::<usize>().unwrap() > 100);
    until("nine outcomes", || (stage.host.outcomes().len() == 9).then_some(())).await;
    assert!(stage.host.outcomes().iter().all(|outcome| *outcome == answered(200)));
}

#[tokio::test]
async fn a_unix_socket_serves_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::unix(&folder.path().join("runner.sock"));
    let host = Arc::new(TableHost::open());
    host.add("me/app", Access::Public, Plan::Now(upstream.address.clone()));
    let gateway = gateway(&host);
    for _ in 0..3 {
        let (status, _, body) = ask_json(gateway.address(), post("/run/me/app/x", "hi")).await;
        assert_eq!((status, body["body"].as_str()), (200, Some("hi")));
    }
    assert_eq!(host.outcomes().len(), 3);
}

#[tokio::test]
async fn runner_connections_are_reused() {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Public, Plan::Now(upstream.address.clone()));
    let gateway = gateway(&host);
    let client = reqwest::Client::new();
    let url = format!("http://{}/run/me/app", gateway.address());
    for round in 0..20 {
        let kind = ["", "/big?chunks=3&bytes=1000", "/length?bytes=0", "/length?bytes=900000"];
        let url = format!("{url}{}", kind[round % kind.len()]);
        let response = client.post(url).body("x").send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap();
    }
    assert_eq!(upstream.connections(), 1);
    // After a server error the runner may close its side at any moment.
    for expected in [500, 200] {
        let response = client.post(format!("{url}/orders?status={expected}")).send().await.unwrap();
        assert_eq!(response.status(), expected);
        response.bytes().await.unwrap();
    }
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn large_bodies_stream_both_ways() {
    const BYTES: usize = 48 * 1024 * 1024;
    let stage = stage().await;
    let pieces = stream::iter(0..BYTES / 65_536)
        .map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b'y'; 65_536]))));
    let request = Request::post("/run/me/app/upload").body(StreamBody::new(pieces)).unwrap();
    let response = send(stage.gateway.address(), request).await;
    let body = bounded("the count", response.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(body, BYTES.to_string());

    let (status, _, body) =
        ask(stage.gateway.address(), get("/run/me/app/big?chunks=768&bytes=65536")).await;
    assert_eq!((status, body.len()), (200, BYTES));
    assert_eq!(stage.host.outcomes().len(), 2);
}

#[tokio::test]
async fn a_caller_that_does_not_read_holds_the_app_back() {
    let stage = stage().await;
    let made = &stage.upstream.seen.bytes_made;
    let path = "/run/me/app/big?chunks=4096&bytes=65536";
    let mut response = send(stage.gateway.address(), get(path)).await;
    response.frame().await.unwrap().unwrap();
    // The buffers on the way fill up, then nothing moves: the same count twice in a row.
    let mut before = usize::MAX;
    let held = until("the app to be held back", || {
        let now = made.load(Ordering::SeqCst);
        std::thread::sleep(std::time::Duration::from_millis(50));
        (std::mem::replace(&mut before, now) == now).then_some(now)
    });
    let held = held.await;
    assert!(held < 64 * 1024 * 1024, "{held} bytes were made for a caller that reads nothing");
    let rest = bounded("the rest", response.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(made.load(Ordering::SeqCst), 4_096 * 65_536);
    assert!(rest.len() > held / 2);
}

#[tokio::test]
async fn a_runner_may_answer_while_it_still_reads() {
    let stage = stage().await;
    let (pieces, body) = tokio::sync::mpsc::channel(1);
    let body = tokio_stream::wrappers::ReceiverStream::new(body)
        .map(|piece: &'static str| Ok::<_, std::io::Error>(Frame::data(Bytes::from(piece))));
    let request = Request::post("/run/me/app/duplex").body(StreamBody::new(body)).unwrap();
    pieces.send("one").await.unwrap();
    let mut response = send(stage.gateway.address(), request).await;
    for piece in ["one", "two", "three"] {
        if piece != "one" {
            pieces.send(piece).await.unwrap();
        }
        let frame = bounded("the echo", response.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
    drop(pieces);
    assert!(bounded("the end", response.frame()).await.is_none());
    assert_eq!(outcome(&stage.host).await, answered(200));
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let stage = stage().await;
    let mut response = send(stage.gateway.address(), post("/run/me/app/events", "{}")).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let first = bounded("the first event", response.frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "data: {\"n\":0}\n\n");
    assert!(stage.host.outcomes().is_empty());
    stage.upstream.seen.go_on.notify_one();
    let second = bounded("the second event", response.frame()).await.unwrap().unwrap();
    assert_eq!(second.into_data().unwrap(), "data: {\"n\":1}\n\n");
    assert!(bounded("the end", response.frame()).await.is_none());
    assert_eq!(outcome(&stage.host).await, answered(200));
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let stage = stage().await;
    let mut sum = http::HeaderMap::new();
    sum.insert("x-sum", "42".parse().unwrap());
    let frames =
        [Ok::<_, std::io::Error>(Frame::data(Bytes::from("data"))), Ok(Frame::trailers(sum))];
    let request = Request::post("/run/me/app/trailers")
        .header("trailer", "x-sum")
        .header("te", "trailers")
        .body(StreamBody::new(stream::iter(frames)))
        .unwrap();
    let response = send(stage.gateway.address(), request).await;
    let collected = bounded("the body", response.into_body().collect()).await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "42");
    assert_eq!(collected.to_bytes(), "body");
}

#[tokio::test]
async fn a_caller_that_expects_it_is_told_to_continue() {
    let stage = stage().await;
    let request = "POST /run/me/app HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n\
                   connection: close\r\ncontent-length: 2\r\n\r\nhi";
    let answer = raw(stage.gateway.address(), request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(!answer.contains("expect:"), "{answer}");
}

#[tokio::test]
async fn an_app_may_answer_before_it_has_read_the_request() {
    let stage = stage().await;
    let never = stream::once(async { Ok(Frame::data(Bytes::from("first of many"))) })
        .chain(stream::pending::<Result<_, std::io::Error>>());
    let request = Request::post("/run/me/app/early").body(StreamBody::new(never)).unwrap();
    let response = send(stage.gateway.address(), request).await;
    assert_eq!(response.status(), 200);
    let body = bounded("the body", response.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(body, "early");
    assert_eq!(outcome(&stage.host).await, answered(200));
    // The connection that was in the middle of a request is not used again.
    assert_eq!(ask(stage.gateway.address(), get("/run/me/app/early")).await.0, 200);
    assert_eq!(stage.upstream.connections(), 2);
}

#[tokio::test]
async fn an_apps_orders_are_obeyed_and_hidden() {
    let stage = stage().await;
    for status in [200, 429, 500, 503] {
        let path = format!("/run/me/app/orders?status={status}");
        let (got, headers, body) = ask(stage.gateway.address(), get(&path)).await;
        assert_eq!((got, &body[..]), (status, &b"orders"[..]));
        for hidden in ["x-fal-needs-retry", "x-fal-stop-runner", "x-fal-runner-health-check"] {
            assert!(!headers.contains_key(hidden), "{hidden}");
        }
        assert_eq!(headers["x-fal-billable-units"], "2");
        assert_eq!(headers["x-fal-request-id"].len(), 36);
        let expected = Answer {
            status,
            needs_retry: Some(true),
            stop_runner: Some(false),
            check_health: true,
            hints: None,
        };
        assert_eq!(stage.host.outcomes().pop(), Some(Outcome::Answered(expected)));
    }
}

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

#[tokio::test]
async fn refusals_have_their_status() {
    let reason = || "no".to_owned();
    let cases = [
        (Refusal::StartDeadline, 504, "request_timeout"),
        (Refusal::StartFailed { reason: reason() }, 503, "app_broken"),
        (Refusal::StartupTimeout { seconds: 5 }, 504, "startup_timeout"),
        (Refusal::Unschedulable { reason: reason() }, 503, "runner_scheduling_failure"),
        (Refusal::AppRemoved, 404, "app_not_found"),
        (Refusal::Cancelled, 499, "client_cancelled"),
        (Refusal::QueueFull { limit: 3 }, 429, "queue_full"),
        (Refusal::RequestTimeout { seconds: 3 }, 504, "request_timeout"),
        (Refusal::RunnerLost, 503, "runner_disconnected"),
        (Refusal::ShuttingDown, 503, "shutting_down"),
    ];
    for (refusal, status, error_type) in cases {
        let host = Arc::new(TableHost::open());
        host.add("me/app", Access::Public, Plan::Refuse(refusal.clone()));
        let gateway = gateway(&host);
        let answer = ask_json(gateway.address(), post("/run/me/app", "x")).await;
        assert_problem(&answer, status, error_type);
        let user = (refusal == Refusal::StartDeadline).then_some("user");
        let sent = answer.1.get("x-fal-request-timeout-type").map(|value| value.to_str().unwrap());
        assert_eq!(sent, user, "{refusal:?}");
        assert!(host.outcomes().is_empty());
    }
}

#[tokio::test]
async fn start_deadlines_reach_the_host() {
    let stage = stage().await;
    let cases = [("x-fal-request-start-timeout", "2"), ("x-fal-request-timeout", "30.0")];
    for (name, value) in cases {
        ask(stage.gateway.address(), with(get("/run/me/app"), &[(name, value)])).await;
    }
    let deadlines: Vec<_> =
        stage.host.arrivals.lock().unwrap().iter().map(|a| a.start_deadline).collect();
    let at = |seconds: u64| Some(glowplug_core::Timestamp::from_secs(1_700_000_000 + seconds));
    assert_eq!(deadlines, [at(2), at(30)]);
    let bad = with(get("/run/me/app"), &[("x-fal-request-timeout", "soon")]);
    let answer = ask_json(stage.gateway.address(), bad).await;
    assert_problem(&answer, 400, "bad_request");
}

#[tokio::test]
async fn keys_open_private_apps() {
    let host = Arc::new(TableHost::default());
    let upstream = Upstream::tcp().await;
    host.add("me/private", Access::Private, Plan::Now(upstream.address.clone()));
    host.add("me/public", Access::Public, Plan::Now(upstream.address.clone()));
    let gateway = gateway(&host);
    let address = gateway.address();
    let key = format!("Key {KEY}");
    let bearer = format!("Bearer {KEY}");
    let own = "authorization: Bearer the.apps.own";
    let cases: &[(&str, Option<&str>, u16, Option<&str>)] = &[
        ("/run/me/private", None, 401, None),
        ("/run/me/private", Some("Key wrong:key"), 401, None),
        ("/run/me/private", Some("Basic abc"), 401, None),
        ("/run/me/private", Some(&key), 200, Some("x-fal-caller-user-id: tester")),
        ("/run/me/private", Some(&bearer), 200, Some("x-fal-caller-user-id: tester")),
        ("/run/me/public", None, 200, None),
        ("/run/me/public", Some("Key wrong:key"), 200, None),
        ("/run/me/public", Some(&key), 200, Some("x-fal-caller-user-id: tester")),
        ("/run/me/public", Some("Bearer the.apps.own"), 200, Some(own)),
    ];
    for (path, authorization, status, field) in cases {
        let mut request = get(path);
        if let Some(value) = authorization {
            request.headers_mut().insert("authorization", value.parse().unwrap());
        }
        let answer = ask_json(address, request).await;
        assert_eq!(answer.0, *status, "{path} {authorization:?}");
        if *status == 401 {
            assert_problem(&answer, 401, "unauthorized");
            assert_eq!(answer.1["www-authenticate"], "Key");
            continue;
        }
        let seen =
            answer.2["headers"].as_array().unwrap().iter().map(|field| field.as_str().unwrap());
        let about: Vec<_> = seen
            .filter(|field| field.starts_with("authorization") || field.contains("caller"))
            .collect();
        assert_eq!(about, field.iter().copied().collect::<Vec<_>>(), "{path} {authorization:?}");
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
