//! Files that must be refused, and left as they are.

use std::fs;
use std::path::Path;

use glowplug_store::{SqliteStore, Store, StoreError};

use crate::samples::{at, completion, fast, id, request, sqlite};

/// Opens a file that must be refused, and checks that nothing beside the lock was written.
#[track_caller]
fn refuse(path: &Path) -> StoreError {
    let before = files(path);
    let error = SqliteStore::open(path, fast()).unwrap_err();
    assert!(files(path) == before, "the files have changed: {error}");
    error
}

/// What is in the database and its write-ahead log. An empty log is as good as none.
fn files(path: &Path) -> [Vec<u8>; 2] {
    ["", "-wal"].map(|suffix| fs::read(format!("{}{suffix}", path.display())).unwrap_or_default())
}

/// A closed store with enough in it to cover many pages.
async fn filled(directory: &Path) -> std::path::PathBuf {
    let store = sqlite(directory);
    for number in 0..200 {
        store.submit(request(number)).await.unwrap();
        store.complete(id(number), completion(at(101), &[7; 2_000])).await.unwrap();
    }
    store.close().await;
    directory.join("store.db")
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    fs::write(&path, "Dear diary, ".repeat(1_000)).unwrap();
    let error = refuse(&path);
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "the database at {} cannot be used (file is not a database); move it away or restore a \
             backup, then start again",
            path.display()
        )
    );
}

#[test]
fn a_database_of_another_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE requests (url TEXT)").unwrap();
    other.close().unwrap();
    let error = refuse(&path);
    assert!(error.to_string().contains("it belongs to another program"), "{error}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path()).await;
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    newer.close().unwrap();
    let error = refuse(&path);
    assert!(matches!(error, StoreError::TooNew { found: 99, known: 5, .. }), "{error}");
}

#[tokio::test]
async fn a_truncated_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path()).await;
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = refuse(&path);
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

/// Overwrites pages in the middle of the file.
fn scribble(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 40_000].fill(0x5a);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn damaged_pages_are_found_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path()).await;
    // A copy of the files of a running store is what a crash leaves.
    let store = sqlite(directory.path());
    store.submit(request(1_000)).await.unwrap();
    let crashed = directory.path().join("crashed.db");
    fs::copy(&path, &crashed).unwrap();
    fs::copy(directory.path().join("store.db-wal"), directory.path().join("crashed.db-wal"))
        .unwrap();
    scribble(&crashed);
    let error = refuse(&crashed);
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn damage_that_shows_later_fails_the_read_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path()).await;
    scribble(&path);
    let store = sqlite(directory.path());
    let mut damaged = 0;
    for number in 0..200 {
        match store.response(id(number)).await {
            Ok(_) => {}
            Err(StoreError::Corrupt { .. }) => damaged += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!((1..200).contains(&damaged), "{damaged} of 200 answers are damaged");
    store.check().await.unwrap();
}

#[tokio::test]
async fn a_clean_shutdown_leaves_one_file_and_no_log() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path()).await;
    let wal = directory.path().join("store.db-wal");
    assert!(!wal.exists(), "after close");
    let store = sqlite(directory.path());
    store.submit(request(1_000)).await.unwrap();
    assert!(wal.exists());
    for file in [&path, &wal] {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    drop(store);
    assert!(!wal.exists(), "after drop");
    assert_eq!(sqlite(directory.path()).pending(None, 10).await.unwrap(), [request(1_000)]);
}

#[test]
fn two_stores_cannot_share_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let first = sqlite(directory.path());
    let error = SqliteStore::open(&directory.path().join("store.db"), fast()).unwrap_err();
    assert!(error.to_string().contains("another glowplug uses"), "{error}");
    drop(first);
    sqlite(directory.path());
}

#[test]
fn a_missing_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing/store.db");
    let error = SqliteStore::open(&path, fast()).unwrap_err();
    let expected = format!("cannot open the database: {}", path.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
}
