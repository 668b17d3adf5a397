//! Converted images: what everybody reads of them, and how they come to registries and archives.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod support;

use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use futures::TryStreamExt;
use glowplug_core::Timestamp;
use glowplug_image::convert::{self, Converted, layout, push};
use glowplug_image::layer::unpack::Limits;
use glowplug_image::pull::ProgressSender;
use glowplug_image::source::archive::Archive;
use glowplug_image::source::credentials::Credentials;
use glowplug_image::source::{Compression, Resolved, Source};
use glowplug_image::store::{Image, Repair};
use glowplug_image::toc::{self, ChunkData, TocKind};
use glowplug_image::touched::{Touched, TouchedFile};
use glowplug_image::{Digest, Store};
use glowplug_testkit::{Access, OwnRegistry};
use oci_client::secrets::RegistryAuth;

use self::support::images::{Pusher, TestImage, image, layer_of, noise};
use self::support::root::{is_root, with_root};
use self::support::tree::{Tree, of_folder, without_folder_times};
use self::support::{puller, source};

const LEVEL: i32 = 3;
const LARGE: usize = 3_500_000;

/// An archive with all that layers have in practice.
struct Packer(tar::Builder<Vec<u8>>);

impl Packer {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn header(kind: tar::EntryType, mode: u32, owner: u64, bytes: usize) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner + 1);
        header.set_mtime(1_700_000_000 + owner);
        header.set_size(bytes as u64);
        header
    }

    fn folder(mut self, name: &str, mode: u32) -> Self {
        let mut header = Self::header(tar::EntryType::Directory, mode, 5, 0);
        self.0.append_data(&mut header, name, &[][..]).unwrap();
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.file_of(name, content, 0o644, 0)
    }

    fn file_of(mut self, name: &str, content: &[u8], mode: u32, owner: u64) -> Self {
        let mut header = Self::header(tar::EntryType::Regular, mode, owner, content.len());
        self.0.append_data(&mut header, name, content).unwrap();
        self
    }

    fn link(mut self, kind: tar::EntryType, name: &str, target: &str) -> Self {
        let mut header = Self::header(kind, 0o777, 0, 0);
        if target.is_empty() {
            self.0.append_data(&mut header, name, &[][..]).unwrap();
        } else {
            self.0.append_link(&mut header, name, target).unwrap();
        }
        self
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    /// 1 MiB of nothing with `content` at its end, as GNU tar writes holes.
    fn sparse(mut self, name: &str, content: &[u8]) -> Self {
        let mut header = Self::header(tar::EntryType::GNUSparse, 0o644, 0, content.len());
        let hole = 1 << 20;
        {
            let gnu = header.as_gnu_mut().unwrap();
            let octal = |field: &mut [u8; 12], number: usize| {
                field.copy_from_slice(format!("{number:011o}\0").as_bytes());
            };
            octal(&mut gnu.realsize, hole + content.len());
            octal(&mut gnu.sparse[0].offset, hole);
            octal(&mut gnu.sparse[0].numbytes, content.len());
        }
        self.0.append_data(&mut header, name, content).unwrap();
        self
    }

    fn pack(self, compression: Compression) -> support::images::Blob {
        layer_of(compression, &self.0.into_inner().unwrap())
    }
}

