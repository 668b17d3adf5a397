//! The queue's HTTP API: each call, each answer.

use futures::StreamExt;
use glowplug_testkit::eventually;
use reqwest::Method;
use serde_json::{Value, json};

use super::ground::{Ground, SOON, app, start};

/// An app that takes one request at a time, and one that is at work until `gate` exists.
async fn with_work() -> (Ground, std::path::PathBuf, String) {
    let single = app("app", "max_concurrency = 1").replace("max_multiplexing = 16\n", "");
    let ground = start(&single);
    let gate = ground.file("gate");
    let working = ground.submitted("app", &format!("/gate?file={}", gate.display()), &[]).await;
    ground.at_work(&working).await;
    (ground, gate, working)
}

fn links(ground: &Ground, id: &str) -> Value {
    let base = ground.url(&format!("/queue/local/app/requests/{id}"));
    json!({"response_url": base, "status_url": format!("{base}/status"), "cancel_url": format!("{base}/cancel")})
}

/// What a submit, or a status, must say at least.
fn assert_says(body: &Value, expected: &Value, what: &str) {
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&body[key], value, "{what}: `{key}` of {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn submit_status_and_result() {
    let (ground, gate, working) = with_work().await;
    let answer = ground.submit("app", "/echo/sub?x=1", &[]).await;
    let waiting = answer.id();
    assert_eq!(answer.status, 200);
    let common = json!({"request_id": waiting, "gateway_request_id": waiting});
    assert_says(&answer.body, &common, "submit");
    assert_says(&answer.body, &links(&ground, &waiting), "submit");
    assert_says(&answer.body, &json!({"status": "IN_QUEUE", "queue_position": 0}), "submit");

    // While it is in the queue, and in progress: 202, and no result.
    let rows = [
        (&waiting, json!({"status": "IN_QUEUE", "queue_position": 0})),
        (&working, json!({"status": "IN_PROGRESS", "queue_position": null})),
    ];
    for (id, expected) in rows {
        for (query, logs) in
            [("", Value::Null), ("?logs=0", Value::Null), ("?logs=False", Value::Null)]
                .into_iter()
                .chain(["?logs=1", "?logs=true", "?logs=True"].map(|query| (query, json!([]))))
        {
            for slash in ["", "/"] {
                let answer = ground.about("app", id, &format!("/status{slash}{query}")).await;
                assert_eq!(answer.status, 202, "{answer:?}");
                assert_says(&answer.body, &expected, query);
                assert_says(&answer.body, &links(&ground, id), query);
                assert_says(&answer.body, &json!({"request_id": id, "logs": logs}), query);
            }
        }
        for below in ["", "/", "/response", "/response/"] {
            let answer = ground.about("app", id, below).await;
            assert_eq!(answer.status, 400, "{below}: {answer:?}");
            assert_eq!(answer.body["detail"], "Request is still in progress");
        }
    }

    std::fs::write(gate, "").unwrap();
    let (status, answer) = ground.completed("app", &waiting).await;
    assert_eq!(status.status, 200);
    assert_says(&status.body, &links(&ground, &waiting), "complete");
    assert_eq!(status.body["logs"], json!([]));
    assert!(status.body["metrics"]["inference_time"].as_f64().is_some_and(|took| took >= 0.0));
    assert!(status.body.get("error").is_none() && status.body.get("queue_position").is_none());
    // The sub-path of the submit is remembered.
    assert_eq!(answer.body["target"], "/echo/sub?x=1");
    for below in ["", "/", "/response", "/response/"] {
        assert_eq!(ground.about("app", &waiting, below).await.body, answer.body, "{below}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_the_apps_own() {
    let ground = start(&app("app", ""));
    for (status, error) in [
        (200, None),
        (201, None),
        (302, None),
        (404, Some("Invalid status code: 404")),
        (422, Some("Invalid status code: 422")),
        (500, Some("Invalid status code: 500")),
    ] {
        let path = format!("/answer?status={status}&runner-hints=h");
        let id = ground.submitted("app", &path, &[]).await;
        let (complete, answer) = ground.completed("app", &id).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.body, json!({"status": status.to_string()}));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("x-fal-runner-hints"), Some("h"));
        assert_eq!(answer.header("location").is_some(), status == 302);
        assert_eq!(answer.id(), id);
        assert_eq!((complete.status, complete.text("error")), (200, error), "{complete:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_told() {
    let ground = start(&app("app", ""));
    let id = ground.submitted("app", "/say?words=hello", &[]).await;
    let (status, _) = ground.completed("app", &id).await;
    let line = &status.body["logs"][0];
    assert_eq!(line["message"], "hello", "{status:?}");
    for key in ["timestamp", "level", "source"] {
        assert!(line[key].as_str().is_some_and(|text| !text.is_empty()), "{key} of {line}");
    }
    let without = ground.about("app", &id, "/status").await;
    assert_eq!(without.body["logs"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_streamed_to_its_end() {
    let (ground, gate, working) = with_work().await;
    let waiting = ground.submitted("app", "/echo", &[]).await;
    let url = ground.url(&format!("/queue/local/app/requests/{waiting}/status/stream?logs=1"));
    let answer = ground.client().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert_eq!(answer.headers()["x-fal-request-id"], waiting.as_str());
    let mut pieces = answer.bytes_stream();
    let mut text = String::new();
    while let Some(piece) = pieces.next().await {
        text.push_str(&String::from_utf8_lossy(&piece.unwrap()));
        std::fs::write(&gate, "").unwrap();
    }
    let events: Vec<Value> = text
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let states: Vec<&str> = events.iter().map(|event| event["status"].as_str().unwrap()).collect();
    assert_eq!((states[0], *states.last().unwrap()), ("IN_QUEUE", "COMPLETED"), "{states:?}");
    for event in &events {
        assert_says(event, &links(&ground, &waiting), "event");
    }
    assert_eq!(ground.completed("app", &working).await.1.status, 200);
}

/// How many wait, what the caller allows, and what comes of it.
const LENGTHS: &[(usize, usize, u16)] = &[(0, 0, 200), (1, 0, 429), (1, 1, 200), (2, 1, 429)];

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_may_refuse_a_long_queue() {
    let (ground, gate, _) = with_work().await;
    let mut waiting = 0;
    let mut last = String::new();
    for (before, limit, status) in LENGTHS {
        assert_eq!(waiting, *before, "the rows follow one another");
        let answer =
            ground.submit("app", &format!("/echo?fal_max_queue_length={limit}"), &[]).await;
        assert_eq!(answer.status, *status, "{before} wait, {limit} are allowed: {answer:?}");
        if answer.status == 200 {
            waiting += 1;
            last = answer.id();
        } else {
            assert_eq!(answer.text("error_type"), Some("queue_full"));
        }
    }
    std::fs::write(gate, "").unwrap();
    let (_, answer) = ground.completed("app", &last).await;
    assert_eq!(answer.body["target"], "/echo", "the parameter is not the app's");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found() {
    let ground = start(&[app("app", ""), app("other", "")].concat());
    let id = ground.submitted("app", "/echo", &[]).await;
    ground.completed("app", &id).await;
    let rows = [
        ("app", "0192f0a1-0000-7abc-8def-0123456789ab"),
        ("app", "nonsense"),
        ("other", id.as_str()),
    ];
    for (app, id) in rows {
        for (method, below) in [
            (Method::GET, "/status"),
            (Method::GET, "/status/stream"),
            (Method::GET, ""),
            (Method::GET, "/response"),
            (Method::PUT, "/cancel"),
        ] {
            let path = format!("/queue/local/{app}/requests/{id}{below}");
            let answer = ground.send(method, &path, &[]).await;
            let said = (answer.status, answer.text("status"));
            assert_eq!(said, (404, Some("NOT_FOUND")), "{path}");
        }
    }
    assert_eq!(ground.submit("nothing", "/echo", &[]).await.status, 404);
    assert_eq!(ground.about("app", &id, "/elsewhere").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_asked_for_and_told_to_the_app() {
    let public = app("public", "access = 'public'");
    let ground = start(&[app("app", ""), public].concat());
    let key = ground.create_key();
    let (id, _) = key.split_once(':').unwrap();
    let key = format!("Key {key}");
    let rows = [
        ("app", None, 401, None),
        ("app", Some("Key wrong:wrong"), 401, None),
        ("app", Some(key.as_str()), 200, Some(id)),
        ("public", None, 200, None),
        ("public", Some(key.as_str()), 200, Some(id)),
    ];
    for (app, authorization, status, caller) in rows {
        for prefix in ["run", "queue"] {
            let mut request =
                ground.client().post(ground.url(&format!("/{prefix}/local/{app}/echo")));
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), status, "{prefix} {app} {authorization:?}");
            if status == 401 {
                assert_eq!(answer.headers()["x-fal-error-type"], "unauthorized");
                continue;
            }
            let request = answer.headers()["x-fal-request-id"].to_str().unwrap().to_owned();
            let seen = eventually("the app is asked", SOON, || async { ground.callers(&request) });
            assert_eq!(seen.await.as_deref(), caller, "{prefix} {app} {authorization:?}");
        }
    }
}
