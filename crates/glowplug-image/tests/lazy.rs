//! Images that are started before they are here.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_image::Store;
use glowplug_image::lazy::{FillerCommand, Lazy, Options, Started};
use glowplug_image::pull::{Options as PullOptions, Puller};
use glowplug_image::source::credentials::Credentials;
use glowplug_image::source::{Compression, Source};
use glowplug_image::store::Mounted;
use glowplug_image::touched::{Touched, TouchedFile};
use glowplug_testkit::{
    Access, CHUNK_BYTES, OwnRegistry, TableFormat, TableLayer, eventually, wait_until,
};
use oci_client::secrets::RegistryAuth;

use self::support::faulty::{Fault, Faulty, Manners};
use self::support::images::{Blob, Files, Pusher, TestImage, image, layer, noise};
use self::support::root::{all, is_root, with_layers, with_root};
use self::support::{pull, puller, source};

const ENDS_WITHIN: Duration = Duration::from_secs(20);

const FILLER: &str = env!("CARGO_BIN_EXE_glowplug-filler");
/// A filler that serves, and does not say so until somebody writes to `go`.
const RESERVED_FILLER: &str =
    r#""$0" | { read word; mkfifo "$1/go"; : > "$1/serves"; read go < "$1/go"; echo "$word"; }"#;

const EIO: i32 = 5;

/// Why a file cannot be read.
fn problem(path: &Path) -> Option<i32> {
    fs::read(path).err().map(|error| error.raw_os_error().unwrap())
}

struct Scene {
    puller: Puller,
    lazy: Lazy,
    store: Store,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Option<Self> {
        if !is_root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let puller = puller(&store);
        let lazy = lazy(&puller);
        Some(Self { puller, lazy, store, folder })
    }

    async fn late(&self, name: &str) -> Mounted {
        self.late_with(name, &Touched::default()).await
    }

    async fn late_with(&self, name: &str, touched: &Touched) -> Mounted {
        match self.start(name, touched).await {
            Started::Late(mounted) => mounted,
            Started::Full(why) => panic!("{why}"),
        }
    }

    async fn start(&self, name: &str, touched: &Touched) -> Started {
        let source: Arc<dyn Source> = source(name, Credentials::Anonymous);
        let resolved = self.puller.resolve(&*source).await.unwrap();
        self.lazy.start(&source, &resolved, touched).await.unwrap()
    }

    fn late_folders(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(self.folder.path().join("late")).unwrap();
        folders.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }

    /// Fillers end when nobody uses their images, and leave nothing.
    fn is_left_clean(&self) {
        wait_until("all fillers have ended", ENDS_WITHIN, || {
            self.late_folders().is_empty().then_some(())
        });
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let folder = self.folder.path().join("late").display().to_string();
        assert!(!mounts.contains(&folder), "{mounts}");
    }
}

fn lazy(puller: &Puller) -> Lazy {
    lazy_with(puller, FillerCommand { program: FILLER.into(), args: Vec::new() })
}

fn lazy_with(puller: &Puller, filler: FillerCommand) -> Lazy {
    let mut options = Options::new(filler);
    options.image_bytes_min = 0;
    options.patience.retry_pause = Duration::from_millis(1);
    options.patience.away_max = Duration::from_millis(300);
    Lazy::new(puller.clone(), options)
}

