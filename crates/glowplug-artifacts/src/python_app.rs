//! Apps that are classes of the PyPI package `fal`: read once, then started without `fal`.
//!
//! Reading an app (`inspect`) runs its module in a *build environment* that holds `fal`, and keeps the
//! description and the pickled class below the data directory, under a hash of everything it was made
//! from. Starting it (`prepare`) needs the app's own environment and the launcher only.
//!
//! An app whose module imports a package of its `requirements` at the top is read a second time, with
//! those requirements beside `fal`. What it does not do: run an app, or read one again that has not changed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use tokio::task::spawn_blocking;

use crate::app_error::{AppError, AppProblem, ProblemKind, io_error, no_such_file};
use crate::command::{Tool, ToolRunError};
use crate::description::{AppDescription, AppInput, LocalProject};
use crate::environment::{Environment, EnvironmentSpec, Environments};
use crate::progress::{ProgressSender, Stage};
use crate::source_tree::{hash_field, hash_sources};
use crate::toolchain::last_lines;

/// The version whose classes are known to be served correctly.
const FAL_VERSION: &str = "1.83.0";
/// Changes when descriptions of an older build of ours must be read again.
const FORMAT: &str = "python-app-1";
/// What runs beside an app: to serve it, and to fork its runners.
const SERVE_SCRIPTS: [(&str, &str); 9] = [
    ("serve_app.py", include_str!("../../../runtime/serve_app.py")),
    ("serve_faster.py", include_str!("../../../runtime/serve_faster.py")),
    ("serve_load.py", include_str!("../../../runtime/serve_load.py")),
    ("serve_report.py", include_str!("../../../runtime/serve_report.py")),
    ("serve_snapshot.py", include_str!("../../../runtime/serve_snapshot.py")),
    ("zygote.py", include_str!("../../../runtime/zygote.py")),
    ("zygote_fit.py", include_str!("../../../runtime/zygote_fit.py")),
    ("zygote_forks.py", include_str!("../../../runtime/zygote_forks.py")),
    ("zygote_kept.py", include_str!("../../../runtime/zygote_kept.py")),
];
/// What reads an app.
const INSPECT_SCRIPTS: [(&str, &str); 3] = [
    ("inspect_app.py", include_str!("../../../runtime/inspect_app.py")),
    ("inspect_needs.py", include_str!("../../../runtime/inspect_needs.py")),
    ("inspect_problem.py", include_str!("../../../runtime/inspect_problem.py")),
];
/// Where a container finds what it is given of this machine.
const INSIDE: &str = "/.glowplug";
/// Tells the launcher which Python the app was pickled with.
const PYTHON_VARIABLE: &str = "GLOWPLUG_PYTHON";
/// Imports the launcher instead of running it as a script, so that its bytecode is cached.
const BOOT: &str = "import sys; sys.path.insert(0, sys.argv[1]); import serve_app; \
                    del sys.path[0]; serve_app.main(sys.argv[2:])";
/// Likewise, what imports the app and forks its runners.
const BOOT_ZYGOTE: &str = "import sys; sys.path.insert(0, sys.argv[1]); import zygote; \
                           del sys.path[0]; zygote.main(sys.argv[2:])";
/// Where the boot line is in the arguments.
const BOOT_PLACE: usize = 4;

/// A module may do real work when it is imported; this much is enough for any.
const INSPECT_TIMEOUT: Duration = Duration::from_mins(5);
const COMPILE_TIMEOUT: Duration = Duration::from_mins(1);
/// Reading again: for another Python version, and for requirements that the module imports.
const READINGS_MAX: u32 = 3;
const HASH_HEX_DIGITS: usize = 32;
const DOCUMENT: &str = "app.json";
const PICKLE: &str = "app.pickle";
const FILES: &str = "files";

