//! What is wrong with a config, said so that it can be put right: where, what, and the nearest fix.

use std::fmt;
use std::path::PathBuf;

/// Problems shown at once; beyond them only the number is told.
pub const PROBLEMS_SHOWN_MAX: usize = 20;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of the config file, counted from 1.
    File {
        path: PathBuf,
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// An argument of the command line: a flag such as `--listen`, or the name of another.
    Flag(String),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(name) if name.starts_with("--") => write!(f, "flag {name}"),
            Self::Flag(name) => write!(f, "argument {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub origin: Origin,
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => f.write_str(&self.message)?,
            origin => write!(f, "{origin}: {}", self.message)?,
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// Why there is no config.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the config file {path}: {problem}{}", nearest_note(.nearest.as_deref()))]
    Read { path: PathBuf, nearest: Option<String>, problem: std::io::Error },
    #[error("the config file {path} has {bytes} bytes; at most {bytes_max} are read")]
    TooLarge { path: PathBuf, bytes: u64, bytes_max: u64 },
    #[error("the config file {path} is not UTF-8 text")]
    NotText { path: PathBuf },
    /// Never empty.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
}

fn nearest_note(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("\n  help: did you mean `{name}`?")).unwrap_or_default()
}

fn list(problems: &[Problem]) -> String {
    let mut lines: Vec<String> =
        problems.iter().take(PROBLEMS_SHOWN_MAX).map(Problem::to_string).collect();
    if problems.len() > PROBLEMS_SHOWN_MAX {
        lines.push(format!("and {} more problems", problems.len() - PROBLEMS_SHOWN_MAX));
    }
    lines.join("\n")
}

/// The candidate that `wrong` was most likely meant to be; `None` when none is similar.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let wrong = plain(wrong);
    // A third of the letters may differ: `keep_alve` is `keep_alive`, `cat` is not `cpu`.
    let distance_max = (wrong.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&wrong, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "did you mean …", or else what there is to choose from.
pub(super) fn suggest(wrong: &str, candidates: &[&str], what: &str) -> String {
    match nearest(wrong, candidates.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("{what}: {}", candidates.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["keep_alive", "min_concurrency", "max_concurrency", "cpu"];
        let check = |wrong, expected| assert_eq!(nearest(wrong, names), expected, "{wrong}");
        check("keep_alve", Some("keep_alive"));
        check("keep-alive", Some("keep_alive"));
        check("KeepAlive", Some("keep_alive"));
        check("min_concurency", Some("min_concurrency"));
        check("cup", Some("cpu"));
        check("cat", None);
        check("", None);
        check("colour", None);
    }
}
