//! Programs that benches measure against or with: from the system, or unpacked from Debian's archive.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{Program, on_path};
use crate::tools;

/// A program that may have been fetched.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) path: PathBuf,
    /// Where a fetched program finds its libraries.
    pub(super) libraries: Option<String>,
}

impl Peer {
    /// The program on PATH, or else `inside` of a package. A pattern such as `usr/lib/postgresql/*/bin/pgbench`
    /// may have one `*`, for a version.
    pub(super) fn find(program: &str, package: &str, inside: &str) -> Result<Self> {
        let installed = on_path(program).or_else(|| matching(Path::new("/"), inside));
        if let Some(path) = installed {
            return Ok(Self { path, libraries: None });
        }
        let unpacked = tools::debian(&[package]).with_context(|| {
            format!("this bench needs {program}: install it with `apt-get install {package}`")
        })?;
        let path = matching(&unpacked, inside)
            .with_context(|| format!("Debian's {package} has no {inside}"))?;
        let libraries = unpacked.join("usr/lib").join(triple()).display().to_string();
        Ok(Self { path, libraries: Some(libraries) })
    }

    pub(super) fn program(&self) -> Program {
        self.with_libraries(Program::new(&self.path))
    }

    /// Lets another program, which starts this one, find its libraries.
    pub(super) fn with_libraries(&self, program: Program) -> Program {
        match &self.libraries {
            Some(libraries) => program.env("LD_LIBRARY_PATH", libraries),
            None => program,
        }
    }
}

fn triple() -> String {
    let asked = Program::new("dpkg-architecture").arg("-qDEB_HOST_MULTIARCH").capture();
    asked.map_or_else(
        |_| format!("{}-linux-gnu", std::env::consts::ARCH),
        |triple| triple.trim().to_owned(),
    )
}

/// The file below `root`; with a `*` for one folder, the last in order of names.
fn matching(root: &Path, inside: &str) -> Option<PathBuf> {
    let Some((before, after)) = inside.split_once("/*/") else {
        return Some(root.join(inside)).filter(|path| path.is_file());
    };
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root.join(before))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join(after)))
        .filter(|path| path.is_file())
        .collect();
    folders.sort();
    folders.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_the_last_folder() {
        let root = tempfile::tempdir().unwrap();
        for version in ["13", "15"] {
            let folder = root.path().join("lib").join(version).join("bin");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("tool"), "").unwrap();
        }
        let found = |inside| matching(root.path(), inside);
        assert_eq!(found("lib/*/bin/tool"), Some(root.path().join("lib/15/bin/tool")));
        assert_eq!(found("lib/13/bin/tool"), Some(root.path().join("lib/13/bin/tool")));
        assert_eq!(found("lib/*/bin/other"), None);
        assert_eq!(found("nowhere/*/bin/tool"), None);
    }
}
