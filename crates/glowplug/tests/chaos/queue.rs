//! Cancelled requests over crashes, and queues that move from one node to another.

use std::path::Path;

use glowplug_testkit::{eventually, wait_until};
use reqwest::Method;
use serde_json::{Value, json};

use super::ground::{self, Ground, SOON};

/// Above what is kept in rows.
const LONG_BODY_BYTES: usize = 200_000;
/// Attempts of one request in all.
const ATTEMPTS_MAX: usize = 10;
/// Requests removed at once.
const FLUSHED: usize = 300;

async fn cancel(ground: &Ground, app: &str, id: &str) -> ground::Answer {
    let path = format!("/queue/local/{app}/requests/{id}/cancel");
    ground.caller().call(Method::PUT, &path, String::new()).await.unwrap()
}

fn runs(ledger: &Path, id: &str) -> usize {
    std::fs::read_to_string(ledger).unwrap_or_default().matches(id).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_request_never_runs_not_even_after_a_crash() {
    let mut ground = ground::start(
        "[apps.app]\n$APP\nkeep_alive = 600\nmax_concurrency = 1\nenv = { LEDGER = '$FOLDER/ledger' }\n",
    );
    let ledger = ground.folder().join("ledger");
    let caller = ground.caller();
    let running = caller.submit("app", "/?seconds=5", "{}").await.unwrap();
    wait_until("the app works on it", SOON, || (runs(&ledger, &running) == 1).then_some(()));
    let waiting = caller.submit("app", "/", "{}").await.unwrap();
    let kept = caller.submit("app", "/", "{}").await.unwrap();

    let removed = cancel(&ground, "app", &waiting).await;
    let told = cancel(&ground, "app", &running).await;
    ground.served.kill();
    assert_eq!((removed.status, told.status), (200, 202), "{removed:?} {told:?}");
    ground.served.start_again().unwrap();

    let caller = ground.caller();
    caller.completed("app", &kept).await.assert_ok();
    for id in [&waiting, &running] {
        caller.completed("app", id).await.assert_error(499, "client_cancelled");
    }
    assert_eq!((runs(&ledger, &running), runs(&ledger, &waiting)), (1, 0));
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flushed_requests_never_run_not_even_after_a_crash() {
    let mut ground = ground::start(
        "[apps.app]\n$APP\nkeep_alive = 600\nmax_concurrency = 1\nenv = { LEDGER = '$FOLDER/ledger' }\n",
    );
    let ledger = ground.folder().join("ledger");
    let caller = ground.caller();
    let running = caller.submit("app", "/?seconds=2", "{}").await.unwrap();
    wait_until("the app works on it", SOON, || (runs(&ledger, &running) == 1).then_some(()));
    // Enough that their ends are not all on the disk at once.
    let submitting = (0..FLUSHED).map(|_| {
        let caller = caller.clone();
        async move { caller.submit("app", "/", "{}").await.unwrap() }
    });
    let waiting = ground::all(submitting).await;
    let path = "/api/v1/apps/local/app/queue";
    let flushed = caller.call(Method::DELETE, path, String::new()).await.unwrap();
    ground.served.kill();
    assert_eq!(flushed.assert_ok()["removed"], FLUSHED);
    ground.served.start_again().unwrap();

    let caller = ground.caller();
    caller.completed("app", &running).await.assert_ok();
    for id in &waiting {
        let answer = caller.result("app", id).await.unwrap();
        answer.assert_error(499, "client_cancelled");
        assert_eq!(runs(&ledger, id), 0);
    }
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_its_node_dies_of_each_time_comes_to_an_end() {
    let mut ground = ground::start(
        "[apps.app]\n$APP\nkeep_alive = 600\nmax_concurrency = 1\nenv = { LEDGER = '$FOLDER/ledger' }\n",
    );
    let ledger = ground.folder().join("ledger");
    let caller = ground.caller();
    let deadly = caller.submit("app", "/?seconds=600", "{}").await.unwrap();
    let waiting = caller.submit("app", "/", "{}").await.unwrap();
    for attempt in 1..=ATTEMPTS_MAX {
        wait_until(&format!("attempt {attempt} of it runs"), SOON, || {
            (runs(&ledger, &deadly) == attempt).then_some(())
        });
        ground.served.kill();
        ground.served.start_again().unwrap();
    }
    let caller = ground.caller();
    caller.completed("app", &deadly).await.assert_error(503, "runner_disconnected");
    // One that only waited all the time has had no attempt.
    caller.completed("app", &waiting).await.assert_ok();
    assert_eq!((runs(&ledger, &deadly), runs(&ledger, &waiting)), (ATTEMPTS_MAX, 1));
    let shown = ground.get(&format!("/api/v1/queue/{waiting}")).await;
    assert_eq!(shown["attempts"], 1, "{shown}");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_an_app_that_cannot_be_prepared_wait_and_can_be_cancelled() {
    let mut ground = ground::start("[apps.app]\n$APP\nkeep_alive = 600\nmax_concurrency = 1\n");
    let caller = ground.caller();
    caller.submit("app", "/?seconds=20", "{}").await.unwrap();
    let cancelled = caller.submit("app", "/", "{}").await.unwrap();
    let kept = caller.submit("app", "/", "{}").await.unwrap();
    ground.served.kill();
    let config = ground.served.folder().join("glowplug.toml");
    let whole = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, whole.replace("[apps.app]", "[apps.other]")).unwrap();
    ground.served.start_again().unwrap();

    let listed: Value =
        serde_json::from_slice(&ground.cli(&["queue", "list", "--json"]).stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 3, "{listed}");
    let output = ground.cli(&["queue", "cancel", &cancelled]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("removed"), "{output:?}");
    let shown: Value =
        serde_json::from_slice(&ground.cli(&["queue", "show", &kept, "--json"]).stdout).unwrap();
    assert_eq!((&shown["state"], &shown["position"]), (&json!("IN_QUEUE"), &json!(1)), "{shown}");

    ground.served.kill();
    std::fs::write(&config, whole).unwrap();
    ground.served.start_again().unwrap();
    let caller = ground.caller();
    caller.completed("app", &kept).await.assert_ok();
    caller.completed("app", &cancelled).await.assert_error(499, "client_cancelled");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_moves_to_another_node_with_all_that_is_in_it() {
    let config = "[apps.app]\n$APP\nkeep_alive = 600\nmax_concurrency = 1\n";
    let mut first = ground::start(config);
    let caller = first.caller();
    let long = format!("\"{}\"", "x".repeat(LONG_BODY_BYTES));
    let done = caller.submit("app", "/", &long).await.unwrap();
    let answer = caller.completed("app", &done).await;
    assert_eq!(answer.assert_ok()["echo"], long);
    // Its runner is busy when the queue is exported, so that these wait.
    caller.submit("app", "/?seconds=30", "{}").await.unwrap();
    let mut waiting = Vec::new();
    for number in 0..5 {
        let body = if number == 0 { long.clone() } else { format!("{number}") };
        waiting.push((caller.submit("app", "/", &body).await.unwrap(), body));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (running, stopped) = (file("running.jsonl.zst"), file("stopped.jsonl"));
    let output = first.cli(&["queue", "export", &running]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("7 requests are in {running}\n"));
    let output = first.cli(&["queue", "backup", &file("copy.db")]);
    assert!(output.status.success(), "{output:?}");
    let again = first.cli(&["queue", "backup", &file("copy.db")]);
    assert!(!again.status.success(), "what is there is not written over");
    first.served.kill();
    let data = first.served.data_dir().display().to_string();
    let output = first.cli(&["queue", "export", &stopped, "--data-dir", &data]);
    assert!(output.status.success(), "{output:?}");
    first.served.start_again().unwrap();

    let mut second = ground::start(config);
    for (file, said) in [
        (&running, "7 requests are taken in\n"),
        (&stopped, "0 requests are taken in, 7 were there already\n"),
    ] {
        let output = second.cli(&["queue", "import", file]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{output:?}");
    }
    let moved = second.caller().result("app", &done).await.unwrap();
    assert_eq!(moved.body, answer.body, "the answer itself has moved");
    second.served.kill();
    second.served.start_again().unwrap();
    for (id, body) in &waiting {
        let answer = second.caller().completed("app", id).await;
        assert_eq!(answer.assert_ok()["echo"], **body);
    }
    second.end().await;
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_export_is_refused_by_line() {
    let ground = ground::start("[apps.app]\n$APP\n");
    ground.caller().submit("app", "/", "{}").await.unwrap();
    eventually("the request is complete", SOON, || async {
        let listed = ground.get("/api/v1/queue?state=completed").await;
        (listed.as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queue.jsonl");
    let name = file.display().to_string();
    assert!(ground.cli(&["queue", "export", &name]).status.success());
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("local/app", "local/apq")).unwrap();
    let output = ground.cli(&["queue", "import", &name]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("line 2: it is damaged"), "{said}");
    ground.end().await;
}
