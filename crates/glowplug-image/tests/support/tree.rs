//! Everything that a file tree says.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) modified: (i64, i64),
    /// How many names it has; 0 for folders, which file systems count differently.
    pub(crate) links: u64,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of a file its hash, of a link its target.
    pub(crate) content: String,
}

pub(crate) type Tree = BTreeMap<PathBuf, Seen>;

pub(crate) fn of_folder(root: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(root, root, &mut tree);
    tree
}

/// Folders that no layer names, or that a whiteout is in, are as old as the machine that made them.
pub(crate) fn without_folder_times(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    for seen in tree.values_mut().filter(|seen| seen.links == 0) {
        seen.modified = (0, 0);
    }
    tree
}

fn walk(root: &Path, folder: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let content = if metadata.is_file() {
            blake3::hash(&fs::read(&path).unwrap()).to_string()
        } else if metadata.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else {
            String::new()
        };
        let seen = Seen {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            links: if metadata.is_dir() { 0 } else { metadata.nlink() },
            xattrs: xattrs(&path),
            content,
        };
        tree.insert(path.strip_prefix(root).unwrap().to_owned(), seen);
        if metadata.is_dir() {
            walk(root, &path, tree);
        }
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    const BYTES: usize = 64 << 10;
    let mut names = vec![0; BYTES];
    let bytes = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..bytes].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    // What the overlay itself keeps is none of the image.
    let names = names.filter(|name| !name.starts_with(b"trusted."));
    let value = |name: &[u8]| {
        let mut value = vec![0; BYTES];
        let bytes = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
        value.truncate(bytes);
        (name.to_vec(), value)
    };
    names.map(value).collect()
}
