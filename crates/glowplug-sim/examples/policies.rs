//! Policies on the same traffic: fixed `keep_alive`, Knative's autoscaler, `policy = "auto"`, and who knows
//! the future. Prints one JSON line for each time that a start may take; tables go to standard error.
//!
//! ```console
//! $ policies --trace week.csv --app-column model --setup 20s --setup 1s --warm-up 5d
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use glowplug_core::auto;
use glowplug_sim::judge::{
    self, Interval, Kind, Pair, Policy, Question, Row, Setup, Side, Verdict,
};
use glowplug_sim::model::Model;
use glowplug_sim::plan::{Filter, Traffic};
use glowplug_sim::trace::{self, Format, Names, Unit};

type Failed = Box<dyn std::error::Error>;

#[derive(Debug, Parser)]
struct Args {
    /// Traffic, in any format that `glowplug plan` reads
    #[arg(long)]
    trace: PathBuf,
    /// What the traffic is called in the results
    #[arg(long, default_value = "traffic")]
    label: String,
    #[arg(long, default_value = "auto")]
    format: String,
    #[arg(long)]
    time_column: Option<String>,
    #[arg(long)]
    app_column: Option<String>,
    #[arg(long)]
    service_column: Option<String>,
    /// How far out of order requests may stand
    #[arg(long, value_parser = duration)]
    reorder: Option<Duration>,
    /// Durations of the functions, beside a file of counts per minute
    #[arg(long)]
    durations: Option<PathBuf>,
    /// Everything is one app of this name
    #[arg(long)]
    one_app: Option<String>,
    /// Since the beginning of the trace
    #[arg(long, value_parser = duration)]
    from: Option<Duration>,
    #[arg(long, value_parser = duration)]
    until: Option<Duration>,
    /// So long from there on the traffic is simulated and not counted
    #[arg(long, value_parser = duration, default_value = "0s")]
    warm_up: Duration,
    /// Share of the apps to keep
    #[arg(long)]
    sample: Option<f64>,
    /// Only apps with at most so many requests
    #[arg(long)]
    requests_max: Option<u64>,
    /// How long a start takes; may be given more than once
    #[arg(long, value_parser = duration)]
    setup: Vec<Duration>,
    /// A file of measured starts, one a line, to draw from: once for each start, and once for each app. A
    /// first line may name their unit, as in `load_ms`
    #[arg(long)]
    setup_from: Option<PathBuf>,
    /// Of requests that do not bring their own time
    #[arg(long, value_parser = duration, default_value = "1s")]
    service: Duration,
    #[arg(long, default_value_t = 1)]
    multiplexing: u32,
    /// Draws of everything that is left to chance, averaged
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A wait beyond this is counted
    #[arg(long, value_parser = duration, default_value = "2s")]
    slo: Duration,
    /// Prices of waiting for the automatic policy, instead of the usual ones
    #[arg(long, value_delimiter = ',')]
    prices: Vec<f64>,
    /// Samples of apps behind each interval
    #[arg(long, default_value_t = 1_000)]
    resamples: u32,
    /// Also let the automatic policy keep 95 % of waits within this; may be given more than once
    #[arg(long, value_parser = duration)]
    wait_p95: Vec<Duration>,
}

fn main() -> Result<(), Failed> {
    let args = Args::parse();
    let traffics: Vec<Traffic> = (args.seed..args.seed + args.seeds)
        .map(|seed| read(&args, seed))
        .collect::<Result<_, _>>()?;
    eprintln!(
        "{}: {} requests, {} apps",
        args.label,
        traffics[0].requests(),
        traffics[0].apps().len()
    );
    for (name, setup) in setups(&args)? {
        let question = Question {
            traffics: traffics.clone(),
            policies: policies(&args),
            setup,
            service: Model::Constant(args.service),
            max_multiplexing: args.multiplexing,
            warm_up: args.warm_up,
            slo: args.slo,
            seed: args.seed,
            resamples: args.resamples,
        };
        let verdict = judge::run(&question, &|_| {})?;
        print_tables(&args, &name, &verdict);
        let mut line = serde_json::to_value(&verdict)?;
        line["traffic"] = args.label.clone().into();
        line["setup"] = name.into();
        line["default"] = Policy::Auto(auto::Settings::default()).to_string().into();
        line["warm_up_secs"] = args.warm_up.as_secs().into();
        line["multiplexing"] = args.multiplexing.into();
        line["seeds"] = args.seeds.into();
        line["slo_secs"] = args.slo.as_secs_f64().into();
        println!("{line}");
    }
    Ok(())
}

/// `90`, `90s`, `15m`, `2h`, `8d`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let secs = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(format!("`{unit}` is none of ms, s, m, h, d")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{number}` is no number"))?;
    Duration::try_from_secs_f64(number * secs).map_err(|error| error.to_string())
}

fn read(args: &Args, seed: u64) -> Result<Traffic, Failed> {
    let format = Format::ALL.into_iter().find(|format| format.label() == args.format);
    let options = trace::Options {
        format: format.ok_or("no such format")?,
        names: Names {
            time: args.time_column.clone(),
            app: args.app_column.clone(),
            service: args.service_column.clone(),
            ..Names::default()
        },
        one_app: args.one_app.clone(),
        reorder: args.reorder,
        durations: args.durations.clone(),
        seed,
        ..trace::Options::default()
    };
    let filter =
        Filter { from: args.from, until: args.until, apps: Vec::new(), sample: args.sample };
    let traffic = Traffic::read(trace::open(&args.trace, &options)?, &filter)?;
    Ok(match args.requests_max {
        Some(most) => traffic.with_at_most(most),
        None => traffic,
    })
}

