//! The OCI runtimes of this host.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::Access;

use super::facts::{FactStatus, HostFact};
use crate::container::Runtime;

/// Known by name, with what installs each.
const KNOWN: [(&str, &str); 3] = [
    ("runc", "`apt-get install runc`, or your system's package of that name"),
    ("crun", "`apt-get install crun`, or your system's package of that name"),
    ("runsc", "see gVisor's page on installing, or `apt-get install runsc`"),
];
/// Where programs are looked for when PATH does not lead to them.
const PLACES: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const NATIVE: &str = "native";

/// The names that a runtime may be given, besides a full path.
pub fn runtime_names() -> impl Iterator<Item = &'static str> {
    std::iter::once(NATIVE).chain(KNOWN.map(|(name, _)| name))
}

/// What runs containers under this name: `native`, `runc`, `crun`, `runsc` or a full path. `Err` says what to
/// install.
pub fn runtime(name: &str) -> Result<Runtime, String> {
    if name == NATIVE {
        return Ok(Runtime::Native);
    }
    if name.starts_with('/') {
        let program = PathBuf::from(name);
        return if is_program(&program) {
            Ok(Runtime::Oci(program))
        } else {
            Err(format!(
                "the container runtime {name} is no program: install it there, or name another"
            ))
        };
    }
    let Some((_, remedy)) = KNOWN.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = runtime_names().collect();
        return Err(format!(
            "there is no container runtime `{name}`: name one of {}, or give the full path of a program",
            known.join(", ")
        ));
    };
    find(name)
        .map(Runtime::Oci)
        .ok_or_else(|| format!("the container runtime `{name}` is not installed: {remedy}"))
}

pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(std::env::split_paths(PLACES));
    dirs.filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(|file| is_program(file))
}

pub(super) fn is_program(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, Access::EXEC_OK).is_ok()
}

pub(super) fn fact() -> HostFact {
    let name = "OCI runtimes";
    let found: Vec<String> = KNOWN
        .iter()
        .filter_map(|(name, _)| Some((*name, find(name)?)))
        .map(|(name, program)| match version(&program) {
            Some(version) => format!("{name} {version}"),
            None => format!("{name}, which does not run"),
        })
        .collect();
    if found.is_empty() {
        let remedy = "needed only for apps with a `runtime`: install runc or crun";
        return HostFact::lacking(
            name,
            FactStatus::Limited,
            "none: containers are run natively",
            remedy,
        );
    }
    HostFact::ok(name, format!("{}, for apps that ask for one by `runtime`", found.join(", ")))
}

/// From the first line of what it says of itself: `runc version 1.1.5`, `crun version 1.8.1`.
fn version(program: &Path) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "it is waited for right here")]
    let said = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let word = text.lines().next()?.split_ascii_whitespace().last()?.to_owned();
    said.status.success().then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        assert_eq!(runtime("native"), Ok(Runtime::Native));
        assert_eq!(runtime("/bin/sh"), Ok(Runtime::Oci("/bin/sh".into())));
        for (name, words) in [
            ("/no/such/runtime", "/no/such/runtime is no program"),
            ("/etc/passwd", "is no program"),
            ("docker", "name one of native, runc, crun, runsc"),
        ] {
            let problem = runtime(name).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
        for name in runtime_names().filter(|name| find(name).is_none() && *name != NATIVE) {
            let problem = runtime(name).unwrap_err();
            assert!(
                problem.contains("is not installed") && problem.contains("install"),
                "{problem}"
            );
        }
    }
}
