//! How a trace is to be read, as flags: for `plan` and whatever else takes traffic from a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::PossibleValue;
use glowplug_node::config::parse_duration;
use glowplug_sim::trace::{self, Format, Names, NoService, Stamp, TokenTimes, Trace, Unit};

use crate::failure::Failure;

const HEADING: &str = "Reading other formats";

#[derive(Debug, clap::Args)]
pub(crate) struct ReadingFlags {
    /// What the file is
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_parser = formats())]
    #[arg(help_heading = HEADING)]
    format: String,
    /// The column or field that says when a request came
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    time_column: Option<String>,
    /// The column or field that names the app
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    app_column: Option<String>,
    /// The column or field that says how long the app worked on a request
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    service_column: Option<String>,
    /// What the service column counts [default: by the ending of its name, else seconds]
    #[arg(long, value_name = "UNIT", value_parser = ["s", "ms", "us", "ns"], help_heading = HEADING)]
    service_unit: Option<String>,
    /// What a time column of plain numbers counts [default: by their size]
    #[arg(long, value_name = "UNIT", value_parser = ["s", "ms", "us", "ns"], help_heading = HEADING)]
    time_unit: Option<String>,
    /// Which end of a request its time is of [default: start in tables, end in logs]
    #[arg(long, value_name = "END", value_parser = ["start", "end"], help_heading = HEADING)]
    stamped: Option<String>,
    /// Keep requests whose service time is empty or 0, as of unknown length
    #[arg(long, help_heading = HEADING)]
    keep_unserved: bool,
    /// Everything is one app of this name
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    one_app: Option<String>,
    /// Where a logged path names the app, such as `/api/{app}/*`
    #[arg(long, value_name = "PATTERN", help_heading = HEADING)]
    app_path: Option<String>,
    /// How far out of order requests may stand [default: 0 in tables, 1h in logs]
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = HEADING)]
    reorder: Option<Duration>,
    /// Durations of the functions, beside a file of counts per minute
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    durations: Option<PathBuf>,
    /// Time a language model takes to read a token [default: 200us]
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = HEADING)]
    token_prefill: Option<Duration>,
    /// Time a language model takes to write a token [default: 20ms]
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = HEADING)]
    token_decode: Option<Duration>,
}

fn formats() -> Vec<PossibleValue> {
    Format::ALL.iter().map(|format| PossibleValue::new(format.label())).collect()
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .ok_or_else(|| "write a number of seconds, or text such as 30s or 5m".to_owned())
}

impl ReadingFlags {
    /// Opens the trace. `seed`: for what the file leaves to chance.
    pub(crate) fn open(&self, path: &Path, seed: u64) -> Result<Trace, Failure> {
        trace::open(path, &self.options(seed)).map_err(|error| {
            Failure::User(anyhow::Error::new(error).context(format!("`{}`", path.display())))
        })
    }

    fn options(&self, seed: u64) -> trace::Options {
        let tokens = TokenTimes::default();
        trace::Options {
            format: Format::ALL
                .into_iter()
                .find(|format| format.label() == self.format)
                .unwrap_or_default(),
            names: Names {
                time: self.time_column.clone(),
                app: self.app_column.clone(),
                service: self.service_column.clone(),
                ..Names::default()
            },
            time_unit: self.time_unit.as_deref().map(unit),
            service_unit: self.service_unit.as_deref().map(unit),
            stamp: self.stamped.as_deref().map(|stamped| match stamped {
                "end" => Stamp::End,
                _ => Stamp::Start,
            }),
            no_service: if self.keep_unserved { NoService::Keep } else { NoService::Drop },
            one_app: self.one_app.clone(),
            app_path: self.app_path.clone(),
            reorder: self.reorder,
            seed,
            durations: self.durations.clone(),
            tokens: TokenTimes {
                prefill: self.token_prefill.unwrap_or(tokens.prefill),
                decode: self.token_decode.unwrap_or(tokens.decode),
            },
        }
    }
}

/// By its name on the command line.
fn unit(name: &str) -> Unit {
    match name {
        "ms" => Unit::Millis,
        "us" => Unit::Micros,
        "ns" => Unit::Nanos,
        _ => Unit::Seconds,
    }
}
