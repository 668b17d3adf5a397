//! Cold, warm, gone: the life of runners as callers and operators see it over HTTP.

use std::time::Duration;

use glowplug_testkit::eventually;
use serde_json::{Value, json};

use super::ground::{self, SOON, all};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_wakes_an_app_which_goes_cold_again() {
    let ground = ground::start("[apps.app]\n$APP\nkeep_alive = 0.5\n");
    let cold = ground.run("app", "/").await;
    let warm = ground.run("app", "/").await;
    assert_eq!(cold.pid(), warm.pid());
    let runner = ground.runners("app", None).await[0]["id"].as_str().unwrap().to_owned();
    ground.wait_for_runners("app", 0).await;
    ground.wait_for_no_runner_process();
    ground.wait_for_why(&runner, "keep_alive");
    ground.wait_for_why(&cold.request, "was started for it");
    assert!(ground.why(&warm.request).contains("went to the warm runner"));
    assert_ne!(ground.run("app", "/").await.pid(), cold.pid(), "and wakes it again");
    let again = ground.get("/api/v1/runners?app=local/app").await[0].clone();
    assert_eq!(again["cause_label"], "expired", "{again}");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_starts_as_many_runners_as_multiplexing_asks_for() {
    let ground = ground::start("[apps.app]\n$APP\nkeep_alive = 60\nmax_multiplexing = 4\n");
    let calls = (0..8).map(|_| {
        let caller = ground.caller();
        async move { caller.post("/run/local/app/?seconds=1.5", "{}").await.unwrap() }
    });
    let answers = all(calls).await;
    let mut served: std::collections::BTreeMap<u64, u32> = std::collections::BTreeMap::new();
    for answer in answers {
        *served.entry(answer.pid()).or_default() += 1;
    }
    assert_eq!(served.values().sum::<u32>(), 8);
    // The first four may all have been served by the first runner before the second was there.
    let started = ground.runners("app", None).await.len();
    assert!(started <= 2 && !served.is_empty(), "{started} runners for {served:?}");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_holds_and_everybody_is_served() {
    let ground = ground::start("[apps.app]\n$APP\nkeep_alive = 60\nmax_concurrency = 2\n");
    let calls = (0..12).map(|_| {
        let caller = ground.caller();
        async move { caller.post("/run/local/app/?seconds=0.05", "{}").await.unwrap() }
    });
    let mut pids: Vec<u64> = all(calls).await.iter().map(ground::Answer::pid).collect();
    pids.sort_unstable();
    pids.dedup();
    assert!(pids.len() <= 2, "{pids:?}");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_act_at_once_and_outlive_the_node() {
    let mut ground = ground::start("[apps.app]\n$APP\nkeep_alive = 300\n");
    ground.run("app", "/").await.assert_ok();
    // A floor starts runners without a request; lowering it and keep_alive ends idle ones now.
    ground.patch_scaling("app", json!({ "min_concurrency": 2 })).await.assert_ok();
    eventually("the floor is there", SOON, || async {
        (ground.runners("app", Some("IDLE")).await.len() == 2).then_some(())
    })
    .await;
    ground
        .patch_scaling("app", json!({ "min_concurrency": 0, "keep_alive": 0.2 }))
        .await
        .assert_ok();
    ground.wait_for_runners("app", 0).await;
    let refused =
        ground.patch_scaling("app", json!({ "min_concurrency": 3, "max_concurrency": 1 })).await;
    refused.assert_error(400, "bad_request");
    ground.patch_scaling("app", json!({ "min_concurrency": 1 })).await.assert_ok();

    assert_eq!(ground.served.stop(), Some(0));
    ground.served.start_again().unwrap();
    ground.wait_for_runners("app", 1).await;
    let app = ground.get("/api/v1/apps/local/app").await;
    assert_eq!(app["scaling"]["min_concurrency"], 1);
    assert_eq!(app["scaling"]["keep_alive"], 0.2);
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runners_are_stopped_replaced_and_killed_by_hand() {
    let ground = ground::start("[apps.app]\n$APP\nmin_concurrency = 1\nkeep_alive = 60\n");
    let ready = async || {
        eventually("a runner is idle", SOON, || async {
            let mut idle = ground.runners("app", Some("IDLE")).await;
            let alone = ground.runners("app", None).await.len() == 1;
            if alone { idle.pop() } else { None }
        })
        .await["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let first = ready().await;
    for arguments in [["runners", "stop"].as_slice(), &["runners", "kill"]] {
        let before = ready().await;
        let output = ground.cli(&[arguments, &[&before]].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        eventually("another has its place", SOON, || async {
            (ready().await != before).then_some(())
        })
        .await;
    }
    let before = ready().await;
    let pid = ground.run("app", "/").await.pid();
    let output = ground.cli(&["runners", "stop", "--replace", &before]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // At every moment there is one that serves.
    eventually("the new one serves", SOON, || async {
        (ground.run("app", "/").await.pid() != pid).then_some(())
    })
    .await;
    assert_ne!(ready().await, first);
    assert_ne!(ground.cli(&["runners", "stop", "r9-9"]).status.code(), Some(0));
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_flushed_of_what_waits() {
    let ground = ground::start("[apps.app]\n$APP\nmax_concurrency = 1\nkeep_alive = 60\n");
    let caller = ground.caller();
    let running = caller.submit("app", "/?seconds=3", "{}").await.unwrap();
    eventually("it runs", SOON, || async {
        let status = caller.status("app", &running).await.ok()?;
        (status.body["status"] == "IN_PROGRESS").then_some(())
    })
    .await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(caller.submit("app", "/", "{}").await.unwrap());
    }
    let output = ground.cli(&["queue", "flush", "app", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let flushed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(flushed["removed"], 5, "{flushed}");
    for id in &waiting {
        caller.completed("app", id).await.assert_error(499, "client_cancelled");
    }
    caller.completed("app", &running).await.assert_ok();
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_takes_too_long_ends_with_its_runner() {
    let ground = ground::start("[apps.app]\n$APP\nrequest_timeout = 0.5\nkeep_alive = 60\n");
    let pid = ground.run("app", "/").await.pid();
    let answer = ground.run("app", "/?seconds=100").await;
    answer.assert_error(504, "request_timeout");
    ground.wait_for_why(&answer.request, "request_timeout");
    eventually("its runner is gone", SOON, || async {
        (!ground.processes().contains(&u32::try_from(pid).unwrap())).then_some(())
    })
    .await;
    ground.run("app", "/").await.assert_ok();
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_deadline_is_kept() {
    let ground = ground::start("[apps.app]\n$APP\nenv = { SETUP = '30' }\n");
    let answer = ground
        .caller()
        .with_header("/run/local/app/", "x-fal-request-start-timeout", "0.5")
        .await
        .unwrap();
    answer.assert_error(504, "request_timeout");
    let queued = ground
        .caller()
        .with_header("/queue/local/app", "x-fal-request-start-timeout", "0.5")
        .await
        .unwrap();
    let id = queued.assert_ok()["request_id"].as_str().unwrap().to_owned();
    ground.caller().completed("app", &id).await.assert_error(504, "request_timeout");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_takes_the_start_with_it() {
    let ground = ground::start("[apps.app]\n$APP\nenv = { SETUP = '60' }\nkeep_alive = 0.2\n");
    let caller = ground.caller();
    let call = tokio::spawn(async move { caller.post("/run/local/app/", "{}").await });
    ground.wait_for_runners("app", 1).await;
    call.abort();
    ground.wait_for_runners("app", 0).await;
    ground.wait_for_no_runner_process();
    let app = ground.get("/api/v1/apps/local/app").await;
    assert_eq!((&app["queued"], &app["in_flight"]), (&json!(0), &json!(0)));
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_of_a_caller_that_goes_away_is_free_when_the_work_is_done() {
    let ground = ground::start("[apps.app]\n$APP\nmax_concurrency = 1\nkeep_alive = 60\n");
    ground.run("app", "/").await.assert_ok();
    let caller = ground.caller();
    let call = tokio::spawn(async move { caller.post("/run/local/app/?seconds=3", "{}").await });
    eventually("it runs", SOON, || async {
        (ground.runners("app", Some("RUNNING")).await.len() == 1).then_some(())
    })
    .await;
    call.abort();
    let answer = tokio::time::timeout(Duration::from_secs(20), ground.run("app", "/")).await;
    answer.unwrap().assert_ok();
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_request_can_be_cancelled_while_it_waits() {
    let ground = ground::start("[apps.app]\n$APP\nenv = { SETUP = '60' }\nkeep_alive = 0.1\n");
    let caller = ground.caller();
    let id = caller.submit("app", "/", "{}").await.unwrap();
    let path = format!("/queue/local/app/requests/{id}/cancel");
    let cancelled = caller.call(reqwest::Method::PUT, &path, String::new()).await.unwrap();
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    caller.completed("app", &id).await.assert_error(499, "client_cancelled");
    let again = caller.call(reqwest::Method::PUT, &path, String::new()).await.unwrap();
    assert_eq!(again.status, 400, "{again:?}");
    ground.wait_for_runners("app", 0).await;
    ground.end().await;
}
