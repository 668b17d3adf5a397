//! Frozen processes, and those above them that end.

use std::time::Duration;

use glowplug_runner::conformance::{Fixture, Node, Program, eventually, get, leaves_nothing};
use glowplug_runner::{ExitCause, Notice};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::fixture::ProcessFixture;

async fn freeze(node: &mut Node, id: glowplug_core::RunnerId) {
    node.backend.freeze(id).await.unwrap();
    let notice = node.next(id).await;
    assert!(matches!(notice, Notice::Frozen { frozen: Ok(_), .. }), "{notice:?}");
}

#[tokio::test]
async fn a_frozen_runner_ends_with_its_shim() {
    let fixture = ProcessFixture::new();
    let mut node = Node::start(&fixture);
    let spec = fixture.spec_of(1, &["daemonise", "serve"]);
    node.bring_up(&spec).await;
    freeze(&mut node, spec.id).await;
    let shim = Pid::from_raw(fixture.shims()[0]).unwrap();
    kill_process(shim, Signal::KILL).unwrap();
    assert_eq!(node.exited(spec.id).await.cause, ExitCause::Unknown);
    assert!(fixture.processes(Some(spec.id)).is_empty(), "gone by the time of the notice");
    node.backend.forget(spec.id).await.unwrap();
    leaves_nothing(&fixture).await;
}

#[tokio::test]
async fn a_frozen_runner_without_a_node_ends_in_time() {
    let fixture = ProcessFixture::new();
    let mut node = Node::start(&fixture);
    let mut spec = fixture.spec(1, Program::Serves);
    spec.orphan_timeout = Duration::from_millis(100);
    node.bring_up(&spec).await;
    freeze(&mut node, spec.id).await;
    drop(node);
    eventually(|| fixture.programs(spec.id) == 0, || "it should have ended".to_owned()).await;
    let mut node = Node::start(&fixture);
    node.observe().await;
    assert_eq!(node.exited(spec.id).await.cause, ExitCause::Signal(15));
    node.backend.forget(spec.id).await.unwrap();
    leaves_nothing(&fixture).await;
}

#[tokio::test]
async fn thawing_is_quick() {
    let fixture = ProcessFixture::new();
    let mut node = Node::start(&fixture);
    let spec = fixture.spec(1, Program::Serves);
    let address = node.bring_up(&spec).await;
    let mut times = Vec::new();
    for _ in 0..20 {
        freeze(&mut node, spec.id).await;
        let began = Instant::now();
        node.backend.thaw(spec.id).await.unwrap();
        let notice = node.next(spec.id).await;
        assert!(matches!(notice, Notice::Thawed { .. }), "{notice:?}");
        let thawed = began.elapsed();
        assert_eq!(get(&address, "/").await.map(|(status, _)| status), Some(200));
        times.push((thawed, began.elapsed()));
    }
    times.sort_unstable();
    let (thawed, answered) = times[times.len() / 2];
    println!("thawed after {thawed:?}, answered after {answered:?} (medians of 20)");
    node.clear(spec.id).await;
    leaves_nothing(&fixture).await;
}
