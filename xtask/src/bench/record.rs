//! `bench/results/NAME.json`: what was measured, on which machine, with which versions.

use std::fs;
use std::thread;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::Measured;
use crate::command::Program;
use crate::repository;

/// Older runs go first.
const RUNS_KEPT_MAX: usize = 20;

/// How busy the machine was before the bench began, as `/proc/loadavg` says: on a busy one the numbers say
/// little.
pub(super) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

pub(super) fn keep(
    bench: &str,
    rounds: usize,
    quick: bool,
    load_before: &str,
    measured: &Measured,
) -> Result<()> {
    let path = repository::root().join("bench/results").join(format!("{bench}.json"));
    let mut runs: Vec<Value> = match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text)
            .with_context(|| format!("cannot read {}: remove it to begin anew", path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let details: Map<String, Value> =
        measured.rounds.iter().map(|(what, values)| (what.clone(), json!(values))).collect();
    let versions: Map<String, Value> =
        measured.versions.iter().map(|(program, text)| (program.clone(), json!(text))).collect();
    runs.push(json!({
        "at": said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
        "commit": commit(),
        "quick": quick,
        "rounds": rounds,
        "load_before": load_before,
        "machine": machine(),
        "versions": versions,
        "cases": measured.cases,
        "details": details,
    }));
    let surplus = runs.len().saturating_sub(RUNS_KEPT_MAX);
    runs.drain(..surplus);
    let text = serde_json::to_string_pretty(&runs).context("cannot write results as JSON")?;
    let folder = repository::root().join("bench/results");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("kept in bench/results/{bench}.json");
    Ok(())
}

/// The commit that was measured, marked when there were changes on top of it.
fn commit() -> String {
    let commit = said("git", &["rev-parse", "--short=12", "HEAD"]);
    let sources = ["status", "--porcelain", "--", "crates", "runtime", "Cargo.toml", "Cargo.lock"];
    let changed = !said("git", &sources).is_empty();
    if changed { commit + " and changes" } else { commit }
}

fn machine() -> Value {
    let field = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    json!({
        "cores": thread::available_parallelism().map_or(0, usize::from),
        "cpu": field("/proc/cpuinfo", "model name"),
        "memory": field("/proc/meminfo", "MemTotal"),
        "kernel": said("uname", &["-r"]),
        "rustc": said("rustc", &["--version"]),
    })
}

/// What a program prints; empty when it cannot be asked, since a missing detail must not cost the result.
fn said(program: &str, args: &[&str]) -> String {
    let said = Program::new(program).args(args).dir(repository::root()).capture();
    said.unwrap_or_default().trim().to_owned()
}
