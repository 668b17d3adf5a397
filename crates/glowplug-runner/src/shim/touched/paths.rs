//! The files that a start has opened, as far as they are of its image.
//!
//! What else the program opens, it can make as many of as it likes. It is looked up each time and never kept,
//! so that what a recording takes of memory is up to the image, within [`Bounds`].

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};

/// Beyond these, files are not recorded: a start that opens so many is better off with all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) files: usize,
    /// Of all paths together.
    pub(super) path_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Paths {
    bounds: Bounds,
    /// The layers that the image consists of.
    layers: Vec<OwnedFd>,
    /// Relative to the root, with how many came before.
    places: HashMap<Vec<u8>, usize>,
    path_bytes: usize,
}

impl Paths {
    pub(super) fn of(layers: &[PathBuf], bounds: Bounds) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |dir: &PathBuf| Ok(rustix::fs::open(dir, flags, Mode::empty())?);
        let layers = layers.iter().map(open).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { bounds, layers, places: HashMap::new(), path_bytes: 0 })
    }

    /// Keeps this one, if it is the image's. `false`: there is no room for it.
    pub(super) fn add(&mut self, path: &[u8]) -> bool {
        let is_of_image = || self.layers.iter().any(|layer| has_file(layer.as_fd(), path));
        if self.places.contains_key(path) || !is_of_image() {
            return true;
        }
        let (files, path_bytes) = (self.places.len(), self.path_bytes + path.len());
        if files >= self.bounds.files || path_bytes > self.bounds.path_bytes {
            return false;
        }
        self.places.insert(path.to_vec(), files);
        self.path_bytes = path_bytes;
        true
    }

    /// In the order of first use.
    pub(super) fn in_order(self) -> Vec<Vec<u8>> {
        let mut all: Vec<_> = self.places.into_iter().collect();
        all.sort_unstable_by_key(|(_, place)| *place);
        all.into_iter().map(|(path, _)| path).collect()
    }
}

/// What programs make themselves is not the image's. Links lead nowhere here: the kernel tells real paths.
fn has_file(layer: BorrowedFd<'_>, path: &[u8]) -> bool {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let found = rustix::fs::openat2(layer, OsStr::from_bytes(path), flags, Mode::empty(), resolve);
    let found = found.and_then(|found| rustix::fs::statat(found, "", AtFlags::EMPTY_PATH));
    found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::RegularFile)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn only_files_of_the_image_are_kept_and_count() {
        let layers = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for (layer, name) in [(0, "a"), (1, "b"), (0, "c"), (1, "long")] {
            std::fs::write(layers[layer].path().join(name), "").unwrap();
        }
        let check = |files, path_bytes, opened: &str, expected: (&str, bool)| {
            let layers = layers.each_ref().map(|layer| layer.path().to_owned());
            let mut paths = Paths::of(&layers, Bounds { files, path_bytes }).unwrap();
            let mut is_whole = true;
            for path in opened.split(' ') {
                is_whole &= paths.add(path.as_bytes());
                assert!(paths.places.len() <= files && paths.path_bytes <= path_bytes, "{opened}");
            }
            let kept = String::from_utf8(paths.in_order().join(&b' ')).unwrap();
            assert_eq!((&*kept, is_whole), expected, "{opened}");
        };
        check(9, 99, "c a b a c", ("c a b", true));
        check(2, 99, "made-1 made-2 made-3 b made-4 a", ("b a", true));
        check(2, 99, "a b a", ("a b", true));
        check(2, 99, "a b c", ("a b", false));
        check(9, 2, "made-of-more-bytes a b a", ("a b", true));
        check(9, 5, "long a b", ("long a", false));
        check(9, 4, "a long b", ("a b", false));
    }

    #[test]
    fn a_layer_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let bounds = Bounds { files: 1, path_bytes: 1 };
        assert!(Paths::of(&[folder.path().join("none")], bounds).is_err());
    }

    #[test]
    fn a_file_counts_if_a_layer_has_it_under_its_real_name() {
        let layer = tempfile::tempdir().unwrap();
        std::fs::create_dir(layer.path().join("dir")).unwrap();
        std::fs::write(layer.path().join("dir/file"), "").unwrap();
        std::os::unix::fs::symlink("/etc", layer.path().join("etc")).unwrap();
        let open = File::open(layer.path()).unwrap();
        for (path, expected) in [
            ("dir/file", true),
            ("dir", false),
            ("dir/other", false),
            ("etc/passwd", false),
            ("etc", false),
            ("../dir/file", false),
            ("", false),
        ] {
            assert_eq!(has_file(open.as_fd(), path.as_bytes()), expected, "{path}");
        }
    }
}
