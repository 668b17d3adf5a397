use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

const NO_LIMIT: u64 = u64::MAX;

/// Header and content, padded.
fn block(kind: u8, name: &[u8], content: &[u8], change: impl FnOnce(&mut [u8; 512])) -> Vec<u8> {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name);
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    change(&mut header);
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = [&header[..], content].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn plain(kind: u8, name: &[u8], content: &[u8]) -> Vec<u8> {
    block(kind, name, content, |_| {})
}

fn read_all(archive: &[u8], bytes_max: u64) -> io::Result<Vec<(Member, Vec<u8>)>> {
    let mut archive = Archive::new(archive, bytes_max);
    let mut members = Vec::new();
    while let Some(member) = archive.next()? {
        let mut content = Vec::new();
        archive.read_to_end(&mut content)?;
        assert_eq!(content.len() as u64, member.bytes, "{member:?}");
        members.push((member, content));
    }
    archive.finish()?;
    Ok(members)
}

fn problem(parts: &[Vec<u8>]) -> String {
    read_all(&parts.concat(), NO_LIMIT).unwrap_err().to_string()
}

#[test]
fn headers_without_limits_are_refused_before_they_are_read() {
    for kind in *b"xLK" {
        // It announces much more than there is: whoever believed it would make room for it.
        let bomb = block(kind, b"x", b"", |header| {
            header[124..136].copy_from_slice(b"77777777777\0");
        });
        let problem = problem(&[bomb]);
        assert!(problem.contains("at most 1048576 are allowed"), "{problem}");
    }
    let chain = vec![plain(b'L', b"x", b"name"); 20];
    assert!(problem(&chain).contains("too many extended headers"));
    let chain = vec![plain(b'g', b"x", b"9 comment=x\n"); 20];
    assert!(problem(&chain).contains("too many extended headers"));
}

#[test]
fn what_follows_the_end_has_a_limit() {
    let mut archive = plain(b'0', b"a", b"x");
    archive.extend([0; 1024]);
    archive.resize(archive.len() + 100_000, 7);
    assert_eq!(read_all(&archive, NO_LIMIT).unwrap().len(), 1);
    archive.resize(20 << 20, 0);
    let problem = read_all(&archive, NO_LIMIT).unwrap_err().to_string();
    assert_eq!(problem, "too much follows the end of the archive");
}

#[test]
fn a_header_that_describes_nothing_is_refused() {
    let problem = problem(&[plain(b'L', b"x", b"name")]);
    assert_eq!(problem, "the archive ends before the member that it describes");
}

#[test]
fn global_headers_change_nothing() {
    let archive = [plain(b'g', b"g", b"19 path=elsewhere/\n"), plain(b'0', b"a", b"x")];
    let members = read_all(&archive.concat(), NO_LIMIT).unwrap();
    assert_eq!(members[0].0.path, b"a");
}

#[test]
fn extended_headers_are_for_one_member_only() {
    let archive = [
        plain(b'L', b"x", b"a-long-name\0"),
        plain(b'x', b"x", b"10 uid=77\n"),
        plain(b'0', b"a", b"x"),
        plain(b'0', b"b", b"y"),
    ];
    let members = read_all(&archive.concat(), NO_LIMIT).unwrap();
    let found: Vec<_> = members.iter().map(|(member, _)| (&member.path[..], member.uid)).collect();
    assert_eq!(found, [(&b"a-long-name"[..], 77), (b"b", 0)]);
}

#[test]
fn sizes_come_from_extended_headers_and_mean_nothing_without_content() {
    let archive = [
        plain(b'x', b"x", b"10 size=3\n"),
        // The header says nothing: it has no room for large sizes.
        block(b'0', b"a", b"abc", |header| header[124..136].fill(0)),
        block(b'1', b"link", b"", |header| {
            header[124..136].copy_from_slice(b"00000001000\0");
            header[157] = b'a';
        }),
        plain(b'0', b"b", b"y"),
    ];
    let members = read_all(&archive.concat(), NO_LIMIT).unwrap();
    let contents: Vec<_> = members.iter().map(|(_, content)| &content[..]).collect();
    assert_eq!(contents, [&b"abc"[..], b"", b"y"]);
}

