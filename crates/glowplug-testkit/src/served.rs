//! A node as its users have it: the real binary, `glowplug serve`, on a free port of loopback.

use std::fs::{self, File};
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tempfile::TempDir;

use crate::wait::{wait_for, wait_until};

/// For a node to answer after its start, and to end after it was told to.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub struct ServedOptions {
    /// The binary: `env!("CARGO_BIN_EXE_glowplug")` in a test of its crate.
    pub binary: PathBuf,
    /// `glowplug.toml`, without `[node]`'s `listen` and `data_dir`.
    pub config: String,
    /// Added to the node's environment.
    pub env: Vec<(String, String)>,
    /// Where the data directory is; a temporary one if `None`. Environments of Python apps can be shared
    /// between tests this way.
    pub data_dir: Option<PathBuf>,
}

/// A running node. Killed with all its runners when dropped.
#[derive(Debug)]
pub struct Served {
    child: Option<Child>,
    address: SocketAddr,
    folder: TempDir,
    options: ServedOptions,
    lives: u32,
}

impl Served {
    /// Starts a node and waits until it answers.
    pub fn start(options: ServedOptions) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("glowplug-test-").tempdir()?;
        std::fs::write(folder.path().join("glowplug.toml"), &options.config)?;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut served = Self { child: None, address, folder, options, lives: 0 };
        served.start_again()?;
        Ok(served)
    }

    /// Starts the node on the same data directory after it ended, on the same port as before.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.start_again_with(&[])
    }

    /// As [`start_again`](Self::start_again), with more in the environment of this one life. A node that
    /// ends before it serves is an error.
    pub fn start_again_with(&mut self, env: &[(&str, &str)]) -> anyhow::Result<()> {
        self.lives += 1;
        let output = self.output_path();
        let log = File::create(self.log_path())?;
        #[expect(clippy::disallowed_methods, reason = "the node under test")]
        let child = Command::new(&self.options.binary)
            .args(["--json", "--config"])
            .arg(self.folder.path().join("glowplug.toml"))
            .args(["serve", "--listen", &self.address.to_string(), "--data-dir"])
            .arg(self.data_dir())
            .envs(self.options.env.iter().map(|(key, value)| (key, value)))
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(log)
            .spawn()
            .context("cannot start the node")?;
        self.child = Some(child);
        let address = wait_until("the node says where it serves", START_TIMEOUT, || {
            let said = std::fs::read_to_string(&output).unwrap_or_default();
            if let Ok(Some(status)) = self.child.as_mut().map_or(Ok(None), Child::try_wait) {
                return Some(Err(anyhow::anyhow!("the node ended with {status}:\n{}", self.log())));
            }
            let event: Value = serde_json::from_str(said.lines().next()?).ok()?;
            event["url"].as_str()?.strip_prefix("http://")?.parse().ok().map(Ok)
        });
        self.address = address?;
        Ok(())
    }

    /// Waits until the node ends by itself. `false`: it did not, and lives on.
    pub fn dies_within(&mut self, bound: Duration) -> bool {
        let Some(child) = &mut self.child else { return true };
        let ended = wait_for(bound, || child.try_wait().ok().flatten()).is_some();
        if ended {
            self.child = None;
        }
        ended
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Holds everything of this node; its path marks the processes that belong to it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.options.data_dir.clone().unwrap_or_else(|| self.folder.path().join("data"))
    }

    pub fn ca_path(&self) -> PathBuf {
        self.data_dir().join("ca").join("ca.pem")
    }

    /// What the node wrote to standard error in its present life.
    pub fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(self.log_path()) {
            drop(file.read_to_string(&mut text));
        }
        text
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join(format!("node-{}.log", self.lives))
    }

    fn output_path(&self) -> PathBuf {
        self.folder.path().join(format!("node-{}.out", self.lives))
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `kill -9`. Runners live on for the configured `adopt_timeout`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Stops in order and returns the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let sent = send_signal(child.id(), "-TERM");
        assert!(sent.is_ok_and(|status| status.success()), "cannot signal the node");
        wait_until("the node ends", STOP_TIMEOUT, || child.try_wait().ok().flatten()).code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            #[expect(clippy::print_stderr, reason = "a failing test shows its node's log")]
            {
                eprintln!("--- the node's log ---\n{}", tail.join("\n"));
            }
        }
        if self.child.is_some() && !std::thread::panicking() {
            self.stop();
        }
        self.kill();
        let marker = self.folder.path().display().to_string();
        for pid in crate::processes_with(&marker) {
            drop(send_signal(pid, "-KILL"));
        }
        // A node that was stopped leaves none; one that a failed test killed would keep its folders for ever.
        for folder in [self.folder.path().to_owned(), self.data_dir()] {
            unmount_below(&folder);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "umount(8), for what a killed node left mounted")]
fn unmount_below(folder: &Path) {
    let Ok(table) = fs::read_to_string("/proc/self/mounts") else { return };
    let places = table.lines().filter_map(|line| line.split(' ').nth(1));
    for place in places.filter(|place| Path::new(place).starts_with(folder)) {
        drop(Command::new("umount").args(["--lazy", place]).status());
    }
}

fn send_signal(pid: u32, signal: &str) -> std::io::Result<std::process::ExitStatus> {
    #[expect(clippy::disallowed_methods, reason = "kill(1), for the node under test")]
    Command::new("kill").args([signal, &pid.to_string()]).status()
}