/// How to start a runner of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    pub argv: Vec<String>,
    /// Added to the runner's environment.
    pub env: BTreeMap<String, String>,
    /// In a container: empty, where the image says it.
    pub working_dir: PathBuf,
    /// For an app in a container: what of this machine its programs read, and where they find it. Nothing of it
    /// is written to.
    pub binds: Vec<(PathBuf, PathBuf)>,
}

impl Launch {
    /// What to start in place of `argv` for a process that imports the app and forks runners of it. `None` where
    /// a runner is more than a fork: in a container.
    pub fn zygote_argv(&self) -> Option<Vec<String>> {
        let mut argv = self.argv.clone();
        let boot = argv.get_mut(BOOT_PLACE).filter(|boot| *boot == BOOT)?;
        BOOT_ZYGOTE.clone_into(boot);
        self.binds.is_empty().then_some(argv)
    }
}

/// What `inspect_app.py` wrote.
enum Reading {
    Described(Box<AppDescription>),
    Problem(Box<AppProblem>),
}

/// The Python apps of one data directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PythonApps {
    data_dir: PathBuf,
    environments: Environments,
}

impl PythonApps {
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        // Relative paths would change their meaning in tools that run elsewhere.
        let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
        let environments = Environments::new(&data_dir);
        Self { data_dir, environments }
    }

    pub fn environments(&self) -> &Environments {
        &self.environments
    }

    /// Describes the app `class` of `file`, or the only app there is in it. Reads the file again only when
    /// it or a Python file beside it has changed.
    pub async fn inspect(
        &self,
        file: &Path,
        class: Option<&str>,
        progress: &ProgressSender,
    ) -> Result<AppDescription, AppError> {
        let file = std::path::absolute(file).map_err(io_error("find", file))?;
        if !file.is_file() {
            return Err(AppError::App(Box::new(no_such_file(&file))));
        }
        progress.stage(Stage::Checking, file.display().to_string());
        let mut python =
            self.environments.default_python(progress).await.map_err(AppError::BuildEnvironment)?;
        let source_hash = self.source_hash(&file, class, &python).await?;
        let folder = self.data_dir.join("apps").join(&source_hash);
        if let Some(found) = read_description(&folder)
            && found.inputs().all(unchanged)
        {
            progress.stage(Stage::Done, found.name.clone());
            return Ok(found);
        }
        let mut beside_fal = Vec::new();
        for _ in 0..READINGS_MAX {
            let staging = self.staging_folder(&source_hash)?;
            let reading = self.read(&file, class, &python, &beside_fal, &staging, progress).await;
            match reading {
                Ok(Reading::Described(found)) => {
                    let found = publish(*found, &file, &source_hash, &staging, &folder)?;
                    progress.stage(Stage::Done, found.name.clone());
                    return Ok(found);
                }
                Ok(Reading::Problem(problem)) => {
                    discard(&staging);
                    match problem.kind {
                        ProblemKind::PythonVersion if problem.wanted != python => {
                            python = problem.wanted;
                        }
                        ProblemKind::ImportError
                            if beside_fal.is_empty() && !problem.requirements.is_empty() =>
                        {
                            beside_fal = problem.requirements;
                        }
                        _ => return Err(AppError::App(problem)),
                    }
                }
                Err(error) => {
                    discard(&staging);
                    return Err(error);
                }
            }
        }
        let problem = "it asks for another Python or other packages each time".to_owned();
        Err(AppError::Inspect { file, problem })
    }

    /// Builds what a runner of the app needs, and says how to start one.
    pub async fn prepare(
        &self,
        app: &AppDescription,
        progress: &ProgressSender,
    ) -> Result<Launch, AppError> {
        let pickle = app.folder.join(PICKLE);
        if !pickle.is_file() {
            let folder = app.folder.clone();
            return Err(AppError::FolderGone { app: app.name.clone(), folder });
        }
        let failed = |source| AppError::Environment { app: app.name.clone(), source };
        let spec = EnvironmentSpec {
            python: app.python_version.clone(),
            layers: app.requirements.clone(),
            local_projects: fingerprints(app.local_projects.clone()).await?,
        };
        let environment = self.environments.ensure(&spec, progress).await.map_err(failed)?;
        let support = EnvironmentSpec {
            python: app.python_version.clone(),
            layers: vec![app.support_requirements.clone()],
            local_projects: Vec::new(),
        };
        let support = self.environments.ensure(&support, progress).await.map_err(failed)?;
        let runtime = self.install_runtime()?;
        compile_launcher(&environment, &runtime).await?;
        if app.container.is_some() {
            return Ok(launch_in_container(app, &environment, &support, runtime));
        }
        let launch = launch(app, &environment, &support, &runtime, &pickle);
        fs::create_dir_all(&launch.working_dir).map_err(io_error("create", &launch.working_dir))?;
        Ok(launch)
    }

    /// A hash of everything that reading an app depends on.
    async fn source_hash(
        &self,
        file: &Path,
        class: Option<&str>,
        python: &str,
    ) -> Result<String, AppError> {
        let mut hasher = blake3::Hasher::new();
        let scripts = INSPECT_SCRIPTS.map(|(_, text)| text);
        let others = [FORMAT, FAL_VERSION, python, class.unwrap_or_default()];
        for field in others.into_iter().chain(scripts) {
            hash_field(&mut hasher, field.as_bytes());
        }
        hash_field(&mut hasher, file.as_os_str().as_encoded_bytes());
        let path = file.to_owned();
        let hashed = spawn_blocking(move || {
            let folder = path.parent().unwrap_or(Path::new("/"));
            hash_sources(&mut hasher, folder, Some(&path)).map(|()| hasher.finalize())
        });
        let hash =
            hashed.await.map_err(io::Error::other).flatten().map_err(io_error("read", file))?;
        Ok(hash.to_hex()[..HASH_HEX_DIGITS].to_owned())
    }

    async fn read(
        &self,
        file: &Path,
        class: Option<&str>,
        python: &str,
        beside_fal: &[String],
        out: &Path,
        progress: &ProgressSender,
    ) -> Result<Reading, AppError> {
        let mut requirements = vec![format!("fal=={FAL_VERSION}")];
        requirements.extend_from_slice(beside_fal);
        let spec = EnvironmentSpec {
            python: python.to_owned(),
            layers: vec![requirements],
            local_projects: Vec::new(),
        };
        let environment =
            self.environments.ensure(&spec, progress).await.map_err(AppError::BuildEnvironment)?;
        progress.stage(Stage::Inspecting, file.display().to_string());
        let script = self.install_runtime()?.join("inspect_app.py");
        let mut tool = Tool::new(&environment.python, INSPECT_TIMEOUT).arg("-I").arg(script);
        tool = tool.arg("--file").arg(file).arg("--out").arg(out);
        if let Some(class) = class {
            tool = tool.arg("--class").arg(class);
        }
        let failed = |problem: String| AppError::Inspect { file: file.to_owned(), problem };
        let done = tool.run().await.map_err(|error: ToolRunError| failed(error.to_string()))?;
        let Ok(document) = fs::read(out.join(DOCUMENT)) else {
            return Err(failed(format!("{}: {}", done.status, last_lines(&done.stderr))));
        };
        let reading = if done.status.success() {
            serde_json::from_slice(&document).map(|found| Reading::Described(Box::new(found)))
        } else {
            serde_json::from_slice(&document).map(|found| Reading::Problem(Box::new(found)))
        };
        reading.map_err(|error| failed(format!("its description is malformed: {error}")))
    }

    /// An empty folder on the same disk as the final one.
    fn staging_folder(&self, source_hash: &str) -> Result<PathBuf, AppError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!(".reading-{source_hash}-{}-{count}", std::process::id());
        let staging = self.data_dir.join("apps").join(name);
        // A leftover of a killed process with our number, if anything.
        discard(&staging);
        fs::create_dir_all(&staging).map_err(io_error("create", &staging))?;
        Ok(staging)
    }

    /// Puts the scripts of this build of ours where Python finds them.
    fn install_runtime(&self) -> Result<PathBuf, AppError> {
        let mut hasher = blake3::Hasher::new();
        let scripts = || INSPECT_SCRIPTS.into_iter().chain(SERVE_SCRIPTS);
        for (_, text) in scripts() {
            hash_field(&mut hasher, text.as_bytes());
        }
        let hash = hasher.finalize().to_hex();
        let folder = self.data_dir.join("runtime").join(&hash[..HASH_HEX_DIGITS]);
        fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        for (name, text) in scripts() {
            let path = folder.join(name);
            if fs::read_to_string(&path).is_ok_and(|found| found == text) {
                continue;
            }
            let staging = folder.join(format!(".{name}-{}", std::process::id()));
            fs::write(&staging, text).map_err(io_error("write", &staging))?;
            fs::rename(&staging, &path).map_err(io_error("write", &path))?;
        }
        Ok(folder)
    }
}

