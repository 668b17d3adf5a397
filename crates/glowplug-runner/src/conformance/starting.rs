//! Starting: once per id, ready when it answers, and clear words when it does not come up.

use std::time::Duration;

use futures::future::join_all;

use super::{Fixture, Node, Program, get};
use crate::backend::{ExitCause, Listen, ObservedState, RunnerAddress};

/// Enough to make a race likely.
const RACERS: usize = 8;
const CROWD: u32 = 12;

pub async fn starts_serves_and_stops(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::Serves);
    let address = node.bring_up(&spec).await;
    assert_eq!(get(&address, "/some/path").await.map(|(status, _)| status), Some(200));
    let observed = node.observe().await;
    assert_eq!(observed.len(), 1);
    assert_eq!(observed[0].state, ObservedState::Ready(address));
    assert_eq!((observed[0].id, &observed[0].app, observed[0].revision), (spec.id, &spec.app, 7));
    assert_eq!(observed[0].labels, spec.labels);
    node.stop(spec.id).await;
    assert_eq!(node.exited(spec.id).await.cause, ExitCause::Signal(15));
    assert!(node.observe().await.is_empty());
    assert_eq!(fixture.programs(spec.id), 0);
    node.backend.forget(spec.id).await.expect("an ended runner can be forgotten");
    node.expect_silence();
}

pub async fn starts_once_for_one_id(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::Serves);
    node.bring_up(&spec).await;
    node.ensure(&spec).await;
    assert_eq!(fixture.programs(spec.id), 1);
    node.kill(spec.id).await;
    node.exited(spec.id).await;
    // Ended is not forgotten: the id is still taken.
    node.ensure(&spec).await;
    assert_eq!(fixture.programs(spec.id), 0);
    node.backend.forget(spec.id).await.expect("an ended runner can be forgotten");
    node.expect_silence();
}

/// Two nodes on one world is what a careless restart makes.
pub async fn starts_once_for_ids_in_a_race(fixture: &dyn Fixture) {
    let mut first = Node::start(fixture);
    let mut second = Node::start(fixture);
    let spec = fixture.spec(1, Program::Serves);
    let racers = (0..RACERS).map(|racer| {
        let backend = if racer % 2 == 0 { &first.backend } else { &second.backend };
        backend.ensure(&spec)
    });
    for outcome in join_all(racers).await {
        outcome.expect("each racer finds the runner started");
    }
    for node in [&mut first, &mut second] {
        // Whoever came late was told by the one who started it, or attached.
        while !matches!(node.next(spec.id).await, crate::Notice::Ready { .. }) {}
    }
    assert_eq!(fixture.programs(spec.id), 1);
    first.kill(spec.id).await;
    first.exited(spec.id).await;
    second.exited(spec.id).await;
    first.backend.forget(spec.id).await.expect("an ended runner can be forgotten");
    second.backend.forget(spec.id).await.expect("a forgotten runner can be forgotten again");
}

pub async fn starts_many_at_once(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let specs: Vec<_> = (1..=CROWD).map(|n| fixture.spec(n, Program::Serves)).collect();
    join_all(specs.iter().map(|spec| node.ensure(spec))).await;
    let mut addresses = std::collections::HashSet::new();
    for spec in &specs {
        node.spawned(spec.id).await;
        addresses.insert(node.ready(spec.id).await);
    }
    assert_eq!(addresses.len(), specs.len(), "each has an address of its own");
    for spec in &specs {
        node.clear(spec.id).await;
    }
}

pub async fn listens_on_a_unix_socket(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let mut spec = fixture.spec(1, Program::Serves);
    spec.listen = Listen::UnixSocket;
    let address = node.bring_up(&spec).await;
    assert!(
        matches!(address, RunnerAddress::Unix(_) | RunnerAddress::UnixInNamespace { .. }),
        "{address:?}"
    );
    assert_eq!(get(&address, "/").await.map(|(status, _)| status), Some(200));
    node.clear(spec.id).await;
}

pub async fn waits_for_the_health_path(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let mut spec = fixture.spec(1, Program::UnhealthyAtFirst(3));
    spec.health_path = Some("/health".to_owned());
    let address = node.bring_up(&spec).await;
    // It was not called ready while it still answered 500.
    assert_eq!(get(&address, "/health").await.map(|(status, _)| status), Some(200));
    node.clear(spec.id).await;
}

pub async fn tells_of_an_exit_at_once(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::Exits(7));
    node.ensure(&spec).await;
    node.spawned(spec.id).await;
    let exit = node.exited(spec.id).await;
    assert_eq!(exit.cause, ExitCause::Code(7));
    assert!(exit.log_tail.iter().any(|line| line == "hello"), "{:?}", exit.log_tail);
    node.backend.forget(spec.id).await.expect("an ended runner can be forgotten");
}

pub async fn stops_what_never_gets_ready(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::NeverReady);
    node.ensure(&spec).await;
    node.spawned(spec.id).await;
    assert_eq!(node.observe().await[0].state, ObservedState::Starting);
    let slow = fixture.spec(2, Program::SetsUpFor(Duration::from_hours(1)));
    node.ensure(&slow).await;
    node.spawned(slow.id).await;
    for id in [spec.id, slow.id] {
        node.stop(id).await;
        assert_eq!(node.exited(id).await.cause, ExitCause::Signal(15));
        node.backend.forget(id).await.expect("an ended runner can be forgotten");
    }
}
