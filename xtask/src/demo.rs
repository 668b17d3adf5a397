//! `cargo xtask demo`: a picture is sent to a cold app, its text comes back, and the app goes cold again.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::command::{self, Program};
use crate::node::{Build, Node};
use crate::repository;
use crate::stopwatch::{self, Stopwatch};

const APP: &str = "local/ocr";
const EXAMPLE: &str = "examples/ocr";
/// Short, so that the end of the runner can be watched.
const KEEP_ALIVE_SECONDS: u64 = 3;
const KEEP_ALIVE_SECONDS_STAY: u64 = 60;
/// Fetching the packages of the app takes most of it, on a slow line.
const PREPARE_TIMEOUT: Duration = Duration::from_mins(30);
const END_TIMEOUT: Duration = Duration::from_secs(30);
const LOOK_PAUSE: Duration = Duration::from_millis(250);
const WARM_REQUESTS: usize = 3;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave the node running until Ctrl-C
    #[arg(long)]
    stay: bool,
    /// Use a release build, which takes minutes longer to build; most of a start is the model's own time
    #[arg(long)]
    release: bool,
}

/// What the app answers, as far as it is shown.
#[derive(Debug, Deserialize)]
struct Reading {
    text: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    command::end_all_on_signal()?;
    let watch = Stopwatch::start();
    eprintln!("building glowplug");
    let program = if args.release { Build::Release } else { Build::Dev }.glowplug()?;
    let folder = repository::target().join("demo");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let node = Node::start(&program, &folder, &config(args.stay)?)?;
    say(watch, &format!("a node serves at {}", node.url));
    prepare(&node, watch)?;

    let picture = repository::root().join(EXAMPLE).join("sample.png");
    let body = request(&picture)?;
    println!("\n{}  →  {}/run/{APP}, which has no runner\n", shown(&picture), node.url);
    let (reading, cold) = ask(&node, &body)?;
    for line in reading.text.lines() {
        println!("    {line}");
    }
    println!("\nanswered after {:.2} s; where the time went:\n", cold.as_secs_f64());
    let mut runners = node.runners(APP)?.into_iter();
    let runner = runners.find(|runner| runner.ended_at_micros.is_none());
    let runner = runner.context("the node knows no runner of the app")?;
    let chart = Program::new(&program).args(["runners", "show", &runner.id]);
    println!("{}", chart.args(["--server", &node.url]).capture()?);

    let mut warm = Vec::new();
    for _ in 0..WARM_REQUESTS {
        warm.push(ask(&node, &body)?.1);
    }
    let warm = warm.iter().map(|took| format!("{:.0} ms", took.as_secs_f64() * 1e3));
    let warm = warm.collect::<Vec<_>>().join(", ");
    println!("the same again, now warm: {warm}\n");
    if args.stay {
        return stay(&node, &program);
    }
    watch_end(&node, &runner.id)
}

fn config(stay: bool) -> Result<String> {
    let app = repository::root().join(EXAMPLE).join("app.py");
    let app = app.to_str().context("the path of this repository is no UTF-8")?;
    // In quotes as JSON has them, which TOML reads the same way.
    let app = serde_json::to_string(&format!("{app}::Ocr"))?;
    let keep_alive = if stay { KEEP_ALIVE_SECONDS_STAY } else { KEEP_ALIVE_SECONDS };
    Ok(format!(
        "[node]\nadopt_timeout = \"5s\"\n\n[apps.ocr]\napp = {app}\nkeep_alive = {keep_alive}\n"
    ))
}

/// Waits for the app's environment, and tells what is being done.
fn prepare(node: &Node, watch: Stopwatch) -> Result<()> {
    let mut told = String::new();
    let ready = stopwatch::wait_for(PREPARE_TIMEOUT, LOOK_PAUSE, || {
        node.check()?;
        let app = node.app(APP)?;
        let detail = app.detail.unwrap_or_default();
        if app.status == "broken" {
            bail!("{EXAMPLE} cannot be served: {detail}");
        }
        if !detail.is_empty() && detail != told {
            say(watch, &detail);
            told = detail;
        }
        Ok((app.status == "ready").then_some(()))
    })?;
    ready.context("the environment of the app was not built in time")?;
    say(watch, "the environment of the app is built; later runs reuse it");
    Ok(())
}

fn say(watch: Stopwatch, text: &str) {
    println!("{:>6.1} s  {text}", watch.elapsed().as_secs_f64());
}

fn request(picture: &Path) -> Result<String> {
    let bytes = fs::read(picture).with_context(|| format!("cannot read {}", picture.display()))?;
    let image = format!("data:image/png;base64,{}", STANDARD.encode(bytes));
    Ok(serde_json::json!({ "image": image }).to_string())
}

fn ask(node: &Node, body: &str) -> Result<(Reading, Duration)> {
    let watch = Stopwatch::start();
    let answer = node.post(&format!("/run/{APP}"), body)?;
    let took = watch.elapsed();
    Ok((serde_json::from_str(&answer).context("the app's answer is not what it promises")?, took))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(repository::root()).unwrap_or(path).display().to_string()
}

/// Waits for the runner to end by its keep_alive.
fn watch_end(node: &Node, id: &str) -> Result<()> {
    println!("no request any more: with keep_alive = {KEEP_ALIVE_SECONDS} s the runner goes away");
    let watch = Stopwatch::start();
    let mut told = String::new();
    let reason = stopwatch::wait_for(END_TIMEOUT, LOOK_PAUSE, || {
        node.check()?;
        let runner = node.runner(id)?;
        if runner.state != told {
            say(watch, &format!("{id} is {}", runner.state));
            told.clone_from(&runner.state);
        }
        Ok(runner.ended_at_micros.map(|_| runner.end_reason.unwrap_or_default()))
    })?;
    let reason = reason.with_context(|| format!("{id} did not go away"))?;
    println!("\nnothing of it is left: {reason}. The next request would start it again.");
    Ok(())
}

fn stay(node: &Node, program: &Path) -> Result<()> {
    let program = shown(program);
    println!("the node stays until Ctrl-C:");
    println!("  run      {}/run/{APP}", node.url);
    println!("  queue    {}/queue/{APP}", node.url);
    println!("  metrics  {}/metrics", node.url);
    println!("  look     {program} runners list --all --server {}", node.url);
    loop {
        node.check()?;
        thread::sleep(LOOK_PAUSE);
    }
}
