//! What cannot be seen from outside: groups, faults of the disk, migrations.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::Poll;
use std::time::Duration;

use futures::future::{BoxFuture, JoinAll, join_all, poll_immediate};
use glowplug_core::{RequestId, Timestamp};
use rusqlite::Connection;
use tokio::task::unconstrained;

use super::schema::{MIGRATIONS, migrate, version};
use super::{Durability, SqliteOptions, SqliteStore, writer};
use crate::records::{
    Accepted, Completion, DeliveryAttempt, DeliveryState, JournalRecord, Priority, QueuedRequest,
    Retention, StoredResponse,
};
use crate::store::{Result, Store, StoreError};

fn fast() -> SqliteOptions {
    SqliteOptions { durability: Durability::ProcessCrash, ..SqliteOptions::default() }
}

fn open(directory: &Path) -> Arc<SqliteStore> {
    SqliteStore::open(&directory.join("store.db"), fast()).unwrap()
}

fn request(number: u128, body: Vec<u8>) -> QueuedRequest {
    QueuedRequest {
        id: RequestId(number),
        app: "local/ocr".to_owned(),
        path: String::new(),
        method: "POST".to_owned(),
        headers: Vec::new(),
        body,
        priority: Priority::Normal,
        submitted_at: Timestamp::from_secs(1),
        start_deadline: None,
        no_retry: false,
        retry_config: None,
        hint: None,
        idempotency_key: None,
        keep_payload: true,
        webhook_url: None,
        caller: String::new(),
    }
}

/// Keeps the writer busy until the sender is dropped.
async fn hold_writer(store: &SqliteStore) -> (SyncSender<()>, BoxFuture<'_, Result<()>>) {
    let (release, released) = sync_channel::<()>(0);
    let (started, start) = sync_channel(0);
    let mut held = store.write("hold the writer", move |_| {
        started.send(()).unwrap();
        assert!(released.recv().is_err());
        Ok(())
    });
    assert!(poll_immediate(&mut held).await.is_none());
    start.recv().unwrap();
    (release, held)
}

/// Sends all of them to the writer, which is held. Tokio would make the sender pause now and then.
async fn send_all<F: Future>(writes: &mut JoinAll<F>) {
    assert!(poll_immediate(unconstrained(writes)).await.is_none());
}

/// Sends all writes while the writer is held, so that they meet in its queue.
async fn together<T>(store: &SqliteStore, writes: Vec<BoxFuture<'_, Result<T>>>) -> Vec<Result<T>> {
    let (release, held) = hold_writer(store).await;
    let mut writes = join_all(writes);
    send_all(&mut writes).await;
    drop(release);
    held.await.unwrap();
    writes.await
}

#[tokio::test]
async fn waiting_writes_share_a_commit() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let before = store.commit_count();
    let writes = 600;
    let submits = (0..writes).map(|number| store.submit(request(number, vec![1; 100]))).collect();
    let outcomes = together(&store, submits).await;
    assert!(outcomes.iter().all(Result::is_ok));
    let groups = u64::try_from(writes).unwrap().div_ceil(writer::GROUP_WRITES_MAX as u64);
    assert_eq!(store.commit_count() - before, 1 + groups, "one for the writer that was held");
    assert_eq!(store.pending(None, usize::MAX).await.unwrap().len(), 600);
}

#[tokio::test]
async fn a_refused_write_leaves_its_group_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let before = store.commit_count();
    let outcomes = together(
        &store,
        vec![
            store.submit(request(1, Vec::new())),
            store.submit(request(1, b"again".to_vec())),
            store.write("change and then fail", |conn| {
                conn.execute("UPDATE node SET boots = 1000", [])?;
                conn.execute("INSERT INTO pending (place) VALUES ('not a number')", [])?;
                Ok(Accepted::New)
            }),
            store.submit(request(2, Vec::new())),
        ],
    )
    .await;
    let [Ok(_), Err(StoreError::Duplicate(_)), Err(failed), Ok(_)] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    assert!(failed.to_string().starts_with("cannot change and then fail: "), "{failed}");
    assert_eq!(store.commit_count() - before, 2);
    assert_eq!(store.begin_boot().await.unwrap(), 1, "the failed write left no trace");
    let pending = store.pending(None, 10).await.unwrap();
    assert_eq!(pending, [request(1, Vec::new()), request(2, Vec::new())]);
}

