//! What a container may use up.

use futures::StreamExt;
use glowplug_runner::conformance::{Node, leaves_nothing};
use glowplug_runner::{ExitCause, Limits, Scratch, Writes, host};

use crate::process::fixture::{ProcessFixture, Runner};

on_each_runtime! {
    writes_end_where_they_are_told_to
    a_read_only_root_takes_nothing
    memory_in_files_counts_as_the_runners
    processes_end_where_they_are_told_to
}

const WRITABLE_BYTES: u64 = 4 << 20;
const PIDS_MAX: u64 = 24;

fn fixture(runtime: Runner) -> Option<ProcessFixture> {
    let fixture = ProcessFixture::if_possible(runtime)?;
    let program = env!("CARGO_BIN_EXE_glowplug-escape-program");
    std::fs::copy(program, fixture.image().join("escape")).unwrap();
    Some(fixture)
}

/// The number in a line that begins with this word.
fn number_after(lines: &[String], word: &str) -> u64 {
    let line = lines.iter().find_map(|line| line.strip_prefix(word));
    let number = line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no `{word}` in {lines:?}"))
}

async fn writes_end_where_they_are_told_to(runtime: Runner) {
    let Some(fixture) = fixture(runtime) else { return };
    for place in ["/filled", "/dev/shm/filled", "/cache/filled"] {
        let mut node = Node::start(&fixture);
        let mut spec = fixture.spec_of(1, &[]);
        spec.argv = ["/escape", "fill", place].map(str::to_owned).to_vec();
        let container = spec.container.as_mut().unwrap();
        container.root.writable_bytes = WRITABLE_BYTES;
        container.shared_memory_bytes = WRITABLE_BYTES;
        container.scratch = vec![Scratch { target: "/cache".into(), bytes: WRITABLE_BYTES }];
        node.ensure(&spec).await;
        node.spawned(spec.id).await;
        node.exited(spec.id).await;
        let lines = node.backend.logs(spec.id, 0, false).await.unwrap();
        let lines: Vec<String> = lines.map(|line| line.text).collect().await;
        assert!(lines.iter().any(|line| line.contains("No space left")), "{place} {lines:?}");
        let written = number_after(&lines, "filled");
        assert!(written <= WRITABLE_BYTES && written > WRITABLE_BYTES / 2, "{place} {lines:?}");
        node.backend.forget(spec.id).await.unwrap();
    }
    let image: Vec<_> = std::fs::read_dir(fixture.image()).unwrap().flatten().collect();
    assert!(image.iter().all(|file| file.file_name() != "filled"), "the image is as it was");
    leaves_nothing(&fixture).await;
}

async fn a_read_only_root_takes_nothing(runtime: Runner) {
    let Some(fixture) = fixture(runtime) else { return };
    let mut node = Node::start(&fixture);
    let mut spec = fixture.spec_of(1, &[]);
    spec.argv = ["/escape", "fill", "/filled", "fill", "/dev/shm/x"].map(str::to_owned).to_vec();
    let container = spec.container.as_mut().unwrap();
    container.root.writes = Writes::Refused;
    container.shared_memory_bytes = WRITABLE_BYTES;
    node.ensure(&spec).await;
    node.spawned(spec.id).await;
    let exit = node.exited(spec.id).await;
    assert!(exit.log_tail[0].contains("Read-only"), "{exit:?}");
    assert!(number_after(&exit.log_tail[1..], "filled") > 0, "places in memory are not the root");
    node.backend.forget(spec.id).await.unwrap();
    leaves_nothing(&fixture).await;
}

async fn memory_in_files_counts_as_the_runners(runtime: Runner) {
    let Some(fixture) = fixture(runtime) else { return };
    if !host::can_limit("memory") {
        println!("skipped: this host has no writable memory control group");
        return;
    }
    let mut node = Node::start(&fixture);
    for (number, words) in [(1, ["/program", "allocate", "200"]), (2, ["/escape", "fill", "/x"])] {
        let mut spec = fixture.spec_of(number, &[]);
        spec.argv = words.map(str::to_owned).to_vec();
        spec.limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
        node.ensure(&spec).await;
        node.spawned(spec.id).await;
        let exit = node.exited(spec.id).await;
        assert_eq!(exit.cause, ExitCause::OutOfMemory, "{words:?}");
        node.backend.forget(spec.id).await.unwrap();
    }
    leaves_nothing(&fixture).await;
}

async fn processes_end_where_they_are_told_to(runtime: Runner) {
    let Some(fixture) = fixture(runtime) else { return };
    if !host::can_limit("pids") {
        println!("skipped: this host has no writable pids control group");
        return;
    }
    let mut node = Node::start(&fixture);
    let mut spec = fixture.spec_of(1, &[]);
    spec.argv = ["/escape", "fork"].map(str::to_owned).to_vec();
    spec.limits = Limits { pids_max: Some(PIDS_MAX), ..Limits::default() };
    node.ensure(&spec).await;
    node.spawned(spec.id).await;
    let exit = node.exited(spec.id).await;
    assert!(number_after(&exit.log_tail, "forked") < PIDS_MAX, "{exit:?}");
    node.backend.forget(spec.id).await.unwrap();
    leaves_nothing(&fixture).await;
}
