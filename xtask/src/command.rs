//! The one place where this program starts others.
//!
//! A program either runs to its end ([`Program::run`], [`Program::capture`]) or in the background
//! ([`Program::spawn`]). What runs in the background has a process group of its own and ends with the value
//! that stands for it, with this program, and with a signal to this program.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{repository, stopwatch};

/// How long a program in the background may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const STOP_PAUSE: Duration = Duration::from_millis(10);
/// The end of a failed program's output that its error shows.
const ERROR_LINES_MAX: usize = 20;
/// What shells report for a program ended by Ctrl-C.
const INTERRUPTED_EXIT_CODE: i32 = 130;

#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
    stdout_to_stderr: bool,
}

impl Program {
    #[expect(clippy::disallowed_methods, reason = "this module owns what it starts")]
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        Self { command, stdout_to_stderr: false }
    }

    /// The cargo that runs this program, so that everything is built by one toolchain.
    pub(crate) fn cargo(args: &[&str]) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Self::new(cargo)
            .args(args)
            .dir(repository::root())
            // Meant for this program, and a reason for cargo to build others anew.
            .without_env("CARGO_MANIFEST_DIR")
            .without_env("CARGO_MANIFEST_PATH")
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub(crate) fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// For commands whose own standard output is read by a program.
    pub(crate) fn stdout_to_stderr(mut self) -> Self {
        self.stdout_to_stderr = true;
        self
    }

    /// Runs to the end with the output shown, and fails unless it succeeds.
    pub(crate) fn run(mut self) -> Result<()> {
        if self.stdout_to_stderr {
            self.command.stdout(io::stderr());
        }
        let status = self.command.status().with_context(|| self.cannot_start())?;
        if !status.success() {
            bail!("`{}` failed: {status}", self.shown());
        }
        Ok(())
    }

    /// Runs to the end, and gives its standard output if it succeeds.
    pub(crate) fn capture(mut self) -> Result<String> {
        let output = self.command.output().with_context(|| self.cannot_start())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(ERROR_LINES_MAX)..];
            bail!("`{}` failed: {}\n{}", self.shown(), output.status, last.join("\n"));
        }
        String::from_utf8(output.stdout)
            .with_context(|| format!("`{}` wrote something that is no text", self.shown()))
    }

    /// Goes on as that program. Comes back with the reason if it cannot.
    pub(crate) fn replace_this(mut self) -> anyhow::Error {
        let problem = self.command.stdin(Stdio::inherit()).exec();
        anyhow::Error::new(problem).context(self.cannot_start())
    }

    /// Whether it can be run and succeeds; its output is thrown away.
    pub(crate) fn succeeds(mut self) -> bool {
        let quiet = self.command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    }

    /// Runs in the background, both outputs going to the end of the file `log`.
    pub(crate) fn spawn(mut self, log: &Path) -> Result<Running> {
        let open = || File::options().create(true).append(true).open(log);
        let stdout = open().with_context(|| format!("cannot write {}", log.display()))?;
        let stderr = open().with_context(|| format!("cannot write {}", log.display()))?;
        self.command.stdout(stdout).stderr(stderr).process_group(0);
        let child = self.command.spawn().with_context(|| self.cannot_start())?;
        let child = Arc::new(Mutex::new(child));
        lock(&RUNNING).push(Arc::clone(&child));
        Ok(Running { child, shown: self.shown(), log: log.to_owned() })
    }

    fn cannot_start(&self) -> String {
        format!("cannot start `{}`", self.shown())
    }

    fn shown(&self) -> String {
        let words = [self.command.get_program()].into_iter().chain(self.command.get_args());
        words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
    }
}

/// The file that a name stands for on PATH.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Programs in the background, for the thread that ends them on a signal.
static RUNNING: Mutex<Vec<Arc<Mutex<Child>>>> = Mutex::new(Vec::new());

/// A program in the background. When this value goes away it gets SIGTERM, and its whole group SIGKILL when
/// that does not do.
#[derive(Debug)]
pub(crate) struct Running {
    child: Arc<Mutex<Child>>,
    shown: String,
    log: PathBuf,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        lock(&self.child).id()
    }

    /// Fails with the end of the log if the program has ended by itself.
    pub(crate) fn check(&self) -> Result<()> {
        let ended = lock(&self.child).try_wait().context("cannot ask after a program")?;
        ended.map_or(Ok(()), |status| Err(self.ended_by_itself(status)))
    }

    fn ended_by_itself(&self, status: ExitStatus) -> anyhow::Error {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(ERROR_LINES_MAX)..];
        anyhow!("`{}` ended by itself: {status}\n{}", self.shown, last.join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&self.child);
        lock(&RUNNING).retain(|child| !Arc::ptr_eq(child, &self.child));
    }
}

/// Asks a program to end, waits, and kills its group.
fn end(child: &Mutex<Child>) {
    let mut child = lock(child);
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return };
    let gone = |child: &mut Child| child.try_wait().map_or(true, |status| status.is_some());
    if gone(&mut child) {
        return;
    }
    // It may have ended in between: then there is nothing left to tell it.
    let _ = rustix::process::kill_process(pid, Signal::TERM);
    let ended =
        stopwatch::wait_for(STOP_TIMEOUT, STOP_PAUSE, || Ok(gone(&mut child).then_some(())));
    if !matches!(ended, Ok(Some(()))) {
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        let _ = child.wait();
    }
}

/// From here on SIGINT and SIGTERM end what runs in the background, then this program.
pub(crate) fn end_all_on_signal() -> Result<()> {
    let mut signals =
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).context("cannot catch signals")?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if signals.forever().next().is_some() {
                let running = lock(&RUNNING).clone();
                for child in &running {
                    end(child);
                }
                exit_interrupted();
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}

#[expect(clippy::exit, reason = "the main thread may be anywhere; everything of ours has ended")]
fn exit_interrupted() -> ! {
    std::process::exit(INTERRUPTED_EXIT_CODE)
}

/// A panic elsewhere does not make the list of processes to end less true.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
