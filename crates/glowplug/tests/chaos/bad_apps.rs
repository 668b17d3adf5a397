//! Apps that do not start, do not stop, do not speak HTTP: contained, reported, the node unharmed.

use glowplug_testkit::{eventually, wait_until};

use super::ground::{self, Ground, SOON, all};

/// One app named `bad` with these settings.
fn with_app(settings: &str) -> Ground {
    ground::start(&format!("[apps.bad]\n$APP\n{settings}\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_never_opens_its_port_times_out_and_is_delayed() {
    let ground = with_app("env = { MODE = 'never' }\nstartup_timeout = 1");
    let queued = ground.caller().submit("bad", "/", "{}").await.unwrap();
    let answer = ground.run("bad", "/").await;
    answer.assert_error(504, "startup_timeout");
    assert!(answer.text().contains("startup_timeout of 1 s"), "{answer:?}");
    ground.wait_for_why(&answer.request, "not ready within its startup_timeout");

    // The queued request waits for the next start, which comes after a delay.
    let delayed = eventually("the next runner waits", SOON, || async {
        ground.runners("bad", Some("FAILURE_DELAY")).await.pop()
    })
    .await;
    ground.wait_for_why(delayed["id"].as_str().unwrap(), "waits 30.0 s in FAILURE_DELAY");
    let status = ground.caller().status("bad", &queued).await.unwrap();
    assert_eq!(status.body["status"], "IN_QUEUE", "{status:?}");
    ground.wait_for_no_runner_process();
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_exits_at_once_is_quoted() {
    let ground = with_app("env = { MODE = 'exit' }");
    let answer = ground.run("bad", "/").await;
    answer.assert_error(503, "app_broken");
    assert!(answer.text().contains("exited with code 7"), "{answer:?}");
    assert!(answer.text().contains("no model here"), "{answer:?}");
    ground.wait_for_why(&answer.request, "no model here");
    ground.wait_for_why("bad", "no model here");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_exist_is_named() {
    let ground = ground::start("[apps.bad]\ncommand = ['no-such-program-anywhere']\n");
    let answer = ground.run("bad", "/").await;
    answer.assert_error(503, "app_broken");
    assert!(answer.text().contains("no-such-program-anywhere"), "{answer:?}");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_words_is_capped_while_the_app_serves() {
    let ground = ground::start(
        "[node.limits]\nrunner_log_bytes_max = '1MiB'\n\
         [apps.bad]\n$APP\nenv = { MODE = 'flood' }\n",
    );
    let pid = ground.run("bad", "/").await.pid();
    let node = ground.served.pid().unwrap();
    let before = memory_bytes(node);
    let runner = ground.runners("bad", None).await[0]["id"].as_str().unwrap().to_owned();
    let log = ground.served.data_dir().join("runners").join(&runner);
    // Many times the cap has come by when the first lines are long gone.
    eventually("the log has been cut more than once", SOON, || async {
        let logs = ground.cli(&["runners", "logs", &runner, "--json"]).stdout;
        let first: serde_json::Value =
            serde_json::from_slice(logs.split(|byte| *byte == b'\n').next()?).ok()?;
        (first["number"].as_u64()? > 2_000).then_some(())
    })
    .await;
    assert_eq!(ground.run("bad", "/").await.pid(), pid, "it serves all the while");
    let kept = folder_bytes(&log);
    assert!(kept < 4 << 20, "{kept} bytes of log are kept");
    let grown = memory_bytes(node).saturating_sub(before);
    assert!(grown < 64 << 20, "the node grew by {grown} bytes");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_in_a_queued_request_is_capped_too() {
    let ground = with_app("keep_alive = 60");
    let id = ground.caller().submit("bad", "/flood?lines=20000", "{}").await.unwrap();
    ground.caller().completed("bad", &id).await.assert_ok();
    let path = format!("/queue/local/bad/requests/{id}/status?logs=1");
    let logs = ground.get(&path).await["logs"].as_array().unwrap().len();
    assert!((1..=10_001).contains(&logs), "{logs} lines");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_ignores_sigterm_is_killed_after_its_grace() {
    let ground = with_app(
        "env = { MODE = 'stubborn' }\nkeep_alive = 60\ntermination_grace_period_seconds = 1",
    );
    ground.run("bad", "/").await.assert_ok();
    let runner = ground.runners("bad", None).await[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(ground.cli(&["runners", "stop", &runner]).status.code(), Some(0));
    ground.wait_for_runners("bad", 0).await;
    ground.wait_for_no_runner_process();
    let ended = ground.get(&format!("/api/v1/runners/{runner}")).await;
    let micros = |field: &str| ended[field].as_u64().unwrap();
    assert!(micros("ended_at_micros") > micros("ready_at_micros"));
    ground.wait_for_why(&runner, "stop");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn children_and_daemons_go_with_their_runner() {
    let ground = with_app("env = { MODE = 'children' }\nkeep_alive = 60");
    ground.run("bad", "/children").await.assert_ok();
    let is_sleeper = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|c| c.starts_with("sleep"))
    };
    wait_until("three sleepers of the start and three of the request live", SOON, || {
        (ground.processes().iter().filter(|pid| is_sleeper(pid)).count() == 6).then_some(())
    });
    ground.patch_scaling("bad", serde_json::json!({ "keep_alive": 0 })).await.assert_ok();
    ground.run("bad", "/").await;
    ground.wait_for_runners("bad", 0).await;
    ground.wait_for_no_runner_process();
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_none_are_told_as_such() {
    let ground = with_app("keep_alive = 60");
    for (path, status, error_type) in [
        ("/garbage", 502, "runner_incomplete_response"),
        ("/silent", 503, "runner_disconnected"),
        ("/huge-headers", 500, "runner_server_error"),
        ("/crash", 503, "runner_disconnected"),
    ] {
        let answer = ground.run("bad", path).await;
        assert_eq!(
            (answer.status, answer.error_type.as_deref()),
            (status, Some(error_type)),
            "{path}: {answer:?}"
        );
        ground.wait_for_why(&answer.request, "request");
    }
    // What has been passed on of an answer cannot be taken back: then it breaks off for the caller too.
    for path in ["/half", "/broken-chunks"] {
        if let Ok(answer) = ground.caller().post(&format!("/run/local/bad{path}"), "{}").await {
            answer.assert_error(502, "runner_incomplete_response");
        }
    }
    ground.run("bad", "/").await.assert_ok();
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_requests_outlive_their_runners_crash() {
    let ground = with_app("keep_alive = 60");
    let marker = ground.folder().join("crashed");
    let path = format!("/crash-once?marker={}", marker.display());
    let caller = ground.caller();
    let id = caller.submit("bad", &path, "{}").await.unwrap();
    let answer = caller.completed("bad", &id).await;
    assert_eq!(answer.assert_ok()["survived"], true);
    ground.wait_for_why(&id, "attempt");
    assert!(ground.why(&id).contains("connection_error"), "{}", ground.why(&id));
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_not_endless_and_can_be_forbidden() {
    let ground = with_app("keep_alive = 60");
    let caller = ground.caller();
    let answer = caller.with_header("/queue/local/bad/crash", "x-fal-no-retry", "1").await.unwrap();
    let id = answer.assert_ok()["request_id"].as_str().unwrap().to_owned();
    let answer = caller.completed("bad", &id).await;
    answer.assert_error(503, "runner_disconnected");
    // The app's own 5xx is an answer; only 503 and 504 are tried again.
    let id = caller.submit("bad", "/status?code=500", "{}").await.unwrap();
    assert_eq!(caller.completed("bad", &id).await.status, 500);
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_beyond_an_enforced_machine_type_ends_the_runner_with_the_cause() {
    if let Err(reason) = limits_can_be_enforced() {
        eprintln!("skipped: this host cannot limit a runner's memory ({reason})");
        return;
    }
    let ground = ground::start(
        "[machine_types.small]\nmemory = '128MiB'\nenforce = true\n\
         [apps.bad]\n$APP\nmachine_type = 'small'\nkeep_alive = 60\n",
    );
    ground.run("bad", "/").await.assert_ok();
    let runner = ground.runners("bad", None).await[0]["id"].as_str().unwrap().to_owned();
    ground.run("bad", "/hog").await.assert_error(503, "runner_disconnected");
    ground.wait_for_why(&runner, "memory");
    ground.run("bad", "/").await.assert_ok();
    ground.end().await;
}

/// Whether the process backend could make cgroups here: asks the binary, as a user would.
#[expect(clippy::disallowed_methods, reason = "the command line under test")]
fn limits_can_be_enforced() -> Result<(), String> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_glowplug"))
        .args(["doctor", "--json"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let checks: Vec<serde_json::Value> = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let memory = checks.iter().find(|check| check["name"] == "memory limits").unwrap();
    if memory["status"] == "ok" { Ok(()) } else { Err(memory["detail"].to_string()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_health_is_not_ready() {
    let ground =
        with_app("env = { MODE = 'unhealthy' }\nhealth_path = '/health'\nstartup_timeout = 1");
    ground.run("bad", "/").await.assert_error(504, "startup_timeout");
    ground.wait_for_no_runner_process();
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_health_is_waited_for() {
    let ground =
        with_app("env = { MODE = 'slow_health' }\nhealth_path = '/health'\nkeep_alive = 60");
    ground.run("bad", "/").await.assert_ok();
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_app_leaves_the_others_alone() {
    let ground = ground::start(
        "[apps.bad]\n$APP\nenv = { MODE = 'exit' }\n[apps.good]\n$APP\nkeep_alive = 60\n",
    );
    let (one, other) = (ground.caller(), ground.caller());
    let bad = tokio::spawn(async move {
        one.post("/run/local/bad/", "{}").await.unwrap().assert_error(503, "app_broken");
    });
    let calls = (0..30).map(|_| {
        let caller = other.clone();
        async move { caller.post("/run/local/good/", "{}").await.unwrap() }
    });
    for answer in all(calls).await {
        answer.assert_ok();
    }
    bad.await.unwrap();
    ground.end().await;
}

fn memory_bytes(pid: u32) -> u64 {
    let status = wait_until("the node's memory can be read", SOON, || {
        std::fs::read_to_string(format!("/proc/{pid}/status")).ok()
    });
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn folder_bytes(folder: &std::path::Path) -> u64 {
    std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|file| file.len())
        .sum()
}
