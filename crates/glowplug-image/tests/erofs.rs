//! Images that the kernel mounts, and what it sees in them.
//!
//! Mounting needs root; without it `fsck.erofs` is the only judge, and that is said.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use glowplug_image::ContentId;
use glowplug_image::erofs::{self, Packs};
use glowplug_image::layer::{Content, Entry, EntryKind, Meta, Slice, Special};
use glowplug_image::tree::Tree;
use proptest::prelude::*;
use rustix::mount::{MountFlags, UnmountFlags};

/// One pack, whose bytes tell their own places.
struct Pattern;

fn pattern(offset: u64, bytes: usize) -> Vec<u8> {
    (offset..).take(bytes).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect()
}

impl Packs for Pattern {
    fn read(&self, layer: u32, offset: u64, into: &mut [u8]) -> io::Result<()> {
        assert_eq!(layer, 0);
        into.copy_from_slice(&pattern(offset, into.len()));
        Ok(())
    }
}

/// An image of the entries, mounted until it is dropped.
struct Mounted {
    folder: tempfile::TempDir,
}

impl Mounted {
    /// `None` where this user may not mount.
    fn new(entries: &[Entry]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let mut tree = Tree::default();
        tree.apply(0, entries).unwrap();
        let written =
            erofs::write(&tree, &Pattern, io::BufWriter::new(File::create(&image).unwrap()));
        let written = written.unwrap();
        assert_eq!(written.bytes, fs::metadata(&image).unwrap().len());
        assert_eq!(written.bytes % erofs::BLOCK_BYTES, 0);
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can mount an image");
            return None;
        }
        rustix::mount::mount(&image, &root, "erofs", MountFlags::RDONLY, None).unwrap();
        Some(Self { folder })
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join("root").join(below)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(self.path(""), UnmountFlags::empty()).unwrap();
    }
}

fn entry(path: &str, mode: u16, kind: EntryKind) -> Entry {
    let meta = Meta { mode, uid: 1000, gid: 100_000, modified: (1_700_000_000, 5), xattrs: vec![] };
    Entry { path: path.as_bytes().to_vec(), meta, kind }
}

fn file(path: &str, bytes: u32) -> Entry {
    entry(path, 0o640, EntryKind::File(Content::Packed(Slice { offset: 77, bytes })))
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 4096];
    let bytes = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    Some(value[..bytes].to_vec())
}

