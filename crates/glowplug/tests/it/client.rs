use std::net::TcpListener;

use insta::{Settings, assert_snapshot};

use super::binary::Scene;
use super::stub_node::StubNode;

const APP: &str = r#"{"name":"local/hello","status":"ready","detail":null,"revision":2,
    "program":"hello.py::Hello","machine_types":["S","M"],
    "scaling":{"keep_alive":60.0,"min_concurrency":0,"max_concurrency":4,"concurrency_buffer":1,
        "concurrency_buffer_perc":20,"scaling_delay":0.5,"max_multiplexing":2,"startup_timeout":600.0,
        "request_timeout":3600.0,"unused_runner_timeout":null,"termination_grace_period_seconds":5.0},
    "runners":{"IDLE":1,"SETUP":2},"queued":3,"in_flight":1,"backoff_until_micros":null}"#;

const BROKEN: &str = r#"{"name":"local/broken","status":"broken","detail":"ModuleNotFoundError: torch",
    "revision":1,"program":"broken.py::Broken","machine_types":[],"scaling":null,"runners":{},"queued":0,
    "in_flight":0,"backoff_until_micros":null}"#;

/// Created at the epoch, so that its age only changes within what the tests filter out.
const RUNNER: &str = r#"{"id":"r1-2","app":"local/hello","revision":2,"state":"IDLE",
    "cause":"no warm runner: all were busy","cause_label":"all_busy","in_flight":0,"served":7,
    "machine_type":"GPU-H100","gpus":[0,3],"created_at_micros":0,"ready_at_micros":1300000,
    "ended_at_micros":null,"end_reason":null,"expires_at_micros":1,
    "phases":[{"name":"pending","start_micros":0,"end_micros":1000}]}"#;

const LOGS: &str = r#"{"number":0,"at_micros":0,"stream":"stdout","text":"loading"}
{"number":1,"at_micros":1500000,"stream":"stderr","text":"warning: slow"}
{"number":9,"at_micros":2000000,"stream":"supervisor","text":"7 lines were dropped"}
"#;

const WHY: &str = r#"{"kind":"runner","id":"r1-2","summary":"it was started because all runners were busy",
    "decisions":[{"at_micros":0,"sentence":"3 requests wait, 1 runner is busy: start 1","data":{}},
        {"at_micros":1500000,"sentence":"placed with GPUs 0 and 3","data":{}}]}"#;

