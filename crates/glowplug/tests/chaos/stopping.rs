//! Stopping in order: what runs may finish, what waits is told, nothing is left.

use glowplug_testkit::{eventually, wait_until};

use super::ground::{self, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_finish_before_the_node_ends() {
    let mut ground = ground::start("[apps.app]\n$APP\nkeep_alive = 60\n");
    ground.run("app", "/").await.assert_ok();
    let caller = ground.caller();
    let direct = tokio::spawn(async move { caller.post("/run/local/app/?seconds=2", "{}").await });
    let queued = ground.caller().submit("app", "/?seconds=0.2", "{}").await.unwrap();
    eventually("both run", SOON, || async {
        (!ground.runners("app", Some("RUNNING")).await.is_empty()).then_some(())
    })
    .await;
    assert_eq!(ground.served.stop(), Some(0));
    direct.await.unwrap().unwrap().assert_ok();
    ground.assert_nothing_left();
    ground.served.start_again().unwrap();
    ground.caller().completed("app", &queued).await.assert_ok();
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_outlasts_the_shutdown_is_cut() {
    let mut ground =
        ground::start("[node]\nshutdown_timeout = 1\n[apps.app]\n$APP\nkeep_alive = 60\n");
    ground.run("app", "/").await.assert_ok();
    let caller = ground.caller();
    let direct =
        tokio::spawn(async move { caller.post("/run/local/app/?seconds=600", "{}").await });
    eventually("it runs", SOON, || async {
        (ground.runners("app", Some("RUNNING")).await.len() == 1).then_some(())
    })
    .await;
    assert_eq!(ground.served.stop(), Some(0));
    let answer = direct.await.unwrap();
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status >= 500));
    ground.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_given_up_when_the_node_stops() {
    let mut ground =
        ground::start("[node]\nshutdown_timeout = 1\n[apps.app]\n$APP\nenv = { SETUP = '100' }\n");
    let caller = ground.caller();
    let direct = tokio::spawn(async move { caller.post("/run/local/app/", "{}").await });
    let queued = ground.caller().submit("app", "/", "{}").await.unwrap();
    ground.wait_for_runners("app", 2).await;
    assert_eq!(ground.served.stop(), Some(0));
    let answer = direct.await.unwrap();
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 503));
    ground.assert_nothing_left();
    ground.served.start_again().unwrap();
    let status = ground.caller().status("app", &queued).await.unwrap();
    assert_eq!(status.body["status"], "IN_QUEUE", "it is still accepted: {status:?}");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_work_stops_at_once() {
    let mut ground = ground::start("[apps.app]\n$APP\nkeep_alive = 600\n");
    ground.run("app", "/").await.assert_ok();
    // The client keeps its connection open, as clients do.
    let node = ground.served.pid().unwrap();
    let ended = std::thread::spawn(move || {
        wait_until("the node is gone", std::time::Duration::from_secs(10), || {
            (!std::path::Path::new(&format!("/proc/{node}")).exists()).then_some(())
        });
    });
    assert_eq!(ground.served.stop(), Some(0));
    ended.join().unwrap();
    ground.assert_nothing_left();
}
