//! Finds what is damaged, and takes it away.
//!
//! What depends on something that is damaged counts as damaged as well, so that the next pull brings it anew:
//! an image for its layers, a layer for its contents.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use super::sum::Sum;
use super::{Error, IMAGE_FILE, Record, Result, Store, TREE_FILE, failed, names_in};
use crate::ContentId;
use crate::digest::Digest;
use crate::layer::{Content, EntryKind};

/// Clocks are set now and then: what is so much older than the first unsynced byte is looked at as well.
const CLOCK_SLACK: Duration = Duration::from_hours(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Nothing is changed.
    No,
    /// What is damaged is removed, unless a runner or a pull needs it now.
    Yes,
}

/// What is damaged, or misses something that it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub contents: BTreeSet<ContentId>,
    pub layers: BTreeSet<Digest>,
    pub images: BTreeSet<Digest>,
    /// Damaged images that could not be removed because runners use them; layers and contents stay with them.
    pub in_use: BTreeSet<Digest>,
    /// Contents that were read and compared with their names.
    pub contents_read: usize,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Of contents, packs and trees that were read.
    pub bytes: u64,
    /// About what there is to read.
    pub total_bytes: u64,
}

/// Counts what was read, and tells.
struct Tally<'t> {
    checked: Checked,
    tell: &'t mut dyn FnMut(Checked),
}

impl Tally<'_> {
    fn read(&mut self, bytes: u64) {
        self.checked.bytes += bytes;
        (self.tell)(self.checked);
    }
}

impl Findings {
    pub fn is_clean(&self) -> bool {
        self.contents.is_empty() && self.layers.is_empty() && self.images.is_empty()
    }
}

impl Store {
    /// Reads everything and compares it with its checksums. As slow as the disk.
    pub fn check(&self, repair: Repair) -> Result<Findings> {
        self.check_and_tell(repair, &mut |_| {})
    }

    /// As [`check`](Self::check); `tell` hears how far it is, after every file.
    pub fn check_and_tell(
        &self,
        repair: Repair,
        tell: &mut dyn FnMut(Checked),
    ) -> Result<Findings> {
        self.check_since(SystemTime::UNIX_EPOCH, repair, tell)
    }

    /// Called when a store is opened, before anything else is done with it.
    pub(super) fn check_after_a_power_cut(&self) -> Result<()> {
        let Some(since) = self.inner.durability.doubtful_since()? else { return Ok(()) };
        self.remove_directories()?;
        let since = since.checked_sub(CLOCK_SLACK).unwrap_or(SystemTime::UNIX_EPOCH);
        let findings = self.check_since(since, Repair::Yes, &mut |_| {})?;
        if !findings.is_clean() {
            tracing::warn!(
                images = findings.images.len(),
                layers = findings.layers.len(),
                contents = findings.contents.len(),
                "the machine went down before everything was on its disk: what was damaged is gone and will be pulled again"
            );
        }
        self.sync()
    }

    /// Contents that were last written before `since` are taken to be whole.
    fn check_since(
        &self,
        since: SystemTime,
        repair: Repair,
        tell: &mut dyn FnMut(Checked),
    ) -> Result<Findings> {
        let _turn = self.inner.collecting.lock().unwrap_or_else(PoisonError::into_inner);
        // A pull that goes on may have found a layer before it is removed here.
        let _layers = self.inner.layers.collect();
        let _contents = self.contents().collect();
        let mut findings = Findings::default();
        let (layer_names, image_names) =
            (self.layer_names()?, names_in(&self.inner.folder.join("images"))?);
        let packs = layer_names.iter().map(|layer| file_bytes(&self.pack_path(layer)));
        let trees = image_names.iter().map(|image| self.tree_bytes(image));
        let total_bytes = packs.chain(trees).sum();
        let mut tally = Tally { checked: Checked { bytes: 0, total_bytes }, tell };
        let contents = self.check_contents(since, &mut findings, &mut tally)?;
        let mut layers = BTreeSet::new();
        for digest in layer_names {
            tally.read(file_bytes(&self.pack_path(&digest)));
            if self.is_layer_intact(&digest, &contents)? {
                layers.insert(digest);
            } else {
                findings.layers.insert(digest);
            }
        }
        for digest in image_names {
            tally.read(self.tree_bytes(&digest));
            if !self.is_image_intact(&digest, &layers)? {
                findings.images.insert(digest);
            }
        }
        if repair == Repair::Yes {
            self.remove_damaged(&mut findings)?;
        }
        Ok(findings)
    }

