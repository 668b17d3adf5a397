//! The program that captures and restores memory, and whether it can here.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::facts::{FactStatus, HostFact};
use super::runtimes::{find, is_program};

/// Earlier ones do not know sockets and memory maps of today's kernels.
const VERSION_MIN: (u32, u32) = (4, 2);
/// How a kernel that it gets along with is greeted.
const GOOD: &str = "Looks good.";
const REMEDY: &str = "install CRIU 4.2 or newer, and name it in `criu` under [node.warmth] if PATH does not \
                      lead to it";

/// A CRIU that works here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Criu {
    pub program: PathBuf,
    pub version: String,
}

/// Looks for it (`named`: there and nowhere else) and tries it, which takes some 50 ms. `Err` says what is
/// missing and what to do about it.
pub fn find_criu(named: Option<&Path>) -> Result<Criu, String> {
    look(named).map_err(|problem| format!("{problem}: {REMEDY}"))
}

fn look(named: Option<&Path>) -> Result<Criu, String> {
    let program = match named {
        Some(named) if is_program(named) => named.to_owned(),
        Some(named) => return Err(format!("{} is no program", named.display())),
        None => find("criu").ok_or("there is no CRIU")?,
    };
    if !rustix::process::geteuid().is_root() {
        return Err("memory can be captured and restored by root only".to_owned());
    }
    let said = ask(&program, "--version")?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let version = version(&text).ok_or_else(|| format!("{} does not run", program.display()))?;
    if parts(version) < VERSION_MIN {
        return Err(format!("{} is version {version}", program.display()));
    }
    let checked = ask(&program, "check")?;
    if !checked.status.success() || !String::from_utf8_lossy(&checked.stdout).contains(GOOD) {
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        let said = said.lines().find(|line| line.contains("Error")).unwrap_or("`criu check` fails");
        return Err(format!("{version} does not get along with this kernel ({said})"));
    }
    Ok(Criu { version: version.to_owned(), program })
}

fn ask(program: &Path, word: &str) -> Result<Output, String> {
    #[expect(clippy::disallowed_methods, reason = "it is waited for right here")]
    let said = Command::new(program).arg(word).stdin(Stdio::null()).output();
    said.map_err(|error| format!("{} cannot be run: {error}", program.display()))
}

/// From what it says of itself: `Version: 4.2.1`.
fn version(text: &str) -> Option<&str> {
    let version = text.lines().find_map(|line| line.strip_prefix("Version: "))?;
    Some(version.trim()).filter(|version| !version.is_empty())
}

fn parts(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

pub(super) fn fact() -> HostFact {
    let name = "CRIU";
    match look(None) {
        Ok(Criu { version, .. }) => {
            HostFact::ok(name, format!("{version}: snapshots can be taken"))
        }
        Err(problem) => HostFact::lacking(
            name,
            FactStatus::Limited,
            format!("{problem}: starts take no snapshots"),
            REMEDY,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        assert_eq!(version("Version: 4.2.1\nGitID: x\n"), Some("4.2.1"));
        assert_eq!(version("criu: error"), None);
        assert!(parts("3.17.1") < VERSION_MIN && parts("4.1.1") < VERSION_MIN);
        assert!(parts("4.2") >= VERSION_MIN && parts("4.10") >= VERSION_MIN);
    }

    #[test]
    fn what_is_no_criu_is_told_with_what_to_do() {
        for (program, words) in [("/etc/passwd", "is no program"), ("/bin/true", "does not run")] {
            let problem = find_criu(Some(Path::new(program))).unwrap_err();
            let expected = if rustix::process::geteuid().is_root() { words } else { "" };
            assert!(problem.contains(expected) && problem.contains("4.2"), "{problem}");
        }
    }
}
