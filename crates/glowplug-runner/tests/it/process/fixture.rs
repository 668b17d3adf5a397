//! A world of processes: its own directories, and a mark by which its processes are found.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glowplug_core::{RunnerId, Timestamp};
use glowplug_runner::conformance::{Fixture, Program, plain_spec};
use glowplug_runner::{
    Backend, Bind, ContainerSpec, LogCaps, ProcessBackend, ProcessOptions, RunnerSpec, ShimCommand,
    Writes,
};
use tempfile::TempDir;

/// In the environment of all programs of one fixture.
const FIXTURE_VARIABLE: &str = "TEST_FIXTURE";
const RUNNER_VARIABLE: &str = "TEST_RUNNER";

pub(crate) struct ProcessFixture {
    dir: TempDir,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// In a container whose image holds links to the host's system, which it is given to read, and the
    /// test program.
    Container(Runner),
}

/// What runs the containers of a fixture: `native` or an OCI runtime.
pub(crate) type Runner = &'static str;
pub(crate) const NATIVE: Runner = "native";

/// Where the test program is in the image.
pub(crate) const PROGRAM: &str = "/program";

impl ProcessFixture {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), kind: Kind::Plain }
    }

    /// A fixture whose runners are in containers of this runtime.
    pub(crate) fn of_containers_by(runtime: Runner) -> Self {
        let fixture = Self { dir: tempfile::tempdir().unwrap(), kind: Kind::Container(runtime) };
        let image = fixture.image();
        fs::create_dir(&image).unwrap();
        for name in ["bin", "lib", "lib64", "sbin"] {
            symlink(format!("usr/{name}"), image.join(name)).unwrap();
        }
        let program = env!("CARGO_BIN_EXE_glowplug-test-program");
        if fs::hard_link(program, image.join("program")).is_err() {
            fs::copy(program, image.join("program")).unwrap();
        }
        fixture
    }

    /// For tests that are skipped where no container can be made.
    pub(crate) fn of_containers_if_possible() -> Option<Self> {
        Self::if_possible(NATIVE)
    }

    /// The same, by this runtime.
    pub(crate) fn if_possible(runtime: Runner) -> Option<Self> {
        match why_not(runtime) {
            None => Some(Self::of_containers_by(runtime)),
            Some(why) => {
                println!("skipped: {why}");
                None
            }
        }
    }

    /// The files of the containers, as they are on the host.
    pub(crate) fn image(&self) -> PathBuf {
        self.path().join("image")
    }

    /// A container that holds what the test program needs.
    pub(crate) fn container(&self) -> ContainerSpec {
        let mut container = ContainerSpec::new(vec![self.image()]);
        if let Kind::Container(runtime) = self.kind {
            container.runtime = glowplug_runner::host::runtime(runtime).unwrap();
        }
        container.binds.push(Bind {
            source: "/usr".into(),
            target: "/usr".into(),
            writes: Writes::Refused,
        });
        container
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn runner_dir(&self, id: RunnerId) -> PathBuf {
        self.path().join("runners").join(id.to_string())
    }

    /// A runner that does these things in turn.
    pub(crate) fn spec_of(&self, number: u32, words: &[&str]) -> RunnerSpec {
        // The process id keeps the control groups of tests that run side by side apart.
        let id = RunnerId { boot: std::process::id(), sequence: number };
        let mut spec = plain_spec(id);
        spec.argv = vec![env!("CARGO_BIN_EXE_glowplug-test-program").to_owned()];
        if self.kind != Kind::Plain {
            spec.argv = vec![PROGRAM.to_owned()];
            spec.cwd = "/work".into();
            spec.container = Some(self.container());
        }
        spec.argv.extend(words.iter().map(|word| (*word).to_owned()));
        spec.env.insert(FIXTURE_VARIABLE.to_owned(), self.path().display().to_string());
        spec.env.insert(RUNNER_VARIABLE.to_owned(), id.to_string());
        spec
    }

    /// A backend that runs this program as its shim.
    pub(crate) fn open_with_shim(&self, program: &str) -> Arc<dyn Backend> {
        let options = ProcessOptions {
            runners_dir: self.path().join("runners"),
            socket_dir: self.path().join("sockets"),
            shim: ShimCommand { program: program.into(), args: Vec::new() },
            clock: Arc::new(|| {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
                let now = std::time::Duration::try_from(now).unwrap();
                Timestamp::from_micros(u64::try_from(now.as_micros()).unwrap())
            }),
            log_caps: LogCaps { total_bytes_max: self.log_bytes_max(), ..LogCaps::default() },
        };
        Arc::new(ProcessBackend::new(options).unwrap())
    }

    /// A copy of a program that every user may run.
    pub(crate) fn public_copy(&self, program: &str) -> PathBuf {
        let dir = self.path().join("public");
        fs::create_dir_all(&dir).unwrap();
        for open in [self.path(), &dir] {
            fs::set_permissions(open, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let copy = dir.join("program");
        if !copy.exists() {
            fs::copy(program, &copy).unwrap();
        }
        copy
    }

    /// Pids of the processes of this runner, or of all runners of this fixture; no zombies.
    pub(crate) fn processes(&self, id: Option<RunnerId>) -> Vec<i32> {
        let fixture = format!("{FIXTURE_VARIABLE}={}", self.path().display());
        let runner = id.map(|id| format!("{RUNNER_VARIABLE}={id}"));
        let has = |pid: i32, wanted: &str| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ_has(&environment, wanted)
        };
        let is_meant = |pid: &i32| {
            has(*pid, &fixture) && runner.as_ref().is_none_or(|runner| has(*pid, runner))
        };
        pids().filter(is_meant).collect()
    }

    /// Pids of the shims of this fixture.
    pub(crate) fn shims(&self) -> Vec<i32> {
        let own = self.path().as_os_str().as_encoded_bytes().to_vec();
        let is_shim = |pid: &i32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = command.split(|byte| *byte == 0);
            words.next().is_some_and(|name| name.ends_with(b"glowplug-shim"))
                && words.any(|word| word.starts_with(&own))
        };
        pids().filter(is_shim).collect()
    }
}

