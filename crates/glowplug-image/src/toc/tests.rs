use std::io::Write as _;

use super::place;
use super::*;
use crate::layer::unpack::Limits;
use crate::source::{Compression, LayerDescriptor};

const LAYER_BYTES: u64 = 1_000;
const SHA: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn zstd_table(entries: &str) -> Result<Toc, Error> {
    let table = format!(r#"{{"version":1,"entries":[{}]}}"#, entries.replace("SHA", SHA));
    read(table.as_bytes(), Format::ZstdChunked, LAYER_BYTES, &Limits::default(), &Budget::default())
}

fn estargz_table(entries: &str) -> Result<Toc, Error> {
    let table = format!(r#"{{"version":1,"entries":[{}]}}"#, entries.replace("SHA", SHA));
    read(table.as_bytes(), Format::Estargz, LAYER_BYTES, &Limits::default(), &Budget::default())
}

/// The offset and length of each chunk, and where it is in the layer.
type Chunks = Vec<(u64, u64, Option<Range<u64>>)>;

fn files(toc: &Toc) -> Vec<(&str, u64, Chunks)> {
    let chunk = |chunk: &Chunk| {
        let range = match &chunk.data {
            ChunkData::Zeros => None,
            ChunkData::Stored { range, .. } => Some(range.clone()),
        };
        (chunk.offset, chunk.bytes, range)
    };
    toc.entries
        .iter()
        .filter_map(|entry| match &entry.kind {
            TocKind::File(file) => Some((
                std::str::from_utf8(&entry.path).unwrap(),
                file.bytes,
                file.chunks.iter().map(chunk).collect(),
            )),
            _ => None,
        })
        .collect()
}

#[test]
fn a_file_is_one_chunk_or_several() {
    let toc = zstd_table(
        r#"{"type":"reg","name":"./a","size":10,"digest":"SHA","offset":100,"endOffset":150,"modtime":"1970-01-01T00:00:01.5Z","mode":33261},
           {"type":"reg","name":"b","size":60,"digest":"SHA","offset":200,"endOffset":400,"chunkSize":20,"chunkDigest":"SHA"},
           {"type":"chunk","name":"b","offset":250,"chunkOffset":20,"chunkSize":30,"chunkType":"zeros","chunkDigest":"SHA"},
           {"type":"chunk","name":"b","offset":260,"chunkOffset":50,"chunkSize":10,"chunkDigest":"SHA"},
           {"type":"reg","name":"empty"}"#,
    )
    .unwrap();
    assert_eq!(
        files(&toc),
        [
            ("a", 10, vec![(0, 10, Some(100..150))]),
            ("b", 60, vec![(0, 20, Some(200..250)), (20, 30, None), (50, 10, Some(260..400))]),
            ("empty", 0, vec![]),
        ]
    );
    assert_eq!(toc.entries[0].meta.modified, (1, 500_000_000));
    assert_eq!(toc.entries[0].meta.mode, 0o755);
}

#[test]
fn in_estargz_a_stream_ends_where_the_next_begins() {
    let toc = estargz_table(
        r#"{"type":"reg","name":"b","size":60,"digest":"SHA","offset":300,"chunkSize":20,"chunkDigest":"SHA"},
           {"type":"chunk","name":"b","offset":350,"chunkOffset":20,"chunkDigest":"SHA"},
           {"type":"reg","name":"a","size":10,"digest":"SHA","offset":100,"chunkDigest":"SHA"},
           {"type":"reg","name":".prefetch.landmark","size":1,"digest":"SHA","offset":200}"#,
    )
    .unwrap();
    let expected: [(&str, u64, Chunks); 3] = [
        ("b", 60, vec![(0, 20, Some(300..350)), (20, 40, Some(350..LAYER_BYTES))]),
        ("a", 10, vec![(0, 10, Some(100..200))]),
        (".prefetch.landmark", 1, vec![(0, 1, Some(200..300))]),
    ];
    assert_eq!(files(&toc), expected);
    assert_eq!(toc.first_use_bytes, Some(200));
}

#[test]
fn everything_but_files_is_as_in_archives() {
    let toc = zstd_table(
        r#"{"type":"dir","name":"d/","mode":16877,"uid":1,"gid":2,"xattrs":{"user.a":"eQ==","trusted.overlay.opaque":"eQ=="}},
           {"type":"symlink","name":"d/s","linkName":"../x"},
           {"type":"hardlink","name":"d/h","linkName":"./d/f"},
           {"type":"fifo","name":"p"},
           {"type":"reg","name":"d/.wh.gone"},
           {"type":"reg","name":"d/.wh..wh..opq"},
           {"type":"char","name":"gone"},
           {"type":"reg","name":".wh..wh.aufs"}"#,
    )
    .unwrap();
    let kinds: Vec<_> = toc.entries.iter().map(|entry| (&*entry.path, &entry.kind)).collect();
    let expected: [(&[u8], &TocKind); 7] = [
        (b"d", &TocKind::Directory),
        (b"d/s", &TocKind::Symlink { target: b"../x".to_vec() }),
        (b"d/h", &TocKind::HardLink { target: b"d/f".to_vec() }),
        (b"p", &TocKind::Special(Special::Fifo)),
        (b"d/gone", &TocKind::Whiteout),
        (b"d", &TocKind::OpaqueDirectory),
        (b"gone", &TocKind::Whiteout),
    ];
    assert_eq!(kinds, expected);
    let meta = &toc.entries[0].meta;
    assert_eq!((meta.mode, meta.uid, meta.gid), (0o755, 1, 2));
    assert_eq!(meta.xattrs, [(b"user.a".to_vec(), b"y".to_vec())]);
}

#[test]
fn hostile_tables_are_refused() {
    let reg = r#""type":"reg","name":"a","digest":"SHA""#;
    let cases = [
        (r#"{"type":"dir","name":"../x"}"#.to_owned(), "leads out of the image"),
        (r#"{"type":"hardlink","name":"a","linkName":"../x"}"#.to_owned(), "leads out"),
        (r#"{"type":"symlink","name":"a"}"#.to_owned(), "leads out"),
        (r#"{"type":"char","name":"a","devMajor":1}"#.to_owned(), "is a device"),
        (r#"{"type":"block","name":"a"}"#.to_owned(), "is a device"),
        (r#"{"type":"door","name":"a"}"#.to_owned(), "unknown kind"),
        (r#"{"type":"reg","name":"a","size":1,"endOffset":9}"#.to_owned(), "without a digest"),
        (format!(r#"{{{reg},"size":1,"offset":9,"endOffset":9}}"#), "not within the layer"),
        (format!(r#"{{{reg},"size":1,"offset":9,"endOffset":8}}"#), "not within the layer"),
        (format!(r#"{{{reg},"size":1,"offset":9,"endOffset":1001}}"#), "not within the layer"),
        (format!(r#"{{{reg},"size":9,"offset":9,"endOffset":10,"chunkSize":10}}"#), "do not make"),
        (format!(r#"{{{reg},"size":9,"offset":9,"endOffset":10,"chunkSize":8}}"#), "do not make"),
        (format!(r#"{{{reg},"size":9,"offset":9,"endOffset":10,"chunkOffset":1}}"#), "do not make"),
        (
            format!(r#"{{{reg},"size":9,"offset":9,"endOffset":10,"chunkType":"x"}}"#),
            "of an unknown kind",
        ),
        (format!(r#"{{{reg},"size":9,"offset":9,"innerOffset":1}}"#), "shares a compressed stream"),
        (format!(r#"{{{reg},"size":{}}}"#, u64::MAX), "at most"),
        (r#"{"type":"reg","name":"a","size":1,"digest":"x"}"#.to_owned(), "digest that is malf"),
        (r#"{"type":"chunk","name":"a"}"#.to_owned(), "does not follow its file"),
        (
            format!(
                r#"{{{reg},"size":1,"offset":9,"endOffset":10}},{{"type":"chunk","name":"b","offset":10}}"#
            ),
            "does not follow its file",
        ),
        (
            format!(
                r#"{{{reg},"size":1,"offset":9,"endOffset":20}},{{"type":"reg","name":"b","digest":"SHA","size":1,"offset":19,"endOffset":30}}"#
            ),
            "overlap at byte 19",
        ),
        (r#"{"type":"reg","name":"a","modtime":"soon"}"#.to_owned(), "time that is malformed"),
        (r#"{"type":"reg","name":"a","xattrs":{"user.a":"?"}}"#.to_owned(), "not base64"),
        (r#"{"type":"reg"}"#.to_owned(), "missing field `name`"),
        ("}".to_owned(), "cannot be read"),
    ];
    for (entries, expected) in cases {
        let error = zstd_table(&entries).unwrap_err().to_string();
        assert!(error.contains(expected), "{entries}: {error}");
    }
    let error = read(
        br#"{"version":2,"entries":[]}"#,
        Format::Estargz,
        1,
        &Limits::default(),
        &Budget::default(),
    );
    assert!(error.unwrap_err().to_string().contains("version is not known"));
    let few = Limits { entries_max: 1, ..Limits::default() };
    let two = br#"{"version":1,"entries":[{"type":"dir","name":"a"},{"type":"dir","name":"b"}]}"#;
    let error = read(two, Format::Estargz, 1, &few, &Budget::default()).unwrap_err();
    assert!(matches!(error, Error::TooMany { limit: 1, .. }), "{error:?}");
}

fn layer(compression: Compression, notes: &[(&str, &str)]) -> LayerDescriptor {
    LayerDescriptor {
        digest: SHA.parse().unwrap(),
        bytes: LAYER_BYTES,
        compression,
        annotations: notes.iter().map(|&(name, value)| (name.into(), value.into())).collect(),
    }
}

#[test]
fn a_table_counts_only_with_its_digest() {
    const POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
    const DIGEST: &str = "io.github.containers.zstd-chunked.manifest-checksum";
    const ESTARGZ: &str = "containerd.io/snapshot/stargz/toc.digest";
    let old = |name: &str| name.replace("github.", "");
    let expected =
        Place::ZstdChunked { range: 900..950, inflated_bytes: 70, digest: SHA.parse().unwrap() };
    for (position, digest) in [(POSITION.into(), DIGEST.into()), (old(POSITION), old(DIGEST))] {
        let layer = layer(Compression::Zstd, &[(&position, "900:50:70:1"), (&digest, SHA)]);
        assert_eq!(Place::of(&layer).unwrap(), Some(expected.clone()));
    }
    let estargz = layer(Compression::Gzip, &[(ESTARGZ, SHA)]);
    let digest = SHA.parse().unwrap();
    assert_eq!(Place::of(&estargz).unwrap(), Some(Place::Estargz { digest }));
    let without = [
        layer(Compression::Zstd, &[]),
        layer(Compression::Zstd, &[(POSITION, "900:50:70:1")]),
        layer(Compression::Gzip, &[(POSITION, "900:50:70:1"), (DIGEST, SHA)]),
        layer(Compression::None, &[(ESTARGZ, SHA)]),
    ];
    for layer in without {
        assert_eq!(Place::of(&layer).unwrap(), None, "{layer:?}");
    }
    let too_far = ["", "1:2", "900:101:7:1", "900:50:70:2", "900:50:70:1:1", "-1:5:7:1"];
    for value in too_far {
        let layer = layer(Compression::Zstd, &[(POSITION, value), (DIGEST, SHA)]);
        assert!(matches!(Place::of(&layer), Err(Error::Annotation { .. })), "{value}");
    }
    let bomb = format!("0:10:{}:1", u64::MAX);
    let bomb = layer(Compression::Zstd, &[(POSITION, &bomb), (DIGEST, SHA)]);
    assert!(matches!(Place::of(&bomb), Err(Error::TooLong { .. })));
}

#[test]
fn only_the_table_of_the_digest_is_opened() {
    let table = br#"{"version":1,"entries":[]}"#;
    let stored = zstd::encode_all(&table[..], 3).unwrap();
    let place = |bytes: usize, digest| Place::ZstdChunked {
        range: 0..stored.len() as u64,
        inflated_bytes: bytes as u64,
        digest,
    };
    let good = place(table.len(), Digest::of(&stored));
    assert_eq!(place::open(&good, &stored, &Budget::default()).unwrap(), table);
    let error =
        place::open(&place(table.len(), Digest::of(b"")), &stored, &Budget::default()).unwrap_err();
    assert!(matches!(error, Error::WrongDigest));
    for bytes in [table.len() - 1, table.len() + 1] {
        let error = place::open(&place(bytes, Digest::of(&stored)), &stored, &Budget::default())
            .unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{bytes}");
    }
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(table.len() as u64);
    archive.append_data(&mut header, "stargz.index.json", &table[..]).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive.into_inner().unwrap()).unwrap();
    let stored = gzip.finish().unwrap();
    let place = Place::Estargz { digest: Digest::of(table) };
    assert_eq!(place::open(&place, &stored, &Budget::default()).unwrap(), table);
    let place = Place::Estargz { digest: Digest::of(b"") };
    assert!(matches!(place::open(&place, &stored, &Budget::default()), Err(Error::WrongDigest)));
}

#[test]
fn the_footer_says_where_the_table_is() {
    let footer = |text: &str| {
        let mut footer = vec![0; 16];
        footer.extend(text.as_bytes());
        footer.resize(51, 0);
        footer
    };
    let good = footer("0000000000000100STARGZ");
    assert_eq!(place::estargz_table(&good, 1_000).unwrap(), 256..949);
    for text in ["0000000000000400STARGZ", "+000000000000100STARGZ", "0000000000000100STARGX", ""] {
        assert!(
            matches!(place::estargz_table(&footer(text), 1_000), Err(Error::NoFooter)),
            "{text}"
        );
    }
    assert!(place::estargz_table(&good[..20], 1_000).is_err());
}

#[test]
fn the_tables_of_an_image_share_one_budget() {
    let table = br#"{"version":1,"entries":[{"type":"reg","name":"a","size":3,"offset":0,
        "digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}]}"#;
    let read = |budget: &Budget| {
        read(table, Format::Estargz, 10, &Limits::default(), budget).map_err(|e| e.to_string())
    };
    let too_many =
        |of| format!("the tables of contents of the image's layers have more than 2 {of} together");
    for (budget, of) in [(Budget::new(0, 2, 9), "files"), (Budget::new(0, 9, 2), "chunks")] {
        assert!(read(&budget).is_ok() && read(&budget).is_ok());
        assert_eq!(read(&budget), Err(too_many(of)));
    }
    let budget = Budget::new(2, 0, 0);
    assert!(budget.take_bytes(1).is_ok());
    let plain = zstd::encode_all(&b"{}"[..], 0).unwrap();
    let place = Place::ZstdChunked {
        range: 0..plain.len() as u64,
        inflated_bytes: 2,
        digest: Digest::of(&plain),
    };
    let opened = place::open(&place, &plain, &budget).map_err(|error| error.to_string());
    assert_eq!(opened, Err(too_many("bytes")));
    assert_eq!(place::open(&place, &plain, &Budget::default()).unwrap(), b"{}");
}
