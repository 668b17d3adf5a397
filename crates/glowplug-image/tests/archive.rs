//! Images from files, in every form in which they are handed around.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use glowplug_image::pull::{Error, ProgressSender};
use glowplug_image::source::archive::Archive;
use glowplug_image::source::{Compression, Source};
use glowplug_image::store::Image;
use glowplug_image::{Digest, Store};
use serde_json::json;

use self::support::images::{self, Blob, TestImage, expected, gzip, image, layer, noise};
use self::support::root::{files, is_root};
use self::support::{chain, puller};

const LARGE: usize = 3_000_000;
const BYTES_MAX: u64 = 1 << 30;

fn packed(compression: Compression) -> TestImage {
    image(vec![
        layer(compression, &[("a", b"lower"), ("model", &noise(1, LARGE))]),
        layer(compression, &[("a", b"upper")]),
    ])
}

/// A file or folder with this content, by path.
type Tree = Vec<(String, Vec<u8>)>;

fn blob(blob: &Blob) -> (String, Vec<u8>) {
    (format!("blobs/sha256/{}", blob.digest.hex()), blob.bytes.to_vec())
}

/// An OCI layout of images with names.
fn layout(images: &[(&str, &TestImage)]) -> Tree {
    let mut tree = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut entries = Vec::new();
    for (name, image) in images {
        let manifest = &image.manifest;
        entries.push(json!({
            "mediaType": manifest.kind,
            "digest": manifest.digest.as_str(),
            "size": manifest.size,
            "annotations": {"org.opencontainers.image.ref.name": name},
        }));
        tree.extend([manifest, &image.config].into_iter().chain(&image.layers).map(blob));
    }
    let index = json!({"schemaVersion": 2, "manifests": entries});
    tree.push(("index.json".to_owned(), index.to_string().into_bytes()));
    tree
}

