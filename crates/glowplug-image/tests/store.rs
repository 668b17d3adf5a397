//! From archives of layers to a root that a runner could have.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use glowplug_image::config::ImageConfig;
use glowplug_image::layer::unpack::{Limits, unpack};
use glowplug_image::store::{self, Image, Mounting};
use glowplug_image::{Digest, Store};
use rustix::fs::{CWD, FileType, Mode, mknodat};

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

/// Everything that an archive can say of a file.
fn rich_archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, mode: u32, content: &[u8], link: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(12);
        header.set_gid(34);
        header.set_mtime(1_700_000_000);
        if link.is_empty() {
            builder.append_data(&mut header, name, content).unwrap();
        } else {
            builder.append_link(&mut header, name, link).unwrap();
        }
    };
    add("dir/", tar::EntryType::Directory, 0o1750, b"", "");
    add("dir/set-user-id", tar::EntryType::Regular, 0o4755, b"small", "");
    add("dir/large", tar::EntryType::Regular, 0o640, &vec![3; 200_000], "");
    add("dir/empty", tar::EntryType::Regular, 0o600, b"", "");
    add("hard", tar::EntryType::Link, 0o640, b"", "dir/large");
    add("soft", tar::EntryType::Symlink, 0o777, b"", "dir/nowhere");
    add("pipe", tar::EntryType::Fifo, 0o622, b"", "");
    add("read-only/", tar::EntryType::Directory, 0o555, b"", "");
    add("read-only/file", tar::EntryType::Regular, 0o444, b"x", "");
    builder.append_pax_extensions([("SCHILY.xattr.user.note", &b"kept"[..])]).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    builder.append_data(&mut header, "noted", &b"note"[..]).unwrap();
    builder.into_inner().unwrap()
}

/// What there is to know of each file below a root.
fn described(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let (mut note, mut content) = ([0; 64], Vec::new());
        let noted = rustix::fs::lgetxattr(&path, "user.note", &mut note).unwrap_or(0);
        if meta.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if meta.is_file() {
            content = fs::read(&path).unwrap();
        } else if meta.is_symlink() {
            content = fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes();
        }
        let links = if meta.is_dir() { 0 } else { meta.nlink() };
        found.push(format!(
            "{name} {:o} {}:{} {links} {} {:?} {}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            String::from_utf8_lossy(&note[..noted]),
            Digest::of(&content)
        ));
    }
    // The root is the runner's own.
    found.retain(|line| !line.starts_with(' '));
    found.sort();
    found
}

#[test]
fn an_image_that_is_written_out_is_the_one_that_is_mounted() {
    if !is_root() {
        return;
    }
    let [mounted, written_out] = [Mounting::Shared, Mounting::Directories].map(|mounting| {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_for(folder.path(), mounting).unwrap();
        let mut layer = store.new_layer(&digest(1)).unwrap();
        let limits = Limits::default();
        let unpacked = unpack(&rich_archive()[..], &mut layer.pins, &mut layer.pack, &limits);
        layer.finish(&unpacked.unwrap()).unwrap();
        add_layer(&store, 2, &[(".wh.soft", b""), ("dir/empty", b"not any more")]);
        let image = store.publish(image(9, &[1, 2])).unwrap();
        let before = store.bytes().unwrap();
        let found = with_root(&store, &image, described);
        let grown = store.bytes().unwrap() - before;
        assert_eq!(grown, if mounting == Mounting::Shared { 0 } else { image.bytes });
        // A second start finds the same, and nothing of what the first may have written.
        with_root(&store, &image, |root| fs::write(root.join("dir/large"), b"mine").unwrap());
        assert_eq!(with_root(&store, &image, described), found);
        store.remove_image(&image.digest).unwrap();
        found
    });
    assert_eq!(mounted.len(), 9, "{mounted:?}");
    assert_eq!(mounted, written_out);
}

#[test]
fn a_mounted_image_in_use_cannot_be_removed() {
    an_image_in_use_cannot_be_removed(Mounting::Shared);
}

#[test]
fn an_image_that_is_written_out_and_in_use_cannot_be_removed() {
    an_image_in_use_cannot_be_removed(Mounting::Directories);
}

fn an_image_in_use_cannot_be_removed(mounting: Mounting) {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // The kernel writes a space in a table of mounts in a form of its own.
    let store = Store::open_for(&folder.path().join("with a space"), mounting).unwrap();
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
fn nobody_waits_while_an_image_is_written_out() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_for(folder.path(), Mounting::Directories).unwrap();
    let large = vec![7; 100_000];
    add_layer(&store, 1, &[("model", &large)]);
    let image = store.publish(image(9, &[1])).unwrap();
    // A content that comes when the test wants it.
    let content = store.contents().path(&blake3::hash(&large).into());
    fs::remove_file(&content).unwrap();
    mknodat(CWD, &content, FileType::Fifo, Mode::RWXU, 0).unwrap();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| store.mount(&image.digest));
        // Open when the other side reads.
        let mut pipe = fs::File::options().write(true).open(&content).unwrap();
        let (tell, told) = mpsc::sync_channel(1);
        let other = (store.clone(), image.digest.clone());
        std::thread::spawn(move || tell.send(other.0.remove_image(&other.1)));
        let removed = told.recv_timeout(Duration::from_secs(20)).map_err(|_| "it waits");
        pipe.write_all(&large).unwrap();
        drop(pipe);
        let mounted = starting.join().unwrap().unwrap();
        assert!(matches!(removed.unwrap(), Err(store::Error::InUse { .. })));
        assert!(fs::read(mounted.tree.join("model")).unwrap() == large);
    });
    store.remove_image(&image.digest).unwrap();
}

#[test]
fn an_image_that_cannot_be_written_out_is_not_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_for(folder.path(), Mounting::Directories).unwrap();
    add_layer(&store, 1, &[("a", b"x")]);
    let image = store.publish(image(9, &[1])).unwrap();
    fs::remove_dir_all(folder.path().join("layers").join(digest(1).hex())).unwrap();
    let error = store.mount(&image.digest).unwrap_err();
    assert!(matches!(error, store::Error::LayerMissing { .. }), "{error}");
    assert!(!store.is_used(&image.digest).unwrap());
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
