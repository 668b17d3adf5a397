//! Snapshots: the memory of runners that were set up, kept so that later ones begin with it.
//!
//! ```text
//! snapshots/.new-…/images     being written; what a killed node leaves is removed by the next
//! snapshots/KEY/images        as it was captured
//! snapshots/KEY/manifest.json what belongs to it, with sizes and hashes; written last
//! snapshots/KEY/quarantined   why it must not be used: then it has no images any more
//! ```
//!
//! A key says all that must be the same for a snapshot to be of use; who makes it knows what that is. A
//! snapshot is handed out only after all of its bytes were hashed since this process began, and as long as
//! the file system says that nobody has written to them since. Limits: the bytes of all together, above which
//! the one goes that was used longest ago; [`SNAPSHOTS_MAX`].

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Of one node, those in quarantine among them. More are not looked at.
const SNAPSHOTS_MAX: usize = 4_096;
/// Files of one snapshot.
const FILES_MAX: usize = 16_384;
const IMAGES: &str = "images";
const MANIFEST: &str = "manifest.json";
const QUARANTINED: &str = "quarantined";
const USED: &str = "used";
const STAGING: &str = ".new-";
const REASON_BYTES_MAX: usize = 2_000;

/// The snapshots of a node.
#[derive(Debug)]
pub struct Snapshots {
    dir: PathBuf,
    bytes_max: u64,
    staged: AtomicU64,
    /// What was found good, and the marks of its files then.
    verified: Mutex<BTreeMap<String, Marks>>,
}

type Marks = BTreeMap<String, Mark>;

/// Changes with every write to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    app: String,
    made_at_micros: u64,
    files: BTreeMap<String, FileRecord>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileRecord {
    bytes: u64,
    /// BLAKE3, in hex.
    hash: String,
}

/// What there is for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// In this directory, as it was captured.
    Good(PathBuf),
    /// To be [verified](Snapshots::verify) before it is used.
    Unverified,
    Quarantined(String),
    Nothing,
}

/// A row of the list of snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotRow {
    pub key: String,
    pub app: String,
    pub bytes: u64,
    pub made_at_micros: u64,
    pub used_at_micros: u64,
    /// Why it is not used.
    pub quarantined: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there is no snapshot {0}: `glowplug snapshots list` shows those there are")]
    Unknown(String),
    #[error("snapshot {key} is damaged: {problem}")]
    Damaged { key: String, problem: String },
    #[error(
        "the snapshot takes {bytes} bytes, more than `snapshot_bytes_max` lets all of them take"
    )]
    TooLarge { bytes: u64 },
}

/// A place for a capture. Removed when it is dropped without having been kept.
#[derive(Debug)]
pub struct Staging {
    dir: PathBuf,
}

