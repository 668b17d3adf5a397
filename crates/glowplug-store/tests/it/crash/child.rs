//! The part of the child: everything a store is for, until it is killed.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use glowplug_core::{RequestId, Timestamp};
use glowplug_store::{
    Completed, DeliveryAttempt, DeliveryState, QueuedRequest, Retention, SqliteOptions,
    SqliteStore, Store,
};

use crate::samples::{at, completion, request};

/// Submits the child has in flight at a time.
pub(super) const BATCH: u128 = 40;
/// Older requests that the child tries to answer again in each batch.
const OLD_PER_BATCH: usize = 10;
/// Bodies with more bytes are in files.
const INLINE_BYTES_MAX: usize = 100;

pub(super) fn open(path: &Path) -> Arc<SqliteStore> {
    let options = SqliteOptions { inline_bytes_max: INLINE_BYTES_MAX, ..SqliteOptions::default() };
    SqliteStore::open(path, options).unwrap()
}

/// The request with this id: some are large, some have webhooks, some let go of their payload.
pub(super) fn submitted(id: RequestId) -> QueuedRequest {
    let mut body = id.0.to_le_bytes().to_vec();
    if id.0.is_multiple_of(4) {
        body.resize(INLINE_BYTES_MAX + 400, 0x33);
    }
    QueuedRequest {
        body,
        webhook_url: id.0.is_multiple_of(5).then(|| "https://example.com/hook".to_owned()),
        keep_payload: !id.0.is_multiple_of(8),
        ..request(id.0)
    }
}

pub(super) fn answer(id: RequestId, by: &str) -> Vec<u8> {
    let mut body = by.as_bytes().to_vec();
    if id.0.is_multiple_of(6) {
        body.resize(INLINE_BYTES_MAX + 300, b'.');
    }
    body
}

/// Whether the request is purged soon after it was answered.
pub(super) fn is_short_lived(id: RequestId) -> bool {
    id.0.is_multiple_of(7)
}

pub(super) fn work_until_killed(directory: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let store = open(&directory.join("store.db"));
    // The test harness may have begun a line, which ends here.
    std::io::stdout().write_all(b"\n").unwrap();
    runtime.block_on(async {
        let boot = store.begin_boot().await.unwrap();
        report(&format!("boot {boot}"));
        let old = store.adopt(usize::MAX).await.unwrap();
        let mut old = old.into_iter().map(|head| head.id);
        for first in (0_u128..).step_by(usize::try_from(BATCH).unwrap()) {
            let new =
                (first..first + BATCH).map(|number| RequestId(u128::from(boot) << 64 | number));
            join_all(new.map(|id| tokio::spawn(live(Arc::clone(&store), id, boot)))).await;
            let old = old.by_ref().take(OLD_PER_BATCH);
            join_all(old.map(|id| answer_twice(&store, id, boot))).await;
            call_webhooks(&store).await;
            store.purge(Retention::since(at(100)), usize::MAX).await.unwrap();
            let name = format!("backup-{boot}-{first}.db");
            store.backup(directory.join(&name)).await.unwrap();
            report(&format!("backup {name}"));
        }
    });
}

/// Submits a request, and answers two of three.
async fn live(store: Arc<SqliteStore>, id: RequestId, boot: u32) {
    store.submit(submitted(id)).await.unwrap();
    report(&format!("submitted {id}"));
    if !id.0.is_multiple_of(3) {
        answer_twice(&store, id, boot).await;
    }
}

/// Two answers race, and only one may be recorded. The request is not yet answered, or it was by a
/// child that did not live to hear of it.
async fn answer_twice(store: &SqliteStore, id: RequestId, boot: u32) {
    let ended_at = at(if is_short_lived(id) { 1 } else { 200 });
    let racers = ["left", "right"].map(|racer| async move {
        let by = format!("{racer}-{boot}");
        let outcome = store.complete(id, completion(ended_at, &answer(id, &by))).await.unwrap();
        if outcome == Completed::Recorded {
            report(&format!("completed {id} {by}"));
        }
    });
    join_all(racers).await;
}

/// Half of what is due is called, the other half is left to the next child.
async fn call_webhooks(store: &SqliteStore) {
    let due = store.due_deliveries(Timestamp::MAX, 5).await.unwrap();
    for delivery in due.into_iter().step_by(2) {
        let call =
            DeliveryAttempt { at: at(201), took: Duration::ZERO, status: Some(200), problem: None };
        store.called(delivery.request, call, DeliveryState::Delivered).await.unwrap();
        report(&format!("called {}", delivery.request));
    }
}

/// Writes a whole line at once. The full stop tells it from one that was cut off.
fn report(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}.\n").as_bytes()).unwrap();
    out.flush().unwrap();
}