fn launch(
    app: &AppDescription,
    environment: &Environment,
    support: &Environment,
    runtime: &Path,
    pickle: &Path,
) -> Launch {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let files = app.folder.join(FILES);
    let working_dir = match &app.app_files {
        Some(copied) => files.join(&copied.working_dir),
        None => files.clone(),
    };
    // Isolated (the user's own Python settings do not reach in), and unbuffered for prompt logs.
    let mut argv = vec![text(&environment.python), "-I".into(), "-u".into(), "-c".into()];
    argv.extend([BOOT.to_owned(), text(runtime), "--app".into(), text(pickle)]);
    let mut paths = vec![support.site_packages.clone()];
    if app.app_files.is_some() {
        paths.extend([working_dir.clone(), files]);
        paths.dedup();
    }
    for path in paths {
        argv.extend(["--path".to_owned(), text(&path)]);
    }
    let mut path_variable = environment.path.join("bin").into_os_string();
    if let Some(inherited) = std::env::var_os("PATH") {
        path_variable.push(OsString::from(":"));
        path_variable.push(inherited);
    }
    let env = BTreeMap::from([
        ("PATH".to_owned(), path_variable.to_string_lossy().into_owned()),
        ("VIRTUAL_ENV".to_owned(), text(&environment.path)),
    ]);
    Launch { argv, env, working_dir, binds: Vec::new() }
}

