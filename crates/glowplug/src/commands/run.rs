//! `glowplug run`: one app, served from this terminal until Ctrl-C.

use std::io::{ErrorKind, IsTerminal};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use glowplug_api::control::{PullView, RunnerView};
use glowplug_node::NodeEvent;
use glowplug_node::config::{AppName, FlagSetting, FlagValue, Loaded, Origin};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use crate::chart;
use crate::cli::Context;
use crate::commands::{place, scaling, serve};
use crate::failure::Failure;
use crate::output::Output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A file with a `fal.App`, as `app.py::MyApp`, or `app.py` if it holds one class
    #[arg(value_name = "FILE.py[::CLASS]", required_unless_present_any = ["command", "image"])]
    file: Option<String>,
    /// A container image with an HTTP server, as `example.com/team/model:1`; COMMAND replaces what it would run
    #[arg(long, value_name = "IMAGE", conflicts_with = "file")]
    image: Option<String>,
    /// An HTTP server; `$PORT` in an argument becomes the port to listen on
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "file")]
    command: Vec<String>,
    /// What to call the app [default: after the class, the file, the image or the program]
    #[arg(long)]
    name: Option<String>,
    /// An environment variable for the app; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// A path that must answer 2xx before the app counts as ready
    #[arg(long, value_name = "PATH")]
    health_path: Option<String>,
    /// What the app needs; several in the order to try, parted by commas
    #[arg(long, value_name = "NAMES")]
    machine_type: Option<String>,
    /// Keep queue and logs in the data directory when this ends
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    place: place::PlaceFlags,
    #[command(flatten)]
    scaling: scaling::ScalingFlags,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let name = app_name(args)?;
    let (loaded, cache_dir) = load(args, &name, context)?;
    serve::write_log(&loaded.config);
    let mut stop = serve::StopSignal::new()?;
    let node = serve::start(loaded.config, !args.keep, Some(cache_dir)).await?;
    let mut events = node.events();
    let base = format!("http://{}", node.local_addr());
    let mut screen = Screen { output: context.output, progress: None };
    screen.serving(&base, &name)?;
    serve::warn_if_open(&node, context.output);
    let ended = loop {
        tokio::select! {
            () = stop.received() => break Ok(()),
            event = events.recv() => match event {
                Ok(event) => if let Err(failure) = screen.show(event) { break Err(failure) },
                // What was missed has been said by newer events, or does not matter any more.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break Err(Failure::environment("the node ended by itself")),
            },
        }
    };
    screen.finish_progress();
    serve::shut_down(node, &mut stop).await?;
    ended
}

/// The config of a node with this one app.
/// The config, and where Python environments are kept: with those of a node that serves.
fn load(args: &Args, name: &AppName, context: &Context) -> Result<(Loaded, PathBuf), Failure> {
    let text = |text: &str| FlagValue::Text(text.to_owned());
    let app = |flag: &str, key: &str, value| FlagSetting::app(name.as_str(), flag, key, value);
    let mut flags = args.place.settings();
    flags.extend(args.scaling.settings(name.as_str()));
    if let Some(file) = &args.file {
        flags.push(app("FILE", "app", text(file)));
    }
    if let Some(image) = &args.image {
        flags.push(app("--image", "image", text(image)));
    }
    if !args.command.is_empty() {
        flags.push(app("COMMAND", "command", FlagValue::List(args.command.clone())));
    }
    flags.push(app("run", "cwd", text(".")));
    if !args.env.is_empty() {
        flags.push(app("--env", "env", FlagValue::Texts(args.env.clone())));
    }
    if let Some(path) = &args.health_path {
        flags.push(app("--health-path", "health_path", text(path)));
    }
    if let Some(machine_type) = &args.machine_type {
        flags.push(app("--machine-type", "machine_type", text(machine_type)));
    }
    let loaded = context.app_config(name.as_str(), flags.clone())?;
    let node = &loaded.config.node;
    let cache_dir = node.data_dir.clone();
    let by_default = |key: &str| {
        loaded.shown.iter().any(|shown| shown.key == key && shown.origin == Origin::Default)
    };
    let set = flags.len();
    if by_default("node.data_dir") {
        // A directory of its own, so that it does not get into the way of a node that serves already.
        let dir = node.data_dir.join("run").join(name.owner()).join(name.app());
        flags.push(FlagSetting::node("run", "data_dir", dir.to_string_lossy()));
    }
    if by_default("node.log_level") {
        // Starts and ends are shown in a form of their own here.
        flags.push(FlagSetting::node("run", "log_level", "warn"));
    }
    let taken = || TcpListener::bind(node.listen).is_err_and(|e| e.kind() == ErrorKind::AddrInUse);
    if by_default("node.listen") && taken() {
        // Nobody asked for this very port.
        context.output.note(&format!("{} is taken: using a free port", node.listen));
        flags.push(FlagSetting::node("run", "listen", format!("{}:0", node.listen.ip())));
    }
    let loaded =
        if flags.len() == set { loaded } else { context.app_config(name.as_str(), flags)? };
    Ok((loaded, cache_dir))
}

