//! Random traffic, random settings, random kills, for as long as `GLOWPLUG_SOAK_SECONDS` says: 180 apps on
//! the fake backend in this process, then 20 more as processes of the real binary.

#![expect(clippy::print_stdout, reason = "the seed repeats a run, the sums say what it was")]

mod fake_node;
mod traffic;

use std::time::Duration;

use glowplug_runner::{FakeBehaviour, FakeStop, SetupTime};
use glowplug_testkit::{eventually, wait_until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::fake_node::FakeNode;
use self::traffic::{Traffic, between, one_of};
use super::crash::kill_a_runner;
use super::ground::{self, SOON};

const SECONDS_DEFAULT: u64 = 20;
const FAKE_APPS: usize = 180;
const PROCESS_APPS: usize = 20;
/// Callers at a time.
const CALLERS: usize = 12;
/// Open files and memory that a node may have gained when it is idle again.
const FILES_GAINED_MAX: usize = 32;
const MEMORY_GAINED_MAX: u64 = 256 << 20;

/// Half of the time for each of the two soaks.
fn span() -> Duration {
    let seconds = std::env::var("GLOWPLUG_SOAK_SECONDS").ok();
    Duration::from_secs(seconds.map_or(SECONDS_DEFAULT, |text| text.parse().unwrap())) / 2
}

fn seed() -> u64 {
    let seed = std::env::var("GLOWPLUG_SOAK_SEED").ok();
    let seed = seed.map_or_else(rand::random, |text| text.parse().unwrap());
    println!("GLOWPLUG_SOAK_SEED={seed}");
    seed
}

fn random_scaling(random: &mut StdRng) -> String {
    let min = u32::from(random.random_bool(0.1));
    format!(
        "keep_alive = {}\nmin_concurrency = {min}\nmax_concurrency = {}\nmax_multiplexing = {}\n\
         concurrency_buffer = {}\nscaling_delay = {}\nstartup_timeout = 20\nrequest_timeout = 20\n",
        one_of(random, &["0", "0.2", "1", "600"]),
        random.random_range(1..4),
        one_of(random, &["1", "1", "4"]),
        one_of(random, &["0", "0", "0", "1"]),
        one_of(random, &["0", "0", "0.05"]),
    )
}

fn random_behaviour(random: &mut StdRng) -> FakeBehaviour {
    let millis = |random: &mut StdRng, most| Duration::from_millis(random.random_range(0..most));
    FakeBehaviour {
        setup: SetupTime::LogNormal { median: millis(random, 200), sigma: 0.5 },
        crash_per_request: if random.random_bool(0.2) { 0.02 } else { 0.0 },
        unhealthy_answers: random.random_range(0..3),
        stop: match random.random_range(0..10) {
            0 => FakeStop::Ignored,
            1..4 => FakeStop::After(millis(random, 300)),
            _ => FakeStop::Prompt,
        },
        ..FakeBehaviour::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_on_the_fake_backend() {
    let mut random = StdRng::seed_from_u64(seed());
    let apps: Vec<String> = (0..FAKE_APPS).map(|number| format!("app{number}")).collect();
    // Room for all floors, which are never broken, but not for everything.
    let mut config = "[node.limits]\nwaiting_max = 200\n[node.resources]\ncpu = 40\n".to_owned();
    for app in &apps {
        config.extend(["[apps.", app, "]\ncommand = ['fake']\n"]);
        config.push_str("termination_grace_period_seconds = 0.5\n");
        config.push_str(&random_scaling(&mut random));
    }
    let mut node = FakeNode::start(random.random(), &config).await;
    for app in &apps {
        node.world.set_behaviour(&format!("local/{app}"), random_behaviour(&mut random));
    }
    let files = open_files(std::process::id());
    let traffic = Traffic::new(node.caller(), apps, |random, number| {
        format!("/sleep/{}?n={number}", random.random_range(0..60))
    });
    let callers = traffic.start(CALLERS, &mut random);
    let (mut left, mut lives) = (span(), 1);
    while left > Duration::ZERO {
        let pause = between(&mut random, 20, 400).min(left);
        left = left.saturating_sub(pause);
        tokio::time::sleep(pause).await;
        if random.random_bool(0.1) {
            let restart = traffic.disturb();
            node = node.killed_and_started().await;
            lives += 1;
            drop(restart);
        } else if let Some(victim) = traffic.pick_ready_runner(&mut random).await {
            traffic.count_fault();
            node.world.crash(victim);
        }
    }
    // A last time, which also ends every wait after a failed start.
    let restart = traffic.disturb();
    node = node.killed_and_started().await;
    drop(restart);
    traffic.stop(callers).await;
    let world = node.world.clone();
    println!(
        "{lives} lives of the node, {} starts of runners; {}",
        world.starts(),
        traffic.summary()
    );
    traffic.let_everything_go_cold().await;
    traffic.assert_every_accepted_request_is_complete().await;
    eventually("no runner lives", SOON, || async { world.running().is_empty().then_some(()) })
        .await;
    traffic.assert_idle().await;
    drop(traffic);
    wait_until("open files are as few as before", SOON, || {
        (open_files(std::process::id()) <= files + FILES_GAINED_MAX).then_some(())
    });
    node.stop().await;
    assert!(world.known().is_empty(), "runners are left: {:?}", world.known());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_on_processes() {
    let mut random = StdRng::seed_from_u64(seed());
    let apps: Vec<String> = (0..PROCESS_APPS).map(|number| format!("app{number}")).collect();
    let mut config = String::new();
    for app in &apps {
        config.extend(["[apps.", app, "]\n$APP\n", &random_scaling(&mut random)]);
    }
    // Room for all floors, which are never broken, but not for everything.
    config.push_str(
        "[machine_types.default]\ncpu = 1\nenforce = false\n[node.resources]\ncpu = 24\n",
    );
    let mut ground = ground::start(&config);
    let before = (open_files(ground.served.pid().unwrap()), memory(ground.served.pid().unwrap()));
    let traffic = Traffic::new(ground.caller(), apps, |random, number| {
        format!("/?seconds=0.0{}&n={number}", random.random_range(0..6))
    });
    let callers = traffic.start(CALLERS / 2, &mut random);
    let (mut left, mut lives) = (span(), 1);
    while left > Duration::ZERO {
        let pause = between(&mut random, 50, 1_500).min(left);
        left = left.saturating_sub(pause);
        tokio::time::sleep(pause).await;
        if random.random_bool(0.3) {
            let restart = traffic.disturb();
            ground.served.kill();
            ground.served.start_again().unwrap();
            lives += 1;
            drop(restart);
        } else {
            traffic.count_fault();
            kill_a_runner(&ground, &mut random);
        }
        assert!(!ground.served.log().contains("an answer came twice"), "{}", ground.served.log());
    }
    // A last time, which also ends every wait after a failed start.
    let restart = traffic.disturb();
    ground.served.kill();
    ground.served.start_again().unwrap();
    drop(restart);
    traffic.stop(callers).await;
    println!("{lives} lives of the node; {}", traffic.summary());
    traffic.let_everything_go_cold().await;
    traffic.assert_every_accepted_request_is_complete().await;
    ground.wait_for_no_runner_process();
    traffic.assert_idle().await;
    drop(traffic);
    let node = ground.served.pid().unwrap();
    wait_until("open files are as few as before", SOON, || {
        (open_files(node) <= before.0 + FILES_GAINED_MAX).then_some(())
    });
    let gained = memory(node).saturating_sub(before.1);
    assert!(gained < MEMORY_GAINED_MAX, "the node has {gained} bytes more than before");
    ground.end().await;
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}
