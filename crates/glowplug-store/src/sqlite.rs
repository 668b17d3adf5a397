//! The embedded store: one SQLite file, one writer, a few readers.
//!
//! ```text
//! callers ─ writes ─ bounded queue ─ writer thread ─ groups of writes, one commit each ─┐
//!         └ reads ── bounded queue ─ reader threads ─ one snapshot per read ────────────┴ file
//! ```
//!
//! Reads never wait for writes. Callers wait, without blocking their thread, while a queue is full.
//! A full disk, a locked file or a device error fails the writes at hand with
//! [`StoreError::Unavailable`]; the next group tries again, so the store works on as soon as the disk
//! does.
//!
//! Limits: bodies are kept in the file ([`limits::BODY_BYTES_MAX`](crate::limits::BODY_BYTES_MAX)),
//! and the file does not shrink: space freed by a purge is used again. Only one process may have the
//! file open as a store; a file named like it with `.lock` at the end sees to that. It must be on a
//! local disk.

mod columns;
mod failure;
mod journal;
mod lane;
mod open;
mod queue;
mod reader;
mod registry;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use glowplug_core::{RequestId, Timestamp};
use rusqlite::Connection;
use tokio::sync::broadcast;
use tokio::sync::oneshot;

use self::failure::Failure;
use self::lane::{Closed, Lane};
use crate::limits::Bounds;
use crate::records::{
    Accepted, Change, Completed, Completion, Delivery, DeliveryAttempt, DeliveryRecord,
    DeliveryState, JournalRecord, KeyRecord, QueuedHead, QueuedRequest, RequestLogLine,
    RequestRecord, Retention, StoredResponse, WholeRequest,
};
use crate::store::{Result, Store, StoreError, check_body, unsupported};

/// Writes that may wait before their callers do. Four full groups: the writer never runs dry.
const WRITE_QUEUE_MAX: usize = 4 * writer::GROUP_WRITES_MAX;
/// Reads that may wait before their callers do.
const READ_QUEUE_MAX: usize = 256;
/// How long a lock that another program holds on the file is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

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
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            bounds: Bounds::default(),
            busy_timeout: BUSY_TIMEOUT,
        }
    }
}

/// See the module. Dropping it does all writes that were sent and closes the file, as
/// [`close`](Self::close) does without blocking the thread.
pub struct SqliteStore {
    path: PathBuf,
    bounds: Bounds,
    commits: Arc<AtomicU64>,
    // Dropped in this order: the writer's connection must be the last to close, because only that
    // one can tidy up the write-ahead log.
    reads: Lane<reader::Read>,
    writes: Lane<Box<dyn writer::Write>>,
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
        let (counter, conn) = (Arc::clone(&commits), opened.writer);
        writes
            .start("store-writer", move |alive| writer::work(conn, write_queue, &counter, alive))
            .map_err(cannot_start)?;
        let (mut reads, read_queue) = Lane::new(READ_QUEUE_MAX);
        let read_queue = Arc::new(Mutex::new(read_queue));
        for conn in opened.readers {
            let queue = Arc::clone(&read_queue);
            reads
                .start("store-reader", move |alive| reader::work(conn, &queue, alive))
                .map_err(cannot_start)?;
        }
        let (path, bounds) = (path.to_owned(), options.bounds);
        Ok(Arc::new(Self { path, bounds, commits, reads, writes, _lock: opened.lock }))
    }

    /// Transactions since the store was opened; many writes may share one.
    pub fn commit_count(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        run: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let sent = self.writes.send(writer::write(run, reply)).await;
            self.answer(operation, sent, answer).await
        })
    }

    fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        run: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
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