fn packed() -> TestImage {
    use tar::EntryType::{Fifo, Link, Symlink};
    let (large, other) = (noise(1, LARGE), noise(2, 100_000));
    let long = format!("deep/{}/{}", "n".repeat(120), "m".repeat(140));
    let lower = Packer::new()
        .folder("etc/", 0o755)
        .file("etc/passwd", b"root:x:0:0::/:/bin/sh\n")
        .file("etc/gone", b"gone")
        .folder("opaque/", 0o700)
        .file("opaque/below", b"below")
        .folder("again/", 0o755)
        .file("again/below", b"below")
        .folder("real/", 0o755)
        .file("real/stays", b"stays")
        .link(Symlink, "data", "real")
        .file("model", &large)
        .file_of("bin/su", &other, 0o4755, 7)
        .link(Link, "bin/su2", "bin/su")
        .link(Symlink, "sbin", "bin")
        .link(Symlink, "dangling", "/no/where")
        .file(&long, b"long")
        .link(Link, "deep/link", &long)
        .file("empty", b"")
        .link(Fifo, "pipe", "");
    let upper = Packer::new()
        .file("etc/.wh.gone", b"")
        .folder("opaque/", 0o750)
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/above", b"above")
        .file(".wh.again", b"")
        .folder("again/", 0o711)
        .file("again/above", b"above")
        .file(".wh.data", b"")
        .folder("data/", 0o755)
        .file("data/above", b"above")
        .pax(&[("SCHILY.xattr.user.note", b"a\n=b"), ("mtime", b"1700000000.5")])
        .file_of("noted", b"noted", 0o600, 65_534)
        .sparse("sparse", b"end")
        .file("\u{e4}/\u{fc}", b"umlauts")
        .file("copy", &large)
        .link(Link, "copy2", "copy");
    image(vec![
        lower.pack(Compression::Gzip),
        Packer::new().pack(Compression::Gzip),
        upper.pack(Compression::Zstd),
    ])
}

struct Scene {
    registry: OwnRegistry,
    folder: tempfile::TempDir,
    store: Store,
    image: Image,
    resolved: Resolved,
}

impl Scene {
    async fn new(packed: &TestImage, touched: &[&str]) -> Option<Self> {
        let registry = OwnRegistry::start(Access::Everybody)?;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let name = format!("{}/app:1", registry.address());
        Pusher::new(RegistryAuth::Anonymous).push(&name, packed).await;
        let origin = source(&name, Credentials::Anonymous);
        let puller = puller(&store);
        let resolved = puller.resolve(&*origin).await.unwrap();
        let none = ProgressSender::none();
        let image = puller.pull_resolved(&origin, &resolved, &none).await.unwrap();
        if !touched.is_empty() {
            let files = touched.iter().map(|path| TouchedFile::whole(path.as_bytes().to_vec()));
            let touched = Touched::new(Timestamp::from_secs(1), files);
            store.note_touched(&image.digest, "app", touched).unwrap();
        }
        Some(Self { registry, folder, store, image, resolved })
    }

    fn convert(&self) -> Converted {
        let (reader, json) = (self.store.reader(), &self.resolved.config_json);
        let scratch = self.folder.path();
        convert::convert(&reader, &self.image, json, LEVEL, scratch, &mut |_| {}).unwrap()
    }

    fn name(&self, tag: &str) -> String {
        format!("{}/converted:{tag}", self.registry.address())
    }

    async fn push(&self, tag: &str) -> push::Pushed {
        let to = self.name(tag).parse().unwrap();
        let options = glowplug_image::source::registry::Options::default();
        let none = Arc::new(|_| {});
        push::push(self.convert(), &to, Credentials::Anonymous, &options, none).await.unwrap()
    }

    /// The image under this name in a store of its own.
    async fn pulled(&self, name: &str) -> (Store, Image) {
        let store = Store::open(&self.folder.path().join("other")).unwrap();
        let pulled = support::pull(&puller(&store), name).await.unwrap();
        assert!(store.check(Repair::No).unwrap().is_clean());
        (store, pulled)
    }
}

fn tree(store: &Store, image: &Image) -> Tree {
    with_root(store, image, of_folder)
}

