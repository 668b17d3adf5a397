//! The one place where this crate starts programs: uv, pip and Python, all of them short-lived tools.
//!
//! A tool gets the node's environment (proxies and certificates are set there), its output is read line
//! by line with a cap, and it is killed when its future is dropped. Apps themselves are never started here.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

/// Longer lines of a tool's output are cut.
const LINE_BYTES_MAX: usize = 4_096;
/// Only the last lines of a tool's output are kept.
const OUTPUT_LINES_MAX: usize = 200;
/// Lines on their way from the pipes to the caller.
const LINES_IN_FLIGHT_MAX: usize = 64;
const READ_BYTES: usize = 8_192;

/// Variables that would point a tool at another environment than the one it is told.
const ENV_REMOVED: [&str; 8] = [
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PIP_TARGET",
    "PIP_PREFIX",
    "__PYVENV_LAUNCHER__",
];

#[derive(Debug)]
pub(crate) struct Tool {
    program: PathBuf,
    args: Vec<OsString>,
    cwd: Option<PathBuf>,
    env: Vec<(OsString, OsString)>,
    stdin: Option<File>,
    timeout: Duration,
}

#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ToolRunError {
    #[error("cannot run {program}: {source}")]
    Spawn { program: String, source: std::io::Error },
    #[error("{program} did not finish within {seconds} s")]
    TimedOut { program: String, seconds: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pipe {
    Stdout,
    Stderr,
}

impl Tool {
    pub(crate) fn new(program: impl Into<PathBuf>, timeout: Duration) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            cwd: None,
            env: Vec::new(),
            stdin: None,
            timeout,
        }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(crate) fn cwd(mut self, cwd: impl AsRef<Path>) -> Self {
        self.cwd = Some(cwd.as_ref().to_owned());
        self
    }

    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Hands the tool a locked (and empty) file as its standard input: the lock then holds until the tool
    /// and everything it started have ended, even when this process is killed first.
    pub(crate) fn holding(mut self, lock: File) -> Self {
        self.stdin = Some(lock);
        self
    }

    pub(crate) async fn run(self) -> Result<Finished, ToolRunError> {
        self.run_watched(|_| {}).await
    }

    /// Runs to the end; `on_line` sees every line of stdout and stderr as it comes.
    pub(crate) async fn run_watched(
        self,
        mut on_line: impl FnMut(&str),
    ) -> Result<Finished, ToolRunError> {
        let program = self.program.display().to_string();
        let seconds = self.timeout.as_secs();
        let timeout = self.timeout;
        let mut child = self
            .spawn()
            .map_err(|source| ToolRunError::Spawn { program: program.clone(), source })?;
        let (sender, mut lines) = mpsc::channel(LINES_IN_FLIGHT_MAX);
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(read_lines(stdout, Pipe::Stdout, sender.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(read_lines(stderr, Pipe::Stderr, sender.clone()));
        }
        drop(sender);
        let finish = async {
            let (mut stdout, mut stderr) = (Tail::default(), Tail::default());
            while let Some((pipe, line)) = lines.recv().await {
                on_line(&line);
                match pipe {
                    Pipe::Stdout => stdout.push(line),
                    Pipe::Stderr => stderr.push(line),
                }
            }
            let status = child.wait().await?;
            Ok(Finished { status, stdout: stdout.lines.into(), stderr: stderr.lines.into() })
        };
        match tokio::time::timeout(timeout, finish).await {
            Ok(finished) => finished.map_err(|source| ToolRunError::Spawn { program, source }),
            Err(_) => Err(ToolRunError::TimedOut { program, seconds }),
        }
    }

    fn spawn(self) -> std::io::Result<tokio::process::Child> {
        #[expect(
            clippy::disallowed_methods,
            reason = "this module owns the tools: they are awaited, bounded in time, and killed on drop"
        )]
        let mut command = tokio::process::Command::new(&self.program);
        for name in ENV_REMOVED {
            command.env_remove(name);
        }
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        command
            .args(&self.args)
            .env("NO_COLOR", "1")
            .env("PYTHONUTF8", "1")
            .envs(self.env)
            .stdin(self.stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

/// The last lines of an output.
#[derive(Debug, Default)]
struct Tail {
    lines: std::collections::VecDeque<String>,
}

impl Tail {
    fn push(&mut self, line: String) {
        if self.lines.len() == OUTPUT_LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

async fn read_lines(
    mut source: impl AsyncRead + Unpin,
    pipe: Pipe,
    lines: mpsc::Sender<(Pipe, String)>,
) {
    let mut chunk = [0; READ_BYTES];
    let mut line = Vec::new();
    while let Ok(read @ 1..) = source.read(&mut chunk).await {
        for &byte in &chunk[..read] {
            if byte == b'\n' {
                let text = String::from_utf8_lossy(&line).into_owned();
                line.clear();
                if lines.send((pipe, text)).await.is_err() {
                    return;
                }
            } else if line.len() < LINE_BYTES_MAX {
                line.push(byte);
            }
        }
    }
    if !line.is_empty() {
        // Nobody is left to read it when this fails.
        let _ = lines.send((pipe, String::from_utf8_lossy(&line).into_owned())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Tool {
        Tool::new("/bin/sh", LIMIT).arg("-c").arg(script)
    }

    #[tokio::test]
    async fn output_is_split_into_its_two_pipes() {
        let done = shell("echo one; echo two >&2; printf three; exit 7").run().await.unwrap();
        assert_eq!(done.stdout, ["one", "three"]);
        assert_eq!(done.stderr, ["two"]);
        assert_eq!(done.status.code(), Some(7));
    }

    #[tokio::test]
    async fn floods_are_cut() {
        let script = "i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); done; \
                      head -c 20000 /dev/zero | tr '\\0' x";
        let done = shell(script).run().await.unwrap();
        assert_eq!(done.stdout.len(), OUTPUT_LINES_MAX);
        assert_eq!(done.stdout[OUTPUT_LINES_MAX - 2], "299");
        assert_eq!(done.stdout[OUTPUT_LINES_MAX - 1].len(), LINE_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_tool_that_hangs_is_given_up() {
        let tool = Tool::new("/bin/sleep", Duration::from_millis(20)).arg("600");
        assert!(matches!(tool.run().await, Err(ToolRunError::TimedOut { .. })));
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = Tool::new("/nowhere/tool", LIMIT).run().await.unwrap_err();
        assert!(error.to_string().starts_with("cannot run /nowhere/tool"), "{error}");
    }
}
