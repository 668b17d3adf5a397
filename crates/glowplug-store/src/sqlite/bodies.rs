//! Bodies that are too large for a row, each in a file of its own.
//!
//! ```text
//! glowplug.db.bodies/<last two digits of the id>/<id>.<run>.<number>
//! ```
//!
//! A file is written under a temporary name, synced, renamed, and its folder synced, all before the row
//! that names it is committed, and never changed afterwards. It goes after what named it is gone for good.
//! A crash in between leaves a file that no row names, never a row without its file; such files are swept
//! away when the database is opened, and after a transaction failed. Names are used once, so a file can
//! be missing or damaged but not be another's; each is read against the checksum in its row.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use glowplug_core::RequestId;

use super::Durability;
use super::failure::Failure;
use super::open::{FILE_MODE, with_suffix};
use super::stored_body::{KeptBody, NewBody};
use crate::crash::crash_point;
use crate::store::StoreError;

/// Requests are nobody else's business.
pub(super) const FOLDER_MODE: u32 = 0o700;
/// What a file is called until it is whole.
const TEMPORARY: &str = ".partial";

pub(super) struct Bodies {
    folder: PathBuf,
    durability: Durability,
    /// Tells the names of this run of the process from those of others.
    run: u64,
    next: AtomicU64,
    state: Mutex<State>,
    /// There may be files that no row names.
    has_orphans: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Files whose row is not committed, as far as is known.
    under_way: HashSet<String>,
    /// Backups being made, which need the files that were there when they began.
    holds: usize,
    /// Files to be removed when there is no hold any more.
    doomed: Vec<String>,
}

