//! Whatever instant kills the process that pulls, what the store has is whole, and the next pull brings the rest.
//!
//! How a test kills a process is told in `support/killed.rs`.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

mod support;

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use futures::future::join_all;
use glowplug_image::Store;
use glowplug_image::pull::ProgressSender;
use glowplug_image::source::Compression;
use glowplug_image::source::credentials::Credentials;
use glowplug_image::store::Repair;

use self::support::faulty::{Faulty, Manners};
use self::support::images::{TestImage, image, layer, noise};
use self::support::killed::{Killed, say, some_line};
use self::support::root::{files, is_root};
use self::support::{pull, puller, source};

const KILLED: Killed = Killed { name: "a_killed_pull_leaves_only_whole_things", mode: "pull" };
const DEATHS: u64 = 16;
/// A process that nobody kills says more, unless the machine is busy.
const LINES_MAX: u64 = 24;
const LARGE: usize = 200_000;
const IMAGES: u64 = 2;

fn main() {
    KILLED.main(pull_and_say, kill_and_look());
}

/// Pulls all images at once, and says every step.
async fn pull_and_say(arguments: &[String]) {
    let (folder, names) = arguments.split_first().unwrap();
    let puller = puller(&Store::open(Path::new(folder)).unwrap());
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
        let mut arguments = vec![folder.path().to_str().unwrap().to_owned()];
        arguments.extend(names.iter().cloned());
        let line = some_line(seed, LINES_MAX);
        let killed = tokio::task::spawn_blocking(move || KILLED.after(&arguments, line));
        deaths += u64::from(killed.await.unwrap());
        look(folder.path(), &packed, &names, seed).await;
    }
    assert!(deaths > DEATHS / 2, "only {deaths} were killed half-way");
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
