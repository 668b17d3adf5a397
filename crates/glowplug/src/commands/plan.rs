//! `glowplug plan`: recorded traffic through the engine at many settings.

mod tables;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use glowplug_core::spec::Scaling;
use glowplug_node::config::{Config, MachineTypeConfig};
use glowplug_sim::model::{Model, times};
use glowplug_sim::plan::result::{Intent, Plan, WaitMeasure};
use glowplug_sim::plan::setting::Setting;
use glowplug_sim::plan::{self, Budget, Filter, Grid, Holdout, Options, Prices, Progress, Traffic};
use glowplug_sim::report;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Context;
use crate::commands::reading::{ReadingFlags, duration};
use crate::failure::Failure;
use crate::output::Output;

/// Where the page goes when nothing else is said.
const REPORT_FILE: &str = "glowplug-plan.html";
/// How much one request may slow another on its runner.
const SLOWDOWN_MAX: f64 = 1_000.0;
/// Simulations at once. More than there are cores gain nothing, and each takes memory.
const THREADS_MAX: usize = 1_024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Traffic: a `.gptrace` of `glowplug trace export`, a table, an access log
    trace: PathBuf,
    /// Leave out what came before this time since the beginning
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    from: Option<Duration>,
    /// Leave out what came after this time since the beginning
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    until: Option<Duration>,
    /// Plan for these apps alone; a `*` at the end stands for anything
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    apps: Vec<String>,
    /// Plan for a sample of the apps, such as 10%
    #[arg(long, value_name = "SHARE", value_parser = share)]
    sample: Option<f64>,
    /// How long every app's setup takes [default: as recorded]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    setup: Option<Duration>,
    /// A file of measured setup times, one a line, to draw from
    #[arg(long, value_name = "FILE", conflicts_with = "setup")]
    setup_from: Option<PathBuf>,
    /// How long a request takes that brings no time of its own [default: as recorded]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    service: Option<Duration>,
    /// How much each further request on a runner slows it: 0 not at all, 1 they share it
    #[arg(long, value_name = "FACTOR", default_value_t = 0.0, value_parser = slowdown)]
    slowdown: f64,
    /// Requests that wait longer count as over the budget
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    wait_budget: Duration,
    /// Also find the cheapest settings with which 95 % of requests wait at most so long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait_p95: Option<Duration>,
    /// Also find the cheapest settings with which 99 % of requests wait at most so long
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "wait_p95")]
    wait_p99: Option<Duration>,
    /// Also find the cheapest settings with which requests wait at most so long on average
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with_all = ["wait_p95", "wait_p99"])]
    wait_mean: Option<Duration>,
    /// Also find the settings that let requests wait least for so much, such as 40/day
    #[arg(long, value_name = "COST", value_parser = cost_per_day)]
    max_cost: Option<f64>,
    /// The waits that the frontier is drawn by
    #[arg(long, value_name = "MEASURE", value_parser = ["mean", "p50", "p95", "p99", "over-budget"], default_value = "mean")]
    by: String,
    /// Try 20 times as many settings
    #[arg(long)]
    thorough: bool,
    /// The last share of the traffic, that settings are judged by and not chosen on, or `off`
    /// [default: a quarter, if that is a day]
    #[arg(long, value_name = "SHARE", value_parser = holdout)]
    holdout: Option<Holdout>,
    /// Hold everything to this node's resources, as the config states them, instead of assuming room for all
    #[arg(long)]
    capacity: bool,
    /// What stands behind prices, for people
    #[arg(long, value_name = "NAME", default_value = "")]
    currency: String,
    /// Print the config change of one intent instead of tables
    #[arg(long, value_name = "INTENT", value_parser = ["latency-critical", "cost-sensitive", "variable-traffic", "budget"])]
    diff: Option<String>,
    /// Where to write the page with all figures
    #[arg(long, value_name = "FILE", default_value = REPORT_FILE)]
    report: PathBuf,
    /// Write no page
    #[arg(long, conflicts_with = "report")]
    no_report: bool,
    /// For what is drawn at random
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Simulations at once [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<usize>,
    #[command(flatten)]
    reading: ReadingFlags,
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').map_or_else(
        || text.parse::<f64>(),
        |percent| percent.trim_end().parse::<f64>().map(|percent| percent / 100.0),
    );
    match number {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("write a share such as 25% or 0.25".to_owned()),
    }
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(threads) if (1..=THREADS_MAX).contains(&threads) => Ok(threads),
        _ => Err(format!("write a number from 1 to {THREADS_MAX}")),
    }
}

