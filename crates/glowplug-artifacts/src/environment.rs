//! Python environments, built with uv and cached by what they hold.
//!
//! An environment is a folder named after a hash of its Python version and requirements. It is built in
//! place (bytecode remembers where it was compiled) under a file lock, and counts only once its marker
//! file is written; a folder without marker is a leftover of a builder that died, and is built again. The
//! lock is also the standard input of every tool that builds, so it outlives a builder that is killed for
//! as long as anything still writes into the folder.
//!
//! What it does not do: update what is installed (unpinned requirements stay as they were first
//! resolved), or delete environments by itself.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::command::{Tool, ToolRunError};
use crate::lock;
use crate::progress::{Progress, ProgressSender, Stage, UvOutput};
use crate::source_tree::hash_field;
use crate::toolchain::{Interpreter, ToolError, Toolchain};

/// Changes when environments of an older build of ours must not be used any more.
const FORMAT: &str = "python-environment-1";
const MARKER: &str = ".glowplug-complete.json";
/// Its modification time tells when the environment was last asked for.
const LAST_USED: &str = ".glowplug-last-used";
const ID_HEX_DIGITS: usize = 32;

const VENV_TIMEOUT: Duration = Duration::from_mins(2);
/// Large wheels over slow lines take long; source builds longer.
const INSTALL_TIMEOUT: Duration = Duration::from_hours(2);
/// How long to wait for another builder of the same environment.
const LOCK_WAIT_MAX: Duration = Duration::from_hours(2);
/// Of uv's explanation why requirements do not fit together.
const PROBLEM_LINES_MAX: usize = 30;

/// What an environment is to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentSpec {
    /// Minor version, such as `3.11`.
    pub python: String,
    /// Requirements in the syntax of pip, installed layer by layer.
    pub layers: Vec<Vec<String>>,
    /// Packages that come from the user's own disk, with a fingerprint of their sources.
    #[serde(default)]
    pub local_projects: Vec<(String, String)>,
}

/// An environment that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    pub id: String,
    pub path: PathBuf,
    /// The environment's interpreter.
    pub python: PathBuf,
    /// Such as `3.11.7`.
    pub python_version: String,
    pub site_packages: PathBuf,
}

/// An environment as `list` finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentInfo {
    pub id: String,
    pub path: PathBuf,
    /// `None`: half-built.
    pub spec: Option<EnvironmentSpec>,
    /// Seconds since the Unix epoch.
    pub last_used_secs: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error("the requirements cannot be installed: {problem}")]
    Install { requirements: Vec<String>, problem: String },
    #[error("cannot create a virtual environment with {python}: {problem}")]
    Create { python: PathBuf, problem: String },
    #[error("another process has been building the environment {id} for more than {minutes} min")]
    Locked { id: String, minutes: u64 },
    #[error("there is no environment {id}")]
    Unknown { id: String },
    #[error("cannot {operation} {path}: {source}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

impl From<ToolRunError> for EnvironmentError {
    fn from(error: ToolRunError) -> Self {
        Self::Tool(error.into())
    }
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EnvironmentError {
    let path = path.to_owned();
    move |source| EnvironmentError::Io { operation, path, source }
}

/// What the marker file says.
#[derive(Serialize, Deserialize)]
struct Marker {
    spec: EnvironmentSpec,
    python_version: String,
}

/// The environments below one data directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Environments {
    root: PathBuf,
    toolchain: Arc<Toolchain>,
}

impl Environments {
    pub fn new(data_dir: &Path) -> Self {
        let toolchain = Arc::new(Toolchain::new(data_dir));
        Self { root: data_dir.join("environments"), toolchain }
    }

    /// The minor version of the Python that apps get which name none, such as `3.11`.
    pub async fn default_python(
        &self,
        progress: &ProgressSender,
    ) -> Result<String, EnvironmentError> {
        Ok(self.toolchain.default_python(progress).await?.minor().to_owned())
    }