#[test]
fn blank_numbers_are_zero() {
    let archive = block(b'0', b"a", b"", |header| {
        header[100..148].fill(b' ');
        header[329..345].fill(0);
    });
    let (member, _) = read_all(&archive, NO_LIMIT).unwrap().remove(0);
    assert_eq!((member.mode, member.uid, member.gid, member.modified), (0, 0, 0, (0, 0)));
}

#[test]
fn all_bytes_count() {
    let archive = [plain(b'0', b"a", &[1; 5000]), plain(b'0', b"b", b"x")].concat();
    for bytes_max in [100, 600, 5000, archive.len() as u64 - 1] {
        let error = read_all(&archive, bytes_max).unwrap_err();
        let inner = error.get_ref();
        let is_it = inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<TooLong>);
        assert!(is_it, "{bytes_max}: {error}");
    }
    assert_eq!(read_all(&archive, archive.len() as u64).unwrap().len(), 2);
}

/// What GNU's tar makes of a folder in each of its forms.
#[test]
fn archives_of_gnu_tar_are_read_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "d".repeat(99), "f".repeat(150));
    let files: [(&str, &[u8]); 3] = [("a", b"content"), ("empty", b""), (&long, b"long")];
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    std::os::unix::fs::symlink("a", folder.path().join("s")).unwrap();
    let holes = std::fs::File::create(folder.path().join("holes")).unwrap();
    // More parts than fit into the header.
    let mut with_holes = vec![0; 8 << 20];
    for part in 0..40_usize {
        let at = part * 200_000;
        std::os::unix::fs::FileExt::write_all_at(&holes, b"data", at as u64).unwrap();
        with_holes[at..at + 4].copy_from_slice(b"data");
    }
    holes.set_len(8 << 20).unwrap();
    for format in ["gnu", "pax", "oldgnu"] {
        for options in [&["--sparse", "--sparse-version=0.0"][..], &[]] {
            let Some(archive) = gnu_tar(folder.path(), format, options) else { return };
            let is_refused = format == "pax" && !options.is_empty();
            let found = read_all(&archive, NO_LIMIT);
            if is_refused {
                let problem = found.unwrap_err().to_string();
                assert!(problem.contains("without `--sparse`"), "{problem}");
                continue;
            }
            let found = found.unwrap();
            let content = |name: &str| {
                let is_it = |(member, _): &&(Member, Vec<u8>)| member.path == name.as_bytes();
                &found.iter().find(is_it).unwrap_or_else(|| panic!("{format}: {name}")).1
            };
            for (name, expected) in files {
                assert_eq!(content(&format!("./{name}")), expected, "{format}: {name}");
            }
            assert!(*content("./holes") == with_holes, "{format} {options:?}");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the test compares with the program")]
fn gnu_tar(folder: &Path, format: &str, options: &[&str]) -> Option<Vec<u8>> {
    let output = Command::new("tar")
        .arg(format!("--format={format}"))
        .args(options)
        .arg("-C")
        .arg(folder)
        .args(["-c", "."])
        .output()
        .ok()?;
    output.status.success().then_some(output.stdout)
}

proptest! {
    /// Whatever the bytes, reading ends, and takes no more memory than there are bytes.
    #[test]
    fn no_bytes_make_it_panic(damage in prop::collection::vec((0_usize..6000, any::<u8>()), 0..6), fix in any::<bool>()) {
        let mut archive = [
            plain(b'x', b"x", b"10 uid=77\n21 SCHILY.xattr.a=bc\n"),
            plain(b'0', b"a", &[1; 700]),
            plain(b'L', b"x", b"a-long-name\0"),
            block(b'S', b"sparse", b"data", |header| {
                header[386..398].copy_from_slice(b"00000000012\0");
                header[398..410].copy_from_slice(b"00000000004\0");
                header[483..495].copy_from_slice(b"00000000100\0");
            }),
            plain(b'5', b"d/", b""),
        ].concat();
        let headers = [0, 1024, 2560, 3584, 4608];
        prop_assert_eq!(read_all(&archive, NO_LIMIT).unwrap().len(), 3);
        for (at, byte) in damage {
            let at = at % archive.len();
            archive[at] = byte;
            if fix {
                for header in headers {
                    let header = &mut archive[header..header + 512];
                    header[148..156].fill(b' ');
                    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
                    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                }
            }
        }
        let mut reading = Archive::new(&archive[..], 1 << 20);
        while let Ok(Some(_)) = reading.next() {
            let mut content = [0; 64];
            let _ = reading.read(&mut content);
        }
    }
}