impl Store for SqliteStore {
    fn begin_boot(&self) -> BoxFuture<'_, Result<u32>> {
        self.write("count the start of the node", registry::begin_boot)
    }

    fn submit(&self, request: QueuedRequest) -> BoxFuture<'_, Result<Accepted>> {
        self.write("accept the request", move |conn| {
            check_body("request body", &request.body)?;
            queue::submit(conn, &request)?;
            Ok(Accepted::New)
        })
    }

    fn complete(&self, id: RequestId, completion: Completion) -> BoxFuture<'_, Result<Completed>> {
        self.write("record the answer of a request", move |conn| {
            check_body("response body", &completion.response.body)?;
            queue::complete(conn, id, &completion)
        })
    }

    fn pending(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<QueuedRequest>>> {
        self.read("read the queue", move |conn| queue::pending(conn, after, limit))
    }

    fn pending_request(&self, id: RequestId) -> BoxFuture<'_, Result<Option<QueuedRequest>>> {
        self.read("read a queued request", move |conn| queue::pending_request(conn, id))
    }

    fn request(&self, id: RequestId) -> BoxFuture<'_, Result<Option<RequestRecord>>> {
        self.read("read a request", move |conn| queue::request(conn, id))
    }

    fn response(&self, id: RequestId) -> BoxFuture<'_, Result<Option<StoredResponse>>> {
        self.read("read the answer of a request", move |conn| queue::response(conn, id))
    }

    fn append_request_logs(
        &self,
        id: RequestId,
        lines: Vec<RequestLogLine>,
    ) -> BoxFuture<'_, Result<()>> {
        let lines_max = self.bounds.request_log_lines_max;
        self.write("keep the log of a request", move |conn| {
            queue::append_logs(conn, id, &lines, lines_max)
        })
    }

    fn request_logs(&self, id: RequestId) -> BoxFuture<'_, Result<Vec<RequestLogLine>>> {
        self.read("read the log of a request", move |conn| queue::logs(conn, id))
    }

    fn purge(&self, retention: Retention, limit: usize) -> BoxFuture<'_, Result<usize>> {
        self.write("drop old requests", move |conn| {
            queue::purge(conn, retention.ended_before, limit)
        })
    }

    fn adopt(&self, _limit: usize) -> BoxFuture<'_, Result<Vec<QueuedHead>>> {
        unsupported("take over requests")
    }

    fn started(&self, _id: RequestId) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn ask_cancel(&self, _id: RequestId) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn changes(&self) -> Option<broadcast::Receiver<Change>> {
        None
    }

    fn ahead(&self, _id: RequestId) -> BoxFuture<'_, Result<usize>> {
        unsupported("count requests")
    }

    fn due_deliveries(
        &self,
        _now: Timestamp,
        _limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        unsupported("keep webhooks")
    }

    fn next_delivery(&self) -> BoxFuture<'_, Result<Option<Timestamp>>> {
        unsupported("keep webhooks")
    }

    fn called(
        &self,
        _request: RequestId,
        _attempt: DeliveryAttempt,
        _state: DeliveryState,
    ) -> BoxFuture<'_, Result<()>> {
        unsupported("keep webhooks")
    }

    fn delivery(&self, _request: RequestId) -> BoxFuture<'_, Result<Option<DeliveryRecord>>> {
        unsupported("keep webhooks")
    }

    fn export(
        &self,
        _after: Option<RequestId>,
        _limit: usize,
    ) -> BoxFuture<'_, Result<Vec<WholeRequest>>> {
        unsupported("export")
    }

    fn import(&self, _request: WholeRequest) -> BoxFuture<'_, Result<bool>> {
        unsupported("import")
    }

    fn backup(&self, _to: PathBuf) -> BoxFuture<'_, Result<()>> {
        unsupported("make a backup")
    }

    fn put_setting(&self, app: String, key: String, json: String) -> BoxFuture<'_, Result<()>> {
        self.write("keep a setting", move |conn| registry::put_setting(conn, &app, &key, &json))
    }

    fn delete_setting(&self, app: String, key: String) -> BoxFuture<'_, Result<()>> {
        self.write("drop a setting", move |conn| registry::delete_setting(conn, &app, &key))
    }

    fn claim_setting(
        &self,
        app: String,
        key: String,
        json: String,
    ) -> BoxFuture<'_, Result<String>> {
        self.write("claim a setting", move |conn| registry::claim_setting(conn, &app, &key, &json))
    }

    fn settings(&self) -> BoxFuture<'_, Result<Vec<(String, String, String)>>> {
        self.read("read the settings", registry::settings)
    }

    fn put_key(&self, key: KeyRecord) -> BoxFuture<'_, Result<()>> {
        self.write("keep a key", move |conn| registry::put_key(conn, &key))
    }

    fn delete_key(&self, id: String) -> BoxFuture<'_, Result<bool>> {
        self.write("drop a key", move |conn| registry::delete_key(conn, &id))
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyRecord>>> {
        self.read("read the keys", registry::keys)
    }

    fn append_journal(&self, records: Vec<JournalRecord>) -> BoxFuture<'_, Result<()>> {
        let records_max = self.bounds.journal_records_max;
        self.write("keep decisions in the journal", move |conn| {
            journal::append(conn, &records, records_max)
        })
    }

    fn journal(&self, subject: String, limit: usize) -> BoxFuture<'_, Result<Vec<JournalRecord>>> {
        self.read("read the journal", move |conn| journal::about(conn, &subject, limit))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.reads.close().await;
            self.writes.close().await;
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let written = self.write("write to the database", registry::write_check).await?;
            let read = self.read("read from the database", registry::last_check).await?;
            if read < written {
                return Err(StoreError::Unavailable {
                    operation: "read from the database",
                    problem: "it does not show what was just written".to_owned(),
                });
            }
            Ok(())
        })
    }
}
