//! A real, small file system that fills up, or gives up, under a store in use.
//!
//! Each test mounts an ext4 image of its own, which takes root and a loop device. Where that cannot be, the
//! test says so and is passed over.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use futures::future::join_all;
use glowplug_store::{
    Completed, QueuedRequest, Retention, SqliteOptions, SqliteStore, Store, StoreError,
};
use tempfile::TempDir;

use crate::samples::{at, completion, id, request};

const DISK_MIB: u64 = 48;
const MIB: u64 = 1024 * 1024;
/// Callers at a time.
const CALLERS: u128 = 16;
/// Far more than the disk can hold.
const REQUESTS_MAX: u128 = 20_000;

/// A file system of its own, unmounted when it is dropped.
struct SmallDisk {
    image: PathBuf,
    mounted_at: PathBuf,
    _directory: TempDir,
}

impl SmallDisk {
    /// Nothing if this machine does not let the test mount.
    #[expect(clippy::print_stdout, reason = "whoever runs the tests must know what was not tested")]
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("disk.img");
        let mounted_at = directory.path().join("disk");
        File::create(&image).unwrap().set_len(DISK_MIB * MIB).unwrap();
        fs::create_dir(&mounted_at).unwrap();
        let disk = Self { image, mounted_at, _directory: directory };
        let made = run("mkfs.ext4", &["-q", "-F", "-m", "0", text(&disk.image)])
            .and_then(|()| disk.mount_again());
        match made {
            Ok(()) => Some(disk),
            Err(reason) => {
                println!("passed over: no small disk can be mounted here ({reason})");
                None
            }
        }
    }

    fn mount_again(&self) -> Result<(), String> {
        let options = "loop,errors=remount-ro";
        run("mount", &["-t", "ext4", "-o", options, text(&self.image), text(&self.mounted_at)])
    }

    fn unmount(&self) -> Result<(), String> {
        run("umount", &[text(&self.mounted_at)])
    }

    /// What the kernel does to a file system that it no longer trusts.
    fn give_up(&self) {
        run("mount", &["-o", "remount,abort", text(&self.mounted_at)]).unwrap();
    }

    /// Takes a part of the room, as another program would.
    fn take(&self, bytes: u64) -> PathBuf {
        let path = self.mounted_at.join("ballast");
        let mut ballast = File::create(&path).unwrap();
        ballast.write_all(&vec![0; usize::try_from(bytes).unwrap()]).unwrap();
        ballast.sync_all().unwrap();
        path
    }

    fn open(&self, reserve_bytes: u64) -> Arc<SqliteStore> {
        let options =
            SqliteOptions { disk_reserve_bytes: reserve_bytes, ..SqliteOptions::default() };
        SqliteStore::open(&self.mounted_at.join("store.db"), options).unwrap()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A disk that could not be mounted is not unmounted either.
        drop(self.unmount());
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "these commands are short and waited for")]
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("cannot start `{program}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`{program}`: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Every fifth is too large for a row.
fn sized(number: u128) -> QueuedRequest {
    let bytes = if number.is_multiple_of(5) { 300_000 } else { 20_000 };
    let mut body = number.to_le_bytes().to_vec();
    body.resize(bytes, 0x77);
    QueuedRequest { body, ..request(number) }
}

fn answer_of(number: u128) -> Vec<u8> {
    format!("answer of {number}").into_bytes()
}

/// Many callers submit until each is refused once; what was accepted.
async fn submit_until_refused(store: &Arc<SqliteStore>, from: u128) -> Vec<u128> {
    let callers = (0..CALLERS).map(|caller| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut accepted = Vec::new();
            for number in (from + caller..from + REQUESTS_MAX).step_by(CALLERS as usize) {
                match store.submit(sized(number)).await {
                    Ok(_) => accepted.push(number),
                    Err(StoreError::Full { .. }) => return accepted,
                    Err(error) => panic!("{error}"),
                }
            }
            panic!("the disk was never full");
        })
    });
    let accepted: Vec<Vec<u128>> =
        join_all(callers).await.into_iter().map(Result::unwrap).collect();
    let mut accepted = accepted.concat();
    accepted.sort_unstable();
    assert!(accepted.len() > 100, "{} requests found room", accepted.len());
    accepted
}

