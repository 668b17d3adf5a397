//! Where a layer's table of contents is, by its annotations and its footer.

use std::io::Read;
use std::ops::Range;

use super::{Budget, Error, TABLE_BYTES_MAX, TABLE_INFLATED_BYTES_MAX};
use crate::digest::Digest;
use crate::layer::archive::Archive;
use crate::source::{Compression, LayerDescriptor};

/// Older writers left `github` out.
const ZSTD_POSITION: [&str; 2] = [
    "io.github.containers.zstd-chunked.manifest-position",
    "io.containers.zstd-chunked.manifest-position",
];
const ZSTD_DIGEST: [&str; 2] = [
    "io.github.containers.zstd-chunked.manifest-checksum",
    "io.containers.zstd-chunked.manifest-checksum",
];
/// The only kind of table that there is.
const ZSTD_KIND: u64 = 1;
const ESTARGZ_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
const ESTARGZ_TABLE: &[u8] = b"stargz.index.json";
/// An empty gzip member with an extra field.
pub(super) const ESTARGZ_FOOTER_BYTES: u64 = 51;
/// After the member's header and the head of the extra field.
const ESTARGZ_OFFSET: Range<usize> = 16..32;
const ESTARGZ_MAGIC: &[u8] = b"STARGZ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    ZstdChunked,
    Estargz,
}

/// Of a table that can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    ZstdChunked {
        /// In the layer, compressed.
        range: Range<u64>,
        inflated_bytes: u64,
        /// Of the compressed table.
        digest: Digest,
    },
    /// The footer says where the table is.
    Estargz {
        /// Of the plain table.
        digest: Digest,
    },
}

impl Place {
    /// `None`: the layer has no table, or none that can be trusted.
    pub fn of(layer: &LayerDescriptor) -> Result<Option<Self>, Error> {
        let note = |names: &[&'static str]| {
            let found = |name: &&'static str| Some((*name, layer.annotations.get(*name)?));
            names.iter().find_map(found)
        };
        if layer.compression == Compression::Gzip {
            let Some((name, value)) = note(&[ESTARGZ_DIGEST]) else { return Ok(None) };
            return Ok(Some(Self::Estargz { digest: digest(name, value)? }));
        }
        if layer.compression != Compression::Zstd {
            return Ok(None);
        }
        let (Some(position), Some((name, value))) = (note(&ZSTD_POSITION), note(&ZSTD_DIGEST))
        else {
            return Ok(None);
        };
        let digest = digest(name, value)?;
        let (name, value) = position;
        let malformed = || Error::Annotation { name, value: value.clone() };
        let (range, inflated_bytes) = position_of(value, layer.bytes).ok_or_else(malformed)?;
        check_length(range.end - range.start, TABLE_BYTES_MAX)?;
        check_length(inflated_bytes, TABLE_INFLATED_BYTES_MAX)?;
        Ok(Some(Self::ZstdChunked { range, inflated_bytes, digest }))
    }

    pub const fn format(&self) -> Format {
        match self {
            Self::ZstdChunked { .. } => Format::ZstdChunked,
            Self::Estargz { .. } => Format::Estargz,
        }
    }
}

fn digest(name: &'static str, value: &str) -> Result<Digest, Error> {
    value.parse().map_err(|_| Error::Annotation { name, value: value.to_owned() })
}

/// `offset:length:inflated length:kind`.
fn position_of(value: &str, layer_bytes: u64) -> Option<(Range<u64>, u64)> {
    let numbers: Vec<u64> = value.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let &[offset, bytes, inflated_bytes, ZSTD_KIND] = numbers.as_slice() else { return None };
    let end = offset.checked_add(bytes).filter(|end| *end <= layer_bytes)?;
    Some((offset..end, inflated_bytes))
}

pub(super) fn check_length(bytes: u64, limit: u64) -> Result<(), Error> {
    if bytes > limit { Err(Error::TooLong { bytes, limit }) } else { Ok(()) }
}

/// Where in the layer the archive member begins that is the table, compressed as a gzip member of its own.
pub(super) fn estargz_table(footer: &[u8], layer_bytes: u64) -> Result<Range<u64>, Error> {
    let offset = || {
        let magic = footer.get(ESTARGZ_OFFSET.end..ESTARGZ_OFFSET.end + ESTARGZ_MAGIC.len())?;
        let digits = std::str::from_utf8(footer.get(ESTARGZ_OFFSET)?).ok()?;
        // A sign would be taken for part of a number.
        let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        (magic == ESTARGZ_MAGIC && is_number).then_some(())?;
        u64::from_str_radix(digits, 16).ok()
    };
    let end = layer_bytes.saturating_sub(ESTARGZ_FOOTER_BYTES);
    let offset = offset().filter(|offset| *offset < end).ok_or(Error::NoFooter)?;
    check_length(end - offset, TABLE_BYTES_MAX)?;
    Ok(offset..end)
}

/// The plain table, verified.
pub(super) fn open(place: &Place, stored: &[u8], budget: &Budget) -> Result<Vec<u8>, Error> {
    match place {
        Place::ZstdChunked { inflated_bytes, digest, .. } => {
            if Digest::of(stored) != *digest {
                return Err(Error::WrongDigest);
            }
            budget.take_bytes(*inflated_bytes)?;
            let decoder = zstd::Decoder::with_buffer(stored).map_err(malformed)?;
            inflate(decoder, *inflated_bytes)
        }
        Place::Estargz { digest } => {
            let inflater = flate2::bufread::GzDecoder::new(stored);
            let mut archive = Archive::new(inflater, TABLE_INFLATED_BYTES_MAX);
            let member = archive.next().map_err(malformed)?.ok_or(Error::NoFooter)?;
            if member.path != ESTARGZ_TABLE {
                return Err(Error::NoFooter);
            }
            check_length(member.bytes, TABLE_INFLATED_BYTES_MAX)?;
            budget.take_bytes(member.bytes)?;
            let table = inflate(&mut archive, member.bytes)?;
            if Digest::of(&table) == *digest { Ok(table) } else { Err(Error::WrongDigest) }
        }
    }
}

/// Never more than was announced.
fn inflate(from: impl Read, bytes: u64) -> Result<Vec<u8>, Error> {
    let mut table = Vec::new();
    from.take(bytes.saturating_add(1)).read_to_end(&mut table).map_err(malformed)?;
    if table.len() as u64 == bytes {
        return Ok(table);
    }
    Err(Error::Malformed { problem: "it has another length than was announced".to_owned() })
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn malformed(error: std::io::Error) -> Error {
    Error::Malformed { problem: error.to_string() }
}
