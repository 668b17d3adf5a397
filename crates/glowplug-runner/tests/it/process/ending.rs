//! Nothing of a runner outlives it, however it or those above it end.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use glowplug_runner::conformance::{Fixture, Node, Program, eventually, leaves_nothing};
use glowplug_runner::{ExitCause, Limits, StopMode};
use rustix::process::{Pid, Signal, kill_process};

use super::fixture::ProcessFixture;

const MEMORY_LIMIT_BYTES: u64 = 64 << 20;

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// The program and the daemon it has left behind.
async fn two_processes(fixture: &ProcessFixture, id: glowplug_core::RunnerId) {
    eventually(
        || fixture.processes(Some(id)).len() == 2,
        || format!("program and daemon should run: {:?}", fixture.processes(Some(id))),
    )
    .await;
}

#[tokio::test]
async fn daemons_end_with_the_runner() {
    let fixture = ProcessFixture::new();
    let mut node = Node::start(&fixture);
    for (number, how) in [(1, Some(StopMode::Kill)), (2, None)] {
        let spec = fixture.spec_of(number, &["daemonise", "serve"]);
        let address = node.bring_up(&spec).await;
        two_processes(&fixture, spec.id).await;
        match how {
            Some(mode) => node.backend.stop(spec.id, mode).await.unwrap(),
            None => drop(glowplug_runner::conformance::get(&address, "/crash").await),
        }
        node.exited(spec.id).await;
        assert!(fixture.processes(Some(spec.id)).is_empty(), "gone by the time of the notice");
        node.backend.forget(spec.id).await.unwrap();
    }
    leaves_nothing(&fixture).await;
}

#[tokio::test]
async fn a_killed_shim_takes_its_runner_along() {
    let fixture = ProcessFixture::new();
    let mut node = Node::start(&fixture);
    let spec = fixture.spec_of(1, &["say", "hello", "daemonise", "serve"]);
    node.bring_up(&spec).await;
    two_processes(&fixture, spec.id).await;
    // Whoever reads the log makes the shim write down what the program has said.
    drop(node.backend.logs(spec.id, 0, false).await.unwrap());
    kill(fixture.shims()[0]);
    let exit = node.exited(spec.id).await;
    assert_eq!(exit.cause, ExitCause::Unknown);
    assert!(exit.log_tail.contains(&"hello".to_owned()), "{:?}", exit.log_tail);
    assert!(fixture.processes(Some(spec.id)).is_empty(), "gone by the time of the notice");
    node.backend.forget(spec.id).await.unwrap();
    leaves_nothing(&fixture).await;
}

#[tokio::test]
async fn a_shim_killed_while_no_node_watches_is_found_later() {
    let fixture = ProcessFixture::new();
    let mut node = Node::start(&fixture);
    let spec = fixture.spec_of(1, &["daemonise", "serve"]);
    node.bring_up(&spec).await;
    two_processes(&fixture, spec.id).await;
    let shim = fixture.shims()[0];
    drop(node);
    kill(shim);

    let mut node = Node::start(&fixture);
    node.observe().await;
    assert_eq!(node.exited(spec.id).await.cause, ExitCause::Unknown);
    assert!(fixture.processes(None).is_empty());
    drop(node);
    let mut node = Node::start(&fixture);
    assert!(node.observe().await.is_empty());
    node.expect_silence();
    leaves_nothing(&fixture).await;
}

#[tokio::test]
async fn a_shim_that_cannot_run_is_explained() {
    let fixture = ProcessFixture::new();
    let mut node = Node::start_with(fixture.open_with_shim("/bin/false"));
    let spec = fixture.spec(1, Program::Serves);
    node.ensure(&spec).await;
    assert_eq!(node.exited(spec.id).await.cause, ExitCause::Unknown);
    node.backend.forget(spec.id).await.unwrap();
    let node = Node::start_with(fixture.open_with_shim("/no/such/shim"));
    let refused = node.backend.ensure(&spec).await.unwrap_err();
    assert!(refused.to_string().contains("/no/such/shim"), "{refused}");
    leaves_nothing(&fixture).await;
}

#[tokio::test]
async fn a_shim_that_is_stuck_in_a_start_can_be_ended() {
    let fixture = ProcessFixture::new();
    let stuck = fixture.path().join("stuck");
    std::fs::write(&stuck, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&stuck, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut node = Node::start_with(fixture.open_with_shim(stuck.to_str().unwrap()));
    let modes = [StopMode::Kill, StopMode::Graceful { grace: Duration::from_millis(10) }];
    for (number, mode) in (1..).zip(modes) {
        let spec = fixture.spec(number, Program::Serves);
        node.ensure(&spec).await;
        node.backend.stop(spec.id, mode).await.unwrap();
        assert_eq!(node.exited(spec.id).await.cause, ExitCause::Unknown);
        node.backend.forget(spec.id).await.unwrap();
    }
    leaves_nothing(&fixture).await;
}

#[tokio::test]
async fn a_runner_without_a_node_ends_in_time() {
    let fixture = ProcessFixture::new();
    let mut node = Node::start(&fixture);
    let mut spec = fixture.spec(1, Program::IgnoresTerm);
    (spec.orphan_timeout, spec.grace) = (Duration::from_millis(200), Duration::from_millis(100));
    node.bring_up(&spec).await;
    drop(node);
    eventually(|| fixture.shims().is_empty(), || "the shim should give up".to_owned()).await;
    assert!(fixture.processes(None).is_empty());

    let mut node = Node::start(&fixture);
    node.observe().await;
    let exit = node.exited(spec.id).await;
    assert_eq!(exit.cause, ExitCause::Signal(9));
    assert!(exit.log_tail.iter().any(|line| line.contains("no node has come back")), "{exit:?}");
    node.backend.forget(spec.id).await.unwrap();
    leaves_nothing(&fixture).await;
}

#[tokio::test]
async fn too_much_memory_is_told_as_such() {
    if !glowplug_runner::host::can_limit("memory") {
        println!("skipped: this host has no writable memory control group");
        return;
    }
    let fixture = ProcessFixture::new();
    let mut node = Node::start(&fixture);
    let limits = Limits { memory_bytes: Some(MEMORY_LIMIT_BYTES), ..Limits::default() };
    let mut greedy = fixture.spec_of(1, &["allocate", "200", "serve"]);
    greedy.limits = limits;
    node.ensure(&greedy).await;
    node.spawned(greedy.id).await;
    assert_eq!(node.exited(greedy.id).await.cause, ExitCause::OutOfMemory);
    node.backend.forget(greedy.id).await.unwrap();

    let mut modest = fixture.spec_of(2, &["allocate", "20", "serve"]);
    modest.limits = limits;
    node.bring_up(&modest).await;
    assert_eq!(node.clear(modest.id).await.cause, ExitCause::Signal(9));
    leaves_nothing(&fixture).await;
}

#[tokio::test]
async fn all_limits_together_leave_no_group() {
    let fixture = ProcessFixture::new();
    let mut node = Node::start(&fixture);
    let mut spec = fixture.spec_of(1, &["daemonise", "serve"]);
    spec.limits = Limits {
        cpu_millis: Some(500),
        memory_bytes: Some(MEMORY_LIMIT_BYTES),
        pids_max: Some(20),
        open_files_max: Some(64),
    };
    node.bring_up(&spec).await;
    node.clear(spec.id).await;
    leaves_nothing(&fixture).await;
}
