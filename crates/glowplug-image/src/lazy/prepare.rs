//! Makes a late image: reads the tables, brings what comes first, writes the tree and the plan.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::BufWriter;
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{self, StreamExt, TryStreamExt};
use tempfile::TempDir;

use super::cache::SmallFiles;
use super::decide::{self, First, Why};
use super::fetch::{Fetcher, runs};
use super::plan::{Candidate, ChunkId, Chunks, Plan};
use super::{CACHE_FILE, Error, Options, Result, TREE_FILE, failed};
use crate::erofs;
use crate::layer::{Content, Entry, EntryKind, Slice};
use crate::pull::{ProgressSender, Puller};
use crate::source::{LayerDescriptor, Resolved, Source};
use crate::store::{LayerPacks, Store};
use crate::toc::{self, Toc, TocKind};
use crate::touched::Touched;
use crate::tree::{NodeId, NodeKind, Tree};

/// Tables read at once.
const TABLES_AT_ONCE: usize = 8;
/// Of the bytes that are not here, what layers without tables may have.
const TABLELESS_PERCENT_MAX: u64 = 50;
/// Brought with one request before the start.
const RUN_BYTES_MAX: u64 = 16 << 20;
const TREE_BUFFER_BYTES: usize = 1 << 20;

pub(super) struct Preparation<'a> {
    pub(super) puller: &'a Puller,
    pub(super) options: &'a Options,
    pub(super) source: &'a Arc<dyn Source>,
    pub(super) resolved: &'a Resolved,
    pub(super) touched: &'a Touched,
}

impl Preparation<'_> {
    /// A folder with everything but mounts.
    pub(super) async fn run(&self) -> Result<Result<TempDir, Why>> {
        let layers = &self.resolved.layers;
        let store = self.puller.store();
        let missing = layers.iter().filter(|layer| !store.has_layer(&layer.digest));
        let missing_bytes: u64 = missing.map(|layer| layer.bytes).sum();
        let image_bytes: u64 = layers.iter().map(|layer| layer.bytes).sum();
        if missing_bytes == 0 {
            return Ok(Err(Why::Here));
        }
        if missing_bytes < self.options.image_bytes_min {
            return Ok(Err(Why::Small));
        }
        let _pins = store.pin_layers(layers.iter().map(|layer| &layer.digest));
        let tables = self.tables().await?;
        let with_table = layers.iter().zip(&tables).filter(|(_, table)| table.is_some());
        let tableless = missing_bytes - with_table.map(|(layer, _)| layer.bytes).sum::<u64>();
        if tableless * 100 > missing_bytes * TABLELESS_PERCENT_MAX {
            return Ok(Err(Why::NoTable));
        }
        self.pull_the_others(&tables).await?;
        let (store, digests) = (store.clone(), layers.iter().map(|layer| layer.digest.clone()));
        let digests: Vec<_> = digests.collect();
        let first_use: Vec<_> =
            tables.iter().map(|table| table.as_ref().and_then(|toc| toc.first_use_bytes)).collect();
        let touched = self.touched.clone();
        let image = self.resolved.digest.clone();
        let laid_out = blocking(move || {
            let folder = store.new_late(&image, &digests)?;
            let skeleton = Skeleton::of(&store, &digests, tables)?;
            let first = decide::first(&skeleton.chunks, &skeleton.live, &touched, &first_use);
            Ok((folder, skeleton, first))
        });
        let (folder, skeleton, first) = laid_out.await?;
        let first_bytes = skeleton.chunks.stored_bytes(first.chunks.iter().copied());
        if decide::touches_much(first_bytes, image_bytes) {
            return Ok(Err(Why::TouchesMuch));
        }
        if skeleton.chunks.bytes() > self.puller.free_bytes()? {
            return Ok(Err(Why::NoRoom));
        }
        self.finish(folder, skeleton, first).await.map(Ok)
    }

    /// Of each layer that is not here and has one.
    async fn tables(&self) -> Result<Vec<Option<Toc>>> {
        let budget = Arc::default();
        let table = async |layer: &LayerDescriptor| {
            if self.puller.store().has_layer(&layer.digest) {
                return Ok(None);
            }
            let fetched = toc::fetch(&**self.source, layer, &self.options.limits, &budget).await;
            fetched.map_err(|source| Error::Toc { layer: layer.digest.clone(), source })
        };
        let tables: Vec<_> = self.resolved.layers.iter().map(table).collect();
        stream::iter(tables).buffered(TABLES_AT_ONCE).try_collect().await
    }

    async fn pull_the_others(&self, tables: &[Option<Toc>]) -> Result<()> {
        let layers = self.resolved.layers.iter().zip(tables);
        let others: Vec<_> =
            layers.filter(|(_, table)| table.is_none()).map(|(layer, _)| layer).collect();
        let progress = ProgressSender::none();
        let pulls: Vec<_> =
            others.iter().map(|layer| self.puller.layer(self.source, layer, &progress)).collect();
        futures::future::try_join_all(pulls).await?;
        Ok(())
    }

    async fn finish(&self, folder: TempDir, skeleton: Skeleton, first: First) -> Result<TempDir> {
        let path = folder.path().join(CACHE_FILE);
        let mut options = File::options();
        let cache = options.create_new(true).read(true).write(true).open(path);
        let cache = Arc::new(cache.map_err(failed("make the cache"))?);
        let chunks = Arc::new(skeleton.chunks);
        let fetcher = Fetcher::new(
            Arc::clone(self.source),
            self.resolved.layers.clone(),
            Arc::clone(&chunks),
            Arc::clone(&cache),
            self.options.patience,
            Arc::clone(self.puller.pace()),
        );
        let here = bring(&fetcher, &first.chunks).await?;
        drop(fetcher);
        let plan = Plan {
            name: self.source.name(),
            layers: self.resolved.layers.clone(),
            chunks: Arc::unwrap_or_clone(chunks),
            here,
        };
        let (mut tree, layers) = (skeleton.tree, skeleton.layers);
        blocking(move || {
            tree.replace_contents(|content| match content {
                Content::Late { number, bytes } if first.packed.contains(&number) => {
                    let offset = plan.chunks.files[number as usize].place;
                    let bytes = u32::try_from(bytes).expect("only small files are packed");
                    Content::Packed(Slice { offset, bytes })
                }
                other => other,
            });
            let path = folder.path().join(TREE_FILE);
            let file = File::create_new(path).map_err(failed("make the tree"))?;
            let out = BufWriter::with_capacity(TREE_BUFFER_BYTES, file);
            erofs::write(&tree, &SmallFiles { layers, cache }, out)
                .map_err(crate::store::Error::from)?;
            plan.write(folder.path()).map_err(failed("write the plan"))?;
            Ok(folder)
        })
        .await
    }
}

