//! The store's calls: what each asks of the writer and the readers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::BoxFuture;
use glowplug_core::{RequestId, Timestamp};
use rusqlite::Connection;
use tokio::sync::broadcast;

use super::bodies::Bodies;
use super::failure::Failure;
use super::stored_body::NewBody;
use super::{
    SqliteStore, accept, answer, backup, journal, purge, queue, registry, request_logs, webhooks,
    whole,
};
use crate::records::{
    Accepted, Change, Completed, Completion, Delivery, DeliveryAttempt, DeliveryRecord,
    DeliveryState, JournalRecord, KeyRecord, Place, QueuedHead, QueuedRequest, RequestLogLine,
    RequestRecord, Retention, StoredResponse, WholeRequest,
};
use crate::store::{Result, Store, StoreError, check_body, check_request};

impl Store for SqliteStore {
    fn begin_boot(&self) -> BoxFuture<'_, Result<u32>> {
        Box::pin(async move {
            let begin = |conn: &Connection| {
                webhooks::take_back(conn)?;
                registry::begin_boot(conn)
            };
            let boot = self.write("count the start of the node", begin).await?;
            self.owner.store(boot, Ordering::SeqCst);
            self.adopted_to.store(0, Ordering::SeqCst);
            Ok(boot)
        })
    }

    fn submit(&self, mut request: QueuedRequest) -> BoxFuture<'_, Result<Accepted>> {
        Box::pin(async move {
            check_request(&request)?;
            let operation = "accept the request";
            let (body, placed) = self.place_payload(operation, &mut request).await?;
            let (owner, disk, remover) = (self.owner(), Arc::clone(&self.disk), self.remover());
            self.write_and(
                operation,
                move |conn| accept::submit(conn, &request, &body, owner, &disk),
                move |outcome| remover.settle(placed, outcome, |done| *done == Accepted::New),
            )
            .await
        })
    }

    fn adopt(&self, limit: usize) -> BoxFuture<'_, Result<Vec<QueuedHead>>> {
        Box::pin(async move {
            let (after, owner) = (self.adopted_to.load(Ordering::SeqCst), self.owner());
            let (heads, last) = self
                .write("take over requests", move |conn| accept::adopt(conn, after, owner, limit))
                .await?;
            // An import in between has set it back, and keeps it there.
            let _ =
                self.adopted_to.compare_exchange(after, last, Ordering::SeqCst, Ordering::SeqCst);
            Ok(heads)
        })
    }

    fn started(&self, id: RequestId, attempt: u32) -> BoxFuture<'_, Result<()>> {
        let owner = self.owner();
        self.write("note an attempt", move |conn| accept::started(conn, id, attempt, owner))
    }

    fn ask_cancel(&self, _id: RequestId) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn changes(&self) -> Option<broadcast::Receiver<Change>> {
        None
    }

    fn ahead(&self, id: RequestId) -> BoxFuture<'_, Result<usize>> {
        self.read("count the requests ahead", move |conn| queue::ahead(conn, id))
    }

    fn complete(
        &self,
        id: RequestId,
        mut completion: Completion,
    ) -> BoxFuture<'_, Result<Completed>> {
        Box::pin(async move {
            check_body("response body", &completion.response.body)?;
            let operation = "record the answer of a request";
            let (body, placed) = self.place_answer(operation, id, &mut completion).await?;
            let (owner, remover) = (self.owner(), self.remover());
            let (completed, _) = self
                .write_and(
                    operation,
                    move |conn| answer::complete(conn, id, &completion, &body, owner),
                    move |outcome| {
                        let recorded = |done: &answer::Ended| done.0 == Completed::Recorded;
                        remover.settle(placed, outcome, recorded);
                        if let Ok((_, dropped_payload)) = outcome {
                            remover.remove(dropped_payload.take().into_iter().collect());
                        }
                    },
                )
                .await?;
            Ok(completed)
        })
    }

    fn pending(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<QueuedRequest>>> {
        let bodies = Arc::clone(&self.bodies);
        self.read("read the queue", move |conn| {
            let found = queue::pending(conn, after, limit)?;
            found.into_iter().map(|queued| with_payload(&bodies, queued)).collect()
        })
    }

    fn pending_request(&self, id: RequestId) -> BoxFuture<'_, Result<Option<QueuedRequest>>> {
        let bodies = Arc::clone(&self.bodies);
        self.read("read a queued request", move |conn| {
            let found = queue::pending_request(conn, id)?;
            found.map(|queued| with_payload(&bodies, queued)).transpose()
        })
    }

    fn request(&self, id: RequestId) -> BoxFuture<'_, Result<Option<RequestRecord>>> {
        self.read("read a request", move |conn| queue::request(conn, id))
    }

    fn completed(
        &self,
        app: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RequestRecord>>> {
        self.read("list requests", move |conn| queue::completed(conn, app.as_deref(), limit))
    }

    fn response(&self, id: RequestId) -> BoxFuture<'_, Result<Option<StoredResponse>>> {
        let bodies = Arc::clone(&self.bodies);
        self.read("read the answer of a request", move |conn| {
            let Some((response, body)) = answer::response(conn, id)? else { return Ok(None) };
            Ok(Some(StoredResponse { body: bodies.read(id, body)?, ..response }))
        })
    }

    fn append_request_logs(
        &self,
        id: RequestId,
        lines: Vec<RequestLogLine>,
    ) -> BoxFuture<'_, Result<()>> {
        let lines_max = self.bounds.request_log_lines_max;
        self.write("keep the log of a request", move |conn| {
            request_logs::append(conn, id, &lines, lines_max)
        })
    }

    fn request_logs(&self, id: RequestId) -> BoxFuture<'_, Result<Vec<RequestLogLine>>> {
        self.read("read the log of a request", move |conn| request_logs::of(conn, id))
    }

    fn purge(&self, retention: Retention, limit: usize) -> BoxFuture<'_, Result<usize>> {
        Box::pin(async move {
            let remover = self.remover();
            let purged = self
                .write_and(
                    "drop old requests",
                    move |conn| purge::purge(conn, retention, limit),
                    move |outcome| {
                        if let Ok(purged) = outcome {
                            remover.remove(std::mem::take(&mut purged.files));
                        }
                    },
                )
                .await?;
            self.sweep_if_needed().await;
            Ok(purged.requests)
        })
    }

    fn due_deliveries(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        self.write("give out webhooks", move |conn| webhooks::due(conn, now, limit))
    }

    fn next_delivery(&self) -> BoxFuture<'_, Result<Option<Timestamp>>> {
        self.read("read the next webhook", webhooks::next)
    }

    fn called(
        &self,
        request: RequestId,
        attempt: DeliveryAttempt,
        state: DeliveryState,
    ) -> BoxFuture<'_, Result<()>> {
        self.write("keep the call of a webhook", move |conn| {
            webhooks::called(conn, request, &attempt, state)
        })
    }

    fn delivery(&self, request: RequestId) -> BoxFuture<'_, Result<Option<DeliveryRecord>>> {
        self.read("read a delivery log", move |conn| webhooks::of(conn, request))
    }

    fn export(
        &self,
        after: Place,
        limit: usize,
    ) -> BoxFuture<'_, Result<(Vec<WholeRequest>, Place)>> {
        let bodies = Arc::clone(&self.bodies);
        self.read("export requests", move |conn| {
            let (found, last) = whole::export(conn, after, limit)?;
            let whole = found.into_iter().map(|exported| with_bodies(&bodies, exported));
            Ok((whole.collect::<Result<_, Failure>>()?, last))
        })
    }

    fn import(&self, mut request: WholeRequest) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            check_request(&request.request)?;
            let operation = "import a request";
            let id = request.request.id;
            let (payload, mut placed) = self.place_payload(operation, &mut request.request).await?;
            let mut answer = NewBody::in_row(Vec::new());
            if let Some(completion) = &mut request.completion {
                check_body("response body", &completion.response.body)?;
                let (body, its_file) = self.place_answer(operation, id, completion).await?;
                answer = body;
                placed = placed.and(its_file);
            }
            let lines_max = self.bounds.request_log_lines_max;
            let (disk, remover) = (Arc::clone(&self.disk), self.remover());
            let is_new = self
                .write_and(
                    operation,
                    move |conn| whole::import(conn, &request, &payload, &answer, lines_max, &disk),
                    move |outcome| remover.settle(placed, outcome, |is_new| *is_new),
                )
                .await?;
            // Its place may be one that was looked at when it was another's.
            self.adopted_to.store(0, Ordering::SeqCst);
            Ok(is_new)
        })
    }

    fn backup(&self, to: PathBuf) -> BoxFuture<'_, Result<()>> {
        let bodies = Arc::clone(&self.bodies);
        self.read("make a backup", move |conn| backup::backup(conn, &bodies, &to))
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
            self.files.close().await;
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let written = self.write("write to the database", registry::write_check).await?;
            let disk = Arc::clone(&self.disk);
            let read = self
                .read("read from the database", move |conn| {
                    disk.check_now("accept requests")?;
                    registry::last_check(conn)
                })
                .await?;
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

fn with_payload(bodies: &Bodies, (request, body): queue::Queued) -> Result<QueuedRequest, Failure> {
    Ok(QueuedRequest { body: bodies.read(request.id, body)?, ..request })
}

fn with_bodies(bodies: &Bodies, exported: whole::Exported) -> Result<WholeRequest, Failure> {
    let mut whole = exported.whole;
    let id = whole.request.id;
    whole.request.body = bodies.read(id, exported.payload)?;
    if let (Some(completion), Some(body)) = (&mut whole.completion, exported.answer) {
        completion.response.body = bodies.read(id, body)?;
    }
    Ok(whole)
}
