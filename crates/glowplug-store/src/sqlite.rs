//! The embedded store: one SQLite file, one writer, a few readers.
//!
//! ```text
//! callers ─ writes ─ bounded queue ─ writer thread ─ groups of writes, one commit each ─┐
//!         └ reads ── bounded queue ─ reader threads ─ one snapshot per read ────────────┴ file
//! ```
//!
//! Reads never wait for writes. Callers wait, without blocking their thread, while a queue is full.
//! A full disk fails the writes at hand with [`StoreError::Full`], a locked file or a device error with
//! [`StoreError::Unavailable`]; the next group tries again, so the store works on as soon as the disk
//! does. New requests are refused before the disk is full, answers are not.
//!
//! Bodies beyond [`SqliteOptions::inline_bytes_max`] are in files of their own, in a folder named like
//! the database with `.bodies` at the end (`bodies.rs`). A backup of `glowplug.db` is a database and such a
//! folder as well: to restore it, put both in the place of the old ones while no node runs.
//!
//! Limits: [`limits::BODY_BYTES_MAX`](crate::limits::BODY_BYTES_MAX) for a body. The file does not
//! shrink: space freed by a purge is used again. Only one process may have the
//! file open as a store; a file named like it with `.lock` at the end sees to that. It must be on a
//! local disk.

mod accept;
mod answer;
mod backup;
mod bodies;
mod calls;
mod columns;
mod disk;
mod failure;
mod filing;
mod journal;
mod lane;
mod open;
mod purge;
mod queue;
mod reader;
mod registry;
mod request_logs;
mod schema;
mod stored_body;
#[cfg(test)]
mod tests;
mod webhooks;
mod whole;
mod worker;
mod writer;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use rusqlite::Connection;
use tokio::sync::oneshot;

use self::bodies::Bodies;
use self::disk::Disk;
pub use self::disk::free_bytes;
use self::failure::Failure;
use self::lane::{Closed, Lane};
use crate::limits::Bounds;
use crate::store::{Result, StoreError};

/// Writes that may wait before their callers do. Four full groups: the writer never runs dry.
const WRITE_QUEUE_MAX: usize = 4 * writer::GROUP_WRITES_MAX;
/// Reads that may wait before their callers do.
const READ_QUEUE_MAX: usize = 256;
/// How long a lock that another program holds on the file is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A row of this size is read and written in one go; beyond, the log would write everything twice.
const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Answers to some thousand requests, and the write-ahead log at its largest.
const DISK_RESERVE_BYTES: u64 = 256 * 1024 * 1024;

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Everything, the loss of power included: each commit is synced to the disk.
    #[default]
    PowerLoss,
    /// The death of the process, but not that of the machine, after which the file may even be
    /// damaged. For tests and benchmarks.
    ProcessCrash,
}

#[derive(Clone, Copy, Debug)]
pub struct SqliteOptions {
    pub durability: Durability,
    pub bounds: Bounds,
    /// How long to wait for another program that has locked the file.
    pub busy_timeout: Duration,
    /// Bodies with more bytes than this are put into files.
    pub inline_bytes_max: usize,
    /// While the disk has less free than this, new requests are refused, so that those which were
    /// accepted can still be answered.
    pub disk_reserve_bytes: u64,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            bounds: Bounds::default(),
            busy_timeout: BUSY_TIMEOUT,
            inline_bytes_max: INLINE_BYTES_MAX,
            disk_reserve_bytes: DISK_RESERVE_BYTES,
        }
    }
}

/// See the module. Dropping it does all writes that were sent and closes the file, as
/// [`close`](crate::Store::close) does without blocking the thread.
pub struct SqliteStore {
    path: PathBuf,
    bounds: Bounds,
    inline_bytes_max: usize,
    bodies: Arc<Bodies>,
    disk: Arc<Disk>,
    commits: Arc<AtomicU64>,
    /// The start of the node that uses this store. 0 before the first, when requests are nobody's.
    owner: AtomicU32,
    /// Up to this place all requests that are not complete are this node's.
    adopted_to: AtomicI64,
    // Dropped in this order: the writer's connection must be the last to close, because only that
    // one can tidy up the write-ahead log.
    reads: Lane<reader::Read>,
    writes: Lane<Box<dyn writer::Write>>,
    files: Arc<Lane<worker::Task>>,
    _lock: File,
}

