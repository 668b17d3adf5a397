//! What it costs a start to be recorded: which files it opens until it is ready.
//!
//! The program is a Python that imports a few hundred modules and then serves. The first start of an app on
//! an image is recorded, the next ones are not, so every one of many apps is started three times: recorded,
//! not recorded, and not recorded again, which says how much of the difference is chance. Each time is what
//! the node says from PENDING to IDLE. The image is on the disk and in memory.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::contained::{remove_folder, remove_groups};
use super::images::Registry;
use super::{Better, Case, Measured, fresh_folder, median};
use crate::command::{Program, on_path};
use crate::node::Node;

pub(super) const NAME: &str = "touched";
/// Apps for each round.
const APPS_PER_ROUND: usize = 5;
const MODULES_MAX: usize = 400;
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// A recorded start may take a tenth longer: it comes once a week.
const GOAL: f64 = 0.9;
const STARTS: [&str; 3] = ["recorded", "not recorded", "not recorded again"];

/// Imports what the standard library has, as far as that has no effect of its own, and serves.
const SERVE: &str = r#"
import importlib, os, sys
OMIT = {"antigravity", "this", "idlelib", "turtle", "turtledemo", "tkinter", "lib2to3", "test"}
for name in sorted(sys.stdlib_module_names):
    if len(sys.modules) < int(os.environ["MODULES_MAX"]) and name not in OMIT:
        try:
            importlib.import_module(name)
        except Exception:
            pass
import http.server
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), http.server.SimpleHTTPRequestHandler).serve_forever()
"#;

/// What a Python says of itself.
#[derive(Debug, Deserialize)]
struct Python {
    program: PathBuf,
    library: PathBuf,
    modules: PathBuf,
}

pub(super) fn measure(program: &Path, rounds: usize) -> Result<Measured> {
    let folder = fresh_folder(NAME)?;
    let measured = in_folder(program, &folder, rounds);
    remove_folder(&folder)?;
    remove_groups();
    measured
}

fn in_folder(program: &Path, folder: &Path, rounds: usize) -> Result<Measured> {
    let registry = Registry::start(folder)?;
    let root = folder.join("root");
    let python = copy_python(&root)?;
    let image = registry.push_folder(folder, &root, "python:1")?;
    let apps: Vec<String> = (0..rounds * APPS_PER_ROUND).map(|app| format!("app-{app}")).collect();
    let node = Node::start(program, folder, &config(&image, &python, &apps)?)?;
    // Pulls, and reads everything for the first time.
    start(&node, "warm-up")?;
    let mut done = [const { Vec::new() }; STARTS.len()];
    for (number, apps) in (1..).zip(apps.chunks(APPS_PER_ROUND)) {
        let mut of_round = [const { Vec::new() }; STARTS.len()];
        for app in apps {
            for times in &mut of_round {
                times.push(start(&node, app)?);
            }
        }
        for ((what, all), times) in STARTS.iter().zip(&mut done).zip(&of_round) {
            eprintln!("round {number} of {rounds}: {what} {:.2} ms", median(times));
            all.push(median(times));
        }
    }
    let lists = folder.join("data/images/touched");
    let bytes = list_bytes(&lists)?;
    eprintln!("the list of all apps has {bytes} bytes");
    Ok(report(done, bytes))
}

#[expect(clippy::cast_precision_loss, reason = "some hundred kilobytes")]
fn report(done: [Vec<f64>; STARTS.len()], list_bytes: u64) -> Measured {
    let [recorded, not, again] = done.each_ref().map(|times| median(times));
    let case = |case, ours, peer, goal| {
        Case::new((NAME, case), ours, (STARTS[1], peer), "ms", Better::Lower, goal)
    };
    let cases = vec![
        case("recorded by fanotify", recorded, not, Some(GOAL)),
        case("chance", again, not, None),
    ];
    let mut rounds: Vec<(String, Vec<f64>)> =
        STARTS.iter().zip(done).map(|(what, times)| (format!("{what} ms"), times)).collect();
    rounds.push(("bytes of the lists of all apps".to_owned(), vec![list_bytes as f64]));
    Measured { cases, rounds, versions: Vec::new() }
}

