//! Where things lie in the repository.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::Program;

/// The root of the working tree that this program was built from.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// What builds leave behind, and everything that this program fetches.
pub(crate) fn target() -> PathBuf {
    let chosen = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    chosen.map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Files under version control or new and not ignored, relative to the root, in order.
pub(crate) fn files() -> Result<Vec<PathBuf>> {
    let listed = Program::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .dir(root())
        .capture()
        .context("cannot list the files of the repository")?;
    let mut files: Vec<PathBuf> =
        listed.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    // A file deleted but not committed is still listed.
    files.retain(|path| root().join(path).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}
