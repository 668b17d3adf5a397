//! Policies on traffic of the user's own: fixed `keep_alive`, Knative's autoscaler and `policy = "auto"`, all
//! through the simulator. What to replay comes after the name of the bench, and is not kept with the results:
//!
//! ```console
//! $ cargo xtask bench policies --trace week.csv --app-column model --setup 20s --warm-up 5d
//! ```
//!
//! `--help` there tells all. Everything that was found goes to `target/bench/policies`; results keep the few
//! numbers that a policy is judged by.

use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{Better, Case, Measured, fresh_folder};
use crate::command::Program;
use crate::repository;

pub(super) const NAME: &str = "policies";
/// The price of waiting that an app has which states none.
const DEFAULT: &str = "auto, wait price 13";
/// What apps have that state nothing at all, and what Knative does then.
const PEERS: [(&str, [&str; 2]); 2] = [
    ("keep_alive 60 s", ["overhead beside fal's default", "app p75 cold beside fal's default"]),
    (
        "KPA, stable 60 s, 70 %, grace 30 s",
        ["overhead beside Knative's default", "app p75 cold beside Knative's default"],
    ),
];
const KEPT: &str = "starts, cold %, app cold p50, p75, p90, mean, wait s, over SLO %, overhead";

/// What the example of `glowplug-sim` prints, as far as it is kept.
#[derive(Debug, Deserialize)]
struct Verdict {
    traffic: String,
    setup: String,
    requests: f64,
    apps: f64,
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    policy: String,
    starts: f64,
    cold_percent: f64,
    app_cold_p50: f64,
    app_cold_p75: f64,
    app_cold_p90: f64,
    app_cold_mean: f64,
    wait_mean_secs: f64,
    over_slo_percent: Option<f64>,
    overhead: f64,
}

pub(super) fn measure(args: &[String]) -> Result<Measured> {
    if args.is_empty() {
        bail!(
            "say what to replay, as in `cargo xtask bench policies --trace week.csv --setup 20s`"
        );
    }
    Program::cargo(&["build", "--release", "--quiet", "--package", "glowplug-sim"])
        .args(["--example", NAME])
        .stdout_to_stderr()
        .run()?;
    let program = repository::target().join("release/examples").join(NAME);
    let said = Program::new(program).args(args).capture()?;
    let file = fresh_folder(NAME)?.join("verdicts.jsonl");
    fs::write(&file, &said).with_context(|| format!("cannot write {}", file.display()))?;
    eprintln!("everything that was found: {}", file.display());
    let mut measured = Measured { cases: Vec::new(), rounds: Vec::new(), versions: Vec::new() };
    for line in said.lines() {
        let verdict: Verdict = serde_json::from_str(line)
            .with_context(|| format!("the example `{NAME}` of glowplug-sim printed no verdict"))?;
        measured.cases.extend(cases(&verdict));
        measured.rounds.extend(details(verdict));
    }
    Ok(measured)
}

/// What the default is beside the defaults of others. Whoever waits longer is not beaten by being cheaper,
/// so the wait is part of each case.
fn cases(verdict: &Verdict) -> Vec<Case> {
    let find = |name: &str| verdict.rows.iter().find(|row| row.policy == name);
    let Some(ours) = find(DEFAULT) else { return Vec::new() };
    let mut cases = Vec::new();
    for (name, [overhead, app_p75]) in PEERS {
        let Some(peer) = find(name) else { continue };
        let peer_name = format!(
            "{name}, mean wait {:.2} s to {:.2} s; {}, start {}",
            peer.wait_mean_secs, ours.wait_mean_secs, verdict.traffic, verdict.setup
        );
        let case = |name, ours, peer, unit| {
            Case::new((NAME, name), ours, (&peer_name, peer), unit, Better::Lower, 1.0)
        };
        cases.push(case(overhead, ours.overhead, peer.overhead, "per busy second"));
        cases.push(case(app_p75, ours.app_cold_p75, peer.app_cold_p75, "share"));
    }
    cases
}

fn details(verdict: Verdict) -> Vec<(String, Vec<f64>)> {
    let Verdict { traffic, setup, requests, apps, rows } = verdict;
    let title = format!("{traffic}, start {setup}");
    let size = (format!("{title}: requests, apps; then by policy: {KEPT}"), vec![requests, apps]);
    let row = |row: Row| {
        let values = vec![
            row.starts,
            row.cold_percent,
            row.app_cold_p50,
            row.app_cold_p75,
            row.app_cold_p90,
            row.app_cold_mean,
            row.wait_mean_secs,
            row.over_slo_percent.unwrap_or(f64::NAN),
            row.overhead,
        ];
        let digits = |value: f64| (value * 1e4).round() / 1e4;
        (format!("{title}: {}", row.policy), values.into_iter().map(digits).collect())
    };
    std::iter::once(size).chain(rows.into_iter().map(row)).collect()
}