#[expect(clippy::disallowed_methods, reason = "other programs are asked what they see")]
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        eprintln!("skipped: there is no `{program}`");
        return None;
    };
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sees_the_same_files_as_before() {
    if !is_root() {
        return;
    }
    let touched = ["bin/su2", "copy", "not/there"];
    let Some(scene) = Scene::new(&packed(), &touched).await else { return };
    let before = tree(&scene.store, &scene.image);
    assert_eq!(before.len(), 28, "{:#?}", before.keys());
    scene.push("1").await;
    let (store, pulled) = scene.pulled(&scene.name("1")).await;
    assert_eq!(pulled.config, scene.image.config);
    assert_eq!(tree(&store, &pulled), before);

    // Podman knows the tables, and takes the layers as plain ones where it is told nothing else.
    let path = |name: &str| scene.folder.path().join(name).display().to_string();
    let (root, run_root) = (path("podman"), path("podman-run"));
    let place = ["--root", &root, "--runroot", &run_root, "--storage-driver", "vfs"];
    // It takes no holes, so that only the converted image can be asked for.
    let from = scene.name("1");
    let podman = |more: &[&str]| run("podman", &[&place, more].concat());
    if podman(&["pull", "-q", "--tls-verify=false", &from]).is_none() {
        return;
    }
    let mounted = podman(&["image", "mount", &from]).unwrap();
    let seen = without_folder_times(&of_folder(Path::new(mounted.trim())));
    let before = without_folder_times(&before);
    let differs: Vec<_> =
        seen.iter().filter(|(path, seen)| before.get(*path) != Some(seen)).collect();
    assert_eq!(differs, []);
    assert_eq!(seen.len(), before.len());
    podman(&["image", "unmount", &from]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_image_becomes_the_same_bytes_on_any_number_of_cores() {
    let Some(scene) = Scene::new(&packed(), &["copy"]).await else { return };
    let digests = |converted: &Converted| -> Vec<Digest> {
        converted.layers.iter().map(|layer| layer.digest.clone()).collect()
    };
    let first = scene.convert();
    let one_core = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let second = one_core.install(|| scene.convert());
    assert_eq!(digests(&first), digests(&second));
    assert_eq!((&first.digest, &first.config), (&second.digest, &second.config));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_says_where_every_file_is() {
    let touched = ["copy", "noted"];
    let Some(scene) = Scene::new(&packed(), &touched).await else { return };
    scene.push("1").await;
    let source = source(&scene.name("1"), Credentials::Anonymous);
    let resolved = source.resolve().await.unwrap();
    let mut files = 0;
    for (layer, original) in resolved.layers.iter().zip(&scene.image.layers) {
        let toc = toc::fetch(&*source, layer, &Limits::default(), &Arc::default())
            .await
            .unwrap()
            .unwrap();
        let original = scene.store.layer(original).unwrap();
        assert_eq!(toc.entries.len(), original.entries.len());
        let whole = source.layer(layer, 0).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
        let whole = whole.concat();
        let first_use = usize::try_from(toc.first_use_bytes.unwrap()).unwrap();
        let mut last_touched = 0;
        for entry in &toc.entries {
            let TocKind::File(file) = &entry.kind else { continue };
            let mut content = Vec::new();
            for chunk in &file.chunks {
                let ChunkData::Stored { range, digest } = &chunk.data else { panic!("no zeros") };
                let range =
                    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                let plain = zstd::decode_all(&whole[range.clone()]).unwrap();
                assert_eq!(Digest::of(&plain), *digest);
                assert_eq!(plain.len() as u64, chunk.bytes);
                content.extend(plain);
                if touched.iter().any(|path| path.as_bytes() == entry.path) {
                    last_touched = last_touched.max(range.end);
                }
            }
            assert_eq!(content.len() as u64, file.bytes);
            if entry.path == b"copy" {
                assert!(content == noise(1, LARGE) && file.chunks.len() == 4);
            }
            if file.bytes > 0 {
                assert_eq!(file.digest, Some(Digest::of(&content)));
            }
            files += 1;
        }
        assert_eq!(last_touched, first_use);
    }
    assert_eq!(files, 16);
    // The whole stream is one archive for everybody else.
    let layer = resolved.layers.last().unwrap();
    let whole =
        source.layer(layer, 0).await.unwrap().try_collect::<Vec<_>>().await.unwrap().concat();
    let mut plain = Vec::new();
    zstd::Decoder::new(&whole[..]).unwrap().read_to_end(&mut plain).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&resolved.config_json).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][2], Digest::of(&plain).as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_has_is_not_sent_again() {
    let Some(scene) = Scene::new(&packed(), &[]).await else { return };
    let first = scene.push("1").await;
    assert_eq!(first.known_bytes, 0);
    let second = scene.push("2").await;
    assert_eq!((second.sent_bytes, second.known_bytes), (0, first.sent_bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_a_name_and_a_password_gets_them() {
    let Some(open) = Scene::new(&packed(), &[]).await else { return };
    let Some(registry) = OwnRegistry::start(Access::OneUser) else { return };
    let to: oci_client::Reference = format!("{}/converted:1", registry.address()).parse().unwrap();
    let options = glowplug_image::source::registry::Options::default();
    let none = || Arc::new(|_| {});
    let refused = push::push(open.convert(), &to, Credentials::Anonymous, &options, none()).await;
    assert!(refused.is_err());
    let (user, password) = (OwnRegistry::USER.to_owned(), OwnRegistry::PASSWORD.to_owned());
    let known = Credentials::Basic { user, password };
    push::push(open.convert(), &to, known, &options, none()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_and_folders_are_read_again() {
    let Some(scene) = Scene::new(&packed(), &["copy"]).await else { return };
    let (file, folder) = (scene.folder.path().join("a.tar"), scene.folder.path().join("layout"));
    std::fs::write(&file, "what was there before").unwrap();
    layout::write_file(&mut scene.convert(), &file, "1").unwrap();
    layout::write_folder(&mut scene.convert(), &folder, "1").unwrap();
    for path in [&file, &folder] {
        let archive: Arc<dyn Source> =
            Arc::new(Archive::open(path, Some("1"), scene.folder.path(), 1 << 30).unwrap());
        let store = Store::open(&scene.folder.path().join("other")).unwrap();
        let pulled = puller(&store).pull(&archive, &ProgressSender::none()).await.unwrap();
        assert_eq!(pulled.digest, scene.convert().digest);
        if is_root() {
            assert_eq!(tree(&store, &pulled), tree(&scene.store, &scene.image));
        }
        store.collect(0, &std::collections::HashSet::new()).unwrap();
    }
    let mut left: Vec<_> = std::fs::read_dir(scene.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["a.tar", "layout", "other", "store"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_the_images_that_it_has_under_other_names() {
    let Some(scene) = Scene::new(&packed(), &[]).await else { return };
    let folder = scene.folder.path().join("layout");
    for tag in ["1", "2", "1"] {
        layout::write_folder(&mut scene.convert(), &folder, tag).unwrap();
    }
    for tag in ["1", "2"] {
        let archive = Archive::open(&folder, Some(tag), scene.folder.path(), 1 << 30).unwrap();
        assert_eq!(archive.resolve().await.unwrap().digest, scene.convert().digest, "{tag}");
    }
    let index = std::fs::read_to_string(folder.join("index.json")).unwrap();
    assert_eq!(index.matches("mediaType").count(), 2, "{index}");
    std::fs::write(folder.join("index.json"), "[]").unwrap();
    let error = layout::write_folder(&mut scene.convert(), &folder, "1").unwrap_err();
    let said = std::error::Error::source(&error).unwrap().to_string();
    assert!(said.starts_with("its `index.json` cannot be understood"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_not_converted() {
    type Place = fn(&Scene) -> std::path::PathBuf;
    let content =
        |scene: &Scene| scene.store.contents().path(&blake3::hash(&noise(1, LARGE)).into());
    let pack: Place = |scene| {
        let layers = scene.store.folder().join("layers");
        layers.join(scene.image.layers[0].hex()).join("pack")
    };
    let places: [(&str, Place); 2] = [("a content", content), ("a pack", pack)];
    for (name, place) in places {
        let Some(scene) = Scene::new(&packed(), &[]).await else { return };
        let path = place(&scene);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        // In place, as a disk would.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let (reader, json) = (scene.store.reader(), &scene.resolved.config_json);
        let scratch = scene.folder.path();
        let converted = convert::convert(&reader, &scene.image, json, LEVEL, scratch, &mut |_| {});
        let error = converted.map(|converted| converted.digest).unwrap_err().to_string();
        let layer = &scene.image.layers[0];
        assert!(error.starts_with(&format!("layer {layer} is damaged")), "{name}: {error}");
        assert!(error.contains("image fsck"), "{name}: {error}");
    }
}
