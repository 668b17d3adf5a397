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
/// Files of failed writes that are remembered for another try. Those beyond are written once more.
const LEFT_MAX: usize = 1_000;
/// Files that a backup may put off removing. Those beyond are left to the next sweep.
const DOOMED_MAX: usize = 100_000;

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
    /// Folders that are known to be on the disk.
    folders: HashSet<String>,
    /// Files whose row is not committed, as far as is known.
    under_way: HashSet<String>,
    /// Files of writes that failed, for when the same write is tried again: a full disk must not be
    /// filled further by it.
    left: Vec<Left>,
    /// Backups being made, which need the files that were there when they began.
    holds: usize,
    /// Files to be removed when there is no hold any more.
    doomed: Vec<String>,
}

struct Left {
    name: String,
    hash: blake3::Hash,
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
        let hash = blake3::hash(body);
        let new_body = |name: String| NewBody {
            bytes_total: body.len(),
            hash: Some(hash.into()),
            file: Some(name),
            inline: Vec::new(),
        };
        let placed = |name: &str| Placed {
            bodies: Arc::clone(self),
            files: vec![Left { name: name.to_owned(), hash }],
        };
        let prefix = format!("{shard}/{id}.");
        if let Some(name) = self.take_left(&prefix, hash) {
            let placed = placed(&name);
            return Ok((new_body(name), placed));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}{:016x}.{number}", self.run);
        self.state().under_way.insert(name.clone());
        let placed = placed(&name);
        let partial = self.path(&format!("{name}{TEMPORARY}"));
        let written = self.write(shard, &name, &partial, body);
        if let Err(error) = written {
            drop(std::fs::remove_file(partial));
            self.discard(placed.settled());
            return Err(error);
        }
        Ok((new_body(name), placed))
    }

    /// The file of the same body of an earlier try.
    fn take_left(&self, prefix: &str, hash: blake3::Hash) -> Option<String> {
        let mut state = self.state();
        let is_same = |left: &Left| left.hash == hash && left.name.starts_with(prefix);
        let index = state.left.iter().position(is_same)?;
        let name = state.left.swap_remove(index).name;
        state.under_way.insert(name.clone());
        Some(name)
    }

    fn write(&self, shard: &str, name: &str, partial: &Path, body: &[u8]) -> io::Result<()> {
        let folder = self.folder.join(shard);
        self.make_folder(shard, &folder)?;
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
    fn make_folder(&self, shard: &str, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.folders.contains(shard) {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
        self.sync_folder(&self.folder)?;
        self.sync_folder(self.folder.parent().unwrap_or(Path::new(".")))?;
        state.folders.insert(shard.to_owned());
        Ok(())
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
            let room = DOOMED_MAX.saturating_sub(state.doomed.len());
            if files.len() > room {
                self.expect_orphans();
            }
            state.doomed.extend(files.into_iter().take(room));
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
        // A write that is tried again may have taken its file up meanwhile.
        let mut state = self.state();
        orphans.retain(|name| !state.under_way.contains(name));
        state.left.retain(|left| !orphans.contains(&left.name));
        drop(state);
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
    files: Vec<Left>,
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
        let files: Vec<_> = self.files.drain(..).map(|file| file.name).collect();
        if !files.is_empty() {
            let mut state = self.bodies.state();
            for name in &files {
                state.under_way.remove(name);
            }
        }
        files
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if self.files.is_empty() {
            return;
        }
        self.bodies.expect_orphans();
        let mut state = self.bodies.state();
        for file in self.files.drain(..) {
            state.under_way.remove(&file.name);
            if state.left.len() < LEFT_MAX {
                state.left.push(file);
            }
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
