use std::fs;

use tar::{Builder, EntryType, Header};

use super::*;
use crate::contents::Contents;

/// Contents that go with their folder.
#[derive(Debug)]
struct Stored {
    contents: Contents,
    _folder: tempfile::TempDir,
}

/// What an archive of these entries unpacks to, with the pack, in a store of its own.
fn unpack_with(archive: &[u8], limits: &Limits) -> Result<(Unpacked, Vec<u8>, Stored), Error> {
    let folder = tempfile::tempdir().unwrap();
    let contents = Contents::open(folder.path()).unwrap();
    let mut pack = Vec::new();
    let unpacked = unpack(archive, &mut contents.pins(), &mut pack, limits);
    unpacked.map(|unpacked| (unpacked, pack, Stored { contents, _folder: folder }))
}

fn unpack_all(archive: &[u8]) -> (Unpacked, Vec<u8>, Stored) {
    unpack_with(archive, &Limits::default()).unwrap()
}

fn error_of(archive: &[u8]) -> String {
    let error = unpack_with(archive, &Limits::default()).unwrap_err();
    let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

fn header(kind: EntryType, bytes: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(bytes as u64);
    header.set_mode(0o644);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(99);
    header
}

/// The name goes into the header as it is, however bad it is.
fn add(builder: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, content: &[u8]) {
    let mut header = header(kind, content.len());
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    builder.append(&header, content).unwrap();
}

fn add_link(builder: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, target: &str) {
    let mut header = header(kind, 0);
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    builder.append(&header, &[][..]).unwrap();
}

fn archive(fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    fill(&mut builder);
    builder.into_inner().unwrap()
}

fn large() -> Vec<u8> {
    (0..=u8::MAX).cycle().take(32 << 10).collect()
}

#[test]
fn contents_go_where_their_size_says() {
    let archive = archive(|archive| {
        add(archive, EntryType::Directory, "./etc/", b"");
        add(archive, EntryType::Regular, "./etc/a", b"first");
        add(archive, EntryType::Regular, "etc/empty", b"");
        add(archive, EntryType::Regular, "model", &large());
        add(archive, EntryType::Regular, "model.again", &large());
        add(archive, EntryType::Regular, "etc/b", b"second");
        add_link(archive, EntryType::Symlink, "s", "../../outside");
        add_link(archive, EntryType::Link, "h", "./etc/a");
        add(archive, EntryType::Fifo, "pipe", b"");
    });
    let (unpacked, pack, Stored { contents, _folder }) = unpack_all(&archive);
    assert_eq!(pack, b"firstsecond");
    let id = ContentIdOf(&large()).id();
    let packed = |offset, bytes| EntryKind::File(Content::Packed(Slice { offset, bytes }));
    let shared = EntryKind::File(Content::Shared { id, bytes: SHARED_BYTES_MIN });
    let expected = [
        ("etc", EntryKind::Directory),
        ("etc/a", packed(0, 5)),
        ("etc/empty", EntryKind::File(Content::Empty)),
        ("model", shared.clone()),
        ("model.again", shared),
        ("etc/b", packed(5, 6)),
        ("s", EntryKind::Symlink { target: b"../../outside".to_vec() }),
        ("h", EntryKind::HardLink { target: b"etc/a".to_vec() }),
        ("pipe", EntryKind::Special(Special::Fifo)),
    ];
    let found: Vec<_> = unpacked
        .entries
        .iter()
        .map(|entry| (std::str::from_utf8(&entry.path).unwrap(), entry.kind.clone()))
        .collect();
    assert_eq!(found, expected);
    let meta = Meta { mode: 0o644, uid: 7, gid: 8, modified: (99, 0), xattrs: vec![] };
    assert!(unpacked.entries.iter().all(|entry| entry.meta == meta));
    assert_eq!(unpacked.bytes, 11 + 2 * SHARED_BYTES_MIN);
    assert_eq!((unpacked.packed_bytes, unpacked.known_bytes), (11, SHARED_BYTES_MIN));
    assert_eq!(contents.list().unwrap(), [(id, SHARED_BYTES_MIN)]);
    assert_eq!(fs::read(contents.path(&id)).unwrap(), large());
}

struct ContentIdOf<'a>(&'a [u8]);

impl ContentIdOf<'_> {
    fn id(&self) -> crate::ContentId {
        blake3::hash(self.0).into()
    }
}

