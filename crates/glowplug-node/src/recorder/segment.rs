//! Finished recordings: each a trace of its own, in order of time, found and described by its name.
//!
//! `00000012-1759400000000000-1759403600000000-81234.gptrace`: the twelfth, its first and last moment in
//! microseconds since the Unix epoch, and how many records it has.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use glowplug_core::Timestamp;
use glowplug_sim::trace::{self, App, Header, LEVEL_DEFAULT, Record, Writer};

use super::log;
use super::tape::Entry;

const SEALED: &str = "gptrace";
const OPEN: &str = "open";
/// A segment on its way to be one.
const SEALING: &str = "sealing";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub number: u32,
    pub first: Timestamp,
    pub last: Timestamp,
    pub records: u64,
    pub bytes: u64,
    pub path: PathBuf,
}

/// What lies in the directory of recordings.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The oldest first.
    pub sealed: Vec<Segment>,
    /// Files being written, or left by a node that died.
    pub open: BTreeMap<u32, PathBuf>,
    /// Of no use.
    pub debris: Vec<PathBuf>,
}

pub(super) fn open_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.{OPEN}"))
}

/// What other people put into the directory is left alone.
pub(super) fn list(dir: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(SEALED) => listing.sealed.extend(Segment::from_name(stem, &path)),
            Some(OPEN) => listing.open.extend(stem.parse().ok().map(|number| (number, path))),
            Some(SEALING) => listing.debris.push(path),
            _ => {}
        }
    }
    listing.sealed.sort_by_key(|segment| segment.number);
    // A crash between the two steps of sealing leaves both forms.
    for segment in &listing.sealed {
        listing.debris.extend(listing.open.remove(&segment.number));
    }
    Ok(listing)
}

impl Segment {
    fn from_name(stem: &str, path: &Path) -> Option<Self> {
        let mut parts = stem.split('-').map(|part| part.parse::<u64>().ok());
        let mut next = || parts.next().flatten();
        let segment = Self {
            number: u32::try_from(next()?).ok()?,
            first: Timestamp::from_micros(next()?),
            last: Timestamp::from_micros(next()?),
            records: next()?,
            bytes: fs::metadata(path).ok()?.len(),
            path: path.to_owned(),
        };
        Some(segment)
    }
}

/// Entries in order of time, with the apps they name.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Sorted {
    /// By the node's own number.
    pub apps: BTreeMap<u32, App>,
    /// Records, never of an app.
    pub records: Vec<Record>,
}

impl Sorted {
    /// Of an app declared more than once, the last declaration counts.
    pub(super) fn from_entries(entries: Vec<Entry>) -> Self {
        let mut apps = BTreeMap::new();
        let mut records = Vec::with_capacity(entries.len());
        for entry in entries {
            records.push(match entry {
                Entry::Request(request) => Record::Request(request),
                Entry::Start(start) => Record::Start(*start),
                Entry::Stop(stop) => Record::Stop(*stop),
                Entry::App(declared) => {
                    let (id, app) = *declared;
                    apps.insert(id.0, app);
                    continue;
                }
            });
        }
        records.retain(|record| app_of(record).is_some_and(|app| apps.contains_key(&app)));
        records.sort_by_key(at);
        Self { apps, records }
    }

    pub(super) fn first(&self) -> Option<Timestamp> {
        self.records.first().map(at)
    }

    pub(super) fn last(&self) -> Option<Timestamp> {
        self.records.last().map(at)
    }
}

/// A file that is not finished.
#[derive(Debug)]
pub(super) struct Unsealed {
    pub bytes: u64,
    pub sorted: Sorted,
}

impl Unsealed {
    /// What is whole of it.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let file = fs::read(path)?;
        Ok(Self { bytes: file.len() as u64, sorted: Sorted::from_entries(log::read(&file)) })
    }
}

/// Everything that is recorded.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub sealed: Vec<Segment>,
    pub open: Vec<Unsealed>,
}