    /// The environment that holds `spec`, built if need be. Called twice at once, by this or by another
    /// process, it builds once and both get the result.
    pub async fn ensure(
        &self,
        spec: &EnvironmentSpec,
        progress: &ProgressSender,
    ) -> Result<Environment, EnvironmentError> {
        progress.stage(Stage::Checking, "environment");
        let interpreter = self.toolchain.python(&spec.python, progress).await?;
        let id = environment_id(spec, &interpreter);
        if let Some(found) = self.complete(&id).await? {
            progress.stage(Stage::Done, "environment");
            return Ok(found);
        }
        fs::create_dir_all(&self.root).map_err(io_error("create", &self.root))?;
        let lock = self.lock(&id, progress).await?;
        let found = match self.complete(&id).await? {
            Some(found) => found,
            None => self.build(&id, spec, &interpreter, &lock, progress).await?,
        };
        progress.stage(Stage::Done, "environment");
        Ok(found)
    }

    /// All environments, half-built ones included, by id. Blocking.
    pub fn list(&self) -> Result<Vec<EnvironmentInfo>, EnvironmentError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("read", &self.root)(error)),
        };
        let mut found: Vec<EnvironmentInfo> = entries
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| {
                let id = entry.file_name().into_string().ok().filter(|id| is_id(id))?;
                let path = entry.path();
                let modified = fs::metadata(path.join(LAST_USED)).and_then(|m| m.modified());
                let since =
                    modified.ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
                let spec = read_marker(&path).map(|marker| marker.spec);
                Some(EnvironmentInfo { id, path, spec, last_used_secs: since.map(|d| d.as_secs()) })
            })
            .collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    /// Deletes an environment. Waits for its builder, if there is one; does not ask whether a runner uses it.
    pub async fn remove(&self, id: &str) -> Result<(), EnvironmentError> {
        let path = self.root.join(id);
        if !is_id(id) || !path.is_dir() {
            return Err(EnvironmentError::Unknown { id: id.to_owned() });
        }
        let _lock = self.lock(id, &ProgressSender::none()).await?;
        delete(&path).await
    }

    async fn complete(&self, id: &str) -> Result<Option<Environment>, EnvironmentError> {
        let (id, path) = (id.to_owned(), self.root.join(id));
        let look = move || {
            let marker = read_marker(&path)?;
            let python = path.join("bin/python");
            // An interpreter that was uninstalled leaves a dangling link behind.
            python.exists().then_some(())?;
            // Only a time for people to see: not worth failing a start.
            let _ = fs::write(path.join(LAST_USED), "");
            let site_packages =
                path.join(format!("lib/python{}/site-packages", marker.spec.python));
            let python_version = marker.python_version;
            Some(Environment { id, path, python, python_version, site_packages })
        };
        Ok(spawn_blocking(look).await.unwrap_or(None))
    }

    /// Takes the file lock of one environment, which holds among processes and within this one.
    async fn lock(&self, id: &str, progress: &ProgressSender) -> Result<File, EnvironmentError> {
        let path = self.root.join(format!("{id}.lock"));
        let on_wait = || progress.stage(Stage::Waiting, "another builder of this environment");
        let acquired = lock::acquire(&path, LOCK_WAIT_MAX, on_wait).await;
        acquired.map_err(io_error("lock", &path))?.ok_or_else(|| EnvironmentError::Locked {
            id: id.to_owned(),
            minutes: LOCK_WAIT_MAX.as_secs() / 60,
        })
    }

    async fn build(
        &self,
        id: &str,
        spec: &EnvironmentSpec,
        interpreter: &Interpreter,
        lock: &File,
        progress: &ProgressSender,
    ) -> Result<Environment, EnvironmentError> {
        let path = self.root.join(id);
        delete(&path).await?;
        let uv = self.toolchain.uv(progress).await?;
        tracing::info!(environment = id, python = %interpreter.version, "building an environment");
        let built = self.install(&uv, &path, spec, interpreter, lock, progress).await;
        if let Err(error) = built {
            delete(&path).await?;
            return Err(error);
        }
        let marker = Marker { spec: spec.clone(), python_version: interpreter.version.clone() };
        write_marker(&path, &marker).map_err(io_error("write the marker of", &path))?;
        self.complete(id).await?.ok_or_else(|| EnvironmentError::Create {
            python: interpreter.path.clone(),
            problem: "the finished environment has no interpreter".to_owned(),
        })
    }

    async fn install(
        &self,
        uv: &Path,
        path: &Path,
        spec: &EnvironmentSpec,
        interpreter: &Interpreter,
        lock: &File,
        progress: &ProgressSender,
    ) -> Result<(), EnvironmentError> {
        let held = || lock.try_clone().map_err(io_error("share the lock of", path));
        progress.stage(Stage::Resolving, "environment");
        // In the root folder, where no project of the user's can change what uv does.
        let tool = |timeout| Tool::new(uv, timeout).cwd("/");
        let venv = tool(VENV_TIMEOUT).args(["venv", "--python"]).arg(&interpreter.path);
        let done = venv.arg(path).holding(held()?).run().await?;
        if !done.status.success() {
            let python = interpreter.path.clone();
            return Err(EnvironmentError::Create { python, problem: explain(&done.stderr) });
        }
        for (at, layer) in spec.layers.iter().enumerate() {
            // A file, because an entry may be an option with its value, as pip's requirement files allow.
            let list = path.join(format!(".glowplug-requirements-{at}.txt"));
            fs::write(&list, layer.join("\n") + "\n").map_err(io_error("write", &list))?;
            let mut install = tool(INSTALL_TIMEOUT)
                .args(["pip", "install", "--python"])
                .arg(path.join("bin/python"))
                .arg("--requirements")
                .arg(&list);
            for (name, _) in &spec.local_projects {
                install = install.arg("--refresh-package").arg(name);
            }
            if at + 1 == spec.layers.len() {
                install = install.arg("--compile-bytecode");
            }
            let detail = format!("{} requirement(s)", layer.len());
            progress.send(Progress { stage: Stage::Resolving, detail, ..Progress::default() });
            let mut output = UvOutput::default();
            let done = install
                .holding(held()?)
                .run_watched(|line| {
                    if let Some(state) = output.read(line) {
                        progress.send(state);
                    }
                })
                .await?;
            if !done.status.success() {
                let problem = explain(&done.stderr);
                return Err(EnvironmentError::Install { requirements: layer.clone(), problem });
            }
        }
        Ok(())
    }
}