fn node() -> StubNode {
    let apps = format!("[{APP},{BROKEN}]");
    let runners = format!("[{RUNNER}]");
    StubNode::start(&[
        ("GET /api/v1/apps", 200, &apps),
        ("GET /api/v1/apps/local/hello", 200, APP),
        ("PATCH /api/v1/apps/local/hello/scaling", 200, APP),
        (
            "GET /api/v1/apps/local/helo",
            404,
            r#"{"detail":"there is no app `local/helo`; did you mean `local/hello`?","error_type":"app_not_found"}"#,
        ),
        (
            "GET /api/v1/apps/local/hello/queue",
            200,
            r#"{"app":"local/hello","size":3,"in_progress":1}"#,
        ),
        ("DELETE /api/v1/apps/local/hello/queue", 200, r#"{"app":"local/hello","removed":3}"#),
        ("GET /api/v1/runners", 200, &runners),
        ("GET /api/v1/runners?app=local%2Fhello", 200, &runners),
        ("GET /api/v1/runners?ended=true", 200, "[]"),
        ("GET /api/v1/runners/r1-2", 200, RUNNER),
        ("POST /api/v1/runners/r1-2/stop", 200, RUNNER),
        ("POST /api/v1/runners/r1-2/stop?replace=true", 200, RUNNER),
        ("POST /api/v1/runners/r1-2/kill", 200, RUNNER),
        ("GET /api/v1/runners/r1-2/logs?from=0", 200, LOGS),
        ("GET /api/v1/runners/r1-2/logs?from=5&follow=true", 200, LOGS),
        ("GET /api/v1/why/r1-2", 200, WHY),
        (
            "GET /api/v1/keys",
            200,
            r#"[{"id":"k1","alias":"ci","scope":"API","created_at_micros":0}]"#,
        ),
        ("POST /api/v1/keys", 200, r#"{"id":"k2","secret":"s3cret"}"#),
        ("DELETE /api/v1/keys/k1", 204, ""),
        (
            "DELETE /api/v1/keys/k9",
            401,
            r#"{"detail":"this needs a key with scope ADMIN","error_type":"unauthorized"}"#,
        ),
        (
            "GET /api/v1/why/r9-9",
            503,
            r#"{"detail":"cannot read the journal: disk full","error_type":"store_unavailable"}"#,
        ),
        ("GET /api/v1/why/html", 200, "<html>"),
    ])
}

/// Ages grow while the tests run, and columns with them; ports differ.
fn settled(check: impl FnOnce()) {
    let mut settings = Settings::clone_current();
    settings.add_filter(r"\d{4,} h( \d+ min)?\b *", "[AGE]  ");
    settings.add_filter(r"\bAGE  +", "AGE    ");
    settings.add_filter(r"127\.0\.0\.1:\d+", "[ADDRESS]");
    settings.bind(check);
}

fn check(name: &str, arguments: &[&str]) {
    let node = node();
    let scene = Scene::new().env("GLOWPLUG_SERVER", &node.url()).env("FAL_KEY", "k1:secret");
    let transcript = scene.transcript(arguments);
    let asked = node.asked().join("\n");
    settled(|| assert_snapshot!(name, format!("{transcript}--- asked\n{asked}")));
}

#[test]
fn apps() {
    check("apps_list", &["apps", "list"]);
    check("apps_list_json", &["apps", "list", "--json"]);
    check("apps_show", &["apps", "show", "hello"]);
    check("apps_show_unknown", &["apps", "show", "helo"]);
    check("apps_show_bad_name", &["apps", "show", "a/b/c"]);
    check(
        "apps_scale",
        &[
            "apps",
            "scale",
            "hello",
            "--keep-alive",
            "5m",
            "--max-concurrency",
            "0",
            "--scaling-delay",
            "0.5",
        ],
    );
    check("apps_scale_nothing", &["apps", "scale", "hello"]);
    check("apps_scale_env", &["apps", "scale", "hello", "--env", "dev", "--min-concurrency", "1"]);
    check("apps_scale_bad_value", &["apps", "scale", "hello", "--keep-alive", "soon"]);
}

#[test]
fn runners() {
    check("runners_list", &["runners", "list"]);
    check("runners_list_none", &["runners", "list", "--all"]);
    check("runners_list_other_state", &["runners", "list", "hello", "--state", "RUNNING"]);
    check("runners_show", &["runners", "show", "r1-2"]);
    check("runners_stop", &["runners", "stop", "r1-2"]);
    check("runners_stop_replace", &["runners", "stop", "r1-2", "--replace"]);
    check("runners_kill", &["runners", "kill", "r1-2", "--json"]);
    check("runners_logs", &["runners", "logs", "r1-2"]);
    check("runners_logs_follow", &["runners", "logs", "r1-2", "-f", "--from", "5", "-t"]);
    check("runners_logs_json", &["runners", "logs", "r1-2", "--json"]);
}

#[test]
fn queue_why_and_keys() {
    check("queue_size", &["queue", "size", "hello"]);
    check("queue_flush", &["queue", "flush", "local/hello"]);
    check("why", &["why", "r1-2"]);
    check("why_store_down", &["why", "r9-9"]);
    check("why_not_a_node", &["why", "html"]);
    check("why_odd_id", &["why", "../keys?x"]);
    check("keys_list", &["keys", "list"]);
    check("keys_create", &["keys", "create", "--alias", "ci", "--scope", "admin"]);
    check("keys_revoke", &["keys", "revoke", "k1"]);
    check("keys_revoke_refused", &["keys", "revoke", "k9"]);
}

#[test]
fn a_node_that_is_not_there_is_said_so() {
    // A port that was free a moment ago, and that nobody can have taken with an answer of ours.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!("[node]\nlisten = '{address}'\n");
    let scene = Scene::new().file("glowplug.toml", &config);
    settled(|| assert_snapshot!("no_node", scene.transcript(&["apps", "list"])));
    let scene = Scene::new();
    assert_snapshot!("bad_server", scene.transcript(&["apps", "list", "--server", "https://x"]));
}

#[test]
fn a_closed_output_is_no_error() {
    let node = node();
    let scene = Scene::new().env("GLOWPLUG_SERVER", &node.url());
    let status = scene.run_with_closed_stdout(&["apps", "list"]);
    assert_eq!(status.code(), Some(0));
}

#[test]
fn wrong_use_is_exit_code_64() {
    let scene = Scene::new();
    for arguments in [&["aps"] as &[&str], &["apps", "list", "--colour"], &[], &["queue", "size"]] {
        assert_eq!(scene.run(arguments).status.code(), Some(64), "{arguments:?}");
    }
    for arguments in [&["--help"] as &[&str], &["--version"], &["version"], &["man"]] {
        let output = scene.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty(), "{arguments:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = scene.run(&["completions", shell]).stdout;
        assert!(String::from_utf8(script).unwrap().contains("glowplug"), "{shell}");
    }
}

#[test]
fn help_is_as_promised() {
    let scene = Scene::new();
    for command in ["", "apps", "apps scale", "runners", "runners logs", "queue", "keys", "config"]
    {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let name = format!("help {command}").trim().replace(' ', "_");
        assert_snapshot!(name, scene.transcript(&arguments));
    }
}
