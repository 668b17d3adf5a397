//! What a runner's answer does: to the runner, to a queued request, to a direct caller.

use super::ground::{Fields, Ground, app, start};

/// Whether the same process answers afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runner {
    Kept,
    Replaced,
}

struct Row {
    name: &'static str,
    settings: &'static str,
    fields: Fields,
    path: &'static str,
    /// How often the app is asked.
    attempts: usize,
    /// Of the stored answer.
    status: u16,
    runner: Runner,
}

const fn row(name: &'static str, path: &'static str, attempts: usize, status: u16) -> Row {
    Row { name, settings: "", fields: &[], path, attempts, status, runner: Runner::Kept }
}

impl Row {
    const fn replaced(self) -> Self {
        Self { runner: Runner::Replaced, ..self }
    }

    const fn with(self, settings: &'static str) -> Self {
        Self { settings, ..self }
    }

    const fn sent(self, fields: Fields) -> Self {
        Self { fields, ..self }
    }
}

const ONE: &str = r#"{"server_error":{"retries":1}}"#;
const TWO: &str = r#"{"server_error":{"retries":2}}"#;

/// Queued requests. `failures=N`: the app fails N times and then answers 200.
const TABLE: &[Row] = &[
    row("2xx: healthy, no retry", "/answer?status=201", 1, 201),
    row("3xx: passed as is", "/answer?status=302", 1, 302),
    row("4xx: healthy, no retry", "/answer?status=404", 1, 404),
    row("422: no retry", "/answer?status=422", 1, 422),
    row("429: no retry", "/answer?status=429", 1, 429),
    row("500: checked, no retry", "/answer?status=500", 1, 500),
    row("502: checked, no retry", "/answer?status=502", 1, 502),
    row("503: terminated, retried", "/answer?status=503&failures=1", 2, 200).replaced(),
    row("504: checked, retried", "/answer?status=504&failures=1", 2, 200),
    row("crash: retried", "/die?failures=1", 2, 200).replaced(),
    row("connection lost: terminated, retried", "/drop?failures=1", 2, 200).replaced(),
    row("partial response: terminated, retried", "/half?failures=1", 2, 200).replaced(),
    row("not HTTP: terminated, retried", "/garbage?failures=1", 2, 200).replaced(),
    row("over request_timeout: terminated, retried", "/job?failures=1", 2, 200)
        .with("request_timeout = 1")
        .replaced(),
    row("No-Retry: 1", "/answer?status=504", 1, 504).sent(&[("x-fal-no-retry", "1")]),
    row("No-Retry: true", "/answer?status=504", 1, 504).sent(&[("x-fal-no-retry", "true")]),
    row("No-Retry: yes", "/answer?status=504", 1, 504).sent(&[("x-fal-no-retry", "yes")]),
    row("No-Retry beats Retry-Config", "/answer?status=504", 1, 504)
        .sent(&[("x-fal-no-retry", "1"), ("x-fal-retry-config", TWO)]),
    row("No-Retry beats the app's Needs-Retry", "/answer?status=500&needs-retry=1", 1, 500)
        .sent(&[("x-fal-no-retry", "1")]),
    row("Retry-Config is a budget", "/answer?status=504", 2, 504)
        .sent(&[("x-fal-retry-config", ONE)]),
    row("a budget of none", "/answer?status=504", 1, 504)
        .sent(&[("x-fal-retry-config", r#"{"server_error":{"retries":0}}"#)]),
    row("budgets are one for each condition", "/answer?status=504&failures=2", 3, 200)
        .sent(&[("x-fal-retry-config", r#"{"timeout":{"retries":0}}"#)]),
    row("Retry-Config beats the app's", "/answer?status=504", 2, 504)
        .with("retry_config = { server_error = { retries = 3 } }")
        .sent(&[("x-fal-retry-config", ONE)]),
    row("invalid Retry-Config is ignored", "/answer?status=504&failures=1", 2, 200)
        .sent(&[("x-fal-retry-config", r#"{"server_error":0}"#)]),
    row("retry_config of the app", "/answer?status=504", 2, 504)
        .with("retry_config = { server_error = { retries = 1 } }"),
    row("skip server_error", "/answer?status=504", 1, 504)
        .with("skip_retry_conditions = 'server_error'"),
    row("skip connection_error", "/drop", 1, 503)
        .with("skip_retry_conditions = 'connection_error'")
        .replaced(),
    row("skip timeout", "/job", 1, 504)
        .with("request_timeout = 1\nskip_retry_conditions = 'timeout'")
        .replaced(),
    row("Needs-Retry: 1 with 500", "/answer?status=500&needs-retry=1&failures=1", 2, 200),
    row("Needs-Retry: 1 with 429", "/answer?status=429&needs-retry=1&failures=1", 2, 200),
    row("Needs-Retry: 1 not with 404", "/answer?status=404&needs-retry=1&failures=1", 1, 404),
    row("Needs-Retry: 0 with 504", "/answer?status=504&needs-retry=0", 1, 504),
    row("Needs-Retry beats the skip list", "/answer?status=504&needs-retry=1&failures=1", 2, 200)
        .with("skip_retry_conditions = 'server_error'"),
    row("stop-runner: 1 with 200", "/answer?status=200&stop-runner=1", 1, 200).replaced(),
    row("stop-runner: true with 200", "/answer?status=200&stop-runner=true", 1, 200).replaced(),
    row("stop-runner: 0 with 503", "/answer?status=503&stop-runner=0&failures=1", 2, 200),
];

fn name(at: usize) -> String {
    format!("row-{at}")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_of_a_queued_request() {
    let tables: String =
        TABLE.iter().enumerate().map(|(at, row)| app(&name(at), row.settings)).collect();
    let ground = start(&tables);
    let checks = TABLE.iter().enumerate().map(|(at, row)| check(&ground, name(at), row));
    futures::future::join_all(checks).await;
}

async fn check(ground: &Ground, app: String, row: &Row) {
    let name = row.name;
    let id = ground.submitted(&app, row.path, row.fields).await;
    let (status, answer) = ground.completed(&app, &id).await;
    assert_eq!(answer.status, row.status, "{name}: {answer:?}");
    assert_eq!(status.text("error").is_some(), row.status >= 400, "{name}: {status:?}");
    let asked: Vec<_> =
        ground.asked(&id).into_iter().filter(|asked| asked.what.starts_with("POST /")).collect();
    assert_eq!(asked.len(), row.attempts, "{name}: {asked:?}");
    // Neither the app's orders, nor advice to try again: this is the last word.
    for order in ["x-fal-needs-retry", "x-fal-stop-runner"] {
        assert_eq!(answer.header(order), None, "{name}: {order} reached the caller");
    }
    let next = ground.run(&app, "/echo", &[]).await;
    let same = next.body["pid"].as_u64() == Some(asked[0].pid);
    assert_eq!(same, row.runner == Runner::Kept, "{name}: {asked:?}, then {next:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_nobody_can_connect_to_is_replaced() {
    let ground = start(&app("queued", ""));
    let first = ground.run("queued", "/deaf", &[]).await;
    let id = ground.submitted("queued", "/echo", &[]).await;
    let (_, answer) = ground.completed("queued", &id).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_ne!(answer.body["pid"], first.body["pid"]);
}

/// Direct calls are tried once, and say whether a queued request would be tried again.
#[tokio::test(flavor = "multi_thread")]
async fn direct_calls_are_not_retried_but_say_so() {
    const ROWS: &[(&str, u16, Option<&str>)] = &[
        ("/answer?status=200", 200, None),
        ("/answer?status=302", 302, None),
        ("/answer?status=422", 422, None),
        ("/answer?status=500", 500, None),
        ("/answer?status=500&needs-retry=1", 500, Some("1")),
        ("/answer?status=504", 504, Some("1")),
        ("/answer?status=504&needs-retry=0", 504, None),
        ("/answer?status=503", 503, Some("1")),
        ("/drop", 503, Some("1")),
        ("/die", 503, Some("1")),
        ("/garbage", 502, Some("1")),
        ("/job", 504, Some("1")),
    ];
    let ground = start(&app("direct", "request_timeout = 2\nmax_concurrency = 4"));
    for (path, status, again) in ROWS {
        let answer = ground.run("direct", path, &[]).await;
        assert_eq!(answer.status, *status, "{path}: {answer:?}");
        assert_eq!(answer.header("x-fal-needs-retry"), *again, "{path}");
        let asked = ground.heard(&answer.id());
        let attempts = asked.iter().filter(|what| !what.ends_with("cancel")).count();
        assert_eq!(attempts, 1, "{path}: {asked:?}");
    }
}
