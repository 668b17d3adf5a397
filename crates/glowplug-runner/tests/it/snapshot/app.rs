//! A runner's program that can be captured, and where its memory goes.

use std::path::{Path, PathBuf};

use futures::StreamExt;
use glowplug_core::{Rung, RunnerAddress, RunnerId};
use glowplug_runner::conformance::{Node, get};
use glowplug_runner::{ExitCause, Listen, LogStream, Notice, RunnerSpec, Warm, host};
use serde_json::Value;
use tokio::time::timeout;

use super::PATIENCE;
use crate::process::fixture::ProcessFixture;

pub(super) struct Snapshots {
    pub(super) processes: ProcessFixture,
    pub(super) criu: PathBuf,
}

/// A capture that has succeeded.
pub(super) struct Captured {
    pub(super) dir: PathBuf,
    words: Vec<String>,
    /// What the program said of itself right before.
    pub(super) state: Value,
}

impl Snapshots {
    /// An error: why nothing can be captured here.
    pub(super) fn if_possible() -> Result<Self, String> {
        let named = std::env::var_os("GLOWPLUG_TEST_CRIU").map(PathBuf::from);
        let criu = host::find_criu(named.as_deref())?.program;
        Ok(Self { processes: ProcessFixture::new(), criu })
    }

    pub(super) fn plain(&self, number: u32, words: &[&str]) -> RunnerSpec {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut spec = self.processes.spec_of(number, &[]);
        spec.argv = vec![
            "/usr/bin/python3".to_owned(),
            "-B".to_owned(),
            here.join("tests/it/snapshot/app.py").display().to_string(),
            here.join("../../runtime").display().to_string(),
        ];
        spec.argv.extend(words.iter().map(|word| (*word).to_owned()));
        spec.listen = Listen::UnixSocket;
        self.processes.path().clone_into(&mut spec.cwd);
        spec
    }

    pub(super) fn enclosed(&self, number: u32, words: &[&str]) -> RunnerSpec {
        let mut spec = self.plain(number, words);
        spec.warm = Warm::Enclosed { criu: self.criu.clone() };
        spec
    }

    pub(super) fn restored(&self, number: u32, captured: &Captured) -> RunnerSpec {
        let words: Vec<&str> = captured.words.iter().map(String::as_str).collect();
        let mut spec = self.plain(number, &words);
        spec.warm = Warm::Snapshot { criu: self.criu.clone(), dir: captured.dir.clone() };
        spec
    }

    /// An empty directory for a capture.
    pub(super) fn place(&self, number: u32) -> PathBuf {
        let dir = self.processes.path().join(format!("snapshot-{number}"));
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    /// Starts the program enclosed, asks it once, and captures it.
    pub(super) async fn capture(&self, node: &mut Node, number: u32, words: &[&str]) -> Captured {
        let spec = self.enclosed(number, words);
        node.ensure(&spec).await;
        assert_eq!(super::rung(node, spec.id).await, Rung::ImageCached);
        let state = state(&node.ready(spec.id).await).await;
        let dir = self.place(number);
        let problem = capture(node, spec.id, &dir).await;
        assert_eq!(problem, None, "{words:?}");
        // Its end is part of it, and no surprise.
        assert_eq!(node.exited(spec.id).await.cause, ExitCause::Signal(9));
        node.backend.forget(spec.id).await.unwrap();
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Captured { dir, words, state }
    }

    /// What the program has written, but for its first word.
    pub(super) async fn log(&self, node: &Node, id: RunnerId) -> Vec<String> {
        let lines = node.backend.logs(id, 0, false).await.unwrap().collect::<Vec<_>>().await;
        let own = lines.into_iter().filter(|line| line.stream != LogStream::Supervisor);
        own.map(|line| line.text).filter(|text| text != "ready").collect()
    }
}

/// Captures a runner that is ready; the answer is what went wrong.
pub(super) async fn capture(node: &mut Node, id: RunnerId, dir: &Path) -> Option<String> {
    node.backend.capture(id, dir.to_owned()).await.unwrap();
    let notice = timeout(PATIENCE, node.next(id)).await.expect("a capture is answered");
    match notice {
        Notice::Captured { problem, .. } => problem,
        other => panic!("{id} should have been captured: {other:?}"),
    }
}

/// What the program says of itself.
pub(super) async fn state(address: &RunnerAddress) -> Value {
    let (status, body) = get(address, "/").await.expect("the program answers");
    assert_eq!(status, 200);
    serde_json::from_str(&body).unwrap()
}
