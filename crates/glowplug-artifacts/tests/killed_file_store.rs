//! Whatever instant kills the process that keeps files, what it said it kept can be read, and nothing is left
//! of what it did not get to.
//!
//! The test needs a second process to kill, so the binary has no test harness: called with `keep`, it is that
//! process. It says what it does line by line, and goes on for long, to be killed: by itself at a named point, or
//! by the test after some line.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]
#![expect(clippy::print_stdout, reason = "without a harness, the test talks to its runner itself")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::{TryStreamExt, stream};
use glowplug_artifacts::files::{
    CRASH_POINTS, FileId, FileStore, NewFile, Options, PartOrder, Usage,
};
use glowplug_core::Timestamp;

const NAME: &str = "a_killed_store_keeps_what_it_said_it_kept";
const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
const PIECE_BYTES: usize = 16 * 1024;
/// Deaths after a line, beside those at each named point.
const RANDOM_DEATHS: u64 = 8;
/// A point that is not reached by then never is.
const ROUNDS_MAX: u64 = 40;
const LINES_MAX: u64 = 40;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if let [mode, folder, point, times] = arguments.as_slice()
        && mode == "keep"
    {
        DEATH.set((point.clone(), times.parse().unwrap())).unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(keep(Path::new(folder)));
    } else if has("--list") {
        // What nextest asks of a binary; none of its tests is ignored.
        if !has("--ignored") {
            println!("{NAME}: test");
        }
    } else {
        tokio::runtime::Runtime::new().unwrap().block_on(kill_and_look());
        println!("test {NAME} ... ok");
    }
}

/// The point at which this process dies, and how often it may come there.
static DEATH: OnceLock<(String, u32)> = OnceLock::new();
static TIMES: AtomicU32 = AtomicU32::new(0);

fn die_at(point: &'static str) {
    let Some((chosen, times)) = DEATH.get() else { return };
    if chosen == point && TIMES.fetch_add(1, Ordering::SeqCst) + 1 == *times {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
            .unwrap();
    }
}

fn open(folder: &Path) -> Arc<FileStore> {
    let options = Options { disk_reserve_bytes: 0, crash_point: die_at, ..Options::default() };
    FileStore::open(folder, options, NOW).unwrap()
}

fn file(seed: u64) -> NewFile {
    NewFile {
        content_type: "text/plain".to_owned(),
        file_name: seed.to_string(),
        owner: "me".to_owned(),
        keep: None,
        length: None,
    }
}

/// Every fourth is like no other; of the rest many are equal.
fn pieces(seed: u64) -> Vec<Bytes> {
    let kind = seed % 5;
    let piece = |n: u64| Bytes::from(vec![u8::try_from(10 * kind + n).unwrap(); PIECE_BYTES]);
    let own = seed.is_multiple_of(4).then(|| Bytes::from(seed.to_string()));
    (0..=kind).map(piece).chain(own).collect()
}

fn body(pieces: Vec<Bytes>) -> impl futures::Stream<Item = Result<Bytes, String>> {
    stream::iter(pieces.into_iter().map(Ok))
}

/// Keeps, uploads and drops files, and says so before the next.
async fn keep(folder: &Path) {
    let store = open(folder);
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
    };
    let first = 1_000 * store.usage().files as u64;
    for round in 0..ROUNDS_MAX {
        let seed = first + 2 * round;
        let kept = store.put(file(seed), NOW, body(pieces(seed))).await.unwrap();
        say(format!("kept {} {seed}", kept.id));
        let begun = store.begin_upload(file(seed + 1), NOW).await.unwrap();
        let mut orders = Vec::new();
        for (number, piece) in (1..).zip(pieces(seed + 1)) {
            let body = body(vec![piece]);
            let part = store.put_part(begun.upload, number, None, NOW, body).await.unwrap();
            orders.push(PartOrder { number, etag: part.etag });
        }
        let made = store.complete_upload(begun.file, begun.upload, orders, NOW).await.unwrap();
        say(format!("kept {} {}", made.id, seed + 1));
        if seed.is_multiple_of(4) {
            say(format!("dropping {}", kept.id));
            store.delete(kept.id).await.unwrap();
            say(format!("dropped {}", kept.id));
        }
    }
}