#[test]
fn the_kernel_sees_what_was_written() {
    let mut secret = file("etc/secret", 12);
    secret.meta.mode = 0o4_711;
    secret.meta.xattrs = vec![
        (
            b"security.capability".to_vec(),
            vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        (b"user.note".to_vec(), vec![b'x'; 1_000]),
    ];
    let device = Special::CharacterDevice { major: 1, minor: 259 };
    let long_target = "t".repeat(4_000);
    let link = |target: &str| EntryKind::Symlink { target: target.as_bytes().to_vec() };
    let entries = [
        entry("", 0o751, EntryKind::Directory),
        entry("tmp", 0o1777, EntryKind::Directory),
        secret,
        entry("empty", 0o600, EntryKind::File(Content::Empty)),
        entry("name", 0o644, EntryKind::HardLink { target: b"etc/secret".to_vec() }),
        entry("link", 0o777, link("etc/secret")),
        entry("long", 0o777, link(&long_target)),
        entry("null", 0o666, EntryKind::Special(device)),
        entry("pipe", 0o600, EntryKind::Special(Special::Fifo)),
        entry("socket", 0o600, EntryKind::Special(Special::Socket)),
    ];
    let Some(mounted) = Mounted::new(&entries) else { return };

    let root = fs::metadata(mounted.path("")).unwrap();
    assert_eq!((root.mode() & 0o7777, root.nlink()), (0o751, 4));
    assert_eq!(fs::metadata(mounted.path("tmp")).unwrap().mode(), 0o041_777);
    let secret = fs::metadata(mounted.path("etc/secret")).unwrap();
    assert_eq!((secret.mode(), secret.uid(), secret.gid()), (0o104_711, 1000, 100_000));
    assert_eq!((secret.mtime(), secret.mtime_nsec(), secret.nlink()), (1_700_000_000, 5, 2));
    assert_eq!(secret.ino(), fs::metadata(mounted.path("name")).unwrap().ino());
    assert_eq!(fs::read(mounted.path("name")).unwrap(), pattern(77, 12));
    assert_eq!(xattr(&mounted.path("etc/secret"), "user.note"), Some(vec![b'x'; 1_000]));
    assert_eq!(
        xattr(&mounted.path("etc/secret"), "security.capability").map(|v| v.len()),
        Some(20)
    );
    assert_eq!(xattr(&mounted.path("empty"), "user.note"), None);
    assert!(fs::read(mounted.path("empty")).unwrap().is_empty());
    assert_eq!(fs::read_link(mounted.path("link")).unwrap(), Path::new("etc/secret"));
    assert_eq!(fs::read_link(mounted.path("long")).unwrap(), Path::new(&long_target));
    let null = fs::symlink_metadata(mounted.path("null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 259));
    assert!(fs::symlink_metadata(mounted.path("pipe")).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata(mounted.path("socket")).unwrap().file_type().is_socket());
}

/// A whole directory of every size around the edges of a block, and one with more names than a block holds.
#[test]
fn every_size_and_many_names_survive() {
    let sizes =
        [1, 2, 3_900, 3_968, 4_032, 4_033, 4_095, 4_096, 4_097, 8_191, 8_192, 8_193, 32_767];
    let mut entries: Vec<Entry> =
        sizes.iter().map(|bytes| file(&format!("sizes/{bytes:05}"), *bytes)).collect();
    // Names before and after the dots in the order of bytes.
    let names = ["!", "+x", "-", ".a", "..b", "...", "~"];
    entries.extend(names.iter().map(|name| file(&format!("odd/{name}"), 1)));
    entries.extend((0..3_000).map(|n| file(&format!("many/{n:0100}"), n % 7)));
    let Some(mounted) = Mounted::new(&entries) else { return };

    for bytes in sizes {
        let read = fs::read(mounted.path(&format!("sizes/{bytes:05}"))).unwrap();
        assert_eq!(read, pattern(77, bytes as usize), "{bytes} bytes");
    }
    for name in names {
        assert_eq!(fs::read(mounted.path("odd").join(name)).unwrap(), pattern(77, 1), "{name}");
    }
    let many: Vec<_> = fs::read_dir(mounted.path("many")).unwrap().map(Result::unwrap).collect();
    assert_eq!(many.len(), 3_000);
    for n in 0..3_000 {
        let bytes = fs::metadata(mounted.path(&format!("many/{n:0100}"))).unwrap().len();
        assert_eq!(bytes, n % 7, "{n}");
    }
    assert!(!mounted.path(&format!("many/{:0100}", 3_000)).exists());
}

#[test]
fn shared_contents_are_read_from_the_store_under_an_overlay() {
    let id = ContentId::from(blake3::hash(b"shared"));
    let bytes = 5_000_000_000;
    let entries = [
        entry("models/large", 0o444, EntryKind::File(Content::Shared { id, bytes })),
        file("small", 10),
    ];
    let Some(mounted) = Mounted::new(&entries) else { return };
    let large = mounted.path("models/large");
    assert_eq!(fs::metadata(&large).unwrap().len(), bytes);
    assert_eq!(xattr(&large, "trusted.overlay.metacopy"), Some(vec![]));
    let redirect = format!("/{}", id.relative_path());
    assert_eq!(xattr(&large, "trusted.overlay.redirect"), Some(redirect.clone().into_bytes()));

    let scratch = tempfile::tempdir().unwrap();
    let (store, overlay) = (scratch.path().join("store"), scratch.path().join("overlay"));
    let content = store.join(id.relative_path());
    fs::create_dir_all(content.parent().unwrap()).unwrap();
    fs::create_dir(&overlay).unwrap();
    fs::write(&content, b"shared").unwrap();
    File::options().write(true).open(&content).unwrap().set_len(bytes).unwrap();
    let options = format!(
        "lowerdir={}::{},metacopy=on,redirect_dir=on",
        mounted.path("").display(),
        store.display()
    );
    let options = std::ffi::CString::new(options).unwrap();
    let mount = rustix::mount::mount("overlay", &overlay, "overlay", MountFlags::RDONLY, &*options);
    mount.unwrap();
    let seen = File::open(overlay.join("models/large")).and_then(|file| {
        let mut start = [0; 6];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut start, 0).map(|()| start)
    });
    let mode = fs::metadata(overlay.join("models/large")).map(|meta| meta.mode());
    rustix::mount::unmount(&overlay, UnmountFlags::empty()).unwrap();
    assert_eq!(&seen.unwrap(), b"shared");
    assert_eq!(mode.unwrap(), 0o100_444);
}

#[test]
fn attributes_that_could_reach_into_the_store_are_refused() {
    for name in ["trusted.overlay.redirect", "trusted.overlay.metacopy", "btrfs.compression"] {
        let mut entry = file("a", 1);
        entry.meta.xattrs = vec![(name.as_bytes().to_vec(), b"/ab/cd".to_vec())];
        let mut tree = Tree::default();
        tree.apply(0, &[entry]).unwrap();
        let error = erofs::write(&tree, &Pattern, io::sink()).unwrap_err();
        assert!(matches!(error, erofs::Error::UnknownAttribute { .. }), "{error}");
    }
}

fn random_tree() -> impl Strategy<Value = BTreeMap<String, u32>> {
    let name = "[a-c!.]{1,3}[a-z]{0,80}";
    let path = prop::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"));
    prop::collection::btree_map(path, 0_u32..40_000, 0..60)
}

/// All files below, by their paths.
fn files_below(root: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            } else {
                let path = entry.path().strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
                found.insert(path, fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tree_reads_back_as_it_was(tree in random_tree()) {
        // A name that is a file here and a folder there is what the tree, not the image, decides.
        let is_folder = |path: &str| tree.keys().any(|other| other.starts_with(&format!("{path}/")));
        let dots = |path: &str| path.split('/').any(|part| part == "." || part == "..");
        let files: Vec<_> = tree.iter().filter(|(path, _)| !is_folder(path) && !dots(path)).collect();
        let entries: Vec<Entry> = files.iter().map(|(path, bytes)| file(path, **bytes)).collect();
        if let Some(mounted) = Mounted::new(&entries) {
            let expected = files.iter().map(|(path, bytes)| {
                (path.as_bytes().to_vec(), pattern(77, **bytes as usize))
            });
            prop_assert_eq!(files_below(&mounted.path("")), expected.collect::<BTreeMap<_, _>>());
        }
    }
}
