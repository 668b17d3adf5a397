//! A node with apps made for the test, and the callers that use it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use glowplug_testkit::{Served, ServedOptions, eventually, processes_with, wait_until};
use reqwest::{Method, Response};
use serde_json::Value;
use tempfile::TempDir;

/// For whatever should happen soon, on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) error_type: Option<String>,
    pub(crate) request: String,
    pub(crate) body: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn assert_ok(&self) -> &Value {
        assert_eq!(self.status, 200, "{self:?}");
        &self.body
    }

    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, error_type: &str) {
        let seen = (self.status, self.error_type.as_deref());
        assert_eq!(seen, (status, Some(error_type)), "{self:?}");
    }

    /// The process that answered.
    #[track_caller]
    pub(crate) fn pid(&self) -> u64 {
        self.assert_ok()["pid"].as_u64().unwrap()
    }

    pub(crate) fn text(&self) -> String {
        self.body.to_string()
    }
}

pub(crate) struct Ground {
    pub(crate) served: Served,
    /// The test's own files, which outlive the node.
    folder: TempDir,
    client: reqwest::Client,
}

/// The config of a node: `$APP` stands for the command of `app.py`, `$FOLDER` for the test's own folder.
pub(crate) fn start(config: &str) -> Ground {
    let folder = tempfile::Builder::new().prefix("glowplug-chaos-").tempdir().unwrap();
    let app = folder.path().join("app.py");
    std::fs::write(&app, include_str!("app.py")).unwrap();
    let command = format!("command = [\"python3\", \"{}\"]", app.display());
    let config =
        config.replace("$APP", &command).replace("$FOLDER", &folder.path().display().to_string());
    let served = Served::start(ServedOptions {
        binary: env!("CARGO_BIN_EXE_glowplug").into(),
        config,
        env: Vec::new(),
        data_dir: None,
    })
    .unwrap();
    Ground { served, folder, client: client() }
}

pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(Duration::from_mins(2)).build().unwrap()
}

impl Ground {
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Calls that can go on while the node is killed and started.
    pub(crate) fn caller(&self) -> Caller {
        Caller { base: self.served.url(""), client: self.client.clone() }
    }

    pub(crate) async fn run(&self, app: &str, path: &str) -> Answer {
        self.caller().post(&format!("/run/local/{app}{path}"), "{}").await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.caller().call(Method::GET, path, String::new()).await.unwrap();
        answer.assert_ok().clone()
    }

    pub(crate) async fn patch_scaling(&self, app: &str, patch: Value) -> Answer {
        let path = format!("/api/v1/apps/local/{app}/scaling");
        self.caller().call(Method::PATCH, &path, patch.to_string()).await.unwrap()
    }

    /// Runners that live, all or those of one state.
    pub(crate) async fn runners(&self, app: &str, state: Option<&str>) -> Vec<Value> {
        let all = self.get(&format!("/api/v1/runners?app=local/{app}")).await;
        let all = all.as_array().unwrap().clone();
        all.into_iter().filter(|r| state.is_none_or(|state| r["state"] == state)).collect()
    }

    pub(crate) async fn wait_for_runners(&self, app: &str, count: usize) {
        let what = format!("{app} has {count} runners");
        eventually(&what, SOON, || async {
            (self.runners(app, None).await.len() == count).then_some(())
        })
        .await;
    }

