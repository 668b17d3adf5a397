use insta::assert_snapshot;

use super::binary::Scene;

fn check(name: &str, config: &str) {
    let scene = Scene::new().file("glowplug.toml", config).file("hello.py", "class Hello: ...");
    assert_snapshot!(name, scene.transcript(&["config", "check"]));
}

#[test]
fn mistakes_are_told_with_place_and_fix() {
    check("unknown_key", "[apps.hello]\napp = 'hello.py::Hello'\nkeep_alve = 5\n");
    check("wrong_type", "[node]\nadopt_timeout = true\n");
    check(
        "min_above_max",
        "[apps.hello]\napp = 'hello.py::Hello'\nmin_concurrency = 5\nmax_concurrency = 2\n",
    );
    check(
        "negative_percentage",
        "[apps.hello]\napp = 'hello.py::Hello'\nconcurrency_buffer_perc = -5\n",
    );
    check("missing_app_file", "[apps.hello]\napp = 'helo.py::Hello'\n");
    check("image", "[apps.hello]\nimage = 'Not An Image'\n");
    check("syntax", "[node\nlisten = 1\n");
    check("several", "[node]\nlisten = 'here'\n[apps.b]\ncommand = 5\n[apps.c]\n");
}

#[test]
fn a_missing_config_file_is_named() {
    let scene = Scene::new().file("glowplug.toml", "");
    assert_snapshot!(
        "missing_config_file",
        scene.transcript(&["--config", "glowplg.toml", "config", "check"])
    );
}

#[test]
fn a_fine_config_is_said_to_be_fine() {
    let scene = Scene::new().file("glowplug.toml", "[apps.web]\ncommand = 'serve'\n");
    assert_snapshot!("fine", scene.transcript(&["config", "check"]));
    assert_snapshot!("no_file", Scene::new().transcript(&["config", "check"]));
}

#[test]
fn every_value_tells_where_it_comes_from() {
    let scene = Scene::new()
        .file(
            "glowplug.toml",
            "[node]\nlisten = '127.0.0.1:1'\nadopt_timeout = '2m'\ndata_dir = '/srv/glowplug'\n\n[machine_types.tiny]\ncpu = 0.5\n\n\
             [apps.hello]\napp = 'hello.py::Hello'\nkeep_alive = 300\n",
        )
        .file("hello.py", "class Hello: ...")
        .env("GLOWPLUG_LISTEN", "127.0.0.1:2")
        .env("GLOWPLUG_NODE__LIMITS__WAITING_MAX", "50");
    assert_snapshot!("origins", scene.transcript(&["config", "show", "--origin"]));
    assert_snapshot!("origins_set", scene.transcript(&["config", "show", "--origin", "--set"]));
    assert_snapshot!("set_json", scene.transcript(&["config", "show", "--set", "--json"]));
}