impl Contents {
    /// The newest files, as long as they hold no more than so many records together.
    pub(super) fn newest(mut self, records_max: u64) -> Self {
        let open: u64 = self.open.iter().map(|file| file.sorted.records.len() as u64).sum();
        let mut left = records_max.saturating_sub(open);
        let fits = |segment: &&Segment| match left.checked_sub(segment.records) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        };
        let kept = self.sealed.iter().rev().take_while(fits).count();
        self.sealed.drain(..self.sealed.len() - kept);
        self
    }

    /// Of a directory that nobody writes to.
    pub(super) fn of(dir: &Path) -> io::Result<Self> {
        let Listing { sealed, open, .. } = list(dir)?;
        let open = open.values().map(|path| Unsealed::read(path)).collect::<io::Result<_>>()?;
        Ok(Self { sealed, open })
    }
}

/// When it was; apps are timeless.
pub(super) fn at(record: &Record) -> Timestamp {
    match record {
        Record::App(_) => Timestamp::ZERO,
        Record::Request(request) => request.at,
        Record::Start(start) => start.at,
        Record::Stop(stop) => stop.at,
    }
}

pub(crate) fn app_of(record: &Record) -> Option<u32> {
    match record {
        Record::App(_) => None,
        Record::Request(request) => Some(request.app),
        Record::Start(start) => Some(start.app),
        Record::Stop(stop) => Some(stop.app),
    }
}

/// The same record with another app and a time that counts from elsewhere.
pub(super) fn translated(mut record: Record, app: u32, at: Timestamp) -> Record {
    match &mut record {
        Record::App(_) => {}
        Record::Request(request) => (request.app, request.at) = (app, at),
        Record::Start(start) => (start.app, start.at) = (app, at),
        Record::Stop(stop) => (stop.app, stop.at) = (app, at),
    }
    record
}

/// `at`, counted from `began`.
pub(super) fn since(at: Timestamp, began: Timestamp) -> Timestamp {
    Timestamp::ZERO + (at - began)
}

pub(super) fn header(began: Option<Timestamp>) -> Header {
    Header { began, made_by: concat!("glowplug ", env!("CARGO_PKG_VERSION")).to_owned() }
}

/// Writes a segment that is there as a whole or not at all. `None`: there was nothing to write.
pub(super) fn seal(
    dir: &Path,
    number: u32,
    sorted: Sorted,
) -> Result<Option<Segment>, trace::Error> {
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return Ok(None) };
    let records = sorted.records.len() as u64;
    let temporary = dir.join(format!("{number:08}.{SEALING}"));
    let name = format!("{number:08}-{}-{}-{records}.{SEALED}", first.as_micros(), last.as_micros());
    let path = dir.join(name);
    let unwritten = |source| trace::Error::Write { line: 0, source };
    let bytes = write(&temporary, first, sorted)?;
    fs::rename(&temporary, &path).map_err(unwritten)?;
    Ok(Some(Segment { number, first, last, records, bytes, path }))
}

fn write(path: &Path, began: Timestamp, sorted: Sorted) -> Result<u64, trace::Error> {
    let unwritten = |source| trace::Error::Write { line: 0, source };
    let file = File::create(path).map_err(unwritten)?;
    let mut writer = Writer::new(BufWriter::new(file), &header(Some(began)), LEVEL_DEFAULT)?;
    let mut indexes = BTreeMap::new();
    for (index, (id, app)) in (0..).zip(sorted.apps) {
        writer.write(&Record::App(app))?;
        indexes.insert(id, index);
    }
    for record in sorted.records {
        let at = since(at(&record), began);
        let app = app_of(&record).and_then(|app| indexes.get(&app)).copied();
        let app = app.expect("records of unknown apps were left out");
        writer.write(&translated(record, app, at))?;
    }
    let mut file = writer.finish()?;
    file.flush().map_err(unwritten)?;
    let file = file.into_inner().map_err(|error| unwritten(error.into_error()))?;
    file.sync_all().map_err(unwritten)?;
    Ok(file.metadata().map_err(unwritten)?.len())
}
