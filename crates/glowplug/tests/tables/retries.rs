//! How often a queued request is tried: the ceiling, and who has the last word on each condition.

use super::ground::{Ground, app, start};

/// The waits between ten attempts add up to minutes otherwise.
const WAITS: &str = "[node.queue]\nretry_delay = '1ms'\nretry_delay_max = '2ms'\n";

/// An outcome that brings a condition about: what is asked, what the app needs for it, the last answer.
struct Condition {
    name: &'static str,
    path: &'static str,
    settings: &'static str,
    status: u16,
    error_type: &'static str,
    /// Attempts when nobody says anything.
    unasked: u64,
}

const CONDITIONS: &[Condition] = &[
    Condition {
        name: "timeout",
        path: "/job",
        settings: "request_timeout = '250ms'",
        status: 504,
        error_type: "request_timeout",
        unasked: 10,
    },
    Condition {
        name: "client_error",
        path: "/answer?status=409",
        settings: "",
        status: 409,
        error_type: "bad_request",
        unasked: 1,
    },
    Condition {
        name: "server_error",
        path: "/answer?status=504",
        settings: "",
        status: 504,
        error_type: "runner_server_error",
        unasked: 10,
    },
    Condition {
        name: "connection_error",
        path: "/drop",
        settings: "",
        status: 503,
        error_type: "runner_disconnected",
        unasked: 10,
    },
];

/// What is said of a condition, and how many attempts there are when each ends with it. `$` stands for its
/// name.
struct Row {
    said: &'static str,
    settings: &'static str,
    /// `X-Fal-Retry-Config`.
    asked: Option<&'static str>,
    /// `None`: as many as when nobody says anything.
    attempts: Option<u64>,
}

const ROWS: &[Row] = &[
    Row { said: "nothing", settings: "", asked: None, attempts: None },
    Row {
        said: "the app's skip list",
        settings: "skip_retry_conditions = ['$']",
        asked: None,
        attempts: Some(1),
    },
    Row {
        said: "the app's budget, and its skip list",
        settings: "skip_retry_conditions = ['$']\nretry_config = { $ = { retries = 2 } }",
        asked: None,
        attempts: Some(3),
    },
    Row {
        said: "the app's budget of none",
        settings: "retry_config = { $ = { retries = 0 } }",
        asked: None,
        attempts: Some(1),
    },
    Row {
        said: "the caller's budget, above the app's",
        settings: "retry_config = { $ = { retries = 1 } }",
        asked: Some(r#"{"$":{"retries":3}}"#),
        attempts: Some(4),
    },
    Row {
        said: "the caller's budget, above the ceiling",
        settings: "",
        asked: Some(r#"{"$":{"retries":99}}"#),
        attempts: Some(10),
    },
];

async fn check(ground: &Ground, app: String, condition: &Condition, row: &Row) {
    let what = (condition.name, row.said);
    let url = ground.url(&format!("/queue/local/{app}{}", condition.path));
    let mut submit = ground.client().post(url);
    if let Some(asked) = row.asked {
        submit = submit.header("x-fal-retry-config", asked.replace('$', condition.name));
    }
    let id =
        submit.send().await.unwrap().headers()["x-fal-request-id"].to_str().unwrap().to_owned();
    let (status, answer) = ground.completed(&app, &id).await;
    let kept = ground.get(&format!("/api/v1/queue/{id}")).await.body;
    let attempts = row.attempts.unwrap_or(condition.unasked);
    assert_eq!(kept["attempts"].as_u64(), Some(attempts), "{what:?}: {kept}");
    assert_eq!(answer.status, condition.status, "{what:?}: {answer:?}");
    assert_eq!(status.text("error_type"), Some(condition.error_type), "{what:?}: {status:?}");
    assert_eq!(answer.header("x-fal-needs-retry"), None, "{what:?}: it is the last word");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_condition_has_its_budget() {
    let cases: Vec<(String, &Condition, &Row)> = CONDITIONS
        .iter()
        .flat_map(|condition| ROWS.iter().enumerate().map(move |(at, row)| (at, condition, row)))
        .map(|(at, condition, row)| {
            (format!("{}-{at}", condition.name.replace('_', "-")), condition, row)
        })
        .collect();
    let tables = cases.iter().map(|(name, condition, row)| {
        app(name, &format!("{}\n{}", condition.settings, row.settings.replace('$', condition.name)))
    });
    let ground = start(&(WAITS.to_owned() + &tables.collect::<String>()));
    let checks =
        cases.into_iter().map(|(name, condition, row)| check(&ground, name, condition, row));
    futures::future::join_all(checks).await;
}

/// Whatever the conditions, and whatever budgets they have: their attempts count together.
#[tokio::test(flavor = "multi_thread")]
async fn ten_attempts_are_the_ceiling() {
    let ground = start(&(WAITS.to_owned() + &app("app", "")));
    for (path, attempts, status) in [
        ("/answer?status=504&failures=9", 10, 200),
        ("/answer?status=504&failures=10", 10, 504),
        ("/answer?status=500&needs-retry=1", 10, 500),
        ("/answer?status=429&needs-retry=1", 10, 429),
        // A broken connection, then an error of the app's, and so on.
        ("/mixed", 10, 504),
    ] {
        let id = ground.submitted("app", path, &[]).await;
        let (_, answer) = ground.completed("app", &id).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert_eq!(ground.asked(&id).len(), attempts, "{path}");
        let kept = ground.get(&format!("/api/v1/queue/{id}")).await.body;
        assert_eq!(kept["attempts"].as_u64(), Some(attempts as u64), "{path}: {kept}");
    }
}
