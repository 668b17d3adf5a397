//! What the tests share: a cache of real environments, and a runner started as a backend would.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use glowplug_artifacts::{AppDescription, Launch, ProgressSender, PythonApps};

pub(crate) const WAIT_MAX: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(10);

/// Where environments are kept between runs, so that packages are fetched once.
pub(crate) fn cache() -> PathBuf {
    let chosen = std::env::var_os("GLOWPLUG_TEST_CACHE").map(PathBuf::from);
    chosen.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-apps"))
}

/// A data directory of the test's own that shares only the installed tools.
pub(crate) fn data_dir_with_tools() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tools = cache().join("tools");
    fs::create_dir_all(&tools).unwrap();
    std::os::unix::fs::symlink(&tools, folder.path().join("tools")).unwrap();
    folder
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps").join(name)
}

pub(crate) fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name).canonicalize().unwrap()
}

pub(crate) async fn prepared(file: &Path, class: &str) -> (AppDescription, Launch) {
    let apps = PythonApps::new(cache());
    let app = apps.inspect(file, Some(class), &ProgressSender::none()).await.unwrap();
    let launch = apps.prepare(&app, &ProgressSender::none()).await.unwrap();
    (app, launch)
}

/// Polls until `look` finds something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let polls = WAIT_MAX.as_millis() / POLL.as_millis();
    for _ in 0..polls {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(POLL);
    }
    panic!("waited in vain for {what}");
}

/// A runner, killed when dropped.
pub(crate) struct Runner {
    child: Child,
    pub(crate) folder: tempfile::TempDir,
}

impl Runner {
    /// Starts as the process backend does: nothing in the environment but what the launch names.
    pub(crate) fn start(launch: &Launch, listen: &[(&str, String)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), launch, listen)
    }

    pub(crate) fn start_on_socket(launch: &Launch) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s").display().to_string();
        Self::start_in(folder, launch, &[("GLOWPLUG_SOCKET", socket)])
    }

    fn start_in(folder: tempfile::TempDir, launch: &Launch, listen: &[(&str, String)]) -> Self {
        let log = |name: &str| fs::File::create(folder.path().join(name)).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test is the runner's backend")]
        let child = Command::new(&launch.argv[0])
            .args(&launch.argv[1..])
            .env_clear()
            .envs(&launch.env)
            .env("GLOWPLUG_TIMELINE", folder.path().join("timeline"))
            .envs(listen.iter().map(|(name, value)| (name, value)))
            .current_dir(&launch.working_dir)
            .stdin(Stdio::null())
            .stdout(log("stdout"))
            .stderr(log("stderr"))
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    pub(crate) fn wait_ready(&mut self) {
        let socket = self.socket();
        wait_for("the runner's socket", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the runner ended with {status}:\n{}", self.text("stderr"));
            }
            UnixStream::connect(&socket).ok()
        });
    }

    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> Answer {
        let stream = UnixStream::connect(self.socket()).unwrap();
        request(stream, method, path, body)
    }

    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.wait_ended()
    }

    pub(crate) fn wait_ended(&mut self) -> ExitStatus {
        wait_for("the runner's end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // It has usually ended by now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }
}

/// One HTTP/1.0 exchange: the answer ends with the connection and is not chunked.
pub(crate) fn request(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    body: &str,
) -> Answer {
    let head = format!(
        "{method} {path} HTTP/1.0\r\nhost: app\r\ncontent-type: application/json\r\n\
         x-fal-request-id: the-request\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Local addresses, as `/proc` writes them, that the process listens on over TCP.
pub(crate) fn listening_addresses(pid: u32) -> Vec<String> {
    const STATE_LISTEN: &str = "0A";
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            let link = link.to_string_lossy().into_owned();
            Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[3] == STATE_LISTEN && sockets.iter().any(|inode| inode == fields[9]) {
                found.push(fields[1].to_owned());
            }
        }
    }
    found
}