fn slowdown(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if (0.0..=SLOWDOWN_MAX).contains(&factor) => Ok(factor),
        _ => Err(format!("write a factor from 0 to {SLOWDOWN_MAX}, such as 0.5")),
    }
}

fn holdout(text: &str) -> Result<Holdout, String> {
    if text == "off" { Ok(Holdout::Off) } else { share(text).map(Holdout::Share) }
}

/// `40/day`, `2.5/hour` or a number for a day.
fn cost_per_day(text: &str) -> Result<f64, String> {
    let (number, per) = text.split_once('/').unwrap_or((text, "day"));
    let per_day = match per.trim() {
        "h" | "hour" => 24.0,
        "day" => 1.0,
        "week" => 1.0 / 7.0,
        "month" => 12.0 / 365.25,
        _ => return Err("write a cost per hour, day, week or month, such as 40/day".to_owned()),
    };
    match number.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number * per_day),
        _ => Err("write a cost above 0, such as 40/day".to_owned()),
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let config = context.config(Vec::new())?.config;
    let options = options(args, &config)?;
    if args.diff.as_deref() == Some("budget")
        && wait_goal(args).is_none()
        && args.max_cost.is_none()
    {
        return Err(no_budget());
    }
    let bar = Bar::new();
    let traffic = read(args, &bar, context.output)?;
    let plan = plan::plan(&traffic, &options, &bar);
    bar.clear();
    let plan = plan.map_err(|error| Failure::User(error.into()))?;
    if !args.no_report {
        write_report(&args.report, &plan)?;
    }
    if let Some(intent) = &args.diff {
        return diff(&plan, intent, context);
    }
    context.output.value(&plan, |plan| tables::of(plan, context.output))?;
    if !args.no_report {
        context.output.note(&format!("\nfigures and every app: {}", args.report.display()));
    }
    Ok(())
}

fn read(args: &Args, bar: &Bar, output: Output) -> Result<Traffic, Failure> {
    let filter =
        Filter { from: args.from, until: args.until, apps: args.apps.clone(), sample: args.sample };
    bar.say("reading the traffic");
    let mut trace = args.reading.open(&args.trace, args.seed)?;
    let traffic = Traffic::read(&mut trace, &filter);
    // Told even if nothing is left, for that may be why.
    let left_out = trace.left_out();
    let said = [
        (left_out.no_service, "without a service time (--keep-unserved keeps them)"),
        (left_out.no_app, "to no app (--app-path says where a path names it)"),
    ];
    for (count, what) in said.into_iter().filter(|(count, _)| *count > 0) {
        bar.0.suspend(|| output.note(&format!("left out: {count} requests {what}")));
    }
    traffic.map_err(|error| {
        Failure::User(anyhow::Error::new(error).context(args.trace.display().to_string()))
    })
}

fn options(args: &Args, config: &Config) -> Result<Options, Failure> {
    let setup = match (&args.setup, &args.setup_from) {
        (Some(setup), _) => Some(Model::Constant(*setup)),
        (None, Some(file)) => Some(measured(file)?),
        (None, None) => None,
    };
    let machines = config.machine_types.iter();
    Ok(Options {
        seed: args.seed,
        setup,
        service: args.service.map(Model::Constant),
        slowdown: args.slowdown,
        capacity: args.capacity.then(|| glowplug_node::capacity(config)),
        machines: machines.map(|(name, machine)| (name.clone(), machine.machine.clone())).collect(),
        default_machine: config.node.default_machine.clone(),
        prices: prices(&config.machine_types, &args.currency),
        configured: config
            .apps
            .iter()
            .map(|app| {
                // A config that was read is one whose parameters fit.
                let scaling = app.scaling.apply(Scaling::default()).unwrap_or_default();
                (app.name.to_string(), scaling)
            })
            .collect(),
        configured_machines: config
            .apps
            .iter()
            .filter_map(|app| Some((app.name.to_string(), app.machine_types.first()?.clone())))
            .collect(),
        config: config.file.as_ref().and_then(|file| fs::read_to_string(file).ok()),
        wait_budget: args.wait_budget,
        wait_measure: match args.by.as_str() {
            "p50" => WaitMeasure::P50,
            "p95" => WaitMeasure::P95,
            "p99" => WaitMeasure::P99,
            "over-budget" => WaitMeasure::OverBudget,
            _ => WaitMeasure::Mean,
        },
        budget: Budget { wait: wait_goal(args), cost_per_day: args.max_cost },
        grid: if args.thorough { Grid::Thorough } else { Grid::Sensible },
        holdout: args.holdout.unwrap_or_default(),
        threads: args.threads,
        ..Options::default()
    })
}

