//! The store's calls: what each asks of the writer and the readers.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use futures::future::BoxFuture;
use glowplug_core::{RequestId, Timestamp};
use tokio::sync::broadcast;

use super::stored_body::{KeptBody, NewBody};
use super::{
    SqliteStore, accept, answer, backup, journal, purge, queue, registry, request_logs, webhooks,
    whole,
};
use crate::records::{
    Accepted, Change, Completed, Completion, Delivery, DeliveryAttempt, DeliveryRecord,
    DeliveryState, JournalRecord, KeyRecord, QueuedHead, QueuedRequest, RequestLogLine,
    RequestRecord, Retention, StoredResponse, WholeRequest,
};
use crate::store::{Result, Store, StoreError, check_body, check_request};

impl Store for SqliteStore {
    fn begin_boot(&self) -> BoxFuture<'_, Result<u32>> {
        Box::pin(async move {
            let boot = self.write("count the start of the node", registry::begin_boot).await?;
            self.owner.store(boot, Ordering::SeqCst);
            self.adopted_to.store(0, Ordering::SeqCst);
            Ok(boot)
        })
    }

    fn submit(&self, mut request: QueuedRequest) -> BoxFuture<'_, Result<Accepted>> {
        Box::pin(async move {
            check_request(&request)?;
            let body = NewBody::payload(&mut request);
            let owner = self.owner();
            self.write("accept the request", move |conn| {
                accept::submit(conn, &request, &body, owner)
            })
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

    fn started(&self, _id: RequestId) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
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
            let body = NewBody::answer(&mut completion);
            let owner = self.owner();
            let (completed, _) = self
                .write("record the answer of a request", move |conn| {
                    answer::complete(conn, id, &completion, &body, owner)
                })
                .await?;
            Ok(completed)
        })
    }

    fn pending(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<QueuedRequest>>> {
        self.read("read the queue", move |conn| {
            Ok(queue::pending(conn, after, limit)?.into_iter().map(with_payload).collect())
        })
    }

    fn pending_request(&self, id: RequestId) -> BoxFuture<'_, Result<Option<QueuedRequest>>> {
        self.read("read a queued request", move |conn| {
            Ok(queue::pending_request(conn, id)?.map(with_payload))
        })
    }

    fn request(&self, id: RequestId) -> BoxFuture<'_, Result<Option<RequestRecord>>> {
        self.read("read a request", move |conn| queue::request(conn, id))
    }

    fn response(&self, id: RequestId) -> BoxFuture<'_, Result<Option<StoredResponse>>> {
        self.read("read the answer of a request", move |conn| {
            let found = answer::response(conn, id)?;
            Ok(found.map(|(response, body)| StoredResponse { body: body.inline, ..response }))
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
        self.write("drop old requests", move |conn| purge::purge(conn, retention, limit))
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
        after: Option<RequestId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<WholeRequest>>> {
        self.read("export requests", move |conn| {
            Ok(whole::export(conn, after, limit)?.into_iter().map(with_bodies).collect())
        })
    }

    fn import(&self, mut request: WholeRequest) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            check_request(&request.request)?;
            let payload = NewBody::payload(&mut request.request);
            let answer = match &mut request.completion {
                Some(completion) => {
                    check_body("response body", &completion.response.body)?;
                    NewBody::answer(completion)
                }
                None => NewBody::in_row(Vec::new()),
            };
            let lines_max = self.bounds.request_log_lines_max;
            let is_new = self
                .write("import a request", move |conn| {
                    whole::import(conn, &request, &payload, &answer, lines_max)
                })
                .await?;
            // Its place may be one that was looked at when it was another's.
            self.adopted_to.store(0, Ordering::SeqCst);
            Ok(is_new)
        })
    }

    fn backup(&self, to: PathBuf) -> BoxFuture<'_, Result<()>> {
        self.read("make a backup", move |conn| backup::backup(conn, &to))
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

fn with_payload((request, body): queue::Queued) -> QueuedRequest {
    QueuedRequest { body: body.inline, ..request }
}

fn with_bodies(exported: whole::Exported) -> WholeRequest {
    let mut whole = exported.whole;
    whole.request.body = exported.payload.inline;
    if let (Some(completion), Some(KeptBody { inline, .. })) =
        (&mut whole.completion, exported.answer)
    {
        completion.response.body = inline;
    }
    whole
}