#[tokio::test]
async fn a_lost_transaction_fails_its_whole_group() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.submit(request(1, Vec::new())).await.unwrap();
    let outcomes = together(
        &store,
        vec![
            store.submit(request(2, Vec::new())),
            store.submit(request(1, Vec::new())),
            // As SQLite does by itself when the disk fails.
            store.write("lose the transaction", |conn| {
                conn.execute_batch("ROLLBACK")?;
                Ok(Accepted::New)
            }),
            store.submit(request(3, Vec::new())),
        ],
    )
    .await;
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    }
    assert_eq!(store.pending(None, 10).await.unwrap(), [request(1, Vec::new())]);
    store.submit(request(2, Vec::new())).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_passes() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions { inline_bytes_max: usize::MAX, ..fast() };
    let store = SqliteStore::open(&directory.path().join("store.db"), options).unwrap();
    store.submit(request(1, Vec::new())).await.unwrap();
    let limit_pages = |pages: u32| {
        store.write("limit the size of the file", move |conn| {
            Ok(conn.pragma_update(None, "max_page_count", pages)?)
        })
    };
    limit_pages(1).await.unwrap();
    let big = || vec![7; 1_000_000];
    let error = store.submit(request(2, big())).await.unwrap_err();
    let expected = "cannot accept the request: database or disk is full; free some space on the disk \
                    of the database";
    assert_eq!(error.to_string(), expected);
    assert!(matches!(error, StoreError::Full { .. }));
    assert_eq!(store.pending(None, 10).await.unwrap(), [request(1, Vec::new())]);

    limit_pages(u32::MAX >> 1).await.unwrap();
    store.submit(request(2, big())).await.unwrap();
    let pending = store.pending(None, 10).await.unwrap();
    assert_eq!(pending, [request(1, Vec::new()), request(2, big())]);
}

#[tokio::test]
async fn a_lock_of_another_program_passes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let options = SqliteOptions { busy_timeout: Duration::ZERO, ..fast() };
    let store = SqliteStore::open(&path, options).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.submit(request(1, Vec::new())).await.unwrap_err();
    let expected = "cannot accept the request: database is locked; close the other program that has \
                    the database open";
    assert_eq!(error.to_string(), expected);
    assert_eq!(store.pending(None, 10).await.unwrap(), [], "reading is still possible");
    other.execute_batch("ROLLBACK").unwrap();
    store.submit(request(1, Vec::new())).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_tried_again_takes_up_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let options = SqliteOptions { busy_timeout: Duration::ZERO, inline_bytes_max: 10, ..fast() };
    let store = SqliteStore::open(&path, options).unwrap();
    store.submit(request(1, Vec::new())).await.unwrap();
    let files = || {
        let shard = directory.path().join("store.db.bodies/01");
        std::fs::read_dir(shard).map_or(0, Iterator::count)
    };
    let complete = |byte: u8| {
        let response = StoredResponse { status: 200, headers: Vec::new(), body: vec![byte; 100] };
        let at = Timestamp::from_secs(2);
        let completion =
            Completion { at, response, error: None, inference_seconds: None, attempts: 1 };
        store.complete(RequestId(1), completion)
    };
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..5 {
        complete(7).await.unwrap_err();
        assert_eq!(files(), 1);
    }
    complete(8).await.unwrap_err();
    assert_eq!(files(), 2, "another answer is another file");
    other.execute_batch("ROLLBACK").unwrap();
    complete(7).await.unwrap();
    store.purge(Retention::since(Timestamp::ZERO), 1).await.unwrap();
    store.close().await;
    assert_eq!(files(), 1, "the purge looks for what failed writes have left");
    drop(store);
    let store = SqliteStore::open(&path, options).unwrap();
    assert_eq!(store.response(RequestId(1)).await.unwrap().unwrap().body, vec![7; 100]);
}

#[tokio::test]
async fn commits_are_synced_by_default() {
    let directory = tempfile::tempdir().unwrap();
    let full = 2;
    let store =
        SqliteStore::open(&directory.path().join("a.db"), SqliteOptions::default()).unwrap();
    let synchronous = store
        .write("read a setting of SQLite", |conn| {
            Ok(conn.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0))?)
        })
        .await;
    assert_eq!(synchronous.unwrap(), full);
}

