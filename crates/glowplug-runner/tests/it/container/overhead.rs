//! What a container adds to a start.

use std::collections::BTreeMap;
use std::time::Duration;

use glowplug_runner::conformance::{Fixture, Node, Program, leaves_nothing};
use glowplug_runner::host;

use crate::process::fixture::ProcessFixture;

const STARTS: u32 = 21;
/// Far above the goal, so that a loaded machine passes: this finds a wait that should not be there.
const MEDIAN_MAX: Duration = Duration::from_millis(500);

fn median(mut spans: Vec<Duration>) -> Duration {
    spans.sort_unstable();
    spans[spans.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_costs_little_more_than_a_process() {
    let Some(fixture) = ProcessFixture::of_containers_if_possible() else { return };
    let mut node = Node::start(&fixture);
    let ways = ["process", "native", "runc", "crun"];
    let mut times: BTreeMap<&str, (Vec<Duration>, Vec<Duration>)> = BTreeMap::new();
    // In turns, so that what else the machine does is no one's alone.
    for number in 0..STARTS {
        for (way, turn) in ways.into_iter().zip(0..) {
            let mut spec = fixture.spec(number * 8 + turn, Program::Serves);
            spec.argv = vec!["/bin/true".to_owned()];
            match host::runtime(way) {
                Ok(runtime) => spec.container.as_mut().unwrap().runtime = runtime,
                Err(_) if way == "process" => {
                    spec.container = None;
                    spec.cwd = "/".into();
                }
                Err(why) => {
                    println!("skipped: {why}");
                    continue;
                }
            }
            let start = tokio::time::Instant::now();
            node.ensure(&spec).await;
            node.spawned(spec.id).await;
            let spawned = start.elapsed();
            node.exited(spec.id).await;
            let (spawns, ends) = times.entry(way).or_default();
            spawns.push(spawned);
            ends.push(start.elapsed());
            node.backend.forget(spec.id).await.unwrap();
        }
    }
    for (way, (spawns, ends)) in times {
        let (spawn, end) = (median(spawns), median(ends));
        println!("{way}: ensure to spawned {spawn:?}, to exited {end:?} (medians of {STARTS})");
        assert!(spawn < MEDIAN_MAX, "{way}: {spawn:?}");
    }
    leaves_nothing(&fixture).await;
}
