//! Nodes of one queue with the same app, what the app was asked, and callers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use glowplug_testkit::{Served, ServedOptions, eventually, shared_postgres};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// For whatever should happen soon, on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_mins(1);
/// Of the nodes here: long enough for a busy machine, short enough to wait for.
const LEASE: &str = "3s";

/// Nodes that share a queue.
pub(crate) struct Ground {
    pub(crate) nodes: Vec<Served>,
    pub(crate) calls: Calls,
    folder: TempDir,
}

impl Ground {
    /// On the server that tests share.
    pub(crate) async fn start(nodes: usize) -> Self {
        Self::start_on(&shared_postgres(), nodes).await
    }

    pub(crate) async fn start_on(url: &str, nodes: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("glowplug-cluster-").tempdir().unwrap();
        let calls = Calls::start().await;
        let app = folder.path().join("app.py");
        std::fs::write(&app, include_str!("app.py")).unwrap();
        let schema = format!("test_{:x}", rand::random::<u64>());
        let config = format!(
            "[node]\nshutdown_timeout = '5s'\n\
             [node.store]\npostgres = '{url}'\nschema = '{schema}'\nlease = '{LEASE}'\n\
             [node.webhooks]\nallow = ['127.0.0.1']\n\
             [apps.app]\ncommand = ['python3', '{}']\nkeep_alive = 600\nmax_concurrency = 1\n\
             env = {{ LEDGER = '{}' }}\n",
            app.display(),
            folder.path().join("ledger").display(),
        );
        let start = || {
            Served::start(ServedOptions {
                binary: env!("CARGO_BIN_EXE_glowplug").into(),
                config: config.clone(),
                env: Vec::new(),
                data_dir: None,
            })
        };
        let nodes = tokio::task::block_in_place(|| (0..nodes).map(|_| start().unwrap()).collect());
        Self { nodes, calls, folder }
    }

    pub(crate) fn caller(&self, node: usize) -> Caller {
        let client = reqwest::Client::builder().no_proxy().timeout(SOON).build().unwrap();
        Caller { base: self.nodes[node].url(""), client }
    }

    fn noted(&self, line: &str) -> usize {
        let ledger: PathBuf = self.folder.path().join("ledger");
        let text = std::fs::read_to_string(ledger).unwrap_or_default();
        text.lines().filter(|each| *each == line).count()
    }

    /// How often the app of any node was sent this request.
    pub(crate) fn runs(&self, id: &str) -> usize {
        self.noted(&format!("run {id}"))
    }

    pub(crate) fn was_told_to_cancel(&self, id: &str) -> bool {
        self.noted(&format!("cancel {id}")) > 0
    }

    pub(crate) async fn wait_for_run(&self, id: &str) {
        eventually(&format!("the app works on {id}"), SOON, || async {
            (self.runs(id) > 0).then_some(())
        })
        .await;
    }

    /// The node does nothing and is not gone.
    pub(crate) fn pause(&self, node: usize) {
        self.signal(node, Signal::STOP);
    }

    pub(crate) fn resume(&self, node: usize) {
        self.signal(node, Signal::CONT);
    }

    fn signal(&self, node: usize, signal: Signal) {
        let pid = i32::try_from(self.nodes[node].pid().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    pub(crate) fn start_again(&mut self, node: usize) {
        tokio::task::block_in_place(|| self.nodes[node].start_again()).unwrap();
    }

    /// Every node can be stopped in order.
    pub(crate) fn end(mut self) {
        for node in &mut self.nodes {
            let code = tokio::task::block_in_place(|| node.stop());
            assert_eq!(code, Some(0), "{}", node.log());
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) error_type: Option<String>,
    pub(crate) body: Value,
}

#[derive(Clone)]
pub(crate) struct Caller {
    base: String,
    client: reqwest::Client,
}

impl Caller {
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> reqwest::Result<Answer> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body.to_owned()).send().await?;
        let status = answer.status().as_u16();
        let error_type = answer.headers().get("x-fal-error-type");
        let error_type = error_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let text = answer.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status, error_type, body })
    }

    /// The id of a request that was accepted.
    pub(crate) async fn submit(&self, path: &str, body: &str) -> String {
        let path = format!("/queue/local/app{path}");
        let answer = self.call(Method::POST, &path, &[], body).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["request_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn about(&self, id: &str, what: &str) -> reqwest::Result<Answer> {
        let method = if what == "/cancel" { Method::PUT } else { Method::GET };
        self.call(method, &format!("/queue/local/app/requests/{id}{what}"), &[], "").await
    }

    pub(crate) async fn state(&self, id: &str) -> String {
        let answer = self.about(id, "/status").await.unwrap();
        assert!(matches!(answer.status, 200 | 202), "{answer:?}");
        answer.body["status"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn wait_for_state(&self, id: &str, state: &str) {
        eventually(&format!("{id} is {state}"), SOON, || async {
            (self.state(id).await == state).then_some(())
        })
        .await;
    }

    /// The answer, once there is one.
    pub(crate) async fn completed(&self, id: &str) -> Answer {
        self.wait_for_state(id, "COMPLETED").await;
        self.about(id, "").await.unwrap()
    }

    /// Follows a request to its end and returns the states it was seen in.
    pub(crate) async fn follow(&self, id: &str) -> Vec<String> {
        let path = format!("/queue/local/app/requests/{id}/status/stream");
        let answer = self.call(Method::GET, &path, &[], "").await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let text = answer.body.as_str().unwrap().to_owned();
        let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let state = |event: &str| {
            let event: Value = serde_json::from_str(event).unwrap();
            event["status"].as_str().unwrap().to_owned()
        };
        let mut states: Vec<String> = events.map(state).collect();
        states.dedup();
        states
    }
}

/// Takes the calls of webhooks.
pub(crate) struct Calls {
    query: String,
    heard: Arc<Mutex<BTreeMap<String, Vec<Value>>>>,
}

impl Calls {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let query = format!("?fal_webhook=http%3A%2F%2F{}%2F", listener.local_addr().unwrap());
        let heard: Arc<Mutex<BTreeMap<String, Vec<Value>>>> = Arc::default();
        let notes = heard.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let notes = notes.clone();
                let serve = service_fn(move |request: hyper::Request<Incoming>| {
                    let notes = notes.clone();
                    async move {
                        let body = request.into_body().collect().await?.to_bytes();
                        let said: Value = serde_json::from_slice(&body).unwrap();
                        let id = said["request_id"].as_str().unwrap().to_owned();
                        notes.lock().unwrap().entry(id).or_default().push(said);
                        Ok::<_, hyper::Error>(hyper::Response::new(Empty::<Bytes>::new()))
                    }
                });
                tokio::spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    // A node that was killed breaks off.
                    drop(http.serve_connection(TokioIo::new(stream), serve).await);
                });
            }
        });
        Self { query, heard }
    }

    /// For the query of a submit.
    pub(crate) fn query(&self) -> &str {
        &self.query
    }

    pub(crate) async fn of(&self, id: &str) -> Vec<Value> {
        eventually(&format!("the webhook of {id} is called"), SOON, || async {
            Some(self.heard(id)).filter(|calls| !calls.is_empty())
        })
        .await
    }

    pub(crate) fn heard(&self, id: &str) -> Vec<Value> {
        self.heard.lock().unwrap().get(id).cloned().unwrap_or_default()
    }
}
