//! Which chunks are here, and who brings the others: each is brought once, however many wait for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::local::Local;
use crate::lazy::fetch::{Fetcher, GAP_BYTES_MAX};
use crate::lazy::plan::{ChunkId, Chunks};
use crate::lazy::{Error, Result};

/// What is brought along behind a chunk that somebody waits for: files that are used together are neighbours.
const AHEAD_BYTES_MAX: u64 = 4 << 20;

pub(super) struct Fill {
    fetcher: Fetcher,
    local: Local,
    here: Vec<AtomicBool>,
    /// Chunks that are on their way.
    flights: Mutex<HashMap<ChunkId, Flight>>,
}

/// Changes whenever a chunk has arrived; holds the outcome at the end.
type Flight = watch::Receiver<Option<Result<()>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ahead {
    Neighbours,
    Nothing,
}

impl Fill {
    pub(super) fn new(fetcher: Fetcher, local: Local, here: &[ChunkId]) -> Self {
        let is_here: Vec<_> =
            (0..fetcher.chunks.stored.len()).map(|_| AtomicBool::new(false)).collect();
        for id in here {
            if let Some(is_here) = is_here.get(*id as usize) {
                is_here.store(true, Ordering::Release);
            }
        }
        Self { fetcher, local, here: is_here, flights: Mutex::default() }
    }

    pub(super) fn chunks(&self) -> &Chunks {
        &self.fetcher.chunks
    }

    pub(super) fn cache(&self) -> &std::fs::File {
        &self.fetcher.cache
    }

    pub(super) fn is_here(&self, id: ChunkId) -> bool {
        self.here[id as usize].load(Ordering::Acquire)
    }

    /// Brings the chunk, unless it is here.
    pub(super) async fn ensure(self: &Arc<Self>, id: ChunkId) -> Result<()> {
        // A neighbour's failure is not this chunk's: then it is tried alone.
        match self.join(id, Ahead::Neighbours).await {
            Err(Error::WrongBytes { .. }) => self.join(id, Ahead::Nothing).await,
            other => other,
        }
    }

    async fn join(self: &Arc<Self>, id: ChunkId, ahead: Ahead) -> Result<()> {
        let Some(mut flight) = self.flight(id, ahead) else { return Ok(()) };
        loop {
            let outcome = flight.borrow_and_update().clone();
            if self.is_here(id) {
                return Ok(());
            }
            match outcome {
                Some(Err(error)) => return Err(error),
                Some(Ok(())) => return Err(lost()),
                None => flight.changed().await.map_err(|_| lost())?,
            }
        }
    }

    /// `None`: it is here. Who is first takes the neighbours along.
    fn flight(self: &Arc<Self>, id: ChunkId, ahead: Ahead) -> Option<Flight> {
        let mut flights = self.flights();
        if self.is_here(id) {
            return None;
        }
        if let Some(flight) = flights.get(&id) {
            return Some(flight.clone());
        }
        let (progress, flight) = watch::channel(None);
        let run = self.run(&flights, id, ahead);
        flights.extend(run.iter().map(|id| (*id, flight.clone())));
        let fill = Arc::clone(self);
        tokio::spawn(async move {
            let outcome = fill.bring(run.clone(), &progress).await;
            let mut flights = fill.flights();
            for id in &run {
                flights.remove(id);
            }
            drop(flights);
            progress.send_replace(Some(outcome));
        });
        Some(flight)
    }

    /// The chunk, and what of its neighbours nobody brings yet.
    fn run(&self, flights: &HashMap<ChunkId, Flight>, id: ChunkId, ahead: Ahead) -> Vec<ChunkId> {
        let mut run = vec![id];
        if ahead == Ahead::Nothing {
            return run;
        }
        let chunks = self.chunks();
        let first = chunks.chunk(id);
        let mut end = first.range.end;
        for (next, chunk) in (id + 1..).zip(&chunks.stored[id as usize + 1..]) {
            let fits = chunk.layer == first.layer
                && chunk.range.start - end <= GAP_BYTES_MAX
                && chunk.range.end - first.range.start <= AHEAD_BYTES_MAX;
            if !fits || self.is_here(next) || flights.contains_key(&next) {
                break;
            }
            end = chunk.range.end;
            run.push(next);
        }
        run
    }

    async fn bring(
        self: &Arc<Self>,
        run: Vec<ChunkId>,
        progress: &watch::Sender<Option<Result<()>>>,
    ) -> Result<()> {
        let fill = Arc::clone(self);
        let copying = tokio::task::spawn_blocking(move || {
            let copied = |id: &ChunkId| fill.local.copy(fill.chunks(), *id, fill.cache());
            let (here, missing): (Vec<_>, Vec<_>) = run.into_iter().partition(copied);
            for id in here {
                fill.here[id as usize].store(true, Ordering::Release);
            }
            missing
        });
        let missing = copying.await.map_err(|_| lost())?;
        progress.send_replace(None);
        let (fill, progress) = (Arc::clone(self), progress.clone());
        let arrived = move |id: ChunkId| {
            fill.here[id as usize].store(true, Ordering::Release);
            progress.send_replace(None);
        };
        self.fetcher.fetch(missing, arrived).await
    }

    /// No code panics while it holds this lock.
    fn flights(&self) -> MutexGuard<'_, HashMap<ChunkId, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lost() -> Error {
    Error::Filler { problem: "the work on a chunk ended without a word".to_owned() }
}
