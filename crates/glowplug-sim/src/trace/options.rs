//! What a user says about a file that is not ours.

use std::path::PathBuf;
use std::time::Duration;

/// What a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Told by its first bytes.
    #[default]
    Auto,
    /// Our own.
    Glowplug,
    /// One request a row, with named columns.
    Csv,
    /// Functions with their invocations per minute of a day, as in Azure Functions 2019.
    AzureMinutes,
    /// `TIMESTAMP,ContextTokens,GeneratedTokens`.
    AzureLlm,
    /// JSON lines with `timestamp`, `input_length` and `output_length`.
    Mooncake,
    /// The common or combined log format.
    AccessLog,
    /// One JSON object a line.
    JsonLog,
}

impl Format {
    pub const ALL: [Self; 8] = [
        Self::Auto,
        Self::Glowplug,
        Self::Csv,
        Self::AzureMinutes,
        Self::AzureLlm,
        Self::Mooncake,
        Self::AccessLog,
        Self::JsonLog,
    ];

    /// As it is called on the command line.
    pub fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Glowplug => "glowplug",
            Self::Csv => "csv",
            Self::AzureMinutes => "azure-minutes",
            Self::AzureLlm => "azure-llm",
            Self::Mooncake => "mooncake",
            Self::AccessLog => "access-log",
            Self::JsonLog => "json-log",
        }
    }
}

/// How a file is to be read. Nothing of it concerns our own format.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub format: Format,
    /// Which columns of a CSV, or fields of a JSON log, say what.
    pub names: Names,
    /// What times that are numbers count. `None`: told by their size, see [`Unit::of_unix`].
    pub time_unit: Option<Unit>,
    /// `None`: told by the ending of the column's name (`_ms`, `_us`, `_ns`), seconds without one.
    pub service_unit: Option<Unit>,
    /// Which end of a request its time is of. `None`: the start in a CSV, the end in a log unless its field
    /// is called otherwise.
    pub stamp: Option<Stamp>,
    pub no_service: NoService,
    /// Everything is one app of this name.
    pub one_app: Option<String>,
    /// Where the app stands in a path, such as `/api/{app}/*` or `/v1/{owner}/{app}`. `None`: as in the
    /// gateway's paths, or else `/{owner}/{app}`.
    pub app_path: Option<String>,
    /// How much later than a request another one may stand that came earlier. `None`: not at all in a CSV,
    /// an hour in logs, which are written when requests end.
    pub reorder: Option<Duration>,
    /// For what counts per minute leave open.
    pub seed: u64,
    /// Durations of the functions whose invocations are read, of [`Format::AzureMinutes`] alone.
    pub durations: Option<PathBuf>,
    pub tokens: TokenTimes,
}

/// Names of columns or fields; `None`: the usual ones are tried. A field inside another is `outer.inner`.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub time: Option<String>,
    pub app: Option<String>,
    pub service: Option<String>,
    pub status: Option<String>,
    pub path: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    pub(crate) fn per_second(self) -> f64 {
        match self {
            Self::Seconds => 1.0,
            Self::Millis => 1e3,
            Self::Micros => 1e6,
            Self::Nanos => 1e9,
        }
    }

    /// What a time since 1970 counts, when it is after 1973 and before 5138.
    pub fn of_unix(number: f64) -> Self {
        match number {
            ..1e11 => Self::Seconds,
            ..1e14 => Self::Millis,
            ..1e17 => Self::Micros,
            _ => Self::Nanos,
        }
    }

    /// By the ending of a name; `None`: it says nothing.
    pub fn of_name(name: &str) -> Option<Self> {
        const ENDINGS: &[(&str, Unit)] = &[
            ("_ms", Unit::Millis),
            ("Ms", Unit::Millis),
            ("millis", Unit::Millis),
            ("milliseconds", Unit::Millis),
            ("_us", Unit::Micros),
            ("micros", Unit::Micros),
            ("microseconds", Unit::Micros),
            ("_ns", Unit::Nanos),
            ("nanos", Unit::Nanos),
            ("nanoseconds", Unit::Nanos),
            ("_s", Unit::Seconds),
            ("_secs", Unit::Seconds),
            ("_seconds", Unit::Seconds),
        ];
        ENDINGS.iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, unit)| *unit)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    Start,
    End,
}

/// What becomes of a row whose service time is there and empty or zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoService {
    /// It is left out, and counted.
    #[default]
    Drop,
    /// Its service time is not known.
    Keep,
}

/// How long a language model works on a request: `prefill × tokens in + decode × tokens out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenTimes {
    pub prefill: Duration,
    pub decode: Duration,
}

impl Default for TokenTimes {
    /// 5,000 tokens/s read and 50 tokens/s written: a model of some tens of billions of parameters on one
    /// accelerator of 2023.
    fn default() -> Self {
        Self { prefill: Duration::from_micros(200), decode: Duration::from_millis(20) }
    }
}
