//! The node goes and comes back: what lives is adopted, what has ended is told, once.

use std::time::Duration;

use super::{Fixture, Node, Program, eventually, get};
use crate::backend::{ExitCause, ObservedState};

pub async fn adopts_what_is_ready(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::Serves);
    let address = node.bring_up(&spec).await;
    let started_at = node.observe().await[0].started_at;
    drop(node);

    let mut node = Node::start(fixture);
    let observed = node.observe().await;
    assert_eq!(observed.len(), 1);
    assert_eq!(observed[0].state, ObservedState::Ready(address.clone()));
    assert_eq!((observed[0].id, &observed[0].labels), (spec.id, &spec.labels));
    assert_eq!(observed[0].started_at, started_at);
    assert_eq!(node.ready(spec.id).await, address);
    assert_eq!(get(&address, "/").await.map(|(status, _)| status), Some(200));
    node.ensure(&spec).await;
    assert_eq!(fixture.programs(spec.id), 1);
    node.stop(spec.id).await;
    assert_eq!(node.exited(spec.id).await.cause, ExitCause::Signal(15));
    node.expect_silence();
    drop(node);

    let mut node = Node::start(fixture);
    assert!(node.observe().await.is_empty());
    node.expect_silence();
}

pub async fn adopts_what_is_starting(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::SetsUpFor(Duration::from_millis(700)));
    node.ensure(&spec).await;
    node.spawned(spec.id).await;
    drop(node);

    let mut node = Node::start(fixture);
    assert_eq!(node.observe().await[0].state, ObservedState::Starting);
    let address = node.ready(spec.id).await;
    assert_eq!(get(&address, "/").await.map(|(status, _)| status), Some(200));
    node.clear(spec.id).await;
}

pub async fn adopts_what_is_stopping(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::IgnoresTerm);
    node.bring_up(&spec).await;
    node.stop(spec.id).await;
    // The stop has reached the runner once another node sees it.
    let mut other = Node::start(fixture);
    other.observe().await;
    drop(node);
    drop(other);

    let mut node = Node::start(fixture);
    assert_eq!(node.observe().await[0].state, ObservedState::Stopping);
    assert_eq!(node.clear(spec.id).await.cause, ExitCause::Signal(9));
    other = Node::start(fixture);
    assert!(other.observe().await.is_empty());
}

pub async fn tells_once_of_an_end_without_a_node(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::Serves);
    let address = node.bring_up(&spec).await;
    drop(node);
    get(&address, "/crash").await;
    eventually(|| fixture.programs(spec.id) == 0, || "the program should crash".to_owned()).await;

    let mut node = Node::start(fixture);
    node.observe().await;
    let exit = node.exited_at_last(spec.id).await;
    assert_eq!(exit.cause, ExitCause::Code(3));
    assert!(exit.log_tail.iter().any(|line| line == "hello"), "{:?}", exit.log_tail);
    assert!(node.observe().await.is_empty());
    node.expect_silence();
    drop(node);

    let mut node = Node::start(fixture);
    assert!(node.observe().await.is_empty());
    node.expect_silence();
}
