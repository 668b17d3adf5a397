//! What a container adds to a start.

use std::time::Duration;

use glowplug_runner::conformance::{Fixture, Node, Program, leaves_nothing};

use crate::process::fixture::ProcessFixture;

const STARTS: u32 = 21;
/// Far above the goal, so that a loaded machine passes: this finds a wait that should not be there.
const MEDIAN_MAX: Duration = Duration::from_millis(100);

fn median(mut spans: Vec<Duration>) -> Duration {
    spans.sort_unstable();
    spans[spans.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_costs_little_more_than_a_process() {
    let Some(fixture) = ProcessFixture::of_containers_if_possible() else { return };
    let mut node = Node::start(&fixture);
    for is_contained in [false, true] {
        let (mut spawns, mut ends) = (Vec::new(), Vec::new());
        for number in 0..STARTS {
            let mut spec = fixture.spec(number, Program::Serves);
            spec.argv = vec!["/bin/true".to_owned()];
            if !is_contained {
                spec.container = None;
                spec.cwd = "/".into();
            }
            let start = tokio::time::Instant::now();
            node.ensure(&spec).await;
            node.spawned(spec.id).await;
            spawns.push(start.elapsed());
            node.exited(spec.id).await;
            ends.push(start.elapsed());
            node.backend.forget(spec.id).await.unwrap();
        }
        let (spawn, end) = (median(spawns), median(ends));
        println!(
            "contained: {is_contained}: ensure to spawned {spawn:?}, to exited {end:?} (medians of {STARTS})"
        );
        assert!(spawn < MEDIAN_MAX, "{spawn:?}");
    }
    leaves_nothing(&fixture).await;
}