/// `--name`, or what the class, the file, the image or the program is called.
fn app_name(args: &Args) -> Result<AppName, Failure> {
    if let Some(name) = &args.name {
        return AppName::parse(name).map_err(Failure::Usage);
    }
    let stem =
        |path: &str| Path::new(path).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let words = match args.file.as_deref().map(|file| file.split_once("::").ok_or(file)) {
        Some(Ok((_, class))) => Some(class.to_owned()),
        Some(Err(file)) => stem(file),
        None => match &args.image {
            Some(image) => Some(image_stem(image)),
            None => args.command.first().and_then(|program| stem(program)),
        },
    };
    let name = dashed(&words.unwrap_or_default());
    AppName::parse(&name).map_err(|_| {
        Failure::Usage(format!("`{name}` cannot be the app's name: give it one with --name"))
    })
}

/// `model` of `example.com:5000/team/model:1@sha256:…`.
fn image_stem(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split([':', '@']).next().unwrap_or_default().to_owned()
}

/// `MyApp` and `my_app` as `my-app`.
fn dashed(words: &str) -> String {
    let mut name = String::new();
    let mut before_lower = false;
    for c in words.chars() {
        if c.is_uppercase() && before_lower {
            name.push('-');
        }
        before_lower = c.is_lowercase() || c.is_numeric();
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.trim_end_matches('-').to_owned()
}

/// What the user sees while the app is served.
#[derive(Debug)]
struct Screen {
    output: Output,
    progress: Option<ProgressBar>,
}

impl Screen {
    fn serving(&self, base: &str, name: &AppName) -> Result<(), Failure> {
        let (run, queue) = (format!("{base}/run/{name}"), format!("{base}/queue/{name}"));
        if self.output.is_json() {
            let event = json!({
                "event": "serving", "app": name.as_str(), "url": base, "run": run, "queue": queue,
            });
            return self.output.data(&event.to_string());
        }
        self.output.data(&format!("{name} is served at\n  run    {run}\n  queue  {queue}"))?;
        self.output.note("the first request starts it; stop with Ctrl-C");
        Ok(())
    }

    fn show(&mut self, event: NodeEvent) -> Result<(), Failure> {
        match event {
            NodeEvent::RunnerReady { view } => {
                self.finish_progress();
                self.report("ready", &view, |view| chart::of_start(view, chart::Style::of_locale()))
            }
            NodeEvent::RunnerEnded { view } => self.report("ended", &view, |view| {
                let reason = view.end_reason.as_deref().unwrap_or("no reason is known");
                format!("{}  ended: {reason}", view.id)
            }),
            NodeEvent::AppProgress { text, fraction, .. } => {
                self.progress(&text, fraction);
                Ok(())
            }
            NodeEvent::ImagePulling { image, pull } => {
                let text = format!("pulling {image}: {}", chart::of_pull(&pull));
                self.progress(&text, fraction(&pull));
                Ok(())
            }
            NodeEvent::AppPrepared { app } => {
                self.finish_progress();
                self.output.note(&format!("{app} is prepared"));
                Ok(())
            }
            NodeEvent::AppBroken { app, reason } => {
                self.finish_progress();
                Err(Failure::user(format!("{app} cannot be served: {reason}")))
            }
        }
    }

    fn report(
        &self,
        event: &str,
        view: &RunnerView,
        text: impl FnOnce(&RunnerView) -> String,
    ) -> Result<(), Failure> {
        if self.output.is_json() {
            self.output.data(&json!({ "event": event, "runner": view }).to_string())
        } else {
            self.output.data(&text(view))
        }
    }

    /// A bar on a terminal; elsewhere only the texts, each once.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "everything lies between 0 and STEPS"
    )]
    fn progress(&mut self, text: &str, fraction: Option<f32>) {
        const STEPS: f32 = 1_000.0;
        if !std::io::stderr().is_terminal() {
            return;
        }
        let bar = self.progress.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner} {bar:30} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(STEPS as u64).with_style(style)
        });
        if let Some(fraction) = fraction {
            bar.set_position((fraction.clamp(0.0, 1.0) * STEPS) as u64);
        }
        bar.set_message(text.to_owned());
        bar.tick();
    }

    fn finish_progress(&mut self) {
        if let Some(bar) = self.progress.take() {
            bar.finish_and_clear();
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a bar on a screen")]
fn fraction(pull: &PullView) -> Option<f32> {
    (pull.total_bytes > 0).then(|| pull.bytes as f32 / pull.total_bytes as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_what_is_run() {
        let check = |words, expected: &str| assert_eq!(dashed(words), expected, "{words}");
        check("MyApp", "my-app");
        check("OCR", "ocr");
        check("my_app", "my-app");
        check("Sdxl2Turbo", "sdxl2-turbo");
        check("_private_", "private");
        check("http.server", "http-server");
        check("日本", "");
    }
}
