//! How this kernel can give runners the files of an image.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{Result, Store, failed};
use crate::erofs;
use crate::tree::Tree;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounting {
    /// The image's tree is mounted from its file, and contents are shared through data-only layers. Needs EROFS
    /// from plain files (Linux 6.12) and overlays with data-only layers (Linux 6.5).
    Shared,
    /// Each image is written out as a directory when it is first wanted.
    Directories,
}

struct Nothing;

impl erofs::Packs for Nothing {
    fn read(&self, _: u32, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::Error::other("an empty tree has no contents"))
    }
}

impl Store {
    /// Asks the kernel once, by doing it. Needs root.
    pub(crate) fn mounting(&self) -> Result<Mounting> {
        if let Some(known) = self.inner.mounting.get() {
            return Ok(*known);
        }
        let found = self.probe()?;
        if found == Mounting::Directories {
            tracing::warn!(
                "this kernel cannot mount images from their files (EROFS from files, Linux 6.12, and overlays \
                 with data-only layers, Linux 6.5): each image is written out when it is first wanted, and no \
                 image starts before all of it is here"
            );
        }
        Ok(*self.inner.mounting.get_or_init(|| found))
    }

    fn probe(&self) -> Result<Mounting> {
        let parent = self.unfinished();
        let folder = tempfile::tempdir_in(&parent)
            .map_err(|source| failed("make a folder in", &parent, source))?;
        let place = folder.path();
        try_in(place, self.contents().folder())
            .map_err(|source| failed("try mounts in", place, source))
    }
}

fn try_in(place: &Path, contents: &Path) -> io::Result<Mounting> {
    let (image, tree, root) = (place.join("image"), place.join("tree"), place.join("root"));
    fs::create_dir(&tree)?;
    fs::create_dir(&root)?;
    let mut file = BufWriter::new(File::create(&image)?);
    erofs::write(&Tree::default(), &Nothing, &mut file).map_err(io::Error::other)?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?;
    if !works(mount(&image, &tree, "erofs", MountFlags::RDONLY, None))? {
        return Ok(Mounting::Directories);
    }
    let layers = format!("lowerdir={}::{}", tree.display(), contents.display());
    let options = CString::new(format!("{layers},metacopy=on,redirect_dir=on"))?;
    let overlaid = works(mount("overlay", &root, "overlay", MountFlags::RDONLY, &*options));
    if let Ok(true) = overlaid {
        unmount(&root, UnmountFlags::empty())?;
    }
    unmount(&tree, UnmountFlags::empty())?;
    Ok(if overlaid? { Mounting::Shared } else { Mounting::Directories })
}

/// Whether the kernel did it. That it refuses this user is another matter.
fn works(mounted: rustix::io::Result<()>) -> io::Result<bool> {
    match mounted {
        Ok(()) => Ok(true),
        Err(error @ (Errno::PERM | Errno::ACCESS)) => Err(error.into()),
        Err(_) => Ok(false),
    }
}
