//! A node that takes submits and does jobs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::PAYLOAD_BYTES;
use crate::bench::start_overhead;
use crate::bench::wrk::Wrk;
use crate::node::Node;
use crate::stopwatch::{self, Stopwatch};

/// Callers while whole jobs are measured.
const JOB_CALLERS: u32 = 64;
const DRAIN_TIMEOUT: Duration = Duration::from_mins(2);
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Ours {
    program: PathBuf,
    wrk: Wrk,
    /// The app of the jobs.
    server: PathBuf,
}

/// Where the queue is.
#[derive(Debug)]
pub(super) enum Store {
    /// In the node's data folder.
    Own,
    /// At this URL.
    Postgres(String),
}

/// How many requests of an app are not complete.
#[derive(Debug, Deserialize)]
struct Queue {
    size: u64,
    in_progress: u64,
}

impl Ours {
    pub(super) fn find(program: &Path) -> Result<Self> {
        let server = start_overhead::server()?;
        Ok(Self { program: program.to_owned(), wrk: Wrk::find()?, server })
    }

    /// Submits per second to an app that is never ready, so that nothing but accepting is measured.
    pub(super) fn submits(
        &self,
        folder: &Path,
        store: &Store,
        callers: u32,
        seconds: u32,
    ) -> Result<f64> {
        let app = "[apps.job]\ncommand = [\"sleep\", \"1000\"]\nmax_concurrency = 1\n";
        let node = self.node(folder, store, app)?;
        let script = script(folder)?;
        let seen = self.wrk.load(&submit_url(&node), callers, seconds, Some(&script))?;
        let queue = queue(&node)?;
        anyhow::ensure!(
            queue.size + queue.in_progress >= whole(seen.requests),
            "{} submits were answered, and {} requests are there",
            seen.requests,
            queue.size
        );
        Ok(seen.requests_per_second)
    }

    /// Jobs per second from the first submit until the last is done.
    pub(super) fn jobs(&self, folder: &Path, store: &Store, seconds: u32) -> Result<f64> {
        let server =
            serde_json::to_string(&self.server).context("the program's path is no text")?;
        let app = format!(
            "[apps.job]\ncommand = [{server}]\nmin_concurrency = 1\nmax_concurrency = 1\n\
             max_multiplexing = 64\n"
        );
        let node = self.node(folder, store, &app)?;
        let script = script(folder)?;
        node.post("/run/local/job/", "{}")?;
        let watch = Stopwatch::start();
        let seen = self.wrk.load(&submit_url(&node), JOB_CALLERS, seconds, Some(&script))?;
        let done = stopwatch::wait_for(DRAIN_TIMEOUT, PAUSE, || {
            node.check()?;
            let queue = queue(&node)?;
            Ok((queue.size + queue.in_progress == 0).then_some(()))
        })?;
        let took = watch.elapsed();
        done.context("the jobs were not all done in time")?;
        Ok(seen.requests / took.as_secs_f64())
    }

    /// A node with nothing from before.
    fn node(&self, folder: &Path, store: &Store, app: &str) -> Result<Node> {
        let home = folder.join("node");
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
        let store = match store {
            Store::Own => String::new(),
            Store::Postgres(url) => format!("[node.store]\npostgres = \"{url}\"\n\n"),
        };
        let config = format!(
            "[node]\nlog_level = \"warn\"\nadopt_timeout = \"5s\"\n\n[node.limits]\n\
             waiting_max = 10000000\n\n{store}{app}"
        );
        Node::start(&self.program, &home, &config)
    }
}

fn submit_url(node: &Node) -> String {
    format!("{}/queue/local/job/", node.url)
}

fn queue(node: &Node) -> Result<Queue> {
    node.get("/api/v1/apps/local/job/queue")
}

/// What makes wrk submit.
fn script(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("submit.lua");
    let payload = format!("{{\"prompt\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES - 13));
    let text = format!(
        "wrk.method = \"POST\"\nwrk.body = '{payload}'\n\
         wrk.headers[\"Content-Type\"] = \"application/json\"\n"
    );
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count that wrk wrote as a whole number"
)]
fn whole(count: f64) -> u64 {
    count as u64
}
