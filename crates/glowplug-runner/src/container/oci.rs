//! A container whose program is started by an OCI runtime instead of the shim.
//!
//! ```text
//! shim ──┬─ init      pid 1: mounts the image's files and makes the network, then sleeps, as ever
//!        ├─ runtime   reads the bundle, starts the program in the init's namespaces, and ends
//!        └─ program   the shim's child once the runtime has gone
//! ```
//!
//! Bundle and state of the runtime are in memory, in mounts that only the runtime sees and the shim holds: the
//! program's environment is in both. The init is pid 1 here too, so signals, exit codes, logs and the way
//! in from outside are those of a container that the shim makes by itself, and a killed shim takes all of
//! it along: there is never a container without a shim, and so no state that outlives it.
//!
//! `runsc` is the exception. It keeps its programs in a kernel of its own, so it stays as the shim's child
//! in place of the program and ends as the program does. Signals end it without reaching the program.

pub(super) mod bundle;
mod config;
mod profile;

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub(crate) use self::config::Terms;

/// Where things are below the scaffold, while the init's mounts are there.
const BUNDLE_DIR: &str = "bundle";
/// Of the bundle, which holds the environment of the program twice.
const BUNDLE_BYTES: u64 = 16 << 20;
/// The number that a shell adds to a signal to make an exit code of it.
pub(crate) const SIGNAL_CODE_BASE: i32 = 128;

/// What a runtime is known to do in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Goes by the common ways.
    Common,
    /// Can leave control groups alone, which the shim has made already. It refuses to make them where
    /// both versions are mounted.
    Crun,
    /// Keeps programs in a kernel of its own.
    Runsc,
}

impl Family {
    pub(crate) fn of(program: &Path) -> Self {
        let name = program.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        match &*name {
            name if name.starts_with("crun") => Self::Crun,
            name if name.starts_with("runsc") => Self::Runsc,
            _ => Self::Common,
        }
    }

    /// Whether the runtime stays as the program's parent and ends as it does.
    pub(crate) fn stays(self) -> bool {
        self == Self::Runsc
    }
}

/// The runtime's view of one container.
#[derive(Debug)]
pub(crate) struct Bundle<'a> {
    pub(crate) runtime: &'a Path,
    /// Of the container, for the runtime.
    pub(crate) id: &'a str,
    scaffold: &'a Path,
}

impl<'a> Bundle<'a> {
    pub(crate) fn new(runtime: &'a Path, id: &'a str, scaffold: &'a Path) -> Self {
        Self { runtime, id, scaffold }
    }

    pub(crate) fn family(&self) -> Family {
        Family::of(self.runtime)
    }

    fn dir(&self) -> PathBuf {
        self.scaffold.join(BUNDLE_DIR)
    }

    pub(crate) const CONFIG: &'static str = "config.json";
    pub(crate) const PID: &'static str = "pid";
    pub(crate) const LOG: &'static str = "log";

    fn common(&self) -> Vec<String> {
        let path = |name: &str| self.dir().join(name).display().to_string();
        let words = ["--root", &path("state"), "--log", &path(Self::LOG), "--log-format", "json"];
        let mut arguments = words.map(str::to_owned).to_vec();
        let own: &[&str] = match self.family() {
            Family::Common => &[],
            Family::Crun => &["--cgroup-manager=disabled"],
            // The network is the namespace's, so that it can be connected to from outside; the groups are
            // the shim's.
            Family::Runsc => &["--network=host", "--ignore-cgroups"],
        };
        arguments.extend(own.iter().map(|word| (*word).to_owned()));
        arguments
    }

    /// The words that prepare everything up to the program's first instruction.
    pub(crate) fn create(&self) -> Vec<String> {
        let file = self.dir().join(Self::PID).display().to_string();
        self.of_bundle("create", &["--pid-file", &file])
    }

    /// The words that let the prepared program run.
    pub(crate) fn start(&self) -> Vec<String> {
        let mut arguments = self.common();
        arguments.extend(["start", self.id].map(str::to_owned));
        arguments
    }

    /// The words that do both, and stay.
    pub(crate) fn run(&self) -> Vec<String> {
        self.of_bundle("run", &[])
    }

    fn of_bundle(&self, verb: &str, options: &[&str]) -> Vec<String> {
        let mut arguments = self.common();
        let dir = self.dir().display().to_string();
        let words = [&[verb][..], options, &["--bundle", &dir, self.id]].concat();
        arguments.extend(words.into_iter().map(str::to_owned));
        arguments
    }

    /// The words that end whatever is left of it.
    pub(crate) fn delete(&self) -> Vec<String> {
        let mut arguments = self.common();
        arguments.extend(["delete", "--force", self.id].map(str::to_owned));
        arguments
    }
}

/// One line of a runtime's log.
#[derive(Debug, Deserialize)]
struct LogLine {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// What a runtime complains of, by its log: the last error.
pub(crate) fn complaint(log: &str) -> Option<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<LogLine>(line).ok());
    let mut errors =
        lines.filter(|line| matches!(&*line.level, "error" | "fatal" | "") && !line.msg.is_empty());
    errors.next_back().map(|line| line.msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_known_by_the_names_of_their_programs() {
        for (program, family) in [
            ("/usr/bin/runc", Family::Common),
            ("/opt/crun-1.21", Family::Crun),
            ("/opt/runsc", Family::Runsc),
            ("/opt/youki", Family::Common),
        ] {
            assert_eq!(Family::of(Path::new(program)), family, "{program}");
        }
    }

    #[test]
    fn the_last_error_is_what_counts() {
        let log = "{\"level\":\"warning\",\"msg\":\"odd\"}\n{\"level\":\"error\",\"msg\":\"first\"}\n\
                   {\"level\":\"error\",\"msg\":\"second\"}\n{\"level\":\"warning\",\"msg\":\"later\"}\nnoise\n";
        assert_eq!(complaint(log).as_deref(), Some("second"));
        assert_eq!(complaint("noise"), None);
    }
}
