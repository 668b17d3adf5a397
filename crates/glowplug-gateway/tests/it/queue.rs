//! `/queue`: every code and body the clients rely on.

use std::sync::Arc;
use std::time::Duration;

use glowplug_core::request::{Priority, Refusal};
use glowplug_core::retry::Wish;
use glowplug_core::{RequestId, Timestamp};
use glowplug_gateway::host::{Access, Eta, QueueLog, QueueStatus, SubmitProblem};
use glowplug_gateway::{Gateway, Options};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::client::{ask, ask_json, get, post, send, with};
use crate::host::{KEY, KEY_ID, Plan, START_SECONDS, TableHost, gateway, gateway_with};
use crate::wait::bounded;

struct Stage {
    host: Arc<TableHost>,
    gateway: Gateway,
    id: RequestId,
    /// Path of the one request that was submitted.
    path: String,
}

/// An open node with one request in the queue of `me/app`.
async fn stage() -> Stage {
    let host = Arc::new(TableHost::open());
    host.add("me/app", Access::Private, Plan::Wait);
    let gateway = gateway(&host);
    let (status, _, body) = ask_json(gateway.address(), post("/queue/me/app", "{}")).await;
    assert_eq!(status, 200, "{body}");
    let id: RequestId = body["request_id"].as_str().unwrap().parse().unwrap();
    Stage { host, gateway, id, path: format!("/queue/me/app/requests/{id}") }
}

fn put(path: &str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let mut request = get(path);
    *request.method_mut() = http::Method::PUT;
    request
}

fn log(message: &str) -> QueueLog {
    QueueLog {
        message: message.to_owned(),
        level: "INFO".to_owned(),
        source: "run".to_owned(),
        at: Timestamp::from_micros(START_SECONDS * 1_000_000 + 250_000),
    }
}

fn shown(message: &str) -> Value {
    json!({
        "message": message,
        "timestamp": "2023-11-14T22:13:20.25Z",
        "level": "INFO",
        "source": "run",
    })
}

