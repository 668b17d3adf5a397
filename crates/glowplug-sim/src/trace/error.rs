//! What is wrong with a trace, and where.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::time::Pretty;

use super::limits;
use super::options::Format;
use crate::excerpt::excerpt;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open `{path}`")]
    Open { path: PathBuf, source: io::Error },
    /// Lines are counted from 1, after decompression.
    #[error("cannot read {}", Progress(*line))]
    Read { line: u64, source: io::Error },
    #[error("cannot write line {line}")]
    Write { line: u64, source: io::Error },
    #[error("{}", cut(*line))]
    Cut { line: u64 },
    #[error("the file is empty")]
    Empty,
    #[error(
        "durations belong beside a file of counts per minute, and this one is {}: leave out \
         `--durations`",
        format.label()
    )]
    Durations { format: Format },
    #[error("line {line}: {fault}")]
    Line { line: u64, fault: Fault },
}

/// What is wrong with one line.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("it is longer than {} bytes", limits::LINE_BYTES_MAX)]
    TooLong,
    #[error("this is not a trace: it has no header such as {{\"glowplug_trace\":1}}")]
    NoHeader,
    #[error("the header cannot be read: {0}")]
    Header(serde_json::Error),
    #[error(
        "the trace has version {found} and this program reads up to {}: update it",
        super::header::VERSION
    )]
    Newer { found: u32 },
    #[error("no record begins with `{0}`: the records are `a`, `r`, `s` and `e`")]
    Record(char),
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    #[error("the field `{field}` is `{found}`, {expected}")]
    Field { field: &'static str, found: String, expected: &'static str },
    #[error("`{0}` is no cause of a start")]
    Cause(String),
    #[error("there is more behind the last field")]
    Surplus,
    #[error("the app cannot be read: {0}")]
    App(String),
    #[error("the app `{0}` is declared twice")]
    Twice(String),
    #[error("app {app} is not declared: {declared} are, counted from 0")]
    Undeclared { app: u32, declared: usize },
    #[error("there are more than {} apps", limits::APPS_MAX)]
    Apps,
    #[error(
        "the {what} at {} comes after one at {}: the {what}s must be in order of time",
        Moment(*at),
        Moment(*last)
    )]
    Backwards { what: &'static str, at: Timestamp, last: Timestamp },
    #[error(
        "a second part begins here and cannot be joined to the first: both headers must have \
         `began_micros`, and not an earlier one"
    )]
    Joint,
    #[error("cannot tell what this file is: say it with `--format`")]
    UnknownFormat,
    #[error("it is compressed with gzip: unpack it, or pack it with zstd instead")]
    Gzip,
    #[error("it is not UTF-8 text")]
    NotText,
    #[error("it is no JSON object: {0}")]
    Json(serde_json::Error),
    #[error("{}", columns(what, wanted.as_ref(), there))]
    Column { what: &'static str, wanted: Option<String>, there: String },
    #[error("it has {found} columns, and the first line has {expected}")]
    Columns { expected: u64, found: u64 },
    #[error("`{name}` is `{}`, {expected}", excerpt(found))]
    Value { name: String, found: String, expected: &'static str },
    #[error(
        "it came {} before one that went ahead of it, and the reorder window is {}: sort the file \
         by time, or raise `--reorder`",
        Pretty(*earlier),
        Pretty(*window)
    )]
    Unsorted { earlier: Duration, window: Duration },
    #[error(
        "`{0}` says nowhere in a path which app is asked for: it must begin with `/` and have a \
         segment `{{app}}`"
    )]
    AppPath(String),
    #[error("this is no line of an access log: {0}")]
    Log(&'static str),
    #[error("{0}")]
    Minutes(String),
    #[error("{field} of {} is more than {}", Pretty(*found), Pretty(limits::TIME_MAX))]
    TooLate { field: &'static str, found: Duration },
}

fn cut(line: u64) -> String {
    if line == 0 {
        return "the trace ends in the middle of its first line: copy or export it again"
            .to_owned();
    }
    format!(
        "the trace ends in the middle, after line {line}: copy or export it again, \
         or go on with the lines before"
    )
}

fn columns(what: &str, wanted: Option<&String>, there: &str) -> String {
    let missing = match wanted {
        Some(name) => format!("there is no `{name}` to take the {what} from"),
        None => format!("nothing here is known to be the {what}"),
    };
    let next = match what {
        "app" => ": say which with `--app-column`, or make everything one app with `--one-app`",
        "time" => ": say which with `--time-column`",
        "service" => ": say which with `--service-column`",
        _ => "",
    };
    format!("{missing}{next}; there are {there}")
}

/// Where reading broke off, after so many lines.
struct Progress(u64);

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("its beginning"),
            line => write!(f, "on after line {line}"),
        }
    }
}

/// Since the beginning of the trace, to the microsecond.
struct Moment(Timestamp);

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Error {
    /// What a stream says when it cannot be read on after a line. Compressed ones know when they end early.
    pub(super) fn reading(line: u64, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::UnexpectedEof => Self::Cut { line },
            _ => Self::Read { line, source },
        }
    }
}

impl Fault {
    pub(super) fn at(self, line: u64) -> Error {
        Error::Line { line, fault: self }
    }

    /// A field that is not what it must be. What is shown of it is short.
    pub(super) fn field(field: &'static str, found: &[u8], expected: &'static str) -> Self {
        Self::Field {
            field,
            found: excerpt(&String::from_utf8_lossy(found)).into_owned(),
            expected,
        }
    }
}
