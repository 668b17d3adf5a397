//! Where the trees of images are mounted: once for all runners, and for as long as the image is here.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::mounting::Mounting;
use super::{Error, Result, Store, TREE_FILE, failed};
use crate::digest::Digest;
use crate::lazy::Late;

/// What `statfs` says of an EROFS.
const EROFS_MAGIC: i64 = 0xE0F5_E1E2;

/// The lower layers of a runner's root: `lowerdir=TREE::CONTENTS[::LATE],metacopy=on,redirect_dir=on`. While it is
/// held the image is not removed; once the root is mounted, the kernel knows that the image is in use.
#[derive(Debug)]
pub struct Mounted {
    /// All names of the image, and the contents of small files.
    pub tree: PathBuf,
    /// The contents of large files: a data-only layer. `None`: all contents are in `tree`.
    pub contents: Option<PathBuf>,
    /// The contents that come when they are read: another data-only layer, below the other one.
    pub late: Option<PathBuf>,
    pub(super) hold: Hold,
}

/// What keeps the image in its place.
#[derive(Debug)]
pub(super) enum Hold {
    Image(#[expect(dead_code, reason = "it is held, not looked at")] Start),
    Late { folder: PathBuf, _users: File },
}

/// One that is counted in [`Mounts`].
#[derive(Debug)]
pub(super) struct Start {
    image: Digest,
    store: Store,
}

impl Mounted {
    /// The data-only layers below the tree, the first to be asked first.
    pub fn data(&self) -> Vec<PathBuf> {
        self.contents.iter().chain(&self.late).cloned().collect()
    }

    /// `None`: it is no late image.
    pub fn as_late(&self) -> Option<Late> {
        match &self.hold {
            Hold::Image(_) => None,
            Hold::Late { folder, .. } => Some(Late::at(folder)),
        }
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        let mut mounts = self.store.mounts();
        if let Some(starts) = mounts.starts.get_mut(&self.image) {
            *starts -= 1;
            if *starts == 0 {
                mounts.starts.remove(&self.image);
            }
        }
    }
}

/// Held over a mount or unmount, so that two starts of one image mount it once. Never held while an image is
/// written out: starts that end take it too.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// How many [`Mounted`] there are of each image.
    starts: HashMap<Digest, u32>,
}

impl Store {
    /// Mounts an image's tree unless it is mounted; microseconds either way. Where the kernel cannot, the image is
    /// written out once, as slow as the disk. Needs root.
    pub fn mount(&self, digest: &Digest) -> Result<Mounted> {
        // From here on the image stays, so that nothing else has to wait while it is written out.
        let start = self.begin_start(digest)?;
        let (tree, contents) = match self.mounting()? {
            Mounting::Shared => {
                let _turn = self.mounts();
                let source = self.image_folder(digest).join(TREE_FILE);
                (self.mount_tree(digest, &source)?, Some(self.contents().folder().to_owned()))
            }
            Mounting::Directories => (self.directory(digest)?, None),
        };
        Ok(Mounted { tree, contents, late: None, hold: Hold::Image(start) })
    }

    fn begin_start(&self, digest: &Digest) -> Result<Start> {
        let mut mounts = self.mounts();
        if !self.image_folder(digest).join(TREE_FILE).exists() {
            return Err(Error::ImageMissing { image: digest.clone() });
        }
        *mounts.starts.entry(digest.clone()).or_default() += 1;
        Ok(Start { image: digest.clone(), store: self.clone() })
    }

