//! A zygote that an app could use: what it is started with, and what it must be for a runner to be forked from it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use glowplug_core::AppId;
use glowplug_runner::{Listen, RunnerSpec, Warm};
use sha2::{Digest as _, Sha256};

use crate::apps::{App, Deployed, Launch};
use crate::config::ZygoteUse;

/// Where the runtime writes what an app's first start has imported.
const MODULES_VARIABLE: &str = "GLOWPLUG_MODULES";
/// Tells a program that it is to be a zygote.
const ZYGOTE_VARIABLE: &str = "GLOWPLUG_ZYGOTE";
/// What it is to import beside the app.
const IMPORTS_VARIABLE: &str = "GLOWPLUG_ZYGOTE_IMPORTS";
/// Variables that differ from runner to runner, which a zygote has no use for.
const OF_ONE_RUNNER: [&str; 4] =
    ["FAL_JOB_ID", "GLOWPLUG_RUNNER_ID", "GLOWPLUG_TIMELINE", MODULES_VARIABLE];
/// What is read of a list of modules.
const MODULES_BYTES_MAX: u64 = 96 << 10;
/// A zygote outlives the grace of its runners by this much, since it knows how they end.
const GRACE_AFTER_RUNNERS: Duration = Duration::from_secs(5);

/// What a node must know of a zygote to adopt it after a restart.
pub(super) const KEY_LABEL: &str = "zygote_key";
/// The zygote of a runner, likewise.
pub(super) const ZYGOTE_LABEL: &str = "zygote";

#[derive(Debug)]
pub(super) struct Wish {
    pub(super) app: AppId,
    /// Equal for runners that one zygote can fork: the same code, files, settings, variables and secrets.
    pub(super) key: String,
    /// Without its id.
    spec: RunnerSpec,
    imports: Imports,
}

#[derive(Debug)]
enum Imports {
    Learned(PathBuf),
    Declared(Vec<String>),
}

impl Wish {
    /// `None`: the app wants none. `argv`: what is started instead of the app; `lesson`: where the runner tells
    /// what it imports.
    pub(super) fn new(
        app: &App,
        deployed: &Deployed,
        runner: &RunnerSpec,
        argv: Vec<String>,
        lesson: PathBuf,
    ) -> Option<Self> {
        let mut spec = runner.clone();
        for name in OF_ONE_RUNNER {
            spec.env.remove(name);
        }
        spec.argv = argv;
        spec.listen = Listen::UnixSocket;
        spec.health_path = None;
        spec.grace = spec.grace.saturating_add(GRACE_AFTER_RUNNERS);
        spec.warm = Warm::Plain;
        let is_command = matches!(*deployed.launch, Launch::Command(_));
        // What a Python app is started with never changes under its name.
        let files = if is_command { files_of(&spec.argv, &spec.cwd) } else { Vec::new() };
        let said = (&deployed.code, &spec.argv, files, &spec.cwd, &spec.env, &spec.user);
        // Of the limits, all but this one are those of control groups, which each runner has its own of.
        let said = (said, spec.limits.open_files_max);
        let said = (said, &app.config.warmth.zygote, spec.gpus.is_empty());
        let key = format!("{:x}", Sha256::digest(format!("{said:?}")));
        let imports = match &app.config.warmth.zygote {
            ZygoteUse::Off => return None,
            // Only the runtime of Python apps tells what they import.
            _ if is_command => Imports::Declared(Vec::new()),
            ZygoteUse::Learned => Imports::Learned(lesson),
            ZygoteUse::Declared(modules) => Imports::Declared(modules.clone()),
        };
        spec.labels = BTreeMap::from([(KEY_LABEL.to_owned(), key.clone())]);
        spec.env.insert(ZYGOTE_VARIABLE.to_owned(), "1".to_owned());
        Some(Self { app: app.id, key, spec, imports })
    }

