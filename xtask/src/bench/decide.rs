//! From a request's arrival to the start of a runner, with 10,000 apps registered.
//!
//! Two cases: the engine alone, and a live node. There it is from the moment before the request is sent to
//! the moment when the engine made the runner, which is when it issues the start of what fits; so the way of
//! the HTTP request into the node is part of it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Better, Case, Measured, fresh_folder, median, quantile};
use crate::command::Program;
use crate::node::{Node, Runner};
use crate::stopwatch;

pub(super) const NAME: &str = "decide";
const APPS: usize = 10_000;
/// Cold apps that are asked in one round.
const REQUESTS_PER_ROUND: usize = 200;
const BUDGET_MICROS: f64 = 1_000.0;
const BUDGET: &str = "budget of 1 ms";
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// What the example of `glowplug-core` prints, in microseconds.
#[derive(Debug, Deserialize)]
struct EngineAlone {
    #[serde(rename = "p50_us")]
    p50: f64,
    #[serde(rename = "p99_us")]
    p99: f64,
    #[serde(rename = "max_us")]
    max: f64,
}

pub(super) fn measure(program: &Path, rounds: usize) -> Result<Measured> {
    let server = super::start_overhead::server()?;
    let folder = fresh_folder(NAME)?;
    let node = Node::start(program, &folder, &config(&server)?)?;
    let (mut alone, mut live) = ([const { Vec::new() }; 3], [const { Vec::new() }; 2]);
    for round in 0..rounds {
        let engine = engine_alone()?;
        let micros = live_node(&node, round)?;
        let (p50, p99) = (quantile(&micros, 0.5), quantile(&micros, 0.99));
        eprintln!(
            "round {}: engine p50 {:.1} µs, p99 {:.1} µs; node p50 {p50:.0} µs, p99 {p99:.0} µs",
            round + 1,
            engine.p50,
            engine.p99,
        );
        for (values, value) in alone.iter_mut().zip([engine.p50, engine.p99, engine.max]) {
            values.push(value);
        }
        live[0].push(p50);
        live[1].push(p99);
    }
    let budget = (BUDGET, BUDGET_MICROS);
    let case = |name, ours: &[f64]| {
        Case::new((NAME, name), median(ours), budget, "µs", Better::Lower, 1.0)
    };
    let cases = vec![
        case("p99, engine alone, 10,000 apps", &alone[1]),
        case("p99, live node, 10,000 apps", &live[1]),
    ];
    let [engine_p50, engine_p99, engine_max] = alone;
    let [node_p50, node_p99] = live;
    let rounds = [
        ("engine p50 µs", engine_p50),
        ("engine p99 µs", engine_p99),
        ("engine max µs", engine_max),
        ("node p50 µs", node_p50),
        ("node p99 µs", node_p99),
    ];
    let rounds = rounds.map(|(what, values)| (what.to_owned(), values)).into();
    Ok(Measured { cases, rounds, versions: Vec::new() })
}

fn engine_alone() -> Result<EngineAlone> {
    let args = ["run", "--release", "--quiet", "--package", "glowplug-core", "--example", NAME];
    let said = Program::cargo(&args).capture()?;
    let line = said.lines().last().unwrap_or_default();
    serde_json::from_str(line)
        .with_context(|| format!("the example `{NAME}` of glowplug-core printed no result: {line}"))
}

/// From just before each request is sent until its runner is decided on, in microseconds.
fn live_node(node: &Node, round: usize) -> Result<Vec<f64>> {
    let mut micros = Vec::with_capacity(REQUESTS_PER_ROUND);
    for number in 0..REQUESTS_PER_ROUND {
        // Spread over all apps, and each asked once in the whole run.
        let app = format!("local/a{}", (number * 47 + round * 13) % APPS);
        let sent = stopwatch::wall_clock_micros();
        node.post(&format!("/run/{app}/"), "{}")?;
        let runners: Vec<Runner> = node.runners(&app)?;
        let runner = runners.last().context("the app was answered by no runner")?;
        micros.push(difference(runner.created_at_micros, sent));
        node.kill(&runner.id)?;
        node.wait_until_cold(&app, END_TIMEOUT)?;
    }
    Ok(micros)
}

#[expect(clippy::cast_precision_loss, reason = "some microseconds")]
fn difference(later: u64, earlier: u64) -> f64 {
    later.saturating_sub(earlier) as f64
}

fn config(server: &Path) -> Result<String> {
    let server = serde_json::to_string(server).context("the path of the program is no UTF-8")?;
    let mut config = "[node]\nlog_level = \"warn\"\nadopt_timeout = \"5s\"\n".to_owned();
    for number in 0..APPS {
        // Writing to a string cannot fail.
        let _ = write!(config, "[apps.a{number}]\ncommand = [{server}]\n");
    }
    Ok(config)
}
