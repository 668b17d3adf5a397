//! What of a store would outlive a power cut.
//!
//! Syncing while a start waits would make the start as slow as the disk. Instead a mark says that something is
//! not synced, and in which life of the machine it was written: a process that is killed loses nothing that
//! the kernel has, so only the mark of another life means that something may be missing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{Result, failed};

const MARK: &str = "unsynced";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[derive(Debug)]
pub(super) struct Durability {
    folder: PathBuf,
    /// Writings begun since the mark was last taken away.
    begun: Mutex<u64>,
}

impl Durability {
    pub(super) fn new(folder: &Path) -> Self {
        // What a killed process of this life of the machine has written is not synced either.
        let begun = u64::from(folder.join(MARK).exists());
        Self { folder: folder.to_owned(), begun: Mutex::new(begun) }
    }

    /// Called before anything is written: the mark is on the disk when this returns.
    pub(super) fn begin(&self) -> Result<()> {
        let mut begun = self.begun();
        if *begun == 0 {
            let mark = self.mark();
            self.write_mark(&mark).map_err(|source| failed("write", &mark, source))?;
        }
        *begun += 1;
        Ok(())
    }

    /// Takes the mark away once everything is on the disk, unless something new was begun meanwhile.
    pub(super) fn sync(&self) -> Result<()> {
        let before = *self.begun();
        if before == 0 {
            return Ok(());
        }
        let synced = File::open(&self.folder).and_then(|folder| Ok(rustix::fs::syncfs(&folder)?));
        synced.map_err(|source| failed("sync", &self.folder, source))?;
        let mut begun = self.begun();
        if *begun == before {
            let mark = self.mark();
            fs::remove_file(&mark).map_err(|source| failed("remove", &mark, source))?;
            *begun = 0;
        }
        Ok(())
    }

    /// The mark of another life of the machine is there: what was written from this moment on may be missing.
    pub(super) fn doubtful_since(&self) -> Result<Option<SystemTime>> {
        let mark = self.mark();
        match fs::read_to_string(&mark)
            .and_then(|boot| Ok((boot, fs::metadata(&mark)?.modified()?)))
        {
            Ok((boot, written)) => {
                let now = boot_id().map_err(|source| failed("read", Path::new(BOOT_ID), source))?;
                Ok((boot != now).then_some(written))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &mark, error)),
        }
    }

    fn write_mark(&self, mark: &Path) -> io::Result<()> {
        let mut file = File::create(mark)?;
        file.write_all(boot_id()?.as_bytes())?;
        file.sync_all()?;
        File::open(&self.folder)?.sync_all()
    }

    fn mark(&self) -> PathBuf {
        self.folder.join(MARK)
    }

    /// No code panics while it holds this lock.
    fn begun(&self) -> MutexGuard<'_, u64> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn boot_id() -> io::Result<String> {
    fs::read_to_string(BOOT_ID)
}
