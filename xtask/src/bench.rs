//! `cargo xtask bench`: measures Glowplug beside its peers, in the same run, alternating.
//!
//! Each case is one line of JSON on standard output; everything else goes to standard error. Medians are
//! over rounds, and `ratio` says how many times better than the peer we are, whatever the unit. Results are
//! kept in `bench/results`, with the machine and the versions they belong to.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Serialize;

use crate::command;
use crate::node::Build;
use crate::repository;

mod bundle;
mod contained;
mod decide;
mod engines;
mod first_answer;
mod images;
mod layout;
mod link;
mod peer;
mod policies;
mod pull;
mod queue;
mod record;
mod sim;
mod start_container;
mod start_overhead;
mod table;
mod touched;
mod warm_path;
mod warmth;
mod wrk;

/// Rounds of which the median is reported.
const ROUNDS: usize = 5;
const ROUNDS_QUICK: usize = 3;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    name: Name,
    /// Three rounds instead of five
    #[arg(long)]
    quick: bool,
    /// Of `pull`, only the rows that have this in their names
    #[arg(long, value_name = "WORDS")]
    only: Option<String>,
    /// Measure the release build that is there, even if it is not current
    #[arg(long)]
    no_build: bool,
    /// What `policies` replays and how; `--help` there tells all
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// Warm requests through a node, beside nginx's `proxy_pass` to the same upstream
    WarmPath,
    /// From a request's arrival to the start of a runner, with 10,000 apps
    Decide,
    /// What a start costs beyond the program's own time
    StartOverhead,
    /// What a container's start costs beyond its program's own time, beside crun, runc, podman and docker
    StartContainer,
    /// Durable submits and whole jobs, beside PostgreSQL, Redis, Celery and RQ
    Queue,
    /// A whole image from a registry, pulled and unpacked, beside podman, docker, skopeo and umoci
    Pull,
    /// A container's start with a record of the files that it opens, beside one without
    Touched,
    /// Request to first answer of three apps: plain start, zygote, snapshot, thaw
    Warmth,
    /// Events that the simulator gets through, and its memory
    Sim,
    /// Fixed, automatic and Knative's scaling on traffic of your own: `policies --trace FILE --setup 20s`
    Policies,
}

/// One result, as programs read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are what programs read")]
struct Case {
    bench: &'static str,
    case: String,
    ours: f64,
    peer: f64,
    peer_name: String,
    unit: &'static str,
    /// How many times better than the peer we are.
    ratio: f64,
    /// The ratio to reach; `None` for a peer that is there for comparison.
    goal: Option<f64>,
    met: Option<bool>,
}

/// Which of two numbers is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Better {
    Higher,
    Lower,
}

impl Case {
    fn new(
        (bench, case): (&'static str, &str),
        ours: f64,
        (peer_name, peer): (&str, f64),
        unit: &'static str,
        better: Better,
        goal: impl Into<Option<f64>>,
    ) -> Self {
        let goal = goal.into();
        let ratio = match better {
            Better::Higher => ours / peer,
            Better::Lower => peer / ours,
        };
        let peer_name = peer_name.to_owned();
        Self {
            bench,
            case: case.to_owned(),
            ours,
            peer,
            peer_name,
            unit,
            ratio,
            goal,
            met: goal.map(|goal| ratio >= goal),
        }
    }
}

/// What a bench hands over.
#[derive(Debug)]
struct Measured {
    cases: Vec<Case>,
    /// Every round of every case, as `(what, values)`.
    rounds: Vec<(String, Vec<f64>)>,
    /// Versions of the peers and tools, as `(program, version)`.
    versions: Vec<(String, String)>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if matches!(args.name, Name::Pull | Name::StartContainer | Name::Touched) {
        contained::enter()?;
    }
    command::end_all_on_signal()?;
    let rounds = if args.quick { ROUNDS_QUICK } else { ROUNDS };
    if args.only.is_some() && !matches!(args.name, Name::Pull) {
        bail!("`--only` is for `pull`");
    }
    if !matches!(args.name, Name::Policies) && !args.rest.is_empty() {
        bail!("`{}` is nothing that this bench knows", args.rest.join(" "));
    }
    let program =
        || if args.no_build { Ok(Build::Release.path()) } else { Build::Release.glowplug() };
    let load_before = record::load_average();
    let (name, measured) = match args.name {
        Name::WarmPath => (warm_path::NAME, warm_path::measure(&program()?, rounds)?),
        Name::Decide => (decide::NAME, decide::measure(&program()?, rounds)?),
        Name::StartOverhead => {
            (start_overhead::NAME, start_overhead::measure(&program()?, rounds)?)
        }
        Name::StartContainer => {
            (start_container::NAME, start_container::measure(&program()?, rounds)?)
        }
        Name::Queue => (queue::NAME, queue::measure(&program()?, rounds)?),
        Name::Pull => {
            let only = args.only.as_deref();
            (pull::NAME, pull::measure(&program()?, rounds, args.quick, only)?)
        }
        Name::Touched => (touched::NAME, touched::measure(&program()?, rounds)?),
        Name::Warmth => (warmth::NAME, warmth::measure(&program()?, rounds)?),
        Name::Sim => (sim::NAME, sim::measure(rounds, args.quick)?),
        Name::Policies => (policies::NAME, policies::measure(&args.rest)?),
    };
    for case in &measured.cases {
        println!("{}", serde_json::to_string(case).context("cannot write a result as JSON")?);
    }
    eprintln!("\n{}\n", table::table(&measured.cases));
    record::keep(name, rounds, args.quick, &load_before, &measured)
}

/// A folder of a bench's own, empty at first.
fn fresh_folder(bench: &str) -> Result<PathBuf> {
    let folder = repository::target().join("bench").join(bench);
    // Left by an earlier run, if anything.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that a part of all values, from 0 to 1, does not exceed; between two of them where it falls
/// between two.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a place in a list of at most some thousands"
)]
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = part * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        let check = |values: &[f64], part: f64, expected: f64| {
            assert!((quantile(values, part) - expected).abs() < 1e-9, "{values:?} at {part}");
        };
        check(&[3.0, 1.0, 2.0], 0.5, 2.0);
        check(&[1.0, 2.0, 3.0, 4.0], 0.5, 2.5);
        check(&[1.0, 2.0], 1.0, 2.0);
        check(&[7.0], 0.99, 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_ratio_above_one_is_better_whatever_the_unit() {
        let case = |ours, better| Case::new(("b", "c"), ours, ("p", 10.0), "u", better, 0.9);
        assert!(case(20.0, Better::Higher).ratio > 1.9);
        assert_eq!(case(20.0, Better::Higher).met, Some(true));
        assert!(case(20.0, Better::Lower).ratio < 0.6);
        assert_eq!(case(20.0, Better::Lower).met, Some(false));
        assert_eq!(case(11.0, Better::Lower).met, Some(true));
        let beside = Case::new(("b", "c"), 1.0, ("p", 10.0), "u", Better::Higher, None);
        assert_eq!(beside.met, None);
    }
}