impl Staging {
    /// Empty at first, and root's alone.
    pub fn images(&self) -> PathBuf {
        self.dir.join(IMAGES)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // It has another name if it was kept; what stays is removed at the next start.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Snapshots {
    /// Those below this directory, which is made when the first is.
    pub fn new(dir: PathBuf, bytes_max: u64) -> Self {
        Self { dir, bytes_max, staged: AtomicU64::new(0), verified: Mutex::default() }
    }

    /// Removes what an earlier life of the node has left half made. To be called once, by the node.
    pub fn clear_up(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(STAGING) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    pub fn stage(&self) -> Result<Staging, SnapshotError> {
        let count = self.staged.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(format!("{STAGING}{}-{count}", std::process::id()));
        let staging = Staging { dir };
        let images = staging.images();
        // It holds all that the app had in memory.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&images);
        made.map_err(failed("create", &images))?;
        Ok(staging)
    }

    /// Keeps a capture under a key, and what it replaces no longer. It is verified by that.
    pub fn keep(
        &self,
        staging: &Staging,
        key: &str,
        app: &str,
        now_micros: u64,
    ) -> Result<(), SnapshotError> {
        let (files, marks) = read_all(&staging.images())?;
        let bytes: u64 = files.values().map(|file| file.bytes).sum();
        if bytes > self.bytes_max {
            return Err(SnapshotError::TooLarge { bytes });
        }
        let manifest = Manifest { app: app.to_owned(), made_at_micros: now_micros, files };
        let path = staging.dir.join(MANIFEST);
        let text = serde_json::to_vec(&manifest).map_err(|error| SnapshotError::Io {
            what: "write",
            path: path.clone(),
            source: error.into(),
        })?;
        fs::write(&path, text).map_err(failed("write", &path))?;
        let _ = fs::write(staging.dir.join(USED), now_micros.to_string());
        let place = self.place(key)?;
        let _ = fs::remove_dir_all(&place);
        fs::rename(&staging.dir, &place).map_err(failed("create", &place))?;
        self.verified().insert(key.to_owned(), marks);
        self.make_room(key);
        Ok(())
    }

    /// What there is for a key, without reading the bytes of it.
    pub fn held(&self, key: &str) -> Held {
        let Ok(place) = self.place(key) else { return Held::Nothing };
        if let Ok(reason) = fs::read_to_string(place.join(QUARANTINED)) {
            return Held::Quarantined(reason);
        }
        if !place.join(MANIFEST).is_file() {
            return Held::Nothing;
        }
        let images = place.join(IMAGES);
        let known = self.verified().get(key).cloned();
        let now = marks_of(&images).ok();
        if known.is_some() && known == now { Held::Good(images) } else { Held::Unverified }
    }

    /// It was restored from.
    pub fn used(&self, key: &str, now_micros: u64) {
        if let Ok(place) = self.place(key) {
            // At worst it goes sooner than it should.
            let _ = fs::write(place.join(USED), now_micros.to_string());
        }
    }

    /// Reads all of a snapshot. One that is damaged is put in quarantine.
    pub fn verify(&self, key: &str) -> Result<(), SnapshotError> {
        let place = self.place(key)?;
        if let Ok(reason) = fs::read_to_string(place.join(QUARANTINED)) {
            return Err(SnapshotError::Damaged { key: key.to_owned(), problem: reason });
        }
        let Ok(text) = fs::read(place.join(MANIFEST)) else {
            return Err(SnapshotError::Unknown(key.to_owned()));
        };
        let manifest: Option<Manifest> = serde_json::from_slice(&text).ok();
        let checked = match (manifest, read_all(&place.join(IMAGES))) {
            (Some(manifest), Ok((files, marks))) => {
                difference(&manifest.files, &files).map_or(Ok(marks), Err)
            }
            (None, _) => Err("its manifest cannot be read".to_owned()),
            (_, Err(error)) => Err(error.to_string()),
        };
        match checked {
            Ok(marks) => {
                self.verified().insert(key.to_owned(), marks);
                Ok(())
            }
            Err(problem) => {
                self.quarantine(key, &problem);
                Err(SnapshotError::Damaged { key: key.to_owned(), problem })
            }
        }
    }

    /// Sees to it that a key is not used, nor captured again until it is [dropped](Self::remove).
    pub fn quarantine(&self, key: &str, reason: &str) {
        let Ok(place) = self.place(key) else { return };
        self.verified().remove(key);
        let cut = reason.char_indices().nth(REASON_BYTES_MAX).map_or(reason.len(), |(at, _)| at);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&place);
        if made.is_ok() && fs::write(place.join(QUARANTINED), &reason[..cut]).is_ok() {
            let _ = fs::remove_dir_all(place.join(IMAGES));
        } else {
            // Without room for the reason it is gone at least.
            let _ = fs::remove_dir_all(&place);
        }
    }

    /// All of them, by key.
    pub fn list(&self) -> Vec<SnapshotRow> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let keys = names.filter(|name| !name.starts_with('.')).take(SNAPSHOTS_MAX);
        let mut rows: Vec<SnapshotRow> = keys.filter_map(|key| self.row(key)).collect();
        rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        rows
    }

