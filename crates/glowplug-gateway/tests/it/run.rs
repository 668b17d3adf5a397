//! `/run`: what the app gets, what the caller gets, and what the host is told.

use std::sync::Arc;

use glowplug_core::request::{Answer, Outcome};
use glowplug_gateway::host::Access;
use serde_json::json;

use crate::client::{ask, ask_json, get, post, with};
use crate::host::{KEY, Plan, TableHost, gateway};
use crate::stage::{answered, assert_problem, outcome, stage};
use crate::upstream::Upstream;
use crate::wait::until;

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
async fn an_apps_orders_are_obeyed_and_hidden() {
    let stage = stage().await;
    for status in [200, 429, 500, 503] {
        let path = format!("/run/me/app/orders?status={status}");
        let (got, headers, body) = ask(stage.gateway.address(), get(&path)).await;
        assert_eq!((got, &body[..]), (status, &b"orders"[..]));
        for hidden in ["x-fal-stop-runner", "x-fal-runner-health-check"] {
            assert!(!headers.contains_key(hidden), "{hidden}");
        }
        // The app's own word is taken out; ours says whether the queue would have tried again.
        let again = headers.get("x-fal-needs-retry").map(|value| value.to_str().unwrap());
        assert_eq!(again, (status >= 429).then_some("1"), "{status}");
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
async fn temporary_failures_of_an_app_say_so_to_direct_callers() {
    let stage = stage().await;
    let cases = [
        ("status=200", None),
        ("status=404", None),
        ("status=422&needs_retry=1", None),
        ("status=429", None),
        ("status=429&needs_retry=1", Some("1")),
        ("status=500", None),
        ("status=500&needs_retry=1", Some("1")),
        ("status=502", None),
        ("status=503", Some("1")),
        ("status=503&needs_retry=0", None),
        ("status=504", Some("1")),
    ];
    for (query, expected) in cases {
        let path = format!("/run/me/app/answer?{query}");
        let (_, headers, _) = ask(stage.gateway.address(), get(&path)).await;
        let again = headers.get("x-fal-needs-retry").map(|value| value.to_str().unwrap());
        assert_eq!(again, expected, "{query}");
    }
}

#[tokio::test]
async fn hints_reach_the_host() {
    let stage = stage().await;
    for hint in [None, Some("model-a")] {
        let fields: Vec<_> = hint.into_iter().map(|hint| ("x-fal-runner-hint", hint)).collect();
        ask(stage.gateway.address(), with(get("/run/me/app"), &fields)).await;
    }
    let arrivals = stage.host.arrivals.lock().unwrap();
    let hints: Vec<_> = arrivals.iter().map(|arrival| arrival.hint.as_deref()).collect();
    assert_eq!(hints, [None, Some("model-a")]);
}