/// What a runner can see of every file: its name, and everything about it.
fn listing(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            // Tables of contents do not name themselves.
            if name == "stargz.index.json" {
                continue;
            }
            let metadata = path.symlink_metadata().unwrap();
            let size = if metadata.is_dir() { 0 } else { metadata.len() };
            let links = if metadata.is_dir() { 0 } else { metadata.nlink() };
            let link = fs::read_link(&path).map(|link| link.display().to_string());
            found.push(format!(
                "{name} {:o} {}:{} {size} {links} {} {}",
                metadata.mode(),
                metadata.uid(),
                metadata.gid(),
                metadata.mtime(),
                link.unwrap_or_default()
            ));
            if metadata.is_dir() {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}

fn lower(large: &[u8]) -> Vec<(&'static str, &[u8])> {
    vec![
        ("bin/", b""),
        ("bin/app", b"program"),
        ("bin/link->app", b""),
        ("bin/hard=bin/app", b""),
        ("etc/", b""),
        ("etc/a", b"lower"),
        ("etc/empty", b""),
        ("gone", b"x"),
        ("model", large),
        ("zeros", &[0; 250_000]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_image_reads_as_a_pulled_one() {
    let Some(registry) = OwnRegistry::start(Access::Everybody) else { return };
    let pusher = Pusher::new(RegistryAuth::Anonymous);
    let large = noise(1, 3 << 20);
    let upper: &Files<'_> = &[("etc/a", b"upper"), (".wh.gone", b""), ("etc/b", &large[..70_000])];
    for format in [TableFormat::ZstdChunked, TableFormat::Estargz] {
        let Some(scene) = Scene::new() else { return };
        let name = format!("{}/{format:?}:1", registry.address()).to_lowercase();
        // A layer without a table beside others.
        let plain = layer(Compression::Gzip, &[("plain", b"plain"), ("plain2", &large[..40_000])]);
        let layers = vec![table_layer(format, &lower(&large)), plain, table_layer(format, upper)];
        pusher.push(&name, &image(layers)).await;
        let mounted = scene.late(&name).await;
        let look = |root: &Path| {
            let mut files = all(root);
            files.remove("stargz.index.json");
            (files, listing(root))
        };
        let (late, late_listing) =
            tokio::task::spawn_blocking(move || with_layers(mounted, look)).await.unwrap();
        assert_eq!(late["model"], large);
        let pulled = pull(&scene.puller, &name).await.unwrap();
        let (whole, whole_listing) = with_root(&scene.store, &pulled, look);
        assert_eq!(late_listing, whole_listing, "{format:?}");
        assert!(late == whole, "{format:?}: the contents differ");
        scene.is_left_clean();
    }
}

fn table_layer(format: TableFormat, files: &Files<'_>) -> Blob {
    let layer = TableLayer::new(format, files);
    Blob { annotations: layer.annotations, ..Blob::new(layer.kind, layer.bytes) }
}

async fn faulty(files: &Files<'_>) -> (Faulty, TestImage) {
    let image = image(vec![table_layer(TableFormat::ZstdChunked, files)]);
    (Faulty::start(&[("1", &image)], Manners::default()).await, image)
}

async fn with<T: Send + 'static>(
    mounted: Mounted,
    look: impl FnOnce(&Path) -> T + Send + 'static,
) -> T {
    tokio::task::spawn_blocking(move || with_layers(mounted, look)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_read_does_not_come_and_what_was_read_comes_first_the_next_time() {
    let Some(scene) = Scene::new() else { return };
    let (large, small) = (noise(1, 12 << 20), noise(2, 10_000));
    let files: &Files<'_> = &[("first", &small), ("model", &large), ("last", &small)];
    let (registry, image) = faulty(files).await;
    let name = registry.name("1");
    let sent = || {
        let asked = registry.asked(&image.layers[0]);
        asked.iter().map(|asked| asked.sent).sum::<usize>()
    };
    let mounted = scene.late(&name).await;
    let again = scene.late(&name).await;
    let wanted = small.clone();
    with(mounted, move |root| {
        assert_eq!(fs::read(root.join("last")).unwrap(), wanted);
        let model = fs::File::open(root.join("model")).unwrap();
        let mut part = [0; 10];
        std::os::unix::fs::FileExt::read_exact_at(&model, &mut part, 5 << 20).unwrap();
        assert_eq!(part, large[5 << 20..][..10]);
    })
    .await;
    assert!(sent() < 7 << 20, "{} bytes came", sent());
    let taken = scene.store.bytes().unwrap();
    assert!((1 << 20..8 << 20).contains(&taken), "the store takes {taken} bytes");
    let touched = again.as_late().unwrap().reads(Timestamp::from_micros(7)).unwrap();
    let paths: Vec<&[u8]> = touched.files().iter().map(|file| &*file.path).collect();
    assert_eq!(paths, [&b"last"[..], b"model"]);
    let chunk = CHUNK_BYTES as u64;
    assert!(touched.files()[1].ranges[0].start > 40 * chunk, "{:?}", touched.files()[1]);
    drop(again);
    scene.is_left_clean();

    // Small ones are in the tree then.
    let first = [TouchedFile::whole(b"last".to_vec()), TouchedFile::whole(b"gone".to_vec())];
    let mounted = scene.late_with(&name, &Touched::new(Timestamp::from_micros(0), first)).await;
    let before = sent();
    with(mounted, move |root| assert_eq!(fs::read(root.join("last")).unwrap(), small)).await;
    assert_eq!(sent(), before);
    scene.is_left_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_of_zeros_is_in_the_tree() {
    let Some(scene) = Scene::new() else { return };
    let (content, zeros) = (noise(1, 1 << 20), vec![0; 5_000]);
    let (registry, _) = faulty(&[("a", &content), ("faillog", &zeros)]).await;
    let mounted = scene.late(&registry.name("1")).await;
    with(mounted, move |root| {
        assert_eq!(fs::read(root.join("faillog")).unwrap(), zeros);
        assert!(fs::read(root.join("a")).unwrap() == content);
    })
    .await;
    scene.is_left_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_touched_for_the_most_part_is_pulled() {
    let Some(scene) = Scene::new() else { return };
    let content = noise(1, 1 << 20);
    let (registry, _) = faulty(&[("a", &content), ("b", &content)]).await;
    let whole = |path: &str| TouchedFile::whole(path.into());
    let touched = Touched::new(Timestamp::from_micros(0), [whole("a")]);
    let started = scene.start(&registry.name("1"), &touched).await;
    assert!(matches!(started, Started::Full(_)), "{started:?}");
    let plain = image(vec![layer(Compression::Gzip, &[("a", &content)])]);
    let registry = Faulty::start(&[("1", &plain)], Manners::default()).await;
    let started = scene.start(&registry.name("1"), &Touched::default()).await;
    assert!(matches!(started, Started::Full(_)), "{started:?}");
    scene.is_left_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_could_not_take_in_full_is_not_started() {
    let Some(scene) = Scene::new() else { return };
    let content = noise(1, 4 << 20);
    let (registry, _) = faulty(&[("a", &content)]).await;
    let options = PullOptions { free_bytes_min: u64::MAX, ..PullOptions::default() };
    let puller = Puller::new(scene.store.clone(), options);
    let source: Arc<dyn Source> = source(&registry.name("1"), Credentials::Anonymous);
    let resolved = puller.resolve(&*source).await.unwrap();
    let started = lazy(&puller).start(&source, &resolved, &Touched::default()).await.unwrap();
    let Started::Full(why) = started else { panic!("{started:?}") };
    assert_eq!(why.to_string(), "the disk has no room for all of it");
    scene.is_left_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_comes_back_in_time_is_waited_for() {
    let Some(scene) = Scene::new() else { return };
    // Larger than what comes along behind a chunk.
    let content = noise(1, 5 << 20);
    let (registry, _) = faulty(&[("a", &content), ("b", &content)]).await;
    let mounted = scene.late(&registry.name("1")).await;
    let faults = vec![
        Fault::CutAfter(300_000),
        Fault::Status("503 Service Unavailable"),
        Fault::CutAfter(0),
        Fault::StallAfter(5_000),
    ];
    registry.behave(Manners { faults, ..Manners::default() });
    let wanted = content.clone();
    with(mounted, move |root| assert!(fs::read(root.join("a")).unwrap() == wanted)).await;
    let mounted = scene.late(&registry.name("1")).await;
    let faults = vec![Fault::Status("503 Service Unavailable"); 100_000];
    registry.behave(Manners { faults, ..Manners::default() });
    with(mounted, move |root| {
        assert_eq!(problem(&root.join("b")), Some(EIO));
        registry.behave(Manners::default());
        assert!(fs::read(root.join("b")).unwrap() == content);
    })
    .await;
    scene.is_left_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_not_what_its_digest_says_is_never_read() {
    let Some(scene) = Scene::new() else { return };
    let (good, bad) = (noise(1, 50_000), noise(2, 50_000));
    let mut damaged = table_layer(TableFormat::ZstdChunked, &[("good", &good), ("bad", &bad)]);
    // Noise is stored as it is.
    let place = damaged.bytes.windows(100).position(|part| part == &bad[20_000..20_100]).unwrap();
    let mut bytes = damaged.bytes.to_vec();
    bytes[place] ^= 1;
    damaged.bytes = bytes.into();
    let image = image(vec![damaged]);
    let registry = Faulty::start(&[("1", &image)], Manners::default()).await;
    let mounted = scene.late(&registry.name("1")).await;
    with(mounted, move |root| {
        for _ in 0..2 {
            assert_eq!(problem(&root.join("bad")), Some(EIO));
        }
        assert!(fs::read(root.join("good")).unwrap() == good);
    })
    .await;
    scene.is_left_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_filler_is_cleaned_up_after() {
    let Some(scene) = Scene::new() else { return };
    let content = noise(1, 1 << 20);
    let (registry, _) = faulty(&[("a", &content), ("b", &content)]).await;
    let name = registry.name("1");
    let mounted = scene.late(&name).await;
    let folder = scene.late_folders().remove(0);
    let (wanted, filler) = (content.clone(), folder.clone());
    with(mounted, move |root| {
        kill_filler(&filler);
        assert!(problem(&root.join("a")).is_some());
    })
    .await;
    let mounted = scene.late(&name).await;
    assert!(!folder.exists());
    with(mounted, move |root| assert!(fs::read(root.join("a")).unwrap() == wanted)).await;

    // Whoever opens the store next cleans up as well, and leaves what lives.
    let living = scene.late(&name).await;
    let folder = scene.late_folders().remove(0);
    let Scene { puller, lazy, store, folder: images } = scene;
    drop((puller, lazy, store));
    let store = reopen(images.path());
    assert!(folder.exists());
    drop(store);
    kill_filler(&folder);
    drop(living);
    let store = reopen(images.path());
    assert!(!folder.exists());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&images.path().display().to_string()), "{mounts}");
    drop(store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_nobody_waits_for_any_more_leaves_nothing() {
    let Some(mut scene) = Scene::new() else { return };
    let (registry, _) = faulty(&[("a", &noise(1, 100_000))]).await;
    let signs = tempfile::tempdir().unwrap();
    let args = vec!["-c".into(), RESERVED_FILLER.into(), FILLER.into(), signs.path().into()];
    scene.lazy = lazy_with(&scene.puller, FillerCommand { program: "sh".into(), args });
    let (name, touched) = (registry.name("1"), Touched::default());
    let start = scene.start(&name, &touched);
    let serves = eventually("the filler serves", ENDS_WITHIN, || async {
        signs.path().join("serves").exists().then_some(())
    });
    tokio::select! {
        started = start => panic!("{started:?}"),
        () = serves => {}
    }
    fs::write(signs.path().join("go"), "go\n").unwrap();
    scene.is_left_clean();
}

/// The one before may not have gone yet.
fn reopen(folder: &Path) -> Store {
    wait_until("the store can be opened", ENDS_WITHIN, || Store::open(folder).ok())
}

/// The inode of the lock that the filler holds.
fn lock_of(folder: &Path) -> u64 {
    fs::metadata(folder.join("lock")).unwrap().ino()
}

fn signal_filler(folder: &Path, signal: rustix::process::Signal) {
    let lock = lock_of(folder);
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let line = locks.lines().find(|line| line.contains(&format!(":{lock} "))).unwrap();
    let pid: i32 = line.split_whitespace().nth(4).unwrap().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn kill_filler(folder: &Path) {
    let lock = lock_of(folder);
    signal_filler(folder, rustix::process::Signal::KILL);
    wait_until("the filler is gone", ENDS_WITHIN, || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        (!locks.contains(&format!(":{lock} "))).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_opened_once_can_be_opened_while_the_filler_hangs() {
    let Some(scene) = Scene::new() else { return };
    let content = noise(1, 1 << 20);
    let (registry, _) = faulty(&[("a", &content), ("b", &content)]).await;
    let mounted = scene.late(&registry.name("1")).await;
    let folder = scene.late_folders().remove(0);
    with(mounted, move |root| {
        drop(fs::File::open(root.join("a")).unwrap());
        signal_filler(&folder, rustix::process::Signal::STOP);
        let (path, (opened, is_open)) = (root.join("a"), std::sync::mpsc::sync_channel(1));
        let opening = std::thread::spawn(move || opened.send(fs::File::open(path).is_ok()));
        let is_open = is_open.recv_timeout(ENDS_WITHIN);
        signal_filler(&folder, rustix::process::Signal::CONT);
        opening.join().unwrap().ok();
        assert_eq!(is_open, Ok(true));
        assert!(fs::read(root.join("a")).unwrap() == content);
    })
    .await;
    scene.is_left_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pulled_meanwhile_does_not_come_twice() {
    let Some(scene) = Scene::new() else { return };
    let (content, small) = (noise(1, 1 << 20), noise(2, 1_000));
    let (registry, image) = faulty(&[("a", &content), ("b", &content), ("small", &small)]).await;
    let name = registry.name("1");
    let mounted = scene.late(&name).await;
    let pulled = pull(&scene.puller, &name).await.unwrap();
    let asked = registry.asked(&image.layers[0]).len();
    scene.store.remove_image(&pulled.digest).unwrap();
    let collected = scene.store.collect(0, &std::collections::HashSet::new()).unwrap();
    assert_eq!(collected.layers, 0, "the filler may read it");
    with(mounted, move |root| {
        for name in ["a", "b"] {
            assert!(fs::read(root.join(name)).unwrap() == content, "{name}");
        }
        assert_eq!(fs::read(root.join("small")).unwrap(), small);
    })
    .await;
    assert_eq!(registry.asked(&image.layers[0]).len(), asked);
    scene.is_left_clean();
    let collected = scene.store.collect(0, &std::collections::HashSet::new()).unwrap();
    assert_eq!(collected.layers, 1);
}
