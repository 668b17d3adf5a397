//! Whatever is killed, nothing is left behind and the next start goes well.

use glowplug_testkit::{eventually, wait_until};

use super::scene::{FORKED, SOON, Scene, kill, parent, start};

/// A scene whose one runner was forked, has left children behind, and its zygote.
async fn forked() -> (Scene, u32, u32) {
    let scene = start("Chance", "", "", &[]);
    scene.call("/").await;
    scene.wait_for_zygote();
    let (runner, left) = scene.start_anew("/leave").await;
    scene.wait_for_why(&runner, FORKED);
    let program = u32::try_from(left["pid"].as_u64().unwrap()).unwrap();
    let zygote = scene.zygotes()[0];
    assert_eq!(parent(program), Some(zygote));
    (scene, program, zygote)
}

/// Waits until the program and what it has left are gone.
fn wait_until_gone(scene: &Scene, before: &[u32], stay: &[u32]) {
    wait_until("what was killed is gone", SOON, || {
        let now = scene.processes();
        now.iter().all(|pid| stay.contains(pid) || !before.contains(pid)).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_zygote_takes_its_runners_along_and_the_next_start_goes_well() {
    let (scene, _, zygote) = forked().await;
    let node = scene.served.pid().unwrap();
    let before = scene.processes();
    kill(zygote);
    wait_until_gone(&scene, &before, &[node]);
    eventually("the node has seen it", SOON, || async {
        scene.runners().await.is_empty().then_some(())
    })
    .await;
    assert_eq!(scene.call("/").await["total"], 45.0);
    scene.wait_for_zygote();
    let (runner, _) = scene.start_anew("/").await;
    scene.wait_for_why(&runner, FORKED);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_supervisor_takes_its_forked_runner_along() {
    let (scene, program, zygote) = forked().await;
    let node = scene.served.pid().unwrap();
    let of_zygote = parent(zygote).unwrap();
    let mut before = scene.processes();
    before.push(program);
    // The node's other child: a forked runner is no child of its supervisor.
    let supervisors: Vec<u32> = before
        .iter()
        .copied()
        .filter(|pid| parent(*pid) == Some(node) && *pid != of_zygote)
        .collect();
    assert_eq!(supervisors.len(), 1, "{before:?}");
    kill(supervisors[0]);
    wait_until_gone(&scene, &before, &[node, of_zygote, zygote]);
    let (runner, answer) = scene.start_anew("/").await;
    assert_eq!(answer["total"], 45.0);
    scene.wait_for_why(&runner, FORKED);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_finds_runner_and_zygote_again() {
    let (mut scene, program, zygote) = forked().await;
    scene.served.kill();
    scene.served.start_again().unwrap();
    eventually("the runner is adopted", SOON, || async {
        let runners = scene.runners().await;
        runners.iter().any(|runner| runner["state"] == "IDLE").then_some(())
    })
    .await;
    assert_eq!(scene.call("/leave").await["pid"], program);
    assert_eq!(scene.zygotes(), [zygote]);
    let (runner, _) = scene.start_anew("/").await;
    scene.wait_for_why(&runner, FORKED);
    assert_eq!(scene.zygotes(), [zygote], "it serves the next life of the node as well");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_makes_no_zygotes_any_more_keeps_the_runners_of_those_it_finds() {
    let (mut scene, program, zygote) = forked().await;
    scene.served.kill();
    let none = ("GLOWPLUG_NODE__WARMTH__ZYGOTE_MEMORY_MAX", "0");
    scene.served.start_again_with(&[none]).unwrap();
    assert_eq!(scene.call("/leave").await["pid"], program);
    assert_eq!(scene.zygotes(), [zygote]);
    let (runner, _) = scene.start_anew("/").await;
    assert!(!scene.cli(&["why", &runner]).contains(FORKED));
    wait_until("it has ended with its last runner", SOON, || {
        scene.zygotes().is_empty().then_some(())
    });
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_a_node_that_does_not_come_back() {
    let scene = {
        let settings = "[node]\nadopt_timeout = 1\n";
        let scene = start("Chance", settings, "", &[]);
        scene.call("/").await;
        scene.wait_for_zygote();
        scene.start_anew("/leave").await;
        scene
    };
    let mut scene = scene;
    scene.served.kill();
    wait_until("no process is left", SOON, || scene.processes().is_empty().then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zygote_that_hangs_is_not_waited_for() {
    let scene = start("Chance", "", "", &[]);
    scene.call("/").await;
    scene.wait_for_zygote();
    scene.end_runners().await;
    let zygote = i32::try_from(scene.zygotes()[0]).unwrap();
    let pid = rustix::process::Pid::from_raw(zygote).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let (runner, answer) = scene.start_anew("/").await;
    assert_eq!(answer["total"], 45.0);
    assert!(!scene.cli(&["why", &runner]).contains(FORKED));
    let log = scene.cli(&["runners", "logs", &runner]);
    assert!(log.contains("starting plainly"), "{log}");
    wait_until("the one that hangs is ended", SOON, || {
        (!std::path::Path::new(&format!("/proc/{zygote}")).exists()).then_some(())
    });
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forked_runner_is_held_to_its_memory() {
    if !glowplug_runner::host::can_limit("memory") {
        println!("skipped: this host has no memory limits to give");
        return;
    }
    let machine = "[machine_types.tight]\nmemory = '256MiB'\ncpu = 1\nenforce = true\n";
    let scene = start("Chance", machine, "machine_type = 'tight'", &[]);
    scene.call("/").await;
    scene.wait_for_zygote();
    let (runner, _) = scene.start_anew("/").await;
    scene.wait_for_why(&runner, FORKED);
    let (status, _) = scene.try_call("/hog").await;
    assert!(status >= 500, "{status}");
    scene.wait_for_why(&runner, "ran out of the memory");
    let (runner, _) = scene.start_anew("/").await;
    scene.wait_for_why(&runner, FORKED);
    scene.end().await;
}
