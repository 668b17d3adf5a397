//! The recorder's files: one being written, and those that are finished.
//!
//! ```text
//! 00000013.open ──sorted, compressed──► 00000013-FIRST-LAST-RECORDS.gptrace ──room needed──► removed
//! ```
//!
//! Everything that can go wrong here costs recordings and nothing else: what cannot be written is counted
//! and left out.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use glowplug_core::{AppId, Timestamp};
use glowplug_sim::trace::App;

use super::log;
use super::segment::{self, Contents, Listing, Segment, Sorted, Unsealed};
use super::tape::Entry;
use crate::config::RecorderConfig;

/// Records in one file. As many are sorted in memory at once, which takes about 25 MB.
const SEGMENT_RECORDS_MAX: u64 = 250_000;
/// Bytes that are handed to the file system at once.
const WRITE_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    bytes_max: u64,
    segment_bytes: u64,
    /// Those of this life of the node, by its own number.
    apps: BTreeMap<u32, App>,
    open: Option<Open>,
    sealed: Vec<Segment>,
    next_number: u32,
    /// Encoded, not yet written.
    unwritten: Vec<u8>,
    unwritten_records: u64,
    /// The last try to write failed. Said once, not with every try.
    failing: bool,
}

/// The file that is being written.
#[derive(Debug)]
struct Open {
    file: File,
    number: u32,
    /// Up to here it is whole.
    bytes: u64,
    records: u64,
    first: Timestamp,
    last: Timestamp,
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    pub segments: u64,
    pub bytes: u64,
    pub records: u64,
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
}

