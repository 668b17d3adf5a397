//! The `glowplug` command.

mod chart;
mod cli;
mod client;
mod commands;
mod failure;
mod output;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A shim is started for every runner and stays as long as it lives. It is looked for before anything
    // else is set up, so that a start does not pay for what only people need.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == cli::SHIM) {
        return glowplug_runner::shim::main(arguments);
    }
    cli::main()
}
