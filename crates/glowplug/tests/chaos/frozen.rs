//! Runners that are kept without a processor.

use glowplug_testkit::eventually;

use super::ground::{self, Ground, SOON};

const CONFIG: &str = "[apps.app]\n$APP\nkeep_alive = 0.2\nfreeze = 'auto'\n";

/// Waits until the app's only runner is frozen; returns its id.
async fn frozen(ground: &Ground) -> String {
    eventually("its runner is frozen", SOON, || async {
        let runners = ground.runners("app", Some("IDLE")).await;
        let frozen = |runner: &serde_json::Value| {
            runner["detail"] == "frozen" && runner["held_bytes"].as_u64() > Some(0)
        };
        let runner = runners.iter().find(|runner| frozen(runner))?;
        Some(runner["id"].as_str().unwrap().to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_runner_is_frozen_and_serves_again() {
    let ground = ground::start(CONFIG);
    let pid = ground.run("app", "/").await.pid();
    let runner = frozen(&ground).await;
    for _ in 0..3 {
        assert_eq!(ground.run("app", "/").await.pid(), pid);
        assert_eq!(frozen(&ground).await, runner);
    }
    ground.wait_for_why(&runner, "was frozen instead of stopped");
    ground.wait_for_why(&runner, "from a frozen runner");
    assert!(ground.why("local/app").contains("from a frozen runner (3)"));
    let id = ground.caller().submit("app", "/", "{}").await.unwrap();
    ground.caller().completed("app", &id).await.assert_ok();
    ground.wait_for_why(&id, "which was frozen and took");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_runner_is_taken_over_after_a_crash() {
    let mut ground = ground::start(CONFIG);
    let pid = ground.run("app", "/").await.pid();
    for _ in 0..2 {
        let runner = frozen(&ground).await;
        ground.served.kill();
        ground.served.start_again().unwrap();
        assert_eq!(frozen(&ground).await, runner);
        assert_eq!(ground.run("app", "/").await.pid(), pid);
    }
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_runner_ends_when_it_is_told_to_and_without_a_node() {
    let config = format!("[node]\nadopt_timeout = 1\n{CONFIG}");
    let mut ground = ground::start(&config);
    ground.run("app", "/").await.assert_ok();
    let runner = frozen(&ground).await;
    assert_eq!(ground.cli(&["runners", "stop", &runner]).status.code(), Some(0));
    ground.wait_for_runners("app", 0).await;
    ground.run("app", "/").await.assert_ok();
    frozen(&ground).await;
    ground.served.kill();
    glowplug_testkit::wait_until("nothing is left of it", SOON, || {
        ground.processes().is_empty().then_some(())
    });
    ground.served.start_again().unwrap();
    ground.run("app", "/").await.assert_ok();
    ground.end().await;
}
