//! One layer: downloaded, verified, inflated, unpacked.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::flow::{BLOCK_BYTES, BLOCKS_MAX, CHUNKS_MAX, Flow, Part};
use super::{Error, Inner, ProgressSender, TRIES_MAX};
use crate::digest::Digest;
use crate::layer::unpack::{self, Unpacked, unpack};
use crate::source::{Compression, LayerDescriptor, Source};
use crate::store::{self, NewLayer};

/// Pulls the layer into the store.
pub(super) async fn pull(
    inner: Arc<Inner>,
    source: Arc<dyn Source>,
    layer: LayerDescriptor,
    progress: ProgressSender,
) -> Result<(), Error> {
    let _place = inner.places.acquire().await.expect("the places are never closed");
    let (chunks, compressed) = Flow::new(CHUNKS_MAX);
    let (blocks, archive) = Flow::new(BLOCKS_MAX);
    let compression = layer.compression;
    let inflating = tokio::task::spawn_blocking(move || inflate(compression, compressed, &blocks));
    let (store, digest, limits) = (inner.store.clone(), layer.digest.clone(), inner.options.limits);
    let unpacking =
        tokio::task::spawn_blocking(move || store_archive(&store, &digest, archive, &limits));
    let download = Download { inner: &inner, source: &*source, layer: &layer, progress: &progress };
    let downloaded = download.run(chunks).await;

    // A stage that fails makes its neighbours fail, so the cause is looked for from the network on.
    let lost = || Error::Lost { layer: layer.digest.clone() };
    let inflated = inflating.await.map_err(|_| lost())?;
    let unpacked = unpacking.await.map_err(|_| lost())?;
    let not_unpacked = |error: unpack::Error| Error::Unpack {
        image: source.name(),
        layer: layer.digest.clone(),
        source: Arc::new(error),
    };
    let went = downloaded?;
    inflated.map_err(|error| not_unpacked(unpack::Error::Archive(error)))?;
    let (new, unpacked) = unpacked.map_err(|failure| match failure {
        Failure::Store(error) => Error::Store(Arc::new(error)),
        Failure::Unpack(error) => not_unpacked(error),
    })?;
    if went == Went::NobodyListened {
        return Err(lost());
    }
    let finishing = tokio::task::spawn_blocking(move || new.finish(&unpacked));
    finishing.await.map_err(|_| lost())?.map_err(|error| Error::Store(Arc::new(error)))
}

enum Failure {
    Store(store::Error),
    Unpack(unpack::Error),
}

fn store_archive(
    store: &store::Store,
    layer: &Digest,
    archive: Flow,
    limits: &unpack::Limits,
) -> Result<(NewLayer, Unpacked), Failure> {
    let mut new = store.new_layer(layer).map_err(Failure::Store)?;
    let unpacked = unpack(archive, &mut new.pins, &mut new.pack, limits);
    unpacked.map(|unpacked| (new, unpacked)).map_err(Failure::Unpack)
}

/// From one queue to the next, and to the end of both.
fn inflate(
    compression: Compression,
    mut compressed: Flow,
    blocks: &mpsc::Sender<Part>,
) -> io::Result<()> {
    match compression {
        Compression::None => pass_on(&mut compressed, blocks)?,
        Compression::Gzip => {
            pass_on(&mut flate2::read::MultiGzDecoder::new(&mut compressed), blocks)?;
        }
        Compression::Zstd => pass_on(&mut zstd::Decoder::new(&mut compressed)?, blocks)?,
    }
    // What a decoder does not need still belongs to the digest, which is checked at the end of the queue.
    io::copy(&mut compressed, &mut io::sink())?;
    let _ = blocks.blocking_send(Part::End);
    Ok(())
}

fn pass_on(from: &mut impl Read, blocks: &mpsc::Sender<Part>) -> io::Result<()> {
    loop {
        let mut block = BytesMut::zeroed(BLOCK_BYTES);
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            match from.read(&mut block[filled..])? {
                0 => break,
                bytes => filled += bytes,
            }
        }
        let is_last = filled < BLOCK_BYTES;
        block.truncate(filled);
        // A receiver that is gone has its own error to tell.
        if blocks.blocking_send(Part::Bytes(block.freeze())).is_err() || is_last {
            return Ok(());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Went {
    ToTheEnd,
    /// A later stage has failed, and has its own error to tell.
    NobodyListened,
}

struct Download<'a> {
    inner: &'a Inner,
    source: &'a dyn Source,
    layer: &'a LayerDescriptor,
    progress: &'a ProgressSender,
}

impl Download<'_> {
    /// Hands on all bytes of the layer, and their end only if they were the right ones.
    async fn run(&self, chunks: mpsc::Sender<Part>) -> Result<Went, Error> {
        let mut hasher = Sha256::new();
        let mut received = 0;
        let mut tries = 0;
        loop {
            let before = received;
            let broken = match self.some(&chunks, &mut hasher, &mut received).await {
                Ok(Went::NobodyListened) => return Ok(Went::NobodyListened),
                Ok(Went::ToTheEnd) if received == self.layer.bytes => break,
                Ok(Went::ToTheEnd) => None,
                Err(Error::Source(error)) if error.is_temporary() => Some(error.into()),
                Err(error) => return Err(error),
            };
            tries = if received > before { 1 } else { tries + 1 };
            if tries >= TRIES_MAX {
                return Err(broken.unwrap_or_else(|| self.wrong_size(received)));
            }
            self.inner.pause(tries).await;
        }
        let found = Digest::of_hash(hasher.finalize().into());
        if found != self.layer.digest {
            let (image, layer) = (self.source.name(), self.layer.digest.clone());
            return Err(Error::WrongDigest { image, layer, found });
        }
        let told = chunks.send(Part::End).await;
        Ok(if told.is_ok() { Went::ToTheEnd } else { Went::NobodyListened })
    }

    /// From the byte where the last try ended, as far as this one leads.
    async fn some(
        &self,
        chunks: &mpsc::Sender<Part>,
        hasher: &mut Sha256,
        received: &mut u64,
    ) -> Result<Went, Error> {
        let mut stream = self.source.layer(self.layer, *received).await?;
        while let Some(chunk) = stream.try_next().await? {
            self.inner.pace.take(chunk.len()).await;
            *received += chunk.len() as u64;
            if *received > self.layer.bytes {
                return Err(self.wrong_size(*received));
            }
            hasher.update(&chunk);
            self.progress.received(chunk.len());
            if hand_on(chunks, chunk).await == Went::NobodyListened {
                return Ok(Went::NobodyListened);
            }
        }
        Ok(Went::ToTheEnd)
    }

    fn wrong_size(&self, found: u64) -> Error {
        let (image, layer) = (self.source.name(), self.layer.digest.clone());
        Error::WrongSize { image, layer, bytes: self.layer.bytes, found }
    }
}

async fn hand_on(chunks: &mpsc::Sender<Part>, chunk: Bytes) -> Went {
    match chunks.send(Part::Bytes(chunk)).await {
        Ok(()) => Went::ToTheEnd,
        Err(_) => Went::NobodyListened,
    }
}
