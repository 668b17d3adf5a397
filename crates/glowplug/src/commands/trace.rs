//! `glowplug trace`: the traffic that a node has recorded.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use glowplug_api::control::{TRACE_BYTES_EXPECTED, TraceStatusView};
use glowplug_core::Timestamp;
use glowplug_node::config::{parse_duration, write_bytes};
use glowplug_node::recorder::{self, Selection};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Context;
use crate::commands::apps::parse_name;
use crate::commands::target::{Target, is_stdout};
use crate::failure::Failure;
use crate::output::{Output, moment, now_micros};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Write the recorded traffic into one file
    Export(ExportArgs),
    /// How much is recorded, and since when
    Status {
        /// Look at the recordings of a node that does not run
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// Where to write to; `-` for standard output
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
    output: PathBuf,
    /// Only what came within this time, such as `24h` or `30m` [default: everything]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Only the traffic of this app; may be repeated
    #[arg(long, value_name = "NAME")]
    app: Vec<String>,
    /// Read the recordings of a node that does not run
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

const DEFAULT_FILE: &str = "glowplug.gptrace";
/// Between two redraws of the progress.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .ok_or_else(|| "write a number of seconds, or text such as 30m or 24h".to_owned())
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Export(args) => export(&args, context).await,
        Command::Status { data_dir } => status(data_dir.as_deref(), context).await,
    }
}

async fn status(data_dir: Option<&Path>, context: &Context) -> Result<(), Failure> {
    let view: TraceStatusView = match data_dir {
        Some(dir) => on_disk(dir)?,
        None => context.client()?.get(&["trace", "status"], &[]).await?,
    };
    context.output.value(&view, |view| {
        if !view.enabled && view.segments == 0 {
            return "nothing is recorded: `enabled` below [node.recorder] is false".to_owned();
        }
        let at = |at: Option<u64>| at.map_or_else(|| "none yet".to_owned(), moment);
        let mut lines = vec![
            ("records", view.records.to_string()),
            ("first", at(view.first_micros)),
            ("last", at(view.last_micros)),
            ("files", view.segments.to_string()),
            ("size", format!("{:.1} MiB", mebibytes(view.bytes))),
        ];
        if view.enabled {
            lines.push(("at most", write_bytes(view.bytes_max)));
            lines.push(("dropped", view.dropped.to_string()));
        }
        let line = |(name, value): &(&str, String)| format!("{name:8} {value}");
        lines.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn on_disk(data_dir: &Path) -> Result<TraceStatusView, Failure> {
    let recorded = recorder::look(data_dir).map_err(|error| unreadable(error, data_dir))?;
    Ok(TraceStatusView {
        enabled: false,
        segments: recorded.segments,
        bytes: recorded.bytes,
        bytes_max: 0,
        records: recorded.records,
        dropped: 0,
        first_micros: recorded.first.map(Timestamp::as_micros),
        last_micros: recorded.last.map(Timestamp::as_micros),
    })
}

fn unreadable(error: recorder::Error, data_dir: &Path) -> Failure {
    match error {
        recorder::Error::UnknownApp { .. } => Failure::User(error.into()),
        recorder::Error::Unreadable { .. } => Failure::User(anyhow::Error::new(error).context(
            format!("nothing was ever recorded in {}, or it may not be read", data_dir.display()),
        )),
        recorder::Error::Trace(_) => Failure::Environment(error.into()),
    }
}

async fn export(args: &ExportArgs, context: &Context) -> Result<(), Failure> {
    let apps = args.app.iter().map(|app| Ok(parse_name(app)?.as_str().to_owned()));
    let apps = apps.collect::<Result<Vec<String>, Failure>>()?;
    refuse_terminal(&args.output)?;
    let mut target = Target::open(&args.output, progress(context.output))?;
    let written = match &args.data_dir {
        Some(dir) => read_disk(dir, args.since, apps, &mut target, context.output),
        None => fetch(args.since, &apps, &mut target, context).await,
    };
    target.progress.finish_and_clear();
    let bytes = written.and_then(|()| target.finish())?;
    if !is_stdout(&args.output) {
        context.output.note(&format!(
            "{:.1} MiB of traffic are in {}",
            mebibytes(bytes),
            args.output.display()
        ));
    }
    Ok(())
}

async fn fetch(
    since: Option<Duration>,
    apps: &[String],
    target: &mut Target,
    context: &Context,
) -> Result<(), Failure> {
    let since = since.map(|since| since.as_secs_f64().to_string());
    let apps = apps.join(",");
    let mut query = Vec::new();
    query.extend(since.as_deref().map(|since| ("since", since)));
    if !apps.is_empty() {
        query.push(("app", apps.as_str()));
    }
    let progress = target.progress.clone();
    let begin = |expected: Option<u64>| progress.set_length(expected.unwrap_or_default());
    let each = |bytes: &[u8]| Ok(target.write_all(bytes)?);
    context.client()?.bytes(&["trace"], &query, TRACE_BYTES_EXPECTED, begin, each).await
}

fn read_disk(
    data_dir: &Path,
    since: Option<Duration>,
    apps: Vec<String>,
    target: &mut Target,
    output: Output,
) -> Result<(), Failure> {
    let now = Duration::from_micros(now_micros());
    let since = since.map(|since| Timestamp::ZERO + now.saturating_sub(since));
    let selection = Selection { since, apps };
    let recorded = recorder::look(data_dir).map_err(|error| unreadable(error, data_dir))?;
    target.progress.set_length(recorded.bytes);
    let exported = recorder::export(data_dir, &selection, target)
        .map_err(|error| unreadable(error, data_dir))?;
    for damaged in exported.damaged {
        output.note(&format!("warning: not all of a file could be read: {damaged}"));
    }
    Ok(())
}

fn refuse_terminal(output: &Path) -> Result<(), Failure> {
    if is_stdout(output) && io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "a trace is not for the eye: write it with `-o FILE`, or pipe it".into(),
        ));
    }
    Ok(())
}

fn progress(output: Output) -> ProgressBar {
    if output.is_json() || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{spinner} exporting [{bar:30}] {binary_bytes} {binary_bytes_per_sec}";
    let progress = ProgressBar::new(0)
        .with_style(ProgressStyle::with_template(style).expect("it is a constant that works"));
    progress.enable_steady_tick(DRAW_INTERVAL);
    progress
}
