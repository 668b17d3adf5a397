//! Images as directories, for kernels that cannot mount them from their files.
//!
//! Contents are shared with the store where the file system can (reflinks), else copied.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    ioctl_ficlone, lsetxattr, makedev, mknodat, utimensat,
};

use super::layers::Packs;
use super::{Result, Store, failed};
use crate::digest::Digest;
use crate::erofs::Packs as _;
use crate::layer::{Content, Meta, Special};
use crate::tree::{NodeId, NodeKind, Tree};

/// In the folder of an image.
const FOLDER: &str = "files";

impl Store {
    /// Where the image is written out, which is done if it was not.
    pub(super) fn directory(&self, digest: &Digest) -> Result<PathBuf> {
        let place = self.directory_of(digest);
        if place.exists() {
            return Ok(place);
        }
        // One at a time: the second start of an image finds it written out.
        let _turn = self.inner.writing_out.lock().unwrap_or_else(PoisonError::into_inner);
        if place.exists() {
            return Ok(place);
        }
        let Some(image) = self.image(digest)? else {
            return Err(super::Error::ImageMissing { image: digest.clone() });
        };
        self.inner.durability.begin()?;
        let _pins = self.pin_layers(&image.layers);
        let (layers, tree) = self.merged(&image)?;
        let parent = self.unfinished();
        let made = tempfile::tempdir_in(&parent)
            .map_err(|source| failed("make a folder in", &parent, source))?;
        let writing =
            Writing { store: self, tree: &tree, packs: Packs(&layers), links: HashMap::new() };
        writing.write(made.path()).map_err(|source| failed("write out", made.path(), source))?;
        super::layers::rename_into_place(made, &place)?;
        Ok(place)
    }

    pub(super) fn directory_of(&self, digest: &Digest) -> PathBuf {
        self.image_folder(digest).join(FOLDER)
    }

    /// What was not synced may be anything after a power cut. It is written out again when it is wanted.
    pub(super) fn remove_directories(&self) -> Result<()> {
        for digest in super::names_in(&self.inner.folder.join("images"))? {
            let place = self.directory_of(&digest);
            match fs::remove_dir_all(&place) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &place, error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A tree on its way to the disk. Names come from a tree, in which every parent is a directory: no link is followed.
struct Writing<'a> {
    store: &'a Store,
    tree: &'a Tree,
    packs: Packs<'a>,
    /// Where a node with several names was written first.
    links: HashMap<NodeId, PathBuf>,
}

impl Writing<'_> {
    fn write(mut self, root: &Path) -> io::Result<()> {
        self.directory(NodeId::ROOT, root)
    }

    /// Fills a directory that exists; what it says of itself is set last, as filling it changes its times.
    fn directory(&mut self, id: NodeId, place: &Path) -> io::Result<()> {
        let node = self.tree.node(id);
        let NodeKind::Directory(children) = &node.kind else { return Ok(()) };
        for (name, child) in children {
            let place = place.join(OsStr::from_bytes(name));
            if matches!(self.tree.node(*child).kind, NodeKind::Directory(_)) {
                fs::create_dir(&place)?;
                self.directory(*child, &place)?;
            } else if let Some(first) = self.links.get(child) {
                fs::hard_link(first, &place)?;
            } else {
                self.leaf(*child, &place)?;
                self.links.insert(*child, place);
            }
        }
        describe(place, &node.meta, Mode::from_raw_mode(node.meta.mode.into()))
    }

    fn leaf(&self, id: NodeId, place: &Path) -> io::Result<()> {
        let node = self.tree.node(id);
        let mode = Mode::from_raw_mode(node.meta.mode.into());
        match &node.kind {
            NodeKind::Directory(_) => Ok(()),
            NodeKind::File(content) => {
                self.file(content, node.layer, place)?;
                describe(place, &node.meta, mode)
            }
            NodeKind::Symlink(target) => {
                std::os::unix::fs::symlink(OsStr::from_bytes(target), place)?;
                describe_link(place, &node.meta)
            }
            NodeKind::Special(special) => {
                let (kind, device) = match *special {
                    Special::CharacterDevice { major, minor } => {
                        (FileType::CharacterDevice, makedev(major, minor))
                    }
                    Special::BlockDevice { major, minor } => {
                        (FileType::BlockDevice, makedev(major, minor))
                    }
                    Special::Fifo => (FileType::Fifo, 0),
                    Special::Socket => (FileType::Socket, 0),
                };
                mknodat(CWD, place, kind, mode, device)?;
                describe(place, &node.meta, mode)
            }
        }
    }

    fn file(&self, content: &Content, layer: u32, place: &Path) -> io::Result<()> {
        let mut file = File::create_new(place)?;
        match content {
            Content::Empty => Ok(()),
            Content::Late { .. } => Err(io::Error::other("its content is not here yet")),
            Content::Packed(slice) => {
                let mut bytes = vec![0; slice.bytes as usize];
                self.packs.read(layer, slice.offset, &mut bytes)?;
                file.write_all(&bytes)
            }
            Content::Shared { id, .. } => {
                let mut content = File::open(self.store.contents().path(id))?;
                if ioctl_ficlone(&file, &content).is_ok() {
                    return Ok(());
                }
                io::copy(&mut content, &mut file).map(drop)
            }
        }
    }
}

/// In this order: a new owner takes set-user-id bits and capabilities away.
fn describe(place: &Path, meta: &Meta, mode: Mode) -> io::Result<()> {
    describe_link(place, meta)?;
    chmodat(CWD, place, mode, AtFlags::empty())?;
    set_times(place, meta)
}

fn describe_link(place: &Path, meta: &Meta) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    chownat(CWD, place, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    for (name, value) in &meta.xattrs {
        lsetxattr(place, name.as_slice(), value, XattrFlags::empty())?;
    }
    set_times(place, meta)
}

fn set_times(place: &Path, meta: &Meta) -> io::Result<()> {
    let (seconds, nanoseconds) = meta.modified;
    let modified = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    let times = Timestamps { last_access: modified, last_modification: modified };
    Ok(utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
