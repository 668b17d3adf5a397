//! What names mean, and when images were last used: one small file, replaced as a whole.
//!
//! All of it can be learnt anew, so a file that a power cut has damaged is as good as none.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use glowplug_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Result, Store, failed};
use crate::digest::Digest;

const FILE: &str = "names.json";
/// Beyond it the name that was pulled longest ago is forgotten.
const NAMES_MAX: usize = 10_000;
/// A use that comes sooner after the last one is not written down: it changes nothing about who goes first.
const USE_INTERVAL: Duration = Duration::from_mins(1);

/// Which image a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub digest: Digest,
    /// When the registry last said so.
    pub pulled: Timestamp,
}

#[derive(Debug)]
pub(super) struct Names {
    folder: PathBuf,
    book: Mutex<Book>,
}

/// As it is in the file; times are microseconds since the Unix epoch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Book {
    names: BTreeMap<String, Entry>,
    used: BTreeMap<Digest, u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    digest: Digest,
    pulled: u64,
}

impl Entry {
    fn named(&self) -> Named {
        Named { digest: self.digest.clone(), pulled: Timestamp::from_micros(self.pulled) }
    }
}

impl Names {
    pub(super) fn open(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let book = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(%error, path = %path.display(), "the names of images cannot be read: they are learnt anew");
                Book::default()
            }),
            // A folder that cannot be read is told about by whoever writes into it.
            Err(_) => Book::default(),
        };
        Self { folder: folder.to_owned(), book: Mutex::new(book) }
    }

    /// The image is gone, and so is what was known of it.
    pub(super) fn forget(&self, digest: &Digest) -> Result<()> {
        let mut book = self.book();
        let before = book.names.len() + book.used.len();
        book.names.retain(|_, entry| entry.digest != *digest);
        book.used.remove(digest);
        if book.names.len() + book.used.len() == before {
            return Ok(());
        }
        self.write(&book)
    }

    /// Under the lock, so that the last to write knows all.
    fn write(&self, book: &Book) -> Result<()> {
        let (path, new) = (self.folder.join(FILE), self.folder.join("tmp").join(FILE));
        let text = serde_json::to_vec(book).expect("plain data has a form");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
        written.map_err(|source| failed("write", &path, source))
    }

    /// No code panics while it holds this lock.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Writes down what a registry said a name means.
    pub fn set_name(&self, name: &str, digest: &Digest, now: Timestamp) -> Result<()> {
        let mut book = self.inner.names.book();
        let entry = Entry { digest: digest.clone(), pulled: now.as_micros() };
        book.names.insert(name.to_owned(), entry);
        while book.names.len() > NAMES_MAX {
            let oldest = book.names.iter().min_by_key(|(_, entry)| entry.pulled);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { break };
            book.names.remove(&oldest);
        }
        self.inner.names.write(&book)
    }

    pub fn named(&self, name: &str) -> Option<Named> {
        self.inner.names.book().names.get(name).map(Entry::named)
    }

    /// All names, in order.
    pub fn names(&self) -> Vec<(String, Named)> {
        let book = self.inner.names.book();
        book.names.iter().map(|(name, entry)| (name.clone(), entry.named())).collect()
    }

    /// Writes down that a runner was started of the image.
    pub fn note_use(&self, digest: &Digest, now: Timestamp) -> Result<()> {
        if self.last_use(digest).is_some_and(|last| now.since(last) < USE_INTERVAL) {
            return Ok(());
        }
        let mut book = self.inner.names.book();
        book.used.insert(digest.clone(), now.as_micros());
        self.inner.names.write(&book)
    }

    /// To a minute. `None`: it is not known to have been used.
    pub fn last_use(&self, digest: &Digest) -> Option<Timestamp> {
        self.inner.names.book().used.get(digest).copied().map(Timestamp::from_micros)
    }
}
