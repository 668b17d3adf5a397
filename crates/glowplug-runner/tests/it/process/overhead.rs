//! What the backend adds to a start.

use std::time::Duration;

use glowplug_runner::conformance::{Fixture, Node, Program, leaves_nothing};

use super::fixture::ProcessFixture;

const STARTS: u32 = 21;
/// Far above the goal, so that a loaded machine passes: this finds a wait that should not be there. The
/// goal itself is measured by the benchmark.
const MEDIAN_MAX: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_costs_little_more_than_the_program() {
    let fixture = ProcessFixture::new();
    let mut node = Node::start(&fixture);
    let (mut spawns, mut totals) = (Vec::new(), Vec::new());
    for number in 0..STARTS {
        let spec = fixture.spec(number, Program::Serves);
        let start = tokio::time::Instant::now();
        node.ensure(&spec).await;
        node.spawned(spec.id).await;
        spawns.push(start.elapsed());
        node.ready(spec.id).await;
        totals.push(start.elapsed());
        node.clear(spec.id).await;
    }
    spawns.sort_unstable();
    totals.sort_unstable();
    let (spawn, total) = (spawns[spawns.len() / 2], totals[totals.len() / 2]);
    println!("ensure to spawned {spawn:?}, ensure to ready {total:?} (medians of {STARTS})");
    assert!(total < MEDIAN_MAX, "{total:?}");
    leaves_nothing(&fixture).await;
}
