//! Whatever instant kills the process that pulls, what the store has is whole, and the next pull brings the rest.
//!
//! The test needs a second process to kill, so the binary has no test harness: called with `pull`, it is that
//! process. It says how far it is line by line, and the test kills it after some line.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]
#![expect(clippy::print_stdout, reason = "without a harness, the test talks to its runner itself")]

mod support;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use futures::future::join_all;
use glowplug_image::Store;
use glowplug_image::pull::ProgressSender;
use glowplug_image::source::Compression;
use glowplug_image::source::credentials::Credentials;
use glowplug_image::store::Repair;

use self::support::faulty::{Faulty, Manners};
use self::support::images::{TestImage, image, layer, noise};
use self::support::root::{files, is_root};
use self::support::{pull, puller, source};

const NAME: &str = "a_killed_pull_leaves_only_whole_things";
const DEATHS: u64 = 16;
/// A process that nobody kills says more, unless the machine is busy.
const LINES_MAX: u64 = 24;
const LARGE: usize = 200_000;
const IMAGES: u64 = 2;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if let [mode, folder, names @ ..] = arguments.as_slice()
        && mode == "pull"
    {
        tokio::runtime::Runtime::new().unwrap().block_on(pull_and_say(Path::new(folder), names));
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

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// Pulls all images at once, and says every step.
async fn pull_and_say(folder: &Path, names: &[String]) {
    let puller = puller(&Store::open(folder).unwrap());
    let each = names.iter().map(async |name| {
        let (progress, mut seen) = ProgressSender::channel();
        let telling = tokio::spawn(async move {
            while seen.changed().await.is_ok() {
                say(&format!("{:?}", *seen.borrow_and_update()));
            }
        });
        puller.pull(&source(name, Credentials::Anonymous), &progress).await.unwrap();
        drop(progress);
        telling.await.unwrap();
        say("pulled");
    });
    join_all(each).await;
    puller.store().sync().unwrap();
}

fn packed(number: u64) -> TestImage {
    let small: Vec<String> = (0..50).map(|file| format!("etc/{number}-{file}")).collect();
    let small: Vec<_> = small.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let common = noise(9, LARGE);
    image(vec![
        layer(Compression::Gzip, &[("base", &noise(8, LARGE))]),
        layer(Compression::Gzip, &small),
        layer(Compression::Zstd, &[("common", &common), ("own", &noise(number, LARGE))]),
    ])
}

async fn kill_and_look() {
    let packed: Vec<_> = (0..IMAGES).map(packed).collect();
    let tags: Vec<String> = (0..IMAGES).map(|number| number.to_string()).collect();
    let named: Vec<_> = tags.iter().map(String::as_str).zip(&packed).collect();
    let manners = Manners { piece_bytes: Some(20_000), ..Manners::default() };
    let registry = Faulty::start(&named, manners).await;
    let names: Vec<String> = tags.iter().map(|tag| registry.name(tag)).collect();
    let folder = tempfile::tempdir().unwrap();
    let mut deaths = 0;
    for seed in 1..=DEATHS {
        // Any fixed choice will do; these spread.
        let line = 1 + (seed * 0x9e37_79b9) % LINES_MAX;
        let (path, asked) = (folder.path().to_owned(), names.clone());
        let killed = tokio::task::spawn_blocking(move || killed_after(&path, &asked, line));
        deaths += u64::from(killed.await.unwrap());
        look(folder.path(), &packed, &names, seed).await;
    }
    assert!(deaths > DEATHS / 2, "only {deaths} were killed half-way");
}

/// `false`: it was done before it could be killed.
fn killed_after(folder: &Path, names: &[String], line: u64) -> bool {
    #[expect(clippy::disallowed_methods, reason = "the test is about this second process")]
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["pull".as_ref(), folder.as_os_str()])
        .args(names)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    for (said, _) in lines.zip(1..=line) {
        said.unwrap();
    }
    process.kill().unwrap();
    !process.wait().unwrap().success()
}

async fn look(folder: &Path, packed: &[TestImage], names: &[String], seed: u64) {
    let store = Store::open(folder).unwrap();
    assert_eq!(fs::read_dir(folder.join("tmp")).unwrap().count(), 0, "{seed}");
    let findings = store.check(Repair::No).unwrap();
    assert!(findings.is_clean(), "{seed}: {findings:?}");
    for image in store.images().unwrap() {
        let number = packed.iter().position(|packed| packed.manifest.digest == image.digest);
        is_as_packed(&store, &image, number.unwrap() as u64);
    }
    let puller = puller(&store);
    for (number, name) in (0..).zip(names) {
        let image = pull(&puller, name).await.unwrap();
        is_as_packed(&store, &image, number);
    }
    assert!(store.check(Repair::No).unwrap().is_clean(), "{seed}");
    // The next round begins with half of it, or with nothing.
    let wanted = store.images().unwrap().into_iter().map(|image| image.digest);
    let wanted: HashSet<_> = wanted.take(usize::try_from(seed % 2).unwrap()).collect();
    store.collect(0, &wanted).unwrap();
    if wanted.is_empty() {
        assert_eq!(store.bytes().unwrap(), 0, "{seed}");
    }
}

fn is_as_packed(store: &Store, image: &glowplug_image::store::Image, number: u64) {
    if !is_root() {
        return;
    }
    let files = files(store, image);
    assert_eq!(files.len(), 53);
    for (name, expected) in [("base", 8), ("common", 9), ("own", number)] {
        assert!(files[name] == noise(expected, LARGE), "{name} of {number}");
    }
    let small = format!("etc/{number}-7");
    assert_eq!(files[&small], small.as_bytes());
}
