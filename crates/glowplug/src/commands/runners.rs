//! `glowplug runners`

use glowplug_api::control::{LogLineView, RunnerView};

use crate::chart;
use crate::cli::Context;
use crate::commands::apps::parse_name;
use crate::failure::Failure;
use crate::output::{Output, age, ahead, moment};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Runners that live, of all apps or of one
    List {
        /// Only those of this app
        app: Option<String>,
        /// Also those that have ended
        #[arg(long)]
        all: bool,
        /// Only those in this state, for example IDLE
        #[arg(long)]
        state: Option<String>,
    },
    /// One runner, with a chart of where the time of its start went
    Show {
        /// As `r1-2`
        id: String,
    },
    /// Let a runner finish what it works on, then end it
    Stop {
        /// As `r1-2`
        id: String,
        /// Start another first
        #[arg(long)]
        replace: bool,
    },
    /// End a runner at once; queued requests it works on are tried again elsewhere
    Kill {
        /// As `r1-2`
        id: String,
    },
    /// Print what a runner wrote
    Logs {
        /// As `r1-2`
        id: String,
        /// Keep printing until the runner ends
        #[arg(long, short)]
        follow: bool,
        /// Begin at this line, counted from 0
        #[arg(long, value_name = "LINE", default_value_t = 0)]
        from: u64,
        /// Put the time before each line
        #[arg(long, short)]
        timestamps: bool,
    },
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List { app, all, state } => list(app, all, state.as_deref(), context).await,
        Command::Show { id } => {
            let runner: RunnerView = context.client()?.get(&["runners", &id], &[]).await?;
            context.output.value(&runner, |runner| {
                let table = table(std::slice::from_ref(runner), context.output);
                format!("{table}\n\n{}", chart::of_start(runner, chart::Style::of_locale()))
            })
        }
        Command::Stop { id, replace } => {
            let query: &[_] = if replace { &[("replace", "true")] } else { &[] };
            end(&id, "stop", query, context).await
        }
        Command::Kill { id } => end(&id, "kill", &[], context).await,
        Command::Logs { id, follow, from, timestamps } => {
            logs(&id, follow, from, timestamps, context).await
        }
    }
}

async fn list(
    app: Option<String>,
    all: bool,
    state: Option<&str>,
    context: &Context,
) -> Result<(), Failure> {
    let app = app.as_deref().map(parse_name).transpose()?;
    let mut query = Vec::new();
    if let Some(app) = &app {
        query.push(("app", app.as_str()));
    }
    if all {
        query.push(("ended", "true"));
    }
    let mut runners: Vec<RunnerView> = context.client()?.get(&["runners"], &query).await?;
    if let Some(state) = state {
        runners.retain(|runner| runner.state.eq_ignore_ascii_case(state));
    }
    context.output.value(&runners, |runners| table(runners, context.output))
}

pub(crate) fn table(runners: &[RunnerView], output: Output) -> String {
    let rows = runners
        .iter()
        .map(|runner| {
            let gpus: Vec<String> = runner.gpus.iter().map(u32::to_string).collect();
            let reason = runner.end_reason.as_ref().unwrap_or(&runner.cause);
            vec![
                runner.id.clone(),
                runner.app.clone(),
                state(runner),
                runner.machine_type.clone().unwrap_or_default(),
                gpus.join(","),
                runner.in_flight.to_string(),
                runner.served.to_string(),
                age(runner.created_at_micros),
                runner.expires_at_micros.map(ahead).unwrap_or_default(),
                reason.clone(),
            ]
        })
        .collect();
    let header = [
        "RUNNER",
        "APP",
        "STATE",
        "MACHINE",
        "GPUS",
        "IN FLIGHT",
        "SERVED",
        "AGE",
        "EXPIRES IN",
        "WHY",
    ];
    output.table(&header, rows, "no runners")
}

/// With how far its pull is, while it lasts.
fn state(runner: &RunnerView) -> String {
    match &runner.pull {
        Some(pull) if runner.state == "DOCKER_PULL" && pull.total_bytes > 0 => {
            format!("{} {} %", runner.state, pull.bytes * 100 / pull.total_bytes)
        }
        _ => match &runner.detail {
            Some(detail) => format!("{} ({detail})", runner.state),
            None => runner.state.clone(),
        },
    }
}

async fn end(
    id: &str,
    how: &str,
    query: &[(&str, &str)],
    context: &Context,
) -> Result<(), Failure> {
    let path = ["runners", id, how];
    let runner: RunnerView = context.client()?.post(&path, query, None::<&()>).await?;
    context.output.value(&runner, |runner| {
        format!("runner {} of {} is {}", runner.id, runner.app, runner.state)
    })
}

async fn logs(
    id: &str,
    follow: bool,
    from: u64,
    timestamps: bool,
    context: &Context,
) -> Result<(), Failure> {
    let from = from.to_string();
    let mut query = vec![("from", from.as_str())];
    if follow {
        query.push(("follow", "true"));
    }
    let output = context.output;
    let print = |line: LogLineView| {
        if output.is_json() {
            let json = serde_json::to_string(&line)
                .map_err(|error| Failure::environment(format!("cannot write JSON: {error}")))?;
            return output.data(&json);
        }
        let text = if line.stream == "supervisor" {
            format!("[glowplug] {}", line.text)
        } else {
            line.text
        };
        output.data(&if timestamps { format!("{}  {text}", moment(line.at_micros)) } else { text })
    };
    context.client()?.lines(&["runners", id, "logs"], &query, print).await
}
