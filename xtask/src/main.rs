//! `cargo xtask`: everything that is done to this repository by a command.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its users read its output")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod command;
mod demo;
mod node;
mod repository;
mod stages;
mod stopwatch;
mod tidy;
mod tools;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
/// Builds, checks, shows and measures Glowplug.
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Set up what the tests need and run all checks
    Test(stages::Args),
    /// As test, with the profile for continuous integration
    Ci(stages::Args),
    /// Send a picture to a cold app, and watch it start, answer and go away
    Demo(demo::Args),
    /// Measure Glowplug beside its peers
    Bench(bench::Args),
    /// Check the rules of the repository that no compiler checks
    Tidy,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Test(args) => stages::run(&args, stages::Profile::Default),
        Task::Ci(args) => stages::run(&args, stages::Profile::Ci),
        Task::Demo(args) => demo::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Tidy => tidy::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