/// What `docker save` wrote for long. The layers are plain archives.
fn saved(images: &[(&str, &[&[u8]])]) -> Tree {
    let mut tree = Tree::new();
    let mut manifest = Vec::new();
    for (name, layers) in images {
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let config = json!({
            "config": {"Cmd": ["/bin/app"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let file = format!("{}.json", Digest::of(&config).hex());
        let paths: Vec<_> =
            diff_ids.iter().map(|layer| format!("{}/layer.tar", layer.hex())).collect();
        manifest.push(json!({"Config": file, "RepoTags": [name], "Layers": paths}));
        tree.push((file, config));
        tree.extend(paths.into_iter().zip(layers.iter().map(|layer| layer.to_vec())));
    }
    tree.push(("manifest.json".to_owned(), json!(manifest).to_string().into_bytes()));
    tree
}

fn write_folder(folder: &Path, tree: &Tree) {
    for (path, content) in tree {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn tar(tree: &Tree) -> Vec<u8> {
    let files: Vec<_> = tree.iter().map(|(path, content)| (path.as_str(), &content[..])).collect();
    images::archive(&files)
}

struct Scene {
    folder: tempfile::TempDir,
    store: Store,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("images")).unwrap();
        Self { folder, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn pull(&self, name: &str, wanted: Option<&str>) -> Result<Image, Error> {
        let archive = Archive::open(&self.path(name), wanted, self.folder.path(), BYTES_MAX)?;
        let source: Arc<dyn Source> = Arc::new(archive);
        puller(&self.store).pull(&source, &ProgressSender::none()).await
    }

    /// From the same content in every form.
    async fn is_whole(&self, name: &str) {
        let image =
            self.pull(name, None).await.unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
        assert_eq!(image.config.argv(), ["/bin/app"], "{name}");
        if is_root() {
            let model = noise(1, LARGE);
            assert!(
                files(&self.store, &image) == expected(&[("a", b"upper"), ("model", &model)]),
                "{name}"
            );
        }
        self.store.remove_image(&image.digest).unwrap();
        self.store.collect(0, &std::collections::HashSet::new()).unwrap();
    }

    async fn problem(&self, name: &str, wanted: Option<&str>) -> String {
        chain(&self.pull(name, wanted).await.unwrap_err())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_any_form_is_an_image() {
    let scene = Scene::new();
    let model = noise(1, LARGE);
    let lower = images::archive(&[("a", b"lower"), ("model", &model)]);
    let upper = images::archive(&[("a", b"upper")]);
    let forms = [
        ("layout", layout(&[("1", &packed(Compression::Gzip))])),
        ("layout-zstd", layout(&[("1", &packed(Compression::Zstd))])),
        ("saved", saved(&[("app:1", &[&lower, &upper])])),
    ];
    for (name, tree) in &forms {
        write_folder(&scene.path(name), tree);
        scene.is_whole(name).await;
        let tar = tar(tree);
        fs::write(scene.path("plain.tar"), &tar).unwrap();
        scene.is_whole("plain.tar").await;
        fs::write(scene.path("gzip.tar.gz"), gzip(&tar)).unwrap();
        scene.is_whole("gzip.tar.gz").await;
        fs::write(scene.path("zstd.tar.zst"), zstd::encode_all(&tar[..], 1).unwrap()).unwrap();
        scene.is_whole("zstd.tar.zst").await;
    }
}

/// Skopeo writes what Podman and Docker read.
#[tokio::test(flavor = "multi_thread")]
async fn what_other_tools_write_is_read() {
    let scene = Scene::new();
    write_folder(&scene.path("layout"), &layout(&[("1", &packed(Compression::Gzip))]));
    let source = format!("oci:{}:1", scene.path("layout").display());
    let forms = [("docker-archive", "app:1"), ("oci-archive", "app:1"), ("oci", "app:1")];
    for (form, name) in forms {
        let target = format!("{form}:{}:{name}", scene.path(form).display());
        #[expect(clippy::disallowed_methods, reason = "the test is about the program's files")]
        let copied = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", &source, &target])
            .output();
        let Ok(copied) = copied else {
            eprintln!("skipped: there is no `skopeo`");
            return;
        };
        assert!(copied.status.success(), "{form}: {}", String::from_utf8_lossy(&copied.stderr));
        scene.is_whole(form).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_images_the_named_one_is_taken() {
    let scene = Scene::new();
    let [one, two] = [b"1", b"2"].map(|content| images::archive(&[("a", content)]));
    let names = ["example.com/a:1", "b:2"];
    let plain: Tree = saved(&[(names[0], &[&one]), (names[1], &[&two])]);
    write_folder(&scene.path("saved"), &plain);
    let images =
        [&one, &two].map(|archive| image(vec![images::layer_of(Compression::Gzip, archive)]));
    let both = layout(&[(names[0], &images[0]), (names[1], &images[1])]);
    write_folder(&scene.path("layout"), &both);
    for archive in ["saved", "layout"] {
        let problem = scene.problem(archive, None).await;
        assert!(
            problem.contains("several images: name one of `example.com/a:1`, `b:2`"),
            "{problem}"
        );
        let problem = scene.problem(archive, Some("c:3")).await;
        assert!(problem.contains("no image `c:3`"), "{problem}");
        for (wanted, index) in [("example.com/a:1", 0), ("docker.io/library/b:2", 1)] {
            let pulled = scene.pull(archive, Some(wanted)).await.unwrap();
            if archive == "layout" {
                assert_eq!(pulled.digest, images[index].manifest.digest);
            }
            if is_root() {
                let content = [b"1", b"2"][index];
                assert_eq!(files(&scene.store, &pulled), expected(&[("a", content)]));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_may_be_links_within_the_archive_and_never_out_of_it() {
    let scene = Scene::new();
    let layer = images::archive(&[("a", b"x")]);
    let tree = saved(&[("app:1", &[&layer])]);
    let path = format!("{}/layer.tar", Digest::of(&layer).hex());
    let without =
        |tree: &Tree| tree.iter().filter(|(name, _)| *name != path).cloned().collect::<Tree>();

    // In a folder.
    write_folder(&scene.path("saved"), &tree);
    let (place, outside) = (scene.path("saved").join(&path), scene.path("outside.tar"));
    fs::rename(&place, scene.path("saved/other.tar")).unwrap();
    std::os::unix::fs::symlink("../other.tar", &place).unwrap();
    scene.pull("saved", None).await.unwrap();
    fs::write(&outside, &layer).unwrap();
    for target in [outside.display().to_string(), "../../outside.tar".to_owned()] {
        fs::remove_file(&place).unwrap();
        std::os::unix::fs::symlink(target, &place).unwrap();
        let archive =
            Archive::open(&scene.path("saved"), None, scene.folder.path(), BYTES_MAX).unwrap();
        assert!(archive.resolve().await.is_err());
    }

    // In a tar.
    let mut unmarked = tar(&without(&tree));
    unmarked.truncate(unmarked.len() - 1024);
    let mut builder = tar::Builder::new(unmarked);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, &path, "../../../etc/passwd").unwrap();
    fs::write(scene.path("evil.tar"), builder.into_inner().unwrap()).unwrap();
    let problem = scene.problem("evil.tar", None).await;
    assert!(problem.contains("it is not in the archive"), "{problem}");
    let evil = json!([{"Config": "../outside.tar", "RepoTags": null, "Layers": []}]).to_string();
    write_folder(&scene.path("evil"), &vec![("manifest.json".to_owned(), evil.into_bytes())]);
    let problem = scene.problem("evil", None).await;
    assert!(problem.contains("`../outside.tar`"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_or_no_archive_is_refused() {
    let scene = Scene::new();
    let packed = packed(Compression::Gzip);
    let mut tree = layout(&[("1", &packed)]);
    let damage = |tree: &mut Tree, digest: &Digest| {
        let found = tree.iter_mut().find(|(path, _)| path.ends_with(digest.hex())).unwrap();
        let middle = found.1.len() / 2;
        found.1[middle] ^= 1;
    };
    damage(&mut tree, &packed.layers[0].digest);
    fs::write(scene.path("layer"), tar(&tree)).unwrap();
    let problem = scene.problem("layer", None).await;
    assert!(problem.contains(packed.layers[0].digest.as_str()), "{problem}");
    assert_eq!(scene.store.images().unwrap(), []);

    let mut tree = layout(&[("1", &packed)]);
    damage(&mut tree, &packed.config.digest);
    fs::write(scene.path("config"), tar(&tree)).unwrap();
    let problem = scene.problem("config", None).await;
    assert!(problem.contains("is not what its digest says"), "{problem}");

    fs::write(scene.path("text"), "hello").unwrap();
    fs::write(scene.path("empty.tar"), tar(&vec![])).unwrap();
    fs::write(scene.path("half.gz"), &gzip(&noise(1, 1000))[..500]).unwrap();
    let cases = [
        ("missing", "No such file"),
        ("text", "in the middle of a header"),
        ("empty.tar", "it is no archive of images"),
        ("half.gz", ""),
    ];
    for (name, expected) in cases {
        let problem = scene.problem(name, None).await;
        assert!(problem.contains(expected), "{name}: {problem}");
    }
    fs::write(scene.path("bomb.gz"), gzip(&vec![0; 1 << 20])).unwrap();
    let error = Archive::open(&scene.path("bomb.gz"), None, scene.folder.path(), 1000).unwrap_err();
    assert!(error.to_string().contains("inflates to more than 1000 bytes"), "{error}");
}
