//! `glowplug plan`, as a user meets it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use super::binary::Scene;

const CONFIG: &str = "\
[machine_types.gpu]
cpu = 1
memory = '1GiB'
price_per_hour = 2.5

[apps.web]
command = ['serve']
machine_type = 'gpu'
keep_alive = '10s'

[apps.other]
command = ['serve']
machine_type = 'gpu'
";

/// Every 100 s one request to `web` and, for half of the time, one to `other`.
fn traffic() -> String {
    let mut csv = String::from("started_at,model,seconds\n");
    for nth in 0..400_u32 {
        writeln!(csv, "{}.0,local/web,2.0", nth * 100).unwrap();
        if nth < 200 {
            writeln!(csv, "{}.5,local/other,1.0", nth * 100).unwrap();
        }
    }
    csv
}

const COLUMNS: [&str; 6] =
    ["--time-column", "started_at", "--app-column", "model", "--service-column", "seconds"];

fn scene() -> Scene {
    Scene::new().file("glowplug.toml", CONFIG).file("traffic.csv", &traffic()).with_path()
}

fn plan<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["plan", "traffic.csv", "--setup", "20s"];
    arguments.extend(COLUMNS);
    arguments.extend(more);
    arguments
}

fn json(scene: &Scene, more: &[&str]) -> Value {
    let mut arguments = plan(more);
    arguments.push("--json");
    let output = scene.run(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn choice<'a>(plan: &'a Value, intent: &str) -> &'a Value {
    let choices = plan["recommendations"].as_array().unwrap();
    choices.iter().find(|choice| choice["intent"] == intent).unwrap()
}

#[test]
fn settings_are_priced_and_recommended() {
    let scene = scene();
    let plan = json(&scene, &["--wait-p95", "1s"]);
    assert_eq!(plan["traffic"]["requests"], 600);
    assert_eq!(plan["cost_unit"]["unit"], "money");
    // With 10 s every request is cold: each gap is 100 s.
    assert_eq!(plan["today"]["numbers"]["cold"], 600);
    let latency = choice(&plan, "latency_critical");
    let wait = latency["numbers"]["wait"]["mean_secs"].as_f64().unwrap();
    assert!(wait < 1.0, "a longer keep_alive saves nearly every wait: {wait}");
    let budget = choice(&plan, "budget");
    assert_eq!(budget["met"], true);
    assert!(budget["numbers"]["wait"]["p95_secs"].as_f64().unwrap() <= 1.0);
    let names: Vec<&str> =
        plan["beside"].as_array().unwrap().iter().filter_map(|row| row["name"].as_str()).collect();
    assert!(names.iter().any(|name| name.starts_with("KPA")), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("clairvoyant")), "{names:?}");
}

#[test]
fn people_get_tables_and_a_page() {
    let scene = scene();
    let output = scene.run(&plan(&[]));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["600 requests to 2 app(s)", "today", "latency-critical", "cost-sensitive", "KPA"] {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }
    let page = std::fs::read_to_string(scene.path().join("glowplug-plan.html")).unwrap();
    assert!(page.contains("local/web") && page.contains("</html>"));
    let silent = Scene::new().file("traffic.csv", &traffic());
    assert!(silent.run(&plan(&["--no-report"])).status.success());
    assert!(!silent.path().join("glowplug-plan.html").exists());
}

#[test]
fn the_diff_applies_to_the_config_and_the_config_is_then_fine() {
    let scene = scene();
    let diff = scene.run(&plan(&["--diff", "latency-critical", "--no-report"]));
    assert!(diff.status.success());
    let text = String::from_utf8(diff.stdout).unwrap();
    assert!(text.contains("-keep_alive = '10s'") || text.contains("-keep_alive"), "{text}");
    apply(scene.path(), &text);
    let checked = scene.transcript(&["config", "check"]);
    assert!(checked.contains("is fine"), "{checked}");
    let config = std::fs::read_to_string(scene.path().join("glowplug.toml")).unwrap();
    assert!(config.contains("price_per_hour = 2.5"), "the rest stays as it was");
    assert_eq!(config.matches("[apps.").count(), 2, "no app is there twice\n{config}");
}

#[expect(clippy::disallowed_methods, reason = "the test owns the child and waits for it")]
fn apply(directory: &Path, diff: &str) {
    let mut patch = std::process::Command::new("patch")
        .args(["-p0", "glowplug.toml"])
        .current_dir(directory)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut patch.stdin.take().unwrap(), diff.as_bytes()).unwrap();
    assert!(patch.wait().unwrap().success(), "{diff}");
}

/// A program that asks for a diff gets the recommendation it belongs to.
#[test]
fn a_diff_for_programs_is_json() {
    let scene = scene();
    let mut arguments = plan(&["--diff", "latency-critical", "--no-report"]);
    let text = String::from_utf8(scene.run(&arguments).stdout).unwrap();
    arguments.push("--json");
    let found: Value = serde_json::from_slice(&scene.run(&arguments).stdout).unwrap();
    assert_eq!(found["intent"], "latency_critical");
    assert_eq!(found["diff"].as_str().map(str::trim_end), Some(text.trim_end()));
    assert!(text.contains("@@"), "{text}");
}

#[test]
fn a_trace_without_requests_says_so() {
    let arguments =
        |more: &'static [&str]| [&["plan", "traffic.csv", "--no-report"], more].concat();
    for (content, more, said) in [
        ("time,app,service\n", &[][..], vec!["no request is in the trace"]),
        (
            "time,app,service\n1,a,\n",
            &[],
            vec!["left out: 1 requests without a service time", "no request is in the trace"],
        ),
        (
            "time,app,service\n1,a,1\n",
            &["--from", "1h"],
            vec!["widen `--from`, `--until`, `--apps` or `--sample`"],
        ),
    ] {
        let scene = Scene::new().file("traffic.csv", content);
        let output = scene.run(&arguments(more));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{content:?} {text}");
        for said in said {
            assert!(text.contains(said), "{content:?}: {text}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let scene = scene();
    let one = json(&scene, &["--no-report", "--threads", "1"]);
    let four = json(&scene, &["--no-report", "--threads", "4"]);
    assert_eq!(one, four);
}

#[test]
fn traffic_that_cannot_be_right_is_told_with_its_line() {
    for (content, said) in [
        ("model,seconds\nlocal/web,2.0\n", "started_at"),
        ("started_at,model,seconds\n0,local/web,-2\n", "line 2"),
        ("started_at,model,seconds\n9,local/web,2\n5,local/web,2\n", "line 3"),
        ("started_at,model,seconds\nnoon,local/web,2\n", "line 2"),
        ("", "empty"),
    ] {
        let scene = Scene::new().file("traffic.csv", content);
        let output = scene.run(&plan(&["--no-report"]));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{content:?} {text}");
        assert!(text.contains(said) && text.contains("traffic.csv"), "{content:?}: {text}");
    }
    let scene = Scene::new().file("traffic.csv", &traffic());
    let mut arguments = vec!["plan", "traffic.csv", "--no-report"];
    arguments.extend(COLUMNS);
    let output = scene.run(&arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--setup 20s"), "{text}");
}
