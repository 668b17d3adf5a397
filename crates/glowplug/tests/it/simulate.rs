use std::path::Path;

use insta::{assert_snapshot, with_settings};
use serde_json::Value;

use super::binary::Scene;

const STEADY: &str = "\
seed = 3
length = '10m'
[apps.web]
setup = '5s'
service = '1s'
[[apps.web.traffic]]
shape = 'even'
every = '500ms'
[expect]
refused = 0
starts = '< 20'
";

fn steady() -> Scene {
    Scene::new().file("steady.toml", STEADY)
}

/// How long it took is another each time.
fn check(name: &str, scene: &Scene, arguments: &[&str]) {
    with_settings!({ filters => vec![(r"events in .* a second\)", "events in TIME (SPEED)")] }, {
        assert_snapshot!(name, scene.transcript(arguments));
    });
}

#[test]
fn a_simulation_is_told_in_tables() {
    check("simulate", &steady(), &["simulate", "steady.toml", "--timeline"]);
    check(
        "simulate_seeds",
        &steady(),
        &["simulate", "steady.toml", "--seeds", "1..2", "--doublecheck"],
    );
}

#[test]
fn what_is_not_as_expected_fails_and_says_how_to_see_it_again() {
    let scene = Scene::new().file("steady.toml", &STEADY.replace("< 20", "< 2"));
    check("simulate_unmet", &scene, &["simulate", "steady.toml", "--seeds", "7..8"]);
}

#[test]
fn mistakes_in_a_scenario_are_told_with_place_and_fix() {
    let text =
        STEADY.replace("setup", "set_up").replace("starts", "start").replace("10m", "10 apples");
    let scene = Scene::new().file("steady.toml", &text);
    check("simulate_mistakes", &scene, &["simulate", "steady.toml"]);
    check("simulate_no_file", &scene, &["simulate", "stedy.toml"]);
    check("simulate_bad_seeds", &scene, &["simulate", "steady.toml", "--seeds", "5..1"]);
    let scene = Scene::new().file(
        "replay.toml",
        "length = '1h'\n[apps.a.traffic]\nshape = 'trace'\nfile = 'none.gptrace'\n",
    );
    check("simulate_no_trace", &scene, &["simulate", "replay.toml"]);
}

/// An app that never comes up, and one that nobody asks for.
#[test]
fn what_never_gets_anywhere_ends_with_a_message() {
    let text = "length = '1h'\n[apps.web]\nsetup = '5s'\nfaults = { setup_crash = 1 }\n\
                [apps.web.traffic]\nshape = 'even'\nevery = 1\n[apps.mute]\nsetup = '5s'\n";
    let scene = Scene::new().file("down.toml", text);
    check("simulate_stuck", &scene, &["simulate", "down.toml"]);
    let scene = Scene::new().file("down.toml", &text.replace("every = 1", "every = '1h'"));
    check("simulate_overtime", &scene, &["simulate", "down.toml"]);
}

#[test]
fn one_event_can_be_looked_at() {
    check("simulate_event", &steady(), &["simulate", "steady.toml", "--event", "3"]);
}

#[test]
fn programs_get_all_numbers() {
    let scene = steady();
    let json = |arguments: &[&str]| -> Value {
        let output = scene.run(arguments);
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let one = json(&["simulate", "steady.toml", "--seed", "9", "--json"]);
    assert_eq!((one["seed"].as_u64(), one["requests"].as_u64()), (Some(9), Some(1_200)));
    assert_eq!(one["apps"]["web"]["answered"], 1_200);
    assert!(one["wait_secs"]["max"].as_f64().unwrap() <= 5.0);
    assert_eq!(one["unmet"], Value::Array(Vec::new()));
    let several = json(&["simulate", "steady.toml", "--seeds", "9..10", "--json"]);
    let digest = |report: &Value| report["digest"].as_str().map(str::to_owned);
    assert_eq!(several.as_array().map(Vec::len), Some(2));
    assert_eq!(digest(&several[0]), digest(&one));
}

/// The scenarios that come with the project can be called as the guide says.
#[test]
fn the_projects_own_scenarios_are_as_expected() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    for name in ["burst", "crash-loop", "flash-crowd"] {
        let file = dir.join(format!("{name}.toml"));
        let output = Scene::new().run(&["simulate", &file.to_string_lossy()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
    }
}
