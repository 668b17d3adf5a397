//! Copies of a store that is in use.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use glowplug_store::{
    MemoryStore, Place, QueuedRequest, Retention, SqliteOptions, SqliteStore, Store, StoreError,
};

use crate::bodies::open;
use crate::samples::{at, completion, fast, id, request, sqlite};

fn large(number: u128) -> QueuedRequest {
    QueuedRequest { body: vec![u8::try_from(number % 251).unwrap(); 5_000], ..request(number) }
}

fn reopen(directory: &std::path::Path) -> Arc<SqliteStore> {
    let options = SqliteOptions { inline_bytes_max: 100, ..fast() };
    SqliteStore::open(&directory.join("copy.db"), options).unwrap()
}

#[tokio::test]
async fn a_backup_is_a_store_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for each in [large(1), large(2), request(3)] {
        store.submit(each).await.unwrap();
    }
    store.complete(id(2), completion(at(101), &[7; 3_000])).await.unwrap();
    store.put_setting("a".to_owned(), "b".to_owned(), "1".to_owned()).await.unwrap();
    let before = store.export(Place::START, 10).await.unwrap().0;
    let to = directory.path().join("copy.db");
    store.backup(to.clone()).await.unwrap();
    assert_eq!(to.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    // What becomes of the first does not touch the second.
    store.complete(id(1), completion(at(102), b"")).await.unwrap();
    store.purge(Retention::since(at(1_000)), 10).await.unwrap();
    store.close().await;
    drop(store);
    let copy = reopen(directory.path());
    assert_eq!(copy.export(Place::START, 10).await.unwrap().0, before);
    assert_eq!(copy.settings().await.unwrap().len(), 1);
    copy.submit(request(4)).await.unwrap();
}

#[tokio::test]
async fn a_backup_overwrites_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = sqlite(directory.path());
    let to = directory.path().join("copy.db");
    for taken in ["copy.db", "copy.db.bodies"] {
        let taken = directory.path().join(taken);
        std::fs::write(&taken, b"dear").unwrap();
        let error = store.backup(to.clone()).await.unwrap_err();
        let expected = format!(
            "cannot make a backup: {}: it exists already; choose another name",
            taken.display()
        );
        assert_eq!(error.to_string(), expected);
        assert_eq!(std::fs::read(&taken).unwrap(), b"dear");
        std::fs::remove_file(&taken).unwrap();
    }
    let own = store.backup(directory.path().join("store.db")).await.unwrap_err();
    assert!(matches!(own, StoreError::Unavailable { .. }), "{own}");
    let nowhere = directory.path().join("missing/copy.db");
    store.backup(nowhere.clone()).await.unwrap_err();
    // What an attempt that was killed has left is in nobody's way.
    std::fs::write(directory.path().join("copy.db.partial"), b"half").unwrap();
    store.backup(to).await.unwrap();
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("partial"))
        .collect();
    assert_eq!(left, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_one_moment_of_a_busy_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for number in 0..300 {
        store.submit(large(number)).await.unwrap();
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let traffic = tokio::spawn({
        let (store, is_over) = (Arc::clone(&store), Arc::clone(&is_over));
        async move {
            // Each step leaves as many requests as it found, and moves the files of two.
            let mut number = 300;
            while !is_over.load(Ordering::SeqCst) {
                store.submit(large(number)).await.unwrap();
                let oldest = id(number - 300);
                store.complete(oldest, completion(at(101), &[9; 2_000])).await.unwrap();
                store.purge(Retention::since(at(200)), 1).await.unwrap();
                number += 1;
            }
            number
        }
    });
    for round in 0..3 {
        store.backup(directory.path().join("copy.db")).await.unwrap();
        let copy = reopen(directory.path());
        let all = copy.export(Place::START, 1_000).await.unwrap().0;
        let waiting: Vec<_> = all.iter().filter(|whole| whole.completion.is_none()).collect();
        assert!((300..=301).contains(&waiting.len()), "{} in round {round}", waiting.len());
        for whole in waiting {
            assert_eq!(whole.request, large(whole.request.id.0));
        }
        drop(copy);
        std::fs::remove_file(directory.path().join("copy.db")).unwrap();
        std::fs::remove_dir_all(directory.path().join("copy.db.bodies")).unwrap();
    }
    is_over.store(true, Ordering::SeqCst);
    assert!(traffic.await.unwrap() > 300, "the store was busy");
    store.close().await;
    let files = crate::bodies::files(directory.path());
    let rows = sqlite_files(directory.path());
    assert_eq!(files.len(), rows, "what was held for the backups is gone");
}

/// Files that rows name.
fn sqlite_files(directory: &std::path::Path) -> usize {
    let conn = rusqlite::Connection::open(directory.join("store.db")).unwrap();
    let count = "SELECT (SELECT count(body_file) FROM requests) + \
                 (SELECT count(body_file) FROM completions)";
    usize::try_from(conn.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap()).unwrap()
}

#[tokio::test]
async fn memory_has_no_backup() {
    let error = MemoryStore::new().backup("copy.db".into()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "this kind of store cannot make a backup; export its requests, or give the node a data directory"
    );
}