/// Fails where nothing was recorded: then nothing was measured, either.
fn list_bytes(lists: &Path) -> Result<u64> {
    let listed = fs::read_dir(lists).with_context(|| format!("cannot list {}", lists.display()))?;
    let bytes = listed.flatten().filter_map(|list| Some(list.metadata().ok()?.len())).sum();
    ensure!(bytes > 0, "no start was recorded: fanotify is not permitted here");
    Ok(bytes)
}

/// Milliseconds from PENDING to IDLE. Afterwards the app is cold again.
#[expect(clippy::cast_precision_loss, reason = "some microseconds")]
fn start(node: &Node, app: &str) -> Result<f64> {
    let app = format!("local/{app}");
    // What is answered does not matter, only that it is.
    let _ = node.post(&format!("/run/{app}/"), "{}");
    let mut runners = node.runners(&app)?.into_iter();
    let runner = runners.find(|runner| runner.ended_at_micros.is_none());
    let runner = runner.context("the app was answered by no runner")?;
    let ready = runner.ready_at_micros.context("the runner was never ready")?;
    node.kill(&runner.id)?;
    node.wait_until_cold(&app, END_TIMEOUT)?;
    Ok(ready.saturating_sub(runner.created_at_micros) as f64 / 1e3)
}

fn config(image: &str, python: &Python, apps: &[String]) -> Result<String> {
    let command = ["-S", "-B", "-c", SERVE].map(str::to_owned);
    let command: Vec<String> =
        [python.program.display().to_string()].into_iter().chain(command).collect();
    let command = serde_json::to_string(&command).context("cannot write a command")?;
    let app = |name: &str| {
        format!(
            "[apps.{name}]\nimage = \"{image}\"\ncommand = {command}\nkeep_alive = 600\n\
             env = {{ MODULES_MAX = \"{MODULES_MAX}\", PYTHONHOME = \"{}\" }}\n\n",
            python.library.display()
        )
    };
    let names = ["warm-up"].into_iter().chain(apps.iter().map(String::as_str));
    Ok(format!("[node]\nlog_level = \"warn\"\n\n{}", names.map(app).collect::<String>()))
}

/// This machine's Python, its standard library and the libraries that both need, where they are here.
fn copy_python(root: &Path) -> Result<Python> {
    let own = Path::new("/usr/bin/python3");
    let python = if own.is_file() { Some(own.to_owned()) } else { on_path("python3") };
    let python = python.context("this bench needs Python: install Debian's python3")?;
    let ask = "import json, os, sys, sysconfig\n\
        print(json.dumps({'program': os.path.realpath(sys.executable), 'library': sys.base_prefix, \
        'modules': sysconfig.get_path('stdlib')}))";
    let said = Program::new(python).args(["-c", ask]).capture()?;
    let python: Python = serde_json::from_str(&said).context("cannot read what Python says")?;
    let modules = Program::new("find").arg(&python.modules).args(["-name", "*.so"]).capture()?;
    let programs = modules.lines().chain(python.program.to_str());
    let needed = Program::new("ldd").args(programs).capture()?;
    let libraries: BTreeSet<&str> = needed
        .split_ascii_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .collect();
    fs::create_dir_all(root).with_context(|| format!("cannot create {}", root.display()))?;
    let files = libraries.iter().map(Path::new).chain([&*python.program, &*python.modules]);
    for file in files {
        // Links on the way are followed, so that the copy needs none.
        let place = root.join(file.strip_prefix("/").unwrap_or(file));
        let parent = place.parent().context("a program has no folder")?;
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
        // With their times, by which Python tells that what it has compiled is current.
        Program::new("cp")
            .args(["--recursive", "--dereference", "--preserve=timestamps"])
            .arg(file)
            .arg(parent)
            .run()?;
    }
    fs::create_dir_all(root.join("tmp")).context("cannot create a folder for the image")?;
    Ok(python)
}
