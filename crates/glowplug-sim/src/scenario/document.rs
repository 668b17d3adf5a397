//! A scenario file as tables that know their lines, and what is wrong with them.

use std::fmt;
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use crate::excerpt::excerpt;

/// Problems shown at once; beyond them only the number is told.
pub const PROBLEMS_SHOWN_MAX: usize = 20;

/// One thing that is wrong with a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("cannot read the scenario {path}")]
    Read {
        path: PathBuf,
        #[source]
        problem: std::io::Error,
    },
    #[error("the scenario {path} has more than {bytes_max} bytes")]
    TooLarge { path: PathBuf, bytes_max: u64 },
    /// Never empty.
    #[error("{}", listed(.name, .problems))]
    Invalid { name: String, problems: Vec<Problem> },
}

fn listed(name: &str, problems: &[Problem]) -> String {
    let mut lines: Vec<String> = problems
        .iter()
        .take(PROBLEMS_SHOWN_MAX)
        .map(|problem| format!("{name}:{problem}"))
        .collect();
    if problems.len() > PROBLEMS_SHOWN_MAX {
        lines.push(format!("and {} more problems", problems.len() - PROBLEMS_SHOWN_MAX));
    }
    lines.join("\n")
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// What stands after a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    Text(String),
    Number(f64),
    Bool(bool),
    Moment(String),
    List(Vec<Raw>),
    Table(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) value: Raw,
}

impl Raw {
    /// What stands there, for a message that says what was expected instead.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Text(text) => format!("the text \"{}\"", excerpt(text)),
            // Beyond, a number is a row of digits that nobody counts.
            Self::Number(number) if number.abs() >= 1e15 => format!("the number {number:e}"),
            Self::Number(number) => format!("the number {number}"),
            Self::Bool(value) => format!("the boolean {value}"),
            Self::Moment(moment) => format!("the date {moment}"),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
        }
    }
}

/// Reads TOML. The only problem it can have is one of syntax.
pub(super) fn parse(text: &str) -> Result<Table, Problem> {
    let table = DeTable::parse(text).map_err(|error| Problem {
        line: error.span().map_or(1, |span| line_at(text, span.start)),
        message: format!("this is not valid TOML: {}", error.message()),
        help: None,
    })?;
    Ok(Table::new(String::new(), 1, entries(text, table.get_ref())))
}

fn entries(text: &str, table: &DeTable<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            line: line_at(text, key.span().start),
            value: raw(text, value.get_ref()),
        })
        .collect();
    // In the order of the file, so that apps are numbered and problems are told in that order too.
    entries.sort_by_key(|entry| entry.line);
    entries
}

fn raw(text: &str, value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(value) => Raw::Text(value.to_string()),
        DeValue::Integer(number) => Raw::Number(integer(number.as_str(), number.radix())),
        DeValue::Float(number) => Raw::Number(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Datetime(moment) => Raw::Moment(moment.to_string()),
        DeValue::Array(items) => {
            Raw::List(items.iter().map(|item| raw(text, item.get_ref())).collect())
        }
        DeValue::Table(table) => Raw::Table(entries(text, table)),
    }
}

/// Whole numbers of any length: one with 300 digits is told as what it is when it is refused.
#[expect(clippy::cast_precision_loss, reason = "numbers this large are refused anyway")]
fn integer(digits: &str, radix: u32) -> f64 {
    match i128::from_str_radix(digits, radix) {
        Ok(number) => number as f64,
        Err(_) if radix == 10 => digits.parse().unwrap_or(f64::NAN),
        Err(_) => f64::INFINITY,
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// A table that is emptied key by key. What is left when all that has a meaning was taken has none.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// As it stands in brackets: `apps.paint`. Empty: the file itself.
    pub(super) path: String,
    pub(super) line: usize,
    entries: Vec<Entry>,
    /// Every key that was asked for, there or not.
    known: Vec<&'static str>,
}

impl Table {
    pub(super) fn new(path: String, line: usize, entries: Vec<Entry>) -> Self {
        Self { path, line, entries, known: Vec::new() }
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<Entry> {
        self.known.push(key);
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(at))
    }

    /// Where a key stands, or else the table.
    pub(super) fn line_of(&self, key: &str) -> usize {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.map_or(self.line, |entry| entry.line)
    }

    /// Everything, where keys are names.
    pub(super) fn take_all(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// How the path of a table within it begins.
    pub(super) fn inner(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// " in [apps.paint]", or nothing for the file itself.
    pub(super) fn place(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!(" in [{}]", self.path) }
    }

    /// Finds fault with what nobody asked for.
    pub(super) fn finish(self, problems: &mut Vec<Problem>) {
        for entry in &self.entries {
            problems.push(Problem {
                line: entry.line,
                message: format!("unknown key `{}`{}", entry.key, self.place()),
                help: Some(suggest(&entry.key, &self.known)),
            });
        }
    }
}

/// "did you mean …", or else what there is to choose from.
pub(super) fn suggest(wrong: &str, candidates: &[&str]) -> String {
    // A third of the letters may differ: `keep_alve` is `keep_alive`, `cat` is not `cpu`.
    let distance_max = (wrong.chars().count() / 3).max(1);
    let nearest = candidates
        .iter()
        .map(|candidate| (strsim::osa_distance(wrong, candidate), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("there are: {}", candidates.join(", ")),
    }
}
