//! Threads that own database connections and work off one bounded queue.
//!
//! SQLite blocks, so it is kept off the async threads. Waiting for a place in the queue and for the
//! answer is async and needs no particular runtime. A lane that is closed or dropped first does all
//! that it was sent.

use std::thread::JoinHandle;
use std::{io, thread};

use tokio::sync::{mpsc, watch};

pub(super) enum Message<J> {
    Job(J),
    /// The thread that gets this ends.
    Close,
}

pub(super) struct Lane<J> {
    /// Present until the lane is dropped.
    jobs: Option<mpsc::Sender<Message<J>>>,
    /// Every thread holds a receiver, so this closes when the last of them has ended.
    alive: watch::Sender<()>,
    threads: Vec<JoinHandle<()>>,
}

/// The lane was closed, or its threads have died.
pub(super) struct Closed;

/// What a thread holds as long as it has a connection open.
pub(super) type Alive = watch::Receiver<()>;

impl<J: Send + 'static> Lane<J> {
    /// A lane without threads, and the end of its queue from which they are to take their jobs.
    pub(super) fn new(queue_max: usize) -> (Self, mpsc::Receiver<Message<J>>) {
        let (jobs, queue) = mpsc::channel(queue_max);
        let (alive, _) = watch::channel(());
        (Self { jobs: Some(jobs), alive, threads: Vec::new() }, queue)
    }

    pub(super) fn start(
        &mut self,
        name: &str,
        work: impl FnOnce(Alive) + Send + 'static,
    ) -> io::Result<()> {
        let alive = self.alive.subscribe();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(alive))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Waits while the queue is full.
    pub(super) async fn send(&self, job: J) -> Result<(), Closed> {
        self.deliver(Message::Job(job)).await
    }

    /// Does not wait. Says whether there was a place in the queue.
    pub(super) fn try_send(&self, job: J) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(Message::Job(job)).is_ok())
    }

    /// Returns when everything sent before is done and every connection is closed. Jobs that come
    /// later are dropped. May be called again.
    pub(super) async fn close(&self) {
        for _ in &self.threads {
            if self.deliver(Message::Close).await.is_err() {
                break;
            }
        }
        self.alive.closed().await;
    }

    async fn deliver(&self, message: Message<J>) -> Result<(), Closed> {
        let jobs = self.jobs.as_ref().ok_or(Closed)?;
        jobs.send(message).await.map_err(|_| Closed)
    }
}

impl<J> Drop for Lane<J> {
    fn drop(&mut self) {
        // Without a sender the queue ends once it is empty, and with it the threads.
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the database has panicked");
            }
        }
    }
}
