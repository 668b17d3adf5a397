//! `glowplug serve`

use std::path::PathBuf;

use glowplug_image::lazy::FillerCommand;
use glowplug_node::config::{Config, LogFormat};
use glowplug_node::{Node, NodeOptions};
use glowplug_runner::ShimCommand;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::cli::{Context, FILLER, SHIM};
use crate::commands::place;
use crate::failure::Failure;
use crate::output::{self, Output};

/// Messages of the libraries below are kept out of the log up to this level.
const LIBRARY_LOG_LEVEL: &str = "warn";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: place::PlaceFlags,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let config = context.config(args.place.settings())?.config;
    write_log(&config);
    // Caught from here on, so that a node told to stop while it starts stops in order as well.
    let mut stop = StopSignal::new()?;
    let node = start(config, false, None).await?;
    let url = format!("http://{}", node.local_addr());
    let output = context.output;
    if output.is_json() {
        output.data(&serde_json::json!({ "event": "serving", "url": url }).to_string())?;
    } else {
        output.note(&format!("serving at {url}; stop with Ctrl-C"));
    }
    warn_if_open(&node, output);
    stop.received().await;
    output.note("stopping: requests at work may finish; Ctrl-C again leaves them");
    shut_down(node, &mut stop).await
}

pub(crate) fn warn_if_open(node: &Node, output: Output) {
    if node.is_open() {
        output.note(
            "warning: there is no key, so whoever reaches this address may call and change everything; \
             `glowplug keys create --scope ADMIN` makes one",
        );
    }
}

/// Logs go to standard error, from the config's level on.
pub(crate) fn write_log(config: &Config) {
    let level = &config.node.log_level;
    let filter = EnvFilter::new(format!("{LIBRARY_LOG_LEVEL},glowplug={level}"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(output::wants_color(&std::io::stderr()));
    match config.node.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Of a filler, which goes on when the node does not: its log is a file.
pub(crate) fn write_log_of_filler() {
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO);
    log.with_writer(std::io::stderr).with_ansi(false).init();
}

/// Starts a node whose runners are watched over by this same program.
pub(crate) async fn start(
    config: Config,
    ephemeral: bool,
    cache_dir: Option<PathBuf>,
) -> Result<Node, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::environment(format!("cannot find this program: {error}")))?;
    let shim = ShimCommand { program: program.clone(), args: vec![SHIM.into()] };
    let filler = FillerCommand { program, args: vec![FILLER.into()] };
    Node::start(config, NodeOptions { shim, filler, ephemeral, cache_dir, backend: None })
        .await
        .map_err(Failure::Environment)
}

/// Stops in order, unless told to stop once more.
pub(crate) async fn shut_down(node: Node, stop: &mut StopSignal) -> Result<(), Failure> {
    tokio::select! {
        stopped = node.shutdown() => stopped.map_err(Failure::Environment),
        () = stop.received() => Err(Failure::environment("stopped before all requests were done")),
    }
}

/// SIGINT or SIGTERM, as often as they come.
#[derive(Debug)]
pub(crate) struct StopSignal {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignal {
    pub(crate) fn new() -> Result<Self, Failure> {
        let catch = |kind| {
            signal(kind)
                .map_err(|error| Failure::environment(format!("cannot catch signals: {error}")))
        };
        let interrupt = catch(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: catch(SignalKind::terminate())? })
    }

    /// Cancel-safe: a signal is either reported or kept for the next call.
    pub(crate) async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
