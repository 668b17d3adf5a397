//! Snapshots: a program captured with all that it holds, restored as often as wanted, and started plainly
//! whenever something is wrong with that.

mod app;
mod faults;

use std::collections::BTreeSet;
use std::time::Duration;

use glowplug_core::{Rung, RunnerId};
use glowplug_runner::conformance::{Node, leaves_nothing};
use glowplug_runner::{ExitCause, Notice};

use self::app::{Snapshots, state};

/// Makes the fixture, or says why the test is skipped.
macro_rules! fixture {
    () => {
        match Snapshots::if_possible() {
            Ok(fixture) => fixture,
            Err(why) => {
                println!("skipped: {why}");
                return;
            }
        }
    };
}
use fixture;

#[tokio::test]
async fn what_is_captured_goes_on_where_it_was() {
    let fixture = fixture!();
    let mut node = Node::start(&fixture.processes);
    let captured = fixture.capture(&mut node, 1, &["memory", "8"]).await;
    for number in [2, 3] {
        let spec = fixture.restored(number, &captured);
        node.ensure(&spec).await;
        assert_eq!(rung(&mut node, spec.id).await, Rung::Snapshot);
        let address = node.ready(spec.id).await;
        let state = state(&address).await;
        assert_eq!(state["secret"], captured.state["secret"]);
        assert_eq!(state["pid"], captured.state["pid"]);
        assert_eq!(state["told"], serde_json::json!(["before", "after"]));
        // What the environment of this runner is, not that of the captured one.
        assert_eq!(state["runner"], spec.id.to_string());
        assert_eq!(fixture.log(&node, spec.id).await, ["served"]);
        // By the usual signal, within its time of grace.
        node.stop(spec.id).await;
        assert_eq!(node.exited(spec.id).await.cause, ExitCause::Signal(15));
        node.backend.forget(spec.id).await.unwrap();
    }
    leaves_nothing(&fixture.processes).await;
}

#[tokio::test]
async fn everything_that_a_program_holds_is_there_again() {
    let fixture = fixture!();
    let mut node = Node::start(&fixture.processes);
    let things = ["threads", "child", "timer", "inotify", "epoll", "listener"];
    for (index, thing) in things.into_iter().enumerate() {
        let number = 10 * u32::try_from(index + 1).unwrap();
        let captured = fixture.capture(&mut node, number, &[thing]).await;
        let spec = fixture.restored(number + 1, &captured);
        node.ensure(&spec).await;
        assert_eq!(rung(&mut node, spec.id).await, Rung::Snapshot, "{thing}");
        let state = state(&node.ready(spec.id).await).await;
        assert_eq!(state["works"], "yes", "{thing}");
        assert_eq!(state["secret"], captured.state["secret"], "{thing}");
        node.clear(spec.id).await;
    }
    leaves_nothing(&fixture.processes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_at_once_share_nothing_that_must_be_their_own() {
    const CLONES: u32 = 20;
    let fixture = fixture!();
    let mut node = Node::start(&fixture.processes);
    let captured = fixture.capture(&mut node, 1, &["threads"]).await;
    let specs: Vec<_> = (2..2 + CLONES).map(|number| fixture.restored(number, &captured)).collect();
    for spec in &specs {
        node.ensure(spec).await;
    }
    let mut drawn = BTreeSet::new();
    for spec in &specs {
        assert_eq!(rung(&mut node, spec.id).await, Rung::Snapshot);
        let state = state(&node.ready(spec.id).await).await;
        assert_eq!(state["secret"], captured.state["secret"]);
        for (kind, value) in state["fresh"].as_object().unwrap() {
            assert!(drawn.insert(value.to_string()), "two clones have the same {kind}: {value}");
        }
    }
    for spec in &specs {
        node.clear(spec.id).await;
    }
    leaves_nothing(&fixture.processes).await;
}

#[tokio::test]
async fn a_restored_program_goes_with_its_shim_and_outlives_its_node() {
    let fixture = fixture!();
    let mut node = Node::start(&fixture.processes);
    let captured = fixture.capture(&mut node, 1, &["child"]).await;
    let spec = fixture.restored(2, &captured);
    node.ensure(&spec).await;
    assert_eq!(rung(&mut node, spec.id).await, Rung::Snapshot);
    let address = node.ready(spec.id).await;
    drop(node);
    let mut node = Node::start(&fixture.processes);
    assert_eq!(node.observe().await.len(), 1);
    assert_eq!(node.ready(spec.id).await, address);
    assert_eq!(state(&address).await["works"], "yes");
    for shim in fixture.processes.shims() {
        let shim = rustix::process::Pid::from_raw(shim).unwrap();
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    }
    assert_eq!(node.exited(spec.id).await.cause, ExitCause::Unknown);
    node.backend.forget(spec.id).await.unwrap();
    leaves_nothing(&fixture.processes).await;
}

/// What it began with in the end. A snapshot that was of no use must be told before.
async fn rung(node: &mut Node, id: RunnerId) -> Rung {
    match node.next(id).await {
        Notice::Spawned { rung, .. } => rung,
        Notice::NotRestored { problem, .. } => match node.next(id).await {
            Notice::Spawned { rung, .. } => {
                assert_ne!(rung, Rung::Snapshot, "{problem}");
                println!("not restored: {problem}");
                rung
            }
            other => panic!("{id} should have begun: {other:?}"),
        },
        other => panic!("{id} should have begun: {other:?}"),
    }
}

/// Longer than any step of a capture or restore takes here.
const PATIENCE: Duration = Duration::from_mins(1);
