//! From nothing of an image on the disk to the first answer of what runs in it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::engines::Engine;
use super::start_overhead::free_port;
use crate::command::Program;
use crate::stopwatch::{self, Stopwatch};

const TIMEOUT: Duration = Duration::from_mins(5);
const PAUSE: Duration = Duration::from_millis(2);
/// Of one try: a first answer may take as long as a whole pull.
const TRY_TIMEOUT: Duration = Duration::from_mins(5);
const RECORD_TIMEOUT: Duration = Duration::from_secs(20);
const RECORD_PAUSE: Duration = Duration::from_millis(20);
const CONTAINER: &str = "bench-answer";

/// Seconds from the start of `glowplug run` on an empty data directory.
pub(super) fn ours(program: &Path, home: &Path, image: &str) -> Result<f64> {
    run(program, home, image, || Ok(()))
}

/// Starts it once for the list of what it touches.
pub(super) fn record(program: &Path, home: &Path, image: &str) -> Result<()> {
    let lists = home.join("data/images/touched");
    run(program, home, image, || {
        let written = stopwatch::wait_for(RECORD_TIMEOUT, RECORD_PAUSE, || {
            Ok(fs::read_dir(&lists).ok().and_then(|mut lists| lists.next()))
        })?;
        written.map(drop).context("what the start touched is not recorded")
    })
    .map(drop)
}

/// Seconds until the first answer, after which `then` is done before the end.
fn run(program: &Path, home: &Path, image: &str, then: impl FnOnce() -> Result<()>) -> Result<f64> {
    fs::create_dir_all(home).with_context(|| format!("cannot create {}", home.display()))?;
    let port = free_port()?;
    let run = Program::new(program).args(["run", "--name", "large", "--image", image]);
    let run = run.arg("--listen").arg(format!("127.0.0.1:{port}"));
    let run = run.arg("--data-dir").arg(home.join("data")).dir(home);
    let watch = Stopwatch::start();
    let running = run.spawn(&home.join("run.log"))?;
    let answered = stopwatch::wait_for(TIMEOUT, PAUSE, || {
        running.check()?;
        Ok(ask(port, "/run/local/large/").ok())
    })?;
    let took = watch.elapsed();
    answered.context("the app gave no answer in time")?;
    then()?;
    drop(running);
    Ok(took.as_secs_f64())
}

/// Seconds of a pull and of a run of what was pulled.
pub(super) fn of(engine: &dyn Engine, folder: &Path, image: &str) -> Result<f64> {
    let port = free_port()?;
    let log = folder.join("answer.log");
    let watch = Stopwatch::start();
    engine.pull(image)?;
    let running = engine.run(image, CONTAINER, port, &[]).spawn(&log)?;
    let answered = stopwatch::wait_for(TIMEOUT, PAUSE, || {
        running.check()?;
        Ok(ask(port, "/").ok())
    })?;
    let took = watch.elapsed();
    engine.end(CONTAINER);
    drop(running);
    answered.context("the container gave no answer in time")?;
    Ok(took.as_secs_f64())
}

/// Fails unless the page is there.
fn ask(port: u16, path: &str) -> Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("nobody listens")?;
    stream.set_read_timeout(Some(TRY_TIMEOUT)).context("cannot wait for an answer")?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).context("cannot ask")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("the answer broke off")?;
    let first = answer.lines().next().unwrap_or_default();
    anyhow::ensure!(first.contains(" 200 "), "the answer is `{first}`");
    Ok(())
}
