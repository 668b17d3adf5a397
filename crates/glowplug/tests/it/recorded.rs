//! A node with apps whose times are known, the callers that use it, and what it recorded of them.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use glowplug_sim::trace::{App, Reader, Record, Request, Start, Stop};
use glowplug_testkit::{Served, ServedOptions, eventually};
use serde_json::Value;
use tempfile::TempDir;

/// For whatever should happen soon, on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// Takes SETUP seconds to start, and as long for an answer as `seconds` in the query says.
const SERVER: &str = r#"
import http.server, os, time, urllib.parse

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        time.sleep(float(asked.get("seconds", 0)))
        self.send_response(int(asked.get("status", 200)))
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST

    def log_message(self, *words):
        pass

time.sleep(float(os.environ.get("SETUP", "0")))
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

pub(crate) struct Node {
    pub(crate) served: Served,
    folder: TempDir,
    client: reqwest::Client,
}

/// The config of a node: `$APP` stands for the command of an app.
pub(crate) fn start(config: &str) -> Node {
    let folder = tempfile::Builder::new().prefix("glowplug-recorded-").tempdir().unwrap();
    let server = folder.path().join("server.py");
    std::fs::write(&server, SERVER).unwrap();
    let command = format!("command = [\"python3\", \"{}\"]", server.display());
    let served = Served::start(ServedOptions {
        binary: env!("CARGO_BIN_EXE_glowplug").into(),
        config: config.replace("$APP", &command),
        env: Vec::new(),
        data_dir: None,
    })
    .unwrap();
    let client = reqwest::Client::builder().timeout(SOON).build().unwrap();
    Node { served, folder, client }
}

/// One who calls a node.
#[derive(Clone)]
pub(crate) struct Caller {
    base: String,
    client: reqwest::Client,
}

impl Caller {
    /// The status of a direct request.
    pub(crate) async fn run(&self, app: &str, query: &str) -> u16 {
        let url = format!("{}/run/local/{app}/?{query}", self.base);
        let answer = self.client.post(url).body("{}").send().await.unwrap();
        let status = answer.status().as_u16();
        // Who leaves before the end has gone away.
        answer.bytes().await.unwrap();
        status
    }

    pub(crate) async fn submit(&self, app: &str, query: &str) -> String {
        let url = format!("{}/queue/local/{app}/?{query}", self.base);
        let answer = self.client.post(url).body("{}").send().await.unwrap();
        let body: Value = answer.json().await.unwrap();
        body["request_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn completed(&self, app: &str, id: &str) {
        let url = format!("{}/queue/local/{app}/requests/{id}/status", self.base);
        eventually("the request is complete", SOON, || async {
            let status: Value = self.client.get(&url).send().await.ok()?.json().await.ok()?;
            (status["status"] == "COMPLETED").then_some(())
        })
        .await;
    }
}

impl Node {
    pub(crate) fn caller(&self) -> Caller {
        Caller { base: self.served.url(""), client: self.client.clone() }
    }

    /// Status and body of a call to the control API.
    pub(crate) async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let request = self.client.post(self.served.url(path)).body(body.to_owned());
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Waits until no runner is left.
    pub(crate) async fn wait_for_quiet(&self) {
        eventually("all runners are gone", SOON, || async {
            let runners = self.client.get(self.served.url("/api/v1/runners")).send().await.ok()?;
            let runners: Vec<Value> = runners.json().await.ok()?;
            runners.is_empty().then_some(())
        })
        .await;
    }

    /// Waits until as many runners of all apps are in this state.
    pub(crate) async fn wait_for(&self, state: &str, count: usize) {
        eventually(&format!("{count} runners are {state}"), SOON, || async {
            let runners = self.client.get(self.served.url("/api/v1/runners")).send().await.ok()?;
            let runners: Vec<Value> = runners.json().await.ok()?;
            let found = runners.iter().filter(|runner| runner["state"] == state).count();
            (found == count).then_some(())
        })
        .await;
    }

    #[expect(clippy::disallowed_methods, reason = "the command line under test")]
    pub(crate) fn cli(&self, arguments: &[&str]) -> Output {
        std::process::Command::new(env!("CARGO_BIN_EXE_glowplug"))
            .args(arguments)
            .env("GLOWPLUG_SERVER", self.served.url(""))
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    /// What a command prints with `--json`.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.cli(&[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Exports with these arguments, and reads the trace.
    pub(crate) fn export(&self, arguments: &[&str]) -> Trace {
        let output = self.cli(&[&["trace", "export", "-o", "t.gptrace"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let trace = Trace::read(&self.folder.path().join("t.gptrace"));
        assert!(!self.folder.path().join("t.gptrace.partial").exists());
        trace
    }

    pub(crate) fn trace_dir(&self) -> PathBuf {
        self.served.data_dir().join("trace")
    }

    pub(crate) fn data_dir_flag(&self) -> [String; 2] {
        ["--data-dir".to_owned(), self.served.data_dir().display().to_string()]
    }
}

/// Waits until an app has no runner.
pub(crate) async fn gone(node: &Node, app: &str) {
    let url = node.served.url(&format!("/api/v1/runners?app=local/{app}"));
    eventually(&format!("{app} has no runner"), SOON, || async {
        let runners: Vec<Value> = node.client.get(&url).send().await.ok()?.json().await.ok()?;
        runners.is_empty().then_some(())
    })
    .await;
}

/// A trace, by kind of record. The reader refuses what is out of order.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) apps: Vec<App>,
    pub(crate) requests: Vec<Request>,
    pub(crate) starts: Vec<Start>,
    pub(crate) stops: Vec<Stop>,
}

impl Trace {
    fn read(path: &Path) -> Self {
        let mut trace = Self::default();
        for record in Reader::new(std::fs::File::open(path).unwrap()).unwrap() {
            match record.unwrap() {
                Record::App(app) => trace.apps.push(app),
                Record::Request(request) => trace.requests.push(request),
                Record::Start(start) => trace.starts.push(start),
                Record::Stop(stop) => trace.stops.push(stop),
            }
        }
        trace
    }
}
