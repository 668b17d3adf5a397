//! Finds the programs that environments are made with: uv, and Python interpreters.
//!
//! uv comes from PATH, or is installed once below the data directory. Interpreters are looked for on
//! PATH, among pyenv's and among uv's own; only when there is none of the wanted version is one fetched.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, OnceCell};

use crate::command::{Tool, ToolRunError};
use crate::progress::{ProgressSender, Stage};

/// Installed when PATH has no uv.
const UV_VERSION: &str = "0.13.9";
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);
const INSTALL_TIMEOUT: Duration = Duration::from_mins(10);
/// Interpreters probed for one version.
const CANDIDATES_MAX: usize = 32;
/// Minor versions of Python 3 that fal supports, the most usual first.
const MINORS: [u32; 5] = [11, 12, 13, 10, 14];

/// A Python interpreter that was found and answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// The real file, behind every link and shim.
    pub path: PathBuf,
    /// Such as `3.11.7`.
    pub version: String,
}

impl Interpreter {
    /// `3.11` of `3.11.7`.
    pub fn minor(&self) -> &str {
        let mut dots = self.version.match_indices('.');
        dots.nth(1).map_or(&self.version, |(at, _)| &self.version[..at])
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error(
        "uv is not on PATH and could not be installed: {problem}; install uv, or the Debian packages \
         python3-venv and python3-pip"
    )]
    UvMissing { problem: String },
    #[error(
        "there is no Python {wanted} on PATH, in pyenv or in uv, and it could not be fetched: {problem}; \
         install Python {wanted}"
    )]
    PythonMissing { wanted: String, problem: String },
    #[error(transparent)]
    Run(#[from] ToolRunError),
}

/// Remembers what it has found for the life of the process.
#[derive(Debug)]
pub(crate) struct Toolchain {
    tools_dir: PathBuf,
    uv: OnceCell<PathBuf>,
    default_python: OnceCell<Interpreter>,
    /// By minor version.
    pythons: Mutex<BTreeMap<String, Interpreter>>,
}