#[tokio::test]
async fn a_submission_reaches_the_host_whole() {
    let host = Arc::new(TableHost::default());
    host.add("me/app--dev", Access::Private, Plan::Wait);
    let gateway = gateway(&host);
    let path = "/queue/me/app--dev/sub/path?x=1&fal_webhook=http%3A%2F%2F127.0.0.1%3A9%2Fhook\
                &fal_max_queue_length=7";
    let request = with(
        post(path, r#"{"prompt":"a"}"#),
        &[
            ("host", "node.test:8642"),
            ("authorization", &format!("Key {KEY}")),
            ("content-type", "application/json"),
            ("x-fal-queue-priority", "low"),
            ("x-fal-request-timeout", "30.0"),
            ("x-fal-no-retry", "1"),
            ("x-fal-runner-hint", "abc"),
            ("x-fal-retry-config", r#"{"timeout":{"retries":2}}"#),
            ("x-fal-store-io", "0"),
            ("x-fal-object-lifecycle-preference", r#"{"expiration_duration_seconds":60}"#),
            ("x-fal-tags", "a=b"),
            ("x-app-fal-disable-fallback", "1"),
            ("idempotency-key", "the-key"),
        ],
    );
    let (status, headers, body) = ask_json(gateway.address(), request).await;
    assert_eq!(status, 200);
    let id = headers["x-fal-request-id"].to_str().unwrap().to_owned();
    let base = format!("http://node.test:8642/queue/me/app--dev/requests/{id}");
    let expected = json!({
        "status": "IN_QUEUE",
        "request_id": id,
        "response_url": base,
        "status_url": format!("{base}/status"),
        "cancel_url": format!("{base}/cancel"),
        "queue_position": 0,
        "gateway_request_id": id,
        "logs": null,
        "metrics": {},
    });
    assert_eq!(body, expected);
    let queue = host.queue.lock().unwrap();
    let submission = &queue[&id.parse().unwrap()].submission;
    assert_eq!(submission.app.name, "me/app--dev");
    assert_eq!((submission.path.as_str(), submission.method.as_str()), ("sub/path?x=1", "POST"));
    assert_eq!(submission.body, br#"{"prompt":"a"}"#);
    assert_eq!(submission.priority, Priority::Low);
    assert_eq!(submission.start_deadline, Some(Timestamp::from_secs(START_SECONDS + 30)));
    assert_eq!(submission.retries, Wish::Never);
    assert_eq!(submission.hint.as_deref(), Some("abc"));
    assert_eq!(submission.idempotency_key.as_deref(), Some("the-key"));
    assert!(!submission.keep_payload);
    assert_eq!(submission.webhook_url.as_deref(), Some("http://127.0.0.1:9/hook"));
    assert_eq!(submission.queue_length_max, Some(7));
    assert_eq!(submission.caller.key_id, KEY_ID);
    let mut headers = submission.headers.clone();
    headers.sort();
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [
        field("content-type", "application/json"),
        field("host", "node.test:8642"),
        field("idempotency-key", "the-key"),
        field("x-fal-object-lifecycle-preference", r#"{"expiration_duration_seconds":60}"#),
        // Kept for reports; no attempt has them.
        field("x-fal-tags", "a=b"),
    ];
    assert_eq!(headers, expected);
}

#[tokio::test]
async fn the_same_key_is_answered_with_the_same_request() {
    let host = Arc::new(TableHost::open());
    host.add("me/app", Access::Private, Plan::Wait);
    let gateway = gateway(&host);
    let submit = |key| with(post("/queue/me/app", "{}"), &[("idempotency-key", key)]);
    let (_, _, first) = ask_json(gateway.address(), submit("one")).await;
    let (status, headers, again) = ask_json(gateway.address(), submit("one")).await;
    assert_eq!((status, &again), (200, &first));
    assert_eq!(headers["x-fal-request-id"], first["request_id"].as_str().unwrap());
    let (_, _, other) = ask_json(gateway.address(), submit("two")).await;
    assert_ne!(other["request_id"], first["request_id"]);
}

#[tokio::test]
async fn idempotency_keys_have_a_limit_and_a_caller() {
    type Fields<'a> = &'a [(&'static str, &'a str)];
    let host = Arc::new(TableHost::default());
    host.add("me/app", Access::Public, Plan::Wait);
    let gateway = gateway(&host);
    let (longest, too_long) = ("k".repeat(255), "k".repeat(256));
    let authorization = format!("Key {KEY}");
    let known = ("authorization", authorization.as_str());
    let cases: [(Fields, u16, &str); 5] = [
        (&[known, ("idempotency-key", &longest)], 200, ""),
        (&[known, ("idempotency-key", &too_long)], 400, "takes 256 bytes; at most 255"),
        (&[known, ("idempotency-key", " ")], 400, "or empty"),
        (&[("idempotency-key", "k")], 400, "needs a caller"),
        (&[], 200, ""),
    ];
    for (fields, status, detail) in cases {
        let request = with(post("/queue/me/app", "{}"), fields);
        let (got, _, body) = ask_json(gateway.address(), request).await;
        assert_eq!(got, status, "{fields:?} {body}");
        let said = body["detail"].as_str().unwrap_or_default();
        assert!(said.contains(detail), "{said}");
    }
}

#[tokio::test]
async fn an_eta_is_told_with_what_it_is_made_of() {
    let host = Arc::new(TableHost::open());
    host.add("me/app", Access::Private, Plan::Wait);
    let basis = "3 requests ahead on 2 runners, 4.1 s each".to_owned();
    *host.eta.lock().unwrap() = Some(Eta { seconds: 12.34567, basis: basis.clone() });
    let gateway = gateway(&host);
    let told = json!({"seconds": 12.34567, "basis": basis});
    let (_, headers, body) = ask_json(gateway.address(), post("/queue/me/app", "{}")).await;
    assert_eq!(
        (&body["eta"], &headers["x-glowplug-eta-seconds"]),
        (&told, &"12.346".parse().unwrap())
    );
    let id = body["request_id"].as_str().unwrap();
    let path = format!("/queue/me/app/requests/{id}/status");
    let (_, headers, body) = ask_json(gateway.address(), get(&path)).await;
    assert_eq!(
        (&body["eta"], &headers["x-glowplug-eta-seconds"]),
        (&told, &"12.346".parse().unwrap())
    );
    let mut stream = send(gateway.address(), get(&format!("{path}/stream"))).await;
    assert_eq!(status_event(&mut stream).await["eta"], told);
    host.set_status(id.parse().unwrap(), QueueStatus::InProgress { logs: Vec::new() });
    let (_, headers, body) = ask_json(gateway.address(), get(&path)).await;
    assert!(body.get("eta").is_none() && !headers.contains_key("x-glowplug-eta-seconds"));
}

#[tokio::test]
async fn submissions_that_cannot_be_taken_are_refused() {
    let host = Arc::new(TableHost::open());
    host.add("me/app", Access::Public, Plan::Wait);
    let gateway =
        gateway_with(&host, Options { queue_body_bytes_max: 1_000, ..Options::default() });
    let address = gateway.address();
    let cases = [
        (post("/queue/me/app", vec![b'x'; 1_001]), 413, "payload_too_large"),
        (post("/queue/me/other", "{}"), 404, "app_not_found"),
        (post("/queue/me", "{}"), 404, "not_found"),
        (get("/queue/me/app"), 405, "method_not_allowed"),
        (post("/queue/me/app?fal_webhook=nowhere", "{}"), 400, "bad_request"),
        (post("/queue/me/app?fal_max_queue_length=many", "{}"), 400, "bad_request"),
        (with(post("/queue/me/app", "{}"), &[("x-fal-request-timeout", "0")]), 400, "bad_request"),
    ];
    for (request, status, error_type) in cases {
        let uri = request.uri().clone();
        let (got, headers, body) = ask_json(address, request).await;
        assert_eq!((got, &body["error_type"]), (status, &json!(error_type)), "{uri}");
        assert_eq!(headers["x-fal-error-type"], error_type);
        assert_eq!(headers["x-fal-request-id"].len(), 36);
    }
    let problems = [
        (SubmitProblem::QueueFull { limit: 3 }, 429, "queue_full"),
        (SubmitProblem::Unavailable { reason: "disk full".into() }, 503, "store_unavailable"),
        (SubmitProblem::StorageFull { reason: "1 MiB left".into() }, 507, "storage_full"),
        (SubmitProblem::KeyReused { earlier: RequestId(7) }, 422, "idempotency_key_reused"),
        (SubmitProblem::WebhookNotAllowed { reason: "loopback".into() }, 422, "not_allowed"),
        (SubmitProblem::Refused(Refusal::ShuttingDown), 503, "shutting_down"),
    ];
    for (problem, status, error_type) in problems {
        *host.submit_problem.lock().unwrap() = Some(problem);
        let (got, _, body) = ask_json(address, post("/queue/me/app", "{}")).await;
        assert_eq!((got, &body["error_type"]), (status, &json!(error_type)));
    }
    assert!(host.queue.lock().unwrap().is_empty());
}

#[tokio::test]
async fn status_is_202_until_complete() {
    let Stage { host, gateway, id, path } = stage().await;
    let address = gateway.address();
    let base = format!("http://{address}{path}");
    let status = |state: &str, more: Value| {
        let mut expected = json!({
            "status": state,
            "request_id": id.to_string(),
            "response_url": base,
            "status_url": format!("{base}/status"),
            "cancel_url": format!("{base}/cancel"),
            "logs": null,
            "metrics": {},
        });
        let more = more.as_object().unwrap().clone();
        expected.as_object_mut().unwrap().extend(more);
        expected
    };
    let (code, headers, body) = ask_json(address, get(&format!("{path}/status"))).await;
    assert_eq!((code, body), (202, status("IN_QUEUE", json!({"queue_position": 0}))));
    assert_eq!(headers["x-fal-request-id"], id.to_string().as_str());

    host.set_status(id, QueueStatus::InProgress { logs: vec![log("one")] });
    for (query, logs) in [("", json!(null)), ("?logs=0", json!(null)), ("?logs=False", json!(null))]
        .into_iter()
        .chain(["?logs=1", "?logs=true", "?logs=True"].map(|query| (query, json!([shown("one")]))))
    {
        for slash in ["", "/"] {
            let (code, _, body) =
                ask_json(address, get(&format!("{path}/status{slash}{query}"))).await;
            assert_eq!(
                (code, body),
                (202, status("IN_PROGRESS", json!({"logs": logs}))),
                "{query}"
            );
        }
    }

    let logs = Vec::new();
    let completed = QueueStatus::Completed { logs, inference_seconds: Some(1.5), error: None };
    host.set_status(id, completed);
    let (code, _, body) = ask_json(address, get(&format!("{path}/status?logs=1"))).await;
    let more = json!({"logs": [], "metrics": {"inference_time": 1.5}});
    assert_eq!((code, body), (200, status("COMPLETED", more)));

    let error = Some(("Invalid status code: 422".to_owned(), "bad_request".to_owned()));
    let failed = QueueStatus::Completed { logs: Vec::new(), inference_seconds: None, error };
    host.set_status(id, failed);
    let (code, _, body) = ask_json(address, get(&format!("{path}/status"))).await;
    let more = json!({"error": "Invalid status code: 422", "error_type": "bad_request"});
    assert_eq!((code, body), (200, status("COMPLETED", more)));
}

#[tokio::test]
async fn a_result_is_the_apps_answer_verbatim() {
    let Stage { host, gateway, id, path } = stage().await;
    let address = gateway.address();
    let (code, headers, body) = ask_json(address, get(&path)).await;
    let expected = json!({"detail": "Request is still in progress", "error_type": "bad_request"});
    assert_eq!((code, body), (400, expected));
    assert_eq!(headers["x-fal-request-id"], id.to_string().as_str());

    let fields = [
        ("content-type", "application/problem+json"),
        ("content-length", "99"),
        ("x-own", "a"),
        ("x-own", "b"),
        ("x-fal-request-id", "forged"),
    ];
    host.set_response(id, 422, &fields, b"{\"detail\": [ ]}");
    for suffix in ["", "/", "/response", "/response/"] {
        let (code, headers, body) = ask(address, get(&format!("{path}{suffix}"))).await;
        assert_eq!((code, &body[..]), (422, &b"{\"detail\": [ ]}"[..]));
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["content-length"], "15");
        assert_eq!(headers.get_all("x-own").iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(headers["x-fal-request-id"], id.to_string().as_str());
    }
}

#[tokio::test]
async fn cancelling_says_what_became_of_the_request() {
    let Stage { host, gateway, id, path } = stage().await;
    let address = gateway.address();
    let path = format!("{path}/cancel");
    let (code, _, body) = ask_json(address, put(&path)).await;
    assert_eq!((code, body), (200, json!({"status": "OK"})));
    host.set_status(id, QueueStatus::InProgress { logs: Vec::new() });
    let (code, _, body) = ask_json(address, put(&path)).await;
    assert_eq!((code, body), (202, json!({"status": "CANCELLATION_REQUESTED"})));
    let completed =
        QueueStatus::Completed { logs: Vec::new(), inference_seconds: None, error: None };
    host.set_status(id, completed);
    let (code, headers, body) = ask_json(address, put(&path)).await;
    assert_eq!((code, &body["status"]), (400, &json!("ALREADY_COMPLETED")));
    assert_eq!(headers["x-fal-error-type"], "bad_request");
    let (code, headers, _) = ask_json(address, get(&path)).await;
    assert_eq!((code, &headers["allow"]), (405, &"PUT".parse().unwrap()));
}

#[tokio::test]
async fn unknown_requests_are_not_found() {
    let Stage { gateway, path, .. } = stage().await;
    let address = gateway.address();
    let unknown = "/queue/me/app/requests/0192f0a1-0000-7abc-8def-0123456789ab";
    let others = path.replace("me/app", "me/other");
    for base in [unknown, "/queue/me/app/requests/nonsense", others.as_str()] {
        for (suffix, method) in
            [("/status", "GET"), ("/status/stream", "GET"), ("", "GET"), ("/cancel", "PUT")]
        {
            let mut request = get(&format!("{base}{suffix}"));
            *request.method_mut() = method.parse().unwrap();
            let (code, headers, body) = ask_json(address, request).await;
            assert_eq!(code, 404, "{base}{suffix}");
            if base != others {
                assert_eq!(body["status"], "NOT_FOUND", "{base}{suffix}");
                assert_eq!(headers["x-fal-error-type"], "not_found");
            }
        }
    }
    let (code, _, body) = ask_json(address, get(&format!("{path}/elsewhere"))).await;
    assert_eq!((code, &body["error_type"]), (404, &json!("not_found")));
}

#[tokio::test]
async fn private_queues_need_a_key() {
    let host = Arc::new(TableHost::default());
    host.add("me/app", Access::Private, Plan::Wait);
    host.add("me/public", Access::Public, Plan::Wait);
    let gateway = gateway(&host);
    let address = gateway.address();
    let unknown = "requests/0192f0a1-0000-7abc-8def-0123456789ab/status";
    let key = format!("Key {KEY}");
    let cases = [
        (get(&format!("/queue/me/app/{unknown}")), None, 401),
        (get(&format!("/queue/me/app/{unknown}")), Some(key.as_str()), 404),
        (get(&format!("/queue/me/public/{unknown}")), None, 404),
        (get(&format!("/queue/me/gone/{unknown}")), Some(key.as_str()), 404),
        (post("/queue/me/app", "{}"), None, 401),
        (post("/queue/me/app", "{}"), Some("Key no:no"), 401),
        (post("/queue/me/public", "{}"), None, 200),
    ];
    for (mut request, key, expected) in cases {
        if let Some(key) = key {
            request.headers_mut().insert("authorization", key.parse().unwrap());
        }
        let uri = request.uri().clone();
        let (code, _, body) = ask_json(address, request).await;
        assert_eq!(code, expected, "{uri} {key:?} {body}");
    }
}

/// The next event of a stream, or its comment.
async fn event(response: &mut http::Response<Incoming>) -> Option<String> {
    let frame = bounded("an event", response.frame()).await?.unwrap();
    Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
}

async fn status_event(response: &mut http::Response<Incoming>) -> Value {
    let event = event(response).await.expect("an event");
    let data = event.strip_prefix("data: ").and_then(|event| event.strip_suffix("\n\n"));
    serde_json::from_str(data.unwrap_or_else(|| panic!("not an event: {event}"))).unwrap()
}

#[tokio::test]
async fn the_status_stream_tells_each_change_once() {
    let Stage { host, gateway, id, path } = stage().await;
    let request = get(&format!("{path}/status/stream?logs=1"));
    let mut stream = send(gateway.address(), request).await;
    assert_eq!(stream.status(), 200);
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    assert_eq!(stream.headers()["x-fal-request-id"], id.to_string().as_str());
    let first = status_event(&mut stream).await;
    assert_eq!((&first["status"], &first["logs"]), (&json!("IN_QUEUE"), &json!([])));
    assert!(first["response_url"].as_str().unwrap().ends_with(&path));

    host.set_status(id, QueueStatus::InProgress { logs: vec![log("one")] });
    let second = status_event(&mut stream).await;
    assert_eq!(
        (&second["status"], &second["logs"]),
        (&json!("IN_PROGRESS"), &json!([shown("one")]))
    );
    // Nothing new: no event. Then one more line: only that line.
    host.set_status(id, QueueStatus::InProgress { logs: vec![log("one")] });
    host.set_status(id, QueueStatus::InProgress { logs: vec![log("one"), log("two")] });
    let third = status_event(&mut stream).await;
    assert_eq!(third["logs"], json!([shown("two")]));
    let logs = vec![log("one"), log("two"), log("three")];
    host.set_status(id, QueueStatus::Completed { logs, inference_seconds: Some(0.5), error: None });
    let last = status_event(&mut stream).await;
    assert_eq!((&last["status"], &last["logs"]), (&json!("COMPLETED"), &json!([shown("three")])));
    assert_eq!(event(&mut stream).await, None);

    let request = get(&format!("{path}/status/stream"));
    let mut again = send(gateway.address(), request).await;
    let only = status_event(&mut again).await;
    assert_eq!((&only["status"], &only["logs"]), (&json!("COMPLETED"), &json!(null)));
    assert_eq!(event(&mut again).await, None);
}

#[tokio::test]
async fn a_quiet_status_stream_is_kept_alive() {
    let host = Arc::new(TableHost::open());
    host.add("me/app", Access::Private, Plan::Wait);
    let stream_comment_interval = Duration::from_millis(20);
    let gateway = gateway_with(&host, Options { stream_comment_interval, ..Options::default() });
    let (_, _, body) = ask_json(gateway.address(), post("/queue/me/app", "{}")).await;
    let id: RequestId = body["request_id"].as_str().unwrap().parse().unwrap();
    let request = get(&format!("/queue/me/app/requests/{id}/status/stream"));
    let mut stream = send(gateway.address(), request).await;
    status_event(&mut stream).await;
    for _ in 0..3 {
        assert_eq!(event(&mut stream).await.as_deref(), Some(": waiting\n\n"));
    }
    // The host forgets the request: the stream notices without being told.
    host.queue.lock().unwrap().clear();
    while let Some(comment) = event(&mut stream).await {
        assert_eq!(comment, ": waiting\n\n");
    }
}
