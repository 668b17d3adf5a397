//! The command line: what there is to say, and the way from it to an exit code.

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use glowplug_node::config::{self, FileChoice, FlagSetting, Loaded, Sources};

use crate::client::Client;
use crate::commands;
use crate::failure::{Failure, USAGE_EXIT_CODE};
use crate::output::{Output, plain};

/// The first argument that makes this program a runner's shim.
pub(crate) const SHIM: &str = "shim";
/// The first argument that makes this program serve an image that is not here yet.
pub(crate) const FILLER: &str = "filler";

#[derive(Debug, Parser)]
#[command(name = "glowplug", version, max_term_width = 100)]
/// Runs apps on demand, scales them to zero, and makes the next start cheap.
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// The config file [env: GLOWPLUG_CONFIG] [default: glowplug.toml here, if there is one]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    config: Option<PathBuf>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
    /// The node to talk to [default: where the config listens]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "GLOWPLUG_SERVER",
        hide_env_values = true
    )]
    #[arg(help_heading = "Global options")]
    server: Option<String>,
    /// The key to show to the node; FAL_KEY is read too
    #[arg(
        long,
        global = true,
        value_name = "ID:SECRET",
        env = "GLOWPLUG_KEY",
        hide_env_values = true
    )]
    #[arg(help_heading = "Global options")]
    key: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the apps of the config
    Serve(commands::serve::Args),
    /// Serve one app from this terminal, and show where the time of each start goes
    Run(Box<commands::run::Args>),
    /// List apps, look at one, change its scaling
    #[command(subcommand)]
    Apps(commands::apps::Command),
    /// List runners, read their logs, stop them
    #[command(subcommand)]
    Runners(commands::runners::Command),
    /// Pull images ahead of time, see which are here and what is in them, make room
    #[command(subcommand)]
    Image(commands::image::Command),
    /// List snapshots of set-up runners, look for damage, drop them
    #[command(subcommand)]
    Snapshots(commands::snapshots::Command),
    /// Look at queued requests, cancel them, move them, copy them
    #[command(subcommand)]
    Queue(commands::queue::Command),
    /// See how the webhook of a request fared, or call it again
    #[command(subcommand)]
    Webhooks(commands::webhooks::Command),
    /// Explain a start, a wait or a stop from what was decided
    Why(commands::why::Args),
    /// Export the recorded traffic, or see how much there is
    #[command(subcommand)]
    Trace(commands::trace::Command),
    /// Replay traffic at many settings: what each costs, and which to take
    Plan(Box<commands::plan::Args>),
    /// Try apps on traffic of your own making
    Simulate(commands::simulate::Args),
    /// Make, list and revoke keys
    #[command(subcommand)]
    Keys(commands::keys::Command),
    /// Make the certificate that clients insisting on TLS can trust, and print its path
    Ca(commands::ca::Args),
    /// Show the config and where it comes from, or look for mistakes
    #[command(subcommand)]
    Config(commands::config::Command),
    /// What this machine can do, what is missing, and how to get it
    Doctor {
        #[command(flatten)]
        place: commands::place::PlaceFlags,
    },
    /// Write completions for a shell to standard output
    Completions(commands::completions::Args),
    /// Write the manual page to standard output
    Man,
    /// Print the version
    Version,
}

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Context {
    global: Global,
    pub(crate) output: Output,
}

impl Context {
    /// Loads the config with what the command line adds to it.
    pub(crate) fn config(&self, flags: Vec<FlagSetting>) -> Result<Loaded, Failure> {
        Ok(config::load(process_sources(self.file_choice(), flags)?)?)
    }

    /// As [`Context::config`], but with no app other than the one that `flags` describe, and with a file
    /// only if one is named.
    pub(crate) fn app_config(&self, app: &str, flags: Vec<FlagSetting>) -> Result<Loaded, Failure> {
        let file = self.global.config.clone().map_or(FileChoice::EnvOnly, FileChoice::Named);
        let mut sources = process_sources(file, flags)?;
        sources.only_app = Some(app.to_owned());
        Ok(config::load(sources)?)
    }

    fn file_choice(&self) -> FileChoice {
        self.global.config.clone().map_or(FileChoice::Search, FileChoice::Named)
    }

    /// Whether `--server` or its variable names a node.
    pub(crate) fn names_server(&self) -> bool {
        self.global.server.is_some()
    }

    /// A client of the node that `--server` names, or else of the one the config describes.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let key = self.global.key.clone().or_else(|| std::env::var("FAL_KEY").ok());
        let key = key.filter(|key| !key.is_empty());
        if let Some(server) = &self.global.server {
            return Client::new(server, key);
        }
        let address = config::node_address(&process_sources(self.file_choice(), Vec::new())?)?;
        Client::new(&reachable(address).to_string(), key)
    }
}

/// The address at which this machine reaches a node that listens at `address`.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn process_sources(file: FileChoice, flags: Vec<FlagSetting>) -> Result<Sources, Failure> {
    Sources::of_process(file, flags).map_err(|error| {
        Failure::environment(format!("cannot tell the current directory: {error}"))
    })
}

/// Runs the command that the arguments of this process name.
pub(crate) fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not mistakes. With the output gone there is nobody left to tell.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE_EXIT_CODE } else { 0 });
        }
    };
    let context = Context { output: Output::new(cli.global.json), global: cli.global };
    match run(cli.command, &context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::OutputClosed) => Failure::OutputClosed.exit_code(),
        Err(failure) => {
            for line in plain(&failure.to_string()).lines() {
                let prefix = if line.starts_with(' ') { "" } else { "error: " };
                context.output.note(&format!("{prefix}{line}"));
            }
            failure.exit_code()
        }
    }
}

fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serving(commands::serve::run(&args, context)),
        Command::Run(args) => serving(commands::run::run(&args, context)),
        Command::Apps(command) => block_on(commands::apps::run(command, context)),
        Command::Runners(command) => block_on(commands::runners::run(command, context)),
        Command::Image(command) => block_on(commands::image::run(command, context)),
        Command::Snapshots(command) => commands::snapshots::run(&command, context),
        Command::Queue(command) => block_on(commands::queue::run(command, context)),
        Command::Webhooks(command) => block_on(commands::webhooks::run(command, context)),
        Command::Why(args) => block_on(commands::why::run(args, context)),
        Command::Trace(command) => block_on(commands::trace::run(command, context)),
        Command::Plan(args) => commands::plan::run(&args, context),
        Command::Simulate(args) => commands::simulate::run(&args, context),
        Command::Keys(command) => block_on(commands::keys::run(command, context)),
        Command::Ca(args) => commands::ca::run(&args, context),
        Command::Doctor { place } => block_on(commands::doctor::run(&place, context)),
        Command::Config(command) => commands::config::run(&command, context),
        Command::Completions(args) => commands::completions::run(&args),
        Command::Man => commands::man::run(),
        Command::Version => commands::version::run(context),
    }
}

/// One thread is enough to ask a node something.
fn block_on(future: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    on_runtime(tokio::runtime::Builder::new_current_thread(), future)
}

/// A node uses all cores.
fn serving(future: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    on_runtime(tokio::runtime::Builder::new_multi_thread(), future)
}

fn on_runtime(
    mut builder: tokio::runtime::Builder,
    future: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    builder
        .enable_all()
        .build()
        .map_err(|error| Failure::environment(format!("cannot start the runtime: {error}")))?
        .block_on(future)
}