impl SqliteStore {
    /// Opens or creates the file at `path` and migrates it. Blocks, for a moment or, after a crash,
    /// for the time it takes to check the file.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Arc<Self>> {
        let opened = open::open(path, &options)?;
        let cannot_start = |error: std::io::Error| StoreError::Unavailable {
            operation: "start the threads of the database",
            problem: error.to_string(),
        };
        let commits = Arc::new(AtomicU64::new(0));
        let (mut writes, write_queue) = Lane::new(WRITE_QUEUE_MAX);
        let bodies = Bodies::beside(path, options.durability);
        if bodies.sweep(|id, file| whole::names_file(&opened.writer, id, file)).is_err() {
            // What a file that is too many takes up is no reason not to serve the others.
            bodies.expect_orphans();
        }
        let disk = Arc::new(Disk::of(path, options.disk_reserve_bytes));
        let (counter, conn, its_disk) = (Arc::clone(&commits), opened.writer, Arc::clone(&disk));
        writes
            .start("store-writer", move |alive| {
                writer::work(conn, write_queue, &its_disk, &counter, alive);
            })
            .map_err(cannot_start)?;
        let (mut files, file_queue) = Lane::new(worker::QUEUE_MAX);
        let file_queue = Arc::new(Mutex::new(file_queue));
        for _ in 0..worker::WORKERS {
            let queue = Arc::clone(&file_queue);
            files
                .start("store-files", move |alive| worker::work(&queue, alive))
                .map_err(cannot_start)?;
        }
        let (mut reads, read_queue) = Lane::new(READ_QUEUE_MAX);
        let read_queue = Arc::new(Mutex::new(read_queue));
        for conn in opened.readers {
            let queue = Arc::clone(&read_queue);
            reads
                .start("store-reader", move |alive| reader::work(conn, &queue, alive))
                .map_err(cannot_start)?;
        }
        Ok(Arc::new(Self {
            path: path.to_owned(),
            bounds: options.bounds,
            inline_bytes_max: options.inline_bytes_max,
            bodies,
            disk,
            commits,
            owner: AtomicU32::new(0),
            adopted_to: AtomicI64::new(0),
            reads,
            writes,
            files: Arc::new(files),
            _lock: opened.lock,
        }))
    }

    /// Looks for what would keep the file at `path` from being opened, without changing it: that it is
    /// damaged, or of a newer version. A file that is not there can be made.
    pub fn inspect(path: &Path) -> Result<()> {
        open::look_at(path)
    }

    /// Transactions since the store was opened; many writes may share one.
    pub fn commit_count(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    fn owner(&self) -> u32 {
        self.owner.load(Ordering::SeqCst)
    }

    fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        run: impl FnMut(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        self.write_and(operation, run, |_| {})
    }

    /// Does `after` with the outcome, whether or not the caller still waits for it.
    fn write_and<T: Send + 'static>(
        &self,
        operation: &'static str,
        run: impl FnMut(&Connection) -> Result<T, Failure> + Send + 'static,
        after: impl FnOnce(&mut Result<T, Failure>) + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let sent = self.writes.send(writer::write(run, after, reply)).await;
            self.answer(operation, sent, answer).await
        })
    }

    fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        run: impl Fn(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let sent = self.reads.send(reader::read(run, reply)).await;
            self.answer(operation, sent, answer).await
        })
    }

    async fn answer<T>(
        &self,
        operation: &'static str,
        sent: Result<(), Closed>,
        answer: oneshot::Receiver<Result<T, Failure>>,
    ) -> Result<T> {
        match (sent, answer.await) {
            (Ok(()), Ok(answer)) => {
                answer.map_err(|failure| failure.into_error(operation, &self.path))
            }
            (Err(Closed), _) | (_, Err(_)) => Err(StoreError::Unavailable {
                operation,
                problem: "the database is closed; start the node again".to_owned(),
            }),
        }
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}