impl Bodies {
    pub(super) fn beside(database: &Path, durability: Durability) -> Arc<Self> {
        Arc::new(Self {
            folder: folder_of(database),
            durability,
            run: RandomState::new().hash_one(database),
            next: AtomicU64::new(0),
            state: Mutex::default(),
            has_orphans: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Some file may have no row, and nobody knows which.
    pub(super) fn expect_orphans(&self) {
        self.has_orphans.store(true, Ordering::SeqCst);
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Puts a body into a file. When this returns it is on the disk.
    pub(super) fn place(
        self: &Arc<Self>,
        id: RequestId,
        body: &[u8],
    ) -> io::Result<(NewBody, Placed)> {
        let id = format!("{:032x}", id.0);
        let shard = &id[id.len() - 2..];
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{shard}/{id}.{:016x}.{number}", self.run);
        self.state().under_way.insert(name.clone());
        let placed = Placed { bodies: Arc::clone(self), files: vec![name.clone()] };
        let partial = self.path(&format!("{name}{TEMPORARY}"));
        let written = self.write(shard, &name, &partial, body);
        if let Err(error) = written {
            drop(std::fs::remove_file(partial));
            self.discard(placed.settled());
            return Err(error);
        }
        let hash = Some(blake3::hash(body).into());
        let body = NewBody { bytes_total: body.len(), hash, file: Some(name), inline: Vec::new() };
        Ok((body, placed))
    }

    fn write(&self, shard: &str, name: &str, partial: &Path, body: &[u8]) -> io::Result<()> {
        let folder = self.folder.join(shard);
        self.make_folder(&folder)?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(partial)?;
        file.write_all(body)?;
        if self.is_synced() {
            file.sync_data()?;
        }
        crash_point("store.body.written");
        std::fs::rename(partial, self.path(name))?;
        self.sync_folder(&folder)?;
        crash_point("store.body.placed");
        Ok(())
    }

    fn is_synced(&self) -> bool {
        self.durability == Durability::PowerLoss
    }

    /// The folder is on the disk when this returns, whoever made it.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
        self.sync_folder(&self.folder)?;
        self.sync_folder(self.folder.parent().unwrap_or(Path::new(".")))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if self.is_synced() {
            let folder = if folder == Path::new("") { Path::new(".") } else { folder };
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    /// The bytes of a body, wherever they are.
    pub(super) fn read(&self, request: RequestId, body: KeptBody) -> Result<Vec<u8>, Failure> {
        let Some(name) = body.file else { return Ok(body.inline) };
        let path = self.path(&name);
        let damaged = |problem: &str| StoreError::BodyDamaged {
            request,
            path: path.display().to_string(),
            problem: problem.to_owned(),
        };
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::BodyMissing(damaged("the file is missing")));
            }
            Err(error) => return Err(damaged(&error.to_string()).into()),
        };
        if bytes.len() as u64 != body.bytes_total {
            let problem =
                format!("the file has {} bytes instead of {}", bytes.len(), body.bytes_total);
            return Err(damaged(&problem).into());
        }
        if body.hash != Some(blake3::hash(&bytes).into()) {
            return Err(damaged("the checksum is another").into());
        }
        Ok(bytes)
    }

    /// Removes files that nothing names for good, or leaves it to the last hold.
    pub(super) fn discard(&self, files: Vec<String>) {
        if files.is_empty() {
            return;
        }
        let mut state = self.state();
        if state.holds > 0 {
            state.doomed.extend(files);
            return;
        }
        drop(state);
        crash_point("store.body.dropped");
        for name in files {
            if let Err(error) = std::fs::remove_file(self.path(&name))
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(name, %error, "the file of a body could not be removed");
                self.expect_orphans();
            }
        }
    }

    /// No file goes while the hold lasts.
    pub(super) fn hold(self: &Arc<Self>) -> Hold {
        self.state().holds += 1;
        Hold(Arc::clone(self))
    }

    /// Whether to [`sweep`](Self::sweep). Asked once.
    pub(super) fn take_orphans(&self) -> bool {
        self.has_orphans.swap(false, Ordering::SeqCst)
    }

    /// Removes files that no row names. `is_named` must see every row that was committed before its
    /// first call.
    pub(super) fn sweep(
        &self,
        is_named: impl Fn(RequestId, &str) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let names = self.names();
        // A file that is not under way now has its row, if it ever gets one.
        let settled: Vec<String> = {
            let state = self.state();
            let is_settled =
                |name: &String| !state.under_way.contains(name.trim_end_matches(TEMPORARY));
            names.into_iter().filter(is_settled).collect()
        };
        let mut orphans = Vec::new();
        for name in settled {
            let named = match id_in(&name) {
                Some(_) if name.ends_with(TEMPORARY) => false,
                Some(id) => is_named(id, &name)?,
                // Not one of ours.
                None => true,
            };
            if !named {
                orphans.push(name);
            }
        }
        if !orphans.is_empty() {
            tracing::info!(files = orphans.len(), "removing bodies that belong to no request");
        }
        self.discard(orphans);
        Ok(())
    }

    /// All files there are. A folder that cannot be read has none.
    fn names(&self) -> Vec<String> {
        let entries =
            |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let mut names = Vec::new();
        for shard in entries(&self.folder) {
            for file in entries(&shard.path()) {
                if let (Ok(shard), Ok(file)) =
                    (shard.file_name().into_string(), file.file_name().into_string())
                {
                    names.push(format!("{shard}/{file}"));
                }
            }
        }
        names
    }
}

/// Where the bodies of a database are.
pub(super) fn folder_of(database: &Path) -> PathBuf {
    with_suffix(database, ".bodies")
}

fn id_in(name: &str) -> Option<RequestId> {
    let (id, _) = name.split_once('/')?.1.split_once('.')?;
    u128::from_str_radix(id, 16).ok().map(RequestId)
}

/// Files for a write whose end is not known. Dropped as such, they are left for a sweep: a transaction
/// that failed may still come to be, until the next one is through.
pub(super) struct Placed {
    bodies: Arc<Bodies>,
    files: Vec<String>,
}

impl Placed {
    pub(super) fn nothing(bodies: &Arc<Bodies>) -> Self {
        Self { bodies: Arc::clone(bodies), files: Vec::new() }
    }

    pub(super) fn and(mut self, mut other: Self) -> Self {
        self.files.append(&mut other.files);
        self
    }

    /// It is known now whether rows name them.
    pub(super) fn settled(mut self) -> Vec<String> {
        self.settle()
    }

    fn settle(&mut self) -> Vec<String> {
        let files = std::mem::take(&mut self.files);
        let mut state = self.bodies.state();
        for name in &files {
            state.under_way.remove(name);
        }
        files
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if !self.settle().is_empty() {
            self.bodies.expect_orphans();
        }
    }
}

/// See [`Bodies::hold`].
pub(super) struct Hold(Arc<Bodies>);

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.holds -= 1;
        if state.holds == 0 {
            let doomed = std::mem::take(&mut state.doomed);
            drop(state);
            self.0.discard(doomed);
        }
    }
}
