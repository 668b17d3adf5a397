//! A registry of container images of its own for a test: Debian's `docker-registry` on a free port of loopback.
//!
//! The program is the one that `cargo xtask test` names in `GLOWPLUG_TEST_REGISTRY`, or the one on PATH.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::wait::wait_until;

const PROGRAM: &str = "docker-registry";
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Ends the registry when its owner does, however that happens: then there is nothing more to read.
const SCRIPT: &str = r#""$0" serve "$1" & registry=$!; read -r _; kill -KILL "$registry""#;

/// Who may use a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Everybody,
    /// [`OwnRegistry::USER`] with [`OwnRegistry::PASSWORD`].
    OneUser,
}

/// A registry that ends with its owner, and its images with it.
#[derive(Debug)]
pub struct OwnRegistry {
    script: Child,
    orders: Option<ChildStdin>,
    address: String,
    /// Removed after the registry has ended.
    _folder: TempDir,
}

impl OwnRegistry {
    pub const USER: &str = "tester";
    pub const PASSWORD: &str = "secret";
    /// bcrypt, the only kind that the registry takes, as fast as it gets.
    const PASSWORD_HASH: &str = "$2b$04$FmXiTy.z5qlD1wTz9wpO3e6.qapWvA9bUHvL9hDqgyFc4B31P831W";

    /// `None` where the program is missing, and says so.
    #[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
    #[expect(clippy::disallowed_methods, reason = "the script ends with its owner")]
    pub fn start(access: Access) -> Option<Self> {
        let Some(program) = program() else {
            eprintln!(
                "skipped: there is no `{PROGRAM}`: run `cargo xtask test`, which fetches it, or install it"
            );
            return None;
        };
        let folder = tempfile::Builder::new().prefix("glowplug-registry").tempdir();
        let folder = folder.expect("the temporary folder can be written to");
        let settings = folder.path().join("registry.yml");
        write(&settings, &Self::settings(access, folder.path()));
        write(&folder.path().join("users"), &format!("{}:{}\n", Self::USER, Self::PASSWORD_HASH));
        let log = folder.path().join("log");
        let output = File::create(&log).expect("the temporary folder can be written to");
        let errors = output.try_clone().expect("a file can be had twice");
        let mut script = Command::new("sh")
            .args(["-c".as_ref(), SCRIPT.as_ref(), program.as_os_str(), settings.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .expect("sh is part of every Linux system");
        let address = wait_until("the registry says where it listens", START_TIMEOUT, || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let (_, rest) = said.split_once("listening on ")?;
            rest.split_once('"').map(|(address, _)| address.to_owned())
        });
        Some(Self { orders: script.stdin.take(), script, address, _folder: folder })
    }

    /// `host:port`, as it stands in an image's name.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn settings(access: Access, folder: &Path) -> String {
        let images = folder.join("images");
        let users = folder.join("users");
        let auth = match access {
            Access::Everybody => String::new(),
            Access::OneUser => {
                format!("auth: {{htpasswd: {{realm: tests, path: {}}}}}\n", users.display())
            }
        };
        format!(
            "version: 0.1\nlog: {{level: info, formatter: text}}\n{auth}storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:0\", secret: tests}}\n",
            images.display()
        )
    }
}

impl Drop for OwnRegistry {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.script.wait();
    }
}

fn write(path: &Path, text: &str) {
    let written = File::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.expect("the temporary folder can be written to");
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("GLOWPLUG_TEST_REGISTRY") {
        return Some(named.into());
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).map(|folder| folder.join(PROGRAM)).find(|path| path.is_file())
}
