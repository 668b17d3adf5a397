//! `glowplug completions`

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Whose language to write
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    // Into memory first: the generator panics when its writer fails, and a reader may go away.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "glowplug", &mut script);
    Ok(std::io::stdout().lock().write_all(&script)?)
}
