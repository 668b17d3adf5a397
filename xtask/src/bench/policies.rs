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
/// Against whom, on what.
const CASES: [(&str, &str, &str); 4] = [
    ("overhead beside the nearest keep_alive that waits no less", "fixed", "no_shorter_wait"),
    ("mean wait beside the nearest keep_alive that costs no less", "fixed", "no_lower_cost"),
    ("overhead beside the nearest KPA that waits no less", "kpa", "no_shorter_wait"),
    ("mean wait beside the nearest KPA that costs no less", "kpa", "no_lower_cost"),
];
const KEPT: &str = "starts, cold %, app cold p50, p75, p90, mean, wait s, over SLO %, overhead";

/// What the example of `glowplug-sim` prints, as far as it is kept.
#[derive(Debug, Deserialize)]
struct Verdict {
    traffic: String,
    setup: String,
    /// What an app has that states nothing but `policy = "auto"`.
    default: String,
    requests: f64,
    apps: f64,
    rows: Vec<Row>,
    pairs: Vec<Pair>,
}

#[derive(Debug, Deserialize)]
struct Pair {
    auto: String,
    other: String,
    other_kind: String,
    side: String,
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

/// The automatic policy as it is by default, beside others that are no better on one axis: what it is on the
/// other. Whether the rare apps pay for it stands in the name.
fn cases(verdict: &Verdict) -> Vec<Case> {
    let case = |(name, kind, side): &(&'static str, &str, &str)| {
        let pair = verdict.pairs.iter().find(|pair| {
            pair.auto == verdict.default && pair.other_kind == *kind && pair.side == *side
        })?;
        let find = |name: &str| verdict.rows.iter().find(|row| row.policy == name);
        let (ours, peer) = (find(&pair.auto)?, find(&pair.other)?);
        let peer_name = format!(
            "{}; app p75 cold {:.2} to {:.2}; {}, start {}",
            peer.policy, peer.app_cold_p75, ours.app_cold_p75, verdict.traffic, verdict.setup
        );
        let (ours, theirs, unit) = match *side {
            "no_lower_cost" => (ours.wait_mean_secs, peer.wait_mean_secs, "s"),
            _ => (ours.overhead, peer.overhead, "runner-seconds per needed one"),
        };
        let peer = (peer_name.as_str(), theirs);
        Some(Case::new((NAME, name), ours, peer, unit, Better::Lower, 1.0))
    };
    CASES.iter().filter_map(case).collect()
}

fn details(verdict: Verdict) -> Vec<(String, Vec<f64>)> {
    let Verdict { traffic, setup, requests, apps, rows, .. } = verdict;
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
