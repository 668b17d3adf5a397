//! Bodies in files: they come and go with their requests, and are never another's.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glowplug_store::{
    Accepted, Completed, Place, QueuedRequest, Retention, SqliteOptions, SqliteStore, Store,
    StoreError,
};

use crate::samples::{at, completion, fast, id, request};

/// Small, so that files are made in no time.
const INLINE: usize = 100;

pub(crate) fn open(directory: &Path) -> Arc<SqliteStore> {
    let options = SqliteOptions { inline_bytes_max: INLINE, ..fast() };
    SqliteStore::open(&directory.join("store.db"), options).unwrap()
}

/// A body of a request, told from that of others by its first bytes.
fn body(number: u128, bytes: usize) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(bytes, 0xa5);
    body
}

fn large(number: u128) -> QueuedRequest {
    QueuedRequest { body: body(number, INLINE + 1), ..request(number) }
}

/// All files of bodies, sorted, whatever they are called.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let list = |folder: PathBuf| {
        fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path())
    };
    let shards = list(directory.join("store.db.bodies"));
    let mut files: Vec<_> = shards.flat_map(list).collect();
    files.sort();
    files
}

#[tokio::test]
async fn only_large_bodies_are_in_files() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for (number, bytes, expected) in
        [(1, 0, 0), (2, INLINE, 0), (3, INLINE + 1, 1), (4, 5_000_000, 2), (0x103, 1_000, 3)]
    {
        let request = QueuedRequest { body: body(number, bytes), ..request(number) };
        store.submit(request.clone()).await.unwrap();
        assert_eq!(files(directory.path()).len(), expected, "after {bytes} bytes");
        assert_eq!(store.pending_request(id(number)).await.unwrap(), Some(request));
    }
    let answer = body(9, 3_000_000);
    store.complete(id(1), completion(at(101), &answer)).await.unwrap();
    assert_eq!(store.response(id(1)).await.unwrap().unwrap().body, answer);
    assert_eq!(files(directory.path()).len(), 4);
    drop(store);
    let store = open(directory.path());
    assert_eq!(files(directory.path()).len(), 4, "nothing of it is swept away");
    assert_eq!(store.pending_request(id(4)).await.unwrap().unwrap().body, body(4, 5_000_000));
}

#[tokio::test]
async fn files_go_with_their_requests() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for number in 1..=3 {
        let keep_payload = number != 2;
        store.submit(QueuedRequest { keep_payload, ..large(number) }).await.unwrap();
    }
    for (number, ended_at) in [(1, 10), (2, 20)] {
        let answer = completion(at(ended_at), &body(number, 200));
        assert_eq!(store.complete(id(number), answer).await.unwrap(), Completed::Recorded);
    }
    store.purge(Retention::since(at(15)), 10).await.unwrap();
    store.close().await;
    assert_eq!(files(directory.path()).len(), 2, "one answer and one payload");
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.response(id(2)).await.unwrap().unwrap().body, body(2, 200));
    assert_eq!(store.pending_request(id(3)).await.unwrap(), Some(large(3)));
    store.complete(id(3), completion(at(30), b"")).await.unwrap();
    store.purge(Retention::since(at(100)), 10).await.unwrap();
    store.close().await;
    assert_eq!(files(directory.path()), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn what_is_refused_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let keyed = |number| QueuedRequest {
        idempotency_key: Some("k".to_owned()),
        body: body(0, 500),
        ..request(number)
    };
    store.submit(large(1)).await.unwrap();
    store.submit(keyed(2)).await.unwrap();
    let again = QueuedRequest { body: body(7, 300), ..request(1) };
    assert!(matches!(store.submit(again).await, Err(StoreError::Duplicate(_))));
    assert_eq!(store.submit(keyed(3)).await.unwrap(), Accepted::Before(id(2)));
    let other = QueuedRequest { body: body(8, 500), ..keyed(4) };
    assert!(matches!(store.submit(other).await, Err(StoreError::KeyReused { .. })));
    let answer = || completion(at(101), &body(9, 300));
    assert_eq!(store.complete(id(77), answer()).await.unwrap(), Completed::UnknownRequest);
    assert_eq!(store.complete(id(1), answer()).await.unwrap(), Completed::Recorded);
    assert_eq!(store.complete(id(1), answer()).await.unwrap(), Completed::AlreadyComplete);
    for whole in store.export(Place::START, 10).await.unwrap().0 {
        assert!(!store.import(whole).await.unwrap());
    }
    store.close().await;
    assert_eq!(files(directory.path()).len(), 3);
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.response(id(1)).await.unwrap().unwrap().body, body(9, 300));
    let first = &store.export(Place::START, 1).await.unwrap().0[0];
    assert_eq!(first.request, large(1), "the second did not overwrite the first");
}

#[tokio::test]
async fn a_damaged_file_fails_its_request_alone() {
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 5] = [
        ("the file is missing", |file| fs::remove_file(file).unwrap()),
        ("the file has 0 bytes instead of 101", |file| fs::write(file, b"").unwrap()),
        ("the file has 100 bytes instead of 101", |file| {
            fs::write(file, &fs::read(file).unwrap()[..100]).unwrap();
        }),
        ("the checksum is another", |file| {
            let mut bytes = fs::read(file).unwrap();
            bytes[50] ^= 1;
            fs::write(file, bytes).unwrap();
        }),
        // The body of another request, in its place by somebody's mistake.
        ("the checksum is another", |file| fs::write(file, large(3).body).unwrap()),
    ];
    for (problem, damage) in damages {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        store.submit(large(1)).await.unwrap();
        store.submit(request(2)).await.unwrap();
        let [file] = &files(directory.path())[..] else { panic!("one file") };
        damage(file);
        let error = store.pending_request(id(1)).await.unwrap_err();
        let expected = format!(
            "the body of request {} at {} cannot be used ({problem}); submit the request again",
            id(1),
            file.display()
        );
        assert_eq!(error.to_string(), expected);
        assert!(matches!(error, StoreError::BodyDamaged { request, .. } if request == id(1)));
        assert_eq!(store.pending_request(id(2)).await.unwrap(), Some(request(2)));
        let answer = completion(at(101), b"its payload is lost");
        assert_eq!(store.complete(id(1), answer).await.unwrap(), Completed::Recorded);
        assert_eq!(store.purge(Retention::since(at(200)), 10).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn orphans_are_swept_when_the_store_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.submit(large(1)).await.unwrap();
    store.close().await;
    drop(store);
    let [file] = &files(directory.path())[..] else { panic!("one file") };
    let name = file.file_name().unwrap().to_str().unwrap();
    let folder = file.parent().unwrap();
    // A crash before the rename, before the row, after the row was gone.
    for orphan in [
        format!("{name}.partial"),
        format!("{:032x}.0000000000000001.0", id(1).0),
        format!("{:032x}.0000000000000001.0", id(0x201).0),
    ] {
        fs::write(folder.join(orphan), b"orphan").unwrap();
    }
    let foreign = folder.join("notes.txt");
    fs::write(&foreign, b"not of a store").unwrap();
    let store = open(directory.path());
    assert_eq!(files(directory.path()), [file.clone(), foreign]);
    assert_eq!(store.pending_request(id(1)).await.unwrap(), Some(large(1)));
}
