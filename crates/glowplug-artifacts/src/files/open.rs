//! Opening a folder: reads what is there, and removes what a crash left unfinished.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use glowplug_core::Timestamp;

use super::folder::{self, Folder};
use super::index::Index;
use super::room::Room;
use super::share::Shares;
use super::upload::{MANIFEST, Manifest, Upload, parse_part_file};
use super::{Digest, Error, FileStore, Options, Record, Result, UploadId};

impl FileStore {
    /// Opens the store below `root`, making it on first use. No two may be open on one folder. Takes time
    /// and waits for the disk: not for an event loop.
    pub fn open(root: &Path, options: Options, now: Timestamp) -> Result<Arc<Self>> {
        let folder = Folder::open(root)?;
        remove_leftovers(&folder)?;
        let (total, reserve) = (options.total_bytes_max, options.disk_reserve_bytes);
        let room = Room::new(folder.root().to_owned(), total, reserve);
        let sizes = contents(&folder)?;
        let index = names(&folder, &sizes)?;
        remove_nameless(&folder, &sizes, &index)?;
        let uploads = uploads(&folder, &index, now)?;
        let shares = Shares::new(&options);
        for record in index.records() {
            shares.add(&record.owner, record.bytes, 1);
        }
        for upload in uploads.values() {
            shares.add(upload.owner(), upload.bytes(), 0);
        }
        room.add(index.bytes());
        room.add(uploads.values().map(|upload| upload.bytes()).sum());
        let (index, uploads) = (Mutex::new(index), Mutex::new(uploads));
        Ok(Arc::new(Self { folder, options, room: Arc::new(room), shares, index, uploads }))
    }
}

/// Files and folders in a folder, which may have gone meanwhile.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    paths.map_err(|source| Error::io("list", folder, source))
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Nothing in it was ever acknowledged.
fn remove_leftovers(folder: &Folder) -> Result<()> {
    for path in list(&folder.temporary())? {
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|source| Error::io("remove", &path, source))?;
    }
    Ok(())
}

fn contents(folder: &Folder) -> Result<HashMap<Digest, u64>> {
    let mut sizes = HashMap::new();
    for shard in list(&folder.contents())? {
        for path in list(&shard)? {
            let Ok(digest) = file_name(&path).parse() else { continue };
            let found = fs::metadata(&path).map_err(|source| Error::io("read", &path, source))?;
            sizes.insert(digest, found.len());
        }
    }
    Ok(sizes)
}

/// The names that can be read. One whose content is gone was being deleted, or is damaged.
fn names(folder: &Folder, sizes: &HashMap<Digest, u64>) -> Result<Index> {
    let mut index = Index::default();
    for shard in list(&folder.names())? {
        for path in list(&shard)? {
            let bytes = fs::read(&path).map_err(|source| Error::io("read", &path, source))?;
            let record = serde_json::from_slice::<Record>(&bytes).ok();
            let record = record.filter(|record| {
                folder.name(record.id) == path && sizes.get(&record.content) == Some(&record.bytes)
            });
            if let Some(record) = record {
                index.refer(record.content, record.bytes);
                index.insert(Arc::new(record));
            } else {
                tracing::warn!(
                    name = file_name(&path),
                    "a file's content is gone, so it goes, too"
                );
                folder::remove_file(&path)?;
            }
        }
    }
    Ok(index)
}

fn remove_nameless(folder: &Folder, sizes: &HashMap<Digest, u64>, index: &Index) -> Result<()> {
    let nameless = sizes.keys().filter(|content| index.is_new(**content));
    nameless.into_iter().try_for_each(|content| folder::remove_file(&folder.content(*content)))
}

/// The uploads that can go on. Idle times count from now: nothing could be added while the store was closed.
fn uploads(
    folder: &Folder,
    index: &Index,
    now: Timestamp,
) -> Result<HashMap<UploadId, Arc<Upload>>> {
    let complete: HashSet<UploadId> = index.uploads().collect();
    let mut uploads = HashMap::new();
    for path in list(&folder.uploads())? {
        let found = match file_name(&path).parse() {
            Ok(id) if !complete.contains(&id) => upload(id, &path, now)?,
            _ => None,
        };
        match found {
            Some(upload) => drop(uploads.insert(upload.id, upload)),
            None => {
                fs::remove_dir_all(&path).map_err(|source| Error::io("remove", &path, source))?;
            }
        }
    }
    Ok(uploads)
}

fn upload(id: UploadId, folder: &Path, now: Timestamp) -> Result<Option<Arc<Upload>>> {
    let Ok(manifest) = fs::read(folder.join(MANIFEST)) else { return Ok(None) };
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&manifest) else { return Ok(None) };
    let mut parts = BTreeMap::new();
    for path in list(folder)? {
        let Some((number, part)) = parse_part_file(file_name(&path)) else { continue };
        let whole = fs::metadata(&path).is_ok_and(|found| found.len() == part.bytes);
        // Two of one number: a crash came between putting the second in place and removing the first.
        // Which one is the later is not known, so the part is to be uploaded again.
        if !whole || parts.insert(number, part).is_some() {
            parts.remove(&number);
        }
    }
    Ok(Some(Upload::new(id, manifest, parts, now)))
}
