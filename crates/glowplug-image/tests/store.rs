//! From archives of layers to a root that a runner could have.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use glowplug_image::config::ImageConfig;
use glowplug_image::layer::unpack::{Limits, unpack};
use glowplug_image::store::{self, Image};
use glowplug_image::{Digest, Store};

use self::support::images::archive;
use self::support::root::{is_root, with_root};

fn digest(number: u8) -> Digest {
    Digest::of_hash([number; 32])
}

fn add_layer(store: &Store, number: u8, files: &[(&str, &[u8])]) {
    let mut layer = store.new_layer(&digest(number)).unwrap();
    let archive = archive(files);
    let unpacked = unpack(&archive[..], &mut layer.pins, &mut layer.pack, &Limits::default());
    layer.finish(&unpacked.unwrap()).unwrap();
}

fn image(number: u8, layers: &[u8]) -> Image {
    let layers = layers.iter().copied().map(digest).collect();
    let config = ImageConfig { cmd: vec!["/bin/app".to_owned()], ..ImageConfig::default() };
    Image {
        digest: digest(number),
        config,
        layers,
        compressed_bytes: 1,
        layer_bytes: Vec::new(),
        bytes: 0,
    }
}

#[test]
fn an_image_is_its_layers_and_runners_write_into_their_own() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let large = vec![7; 100_000];
    add_layer(&store, 1, &[("etc/", b""), ("etc/a", b"old"), ("gone", b"x"), ("model", &large)]);
    add_layer(&store, 2, &[("etc/a", b"new"), (".wh.gone", b""), ("copy", &large)]);
    let image = image(9, &[1, 2]);
    let image = store.publish(image).unwrap();
    assert_eq!(image.bytes, 200_003);
    assert_eq!(store.images().unwrap(), std::slice::from_ref(&image));
    assert_eq!(store.contents().list().unwrap().len(), 1, "equal contents are kept once");

    for _ in 0..2 {
        with_root(&store, &image, |root| {
            assert_eq!(fs::read(root.join("etc/a")).unwrap(), b"new");
            assert!(!root.join("gone").exists());
            assert_eq!(fs::read(root.join("model")).unwrap(), large);
            assert_eq!(fs::read(root.join("copy")).unwrap(), large);
            // What a runner writes, changes and removes is its own business.
            fs::write(root.join("model"), b"mine").unwrap();
            fs::set_permissions(root.join("copy"), fs::Permissions::from_mode(0o755)).unwrap();
            fs::remove_file(root.join("etc/a")).unwrap();
            assert_eq!(fs::metadata(root.join("copy")).unwrap().mode() & 0o777, 0o755);
        });
    }
    store.remove_image(&image.digest).unwrap();
    assert_eq!(store.images().unwrap(), []);
}

#[test]
fn an_image_in_use_cannot_be_removed() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // The kernel writes a space in a table of mounts in a form of its own.
    let store = Store::open(&folder.path().join("with a space")).unwrap();
    add_layer(&store, 1, &[("a", b"x")]);
    let image = image(9, &[1]);
    let image = store.publish(image).unwrap();
    let check = || {
        let error = store.remove_image(&image.digest).unwrap_err();
        assert!(matches!(error, store::Error::InUse { .. }), "{error}");
    };
    let about_to_start = store.mount(&image.digest).unwrap();
    check();
    drop(about_to_start);
    with_root(&store, &image, |_| check());
    store.remove_image(&image.digest).unwrap();
    let error = store.mount(&image.digest).unwrap_err();
    assert!(matches!(error, store::Error::ImageMissing { .. }), "{error}");
}

#[test]
fn what_is_not_finished_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    drop(store.new_layer(&digest(1)).unwrap());
    assert!(!store.has_layer(&digest(1)));
    let error = store.publish(image(9, &[1])).unwrap_err();
    assert!(matches!(error, store::Error::LayerMissing { .. }), "{error}");
    assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_damaged_layer_is_never_built_into_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    add_layer(&store, 1, &[("a", b"x")]);
    let index = folder.path().join("layers").join(digest(1).hex()).join("index");
    let mut bytes = fs::read(&index).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&index, bytes).unwrap();
    let error = store.publish(image(9, &[1])).unwrap_err();
    assert!(matches!(error, store::Error::LayerDamaged { .. }), "{error}");
}

#[test]
fn a_store_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, store::Error::Taken { .. }), "{error}");
    drop(store);
    Store::open(folder.path()).unwrap();
}
