//! Writes down what the node's traffic was like: what came when, how long it waited and was worked on, how
//! starts went and why runners ended. For `glowplug trace`, and from there for the planner.
//!
//! ```text
//! desk ─► tape ──every second──► NUMBER.open ──when full──► NUMBER-….gptrace ──export──► one trace
//!         entries                as they ended              in order of arrival
//! ```
//!
//! Nothing of what requests hold is recorded, and nothing of who sent them. Limits: entries on the tape,
//! records and bytes of a file, bytes of all files; beyond them the oldest files go, and entries that
//! nobody took in time are dropped and counted. Flushed every second and not synchronised with the disk:
//! a node that dies loses its last second, a machine that dies perhaps more. Requests that have not ended
//! are not in it.

mod disk;
mod export;
mod log;
mod merge;
mod segment;
pub(crate) mod tape;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_sim::trace;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::disk::{Disk, Extent};
pub(crate) use self::export::Export;
pub use self::export::Exported;
pub(crate) use self::segment::app_of;
use self::segment::{Contents, Unsealed};
use self::tape::{Entry, Take};
use crate::config::RecorderConfig;
use crate::desk::Desk;
use crate::metrics::Metrics;
use crate::shared::Shared;

/// Exports at the same time: each sorts a file in memory.
pub(crate) const EXPORTS_MAX: usize = 2;
/// Between two looks at the tape.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Which part of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only what came at this moment or later.
    pub since: Option<Timestamp>,
    /// By full name; empty: all.
    pub apps: Vec<String>,
}

/// What has been recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    pub segments: u64,
    pub bytes: u64,
    pub records: u64,
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the recordings in {dir}")]
    Unreadable { dir: PathBuf, source: std::io::Error },
    #[error("nothing of `{name}` is recorded{}", .nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default())]
    UnknownApp { name: String, nearest: Option<String> },
    #[error("the trace cannot be written")]
    Trace(#[from] trace::Error),
}

#[derive(Debug)]
pub(crate) struct Recorder {
    files: Mutex<Files>,
    dropped: AtomicU64,
    exports: Arc<Semaphore>,
}

#[derive(Debug)]
struct Files {
    disk: Disk,
    /// A list that was written down, to be filled again.
    emptied: Vec<Entry>,
}

/// Where a node with this data directory records.
fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("trace")
}

impl Recorder {
    /// Finishes what an earlier life of the node left.
    pub(crate) fn open(data_dir: &Path, config: &RecorderConfig) -> std::io::Result<Self> {
        let disk = Disk::open(dir(data_dir), config)?;
        let files = Mutex::new(Files { disk, emptied: Vec::new() });
        let exports = Arc::new(Semaphore::new(EXPORTS_MAX));
        Ok(Self { files, dropped: AtomicU64::new(0), exports })
    }

    /// The right to export, for as long as it is held. `None`: enough others do.
    pub(crate) fn admit_export(&self) -> Option<OwnedSemaphorePermit> {
        self.exports.clone().try_acquire_owned().ok()
    }

    /// Entries that could not be recorded since the node started.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Everything up to now. Blocks.
    pub(crate) fn recorded(&self, desk: &Desk, metrics: &Metrics) -> Recorded {
        let mut files = self.files();
        self.flush_into(&mut files, desk, metrics);
        files.disk.extent().into()
    }

    /// Writes down what is on the tape. Blocks.
    pub(crate) fn flush(&self, desk: &Desk, metrics: &Metrics) {
        self.flush_into(&mut self.files(), desk, metrics);
    }

    fn flush_into(&self, files: &mut Files, desk: &Desk, metrics: &Metrics) {
        let Take { mut entries, dropped } = desk.take_tape(std::mem::take(&mut files.emptied));
        let lost = dropped + files.disk.append(&mut entries);
        files.emptied = entries;
        if lost > 0 {
            self.dropped.fetch_add(lost, Ordering::Relaxed);
            metrics.trace_dropped(lost);
        }
    }

    /// Everything up to now that fits the selection. Blocks.
    pub(crate) fn export(
        &self,
        desk: &Desk,
        metrics: &Metrics,
        selection: &Selection,
    ) -> Result<Export, Error> {
        let mut files = self.files();
        self.flush_into(&mut files, desk, metrics);
        let contents = files
            .disk
            .contents()
            .map_err(|source| Error::Unreadable { dir: files.disk.dir().to_owned(), source })?;
        drop(files);
        Export::prepare(contents, selection)
    }

    /// What was recorded last: files that hold no more than so many records together, and of them what came
    /// at `since` or later. Blocks.
    pub(crate) fn recent(
        &self,
        desk: &Desk,
        metrics: &Metrics,
        since: Timestamp,
        records_max: u64,
    ) -> Result<Export, Error> {
        let mut files = self.files();
        self.flush_into(&mut files, desk, metrics);
        let contents = files
            .disk
            .contents()
            .map_err(|source| Error::Unreadable { dir: files.disk.dir().to_owned(), source })?;
        drop(files);
        let selection = Selection { since: Some(since), apps: Vec::new() };
        Export::prepare(contents.newest(records_max), &selection)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Extent> for Recorded {
    fn from(extent: Extent) -> Self {
        let Extent { segments, bytes, records, first, last } = extent;
        Self { segments, bytes, records, first, last }
    }
}

/// Takes the tape away again and again. What is left at the end, the node's shutdown writes.
pub(crate) async fn run(shared: Arc<Shared>, recorder: Arc<Recorder>) {
    loop {
        let filled = shared.desk.tape_filled.notified();
        // Nobody waits for it: it is either time or necessary.
        drop(tokio::time::timeout(FLUSH_INTERVAL, filled).await);
        let (shared, recorder) = (shared.clone(), recorder.clone());
        let flushing =
            tokio::task::spawn_blocking(move || recorder.flush(&shared.desk, &shared.metrics));
        if flushing.await.is_err() {
            tracing::error!("the recorder failed; it goes on");
        }
    }
}

/// What the recordings of a node that does not run hold. Those of one that runs change while they are read.
pub fn look(data_dir: &Path) -> Result<Recorded, Error> {
    let Contents { sealed, open } = read(data_dir)?;
    let mut extent = Extent::default();
    for segment in sealed {
        extent.add(segment.bytes, segment.records, segment.first, segment.last);
    }
    for Unsealed { bytes, sorted } in open {
        let (first, last) = (sorted.first().unwrap_or_default(), sorted.last().unwrap_or_default());
        extent.add(bytes, sorted.records.len() as u64, first, last);
    }
    Ok(extent.into())
}

/// Writes a trace of what a node recorded that does not run.
pub fn export(data_dir: &Path, selection: &Selection, out: impl Write) -> Result<Exported, Error> {
    Ok(Export::prepare(read(data_dir)?, selection)?.write(out)?)
}

fn read(data_dir: &Path) -> Result<Contents, Error> {
    let dir = dir(data_dir);
    Contents::of(&dir).map_err(|source| Error::Unreadable { dir, source })
}
