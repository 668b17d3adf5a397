//! The fake backend: the suite for all backends, and what it can be told to do besides.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use glowplug_core::{RunnerId, Timestamp};
use glowplug_runner::conformance::{
    Fixture, Node, Program, eventually, get, leaves_nothing, plain_spec,
};
use glowplug_runner::{
    Backend, ExitCause, FAKE_LINE_BYTES_MAX, FAKE_LOG_BYTES_MAX, FakeBehaviour, FakeStop,
    FakeWorld, RunnerSpec, SetupTime,
};

struct FakeFixture {
    world: FakeWorld,
}

impl FakeFixture {
    fn new() -> Self {
        Self { world: FakeWorld::new(42, Arc::new(|| Timestamp::from_secs(1))) }
    }

    fn spec_of(&self, number: u32, behaviour: FakeBehaviour) -> RunnerSpec {
        let mut spec = plain_spec(RunnerId { boot: 1, sequence: number });
        spec.app = format!("local/app-{number}");
        self.world.set_behaviour(&spec.app, behaviour);
        spec
    }
}

impl Fixture for FakeFixture {
    fn open(&self) -> Arc<dyn Backend> {
        Arc::new(self.world.backend())
    }

    fn spec(&self, number: u32, program: Program) -> RunnerSpec {
        let mut behaviour = FakeBehaviour { says: vec!["hello".to_owned()], ..Default::default() };
        match program {
            Program::Serves => {}
            Program::Exits(code) => behaviour.exit_at_once = Some(code.into()),
            Program::NeverReady => behaviour.never_ready = true,
            Program::SetsUpFor(span) => behaviour.setup = SetupTime::Fixed(span),
            Program::UnhealthyAtFirst(count) => behaviour.unhealthy_answers = count,
            Program::IgnoresTerm => behaviour.stop = FakeStop::Ignored,
            Program::StopsIn(span) => behaviour.stop = FakeStop::After(span),
            Program::Floods(lines) => {
                behaviour.says.extend((0..lines).map(|n| format!("flood {n} {}", "y".repeat(200))));
            }
            Program::LongLine(bytes) => behaviour.says.push("x".repeat(bytes)),
        }
        self.spec_of(number, behaviour)
    }

    fn programs(&self, id: RunnerId) -> usize {
        self.world.running().iter().filter(|running| **running == id).count()
    }

    fn remains(&self) -> Vec<String> {
        self.world.known().iter().map(|id| format!("runner {id}")).collect()
    }

    fn log_bytes_max(&self) -> u64 {
        FAKE_LOG_BYTES_MAX as u64
    }

    fn log_bytes(&self, id: RunnerId) -> u64 {
        self.world.log_bytes(id) as u64
    }

    fn line_bytes_max(&self) -> usize {
        FAKE_LINE_BYTES_MAX
    }
}

mod conformance {
    use super::FakeFixture;

    glowplug_runner::conformance_tests!(FakeFixture::new());
}

#[tokio::test]
async fn it_echoes_what_it_is_asked() {
    let fixture = FakeFixture::new();
    let mut node = Node::start(&fixture);
    let spec = fixture.spec(1, Program::Serves);
    let address = node.bring_up(&spec).await;
    let (status, body) = get(&address, "/a/b?c=d").await.unwrap();
    let echo: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200);
    assert_eq!((&echo["method"], &echo["path"]), (&"GET".into(), &"/a/b?c=d".into()));
    assert_eq!((&echo["runner"], &echo["body_bytes"]), (&"r1-1".into(), &0.into()));
    assert_eq!(echo["headers"]["host"], "localhost");
    assert_eq!(get(&address, "/status/418").await.unwrap().0, 418);
    assert_eq!(get(&address, "/sleep/1").await.unwrap().0, 200);
    assert!(fixture.world.crash(spec.id));
    assert_eq!(node.exited(spec.id).await.cause, ExitCause::Code(3));
    assert!(get(&address, "/").await.is_none(), "a crashed runner answers nobody");
    node.backend.forget(spec.id).await.unwrap();
    assert!(!fixture.world.crash(spec.id));
    leaves_nothing(&fixture).await;
}

#[tokio::test]
async fn starts_fail_as_often_as_told_and_the_same_each_time() {
    let failing = async || {
        let fixture = FakeFixture::new();
        let mut node = Node::start(&fixture);
        let mut failed = BTreeSet::new();
        for number in 0..40 {
            let behaviour = FakeBehaviour { start_failure: 0.5, ..Default::default() };
            let spec = fixture.spec_of(number, behaviour);
            node.ensure(&spec).await;
            node.spawned(spec.id).await;
            if let glowplug_runner::Notice::Exited { exit, .. } = node.next(spec.id).await {
                assert_eq!(exit.cause, ExitCause::Code(1));
                failed.insert(number);
            } else {
                node.kill(spec.id).await;
                node.exited(spec.id).await;
            }
        }
        assert_eq!(fixture.world.starts(), 40);
        failed
    };
    let first = failing().await;
    assert!((10..30).contains(&first.len()), "{first:?}");
    assert_eq!(first, failing().await);
}

#[tokio::test]
async fn requests_crash_it_as_often_as_told() {
    let fixture = FakeFixture::new();
    let mut node = Node::start(&fixture);
    let behaviour = FakeBehaviour { crash_per_request: 1.0, ..Default::default() };
    let spec = fixture.spec_of(1, behaviour);
    let address = node.bring_up(&spec).await;
    assert!(get(&address, "/").await.is_none());
    assert_eq!(node.exited(spec.id).await.cause, ExitCause::Code(3));
    node.backend.forget(spec.id).await.unwrap();
    leaves_nothing(&fixture).await;
}

#[tokio::test]
async fn a_runner_without_a_node_ends_in_time() {
    let fixture = FakeFixture::new();
    let mut node = Node::start(&fixture);
    let mut spec = fixture.spec(1, Program::Serves);
    spec.orphan_timeout = Duration::from_millis(50);
    node.bring_up(&spec).await;
    drop(node);
    eventually(|| fixture.world.running().is_empty(), || "it should end".to_owned()).await;
    let mut node = Node::start(&fixture);
    node.observe().await;
    assert_eq!(node.exited(spec.id).await.cause, ExitCause::Signal(15));
    node.backend.forget(spec.id).await.unwrap();
    leaves_nothing(&fixture).await;
}