    /// What `glowplug why` says, as people read it.
    pub(crate) fn why(&self, id: &str) -> String {
        let output = self.cli(&["why", id]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until `why` mentions this: decisions are written down a moment after they are made.
    pub(crate) fn wait_for_why(&self, id: &str, word: &str) {
        wait_until(&format!("`why {id}` says `{word}`"), Duration::from_secs(10), || {
            self.why(id).contains(word).then_some(())
        });
    }

    #[expect(clippy::disallowed_methods, reason = "the command line under test")]
    pub(crate) fn cli(&self, arguments: &[&str]) -> Output {
        std::process::Command::new(env!("CARGO_BIN_EXE_glowplug"))
            .args(arguments)
            .args(["--server", &self.served.url("")])
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    /// Processes of this node: itself, shims, programs and whatever they started.
    pub(crate) fn processes(&self) -> Vec<u32> {
        processes_with(&self.served.folder().display().to_string())
    }

    /// Waits until nothing but the node itself is left.
    pub(crate) fn wait_for_no_runner_process(&self) {
        let node = self.served.pid();
        wait_until("nothing of the runners is left", SOON, || {
            self.processes().iter().all(|pid| Some(*pid) == node).then_some(())
        });
    }

    /// Whatever happened before, the node serves, and can be stopped without leaving anything.
    pub(crate) async fn end(mut self) {
        for path in ["/healthz", "/readyz", "/metrics"] {
            let status = self.client.get(self.served.url(path)).send().await.unwrap().status();
            assert_eq!(status, 200, "{path}");
        }
        assert_eq!(self.served.stop(), Some(0), "{}", self.served.log());
        self.assert_nothing_left();
    }

    /// No process, no runner's directory or socket.
    pub(crate) fn assert_nothing_left(&self) {
        wait_until("no process is left", SOON, || self.processes().is_empty().then_some(()));
        for folder in ["runners", "sockets", "timelines"] {
            assert_eq!(entries(&self.served.data_dir().join(folder)), Vec::<PathBuf>::new());
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// One who calls a node over HTTP.
#[derive(Clone)]
pub(crate) struct Caller {
    base: String,
    client: reqwest::Client,
}

impl Caller {
    pub(crate) fn new(base: String) -> Self {
        Self { base, client: client() }
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> reqwest::Result<Answer> {
        self.call(Method::POST, path, body.to_owned()).await
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> reqwest::Result<Answer> {
        let url = format!("{}{path}", self.base);
        read(self.client.request(method, url).body(body).send().await?).await
    }

    pub(crate) async fn with_header(
        &self,
        path: &str,
        name: &str,
        value: &str,
    ) -> reqwest::Result<Answer> {
        let url = format!("{}{path}", self.base);
        read(self.client.post(url).header(name, value).body("{}").send().await?).await
    }

    /// Puts a request into the queue; its id if it was accepted.
    pub(crate) async fn submit(&self, app: &str, path: &str, body: &str) -> Option<String> {
        let answer = self.post(&format!("/queue/local/{app}{path}"), body).await.ok()?;
        (answer.status == 200).then(|| answer.body["request_id"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn status(&self, app: &str, id: &str) -> reqwest::Result<Answer> {
        let path = format!("/queue/local/{app}/requests/{id}/status");
        self.call(Method::GET, &path, String::new()).await
    }

    pub(crate) async fn result(&self, app: &str, id: &str) -> reqwest::Result<Answer> {
        self.call(Method::GET, &format!("/queue/local/{app}/requests/{id}"), String::new()).await
    }

    /// Waits until a queued request is complete, over crashes of the node, and returns its answer.
    pub(crate) async fn completed(&self, app: &str, id: &str) -> Answer {
        eventually(&format!("request {id} to {app} is complete"), SOON * 2, || async {
            let status = self.status(app, id).await.ok()?;
            assert!(matches!(status.status, 200 | 202), "{status:?}");
            let done = status.body["status"] == "COMPLETED";
            if done { self.result(app, id).await.ok() } else { None }
        })
        .await
    }
}

async fn read(response: Response) -> reqwest::Result<Answer> {
    let header = |name: &str| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let (status, error_type, request) = (
        response.status().as_u16(),
        header("x-fal-error-type"),
        header("x-fal-request-id").unwrap_or_default(),
    );
    let body = response.text().await?;
    let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
    Ok(Answer { status, error_type, request, body })
}

/// Runs several calls at once and returns their results in order.
pub(crate) async fn all<T: Send + 'static>(
    calls: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}
