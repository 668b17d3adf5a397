//! What a node writes down of its traffic, and starts ahead of it.

use std::time::Duration;

use glowplug_core::decision::StartCause;
use glowplug_core::request::{Mode, Priority};

use super::recorded::{self, Node};

const CONFIG: &str =
    "[apps.app]\n$APP\nkeep_alive = 600\nenv = { SETUP = '0.2' }\n[apps.other]\n$APP\n";

fn records(node: &Node) -> u64 {
    node.ask(&["trace", "status"])["records"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_in_the_trace() {
    let mut node = recorded::start(CONFIG);
    let caller = node.caller();
    assert_eq!(caller.run("app", "seconds=0.1").await, 200);
    assert_eq!(caller.run("app", "status=404").await, 404);
    let id = caller.submit("app", "seconds=0.05").await;
    caller.completed("app", &id).await;

    let trace = node.export(&[]);
    let names: Vec<&str> = trace.apps.iter().map(|app| app.name.as_str()).collect();
    assert_eq!(names, ["local/app", "local/other"]);
    let scaling = trace.apps[0].scaling.unwrap();
    assert_eq!(scaling.keep_alive, Duration::from_mins(10));
    let [first, second, queued] = trace.requests[..] else { panic!("{trace:?}") };
    for request in [first, second, queued] {
        assert_eq!((request.app, request.attempts), (0, 1), "{request:?}");
        assert_eq!(request.priority, Priority::Normal);
    }
    assert_eq!([first.mode, second.mode, queued.mode], [Mode::Direct, Mode::Direct, Mode::Queued]);
    assert_eq!([first.status, second.status, queued.status], [Some(200), Some(404), Some(200)]);
    assert!(first.service.unwrap() >= Duration::from_millis(100), "{first:?}");
    assert!(second.service.unwrap() < Duration::from_millis(100), "{second:?}");
    assert!(queued.service.unwrap() >= Duration::from_millis(50), "{queued:?}");
    assert_eq!([second.waited, queued.waited], [Some(Duration::ZERO); 2], "they were warm");

    let [start] = trace.starts[..] else { panic!("{trace:?}") };
    assert_eq!((start.at, start.app, start.ready), (first.at, 0, true));
    assert_eq!((start.cause, start.pull), (StartCause::FirstDeployment, None));
    assert!(start.setup >= Duration::from_millis(200), "{start:?}");
    assert_eq!(first.waited, Some(start.pending + start.setup), "to the microsecond");
    assert!(trace.stops.is_empty());

    // Nothing but whole requests is flushed at the end, and the node's own end is part of it.
    assert_eq!(node.served.stop(), Some(0));
    let flag = node.data_dir_flag();
    let trace = node.export(&[&flag[0], &flag[1]]);
    let [stop] = &trace.stops[..] else { panic!("{trace:?}") };
    assert_eq!((stop.reason.as_str(), stop.served, stop.app), ("shut_down", 3, 0));
    assert!(stop.lived >= start.setup);
    assert_eq!(trace.requests.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_failed_starts_are_in_the_trace() {
    let node = recorded::start("[apps.broken]\ncommand = ['python3', '-c', 'exit(3)']\n");
    assert_eq!(node.caller().run("broken", "").await, 503);
    node.wait_for_quiet().await;
    let trace = node.export(&[]);
    let [request] = trace.requests[..] else { panic!("{trace:?}") };
    assert_eq!((request.attempts, request.waited, request.service), (0, None, None));
    assert_eq!(request.status, None, "no app answered");
    let [start] = trace.starts[..] else { panic!("{trace:?}") };
    assert!(!start.ready && start.setup > Duration::ZERO, "{start:?}");
    let [stop] = &trace.stops[..] else { panic!("{trace:?}") };
    assert_eq!((stop.reason.as_str(), stop.served), ("start_failed", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_survive_kill_9() {
    let mut node = recorded::start(CONFIG);
    for _ in 0..5 {
        assert_eq!(node.caller().run("app", "").await, 200);
    }
    assert_eq!(records(&node), 6, "the start too; what was asked for is on the disk");
    node.served.kill();
    let flag = node.data_dir_flag();
    let offline = node.ask(&["trace", "status", &flag[0], &flag[1]]);
    assert_eq!((&offline["records"], &offline["segments"]), (&6.into(), &1.into()));
    assert_eq!(node.export(&[&flag[0], &flag[1]]).requests.len(), 5);

    node.served.start_again().unwrap();
    assert_eq!(node.caller().run("app", "").await, 200);
    assert_eq!(node.export(&[]).requests.len(), 6);
    let status = node.ask(&["trace", "status"]);
    assert_eq!((&status["segments"], &status["dropped"]), (&2.into(), &0.into()), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_recordings_can_be_had() {
    let node = recorded::start(CONFIG);
    let caller = node.caller();
    for app in ["app", "other", "app"] {
        assert_eq!(caller.run(app, "").await, 200);
    }
    let only = node.export(&["--app", "other"]);
    assert_eq!((only.apps.len(), only.requests.len()), (1, 1));
    assert_eq!(node.export(&["--app", "other", "--app", "app"]).requests.len(), 3);
    assert_eq!(node.export(&["--since", "1h"]).requests.len(), 3);
    assert_eq!(node.export(&["--since", "0"]).requests.len(), 0);

    let check = |arguments: &[&str], expected: &str| {
        let output = node.cli(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
        assert_ne!(output.status.code(), Some(0), "{arguments:?}");
    };
    check(&["trace", "export", "--app", "othre"], "did you mean `local/other`?");
    check(&["trace", "export", "--since", "yesterday"], "24h");
    check(&["trace", "export", "-o", "no/such/folder"], "no/such/folder");
    check(&["trace", "export", "--data-dir", "nowhere"], "nothing was ever recorded in nowhere");
    let piped = node.cli(&["trace", "export", "-o", "-"]);
    assert_eq!(piped.stdout[..4], [0x28, 0xb5, 0x2f, 0xfd], "zstd's magic number");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_to_record_does_not() {
    let mut node = recorded::start(&format!("{CONFIG}\n[node.recorder]\nenabled = false\n"));
    assert_eq!(node.caller().run("app", "").await, 200);
    assert_eq!(node.ask(&["trace", "status"])["enabled"], false);
    let output = node.cli(&["trace", "export"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("enabled = true"));
    assert_eq!(node.served.stop(), Some(0));
    assert!(!node.trace_dir().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_is_for_those_who_may_change_things() {
    let node = recorded::start(CONFIG);
    let admin = node.ask(&["keys", "create", "--scope", "ADMIN"]);
    let key = |key: &serde_json::Value| {
        format!("{}:{}", key["id"].as_str().unwrap(), key["secret"].as_str().unwrap())
    };
    let admin = key(&admin);
    let user = key(&node.ask(&["keys", "create", "--scope", "API", "--key", &admin]));
    let check = |arguments: &[&str], key: &str, code: i32| {
        let output = node.cli(&[arguments, &["--key", key]].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    };
    for arguments in [&["trace", "export"][..], &["trace", "status"], &["apps", "prewarm", "app"]] {
        check(arguments, &admin, 0);
        check(arguments, &user, 1);
    }
    check(&["apps", "list"], &user, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prewarmed_runner_serves_warm() {
    let node = recorded::start(CONFIG);
    let view = node.ask(&["apps", "prewarm", "app", "--reason", "a page was opened"]);
    assert_eq!((&view["started"], &view["starting"]), (&1.into(), &1.into()), "{view}");
    let again = node.ask(&["apps", "prewarm", "app"]);
    assert_eq!((&again["started"], &again["starting"]), (&0.into(), &1.into()), "{again}");
    node.wait_for("IDLE", 1).await;
    assert_eq!(node.caller().run("app", "").await, 200);

    let (status, more) = node.post("/api/v1/apps/local/app/prewarm", r#"{"runners": 3}"#).await;
    assert_eq!((status, &more["ready"], &more["started"]), (200, &1.into(), &2.into()), "{more}");
    node.wait_for("IDLE", 3).await;
    assert_eq!(node.post("/api/v1/apps/local/other/prewarm", "").await.1["started"], 1);
    node.wait_for("SETUP", 0).await;

    let trace = node.export(&["--app", "app"]);
    let causes: Vec<StartCause> = trace.starts.iter().map(|start| start.cause).collect();
    assert_eq!(causes, [StartCause::Manual; 3]);
    assert_eq!(trace.requests[0].waited, Some(Duration::ZERO));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prewarm_that_makes_no_sense_is_refused() {
    let node = recorded::start(CONFIG);
    let check = async |app: &str, body: &str, expected: (u16, &str)| {
        let (status, answer) = node.post(&format!("/api/v1/apps/local/{app}/prewarm"), body).await;
        let detail = answer["detail"].as_str().unwrap();
        assert_eq!(status, expected.0, "{app} {body}: {detail}");
        assert!(detail.contains(expected.1), "{app} {body}: {detail}");
    };
    check("ap", "{}", (404, "did you mean `local/app`?")).await;
    check("app", r#"{"runners": 0}"#, (400, "1 to 10000")).await;
    check("app", r#"{"runners": 10001}"#, (400, "1 to 10000")).await;
    check("app", r#"{"runner": 1}"#, (400, "runner")).await;
    check("app", "[", (400, "body")).await;
    let long = format!(r#"{{"reason": "{}"}}"#, "x".repeat(201));
    check("app", &long, (400, "200 bytes")).await;
    assert_eq!(records(&node), 0, "nothing was started");
}
