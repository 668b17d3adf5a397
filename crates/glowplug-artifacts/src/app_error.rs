//! Why a Python app cannot be described or prepared, in words for its author.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::environment::EnvironmentError;

/// Why an app cannot be described, as found by running its module.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AppProblem {
    pub kind: ProblemKind,
    pub message: String,
    /// The nearest fix; may be empty.
    pub hint: String,
    /// The part that is the user's.
    #[serde(default)]
    pub traceback: String,
    /// Apps that the file does define.
    #[serde(default)]
    pub available: Vec<String>,
    /// Declared in the source, for reading it again beside them.
    #[serde(default)]
    pub(crate) requirements: Vec<String>,
    /// The Python version that the app asks for.
    #[serde(default)]
    pub(crate) wanted: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    FileNotFound,
    FileUnreadable,
    SyntaxError,
    ImportError,
    /// The module raised while it was imported.
    AppFailed,
    ClassNotFound,
    ClassNotNamed,
    UnsupportedEnvironment,
    PythonVersion,
    BadSetting,
    AppFiles,
    NotPicklable,
    NotServed,
    Internal,
}

impl std::fmt::Display for AppProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        if !self.traceback.is_empty() {
            write!(f, "\n{}", self.traceback)?;
        }
        if self.hint.is_empty() {
            return Ok(());
        }
        let separator = if self.traceback.is_empty() { "; " } else { "\n" };
        write!(f, "{separator}{}", self.hint)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("{0}")]
    App(Box<AppProblem>),
    #[error("cannot prepare the environment in which apps are read: {0}")]
    BuildEnvironment(#[source] EnvironmentError),
    #[error("cannot prepare the environment of {app}: {source}")]
    Environment { app: String, source: EnvironmentError },
    #[error("reading {file} failed: {problem}")]
    Inspect { file: PathBuf, problem: String },
    #[error("the prepared files of {app} are gone from {folder}; deploy it again")]
    FolderGone { app: String, folder: PathBuf },
    #[error("cannot {operation} {path}: {source}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

impl AppError {
    /// What the app's author did wrong, if that is it.
    pub fn problem(&self) -> Option<&AppProblem> {
        match self {
            Self::App(problem) => Some(problem),
            _ => None,
        }
    }
}

pub(crate) fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AppError {
    let path = path.to_owned();
    move |source| AppError::Io { operation, path, source }
}

/// A missing file is told at once, before any environment is built for reading it.
pub(crate) fn no_such_file(file: &Path) -> AppProblem {
    const NEAR_ENOUGH: f64 = 0.7;
    let folder = file.parent().unwrap_or(Path::new("."));
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let near = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "py"))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|found| (strsim::jaro_winkler(&found, &name), found))
        .filter(|(likeness, _)| *likeness > NEAR_ENOUGH)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let (message, hint) = if file.is_dir() {
        (format!("{} is a folder", file.display()), "name the Python file in it".to_owned())
    } else {
        let hint = near.map_or_else(
            || "give the path of the Python file, as in app.py::MyApp".to_owned(),
            |(_, near)| format!("did you mean {}?", folder.join(near).display()),
        );
        (format!("there is no file {}", file.display()), hint)
    };
    AppProblem {
        kind: ProblemKind::FileNotFound,
        message,
        hint,
        traceback: String::new(),
        available: Vec::new(),
        requirements: Vec::new(),
        wanted: String::new(),
    }
}
