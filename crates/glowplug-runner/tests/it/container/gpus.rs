//! GPUs by made-up specs, whose devices are ones that every host has.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use glowplug_runner::conformance::{Fixture, Node, Program, leaves_nothing};
use glowplug_runner::host::{GpuPlaces, give_gpus};
use glowplug_runner::{RunnerSpec, Writes};
use serde_json::json;

use crate::process::fixture::{ProcessFixture, Runner};

on_each_runtime! { a_gpu_is_what_its_spec_says }

fn places(fixture: &ProcessFixture) -> GpuPlaces {
    let path = |name: &str| fixture.path().join(name);
    fs::create_dir_all(path("cdi")).unwrap();
    fs::create_dir_all(path("dev")).unwrap();
    GpuPlaces { specs: vec![path("no-such-place"), path("cdi")], devices: path("dev") }
}

fn with_gpus(fixture: &ProcessFixture, gpus: &[u32]) -> RunnerSpec {
    let mut spec = fixture.spec(1, Program::Serves);
    spec.gpus = gpus.to_vec();
    spec
}

async fn a_gpu_is_what_its_spec_says(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    let places = places(&fixture);
    let library = fixture.path().join("libmade-up.so");
    fs::write(&library, "a library\n").unwrap();
    let hook = fixture.path().join("hook");
    let ran = fixture.path().join("ran");
    fs::write(&hook, format!("#!/bin/sh\ncat > /dev/null\necho \"$1\" >> {}\n", ran.display()))
        .unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let spec = json!({
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [
            { "name": "0", "containerEdits": { "deviceNodes": [{ "path": "/dev/kmsg" }] } },
            { "name": "1", "containerEdits": {
                "deviceNodes": [{ "path": "/dev/loop-control", "hostPath": "/dev/loop-control" }],
                "env": ["GPU=one", "LIBRARIES=/cdi"]
            }},
        ],
        "containerEdits": {
            "env": ["LIBRARIES=/gpu"],
            "mounts": [{
                "hostPath": library, "containerPath": "/gpu/libmade-up.so",
                "options": ["ro", "nosuid", "nodev", "bind"]
            }],
            "hooks": [{ "hookName": "createRuntime", "path": hook, "args": ["hook", "update-ldcache"] }],
        },
    });
    fs::write(places.specs[1].join("gpu.json"), spec.to_string()).unwrap();
    fs::write(places.specs[1].join("net.json"), r#"{"kind": "example.com/net"}"#).unwrap();
    let mut spec = with_gpus(&fixture, &[1]);
    give_gpus(&mut spec, &places).unwrap();
    assert_eq!(spec.container.as_ref().unwrap().binds.last().unwrap().writes, Writes::Refused);
    let script =
        "ls /dev/kmsg /dev/loop-control 2>/dev/null; echo $GPU $LIBRARIES; cat /gpu/libmade-up.so";
    spec.argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let mut node = Node::start(&fixture);
    node.ensure(&spec).await;
    node.spawned(spec.id).await;
    let mut said = node.exited(spec.id).await.log_tail;
    let was_told = said.iter().any(|line| line.contains("(update-ldcache)"));
    said.retain(|line| !line.contains("update-ldcache"));
    assert_eq!(said, ["/dev/loop-control", "one /gpu", "a library"]);
    let hooks = fs::read_to_string(ran).unwrap_or_default();
    assert_eq!(
        (was_told, &*hooks),
        if runtime == "native" { (true, "") } else { (false, "update-ldcache\n") }
    );
    node.backend.forget(spec.id).await.unwrap();
    leaves_nothing(&fixture).await;
}

#[test]
fn without_specs_there_are_the_nodes() {
    let Some(fixture) = ProcessFixture::of_containers_if_possible() else { return };
    let places = places(&fixture);
    for name in ["nvidia0", "nvidia2", "nvidiactl"] {
        fs::write(places.devices.join(name), "").unwrap();
    }
    let mut spec = with_gpus(&fixture, &[2]);
    give_gpus(&mut spec, &places).unwrap();
    let given = &spec.container.as_ref().unwrap().devices;
    assert_eq!(*given, ["nvidia2", "nvidiactl"].map(|name| places.devices.join(name)));
}

#[test]
fn what_cannot_be_given_is_told() {
    let Some(fixture) = ProcessFixture::of_containers_if_possible() else { return };
    let places = places(&fixture);
    let problem = || give_gpus(&mut with_gpus(&fixture, &[7]), &places).unwrap_err();
    assert!(problem().contains("nvidia7") && problem().contains("nvidia-ctk"), "{}", problem());
    fs::write(places.specs[1].join("nvidia.yaml"), "kind: nvidia.com/gpu").unwrap();
    assert!(problem().contains("is YAML"), "{}", problem());
    let spec = places.specs[1].join("nvidia.json");
    fs::write(&spec, "{").unwrap();
    assert!(problem().contains("is no spec of devices"), "{}", problem());
    fs::write(&spec, r#"{"kind": "nvidia.com/gpu", "devices": [{"name": "GPU-1"}]}"#).unwrap();
    assert!(problem().contains("no device `7` (they have GPU-1)"), "{}", problem());
    // Who has none is asked for nothing.
    give_gpus(&mut with_gpus(&fixture, &[]), &places).unwrap();
}