/// Why no container can be run by this runtime here, if so.
fn why_not(runtime: Runner) -> Option<String> {
    let possible = glowplug_runner::host::containers();
    possible.err().or_else(|| glowplug_runner::host::runtime(runtime).err())
}

fn environ_has(environment: &[u8], wanted: &str) -> bool {
    environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
}

pub(crate) fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Zombies that this process should have reaped.
fn own_zombies() -> Vec<String> {
    let own = std::process::id().to_string();
    let is_own_zombie = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit(')').next().unwrap_or("").split_ascii_whitespace();
        fields.next() == Some("Z") && fields.next() == Some(&own)
    };
    pids().filter(is_own_zombie).map(|pid| format!("zombie {pid}")).collect()
}

/// Control groups of runners of this test process, at most this deep below the mount.
const GROUP_DEPTH_MAX: usize = 6;

fn groups(dir: &Path, depth: usize, found: &mut Vec<String>) {
    let mark = format!("-r{}-", std::process::id());
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().contains(&mark) {
            found.push(format!("group {}", entry.path().display()));
        } else if depth < GROUP_DEPTH_MAX {
            groups(&entry.path(), depth + 1, found);
        }
    }
}

impl Fixture for ProcessFixture {
    fn why_not(&self) -> Option<String> {
        match self.kind {
            Kind::Plain => None,
            Kind::Container(runtime) => why_not(runtime),
        }
    }

    fn why_nothing_freezes(&self) -> Option<String> {
        match self.kind {
            Kind::Plain | Kind::Container("native") => None,
            Kind::Container(runtime) => Some(format!("{runtime} has its own groups")),
        }
    }

    fn open(&self) -> Arc<dyn Backend> {
        self.open_with_shim(env!("CARGO_BIN_EXE_glowplug-shim"))
    }

    fn spec(&self, number: u32, program: Program) -> RunnerSpec {
        let millis = |span: std::time::Duration| span.as_millis().to_string();
        let words: Vec<String> = match program {
            Program::Serves => vec![],
            Program::Exits(code) => vec!["exit".into(), code.to_string()],
            Program::NeverReady => vec!["hang".into()],
            Program::SetsUpFor(span) => vec!["setup".into(), millis(span)],
            Program::UnhealthyAtFirst(count) => vec!["unhealthy".into(), count.to_string()],
            Program::IgnoresTerm => vec!["ignore-term".into()],
            Program::StopsIn(span) => vec!["slow-stop".into(), millis(span)],
            Program::Floods(lines) => vec!["flood".into(), lines.to_string()],
            Program::LongLine(bytes) => vec!["long-line".into(), bytes.to_string()],
        };
        let mut all = vec!["say", "hello"];
        all.extend(words.iter().map(String::as_str));
        all.push("serve");
        self.spec_of(number, &all)
    }

    fn programs(&self, id: RunnerId) -> usize {
        self.processes(Some(id)).len()
    }

    fn remains(&self) -> Vec<String> {
        let mut remains = own_zombies();
        remains.extend(self.processes(None).iter().map(|pid| format!("process {pid}")));
        remains.extend(self.shims().iter().map(|pid| format!("shim {pid}")));
        for dir in ["runners", "sockets"] {
            let entries = fs::read_dir(self.path().join(dir)).into_iter().flatten().flatten();
            // Where enclosed programs have their sockets: nobody's own.
            let entries = entries.filter(|entry| entry.file_name() != "enclosed");
            remains.extend(entries.map(|entry| format!("file {}", entry.path().display())));
        }
        groups(Path::new("/sys/fs/cgroup"), 0, &mut remains);
        remains
    }

    fn log_bytes_max(&self) -> u64 {
        1 << 20
    }

    fn log_bytes(&self, id: RunnerId) -> u64 {
        let files = fs::read_dir(self.runner_dir(id)).unwrap().flatten();
        let logs = files.filter(|file| file.file_name().to_string_lossy().starts_with("log"));
        logs.map(|file| file.metadata().unwrap().len()).sum()
    }

    fn line_bytes_max(&self) -> usize {
        LogCaps::default().line_bytes_max
    }
}