/// The container's own Python serves the app, with the packages that were installed here: nothing is added to
/// the image, so that other requirements need no other image. Packages with compiled parts are wheels for any
/// Linux with glibc, as long as they were not compiled here.
fn launch_in_container(
    app: &AppDescription,
    environment: &Environment,
    support: &Environment,
    runtime: PathBuf,
) -> Launch {
    let inside = Path::new(INSIDE);
    let (packages, beside) = (inside.join("packages"), inside.join("support"));
    let (code, scripts) = (inside.join(PICKLE), inside.join("runtime"));
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let words = ["python3", "-I", "-u", "-c", BOOT].map(str::to_owned);
    let mut argv = Vec::from(words);
    argv.extend([text(&scripts), "--app".into(), text(&code)]);
    // What the app requires comes before what the image has; fal has the working directory there as well.
    argv.extend(["--first-path".into(), text(&packages)]);
    argv.extend(["--path".into(), ".".into(), "--path".into(), text(&beside)]);
    let binds = vec![
        (runtime, scripts),
        (app.folder.join(PICKLE), code),
        (environment.site_packages.clone(), packages),
        (support.site_packages.clone(), beside),
    ];
    let env = BTreeMap::from([(PYTHON_VARIABLE.to_owned(), app.python_version.clone())]);
    Launch { argv, env, working_dir: PathBuf::new(), binds }
}

