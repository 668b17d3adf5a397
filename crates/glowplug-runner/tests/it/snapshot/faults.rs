//! What can be wrong with a capture or a restore: each is told, and followed by a plain start.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use glowplug_core::Rung;
use glowplug_runner::conformance::{Node, leaves_nothing};
use glowplug_runner::{ExitCause, Notice, StopMode, Warm};

use super::app::{Snapshots, capture, state};
use super::{fixture, rung};

/// What each program is told to do, and what the reason for having no snapshot says.
#[tokio::test]
async fn what_cannot_be_captured_is_told_and_goes_on() {
    let fixture = fixture!();
    let mut node = Node::start(&fixture.processes);
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let cases: [(&[&str], &str); 5] = [
        (&["connected", &port], "Connected TCP socket"),
        (&["daemon"], "daemons"),
        (&["deleted-file"], "which has no name any more"),
        (&["no-control"], "does not listen on its control socket"),
        (&["refuses"], "not now"),
    ];
    for (index, (words, expected)) in cases.into_iter().enumerate() {
        let number = 10 * u32::try_from(index + 1).unwrap();
        let spec = fixture.enclosed(number, words);
        node.ensure(&spec).await;
        assert_eq!(rung(&mut node, spec.id).await, Rung::ImageCached);
        let address = node.ready(spec.id).await;
        let before = state(&address).await;
        let problem = capture(&mut node, spec.id, &fixture.place(number)).await.unwrap();
        assert!(problem.contains(expected), "{problem}");
        assert_eq!(state(&address).await["secret"], before["secret"], "{words:?}");
        node.clear(spec.id).await;
    }
    leaves_nothing(&fixture.processes).await;
}

#[tokio::test]
async fn a_plain_program_is_not_captured() {
    let fixture = fixture!();
    let mut node = Node::start(&fixture.processes);
    let spec = fixture.plain(1, &[]);
    node.bring_up(&spec).await;
    let problem = capture(&mut node, spec.id, &fixture.place(1)).await.unwrap();
    assert!(problem.contains("does not run where it can be captured"), "{problem}");
    node.clear(spec.id).await;
    leaves_nothing(&fixture.processes).await;
}

/// Each does to a good snapshot what makes it one that cannot be restored.
#[tokio::test]
async fn a_broken_snapshot_is_followed_by_a_plain_start() {
    let fixture = fixture!();
    let mut node = Node::start(&fixture.processes);
    let captured = fixture.capture(&mut node, 1, &["memory", "4"]).await;
    let cut = |name: &'static str| {
        move |dir: &Path| {
            let path = image(dir, name);
            let half = fs::metadata(&path).unwrap().len() / 2;
            fs::File::options().write(true).open(&path).unwrap().set_len(half).unwrap();
        }
    };
    let cases: [(&str, Damage); 6] = [
        ("memory cut", Box::new(cut("pages-"))),
        ("map cut", Box::new(cut("pagemap-"))),
        ("core cut", Box::new(cut("core-"))),
        (
            "wrong version",
            Box::new(|dir| fs::write(image(dir, "inventory"), b"of long ago").unwrap()),
        ),
        ("a file gone", Box::new(|dir| fs::remove_file(image(dir, "mm-")).unwrap())),
        ("ours broken", Box::new(|dir| fs::write(dir.join("captured.json"), b"{").unwrap())),
    ];
    for (index, (what, damage)) in cases.iter().enumerate() {
        let number = 10 + u32::try_from(index).unwrap();
        let dir = fixture.place(number);
        for file in fs::read_dir(&captured.dir).unwrap().flatten() {
            fs::copy(file.path(), dir.join(file.file_name())).unwrap();
        }
        damage(&dir);
        let mut spec = fixture.restored(number, &captured);
        spec.warm = Warm::Snapshot { criu: fixture.criu.clone(), dir };
        starts_plainly(&mut node, &spec, what, &captured.state["secret"]).await;
    }
    leaves_nothing(&fixture.processes).await;
}