impl Toolchain {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            tools_dir: data_dir.join("tools"),
            uv: OnceCell::new(),
            default_python: OnceCell::new(),
            pythons: Mutex::default(),
        }
    }

    pub(crate) async fn uv(&self, progress: &ProgressSender) -> Result<PathBuf, ToolError> {
        self.uv.get_or_try_init(|| self.find_uv(progress)).await.cloned()
    }

    async fn find_uv(&self, progress: &ProgressSender) -> Result<PathBuf, ToolError> {
        let own = self.tools_dir.join(format!("uv-{UV_VERSION}"));
        for candidate in on_path("uv").into_iter().chain([own.join("bin/uv")]) {
            if works(Tool::new(&candidate, PROBE_TIMEOUT).arg("--version")).await {
                return Ok(candidate);
            }
        }
        progress.stage(Stage::Tools, format!("uv {UV_VERSION}"));
        self.install_uv(&own).await
    }

    /// Installs uv with pip: in a virtual environment of its own, or, where Python lacks that (Debian
    /// without python3-venv), into a plain folder.
    async fn install_uv(&self, own: &Path) -> Result<PathBuf, ToolError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let missing = |problem: String| ToolError::UvMissing { problem };
        let python =
            on_path("python3").ok_or_else(|| missing("there is no python3 on PATH".into()))?;
        fs::create_dir_all(&self.tools_dir)
            .map_err(|e| missing(format!("cannot create {}: {e}", self.tools_dir.display())))?;
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let staging = self.tools_dir.join(format!(".uv-{}-{count}", std::process::id()));
        // A leftover of a killed process with our number, if anything.
        let _ = fs::remove_dir_all(&staging);
        let package = format!("uv=={UV_VERSION}");
        let venv = Tool::new(&python, INSTALL_TIMEOUT).args(["-m", "venv"]).arg(&staging);
        let in_venv = venv.run().await.is_ok_and(|done| done.status.success());
        let install = if in_venv {
            Tool::new(staging.join("bin/python"), INSTALL_TIMEOUT)
                .args(["-m", "pip", "install", "--quiet"])
                .arg(&package)
        } else {
            let _ = fs::remove_dir_all(&staging);
            Tool::new(&python, INSTALL_TIMEOUT)
                .args(["-m", "pip", "install", "--quiet", "--target"])
                .arg(&staging)
                .arg(&package)
        };
        let done = install.run().await?;
        if !done.status.success() {
            let _ = fs::remove_dir_all(&staging);
            return Err(missing(last_lines(&done.stderr)));
        }
        // Losing this race means that another process has just installed the same.
        if fs::rename(&staging, own).is_err() {
            let _ = fs::remove_dir_all(&staging);
        }
        let uv = own.join("bin/uv");
        if works(Tool::new(&uv, PROBE_TIMEOUT).arg("--version")).await {
            Ok(uv)
        } else {
            Err(missing(format!("{} does not run on this machine", uv.display())))
        }
    }

    /// An interpreter of this minor version, such as `3.11`.
    pub(crate) async fn python(
        &self,
        minor: &str,
        progress: &ProgressSender,
    ) -> Result<Interpreter, ToolError> {
        let mut pythons = self.pythons.lock().await;
        if let Some(known) = pythons.get(minor).filter(|known| known.path.is_file()) {
            return Ok(known.clone());
        }
        let found = match find_python(minor).await {
            Some(found) => found,
            None => self.fetch_python(minor, progress).await?,
        };
        pythons.insert(minor.to_owned(), found.clone());
        Ok(found)
    }

    async fn fetch_python(
        &self,
        minor: &str,
        progress: &ProgressSender,
    ) -> Result<Interpreter, ToolError> {
        progress.stage(Stage::Tools, format!("Python {minor}"));
        let uv = self.uv(progress).await?;
        let done = Tool::new(uv, INSTALL_TIMEOUT).args(["python", "install", minor]).run().await?;
        if let Some(found) = find_python(minor).await {
            return Ok(found);
        }
        let problem = last_lines(&done.stderr);
        Err(ToolError::PythonMissing { wanted: minor.to_owned(), problem })
    }

    /// The interpreter for apps that name none: `python3` of PATH where it is recent enough.
    pub(crate) async fn default_python(
        &self,
        progress: &ProgressSender,
    ) -> Result<Interpreter, ToolError> {
        self.default_python.get_or_try_init(|| self.find_default_python(progress)).await.cloned()
    }

    async fn find_default_python(
        &self,
        progress: &ProgressSender,
    ) -> Result<Interpreter, ToolError> {
        if let Some(path) = on_path("python3")
            && let Some(found) = probe(&path).await
            && MINORS.iter().any(|minor| found.minor() == format!("3.{minor}"))
        {
            return Ok(found);
        }
        for minor in MINORS {
            if let Some(found) = find_python(&format!("3.{minor}")).await {
                return Ok(found);
            }
        }
        self.python(&format!("3.{}", MINORS[0]), progress).await
    }
}

async fn find_python(minor: &str) -> Option<Interpreter> {
    for candidate in candidates(minor).into_iter().take(CANDIDATES_MAX) {
        if let Some(found) = probe(&candidate).await
            && found.minor() == minor
        {
            return Some(found);
        }
    }
    None
}

/// Where an interpreter of this version may be, in the order of preference.
fn candidates(minor: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    found.extend(on_path("python3"));
    found.extend(on_path(&format!("python{minor}")));
    let home = env::var_os("HOME").map(PathBuf::from);
    let below_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
    let pyenv = env::var_os("PYENV_ROOT").map(PathBuf::from).or_else(|| below_home(".pyenv"));
    found.extend(versions_in(pyenv.map(|root| root.join("versions")), minor));
    let managed = env::var_os("UV_PYTHON_INSTALL_DIR")
        .map(PathBuf::from)
        .or_else(|| env::var_os("XDG_DATA_HOME").map(|data| PathBuf::from(data).join("uv/python")))
        .or_else(|| below_home(".local/share/uv/python"));
    found.extend(versions_in(managed, &format!("cpython-{minor}")));
    for folder in ["/usr/bin", "/usr/local/bin"] {
        found.push(Path::new(folder).join(format!("python{minor}")));
    }
    found
}

