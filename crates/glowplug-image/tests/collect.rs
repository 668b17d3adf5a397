//! What a store removes, and what it does not, while others pull.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod support;

use std::collections::HashSet;

use futures::future::join_all;
use glowplug_core::Timestamp;
use glowplug_image::Store;
use glowplug_image::source::Compression;
use glowplug_image::store::{Collected, Image, Repair};

use self::support::faulty::{Faulty, Manners};
use self::support::images::{TestImage, image, layer, noise};
use self::support::root::{files, is_root, with_root};
use self::support::{pull, puller};

const LARGE: usize = 100_000;

/// A common base, a large file that every second image has, and something of its own.
fn packed(number: u8) -> TestImage {
    let shared = noise(u64::from(number % 2), LARGE);
    let own = noise(100 + u64::from(number), LARGE);
    image(vec![
        layer(Compression::Gzip, &[("base", &noise(50, LARGE)), ("small", b"x")]),
        layer(Compression::Zstd, &[("shared", &shared), ("own", &own)]),
    ])
}

struct Scene {
    registry: Faulty,
    folder: tempfile::TempDir,
    store: Store,
    packed: Vec<TestImage>,
}

impl Scene {
    async fn new(images: u8) -> Self {
        let packed: Vec<_> = (0..images).map(packed).collect();
        let tags: Vec<_> = (0..images).map(|number| number.to_string()).collect();
        let named: Vec<_> = tags.iter().map(String::as_str).zip(&packed).collect();
        let registry = Faulty::start(&named, Manners::default()).await;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        Self { registry, folder, store, packed }
    }

    async fn pull_all(&self) -> Vec<Image> {
        let puller = puller(&self.store);
        let names = (0..self.packed.len()).map(|tag| self.registry.name(&tag.to_string()));
        let puller = &puller;
        let pull = |name: String| async move { pull(puller, &name).await.unwrap() };
        join_all(names.map(pull)).await
    }

    fn collect(&self, budget_bytes: u64) -> Collected {
        self.store.collect(budget_bytes, &HashSet::new()).unwrap()
    }

