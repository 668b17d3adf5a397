//! Apps that are scaled by what is learned of them, on a real node.

use std::time::Duration;

use glowplug_testkit::eventually;
use serde_json::Value;

use super::recorded::{self, Node};

/// `quick` takes about half a second to start. Nothing is known of it, so a start counts as 20 s at first.
const CONFIG: &str = "\
[apps.quick]\n$APP\npolicy = 'auto'\nwait_budget = '2s'\nenv = { SETUP = '0.3' }\n\
[apps.brief]\n$APP\npolicy = 'auto'\nkeep_alive = 0.2\n\
[apps.fixed]\n$APP\nkeep_alive = 0.2\n";

/// What is said of an app whose starts are not known yet.
const UNKNOWN_START: &str = "a start takes 20.0 s";

/// The lines that `glowplug why` prints.
fn why(node: &Node, id: &str) -> String {
    let output = node.cli(&["why", id]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn check_contains(text: &str, expected: &[&str]) {
    for part in expected {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

fn runners(node: &Node, app: &str) -> Vec<Value> {
    let app = format!("local/{app}");
    let all = node.ask(&["runners", "list"]);
    all.as_array().unwrap().iter().filter(|runner| runner["app"] == app).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_keeps_its_runner_by_what_it_learned_and_says_so() {
    let node = recorded::start(CONFIG);
    let caller = node.caller();
    assert_eq!(caller.run("fixed", "").await, 200);
    for _ in 0..5 {
        assert_eq!(caller.run("quick", "").await, 200);
    }
    // What has fixed parameters is gone after them, what learns is kept.
    recorded::gone(&node, "fixed").await;
    let [runner] = &runners(&node, "quick")[..] else { panic!("it is not kept") };
    assert_eq!(runner["state"], "IDLE");
    check_contains(
        &why(&node, "local/quick"),
        &[
            "local/quick is ready: 1 IDLE",
            "\n  a second of waiting is worth ",
            "steered so that 5 % of the requests wait longer than 2.00 s",
            "\n  an idle 1st runner is kept for ",
            "and to avoid one is worth ",
            "\n  no spare runner is wanted",
            "\n  no use is foretold",
            "was wanted because the app had never run before",
        ],
    );
    let id = runner["id"].as_str().unwrap();
    check_contains(
        &why(&node, id),
        &[
            "it is IDLE now and is kept for another ",
            " if nothing comes: ",
            "to avoid one is worth ",
        ],
    );
    let learned = node.ask(&["why", "local/fixed"]);
    assert_eq!(learned.get("learned"), None, "nothing is learned of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn explicit_parameters_bound_what_is_learned() {
    let node = recorded::start(CONFIG);
    let caller = node.caller();
    for _ in 0..5 {
        assert_eq!(caller.run("brief", "").await, 200);
    }
    recorded::gone(&node, "brief").await;
    check_contains(&why(&node, "local/brief"), &["no idle runner is kept for more than 200 ms"]);

    // The same by hand, at run time, and a floor.
    let output = node.cli(&["apps", "scale", "quick", "--keep-alive", "0.2"]);
    check_contains(
        &text(&output),
        &["keep_alive                        as learned, at most 200 ms"],
    );
    assert_eq!(caller.run("quick", "").await, 200);
    recorded::gone(&node, "quick").await;
    assert_eq!(
        node.cli(&["apps", "scale", "quick", "--min-concurrency", "2"]).status.code(),
        Some(0)
    );
    node.wait_for("IDLE", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_change_while_a_node_runs() {
    let node = recorded::start(CONFIG);
    let check = |arguments: &[&str], code: i32, expected: &[&str]| {
        let output = node.cli(&[&["apps", "scale"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        check_contains(&text(&output), expected);
    };
    let fix = "is for apps with `policy = \"auto\"`; add that, or leave this out";
    check(&["fixed", "--wait-budget", "2s"], 1, &["`wait_budget`", fix]);
    check(&["fixed", "--policy", "clever"], 64, &["write fixed or auto"]);
    check(&["fixed", "--policy", "auto", "--wait-price", "low"], 64, &["cost-sensitive, balanced"]);
    check(
        &["fixed", "--policy", "auto", "--wait-budget", "2s", "--wait-budget-percent", "1"],
        0,
        &["policy                            auto", "for all but 1 % of the requests", "200 ms"],
    );
    let scaling = &node.ask(&["apps", "show", "fixed"])["scaling"];
    let aims = [&scaling["policy"], &scaling["wait_budget"], &scaling["wait_budget_percent"]];
    assert_eq!(aims, [&Value::from("auto"), &Value::from(2.0), &Value::from(1.0)]);
    check(&["fixed", "--wait-budget", "0"], 0, &["wait_budget                       none"]);
    check(&["fixed", "--policy", "fixed"], 0, &["policy                            fixed"]);
    let scaling = &node.ask(&["apps", "show", "fixed"])["scaling"];
    assert_eq!((&scaling["wait_price"], &scaling["keep_alive"]), (&Value::Null, &Value::from(0.2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opens_a_page_finds_the_app_warm() {
    let node = recorded::start(CONFIG);
    let opened = async |app: &str, body: &str, query: &str| {
        node.post(&format!("/api/v1/apps/local/{app}/prewarm{query}"), body).await
    };
    let (status, view) = opened("quick", "", "?intent=page_opened").await;
    assert_eq!((status, &view["started"]), (200, &1.into()), "{view}");
    node.wait_for("IDLE", 1).await;
    check_contains(
        &why(&node, "local/quick"),
        &[
            "a request is expected",
            "somebody shows interest in the app, and with 50 % a request follows",
        ],
    );
    assert_eq!(node.caller().run("quick", "").await, 200);
    let trace = node.export(&["--app", "quick"]);
    assert_eq!(trace.requests[0].waited, Some(Duration::ZERO), "it was warm");
    check_contains(
        &why(&node, "local/quick"),
        &["when somebody shows interest, a request follows with 67 %, from 1.0 signs"],
    );

    // Who says how many runners, gets them; apps with fixed parameters weigh nothing.
    let (_, view) = opened("fixed", r#"{"reason": "page_opened"}"#, "").await;
    assert_eq!((&view["started"], &view["ready"]), (&0.into(), &0.into()), "{view}");
    let (_, view) = opened("fixed", r#"{"reason": "page_opened", "runners": 1}"#, "").await;
    assert_eq!(view["started"], 1, "{view}");
    let (status, refused) = opened("fixed", r#"{"runners": 1}"#, "?intent=page_opened").await;
    assert_eq!(status, 400, "{refused}");
    assert_eq!(opened("fixed", "", "?intent=sale").await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_status_is_about_to_use_the_app() {
    let node = recorded::start(CONFIG);
    let caller = node.caller();
    let id = caller.submit("brief", "").await;
    caller.completed("brief", &id).await;
    recorded::gone(&node, "brief").await;
    eventually("a runner is started for who asks", recorded::SOON, || async {
        caller.completed("brief", &id).await;
        why(&node, "local/brief").contains("somebody shows interest in the app").then_some(())
    })
    .await;
    let of_another = caller.submit("fixed", "").await;
    caller.completed("fixed", &of_another).await;
    assert!(!why(&node, "local/fixed").contains("interest"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_use_an_app_may_say_that_they_will() {
    let public = CONFIG.replace("[apps.brief]\n", "[apps.brief]\naccess = 'public'\n");
    let node = recorded::start(&public);
    let admin = node.ask(&["keys", "create", "--scope", "ADMIN"]);
    assert!(admin["id"].is_string());
    let status = async |app: &str, query: &str| {
        node.post(&format!("/api/v1/apps/local/{app}/prewarm{query}"), "").await.0
    };
    assert_eq!(status("quick", "?intent=page_opened").await, 401);
    assert_eq!(status("brief", "?intent=page_opened").await, 200);
    assert_eq!(status("brief", "").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_learned_survives_a_restart() {
    let mut node = recorded::start(CONFIG);
    for _ in 0..6 {
        assert_eq!(node.caller().run("quick", "").await, 200);
        assert_eq!(node.caller().run("fixed", "").await, 200);
    }
    // The price of waiting, and how long the first runner is kept.
    let known = |node: &Node, app: &str| {
        let learned = &node.ask(&["why", &format!("local/{app}")])["learned"];
        format!("{} {}", learned[0], learned[1])
    };
    let before = known(&node, "quick");
    assert!(!before.contains(UNKNOWN_START), "{before}");
    assert_eq!(node.served.stop(), Some(0));
    node.served.start_again().unwrap();
    assert_eq!(known(&node, "quick"), before);
    check_contains(&known(&node, "brief"), &[UNKNOWN_START]);
    // What had fixed parameters until now begins with what was recorded of it.
    let output = node.cli(&["apps", "scale", "fixed", "--policy", "auto", "--keep-alive", "600"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let fixed = known(&node, "fixed");
    assert!(fixed.contains("a start takes ") && !fixed.contains(UNKNOWN_START), "{fixed}");
}