/// Setup times from a file, to draw from.
fn measured(file: &Path) -> Result<Model, Failure> {
    let times = times::read(file).map_err(|error| {
        Failure::User(anyhow::Error::new(error).context(format!("`{}`", file.display())))
    })?;
    Ok(Model::Empirical(times.into()))
}

fn wait_goal(args: &Args) -> Option<(WaitMeasure, Duration)> {
    [
        (WaitMeasure::P95, args.wait_p95),
        (WaitMeasure::P99, args.wait_p99),
        (WaitMeasure::Mean, args.wait_mean),
    ]
    .into_iter()
    .find_map(|(measure, limit)| Some((measure, limit?)))
}

fn prices(machines: &BTreeMap<String, MachineTypeConfig>, currency: &str) -> Prices {
    let priced =
        machines.iter().filter_map(|(name, machine)| Some((name.clone(), machine.price_per_hour?)));
    Prices { per_hour: priced.collect(), currency: currency.to_owned() }
}

fn write_report(path: &Path, plan: &Plan) -> Result<(), Failure> {
    fs::write(path, report::html(plan)).map_err(|error| {
        Failure::user(format!(
            "cannot write the page to `{}`: {error}; choose another place with --report, or none with \
             --no-report",
            path.display()
        ))
    })
}

fn diff(plan: &Plan, intent: &str, context: &Context) -> Result<(), Failure> {
    let wanted = match intent {
        "latency-critical" => Intent::LatencyCritical,
        "cost-sensitive" => Intent::CostSensitive,
        "variable-traffic" => Intent::VariableTraffic,
        _ => Intent::Budget,
    };
    match plan.recommendations.iter().find(|choice| choice.intent == wanted) {
        Some(choice) => {
            if choice.met == Some(false) {
                context
                    .output
                    .note("no setting that was tried keeps this budget; this is the nearest");
            }
            if choice.diff.is_empty() {
                context.output.note("nothing to change");
                if !context.output.is_json() {
                    return Ok(());
                }
            }
            // Programs get the diff within its recommendation, as the whole plan has it.
            context.output.value(choice, |choice| choice.diff.clone())
        }
        None => Err(no_budget()),
    }
}

fn no_budget() -> Failure {
    Failure::Usage("state a budget for `--diff budget`, with --wait-p95 or --max-cost".to_owned())
}

/// The progress bar: on a terminal's standard error, and nowhere else.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let style =
            ProgressStyle::with_template("{spinner} {bar:30} {percent:>3} % {msg} ({eta} left)")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::no_length().with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    fn say(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn planned(&self, simulations: usize, requests: u64) {
        self.0.set_length(requests.saturating_mul(simulations as u64));
        self.0.set_position(0);
        self.say(&format!("trying {simulations} settings"));
    }

    fn requests(&self, count: u64) {
        self.0.inc(count);
    }

    fn simulated(&self, setting: &Setting) {
        self.say(&setting.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_per_day() {
        for (text, expected) in [
            ("40", Some(40.0)),
            ("40/day", Some(40.0)),
            ("2.5/hour", Some(60.0)),
            ("70 / week", Some(10.0)),
        ] {
            assert_eq!(cost_per_day(text).ok(), expected, "{text}");
        }
        for bad in ["", "-1", "nan", "40/fortnight", "0", "x/day"] {
            assert!(cost_per_day(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn requests_do_not_speed_each_other_up() {
        for (text, expected) in [("0", Some(0.0)), ("0.5", Some(0.5)), ("1000", Some(1_000.0))] {
            assert_eq!(slowdown(text).ok(), expected, "{text}");
        }
        for bad in ["", "-0.5", "nan", "inf", "1001", "half"] {
            assert!(slowdown(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn threads_are_few_and_at_least_one() {
        for (text, expected) in [("1", Some(1)), ("1024", Some(1_024))] {
            assert_eq!(threads(text).ok(), expected, "{text}");
        }
        for bad in ["", "0", "-1", "1025", "all"] {
            assert!(threads(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_are_of_one() {
        for (text, expected) in [("25%", Some(0.25)), ("0.25", Some(0.25)), ("100 %", Some(1.0))] {
            assert_eq!(share(text).ok(), expected, "{text}");
        }
        for bad in ["0", "101%", "-5%", "all"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
