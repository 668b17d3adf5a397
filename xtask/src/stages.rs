//! `cargo xtask test`: all checks, one stage after the other, with a table of how long each took.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::command::Program;
use crate::stopwatch::Stopwatch;
use crate::tidy;
use crate::tools::TestTools;

/// How long the soak test lasts.
const SOAK_SECONDS: u32 = 60;
const SOAK_SECONDS_LONG: u32 = 600;
/// How often the crash test kills the node.
const CRASHES: u32 = 60;
const CRASHES_LONG: u32 = 1_000;
/// Cases of each property test that does not say otherwise; the first is proptest's own default.
const PROPERTY_CASES: u32 = 256;
const PROPERTY_CASES_LONG: u32 = 25_600;

/// Private items are documented as well, so that public ones may link to them.
const DOC_FLAGS: &str = "--deny warnings --allow rustdoc::private_intra_doc_links";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Soak for 10 minutes, crash 1,000 times, and try 100 times as many cases of each property
    #[arg(long)]
    long: bool,
    /// Only this stage; may be repeated
    #[arg(long, value_name = "STAGE")]
    only: Vec<Stage>,
}

/// Which settings of `.config/nextest.toml` the tests run under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Default,
    Ci,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// rustfmt changes nothing
    Fmt,
    /// clippy has nothing to say
    Clippy,
    /// The rules of the repository hold
    Tidy,
    /// What the tests need besides Rust is there
    Tools,
    /// Everything is built
    Build,
    /// The tests pass
    Tests,
    /// The examples in the documentation work
    Doctests,
    /// The documentation has no broken links
    Docs,
}

#[derive(Debug)]
struct Outcome {
    stage: Stage,
    took: Duration,
}

pub(crate) fn run(args: &Args, profile: Profile) -> Result<()> {
    let whole = Stopwatch::start();
    let mut outcomes = Vec::new();
    for stage in Stage::value_variants() {
        if !args.only.is_empty() && !args.only.contains(stage) {
            continue;
        }
        eprintln!("\n=== {}", name(*stage));
        let watch = Stopwatch::start();
        let result = run_stage(*stage, args, profile);
        outcomes.push(Outcome { stage: *stage, took: watch.elapsed() });
        if let Err(error) = result {
            print_table(&outcomes, Some(*stage), whole.elapsed());
            return Err(error.context(format!(
                "stage {0} failed; repeat it with `cargo xtask test --only {0}`",
                name(*stage)
            )));
        }
    }
    print_table(&outcomes, None, whole.elapsed());
    Ok(())
}

fn run_stage(stage: Stage, args: &Args, profile: Profile) -> Result<()> {
    match stage {
        Stage::Fmt => {
            needs("fmt", "rustfmt")?;
            Program::cargo(&["fmt", "--all", "--check"]).run()
        }
        Stage::Clippy => {
            needs("clippy", "clippy")?;
            let clippy = ["clippy", "--workspace", "--all-targets", "--quiet"];
            Program::cargo(&clippy).args(["--", "--deny", "warnings"]).run()
        }
        Stage::Tidy => tidy::run(),
        Stage::Tools => TestTools::set_up().map(drop),
        Stage::Build => Program::cargo(&["build", "--workspace", "--all-targets"]).run(),
        Stage::Tests => tests(args, profile),
        Stage::Doctests => Program::cargo(&["test", "--workspace", "--doc", "--quiet"]).run(),
        Stage::Docs => {
            let doc = ["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"];
            Program::cargo(&doc).env("RUSTDOCFLAGS", DOC_FLAGS).run()
        }
    }
}

fn tests(args: &Args, profile: Profile) -> Result<()> {
    let tools = TestTools::set_up()?;
    let program = if Program::cargo(&["nextest", "--version"]).succeeds() {
        let profile = match profile {
            Profile::Default => "default",
            Profile::Ci => "ci",
        };
        Program::cargo(&["nextest", "run", "--workspace", "--profile", profile])
    } else {
        eprintln!("cargo-nextest is not installed: the tests run under `cargo test`");
        Program::cargo(&["test", "--workspace", "--all-targets", "--no-fail-fast"])
    };
    let (soak_seconds, crashes, cases) = if args.long {
        (SOAK_SECONDS_LONG, CRASHES_LONG, PROPERTY_CASES_LONG)
    } else {
        (SOAK_SECONDS, CRASHES, PROPERTY_CASES)
    };
    tools
        .tell(program)
        .env("GLOWPLUG_SOAK_SECONDS", soak_seconds.to_string())
        .env("GLOWPLUG_CRASHES", crashes.to_string())
        .env("PROPTEST_CASES", cases.to_string())
        .run()
}

fn needs(subcommand: &str, component: &str) -> Result<()> {
    if !Program::cargo(&[subcommand, "--version"]).succeeds() {
        bail!("cargo {subcommand} is missing: `rustup component add {component}` installs it");
    }
    Ok(())
}

fn name(stage: Stage) -> String {
    stage.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn print_table(outcomes: &[Outcome], failed: Option<Stage>, whole: Duration) {
    println!("\nstage      seconds");
    for Outcome { stage, took } in outcomes {
        let mark = if failed == Some(*stage) { "  failed" } else { "" };
        println!("{:<9} {:>8.1}{mark}", name(*stage), took.as_secs_f64());
    }
    println!("{:<9} {:>8.1}", "all", whole.as_secs_f64());
}
