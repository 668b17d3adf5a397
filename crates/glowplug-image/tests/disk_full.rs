//! A pull that finds the disk full fails, and leaves a store that works as soon as there is room.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod support;

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::process::Command;

use glowplug_image::Store;
use glowplug_image::convert::{self, layout};
use glowplug_image::source::Compression;
use glowplug_image::store::Repair;

use self::support::faulty::{Faulty, Manners};
use self::support::images::{expected, image, layer, noise};
use self::support::root::{files, is_root};
use self::support::{chain, pull, puller};

const DISK_BYTES: u64 = 64 << 20;
const FILES: u8 = 40;
const FILE_BYTES: usize = 3 << 20;

/// A file system of its own, unmounted when it is dropped.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `None` where this machine cannot mount one, and says so.
    #[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
    fn new() -> Option<Self> {
        let disk = Self { folder: tempfile::tempdir().unwrap() };
        let image = disk.folder.path().join("disk");
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        std::fs::create_dir(disk.mounted()).unwrap();
        let made = run("mkfs.ext4", &["-q".as_ref(), "-m0".as_ref(), &image]);
        let mounted = made && run("mount", &["-oloop".as_ref(), &image, &disk.mounted()]);
        if !mounted {
            eprintln!("skipped: this machine cannot mount a file system from a file");
        }
        mounted.then_some(disk)
    }

    fn mounted(&self) -> std::path::PathBuf {
        self.folder.path().join("mounted")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &[&self.mounted()]);
    }
}

fn run(program: &str, arguments: &[&Path]) -> bool {
    #[expect(clippy::disallowed_methods, reason = "makes and mounts a file system")]
    let status = Command::new(program).args(arguments).status();
    status.is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_the_pull_and_nothing_else() {
    if !is_root() {
        return;
    }
    let Some(disk) = Disk::new() else { return };
    // Compresses to so little that it seems to fit.
    let contents: Vec<_> = (0..FILES).map(|byte| vec![byte; FILE_BYTES]).collect();
    let names: Vec<_> = (0..FILES).map(|number| format!("file-{number}")).collect();
    let all: Vec<_> =
        names.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)).collect();
    let large = image(vec![layer(Compression::Zstd, &all)]);
    let small = image(vec![layer(Compression::Zstd, &all[..4])]);
    let registry = Faulty::start(&[("large", &large), ("small", &small)], Manners::default()).await;
    {
        let store = Store::open(&disk.mounted().join("images")).unwrap();
        let puller = puller(&store);
        let error = chain(&pull(&puller, &registry.name("large")).await.unwrap_err());
        assert!(error.contains("No space left on device"), "{error}");
        assert_eq!(store.images().unwrap(), []);
        assert!(store.check(Repair::No).unwrap().is_clean());
        let collected = store.collect(0, &HashSet::new()).unwrap();
        assert!(collected.contents > 10, "{collected:?}");
        let image = pull(&puller, &registry.name("small")).await.unwrap();
        assert_eq!(files(&store, &image), expected(&all[..4]));
        store.sync().unwrap();
        store.remove_image(&image.digest).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_the_conversion_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    let Some(disk) = Disk::new() else { return };
    // Larger than the disk together, whatever compresses them.
    let contents: Vec<_> = (0..8).map(|seed| noise(seed, 10 << 20)).collect();
    let names: Vec<_> = (0..8).map(|number| format!("file-{number}")).collect();
    let all: Vec<_> =
        names.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)).collect();
    let packed =
        image(vec![layer(Compression::None, &all[..4]), layer(Compression::None, &all[4..])]);
    let registry = Faulty::start(&[("1", &packed)], Manners::default()).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let store = Store::open(elsewhere.path()).unwrap();
    let image = pull(&puller(&store), &registry.name("1")).await.unwrap();
    let (reader, json) = (store.reader(), &packed.config.bytes);
    let convert = |scratch: &Path| convert::convert(&reader, &image, json, 1, scratch, &mut |_| {});
    let target = disk.mounted().join("a.tar");
    std::fs::write(&target, "before").unwrap();
    let left = || std::fs::read_dir(disk.mounted()).unwrap().count();
    let before = left();

    let error = chain(&convert(&disk.mounted()).unwrap_err());
    assert!(error.contains("No space left on device"), "{error}");
    let mut converted = convert(elsewhere.path()).unwrap();
    let error = chain(&layout::write_file(&mut converted, &target, "1").unwrap_err());
    assert!(error.contains("No space left on device"), "{error}");
    assert_eq!((left(), std::fs::read(&target).unwrap()), (before, b"before".to_vec()));
}
