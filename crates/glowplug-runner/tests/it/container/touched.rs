//! Which files of its image a program opens until it is ready.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use glowplug_runner::conformance::{Node, get, leaves_nothing};
use glowplug_runner::{Recording, RunnerSpec, TouchedFiles};

use crate::process::fixture::{ProcessFixture, Runner};

on_each_runtime! {
    the_files_that_a_start_opens_are_told_in_order
    what_opens_files_for_ever_is_recorded_until_it_is_ready
    a_recording_leaves_no_file_open
    a_start_that_is_not_recorded_tells_nothing
    a_start_that_fails_tells_nothing
    a_pipe_of_the_image_does_not_hold_up_the_supervisor
}

/// A runner that does as the script says and then serves.
fn recorded(fixture: &ProcessFixture, number: u32, script: &str) -> RunnerSpec {
    let mut spec = fixture.spec_of(number, &[]);
    spec.argv = vec!["/bin/sh".into(), "-c".into(), format!("{script}; exec /program serve")];
    spec.container.as_mut().unwrap().recording = Recording::UntilReady;
    spec
}

fn image_with_files(fixture: &ProcessFixture) {
    let image = fixture.image();
    std::fs::create_dir_all(image.join("data/below")).unwrap();
    for name in ["a", "b", "c", "late", "below/d", "looked-at", "written"] {
        std::fs::write(image.join("data").join(name), name).unwrap();
    }
    std::os::unix::fs::symlink("below/d", image.join("data/link")).unwrap();
    let run = image.join("data/run");
    std::fs::write(&run, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(run, PermissionsExt::from_mode(0o755)).unwrap();
}

fn names(files: &TouchedFiles) -> Vec<&str> {
    files.paths.iter().map(|path| std::str::from_utf8(path).unwrap()).collect()
}

async fn the_files_that_a_start_opens_are_told_in_order(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    image_with_files(&fixture);
    let mut node = Node::start(&fixture);
    // Listing, looking, making, and what is not the image's are no use of a file of it.
    let script = "cd /data; cat b a b link; ls -l . > /dev/null; test -s looked-at; echo x > made; cat made; \
                  mv c moved; echo more >> written; cat /usr/bin/env > /dev/null; ./run";
    let spec = recorded(&fixture, 1, script);
    let address = node.bring_up(&spec).await;
    let files = node.touched(spec.id).await;
    let expected = ["data/b", "data/a", "data/below/d", "data/written", "data/run", "program"];
    assert_eq!(names(&files), expected);
    assert!(files.is_complete);
    // What comes after it is ready is not told, and nothing is told twice.
    assert_eq!(get(&address, "/x").await.unwrap().0, 200);
    node.expect_silence();
    node.clear(spec.id).await;
    leaves_nothing(&fixture).await;
}

async fn what_opens_files_for_ever_is_recorded_until_it_is_ready(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    image_with_files(&fixture);
    let mut node = Node::start(&fixture);
    let mut spec = recorded(&fixture, 1, "");
    spec.argv[2] =
        "(while :; do cat /data/b /data/c > /dev/null; done) & exec /program serve".into();
    node.bring_up(&spec).await;
    let files = node.touched(spec.id).await;
    assert!(names(&files).contains(&"program"), "{files:?}");
    assert!(files.paths.len() <= 3, "each is told once: {files:?}");
    node.clear(spec.id).await;
    leaves_nothing(&fixture).await;
}

/// What a process has open that came with a recording.
fn recorded_files(pid: i32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let targets = targets.map(|target| target.display().to_string());
    let came =
        |target: &String| ["[fanotify]", "/data", "/program"].iter().any(|it| target.contains(it));
    targets.filter(came).collect()
}

async fn a_recording_leaves_no_file_open(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    image_with_files(&fixture);
    let mut node = Node::start(&fixture);
    let mut spec = recorded(&fixture, 1, "");
    spec.argv[2] =
        "cat /data/a /data/b; while test ! -e /go; do :; done; exec /program serve".into();
    node.ensure(&spec).await;
    node.spawned(spec.id).await;
    let shim = fixture.shims()[0];
    assert!(recorded_files(shim).iter().any(|file| file.contains("fanotify")), "it goes on");
    let program = fixture.processes(Some(spec.id))[0];
    std::fs::write(Path::new(&format!("/proc/{program}/root")).join("go"), "").unwrap();
    node.ready(spec.id).await;
    assert_eq!(node.touched(spec.id).await.paths.len(), 3);
    assert_eq!(recorded_files(shim), [""; 0]);
    let left = fixture.runner_dir(spec.id).join("opened");
    assert!(!left.exists(), "the list has been taken");
    node.clear(spec.id).await;
    leaves_nothing(&fixture).await;
}

async fn a_start_that_is_not_recorded_tells_nothing(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    image_with_files(&fixture);
    let mut node = Node::start(&fixture);
    let mut spec = recorded(&fixture, 1, "cat /data/a");
    spec.container.as_mut().unwrap().recording = Recording::Off;
    let address = node.bring_up(&spec).await;
    assert_eq!(get(&address, "/x").await.unwrap().0, 200);
    node.expect_silence();
    node.clear(spec.id).await;
    leaves_nothing(&fixture).await;
}

async fn a_start_that_fails_tells_nothing(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    image_with_files(&fixture);
    let mut node = Node::start(&fixture);
    let mut spec = recorded(&fixture, 1, "");
    spec.argv[2] = "cat /data/a; exit 3".into();
    node.ensure(&spec).await;
    node.spawned(spec.id).await;
    node.exited(spec.id).await;
    node.backend.forget(spec.id).await.unwrap();
    leaves_nothing(&fixture).await;
}

async fn a_pipe_of_the_image_does_not_hold_up_the_supervisor(runtime: Runner) {
    let Some(fixture) = ProcessFixture::if_possible(runtime) else { return };
    image_with_files(&fixture);
    let pipe = fixture.image().join("data/pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let mut node = Node::start(&fixture);
    // Open for a moment only: by the time it is told of, nobody is at its other end.
    let spec = recorded(&fixture, 1, "exec 5<> /data/pipe; exec 5>&-; cat /data/a");
    node.bring_up(&spec).await;
    assert_eq!(names(&node.touched(spec.id).await), ["data/a", "program"]);
    node.clear(spec.id).await;
    leaves_nothing(&fixture).await;
}
