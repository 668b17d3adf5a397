//! Layers of images that have tables of contents, in both formats.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const KIND_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const KIND_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
const CHECKSUM: &str = "io.github.containers.zstd-chunked.manifest-checksum";
const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// What a file is cut into.
pub const CHUNK_BYTES: usize = 100_000;
const ZEROS_BYTES_MIN: usize = 1024;
const ALL_MODIFIED: u64 = 1_700_000_000;
const ALL_MODIFIED_TEXT: &str = "2023-11-14T22:13:20Z";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFormat {
    ZstdChunked,
    Estargz,
}

/// A layer as a registry keeps it, and what its manifest says of it.
#[derive(Clone, Debug)]
pub struct TableLayer {
    pub kind: &'static str,
    pub bytes: Vec<u8>,
    pub annotations: BTreeMap<String, String>,
}

impl TableLayer {
    /// A layer of these files; a name that ends in a slash is a folder, one with `->` a symbolic link, one with
    /// `=` a hard link. All may be run, and belong to root.
    pub fn new(format: TableFormat, files: &[(&str, &[u8])]) -> Self {
        let mut writer =
            Writer { format, out: Vec::new(), pending: Vec::new(), entries: Vec::new() };
        for (name, content) in files {
            writer.member(name, content);
        }
        writer.finish()
    }
}

fn digest(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Such a chunk is told of without a digest, as Buildah does.
fn is_zeros(chunk: &[u8]) -> bool {
    chunk.len() >= ZEROS_BYTES_MIN && chunk.iter().all(|byte| *byte == 0)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes all")
}

struct Writer {
    format: TableFormat,
    out: Vec<u8>,
    /// Plain bytes that go into the next stream that is no file's.
    pending: Vec<u8>,
    entries: Vec<Value>,
}

impl Writer {
    fn member(&mut self, name: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(ALL_MODIFIED);
        header.set_mode(0o755);
        let mut entry = json!({"mode": 0o755, "uid": 0, "gid": 0, "modtime": ALL_MODIFIED_TEXT});
        let (name, kind) = match (name.split_once("->"), name.split_once('=')) {
            (Some((name, target)), _) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_link_name(target).expect("memory takes all, and the names are short");
                entry["linkName"] = json!(target);
                (name, "symlink")
            }
            (_, Some((name, target))) => {
                header.set_entry_type(tar::EntryType::Link);
                header.set_link_name(target).expect("memory takes all, and the names are short");
                entry["linkName"] = json!(target);
                (name, "hardlink")
            }
            _ if name.ends_with('/') => {
                header.set_entry_type(tar::EntryType::Directory);
                (name, "dir")
            }
            _ => (name, "reg"),
        };
        header.set_path(name).expect("memory takes all, and the names are short");
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.pending.extend(header.as_bytes());
        entry["type"] = json!(kind);
        entry["name"] = json!(name);
        if kind == "reg" && !content.is_empty() {
            self.content(name, content, entry);
        } else {
            self.entries.push(entry);
        }
    }

    fn content(&mut self, name: &str, content: &[u8], mut entry: Value) {
        self.flush();
        entry["size"] = json!(content.len());
        entry["digest"] = json!(digest(content));
        let first = self.entries.len();
        for (number, chunk) in (0..).zip(content.chunks(CHUNK_BYTES)) {
            let mut entry =
                if number == 0 { entry.clone() } else { json!({"type": "chunk", "name": name}) };
            entry["offset"] = json!(self.out.len());
            entry["chunkOffset"] = json!(number * CHUNK_BYTES);
            let is_last = (number + 1) * CHUNK_BYTES >= content.len();
            let is_open = is_last && self.format == TableFormat::Estargz;
            entry["chunkSize"] = json!(if is_open { 0 } else { chunk.len() });
            if self.format == TableFormat::ZstdChunked && is_zeros(chunk) {
                entry["chunkType"] = json!("zeros");
            } else {
                entry["chunkDigest"] = json!(digest(chunk));
            }
            self.stream(chunk);
            self.entries.push(entry);
        }
        if self.format == TableFormat::ZstdChunked {
            self.entries[first]["endOffset"] = json!(self.out.len());
        }
        self.pending.resize(content.len().next_multiple_of(512) - content.len(), 0);
    }

    fn flush(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.stream(&pending);
    }

    fn stream(&mut self, bytes: &[u8]) {
        let stream = match self.format {
            TableFormat::ZstdChunked => {
                zstd::encode_all(bytes, 3).expect("memory takes all, and the names are short")
            }
            TableFormat::Estargz => gzip(bytes),
        };
        self.out.extend(stream);
    }

    fn finish(mut self) -> TableLayer {
        let table = json!({"version": 1, "entries": self.entries}).to_string();
        match self.format {
            TableFormat::ZstdChunked => self.finish_zstd(&table),
            TableFormat::Estargz => self.finish_gzip(&table),
        }
    }

    fn finish_zstd(&mut self, table: &str) -> TableLayer {
        self.pending.resize(self.pending.len() + 1024, 0);
        self.flush();
        let stored = zstd::encode_all(table.as_bytes(), 3)
            .expect("memory takes all, and the names are short");
        self.out.extend(SKIPPABLE);
        self.out.extend(
            u32::try_from(stored.len())
                .expect("memory takes all, and the names are short")
                .to_le_bytes(),
        );
        let position = format!("{}:{}:{}:1", self.out.len(), stored.len(), table.len());
        let checksum = digest(&stored);
        self.out.extend(stored);
        let annotations = [(POSITION, position), (CHECKSUM, checksum)];
        self.layer(KIND_ZSTD, annotations)
    }

    fn finish_gzip(&mut self, table: &str) -> TableLayer {
        self.flush();
        let offset = self.out.len();
        let mut header = tar::Header::new_gnu();
        header.set_path("stargz.index.json").expect("memory takes all, and the names are short");
        header.set_size(table.len() as u64);
        header.set_mode(0o444);
        header.set_cksum();
        self.pending.extend(header.as_bytes());
        self.pending.extend(table.as_bytes());
        self.pending.resize(self.pending.len().next_multiple_of(512) + 1024, 0);
        self.flush();
        let mut extra = b"SG\x16\0".to_vec();
        extra.extend(format!("{offset:016x}STARGZ").into_bytes());
        let footer = flate2::GzBuilder::new().extra(extra);
        let footer = footer
            .write(Vec::new(), flate2::Compression::none())
            .finish()
            .expect("memory takes all, and the names are short");
        assert_eq!(footer.len(), 51);
        self.out.extend(footer);
        self.layer(KIND_GZIP, [(TOC_DIGEST, digest(table.as_bytes()))])
    }

    fn layer(
        &mut self,
        kind: &'static str,
        annotations: impl IntoIterator<Item = (&'static str, String)>,
    ) -> TableLayer {
        let annotations = annotations.into_iter().map(|(name, value)| (name.to_owned(), value));
        let bytes = std::mem::take(&mut self.out);
        TableLayer { kind, bytes, annotations: annotations.collect() }
    }
}
