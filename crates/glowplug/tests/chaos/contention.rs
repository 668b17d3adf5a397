//! More apps than fit: two on one declared GPU.

use std::time::Duration;

use glowplug_testkit::eventually;

use super::ground::{self, SOON};

const ONE_GPU: &str = "[node.resources]\ngpus = [{ kind = 'H100', memory = '80GiB', count = 1 }]\n\
     [machine_types.gpu]\ngpus = 1\n";

#[tokio::test(flavor = "multi_thread")]
async fn two_apps_on_one_gpu_swap() {
    let ground = ground::start(&format!(
        "{ONE_GPU}[apps.one]\n$APP\nmachine_type = 'gpu'\nkeep_alive = 600\n\
         [apps.two]\n$APP\nmachine_type = 'gpu'\nkeep_alive = 600\n[apps.none]\n$APP\n"
    ));
    for round in 0..2 {
        for app in ["one", "two"] {
            let env = ground.run(app, "/env").await.assert_ok().clone();
            assert_eq!(env["CUDA_VISIBLE_DEVICES"], "0", "round {round} of {app}");
        }
    }
    let env = ground.run("none", "/env").await.assert_ok().clone();
    assert_eq!(env["CUDA_VISIBLE_DEVICES"], "", "no GPU is visible to an app without one");
    ground.wait_for_runners("one", 0).await;
    ground.wait_for_why("one", "two");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_floor_is_not_swapped_out_and_the_other_waits() {
    let ground = ground::start(&format!(
        "{ONE_GPU}[apps.floor]\n$APP\nmachine_type = 'gpu'\nmin_concurrency = 1\nkeep_alive = 600\n\
         [apps.other]\n$APP\nmachine_type = 'gpu'\n"
    ));
    let pid = ground.run("floor", "/").await.pid();
    let caller = ground.caller();
    let waits = tokio::spawn(async move { caller.post("/run/local/other/", "{}").await });
    let pending = eventually("the other is pending", SOON, || async {
        ground.runners("other", Some("PENDING")).await.pop()
    })
    .await;
    ground.wait_for_why(pending["id"].as_str().unwrap(), "GPU");
    assert_eq!(ground.run("floor", "/").await.pid(), pid, "the floor stays");
    let patch = serde_json::json!({ "min_concurrency": 0 });
    ground.patch_scaling("floor", patch).await.assert_ok();
    let answer = tokio::time::timeout(Duration::from_secs(40), waits).await.unwrap();
    answer.unwrap().unwrap().assert_ok();
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_fit_is_refused_with_the_reason() {
    let ground = ground::start(&format!(
        "{ONE_GPU}[machine_types.two]\ngpus = 2\n[apps.app]\n$APP\nmachine_type = 'two'\n"
    ));
    let answer = ground.run("app", "/").await;
    answer.assert_error(503, "runner_scheduling_failure");
    assert!(answer.text().contains("GPU"), "{answer:?}");
    let id = ground.caller().submit("app", "/", "{}").await.unwrap();
    let answer = ground.caller().completed("app", &id).await;
    answer.assert_error(503, "runner_scheduling_failure");
    ground.end().await;
}

/// A restart must count what living runners hold: the GPU is not given away a second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_stays_with_its_runner_over_a_crash_of_the_node() {
    let mut ground = ground::start(&format!(
        "{ONE_GPU}[apps.a]\n$APP\nmachine_type = 'gpu'\nkeep_alive = 600\n\
         [apps.b]\n$APP\nmachine_type = 'gpu'\nkeep_alive = 600\n"
    ));
    let holder = ground.run("b", "/").await.pid();
    // With the next start `a` wants a floor, and comes first.
    ground.served.kill();
    let config = ground.served.folder().join("glowplug.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replacen("keep_alive", "min_concurrency = 1\nkeep_alive", 1))
        .unwrap();
    ground.served.start_again().unwrap();
    let two = ground.get("/api/v1/runners?ended=true").await;
    let b = two.as_array().unwrap().iter().find(|runner| runner["app"] == "local/b").unwrap();
    assert_eq!(b["cause_label"], "adopted", "{two}");
    eventually("the floor of `a` waits for the GPU", SOON, || async {
        (ground.runners("a", Some("PENDING")).await.len() == 1).then_some(())
    })
    .await;
    assert_eq!(ground.run("b", "/").await.pid(), holder, "the runner has kept its GPU");
    // A request gets it by a swap.
    ground.run("a", "/").await.assert_ok();
    assert!(!ground.processes().contains(&u32::try_from(holder).unwrap()), "both hold the GPU");
    ground.end().await;
}