/// Interpreters in the subfolders of `folder` that are named after a version, newest first.
fn versions_in(folder: Option<PathBuf>, prefix: &str) -> Vec<PathBuf> {
    let Some(entries) = folder.and_then(|folder| fs::read_dir(folder).ok()) else {
        return Vec::new();
    };
    let mut names: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(prefix));
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .map(|entry| entry.path().join("bin/python3"))
        .collect();
    names.sort_by_key(|path| std::cmp::Reverse(patch_version(path)));
    names
}

/// The last number of `…/3.11.7/bin/python3`, so that 3.11.10 comes after 3.11.9.
fn patch_version(path: &Path) -> u32 {
    let folder = path.ancestors().nth(2).and_then(|p| p.file_name()).unwrap_or_default();
    let digits = |part: &str| -> String { part.chars().take_while(char::is_ascii_digit).collect() };
    folder.to_str().and_then(|name| digits(name.split('.').nth(2)?).parse().ok()).unwrap_or(0)
}

async fn probe(path: &Path) -> Option<Interpreter> {
    const SCRIPT: &str = "import os, platform, sys; \
         print(os.path.realpath(getattr(sys, '_base_executable', sys.executable))); \
         print(platform.python_version())";
    let tool = Tool::new(path, PROBE_TIMEOUT).args(["-I", "-c", SCRIPT]);
    let done = tool.run().await.ok().filter(|done| done.status.success())?;
    match done.stdout.as_slice() {
        [path, version] => {
            Some(Interpreter { path: PathBuf::from(path), version: version.clone() })
        }
        _ => None,
    }
}

async fn works(tool: Tool) -> bool {
    tool.run().await.is_ok_and(|done| done.status.success())
}

pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// What a tool said last, as one sentence.
pub(crate) fn last_lines(lines: &[String]) -> String {
    const LINES_MAX: usize = 6;
    let from = lines.len().saturating_sub(LINES_MAX);
    let said: Vec<&str> =
        lines[from..].iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
    if said.is_empty() { "it gave no reason".to_owned() } else { said.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["3.11.9", "3.11.10", "3.1.2", "3.12.0", "3.11"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let found = versions_in(Some(folder.path().to_owned()), "3.11");
        let names: Vec<_> =
            found.iter().map(|p| p.strip_prefix(folder.path()).unwrap().to_owned()).collect();
        let expected = ["3.11.10/bin/python3", "3.11.9/bin/python3", "3.11/bin/python3"];
        assert_eq!(names, expected.map(PathBuf::from));
        assert!(versions_in(Some("/nowhere".into()), "3.11").is_empty());
    }

    #[test]
    fn minor_of_a_version() {
        let minor = |version: &str| {
            Interpreter { path: PathBuf::new(), version: version.into() }.minor().to_owned()
        };
        assert_eq!(minor("3.11.7"), "3.11");
        assert_eq!(minor("3.14.0rc1"), "3.14");
        assert_eq!(minor("3.11"), "3.11");
    }

    #[tokio::test]
    async fn the_default_python_is_a_real_file() {
        let data = tempfile::tempdir().unwrap();
        let found =
            Toolchain::new(data.path()).default_python(&ProgressSender::none()).await.unwrap();
        assert!(found.path.is_file());
        let again = Toolchain::new(data.path())
            .python(found.minor(), &ProgressSender::none())
            .await
            .unwrap();
        assert_eq!(again.minor(), found.minor());
    }
}