#[test]
fn long_names_times_and_attributes_are_read_from_extensions() {
    let long = "d/".repeat(150) + "file";
    let archive = archive(|archive| {
        let extensions = [
            ("mtime", &b"1700000000.25"[..]),
            ("uid", b"3000000"),
            ("SCHILY.xattr.user.note", b"kept"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/ab/cd"),
            ("SCHILY.xattr.security.capability", b"\x01\x00\x00\x02"),
        ];
        archive.append_pax_extensions(extensions).unwrap();
        archive.append_data(&mut header(EntryType::Regular, 1), &long, &b"x"[..]).unwrap();
    });
    let (unpacked, ..) = unpack_all(&archive);
    let [entry] = &unpacked.entries[..] else { panic!("{unpacked:?}") };
    assert_eq!(entry.path, long.as_bytes());
    assert_eq!((entry.meta.uid, entry.meta.gid), (3_000_000, 8));
    assert_eq!(entry.meta.modified, (1_700_000_000, 250_000_000));
    let names: Vec<_> = entry.meta.xattrs.iter().map(|(name, _)| &name[..]).collect();
    assert_eq!(names, [&b"security.capability"[..], b"user.note"]);
}

#[test]
fn an_archive_needs_no_end_marker() {
    let whole = archive(|archive| add(archive, EntryType::Regular, "a", b"content"));
    // Header and one block of content; then two blocks of zeros that some builders leave out.
    for bytes in [1024, 1024 + 512, whole.len()] {
        let (unpacked, pack, _) = unpack_all(&whole[..bytes]);
        assert_eq!((unpacked.entries.len(), &pack[..]), (1, &b"content"[..]), "{bytes}");
    }
}

#[test]
fn an_archive_that_breaks_off_is_an_error() {
    let whole = archive(|archive| {
        add(archive, EntryType::Regular, "small", b"content");
        add(archive, EntryType::Regular, "large", &large());
    });
    for bytes in [100, 512 + 3, 1024 + 100, 1536 + 1000] {
        assert!(unpack_with(&whole[..bytes], &Limits::default()).is_err(), "{bytes}");
    }
    assert!(error_of(&[1; 2048]).starts_with("the archive cannot be read"));
}

#[test]
fn what_leads_out_is_refused() {
    for name in ["../a", "a/../../b", "/../etc/passwd"] {
        let archive = archive(|archive| add(archive, EntryType::Regular, name, b"x"));
        assert_eq!(error_of(&archive), format!("`{name}` leads out of the image"));
    }
    let link = archive(|archive| add_link(archive, EntryType::Link, "a", "../../etc/passwd"));
    assert_eq!(error_of(&link), "`../../etc/passwd` leads out of the image");
}

fn add_device(builder: &mut Builder<Vec<u8>>, name: &str, major: u32, minor: u32) {
    let mut header = header(EntryType::Char, 0);
    header.set_device_major(major).unwrap();
    header.set_device_minor(minor).unwrap();
    builder.append_data(&mut header, name, &[][..]).unwrap();
}

#[test]
fn devices_come_in_only_where_they_are_wanted() {
    let device = archive(|archive| add_device(archive, "dev/x", 1, 3));
    assert!(error_of(&device).starts_with("`dev/x` is a device"));
    let limits = Limits { devices: Devices::Kept, ..Limits::default() };
    let (unpacked, ..) = unpack_with(&device, &limits).unwrap();
    let kind = EntryKind::Special(Special::CharacterDevice { major: 1, minor: 3 });
    assert_eq!(unpacked.entries[0].kind, kind);
}

#[test]
fn the_marks_of_overlayfs_never_get_into_a_tree() {
    let archive = archive(|archive| add_device(archive, "etc/gone", 0, 0));
    for devices in [Devices::Refused, Devices::Kept] {
        let limits = Limits { devices, ..Limits::default() };
        let (unpacked, ..) = unpack_with(&archive, &limits).unwrap();
        assert_eq!(unpacked.entries[0].kind, EntryKind::Whiteout);
        assert_eq!(unpacked.entries[0].path, b"etc/gone");
    }
}

#[test]
fn bombs_are_refused_before_they_are_inflated() {
    let archive = archive(|archive| {
        for name in ["a", "b", "c"] {
            add(archive, EntryType::Regular, name, b"0123456789");
        }
    });
    let check = |limits: Limits, expected: &str| {
        assert_eq!(unpack_with(&archive, &limits).unwrap_err().to_string(), expected);
    };
    let limits = Limits::default();
    check(Limits { file_bytes_max: 9, ..limits }, "`a` has 10 bytes, at most 9 are allowed");
    check(Limits { bytes_max: 25, ..limits }, "it inflates to more than 25 bytes");
    check(Limits { entries_max: 2, ..limits }, "it has more than 2 files");
}