    /// Where a runner that starts plainly is to tell what it imports.
    pub(super) fn lesson(&self) -> Option<PathBuf> {
        match &self.imports {
            Imports::Learned(path) => Some(path.clone()),
            Imports::Declared(_) => None,
        }
    }

    /// What to start. Reads what was learned, which may be nothing.
    pub(super) fn into_spec(mut self, id: glowplug_core::RunnerId) -> RunnerSpec {
        let modules = match self.imports {
            Imports::Learned(path) => read_modules(&path),
            Imports::Declared(modules) => modules,
        };
        self.spec.env.insert(IMPORTS_VARIABLE.to_owned(), modules.join(","));
        self.spec.id = id;
        self.spec
    }

    #[cfg(test)]
    pub(super) fn for_test(app: AppId, key: &str) -> Self {
        let spec = RunnerSpec {
            id: glowplug_core::RunnerId { boot: 0, sequence: 0 },
            app: String::new(),
            revision: 1,
            labels: BTreeMap::new(),
            argv: Vec::new(),
            cwd: PathBuf::new(),
            env: BTreeMap::new(),
            listen: Listen::UnixSocket,
            health_path: None,
            limits: glowplug_runner::Limits::default(),
            gpus: Vec::new(),
            user: None,
            container: None,
            warm: Warm::Plain,
            grace: Duration::ZERO,
            orphan_timeout: Duration::ZERO,
        };
        Self { app, key: key.to_owned(), spec, imports: Imports::Declared(Vec::new()) }
    }
}

/// What tells a file from an older one: where it is on the disk, when it was changed, its length.
type FileState = (u64, u64, i64, i64, u64);

/// Of the words that name files. A command's files may change while the node runs.
fn files_of(argv: &[String], cwd: &Path) -> Vec<Option<FileState>> {
    use std::os::unix::fs::MetadataExt as _;

    let state = |word: &String| {
        let found = std::fs::metadata(cwd.join(word)).ok().filter(std::fs::Metadata::is_file)?;
        Some((found.dev(), found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
    };
    argv.iter().map(state).collect()
}

/// Lets a runner that starts plainly tell what it imports.
pub(super) fn learn_from(runner: &mut RunnerSpec, lesson: &Path) {
    // A runner with a user of its own may write to this file, and to nothing beside it.
    if let Err(error) = make_writable(lesson) {
        tracing::warn!(app = runner.app, "cannot learn what it imports: {error}");
        return;
    }
    runner.env.insert(MODULES_VARIABLE.to_owned(), lesson.display().to_string());
}

fn make_writable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let file = std::fs::File::create(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o666))
}

/// Written by a program of the app: anything may be in it.
fn read_modules(path: &Path) -> Vec<String> {
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What can be read of it is as good.
        drop(file.take(MODULES_BYTES_MAX).read_to_end(&mut text));
    }
    drop(std::fs::remove_file(path));
    let text = String::from_utf8_lossy(&text);
    text.split(',').filter(|name| is_module(name)).map(str::to_owned).collect()
}

fn is_module(name: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_');
    name.split('.').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_program_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let argv = ["python3", "render.py", "zygote"].map(str::to_owned);
        let write = |text: &str| std::fs::write(dir.path().join("render.py"), text).unwrap();
        write("1");
        let before = files_of(&argv, dir.path());
        assert_eq!(before.iter().filter(|state| state.is_some()).count(), 1);
        assert_eq!(files_of(&argv, dir.path()), before);
        write("12");
        assert_ne!(files_of(&argv, dir.path()), before);
    }

    #[test]
    fn only_names_of_modules_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("modules");
        std::fs::write(&path, b"numpy,numpy.linalg,,a b,../x,os;rm,_x.y,\xff").unwrap();
        assert_eq!(read_modules(&path), ["numpy", "numpy.linalg", "_x.y"]);
        assert!(read_modules(&path).is_empty(), "it is read once");
    }
}
