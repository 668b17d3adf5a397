//! Reads a table, which is JSON of one form in both formats, into our own.
//!
//! Entries are converted while they are read, so that a table takes little more memory than what it says.

use std::collections::BTreeMap;
use std::ops::Range;

use base64::Engine;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use super::{Budget, CHUNKS_MAX, Chunk, ChunkData, Error, Format, Toc, TocEntry, TocFile, TocKind};
use crate::digest::Digest;
use crate::layer::EntryKind;
use crate::layer::archive::{Kind, Member};
use crate::layer::name::{self, Name};
use crate::layer::unpack::{self, Limits};

const VERSION: u64 = 1;
/// The file in an eStargz layer that follows those which are worth having first.
const LANDMARK: &[u8] = b".prefetch.landmark";

/// One entry as both formats write it. What is not needed is left out.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    #[serde(default)]
    link_name: String,
    #[serde(default)]
    mode: u64,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    uid: u64,
    #[serde(default)]
    gid: u64,
    #[serde(default)]
    modtime: Option<String>,
    #[serde(default)]
    dev_major: u32,
    #[serde(default)]
    dev_minor: u32,
    #[serde(default)]
    xattrs: Option<BTreeMap<String, String>>,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    end_offset: u64,
    #[serde(default)]
    inner_offset: u64,
    #[serde(default)]
    chunk_size: u64,
    #[serde(default)]
    chunk_offset: u64,
    #[serde(default)]
    chunk_digest: String,
    #[serde(default)]
    chunk_type: String,
}

/// Reads a plain table of a layer of `layer_bytes` and judges what it says.
pub fn read(
    table: &[u8],
    format: Format,
    layer_bytes: u64,
    limits: &Limits,
    budget: &Budget,
) -> Result<Toc, Error> {
    let mut reading = Reading {
        format,
        layer_bytes,
        limits,
        budget,
        entries: Vec::new(),
        open: None,
        bytes: 0,
        chunks: 0,
        landmark: None,
        error: None,
    };
    let mut json = serde_json::Deserializer::from_slice(table);
    let read = TableSeed(&mut reading).deserialize(&mut json).and_then(|()| json.end());
    if let Some(error) = reading.error.take() {
        return Err(error);
    }
    read.map_err(|error| Error::Malformed { problem: error.to_string() })?;
    reading.finish()
}

struct Reading<'l> {
    format: Format,
    layer_bytes: u64,
    limits: &'l Limits,
    budget: &'l Budget,
    entries: Vec<TocEntry>,
    /// The file whose chunks come now, always the last entry.
    open: Option<Open>,
    /// Of all files.
    bytes: u64,
    chunks: usize,
    landmark: Option<u64>,
    /// What serde has only a text for.
    error: Option<Error>,
}

/// A file as far as its chunks are known.
struct Open {
    name: String,
    end_offset: u64,
    /// Its length, if it has but one chunk that does not say so.
    parts: Vec<Part>,
}

/// A chunk whose end in the layer is not known yet.
struct Part {
    offset: u64,
    /// 0: up to the end of the file.
    bytes: u64,
    start: u64,
    digest: Option<Digest>,
    is_zeros: bool,
}

