//! Damage is found, taken away, and brought anew by the next pull.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod support;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use glowplug_image::Store;
use glowplug_image::source::Compression;
use glowplug_image::store::{Collected, Findings, Image, Repair};

use self::support::faulty::{Faulty, Manners};
use self::support::images::{TestImage, expected, image, layer, noise};
use self::support::root::{files, is_root, with_root};
use self::support::{pull, puller};

const LARGE: usize = 100_000;
/// The file in which a store says in which life of the machine it was last written to.
const MARK: &str = "unsynced";

fn packed() -> TestImage {
    image(vec![
        layer(Compression::Gzip, &[("small", b"x"), ("model", &noise(1, LARGE))]),
        layer(Compression::Gzip, &[("other", &noise(2, LARGE))]),
    ])
}

fn is_as_packed(store: &Store, image: &Image) {
    if is_root() {
        let (model, other) = (noise(1, LARGE), noise(2, LARGE));
        let wanted = expected(&[("small", b"x"), ("model", &model), ("other", &other)]);
        assert_eq!(files(store, image), wanted);
    }
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    // In place, as a disk would.
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn flip(path: &Path) {
    change(path, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    });
}

fn halve(path: &Path) {
    change(path, |bytes| bytes.truncate(bytes.len() / 2));
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

/// Where everything of the image is that could be damaged: contents, layers' files, the image's files.
struct Places {
    content: PathBuf,
    index: PathBuf,
    pack: PathBuf,
    tree: PathBuf,
    record: PathBuf,
}

impl Places {
    fn of(store: &Store, folder: &Path, image: &Image) -> Self {
        let layer = folder.join("layers").join(image.layers[0].hex());
        let place = folder.join("images").join(image.digest.hex());
        let content = blake3::hash(&noise(1, LARGE)).into();
        Self {
            content: store.contents().path(&content),
            index: layer.join("index"),
            pack: layer.join("pack"),
            tree: place.join("tree"),
            record: place.join("image.json"),
        }
    }
}

/// How many contents, layers and images are damaged.
fn counts(findings: &Findings) -> (usize, usize, usize) {
    (findings.contents.len(), findings.layers.len(), findings.images.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_damage_is_found_and_mended() {
    type Which = fn(&Places) -> &PathBuf;
    type Case = (&'static str, Which, fn(&Path), (usize, usize, usize));
    let content: Which = |places| &places.content;
    let index: Which = |places| &places.index;
    let pack: Which = |places| &places.pack;
    let tree: Which = |places| &places.tree;
    let record: Which = |places| &places.record;
    let cases: &[Case] = &[
        ("a content changed", content, flip, (1, 1, 1)),
        ("a content is short", content, halve, (1, 1, 1)),
        ("a content is gone", content, remove, (0, 1, 1)),
        ("an index changed", index, flip, (0, 1, 1)),
        ("an index is short", index, halve, (0, 1, 1)),
        ("an index is gone", index, remove, (0, 1, 1)),
        ("a pack changed", pack, flip, (0, 1, 1)),
        ("a pack is short", pack, halve, (0, 1, 1)),
        ("a pack is gone", pack, remove, (0, 1, 1)),
        ("a tree changed", tree, flip, (0, 0, 1)),
        ("a tree is short", tree, halve, (0, 0, 1)),
        ("a tree is gone", tree, remove, (0, 0, 1)),
        ("a record is short", record, halve, (0, 0, 1)),
        ("a record is gone", record, remove, (0, 0, 1)),
    ];
    let packed = packed();
    let registry = Faulty::start(&[("1", &packed)], Manners::default()).await;
    for (name, which, damage, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let pulled = pull(&puller(&store), &registry.name("1")).await.unwrap();
        assert_eq!(store.check(Repair::Yes).unwrap(), clean(2), "{name}");
        damage(which(&Places::of(&store, folder.path(), &pulled)));
        for repair in [Repair::No, Repair::Yes] {
            assert_eq!(counts(&store.check(repair).unwrap()), *expected, "{name}");
        }
        assert!(store.check(Repair::No).unwrap().is_clean(), "{name}");
        let again = pull(&puller(&store), &registry.name("1")).await.unwrap();
        assert_eq!(again, pulled);
        assert_eq!(store.check(Repair::No).unwrap(), clean(2), "{name}");
        is_as_packed(&store, &again);
        store.remove_image(&again.digest).unwrap();
    }
}

fn clean(contents_read: usize) -> Findings {
    Findings { contents_read, ..Findings::default() }
}

/// A store with the image, which is gone from its registry.
async fn pulled() -> (tempfile::TempDir, Store, Image) {
    let packed = packed();
    let registry = Faulty::start(&[("1", &packed)], Manners::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let image = pull(&puller(&store), &registry.name("1")).await.unwrap();
    (folder, store, image)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_stays_while_a_runner_uses_it() {
    if !is_root() {
        return;
    }
    let (folder, store, image) = pulled().await;
    with_root(&store, &image, |root| {
        flip(&Places::of(&store, folder.path(), &image).pack);
        let findings = store.check(Repair::Yes).unwrap();
        assert_eq!(findings.in_use, [image.digest.clone()].into());
        assert_eq!(fs::read(root.join("model")).unwrap(), noise(1, LARGE));
    });
    assert_eq!(counts(&store.check(Repair::Yes).unwrap()), (0, 1, 1));
    assert_eq!(store.images().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_damaged_layer_needs_stays_while_a_runner_uses_it() {
    if !is_root() {
        return;
    }
    let (folder, store, image) = pulled().await;
    let places = Places::of(&store, folder.path(), &image);
    let nothing_wanted = HashSet::new();
    flip(&places.index);
    with_root(&store, &image, |root| {
        let would = store.would_collect(0, &nothing_wanted).unwrap();
        assert_eq!(would, store.collect(0, &nothing_wanted).unwrap());
        assert_eq!(would.contents, 0);
        assert!(fs::read(root.join("model")).unwrap() == noise(1, LARGE));
    });
    // The same where a runner has it while it is pulled.
    store.remove_image(&image.digest).unwrap();
    let late = folder.path().join("late").join("of-a-test");
    fs::create_dir(&late).unwrap();
    let record = serde_json::json!({"image": image.digest, "layers": image.layers});
    fs::write(late.join("record"), record.to_string()).unwrap();
    assert_eq!(store.would_collect(0, &nothing_wanted).unwrap(), Collected::default());
    assert_eq!(store.collect(0, &nothing_wanted).unwrap(), Collected::default());
    assert_eq!(counts(&store.check(Repair::Yes).unwrap()), (0, 1, 0));
    assert!(places.index.exists() && places.content.exists());
    fs::remove_dir_all(late).unwrap();
    store.check(Repair::Yes).unwrap();
    assert_eq!(store.collect(0, &nothing_wanted).unwrap().contents, 2);
}

/// The store as the next life of the machine would find it.
async fn after_a_power_cut(damage: impl FnOnce(&Places)) -> (tempfile::TempDir, Store, Image) {
    let (folder, store, image) = pulled().await;
    store.sync().unwrap();
    assert!(!folder.path().join(MARK).exists(), "all is synced");
    let places = Places::of(&store, folder.path(), &image);
    drop(store);
    damage(&places);
    fs::write(folder.path().join(MARK), "another life of the machine\n").unwrap();
    // The pull may still be syncing in the background, and own the store for as long.
    let store = glowplug_testkit::eventually(
        "the store is free",
        std::time::Duration::from_secs(30),
        || async { Store::open(folder.path()).ok() },
    );
    let store = store.await;
    (folder, store, image)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_only_what_holds_is_kept() {
    let (folder, store, image) = after_a_power_cut(|_| {}).await;
    assert_eq!(store.images().unwrap(), std::slice::from_ref(&image));
    is_as_packed(&store, &image);
    assert!(!folder.path().join(MARK).exists(), "the doubt is over");

    let (folder, store, image) = after_a_power_cut(|places| halve(&places.content)).await;
    assert_eq!(store.images().unwrap(), []);
    assert_eq!(image.layers.iter().filter(|layer| store.has_layer(layer)).count(), 1);
    assert!(!folder.path().join(MARK).exists(), "the doubt is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_alone_makes_no_doubt() {
    let (folder, store, image) = after_a_power_cut(|_| {}).await;
    let places = Places::of(&store, folder.path(), &image);
    drop(store);
    halve(&places.content);
    fs::copy("/proc/sys/kernel/random/boot_id", folder.path().join(MARK)).unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.images().unwrap(), [image], "nothing was read to open it");
    store.sync().unwrap();
    assert!(!folder.path().join(MARK).exists());
}
