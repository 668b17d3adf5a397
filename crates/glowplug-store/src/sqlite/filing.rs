//! Which bodies go into files, and the threads on which their files come and go.

use std::sync::Arc;

use glowplug_core::RequestId;
use tokio::sync::oneshot;

use super::bodies::{Bodies, Placed};
use super::failure::{Failure, Fault};
use super::lane::Lane;
use super::stored_body::NewBody;
use super::{SqliteStore, whole, worker};
use crate::records::{Completion, QueuedRequest};
use crate::store::Result;

/// What a body is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// New work, for which there must be room.
    Payload,
    /// The end of work, which frees more than it takes.
    Answer,
}

/// Removes files from wherever a write ends, without blocking there.
#[derive(Clone)]
pub(super) struct Remover {
    bodies: Arc<Bodies>,
    files: Arc<Lane<worker::Task>>,
}

impl Remover {
    /// What finds no place in the queue is left for a sweep.
    pub(super) fn remove(&self, files: Vec<String>) {
        if files.is_empty() {
            return;
        }
        let bodies = Arc::clone(&self.bodies);
        if !self.files.try_send(Box::new(move || bodies.discard(files))) {
            self.bodies.expect_orphans();
        }
    }

    /// Ends the uncertainty about files, now that the outcome of their write is known.
    pub(super) fn settle<T>(
        &self,
        placed: Placed,
        outcome: &Result<T, Failure>,
        is_kept: impl FnOnce(&T) -> bool,
    ) {
        match outcome {
            Ok(done) if is_kept(done) => drop(placed.settled()),
            Ok(_) | Err(Failure::Refused(_)) => self.remove(placed.settled()),
            Err(_) => drop(placed),
        }
    }
}

impl SqliteStore {
    pub(super) fn remover(&self) -> Remover {
        Remover { bodies: Arc::clone(&self.bodies), files: Arc::clone(&self.files) }
    }

    /// Takes the body out of a request and puts it where it belongs.
    pub(super) async fn place_payload(
        &self,
        operation: &'static str,
        request: &mut QueuedRequest,
    ) -> Result<(NewBody, Placed)> {
        let body = std::mem::take(&mut request.body);
        // What is not to be kept is never in the database, whose pages and log hold what was in them for
        // longer than its rows do: a file is gone when it is removed.
        let inline_bytes_max = if request.keep_payload { self.inline_bytes_max } else { 0 };
        // What is submitted again under the same key is compared by this.
        let hash = request.idempotency_key.as_ref().map(|_| blake3::hash(&body).into());
        let (body, placed) =
            self.place(operation, request.id, body, inline_bytes_max, Kind::Payload).await?;
        Ok((NewBody { hash: body.hash.or(hash), ..body }, placed))
    }

    /// Takes the body out of an answer and puts it where it belongs.
    pub(super) async fn place_answer(
        &self,
        operation: &'static str,
        id: RequestId,
        completion: &mut Completion,
    ) -> Result<(NewBody, Placed)> {
        let body = std::mem::take(&mut completion.response.body);
        self.place(operation, id, body, self.inline_bytes_max, Kind::Answer).await
    }

    /// Looks for files that no row names, if a transaction failed since it was last done.
    pub(super) async fn sweep_if_needed(&self) {
        if !self.bodies.take_orphans() {
            return;
        }
        let bodies = Arc::clone(&self.bodies);
        let swept = self.read("look for bodies without a request", move |conn| {
            bodies.sweep(|id, file| whole::names_file(conn, id, file))
        });
        if let Err(error) = swept.await {
            tracing::warn!("{error}");
            self.bodies.expect_orphans();
        }
    }

    async fn place(
        &self,
        operation: &'static str,
        id: RequestId,
        body: Vec<u8>,
        inline_bytes_max: usize,
        kind: Kind,
    ) -> Result<(NewBody, Placed)> {
        if body.len() <= inline_bytes_max {
            return Ok((NewBody::in_row(body), Placed::nothing(&self.bodies)));
        }
        let (reply, answer) = oneshot::channel();
        let (bodies, disk) = (Arc::clone(&self.bodies), Arc::clone(&self.disk));
        let task = move || {
            let placed = match kind {
                Kind::Payload => disk.check_now(operation).map_err(Failure::from),
                Kind::Answer => Ok(()),
            }
            .and_then(|()| write(&bodies, id, &body));
            if let Err(Ok((_, placed))) = reply.send(placed) {
                // The caller went away.
                bodies.discard(placed.settled());
            }
        };
        let sent = self.files.send(Box::new(task)).await;
        self.answer(operation, sent, answer).await
    }
}

fn write(bodies: &Arc<Bodies>, id: RequestId, body: &[u8]) -> Result<(NewBody, Placed), Failure> {
    bodies.place(id, body).map_err(|error| Fault::of_file(bodies.folder(), &error).into())
}