impl Disk {
    /// Takes over what an earlier life of the node left.
    pub(super) fn open(dir: PathBuf, config: &RecorderConfig) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let Listing { sealed, open, debris } = segment::list(&dir)?;
        for path in debris {
            fs::remove_file(path)?;
        }
        let newest = sealed.last().map(|segment| segment.number);
        let newest = newest.max(open.keys().next_back().copied());
        let mut disk = Self {
            dir,
            bytes_max: config.bytes_max,
            segment_bytes: config.segment_bytes,
            apps: BTreeMap::new(),
            open: None,
            sealed,
            next_number: newest.map_or(1, |number| number.saturating_add(1)),
            unwritten: Vec::new(),
            unwritten_records: 0,
            failing: false,
        };
        for (number, path) in open {
            disk.seal(number, &path);
        }
        disk.make_room();
        Ok(disk)
    }

    /// Writes entries down. Returns how many of them could not be.
    pub(super) fn append(&mut self, entries: &mut Vec<Entry>) -> u64 {
        let mut lost = 0;
        let mut may_begin = true;
        for entry in entries.drain(..) {
            if let Entry::App(declared) = &entry {
                let (AppId(id), app) = &**declared;
                self.apps.insert(*id, app.clone());
                if self.open.is_none() {
                    // It stands at the beginning of every file.
                    continue;
                }
            }
            if self.open.is_none()
                && may_begin
                && let Err(error) = self.begin()
            {
                self.complain("cannot begin a file of the recorder", &error);
                may_begin = false;
            }
            lost += if self.open.is_some() { self.put(&entry) } else { 1 };
        }
        lost + self.write()
    }

    fn put(&mut self, entry: &Entry) -> u64 {
        let Some(open) = &mut self.open else { return 1 };
        log::put(entry, &mut self.unwritten);
        if let Some(at) = moment(entry) {
            self.unwritten_records += 1;
            open.first = open.first.min(at);
            open.last = open.last.max(at);
        }
        let lost = if self.unwritten.len() >= WRITE_BYTES { self.write() } else { 0 };
        lost + self.rotate_if_full()
    }

    fn begin(&mut self) -> io::Result<()> {
        let number = self.next_number;
        let path = segment::open_path(&self.dir, number);
        let mut head = log::MAGIC.to_vec();
        for (id, app) in &self.apps {
            log::put(&Entry::App(Box::new((AppId(*id), app.clone()))), &mut head);
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        if let Err(error) = file.set_len(0).and_then(|()| file.write_all(&head)) {
            drop(fs::remove_file(&path));
            return Err(error);
        }
        let (bytes, records) = (head.len() as u64, 0);
        let (first, last) = (Timestamp::MAX, Timestamp::ZERO);
        self.open = Some(Open { file, number, bytes, records, first, last });
        self.next_number = number.saturating_add(1);
        self.failing = false;
        Ok(())
    }

    /// Hands what is encoded to the file system. Returns how many records could not be.
    fn write(&mut self) -> u64 {
        let records = std::mem::take(&mut self.unwritten_records);
        let Some(open) = &mut self.open else { return records };
        let written = open.file.write_all(&self.unwritten);
        let bytes = self.unwritten.len() as u64;
        self.unwritten.clear();
        match written {
            Ok(()) => {
                open.bytes += bytes;
                open.records += records;
                self.failing = false;
                0
            }
            Err(error) => {
                // What comes next must not stand behind half an entry.
                let cut = open.file.set_len(open.bytes);
                self.complain("cannot write what was recorded", &error);
                if cut.is_err() {
                    return records + self.rotate();
                }
                records
            }
        }
    }

    fn rotate_if_full(&mut self) -> u64 {
        let Some(open) = &self.open else { return 0 };
        let bytes = open.bytes + self.unwritten.len() as u64;
        let records = open.records + self.unwritten_records;
        if bytes < self.segment_bytes && records < SEGMENT_RECORDS_MAX {
            return 0;
        }
        self.write() + self.rotate()
    }

    /// Finishes the file that is being written. Returns how many records that lost.
    fn rotate(&mut self) -> u64 {
        let Some(open) = self.open.take() else { return 0 };
        let path = segment::open_path(&self.dir, open.number);
        self.make_room();
        if self.seal(open.number, &path) { 0 } else { open.records }
    }

    /// Sorts a file and compresses it. Returns whether nothing was lost.
    fn seal(&mut self, number: u32, path: &Path) -> bool {
        let sealed = match fs::read(path) {
            Ok(bytes) => {
                let sorted = Sorted::from_entries(log::read(&bytes));
                segment::seal(&self.dir, number, sorted).map_err(anyhow::Error::from)
            }
            Err(error) => Err(error.into()),
        };
        let fine = sealed.is_ok();
        match sealed {
            Ok(segment) => self.sealed.extend(segment),
            Err(error) => self.complain("cannot finish a file of the recorder", &error),
        }
        // What could not be finished is given up: kept, it would count against what can be.
        if let Err(error) = fs::remove_file(path) {
            self.complain("cannot remove a file of the recorder", &error);
        }
        fine
    }

    /// Removes the oldest until a file and its sorted form fit beside the rest.
    fn make_room(&mut self) {
        let room = self.bytes_max.saturating_sub(2 * self.segment_bytes);
        let mut bytes: u64 = self.sealed.iter().map(|segment| segment.bytes).sum();
        let mut gone = 0;
        while bytes > room && gone < self.sealed.len() {
            let oldest = &self.sealed[gone];
            bytes -= oldest.bytes;
            gone += 1;
            if let Err(error) = fs::remove_file(&oldest.path) {
                tracing::warn!("cannot remove {}: {error}", oldest.path.display());
            }
        }
        self.sealed.drain(..gone);
    }

    fn complain(&mut self, what: &str, error: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!("{what}: {error}; the traffic meanwhile is not recorded");
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn extent(&self) -> Extent {
        let mut extent = Extent::default();
        for segment in &self.sealed {
            extent.add(segment.bytes, segment.records, segment.first, segment.last);
        }
        if let Some(open) = &self.open {
            extent.add(open.bytes, open.records, open.first, open.last);
        }
        extent
    }

    /// Finished files, and what is in the one that is being written.
    pub(super) fn contents(&self) -> io::Result<Contents> {
        let mut open = Vec::new();
        if let Some(file) = &self.open {
            open.push(Unsealed::read(&segment::open_path(&self.dir, file.number))?);
        }
        Ok(Contents { sealed: self.sealed.clone(), open })
    }
}

impl Extent {
    pub(super) fn add(&mut self, bytes: u64, records: u64, first: Timestamp, last: Timestamp) {
        self.segments += 1;
        self.bytes += bytes;
        self.records += records;
        if records > 0 {
            self.first = Some(self.first.map_or(first, |earlier| earlier.min(first)));
            self.last = self.last.max(Some(last));
        }
    }
}

/// `None`: it is an app, which no one counts.
fn moment(entry: &Entry) -> Option<Timestamp> {
    match entry {
        Entry::Request(request) => Some(request.at),
        Entry::Start(start) => Some(start.at),
        Entry::Stop(stop) => Some(stop.at),
        Entry::App(_) => None,
    }
}