/// Compiles the launcher for this Python, so that no runner has to.
async fn compile_launcher(environment: &Environment, runtime: &Path) -> Result<(), AppError> {
    let mut tool =
        Tool::new(&environment.python, COMPILE_TIMEOUT).args(["-I", "-m", "compileall", "-q"]);
    for (name, _) in SERVE_SCRIPTS {
        tool = tool.arg(runtime.join(name));
    }
    let failed = |problem: String| AppError::Inspect { file: runtime.to_owned(), problem };
    let done = tool.run().await.map_err(|error| failed(error.to_string()))?;
    if done.status.success() { Ok(()) } else { Err(failed(last_lines(&done.stdout))) }
}

async fn fingerprints(projects: Vec<LocalProject>) -> Result<Vec<(String, String)>, AppError> {
    let hash_all = move || {
        projects
            .into_iter()
            .map(|project| {
                let mut hasher = blake3::Hasher::new();
                hash_sources(&mut hasher, &project.path, None)
                    .map_err(io_error("read", &project.path))?;
                Ok((project.name, hasher.finalize().to_hex().to_string()))
            })
            .collect()
    };
    match spawn_blocking(hash_all).await {
        Ok(found) => found,
        Err(error) => Err(io_error("read", Path::new("a local project"))(io::Error::other(error))),
    }
}

fn read_description(folder: &Path) -> Option<AppDescription> {
    let found: AppDescription =
        serde_json::from_slice(&fs::read(folder.join(DOCUMENT)).ok()?).ok()?;
    folder.join(PICKLE).is_file().then_some(found)
}

/// Whether something that was copied for the app is still as it was.
fn unchanged(input: &AppInput) -> bool {
    let modified = fs::metadata(&input.path).and_then(|found| found.modified());
    let since = modified.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since.is_some_and(|since| since.as_nanos() == u128::from(input.mtime_ns))
}

/// Completes a description and moves it to where it is kept.
fn publish(
    mut found: AppDescription,
    file: &Path,
    source_hash: &str,
    staging: &Path,
    folder: &Path,
) -> Result<AppDescription, AppError> {
    let mut hasher = blake3::Hasher::new();
    hash_field(&mut hasher, source_hash.as_bytes());
    for input in found.inputs() {
        hash_field(&mut hasher, format!("{} {}", input.path.display(), input.mtime_ns).as_bytes());
    }
    let content_hash = hasher.finalize().to_hex()[..HASH_HEX_DIGITS].to_owned();
    // Runners of the revision before this one may still use its folder, so files that changed under the
    // same sources get a folder of their own, to which the usual one only points.
    let kept = match found.inputs().next() {
        Some(_) => folder.with_file_name(&content_hash),
        None => folder.to_owned(),
    };
    file.clone_into(&mut found.file);
    found.content_hash = content_hash;
    found.folder.clone_from(&kept);
    let document = serde_json::to_vec_pretty(&found)
        .map_err(io::Error::from)
        .map_err(io_error("describe", file))?;
    fs::write(staging.join(DOCUMENT), &document).map_err(io_error("write", staging))?;
    replace(staging, &kept)?;
    if kept != folder {
        fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        for name in [DOCUMENT, PICKLE] {
            let source = kept.join(name);
            fs::copy(&source, folder.join(name)).map_err(io_error("copy", &source))?;
        }
    }
    Ok(found)
}

/// Moves `staging` to `target`. A complete `target` wins: another process has just made the same.
fn replace(staging: &Path, target: &Path) -> Result<(), AppError> {
    if read_description(target).is_some() {
        discard(staging);
        return Ok(());
    }
    discard(target);
    fs::rename(staging, target)
        .or_else(|error| {
            discard(staging);
            if read_description(target).is_some() { Ok(()) } else { Err(error) }
        })
        .map_err(io_error("write", target))
}

/// Deletes a folder if it is there; what stays behind is replaced by the next reading.
fn discard(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "a leftover folder cannot be deleted");
    }
}