    fn entries(&self, folder: &str) -> usize {
        std::fs::read_dir(self.folder.path().join(folder)).unwrap().count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_used_images_make_room_for_the_others() {
    let scene = Scene::new(3).await;
    let images = scene.pull_all().await;
    for (image, used) in images.iter().zip([300, 100, 200]) {
        scene.store.note_use(&image.digest, Timestamp::from_secs(used)).unwrap();
    }
    let all = scene.store.bytes().unwrap();
    assert_eq!(scene.collect(all), Collected::default());
    // Image 1 has its own content and the shared one of odd images to itself.
    let collected = scene.collect(all - 1);
    assert_eq!(collected.images, [images[1].digest.clone()]);
    assert_eq!((collected.layers, collected.contents), (1, 2));
    assert_eq!(scene.store.bytes().unwrap(), all - collected.bytes);
    assert!(collected.bytes > 2 * LARGE as u64, "{collected:?}");

    let wanted = HashSet::from([images[2].digest.clone()]);
    let collected = scene.store.collect(0, &wanted).unwrap();
    assert_eq!(collected.images, [images[0].digest.clone()]);
    if is_root() {
        assert_eq!(files(&scene.store, &images[2]).len(), 4);
    }
    assert!(scene.store.check(Repair::No).unwrap().is_clean());
    scene.collect(0);
    assert_eq!(scene.store.bytes().unwrap(), 0);
    assert_eq!((scene.entries("layers"), scene.entries("images"), scene.entries("tmp")), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_go_is_what_goes() {
    let scene = Scene::new(3).await;
    let images = scene.pull_all().await;
    let all = scene.store.bytes().unwrap();
    let wanted = HashSet::from([images[0].digest.clone()]);
    for budget_bytes in [all, all - 1, 0] {
        let would = scene.store.would_collect(budget_bytes, &wanted).unwrap();
        let before = scene.store.bytes().unwrap();
        assert_eq!(scene.store.collect(budget_bytes, &wanted).unwrap(), would);
        assert_eq!(scene.store.bytes().unwrap(), before - would.bytes);
    }
    assert_eq!(scene.store.images().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_images_share_counts_once() {
    let scene = Scene::new(3).await;
    let images = scene.pull_all().await;
    let usage = scene.store.usage(&images[0].digest).unwrap();
    let layers: Vec<_> =
        usage.layers.iter().map(|layer| (layer.files, layer.other_images)).collect();
    assert_eq!(layers, [(2, 2), (2, 0)]);
    let compressed: Vec<_> =
        scene.packed[0].layers.iter().map(|layer| Some(layer.bytes.len() as u64)).collect();
    let noted: Vec<_> = usage.layers.iter().map(|layer| layer.compressed_bytes).collect();
    assert_eq!(noted, compressed);
    // The base is in all of them, and one large file more in every second.
    let shared: Vec<_> = usage.shared.iter().map(|shared| &shared.image).collect();
    assert_eq!(shared, [&images[2].digest, &images[1].digest]);
    assert_eq!(usage.shared[0].bytes - usage.shared[1].bytes, LARGE as u64);
    let wanted = images[1..].iter().map(|image| image.digest.clone()).collect();
    assert_eq!(scene.store.would_collect(0, &wanted).unwrap().bytes, usage.own_bytes);
    assert!(usage.disk_bytes > usage.own_bytes + 2 * LARGE as u64 - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runner_uses_stays() {
    if !is_root() {
        return;
    }
    let scene = Scene::new(2).await;
    let images = scene.pull_all().await;
    with_root(&scene.store, &images[0], |root| {
        assert_eq!(scene.collect(0).images, [images[1].digest.clone()]);
        assert_eq!(std::fs::read(root.join("own")).unwrap(), noise(100, LARGE));
    });
    assert_eq!(scene.collect(0).images, [images[0].digest.clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_and_collections_at_the_same_time_break_nothing() {
    const ROUNDS: usize = 12;
    let scene = Scene::new(6).await;
    let store = scene.store.clone();
    let (finished, mut is_finished) = tokio::sync::watch::channel(false);
    let collecting = tokio::task::spawn_blocking(move || {
        let mut rounds = 0;
        while !*is_finished.borrow_and_update() || rounds < ROUNDS {
            store.collect(0, &HashSet::new()).unwrap();
            rounds += 1;
        }
    });
    for _ in 0..ROUNDS {
        scene.pull_all().await;
        // Whatever was collected by then, nothing that stayed misses something.
        let findings = scene.store.check(Repair::No).unwrap();
        assert!(findings.is_clean(), "{findings:?}");
    }
    finished.send(true).unwrap();
    collecting.await.unwrap();
    let images = scene.pull_all().await;
    assert!(scene.store.check(Repair::No).unwrap().is_clean());
    if is_root() {
        for (number, image) in (0..).zip(&images) {
            assert_eq!(files(&scene.store, image)["own"], noise(100 + number, LARGE));
        }
    }
}

#[test]
fn names_and_uses_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = [1, 2].map(|number| glowplug_image::Digest::of_hash([number; 32]));
    let at = Timestamp::from_secs;
    {
        let store = Store::open(folder.path()).unwrap();
        store.set_name("example.com/a:1", &one, at(5)).unwrap();
        store.set_name("example.com/a:1", &other, at(6)).unwrap();
        store.set_name("example.com/b:1", &one, at(7)).unwrap();
        store.note_use(&one, at(100)).unwrap();
        store.note_use(&one, at(159)).unwrap();
    }
    let store = Store::open(folder.path()).unwrap();
    let named = store.named("example.com/a:1").unwrap();
    assert_eq!((named.digest, named.pulled), (other, at(6)));
    assert_eq!(store.names().len(), 2);
    assert_eq!(store.named("example.com/c:1"), None);
    assert_eq!(store.last_use(&one), Some(at(100)), "to a minute");
    store.note_use(&one, at(160)).unwrap();
    assert_eq!(store.last_use(&one), Some(at(160)));
    drop(store);
    std::fs::write(folder.path().join("names.json"), "{").unwrap();
    assert_eq!(Store::open(folder.path()).unwrap().names(), []);
}
