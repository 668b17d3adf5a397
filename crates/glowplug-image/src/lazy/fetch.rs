//! Brings runs of chunks from a source, as often as it takes.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::inflate::inflate;
use super::plan::{ChunkId, Chunks};
use super::{Error, Patience, Result};
use crate::pull::flow::{CHUNKS_MAX, Flow, Part};
use crate::pull::pace::Pace;
use crate::source::{self, LayerDescriptor, Source};

/// Of one image at once. Each has at most [`CHUNKS_MAX`] parts of the network in memory, a few megabytes.
const FETCHES_MAX: usize = 6;
/// Between two tries at most.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// What lies between two chunks is read along rather than asked around.
pub(super) const GAP_BYTES_MAX: u64 = 64 << 10;

pub(super) struct Fetcher {
    pub(super) source: Arc<dyn Source>,
    pub(super) layers: Vec<LayerDescriptor>,
    pub(super) chunks: Arc<Chunks>,
    pub(super) cache: Arc<File>,
    pub(super) patience: Patience,
    pace: Arc<Pace>,
    places: Semaphore,
}

impl Fetcher {
    pub(super) fn new(
        source: Arc<dyn Source>,
        layers: Vec<LayerDescriptor>,
        chunks: Arc<Chunks>,
        cache: Arc<File>,
        patience: Patience,
        pace: Arc<Pace>,
    ) -> Self {
        let places = Semaphore::new(FETCHES_MAX);
        Self { source, layers, chunks, cache, patience, pace, places }
    }

    /// Brings chunks of one layer, which are in the order of their bytes, with one request.
    pub(super) async fn fetch(
        &self,
        ids: Vec<ChunkId>,
        arrived: impl FnMut(ChunkId) + Send + 'static,
    ) -> Result<()> {
        let (Some(&first), Some(&last)) = (ids.first(), ids.last()) else { return Ok(()) };
        let _place = self.places.acquire().await.expect("the places are never closed");
        let range = self.chunks.chunk(first).range.start..self.chunks.chunk(last).range.end;
        let layer = &self.layers[self.chunks.chunk(first).layer as usize];
        let (sender, bytes) = Flow::new(CHUNKS_MAX);
        let (chunks, cache) = (Arc::clone(&self.chunks), Arc::clone(&self.cache));
        let compression = layer.compression;
        let inflating = tokio::task::spawn_blocking(move || {
            inflate(&chunks, &ids, compression, bytes, &cache, arrived)
        });
        let downloaded = self.download(layer, range.start, range.end, sender).await;
        let inflated = inflating.await.unwrap_or_else(|_| {
            Err(Error::Filler { problem: "the work on a chunk ended without a word".to_owned() })
        });
        // A stage that fails makes the other one fail.
        downloaded.and(inflated)
    }

    async fn download(
        &self,
        layer: &LayerDescriptor,
        mut at: u64,
        end: u64,
        parts: mpsc::Sender<Part>,
    ) -> Result<()> {
        let mut pause = self.patience.retry_pause;
        let mut last_byte = Instant::now();
        loop {
            let before = at;
            let problem = match self.some(layer, &mut at, end, &parts).await {
                Ok(()) if at == end || parts.is_closed() => break,
                Ok(()) => "the connection ended too early".to_owned(),
                Err(error) if error.is_temporary() => error.to_string(),
                Err(error) => return Err(error.into()),
            };
            if at > before {
                (pause, last_byte) = (self.patience.retry_pause, Instant::now());
            }
            let away = last_byte.elapsed();
            if away >= self.patience.away_max {
                return Err(Error::Away { name: self.source.name(), away, problem });
            }
            tokio::time::sleep(pause).await;
            pause = RETRY_PAUSE_MAX.min(pause * 2);
        }
        // Who does not listen any more has its own error to tell.
        let _ = parts.send(Part::End).await;
        Ok(())
    }

    async fn some(
        &self,
        layer: &LayerDescriptor,
        at: &mut u64,
        end: u64,
        parts: &mpsc::Sender<Part>,
    ) -> Result<(), source::Error> {
        let mut stream = self.source.range(layer, *at..end).await?;
        while let Some(bytes) = stream.try_next().await? {
            let bytes: Bytes = bytes;
            *at += bytes.len() as u64;
            self.pace.take(bytes.len()).await;
            if parts.send(Part::Bytes(bytes)).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Cuts chunks, in order, into runs of one layer with small gaps, each of at most `bytes_max` or one chunk.
pub(super) fn runs(chunks: &Chunks, ids: &[ChunkId], bytes_max: u64) -> Vec<Vec<ChunkId>> {
    let mut runs: Vec<Vec<ChunkId>> = Vec::new();
    for &id in ids {
        let chunk = chunks.chunk(id);
        let joins = runs.last().is_some_and(|run| {
            let (first, last) = (chunks.chunk(run[0]), chunks.chunk(run[run.len() - 1]));
            last.layer == chunk.layer
                && chunk.range.start - last.range.end <= GAP_BYTES_MAX
                && chunk.range.end - first.range.start <= bytes_max
        });
        match runs.last_mut() {
            Some(run) if joins => run.push(id),
            _ => runs.push(vec![id]),
        }
    }
    runs
}
