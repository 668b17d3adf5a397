//! Runs the binary in a directory of its own, with an environment of its own.

use std::process::{Command, ExitStatus, Output};

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