    /// The contents that are whole.
    fn check_contents(
        &self,
        since: SystemTime,
        findings: &mut Findings,
        tally: &mut Tally<'_>,
    ) -> Result<BTreeSet<ContentId>> {
        let folder = self.contents().folder();
        let listed = self.contents().list().map_err(|source| failed("list", folder, source))?;
        tally.checked.total_bytes += listed.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let mut intact = BTreeSet::new();
        for (id, bytes) in listed {
            tally.read(bytes);
            let path = self.contents().path(&id);
            let written = fs::metadata(&path).and_then(|content| content.modified());
            let is_intact = match written {
                Ok(written) if written < since => true,
                Ok(_) => {
                    findings.contents_read += 1;
                    // A disk that cannot read it does not have it.
                    self.contents().is_intact(&id).unwrap_or(false)
                }
                // Collected since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("look at", &path, error)),
            };
            if is_intact {
                intact.insert(id);
            } else {
                findings.contents.insert(id);
            }
        }
        Ok(intact)
    }

    fn is_layer_intact(&self, digest: &Digest, contents: &BTreeSet<ContentId>) -> Result<bool> {
        let layer = match self.layer(digest) {
            Ok(layer) => layer,
            Err(Error::Io { source, .. }) if source.kind() != io::ErrorKind::NotFound => {
                return Err(failed("read", &self.layer_folder(digest), source));
            }
            Err(_) => return Ok(false),
        };
        let is_there = |content: &Content| match content {
            // In the index of a layer it is nonsense.
            Content::Late { .. } => false,
            Content::Shared { id, .. } => contents.contains(id),
            Content::Packed(_) | Content::Empty => true,
        };
        let has_all = layer.entries.iter().all(|entry| match &entry.kind {
            EntryKind::File(content) => is_there(content),
            _ => true,
        });
        Ok(has_all && self.is_pack_intact(digest, &layer))
    }

    fn is_image_intact(&self, digest: &Digest, layers: &BTreeSet<Digest>) -> Result<bool> {
        let folder = self.image_folder(digest);
        let path = folder.join(IMAGE_FILE);
        let record = match fs::read(&path) {
            Ok(record) => record,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed("read", &path, error)),
        };
        let Ok(record) = serde_json::from_slice::<Record>(&record) else { return Ok(false) };
        let has_all = record.image.layers.iter().all(|layer| layers.contains(layer));
        let is_tree_intact = Sum::of_file(&folder.join(TREE_FILE)).is_ok_and(|sum| {
            sum.bytes == record.tree_bytes && sum.hash.to_string() == record.tree_hash
        });
        Ok(has_all && is_tree_intact && record.image.digest == *digest)
    }

    /// From the top, so that nothing that stays misses something.
    fn remove_damaged(&self, findings: &mut Findings) -> Result<()> {
        for image in &findings.images {
            match self.remove_image(image) {
                Ok(()) | Err(Error::ImageMissing { .. }) => {}
                Err(Error::InUse { .. }) => drop(findings.in_use.insert(image.clone())),
                Err(error) => return Err(error),
            }
        }
        if !findings.in_use.is_empty() {
            // They would have lost what they still need, and pulls would take them for complete.
            return Ok(());
        }
        let late = self.late_layers()?;
        let is_late = |layer: &&Digest| late.contains(layer);
        for layer in findings.layers.iter().filter(|layer| !is_late(layer)) {
            self.remove_layer_unless_pinned(layer)?;
        }
        if findings.layers.iter().any(|layer| is_late(&layer)) {
            // Its filler still gives runners what of it can be read.
            return Ok(());
        }
        let folder = self.contents().folder();
        for content in &findings.contents {
            let removed = self.contents().remove_unpinned(content);
            removed.map_err(|source| failed("remove a content in", folder, source))?;
        }
        Ok(())
    }
}

/// 0 where there is none.
fn file_bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}