async fn delete(path: &Path) -> Result<(), EnvironmentError> {
    let owned = path.to_owned();
    match spawn_blocking(move || fs::remove_dir_all(&owned)).await {
        Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("delete", path)(error))
        }
        _ => Ok(()),
    }
}

fn read_marker(path: &Path) -> Option<Marker> {
    serde_json::from_slice(&fs::read(path.join(MARKER)).ok()?).ok()
}

/// Written beside and renamed, so that a marker is whole or absent.
fn write_marker(path: &Path, marker: &Marker) -> io::Result<()> {
    let staging = path.join(".glowplug-complete.tmp");
    fs::write(&staging, serde_json::to_vec_pretty(marker)?)?;
    fs::rename(&staging, path.join(MARKER))
}

fn is_id(name: &str) -> bool {
    name.len() == ID_HEX_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn environment_id(spec: &EnvironmentSpec, interpreter: &Interpreter) -> String {
    let mut hasher = blake3::Hasher::new();
    for field in [FORMAT, std::env::consts::OS, std::env::consts::ARCH, &interpreter.version] {
        hash_field(&mut hasher, field.as_bytes());
    }
    // The interpreter's own path counts: the environment links to it.
    hash_field(&mut hasher, interpreter.path.as_os_str().as_encoded_bytes());
    for layer in &spec.layers {
        let mut names: Vec<String> = layer.iter().map(|entry| normalise(entry)).collect();
        names.sort();
        names.dedup();
        hash_field(&mut hasher, names.join("\n").as_bytes());
    }
    for (name, fingerprint) in &spec.local_projects {
        hash_field(&mut hasher, name.as_bytes());
        hash_field(&mut hasher, fingerprint.as_bytes());
    }
    hasher.finalize().to_hex()[..ID_HEX_DIGITS].to_owned()
}

/// One spelling for requirements that mean the same: `Foo_Bar >= 1` is `foo-bar>=1`.
fn normalise(requirement: &str) -> String {
    let requirement = requirement.trim();
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let end = requirement.find(|c| !is_name(c)).unwrap_or(requirement.len());
    let (name, rest) = requirement.split_at(end);
    if name.is_empty() || name.starts_with(['-', '.']) || rest.starts_with([':', '/', '+']) {
        return requirement.to_owned();
    }
    let name = name.to_ascii_lowercase().replace(['_', '.'], "-");
    // A marker or a direct reference is separated by spaces that mean something.
    if rest.contains([';', '@']) {
        return format!("{name}{}", rest.trim_end());
    }
    let rest: String = rest.chars().filter(|c| !c.is_whitespace()).collect();
    format!("{name}{rest}")
}

/// uv's explanation, without its account of what went well before.
fn explain(stderr: &[String]) -> String {
    let at = stderr.iter().position(|line| {
        let line = line.trim_start();
        line.starts_with("error") || line.starts_with('×')
    });
    let told: Vec<&str> = stderr[at.unwrap_or(0)..]
        .iter()
        .take(PROBLEM_LINES_MAX)
        .map(|line| {
            line.trim().trim_start_matches("error: ").trim_start_matches(['×', '╰', '─', '▶'])
        })
        .map(|line| line.trim().trim_start_matches("cause: "))
        .filter(|line| !line.is_empty())
        .collect();
    if told.is_empty() { "uv gave no reason".to_owned() } else { told.join("\n  ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpreter() -> Interpreter {
        Interpreter { path: "/usr/bin/python3.11".into(), version: "3.11.7".into() }
    }

    fn id(layers: &[&[&str]]) -> String {
        let layers =
            layers.iter().map(|layer| layer.iter().map(|&r| r.to_owned()).collect()).collect();
        let spec = EnvironmentSpec { python: "3.11".into(), layers, local_projects: Vec::new() };
        environment_id(&spec, &interpreter())
    }

    #[test]
    fn the_same_requirements_share_an_environment() {
        let first = id(&[&["numpy>=1", "Pillow"]]);
        assert!(is_id(&first));
        assert_eq!(id(&[&["pillow", "numpy >= 1", "pillow"]]), first);
        assert_ne!(id(&[&["numpy>=1"], &["Pillow"]]), first);
        assert_ne!(id(&[&["numpy>=2", "Pillow"]]), first);
    }

    #[test]
    fn references_and_options_are_left_as_they_are() {
        for text in ["git+https://example.org/A.git", "-e ./X", "./A_b", "--index-url X"] {
            assert_eq!(normalise(text), text);
        }
        assert_eq!(normalise("A_b @ file:///x/A_b"), "a-b @ file:///x/A_b");
        assert_eq!(normalise("A.b[x] == 1.0 "), "a-b[x]==1.0");
        assert_eq!(normalise("a; python_version < '3'"), "a; python_version < '3'");
    }

    #[test]
    fn explanations_start_at_the_error() {
        let lines = ["Using Python 3", "error: No solution found", "  cause: Because x", ""];
        let lines: Vec<String> = lines.map(str::to_owned).into();
        assert_eq!(explain(&lines), "No solution found\n  Because x");
        assert_eq!(explain(&[]), "uv gave no reason");
    }
}
