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
    match arguments.next() {
        Some(first) if first == cli::SHIM => return glowplug_runner::shim::main(arguments),
        Some(first) if first == cli::FILLER => {
            commands::serve::write_log_of_filler();
            return glowplug_image::lazy::filler::main();
        }
        _ => {}
    }
    cli::main()
}
