//! Threads that do what blocks and is not SQLite's: writing, syncing and removing the files of bodies.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::lane::{Alive, Message};

/// Bodies that are written side by side. Disks sync several files in little more time than one.
pub(super) const WORKERS: usize = 4;
/// Bodies that may wait to be written before their callers do. They are in memory meanwhile.
pub(super) const QUEUE_MAX: usize = 64;

/// Answers its caller by itself.
pub(super) type Task = Box<dyn FnOnce() + Send>;

pub(super) type Queue = Arc<Mutex<mpsc::Receiver<Message<Task>>>>;

/// Works until it is told to stop, or nobody is left to ask.
pub(super) fn work(queue: &Queue, alive: Alive) {
    while let Some(Message::Job(task)) = next(queue) {
        task();
    }
    drop(alive);
}

/// One idle thread waits here for a task with the lock held, the others wait for the lock.
fn next(queue: &Queue) -> Option<Message<Task>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv()
}
