//! Starts from snapshots, with the real binary, a real Python app and the real CRIU.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use glowplug_testkit::{Served, ServedOptions, data_dir_with_python_apps, wait_until};
use serde_json::Value;
use tempfile::TempDir;

/// For whatever should happen soon, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_mins(1);
const RESTORED: &str = "from a snapshot";

struct Scene {
    served: Served,
    client: reqwest::Client,
    data_dir: TempDir,
}

/// A node that serves a class of `app.py` as `local/app`. `None`, with the reason printed: nothing can be
/// captured here.
fn start(class: &str) -> Option<Scene> {
    let Some(criu) = std::env::var_os("GLOWPLUG_TEST_CRIU").map(PathBuf::from) else {
        println!("skipped: there is no CRIU for tests");
        return None;
    };
    let cache = std::env::var_os("GLOWPLUG_TEST_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-apps"));
    let data_dir = data_dir_with_python_apps(&cache).unwrap();
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/app.py");
    let config = format!(
        "[node.resources]\ncpu = 64\n[node.warmth]\ncriu = '{}'\n[machine_types.small]\ncpu = 1\n\
         enforce = false\n[apps.app]\napp = '{}::{class}'\nmachine_type = 'small'\nzygote = 'off'\n\
         secrets = {{ TOKEN = 'env:SHOP_TOKEN' }}\n",
        criu.display(),
        app.display()
    );
    let served = Served::start(ServedOptions {
        binary: env!("CARGO_BIN_EXE_glowplug").into(),
        config,
        env: [("SHOP_TOKEN".to_owned(), "s3cret".to_owned())].into(),
        data_dir: Some(data_dir.path().to_owned()),
    })
    .unwrap();
    let client = reqwest::Client::builder().timeout(Duration::from_mins(5)).build().unwrap();
    Some(Scene { served, client, data_dir })
}

impl Scene {
    async fn call(&self) -> Value {
        let url = self.served.url("/run/local/app/");
        let answer = self.client.post(url).json(&serde_json::json!({})).send().await.unwrap();
        let (status, body) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 200, "{body}\n{}", self.served.log());
        serde_json::from_str(&body).unwrap()
    }

    async fn runners(&self) -> Vec<String> {
        let url = self.served.url("/api/v1/runners?app=local/app");
        let all: Value = self.client.get(url).send().await.unwrap().json().await.unwrap();
        let all = all.as_array().unwrap().iter();
        all.map(|runner| runner["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Ends the runners, starts one by a call, and returns its id and the answer.
    async fn start_anew(&self) -> (String, Value) {
        for runner in self.runners().await {
            self.cli(&["runners", "stop", &runner]);
        }
        glowplug_testkit::eventually("no runner is left", SOON, || async {
            self.runners().await.is_empty().then_some(())
        })
        .await;
        let answer = self.call().await;
        let runners = self.runners().await;
        (runners[0].clone(), answer)
    }

    #[expect(clippy::disallowed_methods, reason = "the command line under test")]
    fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_glowplug"))
            .args(arguments)
            .args(["--server", &self.served.url("")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn wait_for_why(&self, id: &str, words: &str) {
        let mut said = String::new();
        wait_until(&format!("`why {id}` says `{words}`"), SOON, || {
            said = self.cli(&["why", id]);
            said.contains(words).then_some(())
        });
    }

    /// The folders of snapshots that hold this.
    fn snapshots_with(&self, name: &str) -> Vec<PathBuf> {
        let all = std::fs::read_dir(self.data_dir.path().join("snapshots"));
        let all = all.into_iter().flatten().flatten().map(|entry| entry.path());
        all.filter(|folder| {
            !folder.file_name().unwrap().to_string_lossy().starts_with('.')
                && folder.join(name).exists()
        })
        .collect()
    }

    fn wait_for_snapshot(&self) -> PathBuf {
        wait_until("a snapshot is taken", SOON, || {
            let refused = self.snapshots_with("quarantined");
            let reason =
                refused.first().map(|folder| std::fs::read_to_string(folder.join("quarantined")));
            assert!(reason.is_none(), "{reason:?}\n{}", self.served.log());
            self.snapshots_with("manifest.json").pop()
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_runner_answers_the_same_and_shares_nothing() {
    let Some(mut scene) = start("Model") else { return };
    let plain = scene.call().await;
    scene.wait_for_snapshot();
    let mut weights = BTreeSet::new();
    let mut drawn = BTreeSet::new();
    let mut jobs = BTreeSet::from([plain["job"].to_string()]);
    for _ in 0..3 {
        let (runner, restored) = scene.start_anew().await;
        scene.wait_for_why(&runner, RESTORED);
        weights.insert(restored["weights"].to_string());
        assert_eq!(restored["told"], serde_json::json!(["before", "after with s3cret"]));
        // Not in the snapshot, and there all the same.
        assert_eq!(
            (&restored["token_at_setup"], &restored["token"]),
            (&Value::Null, &"s3cret".into())
        );
        assert!(jobs.insert(restored["job"].to_string()), "{restored}");
        for fresh in restored["fresh"].as_array().unwrap() {
            assert!(drawn.insert(fresh.to_string()), "two runners have drawn {fresh}");
        }
    }
    assert_eq!(weights.len(), 1, "all go on with the same memory: {weights:?}");
    assert_eq!(scene.served.stop(), Some(0), "{}", scene.served.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_followed_by_plain_starts() {
    let Some(mut scene) = start("Model") else { return };
    scene.call().await;
    let folder = scene.wait_for_snapshot();
    let (runner, restored) = scene.start_anew().await;
    scene.wait_for_why(&runner, RESTORED);
    let pages =
        std::fs::read_dir(folder.join("images")).unwrap().flatten().map(|entry| entry.path());
    let mut pages =
        pages.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("pages-"));
    let pages = pages.next().unwrap();
    let mut bytes = std::fs::read(&pages).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&pages, bytes).unwrap();
    let (runner, plain) = scene.start_anew().await;
    assert!(!scene.cli(&["why", &runner]).contains(RESTORED));
    assert_ne!(plain["weights"], restored["weights"]);
    assert_eq!(plain["told"], serde_json::json!([]));
    wait_until("it is put in quarantine", SOON, || scene.snapshots_with("quarantined").pop());
    assert_eq!(scene.served.stop(), Some(0), "{}", scene.served.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_needs_its_secrets_to_set_up_has_none() {
    let Some(mut scene) = start("NeedsItsToken") else { return };
    scene.call().await;
    let folder = wait_until("it is told why", SOON, || scene.snapshots_with("quarantined").pop());
    let reason = std::fs::read_to_string(folder.join("quarantined")).unwrap();
    assert!(reason.contains("without secrets"), "{reason}");
    let (runner, _) = scene.start_anew().await;
    assert!(!scene.cli(&["why", &runner]).contains(RESTORED));
    assert_eq!(scene.served.stop(), Some(0), "{}", scene.served.log());
}