    fn row(&self, key: String) -> Option<SnapshotRow> {
        let place = self.place(&key).ok()?;
        let quarantined = fs::read_to_string(place.join(QUARANTINED)).ok();
        let text = fs::read(place.join(MANIFEST)).ok();
        let manifest: Option<Manifest> = text.and_then(|text| serde_json::from_slice(&text).ok());
        if manifest.is_none() && quarantined.is_none() {
            return None;
        }
        let files = fs::read_dir(place.join(IMAGES)).into_iter().flatten().flatten();
        let bytes = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        let used = fs::read_to_string(place.join(USED)).ok();
        Some(SnapshotRow {
            key,
            app: manifest.as_ref().map(|manifest| manifest.app.clone()).unwrap_or_default(),
            bytes,
            made_at_micros: manifest.map_or(0, |manifest| manifest.made_at_micros),
            used_at_micros: used.and_then(|used| used.parse().ok()).unwrap_or(0),
            quarantined,
        })
    }

    /// Removes a snapshot, or what is known against it.
    pub fn remove(&self, key: &str) -> Result<(), SnapshotError> {
        let place = self.place(key)?;
        self.verified().remove(key);
        match fs::remove_dir_all(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(SnapshotError::Unknown(key.to_owned()))
            }
            removed => removed.map_err(failed("remove", &place)),
        }
    }

    /// Removes the ones used longest ago until the rest may stay. The newest stays.
    fn make_room(&self, newest: &str) {
        let mut rows = self.list();
        let mut bytes: u64 = rows.iter().map(|row| row.bytes).sum();
        rows.retain(|row| row.key != newest && row.quarantined.is_none());
        rows.sort_by_key(|row| row.used_at_micros);
        for row in rows {
            if bytes <= self.bytes_max {
                return;
            }
            if self.remove(&row.key).is_ok() {
                tracing::info!(key = row.key, app = row.app, "a snapshot makes room for others");
                bytes -= row.bytes;
            }
        }
    }

    fn place(&self, key: &str) -> Result<PathBuf, SnapshotError> {
        let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_key { Ok(self.dir.join(key)) } else { Err(SnapshotError::Unknown(key.to_owned())) }
    }

    fn verified(&self) -> MutexGuard<'_, BTreeMap<String, Marks>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io { what, path, source }
}

fn difference(
    expected: &BTreeMap<String, FileRecord>,
    found: &BTreeMap<String, FileRecord>,
) -> Option<String> {
    let wrong = expected.iter().find(|(name, file)| found.get(*name) != Some(file));
    if let Some((name, _)) = wrong {
        return Some(format!("{name} is not what was captured"));
    }
    let more = found.keys().find(|name| !expected.contains_key(*name));
    more.map(|name| format!("{name} was not captured"))
}

/// The files of a capture and their marks, which are read first: a file that is written to meanwhile does not
/// match them any more.
fn read_all(images: &Path) -> Result<(BTreeMap<String, FileRecord>, Marks), SnapshotError> {
    let marks = marks_of(images).map_err(failed("list", images))?;
    let mut files = BTreeMap::new();
    for (name, mark) in &marks {
        let path = images.join(name);
        let mut hasher = blake3::Hasher::new();
        let hashed = File::open(&path).and_then(|file| hasher.update_reader(file).map(drop));
        hashed.map_err(failed("read", &path))?;
        let hash = hasher.finalize().to_hex().to_string();
        files.insert(name.clone(), FileRecord { bytes: mark.bytes, hash });
    }
    Ok((files, marks))
}

