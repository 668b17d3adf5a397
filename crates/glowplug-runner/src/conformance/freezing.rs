//! Runners without a processor.

use std::time::Duration;

use super::{Fixture, Node, Program, get};
use crate::backend::{ExitCause, Notice, ObservedState};

/// A runner that runs answers within far less.
const SILENCE: Duration = Duration::from_millis(250);

impl Node {
    /// What the runner holds. `false`: this backend cannot freeze it, and says so.
    async fn freeze(&mut self, fixture: &dyn Fixture, id: glowplug_core::RunnerId) -> bool {
        self.backend.freeze(id).await.expect("the freezing gets under way");
        let notice = self.next(id).await;
        match (notice, fixture.why_nothing_freezes()) {
            (Notice::Frozen { frozen: Ok(held_bytes), .. }, None) => {
                assert!(held_bytes > 0);
                true
            }
            (Notice::Frozen { frozen: Err(problem), .. }, Some(_)) => {
                assert!(!problem.is_empty());
                false
            }
            (notice, expected) => panic!("{notice:?}, {expected:?}"),
        }
    }

    async fn thaw(&mut self, id: glowplug_core::RunnerId) {
        self.backend.thaw(id).await.expect("the thawing gets under way");
        let notice = self.next(id).await;
        assert!(matches!(notice, Notice::Thawed { .. }), "{notice:?}");
    }
}

pub async fn freezes_and_thaws(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::Serves);
    let address = node.bring_up(&spec).await;
    for _ in 0..2 {
        if node.freeze(fixture, spec.id).await {
            assert!(node.observe().await[0].is_frozen);
            let answer = tokio::time::timeout(SILENCE, get(&address, "/")).await;
            assert!(answer.is_err(), "a frozen runner answered: {answer:?}");
            node.thaw(spec.id).await;
        }
        assert!(!node.observe().await[0].is_frozen);
        assert_eq!(get(&address, "/").await.map(|(status, _)| status), Some(200));
    }
    // Twice is as once.
    node.thaw(spec.id).await;
    node.clear(spec.id).await;
}

pub async fn stops_what_is_frozen(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    for number in 1..=2 {
        let spec = fixture.spec(number, Program::Serves);
        node.bring_up(&spec).await;
        node.freeze(fixture, spec.id).await;
        let expected = if number == 1 {
            node.stop(spec.id).await;
            ExitCause::Signal(15)
        } else {
            node.kill(spec.id).await;
            ExitCause::Signal(9)
        };
        assert_eq!(node.exited(spec.id).await.cause, expected);
        node.backend.forget(spec.id).await.expect("it has ended");
    }
}

pub async fn adopts_what_is_frozen(fixture: &dyn Fixture) {
    let mut node = Node::start(fixture);
    let spec = fixture.spec(1, Program::Serves);
    let address = node.bring_up(&spec).await;
    let is_frozen = node.freeze(fixture, spec.id).await;
    drop(node);

    let mut node = Node::start(fixture);
    let observed = node.observe().await;
    assert_eq!(observed[0].state, ObservedState::Ready(address.clone()));
    assert_eq!(observed[0].is_frozen, is_frozen);
    assert_eq!(node.ready(spec.id).await, address);
    if is_frozen {
        node.thaw(spec.id).await;
    }
    assert_eq!(get(&address, "/").await.map(|(status, _)| status), Some(200));
    node.clear(spec.id).await;
}
