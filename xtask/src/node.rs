//! A node of this repository's `glowplug`, started for the demo and the benches, and its API.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::command::{Program, Running};
use crate::repository;
use crate::stopwatch;

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest cold start that the demo and the benches wait for.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(10);
const ANSWER_BYTES_MAX: u64 = 64 << 20;
const PAUSE: Duration = Duration::from_millis(20);

/// Which build of the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    Dev,
    Release,
}

impl Build {
    /// Builds `glowplug` and gives its path.
    pub(crate) fn glowplug(self) -> Result<PathBuf> {
        let release = self == Self::Release;
        let flags: &[&str] = if release { &["--release"] } else { &[] };
        Program::cargo(&["build", "--package", "glowplug"]).args(flags).stdout_to_stderr().run()?;
        Ok(self.path())
    }

    /// Where the binary lies once it is built.
    pub(crate) fn path(self) -> PathBuf {
        let profile = if self == Self::Release { "release" } else { "debug" };
        repository::target().join(profile).join("glowplug")
    }
}

/// A node that serves; it is stopped, with all its runners, when this value goes away.
#[derive(Debug)]
pub(crate) struct Node {
    running: Running,
    /// Such as `http://127.0.0.1:41234`.
    pub(crate) url: String,
    agent: ureq::Agent,
}

/// What the API says of an app, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct App {
    pub(crate) status: String,
    pub(crate) detail: Option<String>,
}

/// What the API says of a runner, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct Runner {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) created_at_micros: u64,
    pub(crate) ready_at_micros: Option<u64>,
    pub(crate) ended_at_micros: Option<u64>,
    pub(crate) end_reason: Option<String>,
}

/// The one line of a node's output that says where it listens.
#[derive(Debug, Deserialize)]
struct Serving {
    event: String,
    url: String,
}

impl Node {
    /// Starts a node on a free port of loopback; `folder` keeps its data, config and log.
    pub(crate) fn start(program: &Path, folder: &Path, config: &str) -> Result<Self> {
        let (config_file, log) = (folder.join("glowplug.toml"), folder.join("node.log"));
        fs::write(&config_file, config)
            .with_context(|| format!("cannot write {}", config_file.display()))?;
        fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;
        let running = Program::new(program)
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--config"])
            .arg(&config_file)
            .arg("--data-dir")
            .arg(folder.join("data"))
            .dir(folder)
            .spawn(&log)?;
        let url = stopwatch::wait_for(START_TIMEOUT, PAUSE, || {
            running.check()?;
            let text = fs::read_to_string(&log)
                .with_context(|| format!("cannot read {}", log.display()))?;
            let serving = text.lines().find_map(|line| serde_json::from_str::<Serving>(line).ok());
            Ok(serving.filter(|serving| serving.event == "serving").map(|serving| serving.url))
        })?;
        let url = url.with_context(|| format!("the node does not serve; see {}", log.display()))?;
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        Ok(Self { running, url, agent })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Fails when the node has ended by itself.
    pub(crate) fn check(&self) -> Result<()> {
        self.running.check()
    }

    pub(crate) fn app(&self, name: &str) -> Result<App> {
        self.get(&format!("/api/v1/apps/{name}"))
    }

    /// An app's runners, those that have ended included.
    pub(crate) fn runners(&self, app: &str) -> Result<Vec<Runner>> {
        self.get(&format!("/api/v1/runners?ended=true&app={app}"))
    }

    pub(crate) fn runner(&self, id: &str) -> Result<Runner> {
        self.get(&format!("/api/v1/runners/{id}"))
    }

    pub(crate) fn kill(&self, runner: &str) -> Result<()> {
        self.post(&format!("/api/v1/runners/{runner}/kill"), "").map(drop)
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.agent.get(format!("{}{path}", self.url)).call();
        let text = read(path, answer)?;
        serde_json::from_str(&text).with_context(|| format!("cannot read the answer of {path}"))
    }

    /// Sends JSON and gives the body of a good answer.
    pub(crate) fn post(&self, path: &str, body: &str) -> Result<String> {
        let request = self.agent.post(format!("{}{path}", self.url));
        read(path, request.header("content-type", "application/json").send(body))
    }

    /// Waits until nothing of an app is left.
    pub(crate) fn wait_until_cold(&self, app: &str, bound: Duration) -> Result<()> {
        let cold = stopwatch::wait_for(bound, PAUSE, || {
            self.check()?;
            let runners = self.runners(app)?;
            Ok(runners.iter().all(|runner| runner.ended_at_micros.is_some()).then_some(()))
        })?;
        cold.with_context(|| format!("{app} still has runners after {} s", bound.as_secs()))
    }
}

fn read(
    path: &str,
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<String> {
    let mut answer = answer.with_context(|| format!("the node gave no answer to {path}"))?;
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    let body = body.with_context(|| format!("the answer to {path} broke off"))?;
    if !answer.status().is_success() {
        bail!("{path} was answered with {}: {body}", answer.status());
    }
    Ok(body)
}
