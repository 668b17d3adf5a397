//! Torn writes: what a crash may leave of the transaction that was being written, cut off or scribbled over
//! at many places. Whatever was acknowledged before is there.

use std::fs;
use std::path::{Path, PathBuf};

use glowplug_store::{SqliteOptions, SqliteStore, Store};

use crate::samples::{id, request};

const REQUESTS: usize = 8;

fn open(path: &Path) -> std::sync::Arc<SqliteStore> {
    SqliteStore::open(path, SqliteOptions::default()).unwrap()
}

/// The database and its log as they were when the last request was acknowledged, and how long the log was
/// after each.
struct Crash {
    database: Vec<u8>,
    log: Vec<u8>,
    log_bytes: Vec<usize>,
}

async fn crash() -> Crash {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let log = directory.path().join("store.db-wal");
    let store = open(&path);
    let mut log_bytes = Vec::new();
    for number in 0..REQUESTS as u128 {
        store.submit(request(number)).await.unwrap();
        log_bytes.push(usize::try_from(log.metadata().unwrap().len()).unwrap());
    }
    Crash { database: fs::read(path).unwrap(), log: fs::read(log).unwrap(), log_bytes }
}

impl Crash {
    /// Opens the database with this log, and returns how many requests it has.
    async fn requests_with(&self, log: &[u8]) -> usize {
        let directory = tempfile::tempdir().unwrap();
        let path: PathBuf = directory.path().join("store.db");
        fs::write(&path, &self.database).unwrap();
        fs::write(directory.path().join("store.db-wal"), log).unwrap();
        let store = open(&path);
        let pending = store.pending(None, usize::MAX).await.unwrap();
        for (number, found) in (0..).zip(&pending) {
            assert_eq!(*found, request(number), "whole, and in order");
        }
        let next = id(1_000);
        store.submit(request(1_000)).await.unwrap();
        store.close().await;
        drop(store);
        let again = open(&path).pending(None, usize::MAX).await.unwrap();
        assert_eq!(again.len(), pending.len() + 1, "it goes on from there");
        assert_eq!(again.last().unwrap().id, next);
        pending.len()
    }
}

#[tokio::test]
async fn a_log_that_was_cut_off_keeps_what_was_acknowledged() {
    let crash = crash().await;
    for (acknowledged, ends) in (1..).zip(crash.log_bytes.windows(2)) {
        let [end, next] = ends else { unreachable!("windows of two") };
        let torn = next - end;
        for bytes in [0, 1, 23, 24, torn / 2, torn - 4_096, torn - 1] {
            let found = crash.requests_with(&crash.log[..end + bytes]).await;
            assert_eq!(found, acknowledged, "{bytes} of {torn} bytes of the next are there");
        }
    }
    assert_eq!(crash.requests_with(&crash.log).await, REQUESTS);
}

#[tokio::test]
async fn a_log_with_a_damaged_end_keeps_what_was_acknowledged() {
    let crash = crash().await;
    for (acknowledged, ends) in (1..).zip(crash.log_bytes.windows(2)) {
        let [end, next] = ends else { unreachable!("windows of two") };
        let torn = next - end;
        for at in [0, 8, 30, torn / 2, torn - 1] {
            // One bit, or everything from here on: pages that never reached the disk.
            let mut bit = crash.log[..*next].to_vec();
            bit[end + at] ^= 0x10;
            let mut zeros = crash.log[..*next].to_vec();
            zeros[end + at..].fill(0);
            for log in [bit, zeros] {
                // The last bytes of a page may have been zeros before.
                let is_whole = log == crash.log[..*next];
                let expected = acknowledged + usize::from(is_whole);
                assert_eq!(crash.requests_with(&log).await, expected, "damaged at {at} of {torn}");
            }
        }
    }
}
