//! A fingerprint of the Python sources beside an app, to notice that one has changed.
//!
//! It covers more than the app's own file because an app may import its neighbours, and they are pickled
//! with it. Folders that hold no sources of the user's (hidden ones, environments, caches) are skipped.
//! The walk is bounded; files beyond the bounds do not count, so an app in a huge folder is read again
//! only when one of the files that do count changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const FILES_MAX: usize = 2_000;
const ENTRIES_MAX: usize = 50_000;
const DEPTH_MAX: usize = 12;
/// A larger file counts by its size and time instead of its content.
const FILE_BYTES_MAX: u64 = 4 << 20;

const SKIPPED: [&str; 4] = ["__pycache__", "node_modules", "target", "site-packages"];

/// Hashes `file` itself and every source below `folder` into `hasher`. Blocking.
pub(crate) fn hash_sources(
    hasher: &mut blake3::Hasher,
    folder: &Path,
    file: Option<&Path>,
) -> io::Result<()> {
    if let Some(file) = file {
        hash_file(hasher, file, file)?;
    }
    let mut sources = Vec::new();
    let mut entries_left = ENTRIES_MAX;
    collect(folder, DEPTH_MAX, &mut entries_left, &mut sources);
    sources.sort();
    for source in sources {
        let name = source.strip_prefix(folder).unwrap_or(&source);
        match hash_file(hasher, name, &source) {
            // It went away between the walk and now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

fn collect(folder: &Path, depth_left: usize, entries_left: &mut usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if *entries_left == 0 || found.len() == FILES_MAX {
            return;
        }
        *entries_left -= 1;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        if kind.is_file() && is_source(&name) {
            found.push(path);
        } else if kind.is_dir()
            && depth_left > 0
            && !name.starts_with('.')
            && !SKIPPED.contains(&name.as_ref())
            && !path.join("pyvenv.cfg").exists()
        {
            collect(&path, depth_left - 1, entries_left, found);
        }
    }
}

/// Python's, and what a container of an app may be built from.
fn is_source(name: &str) -> bool {
    const OTHERS: [&str; 2] = ["pyproject.toml", ".dockerignore"];
    let ends_in = |ending| Path::new(name).extension().is_some_and(|found| found == ending);
    let is_dockerfile = {
        ["Dockerfile", "Containerfile"].iter().any(|stem| name.starts_with(stem))
            || ends_in("dockerfile")
    };
    ends_in("py") || OTHERS.contains(&name) || is_dockerfile
}

fn hash_file(hasher: &mut blake3::Hasher, name: &Path, path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    hash_field(hasher, name.as_os_str().as_encoded_bytes());
    if metadata.len() > FILE_BYTES_MAX {
        hash_field(hasher, format!("{:?} {}", metadata.modified()?, metadata.len()).as_bytes());
    } else {
        hash_field(hasher, &fs::read(path)?);
    }
    Ok(())
}

/// Adds one field so that no two lists of fields look the same.
pub(crate) fn hash_field(hasher: &mut blake3::Hasher, field: &[u8]) {
    hasher.update(&(field.len() as u64).to_le_bytes());
    hasher.update(field);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(folder: &Path) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hash_sources(&mut hasher, folder, Some(&folder.join("app.py"))).unwrap();
        hasher.finalize()
    }

    #[test]
    fn neighbours_count_and_caches_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("app.py", "import sibling");
        write("lib/deep.py", "x = 1");
        let first = fingerprint(folder.path());
        for ignored in [".git/a.py", "lib/__pycache__/deep.py", "notes.txt", "env/lib/b.py"] {
            write("env/pyvenv.cfg", "");
            write(ignored, "changed");
            assert_eq!(fingerprint(folder.path()), first, "{ignored}");
        }
        write("Dockerfile.gpu", "FROM scratch");
        let built_from = fingerprint(folder.path());
        assert_ne!(built_from, first);
        write("lib/deep.py", "x = 2");
        let second = fingerprint(folder.path());
        assert_ne!(second, built_from);
        write("sibling.py", "");
        assert_ne!(fingerprint(folder.path()), second);
    }

    #[test]
    fn a_missing_app_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut hasher = blake3::Hasher::new();
        let result = hash_sources(&mut hasher, folder.path(), Some(&folder.path().join("app.py")));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
