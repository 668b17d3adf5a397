//! Ending: by itself, by a signal, by force; and being forgotten.

use std::time::Duration;

use tokio::time::Instant;

use super::{Fixture, GRACE, Node, Program, get};
use crate::backend::{BackendError, ExitCause, ObservedState, StopMode};

const SHORT_GRACE: Duration = Duration::from_millis(300);

pub async fn tells_of_a_crash(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::Serves);
    let address = node.bring_up(&spec).await;
    get(&address, "/crash").await;
    let exit = node.exited(spec.id).await;
    assert_eq!(exit.cause, ExitCause::Code(3));
    assert!(node.observe().await.is_empty());
    node.backend.forget(spec.id).await.expect("an ended runner can be forgotten");
}

pub async fn stops_twice_as_once(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::Serves);
    node.stop(spec.id).await;
    node.bring_up(&spec).await;
    node.stop(spec.id).await;
    node.stop(spec.id).await;
    node.exited(spec.id).await;
    node.stop(spec.id).await;
    node.kill(spec.id).await;
    node.backend.forget(spec.id).await.expect("an ended runner can be forgotten");
    node.stop(spec.id).await;
    node.expect_silence();
}

pub async fn gives_the_grace_it_is_told(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::StopsIn(Duration::from_millis(200)));
    node.bring_up(&spec).await;
    node.stop(spec.id).await;
    assert_eq!(node.observe().await[0].state, ObservedState::Stopping);
    assert_eq!(node.exited(spec.id).await.cause, ExitCause::Code(0));
    node.backend.forget(spec.id).await.expect("an ended runner can be forgotten");
}

pub async fn kills_what_ignores_the_signal(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::IgnoresTerm);
    node.bring_up(&spec).await;
    let start = Instant::now();
    let mode = StopMode::Graceful { grace: SHORT_GRACE };
    node.backend.stop(spec.id, mode).await.expect("the stop gets under way");
    assert_eq!(node.exited(spec.id).await.cause, ExitCause::Signal(9));
    let taken = start.elapsed();
    assert!(taken >= SHORT_GRACE.mul_f64(0.9) && taken < GRACE, "{taken:?}");
    node.backend.forget(spec.id).await.expect("an ended runner can be forgotten");
}

pub async fn kills_at_once_when_told(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::IgnoresTerm);
    node.bring_up(&spec).await;
    let start = Instant::now();
    // A kill is not put off by a stop before it.
    node.stop(spec.id).await;
    node.kill(spec.id).await;
    assert_eq!(node.exited(spec.id).await.cause, ExitCause::Signal(9));
    assert!(start.elapsed() < GRACE, "{:?}", start.elapsed());
    node.backend.forget(spec.id).await.expect("an ended runner can be forgotten");
}

pub async fn forgets_only_what_has_ended(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::Serves);
    node.bring_up(&spec).await;
    let refused = node.backend.forget(spec.id).await;
    assert!(matches!(refused, Err(BackendError::StillRunning(id)) if id == spec.id), "{refused:?}");
    node.clear(spec.id).await;
    let log = node.backend.logs(spec.id, 0, false).await;
    assert!(matches!(log, Err(BackendError::UnknownRunner(id)) if id == spec.id));
    // Forgotten, the id may be used anew.
    node.bring_up(&spec).await;
    node.clear(spec.id).await;
}
