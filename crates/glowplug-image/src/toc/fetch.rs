//! Brings a layer's table of contents.

use std::sync::Arc;

use futures::TryStreamExt;

use super::place::{self, ESTARGZ_FOOTER_BYTES, Place};
use super::{Budget, Error, FIRST_USE_BYTES, TABLE_BYTES_MAX, Toc, read};
use crate::layer::unpack::Limits;
use crate::source::{LayerDescriptor, Source};

/// Read with the footer at first: small tables need no second request.
const TAIL_BYTES: u64 = 256 << 10;

/// `None`: the layer has no table, or none that can be trusted.
pub async fn fetch(
    source: &dyn Source,
    layer: &LayerDescriptor,
    limits: &Limits,
    budget: &Arc<Budget>,
) -> Result<Option<Toc>, Error> {
    let Some(place) = Place::of(layer)? else { return Ok(None) };
    let stored = match &place {
        Place::ZstdChunked { range, .. } => part(source, layer, range.start, range.end).await?,
        Place::Estargz { .. } => estargz(source, layer).await?,
    };
    let (layer, limits, budget) = (layer.clone(), *limits, Arc::clone(budget));
    // Large tables take a while.
    let reading = tokio::task::spawn_blocking(move || {
        let table = place::open(&place, &stored, &budget)?;
        let mut toc = read(&table, place.format(), layer.bytes, &limits, &budget)?;
        if let Some(value) = layer.annotations.get(FIRST_USE_BYTES) {
            let bytes = value.parse::<u64>().ok().filter(|bytes| *bytes <= layer.bytes);
            let malformed = || Error::Annotation { name: FIRST_USE_BYTES, value: value.clone() };
            toc.first_use_bytes = Some(bytes.ok_or_else(malformed)?);
        }
        Ok(Some(toc))
    });
    reading.await.unwrap_or_else(|_| {
        Err(Error::Malformed { problem: "its reader ended without a word".to_owned() })
    })
}

async fn estargz(source: &dyn Source, layer: &LayerDescriptor) -> Result<Vec<u8>, Error> {
    let tail_start = layer.bytes.saturating_sub(TAIL_BYTES);
    let mut tail = part(source, layer, tail_start, layer.bytes).await?;
    let footer_bytes = usize::try_from(ESTARGZ_FOOTER_BYTES).unwrap_or(usize::MAX);
    let footer = tail.len().checked_sub(footer_bytes).ok_or(Error::NoFooter)?;
    let range = place::estargz_table(&tail[footer..], layer.bytes)?;
    tail.truncate(footer);
    if range.start < tail_start {
        let mut table = part(source, layer, range.start, tail_start).await?;
        table.extend(tail);
        return Ok(table);
    }
    let skipped = usize::try_from(range.start - tail_start).unwrap_or(usize::MAX);
    Ok(tail.split_off(skipped.min(tail.len())))
}

async fn part(
    source: &dyn Source,
    layer: &LayerDescriptor,
    from: u64,
    to: u64,
) -> Result<Vec<u8>, Error> {
    place::check_length(to - from, TABLE_BYTES_MAX + TAIL_BYTES)?;
    let mut chunks = source.range(layer, from..to).await?;
    let mut part = Vec::new();
    while let Some(chunk) = chunks.try_next().await? {
        part.extend(chunk);
    }
    if part.len() as u64 == to - from {
        return Ok(part);
    }
    let problem = "the connection ended too early".to_owned();
    Err(crate::source::Error::Unreachable { name: source.name(), problem }.into())
}