/// Each stands in for CRIU.
#[tokio::test]
async fn a_criu_that_fails_is_followed_by_a_plain_start() {
    let fixture = fixture!();
    let mut node = Node::start(&fixture.processes);
    let captured = fixture.capture(&mut node, 1, &[]).await;
    let real = fixture.criu.display();
    let cases = [
        ("not there", None),
        ("ends at once", Some("exit 1".to_owned())),
        ("is killed at once", Some("kill -KILL $$".to_owned())),
        // It has begun to restore when it ends.
        ("is killed half-way", Some(format!("{real} \"$@\" & sleep 0.03; kill -KILL $! $$"))),
        ("lies", Some("exit 0".to_owned())),
    ];
    for (index, (what, script)) in cases.into_iter().enumerate() {
        let number = 10 + u32::try_from(index).unwrap();
        let program = fixture.processes.path().join(format!("criu-{number}"));
        if let Some(script) = script {
            fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut spec = fixture.restored(number, &captured);
        spec.warm = Warm::Snapshot { criu: program, dir: captured.dir.clone() };
        starts_plainly(&mut node, &spec, what, &captured.state["secret"]).await;
    }
    leaves_nothing(&fixture.processes).await;
}

#[tokio::test]
async fn a_program_that_cannot_take_up_its_work_is_started_plainly() {
    let fixture = fixture!();
    let mut node = Node::start(&fixture.processes);
    let captured = fixture.capture(&mut node, 1, &["forgets"]).await;
    let spec = fixture.restored(2, &captured);
    starts_plainly(&mut node, &spec, "forgets", &captured.state["secret"]).await;
    leaves_nothing(&fixture.processes).await;
}

#[tokio::test]
async fn a_restore_that_hangs_can_be_stopped() {
    let fixture = fixture!();
    let mut node = Node::start(&fixture.processes);
    let captured = fixture.capture(&mut node, 1, &[]).await;
    let program = fixture.processes.path().join("criu-hangs");
    fs::write(&program, "#!/bin/sh\nsleep 600\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    for (number, mode) in [(2, StopMode::Kill), (3, StopMode::Graceful { grace: super::PATIENCE })]
    {
        let mut spec = fixture.restored(number, &captured);
        spec.warm = Warm::Snapshot { criu: program.clone(), dir: captured.dir.clone() };
        node.ensure(&spec).await;
        node.backend.stop(spec.id, mode).await.unwrap();
        let cause = node.exited(spec.id).await.cause;
        assert!(
            matches!(&cause, ExitCause::SpawnFailed(why) if why.contains("stopped")),
            "{cause:?}"
        );
        node.backend.forget(spec.id).await.unwrap();
    }
    leaves_nothing(&fixture.processes).await;
}

type Damage = Box<dyn Fn(&Path)>;

#[tokio::test]
async fn a_full_disk_is_told_and_the_program_goes_on() {
    let fixture = fixture!();
    let mut node = Node::start(&fixture.processes);
    // Before the program, whose mounts are a copy of those there are.
    let dir = fixture.place(1);
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("small", &dir, "tmpfs", flags, c"size=2m").unwrap();
    let spec = fixture.enclosed(1, &["memory", "8"]);
    let address = node.bring_up(&spec).await;
    let before = state(&address).await;
    let problem = capture(&mut node, spec.id, &dir).await;
    rustix::mount::unmount(&dir, rustix::mount::UnmountFlags::DETACH).unwrap();
    let problem = problem.unwrap();
    assert!(problem.contains("CRIU failed"), "{problem}");
    assert_eq!(state(&address).await["secret"], before["secret"]);
    node.clear(spec.id).await;
    leaves_nothing(&fixture.processes).await;
}

/// A good start all the same: with memory of its own, and word of what was wrong.
async fn starts_plainly(
    node: &mut Node,
    spec: &glowplug_runner::RunnerSpec,
    what: &str,
    captured_secret: &serde_json::Value,
) {
    node.ensure(spec).await;
    match node.next(spec.id).await {
        Notice::NotRestored { problem, .. } => println!("{what}: {problem}"),
        other => panic!("{what}: {other:?}"),
    }
    assert_eq!(rung(node, spec.id).await, Rung::ImageCached, "{what}");
    let state = state(&node.ready(spec.id).await).await;
    assert_ne!(&state["secret"], captured_secret, "{what}");
    assert_eq!(state["works"], "yes", "{what}");
    node.clear(spec.id).await;
}

/// The first file of the snapshot whose name begins like this.
fn image(dir: &Path, prefix: &str) -> std::path::PathBuf {
    let files = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    let begins =
        |path: &std::path::PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(prefix);
    let mut found: Vec<_> = files.filter(begins).collect();
    found.sort();
    found.remove(0)
}
