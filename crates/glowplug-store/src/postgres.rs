//! The store for several nodes on one queue: a PostgreSQL server.
//!
//! ```text
//! callers ─ writes ─ bounded queue ─ a few connections ─ groups of writes, one commit each ─┐
//!         ├ reads ── pool of connections ───────────────────────────────────────────────────┤ server
//!         └ changes ◄─────── one connection: lease of this node, LISTEN ────────────────────┘
//! ```
//!
//! A node holds a lease, by the clock of the server, and owns the requests that it accepted. When it no
//! longer renews the lease, the others are told and take over; what it still answers then is
//! [`Completed::Fenced`]. A server that is away fails the calls at hand with
//! [`StoreError::Unavailable`]; connections come back by themselves.
//!
//! All of it runs on two threads of its own, so that a busy node keeps its lease. Every wait is limited:
//! for a connection by `connect_timeout`, for a free one and for an answer by `answer_timeout`.
//!
//! Limits: bodies are kept in rows ([`limits::BODY_BYTES_MAX`](crate::limits::BODY_BYTES_MAX)).
//! A backup is the server's business. It does not speak through poolers that share a session between
//! clients: leases and notices need a session.

mod answers;
mod background;
mod columns;
mod connect;
mod failure;
mod journal;
mod logs;
mod notices;
mod options;
mod queue;
mod registry;
mod retention;
mod schema;
mod tls;
mod waiting;
mod watch;
mod webhooks;
mod whole;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::Pool;
use futures::future::BoxFuture;
use glowplug_core::{RequestId, Timestamp};
use tokio::sync::{broadcast, mpsc, oneshot};
use uuid::Uuid;

use self::background::{Background, Read, Tasks, ended};
use self::connect::Server;
use self::failure::Failure;
use self::notices::Sender;
pub use self::options::PostgresOptions;
use self::watch::Watch;
use self::writer::{Run, Writers};
use crate::limits::Bounds;
use crate::records::{
    Accepted, Change, Completed, Completion, Delivery, DeliveryAttempt, DeliveryRecord,
    DeliveryState, JournalRecord, KeyRecord, Place, QueuedHead, QueuedRequest, RequestLogLine,
    RequestRecord, Retention, StoredResponse, WholeRequest,
};
use crate::store::{Result, Store, StoreError};

/// Writes that may wait before their callers do. Four full groups: the writers never run dry.
const WRITE_QUEUE_MAX: usize = 4 * writer::GROUP_WRITES_MAX;
/// The journal may outgrow its limit by this share before it is trimmed: trimming costs a walk over it.
const JOURNAL_SLACK_SHARE: usize = 100;

const OPEN: &str = "open the database";

/// See the module. Dropping it is like the death of the node: the lease runs out.
/// [`close`](Store::close) does all writes that were sent and gives the lease back at once.
pub struct PostgresStore {
    place: String,
    bounds: Bounds,
    lease: Duration,
    answer_timeout: Duration,
    sender: Sender,
    /// 0 before the first.
    boot: Arc<AtomicU32>,
    commits: Arc<AtomicU64>,
    journal_records_untrimmed: AtomicUsize,
    changes: broadcast::Sender<Change>,
    reads: Pool,
    tasks: Mutex<Tasks>,
    background: Background,
}

