//! Runs the binary in a directory of its own, with an environment of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

pub(crate) struct Scene {
    dir: TempDir,
    env: Vec<(String, String)>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), env: Vec::new() }
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        std::fs::write(self.dir.path().join(name), content).unwrap();
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    #[expect(clippy::disallowed_methods, reason = "the tests own the child and wait for it")]
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_glowplug"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", "/home/me")
            .env("TZ", "UTC")
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// With the programs that this test may use.
    pub(crate) fn with_path(self) -> Self {
        let path = std::env::var("PATH").unwrap();
        self.env("PATH", &path)
    }

    /// Starts the binary and lets it run.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut child = self.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = sync_channel(LINES_MAX);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if sender.send(line.unwrap()).is_err() {
                    break;
                }
            }
        });
        Running { child, lines }
    }

    /// As if piped into a program that reads nothing.
    pub(crate) fn run_with_closed_stdout(&self, arguments: &[&str]) -> ExitStatus {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        self.command(arguments).stdout(writer).status().unwrap()
    }

    /// Everything a user would see, with the temporary directory as `DIR`.
    pub(crate) fn transcript(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .unwrap()
                .replace(&self.dir.path().display().to_string(), "DIR")
        };
        format!(
            "$ glowplug {}\nexit code: {}\n--- stdout\n{}--- stderr\n{}",
            arguments.join(" "),
            output.status.code().map_or("none".into(), |code| code.to_string()),
            text(&output.stdout),
            text(&output.stderr),
        )
    }
}

/// Lines that may wait for a test to look at them.
const LINES_MAX: usize = 1_000;
/// For whatever a test waits for.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A binary that is running, and is killed when the test is done with it.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// The next line of JSON on standard output whose `event` is this.
    pub(crate) fn event(&mut self, event: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(WAIT_MAX).unwrap();
            let value: Value = serde_json::from_str(&line).unwrap();
            if value["event"] == event {
                return value;
            }
        }
    }

    /// As Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }

    /// Waits for the end. Standard output closes with it.
    pub(crate) fn exit_code(mut self) -> Option<i32> {
        loop {
            match self.lines.recv_timeout(WAIT_MAX) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap().code(),
                Err(RecvTimeoutError::Timeout) => panic!("it does not end"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has usually ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
