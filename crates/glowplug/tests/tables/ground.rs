//! A node with apps made for one table, its callers, and what the apps wrote down.

use std::path::PathBuf;
use std::time::Duration;

use glowplug_testkit::{Served, ServedOptions, eventually};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;
use tempfile::TempDir;

/// For whatever should happen soon, on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// Headers as a row has them.
pub(crate) type Fields = &'static [(&'static str, &'static str)];

pub(crate) struct Ground {
    served: Served,
    folder: TempDir,
    client: reqwest::Client,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.body[name].as_str()
    }

    pub(crate) fn id(&self) -> String {
        self.header("x-fal-request-id").unwrap().to_owned()
    }
}

/// One line of what an app wrote down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) what: String,
    pub(crate) pid: u64,
}

/// The table of one app: what stands beside its command.
pub(crate) fn app(name: &str, settings: &str) -> String {
    format!("[apps.\"local/{name}\"]\n$APP\nmax_multiplexing = 16\nkeep_alive = 60\n{settings}\n")
}

/// Starts a node with these tables. `$APP` stands for the command of `app.py` and its environment.
pub(crate) fn start(tables: &str) -> Ground {
    let folder = tempfile::Builder::new().prefix("glowplug-tables-").tempdir().unwrap();
    let app = folder.path().join("app.py");
    std::fs::write(&app, include_str!("app.py")).unwrap();
    let ledger = folder.path().join("ledger");
    std::fs::write(&ledger, "").unwrap();
    let command = format!(
        "command = [\"python3\", \"{}\"]\nenv.LEDGER = \"{}\"",
        app.display(),
        ledger.display()
    );
    // More than this machine has: the apps only wait.
    let config = format!(
        "[node.resources]\ncpu = 256\nmemory = '256GiB'\n{}",
        tables.replace("$APP", &command)
    );
    let served = Served::start(ServedOptions {
        binary: env!("CARGO_BIN_EXE_glowplug").into(),
        config,
        env: Vec::new(),
        data_dir: None,
    })
    .unwrap();
    let client = reqwest::Client::builder()
        .timeout(Duration::from_mins(2))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    Ground { served, folder, client }
}

impl Ground {
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.served.data_dir()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        self.served.url(path)
    }

    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub(crate) async fn send(&self, method: Method, path: &str, fields: Fields) -> Answer {
        let mut request = self.client.request(method, self.url(path)).body("{}");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.text().await.unwrap();
        let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
        Answer { status, headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[]).await
    }

    pub(crate) async fn run(&self, app: &str, path: &str, fields: Fields) -> Answer {
        self.send(Method::POST, &format!("/run/local/{app}{path}"), fields).await
    }

    pub(crate) async fn submit(&self, app: &str, path: &str, fields: Fields) -> Answer {
        self.send(Method::POST, &format!("/queue/local/{app}{path}"), fields).await
    }

    /// Puts a request into the queue and returns its id.
    pub(crate) async fn submitted(&self, app: &str, path: &str, fields: Fields) -> String {
        let answer = self.submit(app, path, fields).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.id()
    }

    /// What is below a queued request.
    pub(crate) async fn about(&self, app: &str, id: &str, below: &str) -> Answer {
        self.get(&format!("/queue/local/{app}/requests/{id}{below}")).await
    }

    pub(crate) async fn cancel(&self, app: &str, id: &str) -> Answer {
        let path = format!("/queue/local/{app}/requests/{id}/cancel");
        self.send(Method::PUT, &path, &[]).await
    }

    /// Waits until a queued request is complete: its last status, and its answer.
    pub(crate) async fn completed(&self, app: &str, id: &str) -> (Answer, Answer) {
        let status = eventually(&format!("{app} completes {id}"), SOON, || async {
            let status = self.about(app, id, "/status?logs=1").await;
            (status.body["status"] == "COMPLETED").then_some(status)
        })
        .await;
        (status, self.about(app, id, "").await)
    }

    /// Waits until the app is at work on a request.
    pub(crate) async fn at_work(&self, id: &str) {
        eventually(&format!("an app works on {id}"), SOON, || async {
            (!self.asked(id).is_empty()).then_some(())
        })
        .await;
    }

    /// How much was written down so far.
    pub(crate) fn lines(&self) -> usize {
        self.written().len()
    }

    /// The request of the first line after so many.
    pub(crate) fn newest_after(&self, lines: usize) -> Option<String> {
        self.written().get(lines)?["id"].as_str().map(str::to_owned)
    }

    fn written(&self) -> Vec<Value> {
        let ledger = std::fs::read_to_string(self.file("ledger")).unwrap();
        ledger.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What apps were asked under this request id, in order.
    pub(crate) fn asked(&self, id: &str) -> Vec<Asked> {
        let entries = self.written().into_iter();
        entries
            .filter(|entry| entry["id"] == id)
            .map(|entry| Asked {
                what: format!(
                    "{} {}",
                    entry["method"].as_str().unwrap(),
                    entry["path"].as_str().unwrap()
                ),
                pid: entry["pid"].as_u64().unwrap(),
            })
            .collect()
    }

    /// Who the app was told the caller of a request is; `None` until it was asked.
    #[expect(clippy::option_option, reason = "not asked yet, and told of nobody")]
    pub(crate) fn callers(&self, id: &str) -> Option<Option<String>> {
        let entry = self.written().into_iter().find(|entry| entry["id"] == id)?;
        Some(entry["caller"].as_str().map(str::to_owned))
    }

    /// The requests that were asked this, in order.
    pub(crate) fn order_of(&self, what: &str) -> Vec<String> {
        let (method, path) = what.split_once(' ').unwrap();
        let entries = self.written().into_iter();
        entries
            .filter(|entry| entry["method"] == method && entry["path"] == path)
            .map(|entry| entry["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The node's first key, with which it stops serving everyone.
    pub(crate) fn create_key(&self) -> String {
        #[expect(clippy::disallowed_methods, reason = "the command under test")]
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_glowplug"))
            .args(["--json", "--server", &self.url(""), "keys", "create", "--scope", "API"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let key: Value = serde_json::from_slice(&output.stdout).unwrap();
        format!("{}:{}", key["id"].as_str().unwrap(), key["secret"].as_str().unwrap())
    }

    /// The same without the processes.
    pub(crate) fn heard(&self, id: &str) -> Vec<String> {
        self.asked(id).into_iter().map(|asked| asked.what).collect()
    }
}