/// What the killed process said of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Kept(u64),
    /// It may be there or not.
    Dropping(u64),
    Dropped,
}

async fn kill_and_look() {
    for point in CRASH_POINTS {
        for times in [1, 3] {
            killed(point, times, u64::MAX).await;
        }
    }
    for seed in 1..=RANDOM_DEATHS {
        // Any fixed choice will do; these spread.
        killed("none", 1, 1 + (seed * 0x9e37_79b9) % LINES_MAX).await;
    }
}

/// Lets a process keep files until it dies, and looks at what it left. It does so twice in one folder.
async fn killed(point: &str, times: u32, lines: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut said = HashMap::new();
    for deaths in 1..=2 {
        until_death(folder.path(), point, times, lines, &mut said);
        look(folder.path(), &said, point, deaths).await;
    }
}

fn until_death(
    folder: &Path,
    point: &str,
    times: u32,
    lines: u64,
    said: &mut HashMap<FileId, Said>,
) {
    #[expect(clippy::disallowed_methods, reason = "the test is about this second process")]
    let mut keeper = Command::new(std::env::current_exe().unwrap())
        .args(["keep".as_ref(), folder.as_os_str(), point.as_ref(), times.to_string().as_ref()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let reader = BufReader::new(keeper.stdout.take().unwrap());
    for (line, count) in reader.lines().map(Result::unwrap).zip(1_u64..) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["kept", id, seed] => {
                said.insert(id.parse().unwrap(), Said::Kept(seed.parse().unwrap()));
            }
            ["dropping", id] => {
                let id = id.parse().unwrap();
                let Said::Kept(seed) = said[&id] else { panic!("{line}") };
                said.insert(id, Said::Dropping(seed));
            }
            ["dropped", id] => drop(said.insert(id.parse().unwrap(), Said::Dropped)),
            _ => panic!("{line}"),
        }
        if count == lines {
            keeper.kill().unwrap();
        }
    }
    assert_eq!(keeper.wait().unwrap().signal(), Some(9), "{point}");
}

async fn look(folder: &Path, said: &HashMap<FileId, Said>, point: &str, deaths: usize) {
    let store = open(folder);
    let mut found = 0;
    for (id, said) in said {
        let record = store.find(*id, NOW);
        let seed = match (said, &record) {
            (Said::Kept(seed) | Said::Dropping(seed), Some(_)) => *seed,
            (Said::Kept(_), None) => panic!("{point}: {id} was kept and is gone"),
            (Said::Dropped, Some(_)) => panic!("{point}: {id} was dropped and is there"),
            (Said::Dropping(_) | Said::Dropped, None) => continue,
        };
        found += 1;
        let record = record.unwrap();
        let content = store.content(&record).await.unwrap();
        let got = content.read(0..record.bytes).map_ok(|chunk| chunk.to_vec()).try_concat().await;
        assert!(got.unwrap() == pieces(seed).concat(), "{point}: {id} has other bytes");
    }
    let Usage { files, contents, uploads, bytes } = store.usage();
    // The last one before each death may have been named, and not said.
    assert!((found..=found + deaths).contains(&files), "{point}: {files} files, {found} said");
    let on_disk = |below: &str| files_below(&folder.join(below));
    assert_eq!(on_disk("names").len(), files, "{point}");
    assert_eq!(on_disk("content").len(), contents, "{point}");
    assert_eq!(on_disk("tmp"), [] as [PathBuf; 0], "{point}");
    let parts = on_disk("uploads").into_iter().filter(|path| !path.ends_with("upload.json"));
    let all = on_disk("content").into_iter().chain(parts);
    let counted: u64 = all.map(|path| std::fs::metadata(path).unwrap().len()).sum();
    assert_eq!(bytes, counted, "{point}");
    // What was begun and not finished is nobody's after a while.
    let later = NOW + 2 * store.options().upload_idle_max;
    assert_eq!(store.sweep(later).await.unwrap().uploads, uploads, "{point}");
    assert_eq!(on_disk("uploads"), [] as [PathBuf; 0], "{point}");
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