impl PostgresStore {
    /// Connects, and creates or migrates the schema.
    pub async fn connect(options: PostgresOptions) -> Result<Arc<Self>> {
        let unavailable = |problem| StoreError::Unavailable { operation: OPEN, problem };
        let server = Server::new(&options).map_err(unavailable)?;
        let background = Background::start().map_err(|error| unavailable(error.to_string()))?;
        let place = server.place.clone();
        let explain = |failure: Failure| failure.into_error(OPEN, &place);
        let preparing =
            background.spawn(background::prepare(server.clone(), options.answer_timeout));
        preparing.await.map_err(|_| explain(ended().into()))?.map_err(explain)?;

        let sender = Sender { node: Uuid::new_v4(), channel: options.schema.clone() };
        let (boot, commits) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU64::new(0)));
        let wait = options.answer_timeout;
        let reads = server.pool(options.readers, wait, &[]).map_err(explain)?;
        let (writes, queue) = mpsc::channel(WRITE_QUEUE_MAX);
        let writers = Arc::new(Writers {
            pool: server.pool(options.writers, wait, queue::HOT).map_err(explain)?,
            queue: tokio::sync::Mutex::new(queue),
            sender: sender.clone(),
            commits: Arc::clone(&commits),
            answer_timeout: wait,
        });
        let writing = (0..options.writers.max(1)).map(|_| {
            let writers = Arc::clone(&writers);
            background.spawn(async move { writers.work().await })
        });
        let (changes, _) = broadcast::channel(watch::CHANGES_MAX);
        let (listening, mut is_listening) = tokio::sync::watch::channel(false);
        let tasks = Tasks {
            writers: writing.collect(),
            writes: Some(writes),
            watch: Some(
                background.spawn(
                    Watch {
                        server,
                        sender: sender.clone(),
                        boot: Arc::clone(&boot),
                        lease: options.lease,
                        changes: changes.clone(),
                        listening,
                    }
                    .run(),
                ),
            ),
        };
        // What is asked after this is heard of. The first connection has just succeeded; should the second
        // not, the watch goes on trying and tells what was missed.
        let heard = background.spawn(async move {
            let _ = tokio::time::timeout(wait, is_listening.wait_for(|is| *is)).await;
        });
        drop(heard.await);
        Ok(Arc::new(Self {
            place,
            bounds: options.bounds,
            lease: options.lease,
            answer_timeout: wait,
            sender,
            boot,
            commits,
            journal_records_untrimmed: AtomicUsize::new(0),
            changes,
            reads,
            tasks: Mutex::new(tasks),
            background,
        }))
    }

    /// Transactions since the store was opened; many writes may share one.
    pub fn commit_count(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    fn boot(&self) -> u32 {
        self.boot.load(Ordering::Acquire)
    }

    fn write<D: Send + Sync + 'static, T: Send + 'static>(
        &self,
        operation: &'static str,
        bytes: usize,
        given: D,
        run: Run<D, T>,
    ) -> BoxFuture<'_, Result<T>> {
        let queue = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).writes.clone();
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let outcome = match queue {
                Some(queue) => {
                    // A queue that is closed drops the write, and with it the reply.
                    drop(queue.send(writer::write(bytes, given, run, reply)).await);
                    drop(queue);
                    answer.await
                }
                None => Ok(Err(ended().into())),
            };
            let outcome = outcome.unwrap_or_else(|_| Err(ended().into()));
            outcome.map_err(|failure| failure.into_error(operation, &self.place))
        })
    }

    fn read<D: Send + Sync + 'static, T: Send + 'static>(
        &self,
        operation: &'static str,
        given: D,
        run: Read<D, T>,
    ) -> BoxFuture<'_, Result<T>> {
        Box::pin(async move {
            let (pool, timeout) = (self.reads.clone(), self.answer_timeout);
            let reading = self.background.spawn(background::read(pool, timeout, given, run));
            let outcome = reading.await.unwrap_or_else(|_| Err(ended().into()));
            outcome.map_err(|failure| failure.into_error(operation, &self.place))
        })
    }

    /// Whether the journal is due to be trimmed, now that so many records more come to it.
    fn trim_journal_to(&self, added: usize) -> Option<usize> {
        let records_max = self.bounds.journal_records_max;
        let slack = (records_max / JOURNAL_SLACK_SHARE).max(1);
        let untrimmed = self.journal_records_untrimmed.fetch_add(added, Ordering::Relaxed) + added;
        if untrimmed < slack {
            return None;
        }
        self.journal_records_untrimmed.store(0, Ordering::Relaxed);
        Some(records_max)
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Store for PostgresStore {
    fn begin_boot(&self) -> BoxFuture<'_, Result<u32>> {
        Box::pin(async move {
            let given = (self.boot(), self.lease);
            let boot = self
                .write("count the start of the node", 0, given, |given, group| {
                    Box::pin(registry::begin_boot(group, given))
                })
                .await?;
            self.boot.store(boot, Ordering::Release);
            Ok(boot)
        })
    }

    fn submit(&self, request: QueuedRequest) -> BoxFuture<'_, Result<Accepted>> {
        let (bytes, given) = (request.body.len(), (request, self.boot()));
        self.write("accept the request", bytes, given, |given, group| {
            Box::pin(queue::submit(group, given))
        })
    }

    fn adopt(&self, limit: usize) -> BoxFuture<'_, Result<Vec<QueuedHead>>> {
        self.write("take over requests", 0, (self.boot(), limit), |given, group| {
            Box::pin(waiting::adopt(group, given))
        })
    }

    fn started(&self, id: RequestId, attempt: u32) -> BoxFuture<'_, Result<()>> {
        self.write("note an attempt", 0, (id, attempt, self.boot()), |given, group| {
            Box::pin(waiting::started(group, given))
        })
    }

    fn ask_cancel(&self, id: RequestId) -> BoxFuture<'_, Result<()>> {
        self.write("ask for a cancellation", 0, id, |id, group| {
            Box::pin(waiting::ask_cancel(group, id))
        })
    }

    fn changes(&self) -> Option<broadcast::Receiver<Change>> {
        Some(self.changes.subscribe())
    }

    fn ahead(&self, id: RequestId) -> BoxFuture<'_, Result<usize>> {
        self.read("count requests", id, |id, db| Box::pin(waiting::ahead(db, id)))
    }

    fn complete(&self, id: RequestId, completion: Completion) -> BoxFuture<'_, Result<Completed>> {
        let bytes = completion.response.body.len();
        let given = (id, completion, self.boot());
        self.write("record the answer of a request", bytes, given, |given, group| {
            Box::pin(queue::complete(group, given))
        })
    }

    fn pending(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<QueuedRequest>>> {
        self.read("read the queue", (after, limit), |given, db| {
            Box::pin(waiting::pending(db, given))
        })
    }

    fn pending_request(&self, id: RequestId) -> BoxFuture<'_, Result<Option<QueuedRequest>>> {
        self.read("read a queued request", id, |id, db| Box::pin(waiting::pending_request(db, id)))
    }

    fn request(&self, id: RequestId) -> BoxFuture<'_, Result<Option<RequestRecord>>> {
        self.read("read a request", id, |id, db| Box::pin(answers::request(db, id)))
    }

    fn completed(
        &self,
        app: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RequestRecord>>> {
        self.read("list requests", (app, limit), |given, db| {
            Box::pin(answers::completed(db, given))
        })
    }

    fn response(&self, id: RequestId) -> BoxFuture<'_, Result<Option<StoredResponse>>> {
        self.read("read the answer of a request", id, |id, db| Box::pin(answers::response(db, id)))
    }

    fn append_request_logs(
        &self,
        id: RequestId,
        lines: Vec<RequestLogLine>,
    ) -> BoxFuture<'_, Result<()>> {
        let bytes = lines.iter().map(|line| line.message.len()).sum();
        let given = (id, lines, self.bounds.request_log_lines_max);
        self.write("keep the log of a request", bytes, given, |given, group| {
            Box::pin(logs::append(group, given))
        })
    }

    fn request_logs(&self, id: RequestId) -> BoxFuture<'_, Result<Vec<RequestLogLine>>> {
        self.read("read the log of a request", id, |id, db| Box::pin(logs::lines(db, id)))
    }

    fn purge(&self, retention: Retention, limit: usize) -> BoxFuture<'_, Result<usize>> {
        self.write("drop old requests", 0, (retention, limit), |given, group| {
            Box::pin(retention::purge(group, given))
        })
    }

    fn due_deliveries(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        self.write("give out webhooks", 0, (now, limit, self.boot()), |given, group| {
            Box::pin(webhooks::give_out(group, given))
        })
    }

    fn next_delivery(&self) -> BoxFuture<'_, Result<Option<Timestamp>>> {
        self.read("look for the next webhook", (), |given, db| Box::pin(webhooks::next(db, given)))
    }

    fn called(
        &self,
        request: RequestId,
        attempt: DeliveryAttempt,
        state: DeliveryState,
    ) -> BoxFuture<'_, Result<()>> {
        self.write("record the call of a webhook", 0, (request, attempt, state), |given, group| {
            Box::pin(webhooks::called(group, given))
        })
    }

    fn delivery(&self, request: RequestId) -> BoxFuture<'_, Result<Option<DeliveryRecord>>> {
        self.read("read the log of a webhook", request, |id, db| Box::pin(webhooks::record(db, id)))
    }

    fn export(
        &self,
        after: Place,
        limit: usize,
    ) -> BoxFuture<'_, Result<(Vec<WholeRequest>, Place)>> {
        self.read("export requests", (after, limit), |given, db| Box::pin(whole::export(db, given)))
    }

    fn import(&self, request: WholeRequest) -> BoxFuture<'_, Result<bool>> {
        let lines_max = self.bounds.request_log_lines_max;
        let bytes = request.request.body.len();
        self.write("import a request", bytes, (request, lines_max), |given, group| {
            Box::pin(whole::import(group, given))
        })
    }

    fn backup(&self, _to: PathBuf) -> BoxFuture<'_, Result<()>> {
        let (operation, instead) = ("make a backup", "use `pg_dump --schema`");
        Box::pin(std::future::ready(Err(StoreError::Unsupported { operation, instead })))
    }

    fn put_setting(&self, app: String, key: String, json: String) -> BoxFuture<'_, Result<()>> {
        self.write("keep a setting", 0, (app, key, json), |given, group| {
            Box::pin(registry::put_setting(group, given))
        })
    }

    fn delete_setting(&self, app: String, key: String) -> BoxFuture<'_, Result<()>> {
        self.write("drop a setting", 0, (app, key), |given, group| {
            Box::pin(registry::delete_setting(group, given))
        })
    }

    fn claim_setting(
        &self,
        app: String,
        key: String,
        json: String,
    ) -> BoxFuture<'_, Result<String>> {
        self.write("agree on a setting", 0, (app, key, json), |given, group| {
            Box::pin(registry::claim_setting(group, given))
        })
    }

    fn settings(&self) -> BoxFuture<'_, Result<Vec<(String, String, String)>>> {
        self.read("read the settings", (), |given, db| Box::pin(registry::settings(db, given)))
    }

    fn put_key(&self, key: KeyRecord) -> BoxFuture<'_, Result<()>> {
        self.write("keep a key", 0, key, |key, group| Box::pin(registry::put_key(group, key)))
    }

    fn delete_key(&self, id: String) -> BoxFuture<'_, Result<bool>> {
        self.write("drop a key", 0, id, |id, group| Box::pin(registry::delete_key(group, id)))
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyRecord>>> {
        self.read("read the keys", (), |given, db| Box::pin(registry::keys(db, given)))
    }

    fn append_journal(&self, records: Vec<JournalRecord>) -> BoxFuture<'_, Result<()>> {
        let trim_to = self.trim_journal_to(records.len());
        self.write("keep decisions in the journal", 0, (records, trim_to), |given, group| {
            Box::pin(journal::append(group, given))
        })
    }

    fn journal(&self, subject: String, limit: usize) -> BoxFuture<'_, Result<Vec<JournalRecord>>> {
        self.read("read the journal", (subject, limit), |given, db| {
            Box::pin(journal::about(db, given))
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            Tasks::end(&self.tasks).await;
            let given = (self.boot(), self.sender.clone());
            let released = self.read("give back the lease", given, |given, db| {
                Box::pin(registry::release(db, given))
            });
            if let Err(error) = released.await {
                tracing::warn!(%error, "the lease of this node will run out by itself");
            }
            self.reads.close();
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let written = self
                .write("write to the database", 0, self.sender.node, |node, group| {
                    Box::pin(registry::write_check(group, node))
                })
                .await?;
            let read = self
                .read("read from the database", self.sender.node, |node, db| {
                    Box::pin(registry::last_check(db, node))
                })
                .await?;
            if read < written {
                return Err(StoreError::Unavailable {
                    operation: "read from the database",
                    problem: format!("{} does not show what was just written", self.place),
                });
            }
            Ok(())
        })
    }
}
