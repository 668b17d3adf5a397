//! How fast the simulator drives the engine, on one core, and whether its memory stays flat.
//!
//! The anchor is DSLab FaaS, a simulator in Rust: 2.9 million events a second at best on a machine like the
//! one of continuous integration. Its events are not quite ours, so requests a second are kept too.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Better, Case, Measured, fresh_folder, median};
use crate::command::Program;
use crate::repository;

pub(super) const NAME: &str = "sim";
const EXAMPLE: &str = "speed";
const ANCHOR: (&str, f64) = ("DSLab FaaS", 2.9e6);
const REQUESTS: u64 = 3_000_000;
/// Streamed from a file, in the long run and in the short one that it is held against.
const STREAMED: u64 = 100_000_000;
const STREAMED_QUICK: u64 = 10_000_000;
const STREAMED_SHORT: u64 = 1_000_000;
/// By how much of itself the peak may grow for a hundred times the requests.
const FLAT: f64 = 0.9;

/// Name, apps, runners in use on average, multiplexing.
const CASES: [(&str, u32, u32, u32); 10] = [
    ("events/s, 1 app, 10 runners", 1, 10, 1),
    ("events/s, 1 app, 100 runners", 1, 100, 1),
    ("events/s, 1 app, 1,000 runners", 1, 1_000, 1),
    ("events/s, 1 app, 10 runners of 16 places", 1, 10, 16),
    ("events/s, 30 apps, 30 runners", 30, 30, 1),
    ("events/s, 100 apps, 100 runners", 100, 100, 1),
    ("events/s, 100 apps, 1,000 runners", 100, 1_000, 1),
    ("events/s, 1,000 apps, 1,000 runners", 1_000, 1_000, 1),
    ("events/s, 10,000 apps, 1,000 runners", 10_000, 1_000, 1),
    ("events/s, 10,000 apps, 5,000 runners", 10_000, 5_000, 1),
];

/// What the example of `glowplug-sim` prints.
#[derive(Debug, Deserialize)]
struct Said {
    events_per_s: f64,
    requests_per_s: f64,
    peak_rss_kib: f64,
}

pub(super) fn measure(rounds: usize, quick: bool) -> Result<Measured> {
    Program::cargo(&["build", "--release", "--quiet", "--package", "glowplug-sim"])
        .args(["--example", EXAMPLE])
        .stdout_to_stderr()
        .run()?;
    let mut events = vec![Vec::new(); CASES.len()];
    let mut requests = events.clone();
    for round in 0..rounds {
        for (nth, (_, apps, runners, multiplexing)) in CASES.iter().enumerate() {
            let sizes = [u64::from(*apps), u64::from(*runners), REQUESTS, u64::from(*multiplexing)];
            let said = say(&sizes.map(|size| size.to_string()))?;
            events[nth].push(said.events_per_s);
            requests[nth].push(said.requests_per_s);
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    let mut cases: Vec<Case> = CASES
        .iter()
        .zip(&events)
        .map(|((name, ..), events)| {
            Case::new((NAME, name), median(events), ANCHOR, "events/s", Better::Higher, 1.0)
        })
        .collect();
    let (flat, mut details) = memory(if quick { STREAMED_QUICK } else { STREAMED })?;
    cases.push(flat);
    for ((name, ..), (events, requests)) in CASES.iter().zip(events.into_iter().zip(requests)) {
        details.push(((*name).to_owned(), events));
        details.push((name.replace("events/s", "requests/s"), requests));
    }
    Ok(Measured { cases, rounds: details, versions: Vec::new() })
}

/// As [`Measured`] has them.
type Rounds = Vec<(String, Vec<f64>)>;

/// The same traffic, short and long, each by a process of its own.
fn memory(requests: u64) -> Result<(Case, Rounds)> {
    let folder = fresh_folder(NAME)?;
    let stream = |requests: u64| {
        let file = folder.join(format!("{requests}.gptrace"));
        let file = file.to_str().context("the path of the folder is no UTF-8")?;
        let args = |what: &str| [what.to_owned(), requests.to_string(), file.to_owned()];
        Program::new(example()).args(args("write")).run()?;
        let said = say(&args("stream"))?;
        std::fs::remove_file(file).with_context(|| format!("cannot remove {file}"))?;
        eprintln!("{requests} requests from a file: {:.1} MiB at most", said.peak_rss_kib / 1024.0);
        Ok::<Said, anyhow::Error>(said)
    };
    let (short, long) = (stream(STREAMED_SHORT)?, stream(requests)?);
    let peaks = [long.peak_rss_kib, short.peak_rss_kib].map(|kib| kib / 1024.0);
    let case = Case::new(
        (NAME, "peak memory, requests streamed from a file"),
        peaks[0],
        ("a hundredth of the requests, or a tenth in a quick run", peaks[1]),
        "MiB",
        Better::Lower,
        FLAT,
    );
    #[expect(clippy::cast_precision_loss, reason = "some millions")]
    let details = vec![
        ("requests streamed".to_owned(), vec![requests as f64]),
        ("events/s, streamed".to_owned(), vec![long.events_per_s]),
        ("requests/s, streamed".to_owned(), vec![long.requests_per_s]),
    ];
    Ok((case, details))
}

fn example() -> PathBuf {
    repository::target().join("release/examples").join(EXAMPLE)
}

fn say(args: &[String]) -> Result<Said> {
    let said = Program::new(example()).args(args).capture()?;
    let line = said.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| {
        format!("the example `{EXAMPLE}` of glowplug-sim printed no result: {line}")
    })
}