fn setups(args: &Args) -> Result<Vec<(String, Setup)>, Failed> {
    let constant = |time: &Duration| {
        (format!("{} s", time.as_secs_f64()), Setup::PerStart(Model::Constant(*time)))
    };
    let mut setups: Vec<(String, Setup)> = args.setup.iter().map(constant).collect();
    if let Some(path) = &args.setup_from {
        let measured = measured(path)?;
        setups.push(("measured, per start".to_owned(), Setup::PerStart(measured.clone())));
        setups.push(("measured, per app".to_owned(), Setup::PerApp(measured)));
    }
    if setups.is_empty() {
        return Err("say how long a start takes: --setup 20s or --setup-from FILE".into());
    }
    Ok(setups)
}

fn measured(path: &Path) -> Result<Model, Failed> {
    let text = fs::read_to_string(path)?;
    let unit = text.lines().next().and_then(Unit::of_name);
    let per_second = match unit {
        Some(Unit::Millis) => 1e3,
        Some(Unit::Micros) => 1e6,
        Some(Unit::Nanos) => 1e9,
        Some(Unit::Seconds) | None => 1.0,
    };
    let times: Vec<Duration> = text
        .lines()
        .filter_map(|line| line.trim().parse::<f64>().ok())
        .filter_map(|time| Duration::try_from_secs_f64(time / per_second).ok())
        .collect();
    if times.is_empty() {
        return Err(format!("{} holds no times", path.display()).into());
    }
    Ok(Model::Empirical(times.into()))
}

fn policies(args: &Args) -> Vec<Policy> {
    let mut policies = judge::usual();
    if !args.prices.is_empty() {
        policies.retain(|policy| policy.kind() != Kind::Auto);
        policies.extend(judge::auto(&args.prices));
    }
    policies.extend(args.wait_p95.iter().map(|wait| {
        let budget = Some(auto::Budget { wait: *wait, share: 0.05 });
        Policy::Auto(auto::Settings { budget, ..auto::Settings::default() })
    }));
    policies
}

fn print_tables(args: &Args, setup: &str, verdict: &Verdict) {
    let Verdict { requests, apps, span_secs, .. } = verdict;
    eprintln!(
        "\n## {}, start {setup}, multiplexing {}, {requests} requests that count, {apps} apps, {:.1} days",
        args.label,
        args.multiplexing,
        span_secs / 86_400.0
    );
    eprintln!(
        "{:<32} {:>8} {:>5} {:>5} {:>5} {:>5} {:>5} {:>6} {:>5} {:>5} {:>6} {:>6} {:>5} {:>7} {:>7} \
         {:>6} {:>6} {:>8} {:>5} {:>7}",
        "policy",
        "starts",
        "cold%",
        "a p50",
        "a p75",
        "a p90",
        "a avg",
        "wait",
        "p50",
        "p90",
        "p95",
        "p99",
        "slo%",
        "busy h",
        "start h",
        "idle h",
        "unus h",
        "overhead",
        "/min",
        "after h"
    );
    verdict.rows.iter().for_each(print_row);
    for contest in &verdict.contests {
        eprintln!(
            "{:?} dominates {} of {} {:?} on ({})",
            contest.winner,
            contest.beaten.len(),
            contest.losers,
            contest.loser,
            contest.metrics
        );
        for beaten in &contest.beaten {
            eprintln!("    {} by {}: -{:.1} %", beaten.policy, beaten.by, beaten.saves_percent);
        }
    }
    eprintln!("auto against its neighbours: found [5 %, 95 %] over samples of apps");
    verdict.pairs.iter().for_each(print_pair);
}

fn print_row(row: &Row) {
    let m = &row.metrics;
    let some = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
    let hours = |secs: f64| secs / 3_600.0;
    eprintln!(
        "{:<32} {:>8.0} {:>5.1} {:>5.3} {:>5.3} {:>5.3} {:>5.3} {:>6.3} {:>5} {:>5} {:>6} {:>6} {:>5} \
         {:>7.1} {:>7.1} {:>6.0} {:>6.1} {:>8.3} {:>5} {:>7}",
        row.policy,
        m.starts,
        m.cold_percent,
        m.app_cold_p50,
        m.app_cold_p75,
        m.app_cold_p90,
        m.app_cold_mean,
        m.wait_mean_secs,
        some(m.wait_p50_secs),
        some(m.wait_p90_secs),
        some(m.wait_p95_secs),
        some(m.wait_p99_secs),
        some(m.over_slo_percent),
        hours(m.busy_secs),
        hours(m.startup_secs),
        hours(m.idle_secs),
        hours(m.never_used_secs),
        m.overhead,
        m.starts_per_minute_peak.map_or("-".to_owned(), |peak| format!("{peak:.0}")),
        some(m.after_secs.map(hours)),
    );
}

fn print_pair(pair: &Pair) {
    let percent = |i: &Interval| format!("{:+.1} [{:+.1}, {:+.1}] %", i.found, i.low, i.high);
    let rate = |i: &Interval| format!("{:+.3} [{:+.3}, {:+.3}]", i.found, i.low, i.high);
    let side = match pair.side {
        Side::NoLowerCost => "costs no less",
        Side::NoShorterWait => "waits no less",
    };
    eprintln!(
        "{:<24} | {:<28} {side} | wait {:<26} | cost {:<26} | p75 {:<26} | app mean {}",
        pair.auto,
        pair.other,
        percent(&pair.wait_percent),
        percent(&pair.overhead_percent),
        rate(&pair.app_cold_p75),
        rate(&pair.app_cold_mean),
    );
}
