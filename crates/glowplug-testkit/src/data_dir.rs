//! A data directory for one node that shares what is slow to make.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Context;
use tempfile::TempDir;

/// Found by the hash of what they were made from, so several nodes may share them. The descriptions of apps
/// are not among them: they name the data directory they were written in.
const SHARED_FOLDERS: [&str; 3] = ["environments", "runtime", "tools"];

/// A new data directory whose Python environments are those in `cache`.
pub fn data_dir_with_python_apps(cache: &Path) -> anyhow::Result<TempDir> {
    let data_dir = tempfile::Builder::new().prefix("glowplug-data-").tempdir()?;
    let cache = std::path::absolute(cache)?;
    for name in SHARED_FOLDERS {
        let kept = cache.join(name);
        std::fs::create_dir_all(&kept)
            .with_context(|| format!("cannot create {}", kept.display()))?;
        symlink(&kept, data_dir.path().join(name))?;
    }
    Ok(data_dir)
}
