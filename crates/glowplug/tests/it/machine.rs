//! Commands about this machine: `doctor` and `ca`.

use std::fs;

use glowplug_testkit::{Served, ServedOptions};
use serde_json::Value;

use super::binary::Scene;

fn findings(scene: &Scene, arguments: &[&str]) -> Vec<Value> {
    let stdout = scene.run(arguments).stdout;
    serde_json::from_slice(&stdout).unwrap()
}

fn find<'a>(findings: &'a [Value], name: &str) -> &'a Value {
    findings.iter().find(|finding| finding["name"] == name).unwrap()
}

#[test]
fn doctor_says_what_is_missing_and_how_to_get_it() {
    let scene = Scene::new().file("glowplug.toml", "[node]\nlisten = '127.0.0.1:0'\n");
    let findings = findings(&scene, &["doctor", "--json"]);
    for name in ["config", "data directory", "port", "queue", "disk"] {
        assert_eq!(find(&findings, name)["status"], "ok", "{findings:?}");
    }
    // PATH is empty here.
    assert_eq!(find(&findings, "uv")["status"], "limited", "a node can get it");
    assert_eq!(find(&findings, "python3")["status"], "missing");
    for finding in &findings {
        let fine = finding["status"] == "ok";
        assert_eq!(fine, finding["remedy"].is_null(), "{finding}");
    }
    assert!(!scene.path().join("glowplug-data").exists(), "doctor only looks");
    let output = scene.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("WHAT"));
}

#[test]
fn doctor_fails_where_no_node_could_start() {
    let scene = Scene::new().file("glowplug.toml", "[nod]\n").file("plain", "");
    let output = scene.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("unknown table `nod`"), "{stderr}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let scene = Scene::new();
    let findings = findings(&scene, &["doctor", "--json", "--data-dir", "d", "--listen", &address]);
    assert_eq!(find(&findings, "port")["status"], "limited");
}

#[test]
fn doctor_and_the_node_know_a_disk_below_its_reserve_before_a_request_is_refused() {
    let config = "[node]\nlisten = '127.0.0.1:0'\n[node.queue]\ndisk_reserve = '1000TiB'\n";
    let scene = Scene::new().file("glowplug.toml", config);
    let found = findings(&scene, &["doctor", "--json"]);
    assert_eq!(find(&found, "disk")["status"], "limited", "{found:?}");
    assert_eq!(find(&found, "queue")["status"], "ok", "{found:?}");

    let served = Served::start(ServedOptions {
        binary: env!("CARGO_BIN_EXE_glowplug").into(),
        config: "[node.queue]\ndisk_reserve = '1000TiB'\n".to_owned(),
        env: Vec::new(),
        data_dir: None,
    })
    .unwrap();
    let address = served.address().to_string();
    let found = findings(&scene, &["doctor", "--json", "--listen", &address]);
    let queue = find(&found, "queue");
    assert_eq!(queue["status"], "limited", "{queue}");
    assert!(queue["detail"].as_str().unwrap().contains("the store refuses work since"), "{queue}");
}

#[test]
fn doctor_finds_a_damaged_queue() {
    let scene = Scene::new().file("glowplug.db", "this is no database, whatever its name says");
    let found = findings(&scene, &["doctor", "--json", "--data-dir", "."]);
    assert_eq!(find(&found, "queue")["status"], "missing", "{found:?}");
    let output = scene.run(&["doctor", "--data-dir", "."]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn ca_makes_a_certificate_once_and_says_how_to_use_it() {
    let scene = Scene::new();
    let arguments = ["ca", "--data-dir", "data", "--listen", "0.0.0.0:7000"];
    let output = scene.run(&arguments);
    assert_eq!(output.status.code(), Some(0));
    let path = String::from_utf8(output.stdout).unwrap().trim_end().to_owned();
    let made = fs::read(&path).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("export FAL_RUN_HOST=127.0.0.1:7000/run"), "{stderr}");

    let export = scene.run(&[&arguments[..], &["--export"]].concat()).stdout;
    assert_eq!(
        String::from_utf8(export).unwrap(),
        format!(
            "export SSL_CERT_FILE={path}\nexport FAL_RUN_HOST=127.0.0.1:7000/run\n\
             export FAL_QUEUE_RUN_HOST=127.0.0.1:7000/queue\n"
        )
    );
    let json = scene.run(&[&arguments[..], &["--json"]].concat()).stdout;
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["env"]["SSL_CERT_FILE"], path);
    assert_eq!(fs::read(&path).unwrap(), made, "the certificate stays the same");
}