    fn mount_tree(&self, digest: &Digest, source: &Path) -> Result<PathBuf> {
        let tree = self.mount_point(digest);
        match fs::create_dir(&tree) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make", &tree, error));
            }
            _ => {}
        }
        if !is_mounted(&tree)? {
            let flags = MountFlags::RDONLY | MountFlags::NODEV;
            mount(source, &tree, "erofs", flags, None)
                .map_err(|error| failed("mount", source, error.into()))?;
        }
        Ok(tree)
    }

    fn unmount(&self, digest: &Digest) -> Result<()> {
        self.unmount_and(digest, || ())
    }

    /// Fails where a runner uses the image, or is about to. Nobody mounts it before `then` has returned.
    ///
    /// An overlay keeps the file system below it without making it look busy, so the kernel is asked for the
    /// overlays that there are, in every mount namespace.
    pub(super) fn unmount_and<T>(&self, digest: &Digest, then: impl FnOnce() -> T) -> Result<T> {
        let mounts = self.mounts();
        let tree = self.mount_point(digest);
        if self.has_users(&mounts, &overlays()?, digest) {
            return Err(Error::InUse { image: digest.clone() });
        }
        match unmount(&tree, UnmountFlags::empty()) {
            // Not there, or not mounted.
            Ok(()) | Err(Errno::NOENT | Errno::INVAL) => {}
            Err(Errno::BUSY) => return Err(Error::InUse { image: digest.clone() }),
            Err(error) => return Err(failed("unmount", &tree, error.into())),
        }
        match fs::remove_dir(&tree) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &tree, error))
            }
            _ => Ok(then()),
        }
    }

    /// Which of these a runner uses, or is about to.
    pub(super) fn in_use<'d>(
        &self,
        images: impl Iterator<Item = &'d Digest>,
    ) -> Result<HashSet<Digest>> {
        let mounts = self.mounts();
        let overlays = overlays()?;
        Ok(images.filter(|image| self.has_users(&mounts, &overlays, image)).cloned().collect())
    }

    fn has_users(&self, mounts: &Mounts, overlays: &Overlays, image: &Digest) -> bool {
        let trees = [self.mount_point(image), self.directory_of(image)];
        mounts.starts.contains_key(image) || trees.iter().any(|tree| overlays.have(tree))
    }

    /// Unmounts every image that no runner uses. What cannot be unmounted stays for the next time.
    pub fn unmount_unused(&self) -> Result<()> {
        let folder = self.inner.folder.join("mounts");
        for entry in fs::read_dir(&folder).map_err(|source| failed("list", &folder, source))? {
            let entry = entry.map_err(|source| failed("list", &folder, source))?;
            let Ok(digest) = format!("sha256:{}", entry.file_name().display()).parse() else {
                continue;
            };
            match self.unmount(&digest) {
                Ok(()) | Err(Error::InUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn mount_point(&self, digest: &Digest) -> PathBuf {
        self.inner.folder.join("mounts").join(digest.hex())
    }

    /// No code panics while it holds this lock.
    fn mounts(&self) -> MutexGuard<'_, Mounts> {
        self.inner.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_mounted(folder: &Path) -> Result<bool> {
    let statfs = rustix::fs::statfs(folder);
    let statfs = statfs.map_err(|error| failed("look at", folder, error.into()))?;
    Ok(statfs.f_type == EROFS_MAGIC)
}

/// Whether a runner has a tree as the uppermost of its layers.
pub(crate) fn is_under_an_overlay(tree: &Path) -> Result<bool> {
    Ok(overlays()?.have(tree))
}

/// The lines of all overlays that there are.
struct Overlays(Vec<String>);

impl Overlays {
    /// Whether one of them has this as its uppermost lower layer.
    fn have(&self, tree: &Path) -> bool {
        // Others follow, or other options.
        let wanted = [":", ","].map(|end| format!("lowerdir={}{end}", tree.display()));
        self.0.iter().any(|line| wanted.iter().any(|wanted| line.contains(wanted)))
    }
}

/// In every mount namespace that a process is in.
fn overlays() -> Result<Overlays> {
    let proc = Path::new("/proc");
    let (mut seen, mut found) = (HashSet::new(), Vec::new());
    for process in fs::read_dir(proc).map_err(|source| failed("list", proc, source))? {
        let process = process.map_err(|source| failed("list", proc, source))?.path();
        // Threads of the kernel have none, and a process may end at any moment.
        let Ok(namespace) = fs::read_link(process.join("ns/mnt")) else { continue };
        if !seen.insert(namespace) {
            continue;
        }
        let Ok(table) = fs::read_to_string(process.join("mountinfo")) else { continue };
        found.extend(table.lines().filter(|line| line.contains(" - overlay ")).map(as_written));
    }
    Ok(Overlays(found))
}

/// A line of a table of mounts without the form that the kernel gives to what would part its fields.
fn as_written(line: &str) -> String {
    const FORMS: [(&str, &str); 4] =
        [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    FORMS.iter().fold(line.to_owned(), |line, (form, meant)| line.replace(form, meant))
}