impl Reading<'_> {
    fn take(&mut self, wire: Wire) -> Result<(), Error> {
        if wire.kind == "chunk" {
            return self.take_chunk(&wire);
        }
        self.close()?;
        if self.entries.len() as u64 >= self.limits.entries_max {
            return Err(Error::TooMany { of: "files", limit: self.limits.entries_max });
        }
        self.budget.take_file()?;
        let member = member(&wire)?;
        let (path, kind) = match name::read(&member.path)? {
            Name::Plain(path) => {
                let kind = unpack::kind_without_content(&path, &member, self.limits.devices)?;
                (path, kind)
            }
            Name::Whiteout(victim) => (victim, Some(EntryKind::Whiteout)),
            Name::OpaqueDirectory(directory) => (directory, Some(EntryKind::OpaqueDirectory)),
            Name::Ignored => return Ok(()),
        };
        let malformed = |error: std::io::Error| Error::Malformed { problem: error.to_string() };
        let meta = unpack::meta(member).map_err(malformed)?;
        let kind = match kind {
            None => TocKind::File(self.begin(&path, wire)?),
            Some(EntryKind::Directory) => TocKind::Directory,
            Some(EntryKind::Symlink { target }) => TocKind::Symlink { target },
            Some(EntryKind::HardLink { target }) => TocKind::HardLink { target },
            Some(EntryKind::Special(special)) => TocKind::Special(special),
            Some(EntryKind::Whiteout) => TocKind::Whiteout,
            Some(EntryKind::OpaqueDirectory) => TocKind::OpaqueDirectory,
            Some(EntryKind::File(_)) => unreachable!("it is a kind without content"),
        };
        self.entries.push(TocEntry { path, meta, kind });
        Ok(())
    }

    fn begin(&mut self, path: &[u8], wire: Wire) -> Result<TocFile, Error> {
        let (bytes, limit) = (wire.size, self.limits.file_bytes_max);
        if bytes > limit {
            let path = String::from_utf8_lossy(path).into_owned();
            return Err(unpack::Error::FileTooLarge { path, bytes, limit }.into());
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.bytes_max {
            return Err(unpack::Error::TooLarge { limit: self.limits.bytes_max }.into());
        }
        let digest = digest(&wire.digest, &wire.name)?;
        if path == LANDMARK {
            self.landmark = Some(wire.offset);
        }
        if bytes > 0 {
            let mut part = self.part(&wire)?;
            part.digest = part.digest.or_else(|| digest.clone());
            let Wire { name, end_offset, .. } = wire;
            self.open = Some(Open { name, end_offset, parts: vec![part] });
        }
        Ok(TocFile { bytes, digest, chunks: Vec::new() })
    }

    fn take_chunk(&mut self, wire: &Wire) -> Result<(), Error> {
        let part = self.part(wire)?;
        match &mut self.open {
            Some(open) if open.name == wire.name => open.parts.push(part),
            _ => return Err(file(&wire.name, "has a chunk that does not follow its file")),
        }
        Ok(())
    }

    fn part(&mut self, wire: &Wire) -> Result<Part, Error> {
        self.chunks += 1;
        if self.chunks > CHUNKS_MAX {
            return Err(Error::TooMany { of: "chunks", limit: CHUNKS_MAX as u64 });
        }
        self.budget.take_chunk()?;
        if wire.inner_offset != 0 {
            return Err(file(&wire.name, "shares a compressed stream with others"));
        }
        let is_zeros = match wire.chunk_type.as_str() {
            "" => false,
            "zeros" => true,
            _ => return Err(file(&wire.name, "has a chunk of an unknown kind")),
        };
        Ok(Part {
            offset: wire.chunk_offset,
            bytes: wire.chunk_size,
            start: wire.offset,
            digest: digest(&wire.chunk_digest, &wire.name)?,
            is_zeros,
        })
    }

    /// The last file has all its chunks.
    fn close(&mut self) -> Result<(), Error> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let problem = |problem| file(&open.name, problem);
        let Some(TocEntry { kind: TocKind::File(toc_file), .. }) = self.entries.last_mut() else {
            unreachable!("the open file is the last entry")
        };
        let starts = open.parts.iter().skip(1).map(|part| part.start);
        // In eStargz nobody says where a file ends: the next stream's beginning is looked for at the end.
        let end = match self.format {
            Format::ZstdChunked => open.end_offset,
            Format::Estargz => 0,
        };
        let ends: Vec<u64> = starts.chain([end]).collect();
        let mut next = 0;
        for (part, end) in open.parts.into_iter().zip(ends) {
            let rest = toc_file.bytes - next;
            let bytes = if part.bytes == 0 { rest } else { part.bytes };
            if part.offset != next || bytes == 0 || bytes > rest {
                return Err(problem("has chunks that do not make up the file"));
            }
            next += bytes;
            let data = if part.is_zeros {
                ChunkData::Zeros
            } else {
                let digest = part.digest.ok_or_else(|| problem("has a chunk without a digest"))?;
                ChunkData::Stored { range: part.start..end, digest }
            };
            toc_file.chunks.push(Chunk { offset: part.offset, bytes, data });
        }
        if next != toc_file.bytes {
            return Err(problem("has chunks that do not make up the file"));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Toc, Error> {
        self.close()?;
        if self.format == Format::Estargz {
            self.find_ends();
        }
        self.check_ranges()?;
        let first_use_bytes = self.landmark.filter(|bytes| *bytes <= self.layer_bytes);
        Ok(Toc { entries: self.entries, first_use_bytes })
    }

    /// A stream ends at the latest where the next one begins.
    fn find_ends(&mut self) {
        let mut starts: Vec<u64> =
            ranges(&mut self.entries).map(|(_, range)| range.start).collect();
        starts.sort_unstable();
        let layer_bytes = self.layer_bytes;
        for (_, range) in ranges(&mut self.entries) {
            let next = starts.partition_point(|start| *start <= range.start);
            range.end = starts.get(next).copied().unwrap_or(layer_bytes);
        }
    }

    /// Streams lie within the layer and apart from each other.
    fn check_ranges(&mut self) -> Result<(), Error> {
        let layer_bytes = self.layer_bytes;
        let mut all = Vec::with_capacity(self.chunks);
        for (path, range) in ranges(&mut self.entries) {
            if range.is_empty() || range.end > layer_bytes {
                let path = String::from_utf8_lossy(path);
                return Err(file(&path, "has a chunk that is not within the layer"));
            }
            all.push((range.start, range.end));
        }
        all.sort_unstable();
        match all.windows(2).find(|pair| pair[0].1 > pair[1].0) {
            None => Ok(()),
            Some(pair) => {
                let problem = format!("two chunks overlap at byte {} of the layer", pair[1].0);
                Err(Error::Malformed { problem })
            }
        }
    }
}

fn ranges(entries: &mut [TocEntry]) -> impl Iterator<Item = (&[u8], &mut Range<u64>)> {
    entries.iter_mut().flat_map(|entry| {
        let chunks = match &mut entry.kind {
            TocKind::File(file) => file.chunks.as_mut_slice(),
            _ => &mut [],
        };
        let path = entry.path.as_slice();
        chunks.iter_mut().filter_map(move |chunk| match &mut chunk.data {
            ChunkData::Stored { range, .. } => Some((path, range)),
            ChunkData::Zeros => None,
        })
    })
}

/// In the form of a member of an archive, so that the same rules judge it.
fn member(wire: &Wire) -> Result<Member, Error> {
    let device = (wire.dev_major, wire.dev_minor);
    let kind = match wire.kind.as_str() {
        "reg" => Kind::File,
        "dir" => Kind::Directory,
        "symlink" => Kind::Symlink,
        "hardlink" => Kind::HardLink,
        "char" => Kind::CharacterDevice { major: device.0, minor: device.1 },
        "block" => Kind::BlockDevice { major: device.0, minor: device.1 },
        "fifo" => Kind::Fifo,
        _ => return Err(file(&wire.name, "is of an unknown kind")),
    };
    let mut xattrs = Vec::new();
    for (name, value) in wire.xattrs.iter().flatten() {
        let value = base64::engine::general_purpose::STANDARD.decode(value);
        let value = value.map_err(|_| file(&wire.name, "has an attribute that is not base64"))?;
        xattrs.push((name.clone().into_bytes(), value));
    }
    Ok(Member {
        path: wire.name.clone().into_bytes(),
        target: wire.link_name.clone().into_bytes(),
        kind,
        bytes: wire.size,
        // Some writers add the kind, in bits above.
        mode: u16::try_from(wire.mode & 0o7777).expect("it has 12 bits"),
        uid: wire.uid,
        gid: wire.gid,
        modified: modified(wire)?,
        xattrs,
    })
}

/// The first moment of the first year is how Go says that there is none.
fn modified(wire: &Wire) -> Result<(i64, u32), Error> {
    const NONE: &str = "0001-01-01T00:00:00Z";
    let Some(text) = wire.modtime.as_deref().filter(|text| !text.is_empty() && *text != NONE)
    else {
        return Ok((0, 0));
    };
    let time: jiff::Timestamp =
        text.parse().map_err(|_| file(&wire.name, "has a time that is malformed"))?;
    // Before the epoch the parts of a second count backwards.
    let nanoseconds = time.subsec_nanosecond();
    let (seconds, nanoseconds) = if nanoseconds < 0 {
        (time.as_second() - 1, nanoseconds + 1_000_000_000)
    } else {
        (time.as_second(), nanoseconds)
    };
    Ok((seconds, u32::try_from(nanoseconds).expect("it is less than a second")))
}

fn digest(text: &str, path: &str) -> Result<Option<Digest>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| file(path, "has a digest that is malformed"))
}

fn file(path: &str, problem: &'static str) -> Error {
    Error::File { path: path.to_owned(), problem }
}

/// The whole table: `{"version": 1, "entries": [...]}`.
struct TableSeed<'r, 'l>(&'r mut Reading<'l>);

impl<'de> DeserializeSeed<'de> for TableSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TableSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a table of contents")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut version = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "version" => version = Some(map.next_value::<u64>()?),
                "entries" => map.next_value_seed(EntriesSeed(self.0))?,
                _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
            }
        }
        if version == Some(VERSION) {
            return Ok(());
        }
        Err(A::Error::custom("its version is not known"))
    }
}

struct EntriesSeed<'r, 'l>(&'r mut Reading<'l>);

impl<'de> DeserializeSeed<'de> for EntriesSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for EntriesSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the entries of a table of contents")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(wire) = entries.next_element::<Wire>()? {
            if let Err(error) = self.0.take(wire) {
                let text = error.to_string();
                self.0.error = Some(error);
                return Err(A::Error::custom(text));
            }
        }
        Ok(())
    }
}
