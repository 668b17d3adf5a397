//! The table of contents of a *zstd:chunked* layer, and the footer that says where it is.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::header;
use crate::digest::Digest;
use crate::layer::{Entry, EntryKind, Special};

/// Of a frame that readers of plain zstd skip.
pub(super) const SKIPPED_MAGIC: u32 = 0x184D_2A50;
/// At the end of the footer.
const FOOTER_MAGIC: &[u8; 8] = b"GNUlInUx";
const FOOTER_BYTES: usize = 64;
/// The only kind of table that there is.
pub(super) const KIND: u64 = 1;
const VERSION: u32 = 1;
/// What Go takes for a time.
const YEAR_MAX: i64 = 253_402_300_799;

/// A file's content as it lies in the layer.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    /// Of the whole content.
    pub(super) digest: Option<Digest>,
    pub(super) chunks: Vec<StoredChunk>,
    /// Where its last frame ends.
    pub(super) end: u64,
}

#[derive(Clone, Debug)]
pub(super) struct StoredChunk {
    /// In the file.
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// Where its frame begins.
    pub(super) start: u64,
    pub(super) digest: Digest,
}

#[derive(Serialize)]
struct Table<'e> {
    version: u32,
    entries: Vec<Row<'e>>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'e> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: std::borrow::Cow<'e, str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    link_name: String,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    modtime: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    end_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_digest: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// As JSON, or nothing where a name is not Unicode, which JSON cannot say: such a layer is a plain one.
pub(super) fn of(entries: &[Entry], stored: &[Stored]) -> Option<Vec<u8>> {
    let mut rows = Vec::with_capacity(entries.len());
    for (entry, stored) in entries.iter().zip(stored) {
        let name = String::from_utf8(header::name(entry)).ok()?;
        rows.push(row(entry, stored, name.clone())?);
        for chunk in stored.chunks.iter().skip(1) {
            rows.push(Row {
                kind: "chunk",
                name: name.clone().into(),
                offset: chunk.start,
                chunk_size: chunk.bytes,
                chunk_offset: chunk.offset,
                chunk_digest: Some(chunk.digest.to_string()),
                ..Row::default()
            });
        }
    }
    Some(
        serde_json::to_vec(&Table { version: VERSION, entries: rows })
            .expect("plain data has a form"),
    )
}

fn row<'e>(entry: &Entry, stored: &Stored, name: String) -> Option<Row<'e>> {
    let meta = &entry.meta;
    let mut row = Row {
        name: name.into(),
        mode: u64::from(meta.mode),
        uid: u64::from(meta.uid),
        gid: u64::from(meta.gid),
        modtime: Some(time(meta.modified)?),
        ..Row::default()
    };
    for (name, value) in &meta.xattrs {
        row.xattrs.insert(String::from_utf8(name.clone()).ok()?, STANDARD.encode(value));
    }
    row.kind = match &entry.kind {
        EntryKind::Directory => "dir",
        EntryKind::Whiteout | EntryKind::OpaqueDirectory => "reg",
        EntryKind::File(content) => {
            row.size = content.bytes();
            row.digest = stored.digest.as_ref().map(ToString::to_string);
            row.offset = stored.chunks.first().map_or(0, |chunk| chunk.start);
            row.end_offset = stored.end;
            if let [first, _, ..] = &stored.chunks[..] {
                row.chunk_size = first.bytes;
                row.chunk_digest = Some(first.digest.to_string());
            }
            "reg"
        }
        EntryKind::Symlink { target } => {
            row.link_name = String::from_utf8(target.clone()).ok()?;
            "symlink"
        }
        EntryKind::HardLink { target } => {
            row.link_name = String::from_utf8(target.clone()).ok()?;
            "hardlink"
        }
        EntryKind::Special(special) => {
            let (kind, major, minor) = match *special {
                Special::CharacterDevice { major, minor } => ("char", major, minor),
                Special::BlockDevice { major, minor } => ("block", major, minor),
                Special::Fifo | Special::Socket => ("fifo", 0, 0),
            };
            (row.dev_major, row.dev_minor) = (u64::from(major), u64::from(minor));
            kind
        }
    };
    Some(row)
}

/// RFC 3339; `None` for what it cannot say.
fn time((seconds, nanoseconds): (i64, u32)) -> Option<String> {
    if !(-62_135_596_800..=YEAR_MAX).contains(&seconds) {
        return None;
    }
    let nanoseconds = i32::try_from(nanoseconds).ok()?;
    jiff::Timestamp::new(seconds, nanoseconds).ok().map(|time| time.to_string())
}

/// A frame that readers of plain zstd skip; what it holds begins eight bytes in.
pub(super) fn skipped(content: &[u8]) -> Option<Vec<u8>> {
    let bytes = u32::try_from(content.len()).ok()?;
    Some([&SKIPPED_MAGIC.to_le_bytes()[..], &bytes.to_le_bytes(), content].concat())
}

/// Where the table is, for readers that have no manifest.
pub(super) fn footer(offset: u64, bytes: u64, plain_bytes: u64) -> Vec<u8> {
    // There is no record of how the archive was split, whose place the zeros are.
    let numbers = [offset, bytes, plain_bytes, KIND, 0, 0, 0];
    let mut footer = Vec::with_capacity(FOOTER_BYTES);
    for number in numbers {
        footer.extend(number.to_le_bytes());
    }
    footer.extend(FOOTER_MAGIC);
    footer
}
