//! The headers of callers, what becomes of them, and the headers of answers.

use serde_json::Value;

use super::ground::{Answer, Fields, Ground, app, start};

const PREFERENCE: &str = r#"{"expiration_duration_seconds":60}"#;

/// What the app saw of a header.
fn seen<'a>(echo: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = echo["headers"].as_array().unwrap().iter();
    let named = headers.filter(|header| header[0] == name);
    named.map(|header| header[1].as_str().unwrap()).collect()
}

/// A header that is sent, and what the app gets of it.
const HANDED_ON: &[(&str, &str, Option<&str>)] = &[
    ("x-own", "kept", Some("kept")),
    ("x-fal-request-start-timeout", "60", None),
    ("x-fal-request-timeout", "60", None),
    ("x-fal-queue-priority", "low", None),
    ("x-fal-runner-hint", "a", None),
    ("x-fal-no-retry", "1", None),
    ("x-fal-retry-config", "{}", None),
    ("x-fal-store-io", "0", None),
    ("x-fal-object-lifecycle-preference", PREFERENCE, Some(PREFERENCE)),
    ("x-fal-object-lifecycle-preference", "nonsense", None),
    ("x-app-fal-disable-fallback", "1", None),
    ("x-fal-tags", "a=b,c=d", None),
    ("x-fal-caller-user-id", "forged", None),
    ("x-fal-anything", "forged", None),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_apps_part_of_every_header() {
    let ground = start(&app("app", ""));
    for row @ (name, value, expected) in HANDED_ON {
        let send = |prefix: &str| {
            let url = ground.url(&format!("/{prefix}/local/app/echo/below?x=1"));
            ground
                .client()
                .post(url)
                .header(*name, *value)
                .header("x-fal-request-id", "forged")
                .header("x-fal-cdn-token", "forged")
        };
        let direct = send("run").send().await.unwrap();
        let direct_id = direct.headers()["x-fal-request-id"].to_str().unwrap().to_owned();
        let direct: Value = direct.json().await.unwrap();
        let queued: Value = send("queue").send().await.unwrap().json().await.unwrap();
        let queued_id = queued["request_id"].as_str().unwrap().to_owned();
        let queued = ground.completed("app", &queued_id).await.1.body;
        for (id, echo) in [(direct_id, direct), (queued_id, queued)] {
            let expected: Vec<&str> = expected.iter().copied().collect();
            assert_eq!(seen(&echo, name), expected, "{row:?}: {echo}");
            assert_eq!(seen(&echo, "x-fal-request-id"), [id.as_str()], "{row:?}");
            assert_eq!(seen(&echo, "x-fal-endpoint"), ["local/app/echo/below"], "{row:?}");
            assert_eq!(echo["target"], "/echo/below?x=1", "{row:?}");
            // A token of the node's, which a caller cannot put another in the place of.
            let tokens = seen(&echo, "x-fal-cdn-token");
            assert!(
                matches!(tokens[..], [token] if token.split('.').count() == 3),
                "{row:?}: {tokens:?}"
            );
        }
    }
}

/// `X-Fal-Tags`, and what is kept of them. They are nobody's but the caller's: shown where the request is
/// exported, and to no app.
const TAGS: &[(&str, Option<&str>)] = &[
    ("team=design,env=prod", Some("team=design,env=prod")),
    (" a=1 , B=2,fal.c=3,nonsense", Some("a=1")),
    ("nonsense", None),
];

#[tokio::test(flavor = "multi_thread")]
async fn tags_stay_with_their_request() {
    let ground = start(&app("app", ""));
    for (sent, kept) in TAGS {
        let url = ground.url("/queue/local/app/echo");
        let submit = ground.client().post(url).header("x-fal-tags", *sent).send().await.unwrap();
        let id = submit.headers()["x-fal-request-id"].to_str().unwrap().to_owned();
        let echo = ground.completed("app", &id).await.1.body;
        assert_eq!(seen(&echo, "x-fal-tags"), [""; 0], "{sent}");
        let export = ground.get("/api/v1/queue/export").await.body;
        let lines = export.as_str().unwrap().lines();
        let mut lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        let line = lines.find(|line| line["request"]["id"] == id.as_str()).expect("it is exported");
        let kept: Vec<&str> = kept.iter().copied().collect();
        assert_eq!(seen(&line["request"], "x-fal-tags"), kept, "{sent}: {line}");
    }
}

/// Both names of the start timeout. `never`: an app whose start takes longer than any test.
const START_TIMEOUTS: &[(&str, Fields)] = &[
    ("the new name", &[("x-fal-request-start-timeout", "0.5")]),
    ("the deprecated name", &[("x-fal-request-timeout", "0.5")]),
    (
        "the new name wins",
        &[("x-fal-request-start-timeout", "0.5"), ("x-fal-request-timeout", "1000")],
    ),
];

fn assert_not_started(answer: &Answer, row: &str) {
    assert_eq!((answer.status, answer.text("error_type")), (504, Some("request_timeout")), "{row}");
    assert_eq!(answer.header("x-fal-request-timeout-type"), Some("user"), "{row}");
    assert_eq!(answer.header("x-fal-needs-retry"), None, "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn start_timeouts() {
    let ground = start(&[app("never", "env.NEVER = '1'"), app("app", "")].concat());
    for (row, fields) in START_TIMEOUTS {
        let id = ground.submitted("never", "/echo", fields).await;
        assert_not_started(&ground.run("never", "/echo", fields).await, row);
        let (status, answer) = ground.completed("never", &id).await;
        assert_not_started(&answer, row);
        assert_eq!(status.text("error_type"), Some("request_timeout"), "{row}");
        assert!(ground.asked(&id).is_empty(), "{row}");
    }
    let too_short: Fields = &[("x-fal-request-start-timeout", "0.1")];
    assert_eq!(ground.run("app", "/echo", too_short).await.status, 400);
    // Looked at before the work starts only: this takes longer.
    let gate = ground.file("gate");
    let fields: Fields = &[("x-fal-request-timeout", "10")];
    ground.run("app", "/echo", &[]).await;
    let path = format!("/gate?file={}", gate.display());
    let working = ground.submitted("app", &path, fields).await;
    ground.at_work(&working).await;
    std::fs::write(gate, "").unwrap();
    assert_eq!(ground.completed("app", &working).await.1.status, 200);
}

/// In the order of their submits: a request's priority, and its place among those served.
const PRIORITIES: &[(&str, usize)] =
    &[("low", 3), ("normal", 0), ("low", 4), ("high", 1), ("unknown", 2)];

#[tokio::test(flavor = "multi_thread")]
async fn priorities() {
    let single = app("app", "max_concurrency = 1").replace("max_multiplexing = 16\n", "");
    let ground = start(&single);
    let gate = ground.file("gate");
    let holding = ground.submitted("app", &format!("/gate?file={}", gate.display()), &[]).await;
    ground.at_work(&holding).await;
    let mut ids = Vec::new();
    for (priority, _) in PRIORITIES {
        let fields: Fields = match *priority {
            "low" => &[("x-fal-queue-priority", "low")],
            "high" => &[("x-fal-queue-priority", "high")],
            "unknown" => &[("x-fal-queue-priority", "unknown")],
            _ => &[("x-fal-queue-priority", "normal")],
        };
        ids.push(ground.submitted("app", "/echo", fields).await);
    }
    std::fs::write(gate, "").unwrap();
    for id in &ids {
        ground.completed("app", id).await;
    }
    let served = ground.order_of("POST /echo");
    for (id, (priority, place)) in ids.iter().zip(PRIORITIES) {
        let at = served.iter().position(|one| one == id);
        assert_eq!(at, Some(*place), "{priority}: {served:?} of {ids:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_keys() {
    let ground = start(&app("app", ""));
    let key: Fields = &[("idempotency-key", "one")];
    let first = ground.submit("app", "/echo", key).await;
    let again = ground.submit("app", "/echo", key).await;
    assert_eq!((again.status, again.id()), (200, first.id()));
    assert_eq!(again.body["request_id"], first.body["request_id"]);
    ground.completed("app", &first.id()).await;
    let late = ground.submit("app", "/echo", key).await;
    assert_eq!((late.status, late.id()), (200, first.id()), "also when it is complete");
    let other = ground.submit("app", "/other", key).await;
    assert_eq!(
        (other.status, other.text("error_type")),
        (422, Some("idempotency_key_reused")),
        "{other:?}"
    );
    let another = ground.submit("app", "/echo", &[("idempotency-key", "two")]).await;
    assert_ne!(another.id(), first.id());
    ground.completed("app", &another.id()).await;
    assert_eq!(ground.heard(&first.id()), ["POST /echo"], "it ran once");
}

async fn both(ground: &Ground, path: &str) -> [Answer; 2] {
    let id = ground.submitted("app", path, &[]).await;
    [ground.run("app", path, &[]).await, ground.completed("app", &id).await.1]
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_answers() {
    let ground = start(&app("app", ""));
    for answer in both(&ground, "/answer?status=200&runner-hints=a,b&billable-units=3").await {
        assert_eq!(answer.header("x-fal-runner-hints"), Some("a,b"), "{answer:?}");
        assert_eq!(answer.header("x-fal-billable-units"), Some("3"), "{answer:?}");
        assert_eq!(answer.id().len(), 36);
    }
    // All together 16 KB.
    for (bytes, status) in [(15_000, 200), (17_000, 500)] {
        for answer in both(&ground, &format!("/headers?bytes={bytes}")).await {
            assert_eq!(answer.status, status, "{bytes}");
            let error = (status == 500).then_some("runner_server_error");
            assert_eq!(answer.header("x-fal-error-type"), error, "{bytes}");
        }
    }
}
