//! The reading side: a few threads with a read-only connection each, sharing one queue.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::failure::Failure;
use super::lane::{Alive, Message};

/// Answers its caller by itself.
pub(super) type Read = Box<dyn FnOnce(&Connection) + Send>;

pub(super) type Queue = Arc<Mutex<mpsc::Receiver<Message<Read>>>>;

/// Makes a job of a question that may take more than one statement: all of them see the same moment.
pub(super) fn read<T: Send + 'static>(
    run: impl Fn(&Connection) -> Result<T, Failure> + Send + 'static,
    reply: oneshot::Sender<Result<T, Failure>>,
) -> Read {
    Box::new(move |conn| {
        if reply.is_closed() {
            return;
        }
        let in_snapshot = || match conn.unchecked_transaction() {
            Ok(snapshot) => run(&snapshot),
            Err(error) => Err(error.into()),
        };
        let mut answer = in_snapshot();
        if let Err(Failure::BodyMissing(_)) = answer {
            // A purge may have taken the file after the row was read. Then the row is gone by now.
            answer = in_snapshot();
        }
        // The caller may have stopped waiting, which is its right.
        drop(reply.send(answer));
    })
}

/// Works until it is told to stop, or nobody is left to ask.
pub(super) fn work(conn: Connection, queue: &Queue, alive: Alive) {
    while let Some(Message::Job(read)) = next(queue) {
        read(&conn);
    }
    drop(conn);
    drop(alive);
}

/// One idle thread waits here for a job with the lock held, the others wait for the lock.
fn next(queue: &Queue) -> Option<Message<Read>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv()
}
