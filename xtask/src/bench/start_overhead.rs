//! What a start through a node costs beyond the program's own time.
//!
//! The program is started bare and through a node in turn. Bare, its own time is from the spawn until its
//! port accepts; through the node, it is what the node says from PENDING to IDLE. The difference of the
//! medians is the overhead, and is held against a budget, since no peer does the same. The second case is
//! what a caller sees: from the request to the answer of an app with no runner.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Better, Case, Measured, fresh_folder, median};
use crate::command::Program;
use crate::node::Node;
use crate::repository;
use crate::stopwatch::{self, Stopwatch};

pub(super) const NAME: &str = "start-overhead";
const APP: &str = "local/server";
/// Starts of each kind in one round.
const STARTS_PER_ROUND: usize = 20;
const OVERHEAD_BUDGET_MILLIS: f64 = 5.0;
const SCALE_FROM_ZERO_BUDGET_MILLIS: f64 = 50.0;
const START_TIMEOUT: Duration = Duration::from_secs(10);
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at a port: short beside what is measured.
const PORT_PAUSE: Duration = Duration::from_micros(50);

/// Medians of a round, in milliseconds.
#[derive(Debug)]
struct Round {
    bare: f64,
    through_node: f64,
    answer: f64,
}

pub(super) fn measure(program: &Path, rounds: usize) -> Result<Measured> {
    let server = server()?;
    let folder = fresh_folder(NAME)?;
    let node = Node::start(program, &folder, &config(&server)?)?;
    // The first start of each kind reads the program from the disk.
    start_bare(&server, &folder)?;
    start_through(&node)?;
    let mut done = Vec::with_capacity(rounds);
    for number in 1..=rounds {
        let round = measure_round(&node, &server, &folder)?;
        eprintln!(
            "round {number}: bare {:.2} ms, PENDING to IDLE {:.2} ms, request to answer {:.2} ms",
            round.bare, round.through_node, round.answer
        );
        done.push(round);
    }
    let column = |of: fn(&Round) -> f64| done.iter().map(of).collect::<Vec<f64>>();
    let bare = column(|round| round.bare);
    let overhead = column(|round| round.through_node - round.bare);
    let answer = column(|round| round.answer);
    let cases = vec![
        Case::new(
            (NAME, "PENDING to IDLE minus the program's own time, p50"),
            median(&overhead),
            ("budget of 5 ms", OVERHEAD_BUDGET_MILLIS),
            "ms",
            Better::Lower,
            1.0,
        ),
        Case::new(
            (NAME, "scale from zero, request to answer, p50"),
            median(&answer),
            ("budget of 50 ms", SCALE_FROM_ZERO_BUDGET_MILLIS),
            "ms",
            Better::Lower,
            1.0,
        ),
    ];
    let rounds = vec![
        ("bare spawn ms".to_owned(), bare),
        ("PENDING to IDLE ms".to_owned(), column(|round| round.through_node)),
        ("overhead ms".to_owned(), overhead),
        ("request to answer ms".to_owned(), answer),
    ];
    Ok(Measured { cases, rounds, versions: Vec::new() })
}

/// The program that is started, built as it comes: what it does takes the standard library's time.
pub(super) fn server() -> Result<PathBuf> {
    let args = ["build", "--quiet", "--package", "xtask", "--bin", "bench-server"];
    Program::cargo(&args).stdout_to_stderr().run()?;
    Ok(repository::target().join("debug/bench-server"))
}

fn config(server: &Path) -> Result<String> {
    let server = serde_json::to_string(server).context("the path of the program is no UTF-8")?;
    Ok(format!(
        "[node]\nlog_level = \"warn\"\nadopt_timeout = \"5s\"\n\n[apps.server]\ncommand = [{server}]\n"
    ))
}

fn measure_round(node: &Node, server: &Path, folder: &Path) -> Result<Round> {
    let (mut bare, mut through_node, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS_PER_ROUND {
        bare.push(start_bare(server, folder)?);
        let (start, answer) = start_through(node)?;
        through_node.push(start);
        answers.push(answer);
    }
    Ok(Round { bare: median(&bare), through_node: median(&through_node), answer: median(&answers) })
}

/// Milliseconds from the spawn of the program until its port accepts.
fn start_bare(server: &Path, folder: &Path) -> Result<f64> {
    let port = free_port()?;
    let program = Program::new(server).env("PORT", port.to_string());
    let watch = Stopwatch::start();
    let running = program.spawn(&folder.join("bare.log"))?;
    let accepts = || Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(drop));
    let accepted = stopwatch::wait_for(START_TIMEOUT, PORT_PAUSE, accepts)?;
    let took = watch.elapsed();
    drop(running);
    accepted.context("the program does not listen")?;
    Ok(took.as_secs_f64() * 1e3)
}

/// Milliseconds from PENDING to IDLE, and from the request to its answer. Afterwards the app is cold again.
#[expect(clippy::cast_precision_loss, reason = "some microseconds")]
fn start_through(node: &Node) -> Result<(f64, f64)> {
    let watch = Stopwatch::start();
    node.post(&format!("/run/{APP}/"), "{}")?;
    let answer = watch.elapsed();
    let mut runners = node.runners(APP)?.into_iter();
    let runner = runners.find(|runner| runner.ended_at_micros.is_none());
    let runner = runner.context("the app was answered by no runner")?;
    let ready = runner.ready_at_micros.context("the runner was never ready")?;
    let start = ready.saturating_sub(runner.created_at_micros) as f64 / 1e3;
    node.kill(&runner.id)?;
    node.wait_until_cold(APP, END_TIMEOUT)?;
    Ok((start, answer.as_secs_f64() * 1e3))
}

/// A port that was free a moment ago.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port")?;
    Ok(listener.local_addr().context("there is no free port")?.port())
}
