//! What starts of an image touched, app by app. Kept when the image goes: it is of use at the next pull.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::PoisonError;

use super::sealed::{seal, unseal};
use super::{Result, Store, failed, names_in};
use crate::digest::Digest;
use crate::touched::Touched;

/// Changes with the form of the file.
const MAGIC: &[u8] = b"glowplug touched 1";
/// Beyond it the app whose list is oldest is forgotten.
const APPS_MAX: usize = 64;
/// Beyond it the image whose lists were written longest ago is forgotten.
const IMAGES_MAX: usize = 1_024;

/// By the names of the apps.
type Lists = BTreeMap<String, Touched>;

impl Store {
    /// What an app touched at its last recorded start. `None`: no start of it was recorded, or its record is
    /// damaged, which is the same.
    pub fn touched_by(&self, image: &Digest, app: &str) -> Result<Option<Touched>> {
        Ok(self.touched_lists(image)?.remove(app))
    }

    /// What any app touched; empty if no start was recorded.
    pub fn touched(&self, image: &Digest) -> Result<Touched> {
        let mut lists: Vec<Touched> = self.touched_lists(image)?.into_values().collect();
        lists.sort_by_key(|list| std::cmp::Reverse(list.recorded()));
        let mut all = Touched::default();
        for list in lists {
            all.add(list);
        }
        Ok(all)
    }

    /// Replaces the list of this app.
    pub fn note_touched(&self, image: &Digest, app: &str, touched: Touched) -> Result<()> {
        let _turn = self.inner.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lists = self.touched_lists(image)?;
        lists.insert(app.to_owned(), touched);
        while lists.len() > APPS_MAX {
            let oldest = lists.iter().min_by_key(|(_, list)| list.recorded());
            let Some(oldest) = oldest.map(|(app, _)| app.clone()) else { break };
            lists.remove(&oldest);
        }
        let folder = self.unfinished();
        let written = tempfile::NamedTempFile::new_in(&folder).and_then(|mut file| {
            file.write_all(&seal(MAGIC, &lists))?;
            file.persist(self.touched_file(image))?;
            Ok(())
        });
        written.map_err(|source| failed("write a list of touched files in", &folder, source))?;
        self.forget_touched_longest_ago()
    }

    fn touched_lists(&self, image: &Digest) -> Result<Lists> {
        let path = self.touched_file(image);
        match fs::read(&path) {
            Ok(sealed) => Ok(unseal(MAGIC, &sealed).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lists::new()),
            Err(error) => Err(failed("read", &path, error)),
        }
    }

    fn forget_touched_longest_ago(&self) -> Result<()> {
        let folder = self.inner.folder.join("touched");
        let mut images = names_in(&folder)?;
        if images.len() <= IMAGES_MAX {
            return Ok(());
        }
        images.sort_by_cached_key(|image| {
            fs::metadata(self.touched_file(image)).and_then(|file| file.modified()).ok()
        });
        for image in &images[..images.len() - IMAGES_MAX] {
            let path = self.touched_file(image);
            fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?;
        }
        Ok(())
    }

    fn touched_file(&self, image: &Digest) -> PathBuf {
        self.inner.folder.join("touched").join(image.hex())
    }
}

#[cfg(test)]
mod tests {
    use glowplug_core::Timestamp;

    use super::*;
    use crate::touched::TouchedFile;

    fn list(second: u64, path: &str) -> Touched {
        let file = TouchedFile::whole(path.into());
        Touched::new(Timestamp::from_micros(second * 1_000_000), [file])
    }

    fn digest(number: u8) -> Digest {
        Digest::of(&[number])
    }

    #[test]
    fn lists_are_kept_by_app_and_read_together() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let image = digest(1);
        assert_eq!(store.touched_by(&image, "a").unwrap(), None);
        store.note_touched(&image, "a", list(1, "bin/a")).unwrap();
        store.note_touched(&image, "b", list(2, "bin/b")).unwrap();
        drop(store);
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.touched_by(&image, "a").unwrap(), Some(list(1, "bin/a")));
        let both = store.touched(&image).unwrap();
        let paths: Vec<_> = both.files().iter().map(|file| file.path.as_slice()).collect();
        assert_eq!(paths, [b"bin/b", b"bin/a"], "the newest first");
        assert_eq!(store.touched(&digest(2)).unwrap(), Touched::default());
    }

    #[test]
    fn a_damaged_list_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let image = digest(1);
        store.note_touched(&image, "a", list(1, "bin/a")).unwrap();
        let path = store.touched_file(&image);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(store.touched_by(&image, "a").unwrap(), None);
        store.note_touched(&image, "a", list(1, "bin/a")).unwrap();
        assert_eq!(store.touched_by(&image, "a").unwrap(), Some(list(1, "bin/a")));
    }

    #[test]
    fn the_oldest_app_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let image = digest(1);
        for number in 0..=APPS_MAX as u64 {
            store.note_touched(&image, &number.to_string(), list(number, "x")).unwrap();
        }
        assert_eq!(store.touched_by(&image, "0").unwrap(), None);
        assert!(store.touched_by(&image, "1").unwrap().is_some());
    }
}