#[tokio::test]
async fn closing_does_what_was_sent() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let (release, held) = hold_writer(&store).await;
    let mut submits = join_all((0..300).map(|number| store.submit(request(number, Vec::new()))));
    send_all(&mut submits).await;
    let mut close = Box::pin(store.close());
    assert_eq!(futures::poll!(&mut close), Poll::Pending);
    drop(release);
    close.await;
    held.await.unwrap();
    assert!(submits.await.iter().all(Result::is_ok));

    let error = store.submit(request(1_000, Vec::new())).await.unwrap_err();
    let expected = "cannot accept the request: the database is closed; start the node again";
    assert_eq!(error.to_string(), expected);
    let error = store.settings().await.unwrap_err();
    assert!(error.to_string().starts_with("cannot read the settings: "), "{error}");
    store.close().await;
    drop(store);
    assert_eq!(open(directory.path()).pending(None, usize::MAX).await.unwrap().len(), 300);
}

#[tokio::test]
async fn a_write_nobody_waits_for_still_happens() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let (release, held) = hold_writer(&store).await;
    let mut submit = store.submit(request(1, Vec::new()));
    assert!(poll_immediate(&mut submit).await.is_none());
    drop(submit);
    drop(release);
    held.await.unwrap();
    drop(store);
    assert_eq!(open(directory.path()).pending(None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_of_every_older_version_is_migrated() {
    for old in 0..MIGRATIONS.len() {
        let directory = tempfile::tempdir().unwrap();
        let mut conn = Connection::open(directory.path().join("store.db")).unwrap();
        if old > 0 {
            migrate(&mut conn, &MIGRATIONS[..1]).unwrap();
            conn.execute_batch(
                "INSERT INTO requests VALUES (7, zeroblob(16), 'local/ocr', '', 'POST', 0, 1000000, \
                 NULL, 0, NULL, '', '[]', x'01'); INSERT INTO pending VALUES (7); \
                 INSERT INTO requests VALUES (9, x'00000000000000000000000000000009', 'local/ocr', \
                 '', 'POST', 0, 1000000, NULL, 0, NULL, '', '[]', x'0102'); \
                 INSERT INTO completions VALUES (9, 5, 200, NULL, NULL, NULL, 1, '[]', x'030405');",
            )
            .unwrap();
        }
        migrate(&mut conn, &MIGRATIONS[..old]).unwrap();
        conn.close().unwrap();

        let store = open(directory.path());
        let pending = store.pending(None, 10).await.unwrap();
        let expected: &[_] = if old > 0 { &[request(0, vec![1])] } else { &[] };
        assert_eq!(pending, expected, "from version {old}");
        let keep = |bytes_max| Retention { bytes_max, ..Retention::since(Timestamp::ZERO) };
        assert_eq!(store.purge(keep(5), 10).await.unwrap(), 0);
        assert_eq!(store.purge(keep(4), 10).await.unwrap(), usize::from(old > 0));
        store.put_setting("a".to_owned(), "b".to_owned(), "1".to_owned()).await.unwrap();
        let record = JournalRecord {
            at: Timestamp::ZERO,
            subjects: vec!["app:a".to_owned()],
            sentence: String::new(),
            json: String::new(),
        };
        store.append_journal(vec![record.clone()]).await.unwrap();
        assert_eq!(store.journal("app:a".to_owned(), 1).await.unwrap(), [record]);
    }
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let mut conn = Connection::open_in_memory().unwrap();
    let migrations = ["CREATE TABLE one (x)", "CREATE TABLE two (x); CREATE TABLE one (x)"];
    migrate(&mut conn, &migrations).unwrap_err();
    assert_eq!(version(&conn).unwrap(), 1);
    assert!(!conn.table_exists(None, "two").unwrap());
    migrate(&mut conn, &["CREATE TABLE one (x)", "CREATE TABLE two (x)"]).unwrap();
    assert_eq!(version(&conn).unwrap(), 2);
}

#[tokio::test]
async fn a_start_takes_back_the_webhooks_that_were_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.begin_boot().await.unwrap();
    let end = Timestamp::from_secs(10);
    for number in 0..3 {
        let webhook_url = Some("https://example.com".to_owned());
        let hooked = QueuedRequest { webhook_url, ..request(number, Vec::new()) };
        store.submit(hooked).await.unwrap();
        let response = StoredResponse { status: 200, headers: Vec::new(), body: Vec::new() };
        let completion =
            Completion { at: end, response, error: None, inference_seconds: None, attempts: 1 };
        store.complete(RequestId(number), completion).await.unwrap();
    }
    assert_eq!(store.due_deliveries(end, 10).await.unwrap().len(), 3);
    let call = DeliveryAttempt { at: end, took: Duration::ZERO, status: None, problem: None };
    let later = DeliveryState::Due(Timestamp::from_secs(99));
    store.called(RequestId(0), call.clone(), later).await.unwrap();
    store.called(RequestId(1), call, DeliveryState::Delivered).await.unwrap();
    assert_eq!(store.due_deliveries(Timestamp::from_secs(11), 10).await.unwrap(), []);
    store.close().await;
    drop(store);

    let store = open(directory.path());
    store.begin_boot().await.unwrap();
    let due = store.due_deliveries(Timestamp::from_secs(11), 10).await.unwrap();
    let again: Vec<_> = due.iter().map(|delivery| delivery.request).collect();
    assert_eq!(again, [RequestId(2)], "the only one whose call nobody told of");
    assert_eq!(store.next_delivery().await.unwrap(), Some(Timestamp::from_secs(99)));
}

#[test]
fn queries_use_their_indexes() {
    let mut conn = Connection::open_in_memory().unwrap();
    migrate(&mut conn, MIGRATIONS).unwrap();
    let plan = |sql: &str| {
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        // The values are left out: the plan does not depend on them.
        let steps = statement.raw_query().mapped(|row| row.get::<_, String>(3));
        steps.map(|step| step.unwrap()).collect::<Vec<_>>().join("; ")
    };
    let check = |sql: &str, expected: &str| assert_eq!(plan(sql), expected, "{sql}");
    check(
        super::queue::SELECT_PENDING,
        "SEARCH pending USING INTEGER PRIMARY KEY (rowid>?); \
         SEARCH requests USING INTEGER PRIMARY KEY (rowid=?)",
    );
    check(super::purge::SELECT_ENDED, "SCAN completions USING INDEX completions_by_time");
    check(
        super::queue::SELECT_COMPLETED,
        "SCAN completions USING INDEX completions_by_time; \
         SEARCH requests USING INTEGER PRIMARY KEY (rowid=?)",
    );
    check(
        super::accept::SELECT_BY_KEY,
        "SEARCH requests USING INDEX requests_by_key (caller=? AND app=? AND idempotency_key=?)",
    );
    check(
        super::accept::SELECT_NOT_OWNED,
        "SEARCH pending USING INTEGER PRIMARY KEY (rowid>?); \
         SEARCH requests USING INTEGER PRIMARY KEY (rowid=?)",
    );
    check(
        super::webhooks::SELECT_DUE,
        "SEARCH deliveries USING INDEX deliveries_by_time (due_at<?); \
         SEARCH completions USING INTEGER PRIMARY KEY (rowid=?); \
         SEARCH requests USING INTEGER PRIMARY KEY (rowid=?)",
    );
    check(
        super::webhooks::SELECT_NEXT,
        "SEARCH deliveries USING COVERING INDEX deliveries_by_time (due_at>?)",
    );
    check(
        super::journal::SELECT_ABOUT,
        "CO-ROUTINE (subquery-1); SEARCH journal_subjects USING PRIMARY KEY (subject=?); \
         SCAN (subquery-1); SEARCH journal USING INTEGER PRIMARY KEY (rowid=?); \
         USE TEMP B-TREE FOR ORDER BY",
    );
}

#[tokio::test]
async fn the_check_knows_the_reserve_before_anything_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let free = crate::free_bytes(directory.path()).unwrap();
    for (reserve, has_room) in [(0, true), (free / 2, true), (free.saturating_mul(2), false)] {
        let options = SqliteOptions { disk_reserve_bytes: reserve, ..SqliteOptions::default() };
        let store = SqliteStore::open(&path, options).unwrap();
        let checked = store.check().await;
        assert_eq!(checked.is_ok(), has_room, "{checked:?}");
        assert!(has_room || matches!(checked, Err(StoreError::Full { .. })), "{checked:?}");
    }
}

#[test]
fn an_inspection_finds_what_is_wrong_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("glowplug.db");
    SqliteStore::inspect(&path).unwrap();
    assert!(!path.exists(), "it only looks");
    drop(open(directory.path()));
    let path = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let path = path.into_iter().find(|path| path.extension().is_some_and(|e| e == "db")).unwrap();
    SqliteStore::inspect(&path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let damaged_from = bytes.len() / 2;
    bytes[damaged_from..].fill(0xff);
    std::fs::write(&path, &bytes).unwrap();
    let problem = SqliteStore::inspect(&path).unwrap_err();
    assert!(matches!(problem, StoreError::Corrupt { .. }), "{problem:?}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}