/// Brings chunks in large runs, side by side. All of them, or an error.
async fn bring(fetcher: &Fetcher, ids: &[ChunkId]) -> Result<Vec<ChunkId>> {
    let here = Arc::new(Mutex::new(Vec::with_capacity(ids.len())));
    let fetches = runs(&fetcher.chunks, ids, RUN_BYTES_MAX).into_iter().map(|run| {
        let here = Arc::clone(&here);
        let arrived = move |id| here.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        fetcher.fetch(run, arrived)
    });
    futures::future::try_join_all(fetches).await?;
    let mut here = std::mem::take(&mut *here.lock().unwrap_or_else(PoisonError::into_inner));
    here.sort_unstable();
    Ok(here)
}

/// All names of the image, and where the contents are that are not here.
struct Skeleton {
    tree: Tree,
    chunks: Chunks,
    /// Files that have a name.
    live: BTreeSet<u32>,
    layers: LayerPacks,
}

impl Skeleton {
    fn of(store: &Store, layers: &[crate::Digest], tables: Vec<Option<Toc>>) -> Result<Self> {
        let (mut tree, mut candidates, mut packs) =
            (Tree::default(), Vec::new(), LayerPacks::default());
        for (number, (layer, table)) in (0..).zip(layers.iter().zip(tables)) {
            let applied = if let Some(toc) = table {
                tree.apply(number, &entries(toc, number, &mut candidates))
            } else {
                let layer = store.layer(layer)?;
                let applied = tree.apply(number, &layer.entries);
                packs.insert(number, layer);
                applied
            };
            applied.map_err(crate::store::Error::from)?;
        }
        let paths = late_paths(&tree);
        for (number, path) in &paths {
            candidates[*number as usize].path.clone_from(path);
        }
        let live = paths.into_keys().collect();
        Ok(Self { tree, chunks: Chunks::new(candidates), live, layers: packs })
    }
}

/// In the form of an index of a layer; files are put with the candidates.
fn entries(toc: Toc, layer: u32, candidates: &mut Vec<Candidate>) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(toc.entries.len());
    for entry in toc.entries {
        let kind = match entry.kind {
            TocKind::Directory => EntryKind::Directory,
            TocKind::Symlink { target } => EntryKind::Symlink { target },
            TocKind::HardLink { target } => EntryKind::HardLink { target },
            TocKind::Special(special) => EntryKind::Special(special),
            TocKind::Whiteout => EntryKind::Whiteout,
            TocKind::OpaqueDirectory => EntryKind::OpaqueDirectory,
            TocKind::File(content) if content.bytes == 0 => EntryKind::File(Content::Empty),
            TocKind::File(content) => {
                let number = u32::try_from(candidates.len()).expect("tables have fewer entries");
                let bytes = content.bytes;
                let path = entry.path.clone();
                candidates.push(Candidate { entry: path.clone(), path, layer, content });
                EntryKind::File(Content::Late { number, bytes })
            }
        };
        entries.push(Entry { path: entry.path, meta: entry.meta, kind });
    }
    entries
}

/// Where in the tree each late file is that has a name; of several names the first.
fn late_paths(tree: &Tree) -> HashMap<u32, Vec<u8>> {
    let mut paths = HashMap::new();
    let mut folders = vec![(NodeId::ROOT, Vec::new())];
    while let Some((folder, path)) = folders.pop() {
        let NodeKind::Directory(children) = &tree.node(folder).kind else { continue };
        for (name, child) in children {
            let mut child_path = path.clone();
            if !child_path.is_empty() {
                child_path.push(b'/');
            }
            child_path.extend(name);
            match &tree.node(*child).kind {
                NodeKind::Directory(_) => folders.push((*child, child_path)),
                NodeKind::File(Content::Late { number, .. }) => {
                    paths.entry(*number).or_insert(child_path);
                }
                _ => {}
            }
        }
    }
    paths
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.expect("making a tree does not panic")
}
