//! The file system that the kernel sees: one folder of numbered files, read-only.
//!
//! Nobody looks at it but overlays, which know names, modes and owners from the tree. What was read stays in the
//! kernel's memory as that of any file.

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, Request, SessionACL,
};
use tokio::runtime::Handle;

use super::fill::Fill;
use crate::lazy::cache::read_padded;
use crate::lazy::plan::ChunkId;
use crate::lazy::reads::Recorder;
use crate::lazy::{FILES_FOLDER, Result, failed};

/// Threads that answer the kernel; a read that has to wait is handed on.
const THREADS: usize = 2;
/// Reads ahead that the kernel may have outstanding.
const BACKGROUND_MAX: u16 = 32;
/// Read by the kernel beyond what was asked for.
const READAHEAD_KIB: u64 = 1024;
/// Nothing ever changes.
const VALID: Duration = Duration::from_hours(24 * 365);

const ROOT: INodeNo = INodeNo(1);
const FOLDER: INodeNo = INodeNo(2);
/// The inode of file number 0.
const FIRST: u64 = 3;

pub(super) struct Files {
    fill: Arc<Fill>,
    recorder: Recorder,
    runtime: Handle,
}

/// How it is mounted.
pub(super) fn config() -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::FSName("glowplug".to_owned()),
        MountOption::Subtype("late".to_owned()),
    ];
    // Overlays read as whoever mounted them.
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    config
}

/// The kernel's own limit is small for a store that is read in order. Without it reads are slower, not wrong.
pub(super) fn widen_readahead(mount: &Path) {
    let Ok(metadata) = std::fs::metadata(mount) else { return };
    let device = metadata.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    let _ = std::fs::write(setting, READAHEAD_KIB.to_string());
}

impl Files {
    pub(super) fn new(fill: Arc<Fill>, recorder: Recorder, runtime: Handle) -> Self {
        Self { fill, recorder, runtime }
    }

    fn number(&self, inode: INodeNo) -> Option<u32> {
        let number = u32::try_from(inode.0.checked_sub(FIRST)?).ok()?;
        ((number as usize) < self.fill.chunks().files.len()).then_some(number)
    }

    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, perm, size) = match inode {
            ROOT | FOLDER => (FileType::Directory, 0o755, 0),
            _ => {
                let number = self.number(inode)?;
                let bytes = self.fill.chunks().files[number as usize].bytes;
                (FileType::RegularFile, 0o644, bytes)
            }
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Option<INodeNo> {
        let name = name.to_str()?;
        match parent {
            ROOT => (name == FILES_FOLDER).then_some(FOLDER),
            FOLDER => {
                let inode = INodeNo(u64::from(name.parse::<u32>().ok()?) + FIRST);
                self.number(inode).map(|_| inode)
            }
            _ => None,
        }
    }
}

impl Filesystem for Files {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What the kernel does not have is done without.
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        let _ = config.set_max_background(BACKGROUND_MAX);
        let _ = config.set_max_write(u32::try_from(READAHEAD_KIB << 10).unwrap_or(u32::MAX));
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.child(parent, name).and_then(|inode| self.attributes(inode));
        match found {
            Some(attributes) => reply.entry(&VALID, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&VALID, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// Whoever opens never waits for this process: the kernel does not ask again. The shim that records what a start
    /// opens does so itself, and must not hang when a filler does. What was read stays in the kernel's memory.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    /// Nothing is ever written; the kernel does not ask again.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(number) = self.number(inode) else { return reply.error(Errno::ENOENT) };
        let file = &self.fill.chunks().files[number as usize];
        let part = offset.min(file.bytes)..offset.saturating_add(u64::from(size)).min(file.bytes);
        let needed: Vec<ChunkId> = self.fill.chunks().covering(number, part.clone()).collect();
        for id in &needed {
            self.recorder.note(*id);
        }
        if needed.iter().all(|id| self.fill.is_here(*id)) {
            return answer(read(&self.fill, number, part), reply);
        }
        let fill = Arc::clone(&self.fill);
        self.runtime.spawn(async move {
            match bring(&fill, needed).await {
                // A disk may take its time, but not as long as handing it on once more would.
                Ok(()) => answer(read(&fill, number, part), reply),
                Err(error) => {
                    let path = String::from_utf8_lossy(&fill.chunks().files[number as usize].path);
                    tracing::error!(%path, "cannot be read: {error}");
                    reply.error(Errno::EIO);
                }
            }
        });
    }
}

async fn bring(fill: &Arc<Fill>, needed: Vec<ChunkId>) -> Result<()> {
    for id in needed {
        fill.ensure(id).await?;
    }
    Ok(())
}

/// All chunks of it are here.
fn read(fill: &Fill, number: u32, part: Range<u64>) -> Result<Vec<u8>> {
    let bytes = usize::try_from(part.end - part.start).expect("it is what the kernel asked for");
    let mut data = vec![0; bytes];
    let place = fill.chunks().files[number as usize].place + part.start;
    read_padded(fill.cache(), &mut data, place).map_err(failed("read the cache"))?;
    Ok(data)
}

fn answer(data: Result<Vec<u8>>, reply: ReplyData) {
    match data {
        Ok(data) => reply.data(&data),
        Err(error) => {
            tracing::error!("{error}");
            reply.error(Errno::EIO);
        }
    }
}