async fn answer_all(store: &SqliteStore, numbers: &[u128]) {
    for number in numbers {
        let answer = completion(at(200), &answer_of(*number));
        assert_eq!(store.complete(id(*number), answer).await.unwrap(), Completed::Recorded);
    }
}

/// Each of these is there, with its own payload and its own answer, and nothing else waits.
async fn check_answered(store: &SqliteStore, numbers: &[u128]) {
    let waiting = store.pending(None, usize::MAX).await.unwrap();
    let waiting: BTreeSet<_> = waiting.iter().map(|request| request.id).collect();
    for number in numbers {
        assert!(!waiting.contains(&id(*number)), "{number} still waits");
        let response = store.response(id(*number)).await.unwrap();
        assert_eq!(response.unwrap().body, answer_of(*number), "{number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reserve_lets_what_was_accepted_be_answered() {
    let Some(disk) = SmallDisk::mount() else { return };
    let store = disk.open(12 * MIB);
    let mut accepted = submit_until_refused(&store, 0).await;
    // A checkpoint between two of them may make room for one more.
    let error = loop {
        let number = 1_000_000 + accepted.len() as u128;
        match store.submit(sized(number)).await {
            Ok(_) => accepted.push(number),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.starts_with("cannot accept the request: the disk of "), "{error}");
    assert!(
        error.contains("are kept for the answers to what was accepted; free some space"),
        "{error}"
    );

    for number in &accepted {
        assert_eq!(store.pending_request(id(*number)).await.unwrap(), Some(sized(*number)));
    }
    answer_all(&store, &accepted).await;
    check_answered(&store, &accepted).await;
    store.put_setting("a".to_owned(), "b".to_owned(), "1".to_owned()).await.unwrap();

    // Old answers go, and new requests come.
    let purged = store.purge(Retention::since(at(1_000)), usize::MAX).await.unwrap();
    assert_eq!(purged, accepted.len());
    store.close().await;
    drop(store);
    let store = disk.open(4 * MIB);
    store.submit(sized(2_000_000)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_and_passes() {
    let Some(disk) = SmallDisk::mount() else { return };
    let ballast = disk.take(16 * MIB);
    let store = disk.open(0);
    let accepted = submit_until_refused(&store, 0).await;

    // Nothing goes, and it is said why. What is there can be read.
    let big_answer = completion(at(200), &vec![7; 200_000]);
    let error = store.complete(id(accepted[0]), big_answer).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    for number in &accepted {
        let found = store.pending_request(id(*number)).await.unwrap();
        assert_eq!(found, Some(sized(*number)), "{number}");
    }
    assert_eq!(store.pending(None, usize::MAX).await.unwrap().len(), accepted.len());

    // Room again: the same store goes on.
    fs::remove_file(ballast).unwrap();
    answer_all(&store, &accepted).await;
    store.submit(sized(1_000_000)).await.unwrap();
    store.close().await;
    drop(store);
    let store = disk.open(0);
    check_answered(&store, &accepted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_gives_up_loses_nothing_that_was_accepted() {
    let Some(disk) = SmallDisk::mount() else { return };
    let store = disk.open(0);
    let (answered, waiting): (Vec<u128>, Vec<u128>) = ((0..40).collect(), (40..80).collect());
    for number in answered.iter().chain(&waiting) {
        store.submit(sized(*number)).await.unwrap();
    }
    answer_all(&store, &answered).await;
    disk.give_up();

    for number in [100, 101] {
        let error = store.submit(sized(number)).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("make the disk of the database writable"), "{error}");
    }
    store.check().await.unwrap_err();
    check_answered(&store, &answered).await;
    assert_eq!(store.pending(None, usize::MAX).await.unwrap().len(), waiting.len());
    store.close().await;
    drop(store);
    disk.unmount().unwrap();

    // Whoever repairs the disk finds everything that was acknowledged.
    disk.mount_again().unwrap();
    let store = disk.open(0);
    check_answered(&store, &answered).await;
    for number in &waiting {
        assert_eq!(store.pending_request(id(*number)).await.unwrap(), Some(sized(*number)));
    }
    answer_all(&store, &waiting).await;
}
