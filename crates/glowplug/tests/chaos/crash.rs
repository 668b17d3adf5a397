//! `kill -9` of the node, of runners and of their supervisors, at any moment.

use std::collections::HashMap;
use std::time::Duration;

use glowplug_testkit::{eventually, wait_until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::ground::{self, Ground, SOON};

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // It may have ended just now.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

#[tokio::test(flavor = "multi_thread")]
async fn runners_are_adopted_and_none_is_started_beside_them() {
    let mut ground = ground::start("[apps.app]\n$APP\nmin_concurrency = 1\nkeep_alive = 600\n");
    let pid = ground.run("app", "/").await.pid();
    let runner = ground.runners("app", None).await[0]["id"].clone();
    for life in 0..3 {
        ground.served.kill();
        ground.served.start_again().unwrap();
        assert_eq!(ground.run("app", "/").await.pid(), pid, "life {life}");
        let known = ground.get("/api/v1/runners?ended=true").await;
        let ids: Vec<_> =
            known.as_array().unwrap().iter().map(|runner| runner["id"].clone()).collect();
        assert_eq!(ids, std::slice::from_ref(&runner), "no second start while one lives");
    }
    ground.wait_for_why(runner.as_str().unwrap(), "app");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_under_way_is_adopted() {
    let mut ground = ground::start("[apps.app]\n$APP\nkeep_alive = 600\nenv = { SETUP = '1' }\n");
    let id = ground.caller().submit("app", "/", "{}").await.unwrap();
    eventually("its setup has begun", SOON, || async {
        ground.runners("app", Some("SETUP")).await.pop()
    })
    .await;
    ground.served.kill();
    ground.served.start_again().unwrap();
    ground.caller().completed("app", &id).await.assert_ok();
    let known = ground.get("/api/v1/runners?ended=true").await;
    assert_eq!(known.as_array().unwrap().len(), 1, "{known}");
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runners_of_an_app_that_has_gone_or_changed_are_ended() {
    let mut ground = ground::start(
        "[apps.changed]\n$APP\nkeep_alive = 600\n[apps.gone]\n$APP\nkeep_alive = 600\n",
    );
    let changed = ground.run("changed", "/").await.pid();
    let gone = ground.run("gone", "/").await.pid();
    ground.served.kill();
    let config = ground.served.folder().join("glowplug.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let (first, _) = text.split_once("[apps.gone]").unwrap();
    std::fs::write(&config, first.replace("app.py\"]", "app.py\", \"v2\"]")).unwrap();
    ground.served.start_again().unwrap();
    assert_ne!(ground.run("changed", "/").await.pid(), changed);
    wait_until("the runners of older code are gone", SOON, || {
        let living = ground.processes();
        [changed, gone]
            .iter()
            .all(|pid| !living.contains(&u32::try_from(*pid).unwrap()))
            .then_some(())
    });
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_node_runners_end_by_themselves() {
    let mut ground = ground::start(
        "[node]\nadopt_timeout = 1\n[apps.app]\n$APP\nkeep_alive = 600\nenv = { MODE = 'children' }\n",
    );
    ground.run("app", "/").await.assert_ok();
    ground.served.kill();
    wait_until("nothing lives on", SOON, || ground.processes().is_empty().then_some(()));
    ground.served.start_again().unwrap();
    ground.run("app", "/").await.assert_ok();
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_flight_at_the_crash_runs_again() {
    let mut ground =
        ground::start("[apps.app]\n$APP\nkeep_alive = 600\nenv = { LEDGER = '$FOLDER/ledger' }\n");
    let id = ground.caller().submit("app", "/?seconds=1", "\"body\"").await.unwrap();
    let ledger = ground.folder().join("ledger");
    let runs = || std::fs::read_to_string(&ledger).unwrap_or_default().matches(&*id).count();
    wait_until("the app works on it", SOON, || (runs() == 1).then_some(()));
    ground.served.kill();
    ground.served.start_again().unwrap();
    let answer = ground.caller().completed("app", &id).await;
    assert_eq!(answer.assert_ok()["echo"], "\"body\"");
    assert_eq!(runs(), 2);
    ground.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_is_killed_takes_its_runner_with_it_and_work_goes_on() {
    let ground = ground::start("[apps.app]\n$APP\nkeep_alive = 600\nenv = { MODE = 'children' }\n");
    let program = u32::try_from(ground.run("app", "/").await.pid()).unwrap();
    kill(parent_of(program));
    eventually("the program is gone, and another serves", SOON, || async {
        let answer = ground.run("app", "/").await;
        let other = answer.status == 200 && answer.pid() != u64::from(program);
        (other && !ground.processes().contains(&program)).then_some(())
    })
    .await;
    ground.end().await;
}

/// The node finds the remains of runners that died with it. That is no failed start, after which the app
/// would have to wait for half a minute.
#[tokio::test(flavor = "multi_thread")]
async fn runners_that_died_with_the_node_delay_nothing() {
    let mut ground = ground::start("[apps.app]\n$APP\nkeep_alive = 600\n");
    for _ in 0..5 {
        ground.run("app", "/").await.assert_ok();
        let runners: Vec<u32> = ground
            .processes()
            .into_iter()
            .filter(|pid| Some(*pid) != ground.served.pid())
            .collect();
        ground.served.kill();
        // While the node looks for runners, or just after it has found them.
        let killing = std::thread::spawn(move || runners.into_iter().for_each(kill));
        ground.served.start_again().unwrap();
        killing.join().unwrap();
    }
    let answer = tokio::time::timeout(Duration::from_secs(20), ground.run("app", "/")).await;
    answer.unwrap();
    let why = ground.why("app");
    assert!(!why.contains("failed to start"), "{why}");
    ground.end().await;
}

/// What was accepted is not refused for its number when the node comes back, though more of it waits than
/// would be accepted now.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_queue_may_be_longer_than_the_limit() {
    let mut ground = ground::start(
        "[node.limits]\nwaiting_max = 3\n\
         [apps.app]\n$APP\nkeep_alive = 600\nmax_multiplexing = 3\nmax_concurrency = 1\n",
    );
    ground.run("app", "/").await.assert_ok();
    let caller = ground.caller();
    let mut accepted = Vec::new();
    for _ in 0..6 {
        accepted.push(caller.submit("app", "/?seconds=1", "{}").await.unwrap());
    }
    assert_eq!(caller.submit("app", "/", "{}").await, None, "the queue is full");
    ground.served.kill();
    ground.processes().into_iter().for_each(kill);
    ground.served.start_again().unwrap();
    for id in &accepted {
        caller.completed("app", id).await.assert_ok();
    }
    ground.end().await;
}

/// One who submits and goes away at once may or may not have been heard, but no request stays on disk
/// that nobody serves before the next restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_submission_whose_caller_goes_away_is_served_or_was_never_made() {
    let mut ground = ground::start(
        "[apps.app]\n$APP\nkeep_alive = 600\nmax_multiplexing = 50\nmax_concurrency = 1\n\
         env = { LEDGER = '$FOLDER/ledger' }\n",
    );
    ground.run("app", "/").await.assert_ok();
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..200 {
        let caller = ground::Caller::new(ground.served.url(""));
        let patience = Duration::from_micros(random.random_range(200..6_000));
        drop(tokio::time::timeout(patience, caller.submit("app", "/", "{}")).await);
    }
    // Comes to the disk after all of them.
    let last = ground.caller().submit("app", "/", "{}").await.unwrap();
    ground.caller().completed("app", &last).await.assert_ok();
    eventually("what was heard has been served", SOON, || async {
        let app = ground.get("/api/v1/apps/local/app").await;
        (app["queued"] == 0 && app["in_flight"] == 0).then_some(())
    })
    .await;
    let ledger = ground.folder().join("ledger");
    let runs = || std::fs::read_to_string(&ledger).unwrap().lines().count();
    let before = runs();
    println!("{before} runs for 200 that went away");
    // In order, so that every answer is on the disk too.
    assert_eq!(ground.served.stop(), Some(0));
    ground.served.start_again().unwrap();
    // Served after anything that would have been taken up from the disk.
    let last = ground.caller().submit("app", "/", "{}").await.unwrap();
    ground.caller().completed("app", &last).await.assert_ok();
    assert_eq!(runs(), before + 1, "the restart has found requests that were left behind");
    ground.end().await;
}

fn parent_of(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

/// Kills the node again and again while requests are submitted and served. Each that was accepted is
/// completed with its own answer, once.
#[tokio::test(flavor = "multi_thread")]
async fn accepted_requests_survive_kills_of_the_node_and_of_runners() {
    const KILLS: usize = 6;
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut ground = ground::start(
        "[apps.fast]\n$APP\nkeep_alive = 600\nmax_concurrency = 2\n\
         [apps.slow]\n$APP\nkeep_alive = 0.3\nmax_concurrency = 2\nmax_multiplexing = 4\n",
    );
    let mut accepted: HashMap<String, (&str, String)> = HashMap::new();
    let mut number = 0;
    for round in 0..KILLS {
        let submitting = submit_for_a_while(&ground, &mut number, &mut accepted);
        let span = Duration::from_millis(random.random_range(50..600));
        // The moment of the kill is what the seed draws.
        let _ = tokio::time::timeout(span, submitting).await;
        if round % 2 == 1 {
            kill_a_runner(&ground, &mut random);
        }
        ground.served.kill();
        ground.served.start_again().unwrap();
    }
    println!("{} of {number} were accepted", accepted.len());
    assert!(!accepted.is_empty());
    let caller = ground.caller();
    for (id, (app, body)) in &accepted {
        let answer = caller.completed(app, id).await;
        assert_eq!(answer.assert_ok()["echo"], **body, "seed {seed}");
        // Fetched again it is the same answer.
        let again = caller.result(app, id).await.unwrap();
        assert_eq!(again.body, answer.body, "seed {seed}");
    }
    ground.end().await;
}

async fn submit_for_a_while(
    ground: &Ground,
    number: &mut usize,
    accepted: &mut HashMap<String, (&'static str, String)>,
) {
    let caller = ground.caller();
    loop {
        *number += 1;
        let app = if number.is_multiple_of(3) { "slow" } else { "fast" };
        let body = format!("request {number}");
        if let Some(id) = caller.submit(app, "/?seconds=0.02", &body).await {
            accepted.insert(id, (app, body));
        }
    }
}

/// A program or a supervisor, whichever comes.
pub(crate) fn kill_a_runner(ground: &Ground, random: &mut StdRng) {
    let node = ground.served.pid();
    let others: Vec<u32> =
        ground.processes().into_iter().filter(|pid| Some(*pid) != node).collect();
    if !others.is_empty() {
        kill(others[random.random_range(0..others.len())]);
    }
}
