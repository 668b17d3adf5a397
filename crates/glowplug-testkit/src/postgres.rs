//! A PostgreSQL server of its own for the tests.
//!
//! [`shared_postgres`] is one server for all tests that run at about the same time, in whatever process; each
//! takes a schema of its own. It ends by itself a few seconds after the last of them. [`OwnPostgres`] belongs
//! to one test, which may kill it.
//!
//! The programs are those that `cargo xtask test` names in `GLOWPLUG_TEST_POSTGRES`, or Debian's.

use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

const SCRIPT: &str = include_str!("postgres.sh");
/// Where Debian puts one folder for each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The URL of a server that all tests share. The lock on it lasts as long as this process.
#[expect(clippy::zombie_processes, reason = "the server outlives this process and ends by itself")]
pub fn shared_postgres() -> String {
    static LOCK: OnceLock<(File, String)> = OnceLock::new();
    LOCK.get_or_init(|| {
        let folder = shared_folder();
        let users = open(&folder.join("users"));
        users.lock_shared().expect("the file is on a local disk");
        let starting = open(&folder.join("start"));
        starting.lock().expect("the file is on a local disk");
        if UnixStream::connect(folder.join("server/.s.PGSQL.5432")).is_err() {
            let server = folder.join("server");
            fs::create_dir_all(&server).expect("the folder for the server can be made");
            let mut child = spawn(&server, "", Some(&folder.join("users")), Stdio::null());
            wait_until_ready(&mut BufReader::new(child.stdout.take().expect("it is piped")));
        }
        (users, url(&folder.join("server")))
    })
    .1
    .clone()
}

/// One for each checkout and user, at a path short enough for a socket.
fn shared_folder() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_MANIFEST_DIR"), std::env::var_os("HOME")).hash(&mut hasher);
    let folder = std::env::temp_dir().join(format!("glowplug-postgres-{:x}", hasher.finish()));
    fs::create_dir_all(&folder).expect("the temporary folder can be written to");
    folder
}

fn open(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).expect("the lock file can be written")
}

fn url(folder: &Path) -> String {
    let host = folder.display().to_string().replace('/', "%2F");
    format!("postgres://glowplug@{host}/postgres")
}

/// A server that ends with its owner.
#[derive(Debug)]
pub struct OwnPostgres {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: TempDir,
}

impl OwnPostgres {
    /// `options` are command line options of the server.
    pub fn start(options: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("glowplug-pg").tempdir();
        let folder = folder.expect("the temporary folder can be written to");
        let everybody = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), everybody).expect("the folder is ours");
        let mut child = spawn(folder.path(), options, None, Stdio::piped());
        let mut answers = BufReader::new(child.stdout.take().expect("it is piped"));
        wait_until_ready(&mut answers);
        Self { orders: child.stdin.take(), child, answers, folder }
    }

    pub fn url(&self) -> String {
        url(self.folder.path())
    }

    /// Where its data and its socket are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the server at once, as a crash does, and starts it again.
    pub fn crash(&mut self) {
        self.order("crash");
    }

    pub fn stop(&mut self) {
        self.order("stop");
    }

    pub fn start_again(&mut self) {
        self.order("start");
    }

    fn order(&mut self, order: &str) {
        let orders = self.orders.as_mut().expect("it is there until the drop");
        writeln!(orders, "{order}").expect("the script is listening");
        wait_until_ready(&mut self.answers);
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        self.orders = None;
        // Its data is removed after it has ended.
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "the script ends by itself, and its server with it")]
fn spawn(folder: &Path, options: &str, users: Option<&Path>, input: Stdio) -> Child {
    let log = open(&folder.join("script.log"));
    // A session of its own: what ends the test must not end the script before the server.
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", SCRIPT, "postgres.sh"]).arg(folder).arg(programs()).arg(options);
    command.args(users).stdin(input).stdout(Stdio::piped()).stderr(log);
    command.spawn().expect("setsid is part of every Linux system")
}

fn wait_until_ready(answers: &mut impl std::io::BufRead) {
    let answer = answers.lines().next().and_then(Result::ok);
    assert_eq!(answer.as_deref(), Some("ready"), "the server did not start; see its `script.log`");
}

fn programs() -> PathBuf {
    if let Some(named) = std::env::var_os("GLOWPLUG_TEST_POSTGRES") {
        return named.into();
    }
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let newest = versions
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/initdb").is_file())
        .max_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    let Some(newest) = newest else {
        panic!("there is no PostgreSQL: run `cargo xtask test`, which fetches it, or install it")
    };
    newest.join("bin")
}