fn marks_of(images: &Path) -> io::Result<Marks> {
    let mut marks = Marks::new();
    for entry in fs::read_dir(images)? {
        let entry = entry?;
        let found = entry.metadata()?;
        if marks.len() >= FILES_MAX || !found.is_file() {
            return Err(io::Error::other("it holds what no capture holds"));
        }
        let mark = Mark {
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        };
        marks.insert(entry.file_name().to_string_lossy().into_owned(), mark);
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Damage = fn(&Path);

    const KEY: &str = "0a1b";

    fn kept(store: &Snapshots, key: &str, bytes: usize, now: u64) {
        let staging = store.stage().unwrap();
        fs::write(staging.images().join("pages.img"), vec![7; bytes]).unwrap();
        fs::write(staging.images().join("core.img"), b"core").unwrap();
        store.keep(&staging, key, "local/app", now).unwrap();
    }

    fn image(store: &Snapshots, key: &str) -> PathBuf {
        store.dir.join(key).join(IMAGES).join("pages.img")
    }

    #[test]
    fn what_is_kept_is_handed_out_until_it_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let store = Snapshots::new(dir.path().to_owned(), 1 << 20);
        assert_eq!(store.held(KEY), Held::Nothing);
        kept(&store, KEY, 100, 5);
        assert_eq!(store.held(KEY), Held::Good(dir.path().join(KEY).join(IMAGES)));
        // Another process must look for itself.
        let later = Snapshots::new(dir.path().to_owned(), 1 << 20);
        assert_eq!(later.held(KEY), Held::Unverified);
        later.verify(KEY).unwrap();
        assert!(matches!(later.held(KEY), Held::Good(_)));
        let rows = later.list();
        assert_eq!((rows.len(), rows[0].bytes, rows[0].made_at_micros), (1, 104, 5));
        later.remove(KEY).unwrap();
        assert_eq!(store.held(KEY), Held::Nothing);
        assert!(matches!(store.remove(KEY), Err(SnapshotError::Unknown(_))));
    }

    #[test]
    fn damage_is_noticed_and_quarantined() {
        let damages: [(&str, Damage); 4] = [
            ("bit flipped", |path| {
                let mut bytes = fs::read(path).unwrap();
                bytes[50] ^= 4;
                fs::write(path, bytes).unwrap();
            }),
            ("cut", |path| File::options().write(true).open(path).unwrap().set_len(9).unwrap()),
            ("gone", |path| fs::remove_file(path).unwrap()),
            ("more", |path| fs::write(path.with_extension("new"), b"x").unwrap()),
        ];
        for (what, damage) in damages {
            let dir = tempfile::tempdir().unwrap();
            let store = Snapshots::new(dir.path().to_owned(), 1 << 20);
            kept(&store, KEY, 100, 5);
            damage(&image(&store, KEY));
            assert_eq!(store.held(KEY), Held::Unverified, "{what}");
            assert!(matches!(store.verify(KEY), Err(SnapshotError::Damaged { .. })), "{what}");
            assert!(matches!(store.held(KEY), Held::Quarantined(_)), "{what}");
            assert_eq!(store.list()[0].bytes, 0, "{what}: nothing unusable takes room");
        }
    }

    #[test]
    fn the_longest_unused_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let store = Snapshots::new(dir.path().to_owned(), 1_000);
        kept(&store, "a", 400, 1);
        kept(&store, "b", 400, 2);
        store.used("a", 3);
        kept(&store, "c", 400, 4);
        let keys: Vec<String> = store.list().into_iter().map(|row| row.key).collect();
        assert_eq!(keys, ["a", "c"]);
        let staging = store.stage().unwrap();
        fs::write(staging.images().join("pages.img"), [0; 2_000]).unwrap();
        let refused = store.keep(&staging, "d", "local/app", 5);
        assert!(matches!(refused, Err(SnapshotError::TooLarge { bytes: 2_000 })));
        drop(staging);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_half_made_goes_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let store = Snapshots::new(dir.path().to_owned(), 1_000);
        let staging = store.stage().unwrap();
        std::mem::forget(staging);
        assert!(store.list().is_empty());
        store.clear_up();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_name_that_is_no_key_leads_nowhere() {
        let store = Snapshots::new("/nonexistent".into(), 0);
        for name in ["", "..", "a/b", ".new-1"] {
            assert!(matches!(store.remove(name), Err(SnapshotError::Unknown(_))), "{name}");
            assert_eq!(store.held(name), Held::Nothing, "{name}");
        }
    }
}
