//! `glowplug apps`

use glowplug_api::control::{
    AppView, Policy, PrewarmRequest, PrewarmView, RunnerView, ScalingPatch, ScalingView,
};
use glowplug_node::config::AppName;

use crate::cli::Context;
use crate::commands::{runners, scaling};
use crate::failure::Failure;
use crate::output::{ahead, seconds};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// All apps of the node
    List,
    /// One app with its scaling and its runners
    Show {
        /// As `hello`, `team/hello` or `hello--staging`
        app: String,
    },
    /// Change how an app scales; survives restarts and new versions of its code
    Scale(ScaleArgs),
    /// Start runners now, before the requests that will need them
    Prewarm(PrewarmArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ScaleArgs {
    /// As `hello` or `team/hello`
    app: String,
    /// The app's environment, when it is not `main`
    #[arg(long, value_name = "NAME")]
    env: Option<String>,
    #[command(flatten)]
    flags: scaling::ScalingFlags,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PrewarmArgs {
    /// As `hello`, `team/hello` or `hello--staging`
    app: String,
    /// So many are to be warm; what is missing is started
    #[arg(long, value_name = "N", default_value_t = 1)]
    runners: u32,
    /// Why, for the node's log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List => list(context).await,
        Command::Show { app } => show(&parse_name(&app)?, context).await,
        Command::Scale(args) => scale(&args, context).await,
        Command::Prewarm(args) => prewarm(args, context).await,
    }
}

/// The name of an app as the user wrote it, completed.
pub(crate) fn parse_name(text: &str) -> Result<AppName, Failure> {
    AppName::parse(text).map_err(Failure::Usage)
}

async fn list(context: &Context) -> Result<(), Failure> {
    let apps: Vec<AppView> = context.client()?.get(&["apps"], &[]).await?;
    context.output.value(&apps, |apps| {
        let rows = apps
            .iter()
            .map(|app| {
                let scaling = app.scaling.as_ref();
                let of =
                    |text: &dyn Fn(&ScalingView) -> String| scaling.map(text).unwrap_or_default();
                vec![
                    app.name.clone(),
                    app.status.clone(),
                    runner_counts(app),
                    app.queued.to_string(),
                    app.in_flight.to_string(),
                    of(&|scaling| scaling.min_concurrency.to_string()),
                    of(&|scaling| cap(scaling)),
                    of(&|scaling| kept(scaling)),
                    app.machine_types.join(","),
                ]
            })
            .collect();
        let header = [
            "APP",
            "STATUS",
            "RUNNERS",
            "QUEUED",
            "IN FLIGHT",
            "MIN",
            "MAX",
            "KEEP ALIVE",
            "MACHINE",
        ];
        let empty = "no apps: add one to glowplug.toml, or try `glowplug run FILE.py`";
        context.output.table(&header, rows, empty)
    })
}

fn cap(scaling: &ScalingView) -> String {
    scaling.max_concurrency.map_or_else(|| "none".to_owned(), |cap| cap.to_string())
}

/// How long idle runners are kept.
fn kept(scaling: &ScalingView) -> String {
    match scaling.policy {
        Policy::Fixed => seconds(scaling.keep_alive),
        Policy::Auto => "auto".to_owned(),
    }
}

fn runner_counts(app: &AppView) -> String {
    let counts: Vec<String> =
        app.runners.iter().map(|(state, count)| format!("{count} {state}")).collect();
    if counts.is_empty() { "0".to_owned() } else { counts.join(", ") }
}

async fn show(name: &AppName, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let app: AppView = client.get(&["apps", name.owner(), name.app()], &[]).await?;
    if context.output.is_json() {
        return context.output.value(&app, |_| String::new());
    }
    let list: Vec<RunnerView> = client.get(&["runners"], &[("app", name.as_str())]).await?;
    let no_runners = "no runners".to_owned();
    let runners = if list.is_empty() { no_runners } else { runners::table(&list, context.output) };
    context.output.data(&format!("{}\n\n{runners}", describe(&app)))
}

fn describe(app: &AppView) -> String {
    let mut lines = vec![
        ("app", app.name.clone()),
        ("status", app.status.clone()),
        ("program", app.program.clone()),
        ("revision", app.revision.to_string()),
        ("machine types", app.machine_types.join(", ")),
        ("queued", app.queued.to_string()),
        ("in flight", app.in_flight.to_string()),
    ];
    if let Some(detail) = &app.detail {
        lines.insert(2, ("detail", detail.clone()));
    }
    if let Some(until) = app.backoff_until_micros {
        lines.push(("next start in", ahead(until)));
    }
    if let Some(scaling) = &app.scaling {
        lines.extend(describe_scaling(scaling));
    }
    let width = lines.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    let lines: Vec<String> =
        lines.iter().map(|(label, value)| format!("{label:width$}  {value}")).collect();
    lines.join("\n")
}

fn describe_scaling(scaling: &ScalingView) -> Vec<(&'static str, String)> {
    let mut lines = describe_policy(scaling);
    lines.extend(describe_parameters(scaling));
    lines
}

fn describe_policy(scaling: &ScalingView) -> Vec<(&'static str, String)> {
    let keep_alive = seconds(scaling.keep_alive);
    if scaling.policy == Policy::Fixed {
        return vec![("policy", "fixed".to_owned()), ("keep_alive", keep_alive)];
    }
    let budget = scaling.wait_budget.map_or_else(
        || "none".to_owned(),
        |wait| {
            let percent = scaling.wait_budget_percent.unwrap_or_default();
            format!("{}, for all but {percent} % of the requests", seconds(wait))
        },
    );
    let price = scaling.wait_price.unwrap_or_default();
    let steered = if scaling.wait_budget.is_some() { ", to begin with" } else { "" };
    vec![
        ("policy", "auto".to_owned()),
        ("wait_budget", budget),
        ("wait_price", format!("{price} runner-seconds for a second of waiting{steered}")),
        ("keep_alive", format!("as learned, at most {keep_alive}")),
    ]
}

fn describe_parameters(scaling: &ScalingView) -> Vec<(&'static str, String)> {
    vec![
        ("min_concurrency", scaling.min_concurrency.to_string()),
        ("max_concurrency", cap(scaling)),
        ("concurrency_buffer", scaling.concurrency_buffer.to_string()),
        ("concurrency_buffer_perc", scaling.concurrency_buffer_perc.to_string()),
        ("scaling_delay", seconds(scaling.scaling_delay)),
        ("max_multiplexing", scaling.max_multiplexing.to_string()),
        ("startup_timeout", seconds(scaling.startup_timeout)),
        ("request_timeout", seconds(scaling.request_timeout)),
        (
            "unused_runner_timeout",
            scaling.unused_runner_timeout.map_or_else(|| "as keep_alive".to_owned(), seconds),
        ),
        ("termination_grace_period_seconds", seconds(scaling.termination_grace_period_seconds)),
    ]
}

async fn scale(args: &ScaleArgs, context: &Context) -> Result<(), Failure> {
    let name = match &args.env {
        Some(env) => parse_name(&format!("{}--{env}", args.app))?,
        None => parse_name(&args.app)?,
    };
    let patch = args.flags.patch();
    if patch == ScalingPatch::default() {
        context.output.note("nothing to change: give at least one flag, as `--keep-alive 60`");
        return Ok(());
    }
    let path = ["apps", name.owner(), name.app(), "scaling"];
    let app: AppView = context.client()?.patch(&path, &patch).await?;
    context.output.value(&app, describe)
}

async fn prewarm(args: PrewarmArgs, context: &Context) -> Result<(), Failure> {
    let name = parse_name(&args.app)?;
    let path = ["apps", name.owner(), name.app(), "prewarm"];
    let wanted = PrewarmRequest { runners: Some(args.runners), reason: args.reason };
    let view: PrewarmView = context.client()?.post(&path, &[], Some(&wanted)).await?;
    context.output.value(&view, |view| {
        let PrewarmView { app, ready, starting, started } = view;
        format!("{app}: {ready} ready, {starting} starting, {started} of them begun now")
    })
}
