//! The writing side: one thread, one connection, and a commit shared by all writes that wait.
//!
//! ```text
//! wait for a write ─ take all others that wait, up to GROUP_WRITES_MAX
//!   └ BEGIN ─ each write in a savepoint of its own ─ COMMIT (fsync) ─ answer every caller
//! ```
//!
//! While one group is being synced to the disk the next gathers, so groups grow with the load and
//! nothing ever waits for company. A write that is refused rolls back to its savepoint and leaves the
//! others alone. When the transaction itself cannot be finished, every write of the group fails and
//! none has happened.

use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::disk::Disk;
use super::failure::{Failure, Fault};
use super::lane::{Alive, Message};
use crate::crash::crash_point;

/// Writes in one transaction. Beyond this the share of the sync in each write is next to nothing, and
/// the first of the group would only wait longer for the last.
pub(super) const GROUP_WRITES_MAX: usize = 256;

/// A write and whoever waits for it.
pub(super) trait Write: Send {
    /// Makes its changes within the transaction of the group, all or none. Fails only if the group
    /// must.
    fn apply(&mut self, conn: &Connection) -> Result<(), Fault>;
    /// Tells the caller, now that the fate of the transaction is known.
    fn settle(self: Box<Self>, fate: &Result<(), Fault>);
}

struct Waiting<F, A, T> {
    /// Present until it is applied.
    run: Option<F>,
    /// What is done with the outcome when it is known, whether or not the caller still waits.
    after: A,
    outcome: Option<Result<T, Failure>>,
    reply: oneshot::Sender<Result<T, Failure>>,
}

pub(super) fn write<T: Send + 'static>(
    run: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    after: impl FnOnce(&mut Result<T, Failure>) + Send + 'static,
    reply: oneshot::Sender<Result<T, Failure>>,
) -> Box<dyn Write> {
    Box::new(Waiting { run: Some(run), after, outcome: None, reply })
}

impl<F, A, T> Write for Waiting<F, A, T>
where
    F: FnOnce(&Connection) -> Result<T, Failure> + Send,
    A: FnOnce(&mut Result<T, Failure>) + Send,
    T: Send,
{
    fn apply(&mut self, conn: &Connection) -> Result<(), Fault> {
        if let Some(run) = self.run.take() {
            self.outcome = Some(in_savepoint(conn, run)?);
        }
        Ok(())
    }

    fn settle(self: Box<Self>, fate: &Result<(), Fault>) {
        let mut answer = match (fate, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            // Even a refusal may rest on changes that did not come to be.
            (Err(fault), _) => Err(Failure::Fault(fault.clone())),
            (Ok(()), None) => {
                unreachable!("a group commits only after all its writes were applied")
            }
        };
        (self.after)(&mut answer);
        // The caller may have stopped waiting, which is its right.
        drop(self.reply.send(answer));
    }
}

/// The inner result is the write's own, the outer that of the transaction around it.
fn in_savepoint<T>(
    conn: &Connection,
    run: impl FnOnce(&Connection) -> Result<T, Failure>,
) -> Result<Result<T, Failure>, Fault> {
    conn.prepare_cached("SAVEPOINT one_write")?.execute([])?;
    let outcome = match run(conn) {
        Err(Failure::Fault(fault)) => Err(Failure::Fault(fault.explained(conn))),
        outcome => outcome,
    };
    // After some faults SQLite has rolled back the whole transaction by itself.
    if conn.is_autocommit() {
        return Err(match outcome {
            Err(Failure::Fault(fault)) => fault,
            _ => Fault::Passing("the transaction was rolled back".to_owned()),
        });
    }
    if outcome.is_err() {
        conn.prepare_cached("ROLLBACK TO one_write")?.execute([])?;
    }
    conn.prepare_cached("RELEASE one_write")?.execute([])?;
    Ok(outcome)
}

/// Works until it is told to stop, or nobody is left to ask. `commits` counts the transactions that
/// went through.
pub(super) fn work(
    conn: Connection,
    mut queue: mpsc::Receiver<Message<Box<dyn Write>>>,
    disk: &Disk,
    commits: &AtomicU64,
    alive: Alive,
) {
    let mut messages = Vec::with_capacity(GROUP_WRITES_MAX);
    let mut group = Vec::with_capacity(GROUP_WRITES_MAX);
    let mut is_closing = false;
    while !is_closing && queue.blocking_recv_many(&mut messages, GROUP_WRITES_MAX) > 0 {
        for message in messages.drain(..) {
            match message {
                Message::Job(write) if !is_closing => group.push(write),
                // Dropped, which tells its caller.
                Message::Job(_) => {}
                Message::Close => is_closing = true,
            }
        }
        disk.changed();
        commit(&conn, &mut group, commits);
    }
    // The last connection to close moves the write-ahead log into the database and removes it.
    if let Err((_, error)) = conn.close() {
        tracing::warn!(%error, "the database could not be closed cleanly");
    }
    drop(alive);
}

/// Leaves the group empty.
fn commit(conn: &Connection, group: &mut Vec<Box<dyn Write>>, commits: &AtomicU64) {
    if group.is_empty() {
        return;
    }
    let fate = in_one_transaction(conn, group).map_err(|fault| fault.explained(conn));
    if fate.is_ok() {
        commits.fetch_add(1, Ordering::Relaxed);
    } else if !conn.is_autocommit()
        && let Err(error) = conn.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "a failed transaction could not be rolled back");
    }
    if matches!(fate, Err(Fault::Full(_))) {
        give_back_log(conn);
    }
    for write in group.drain(..) {
        write.settle(&fate);
    }
}

/// On a full disk the write-ahead log may have the very room that the next group needs. Moves it into the
/// database, as far as that has room, and cuts it.
fn give_back_log(conn: &Connection) {
    let moved = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = moved {
        tracing::debug!(%error, "the write-ahead log could not be moved into the database");
    }
}

fn in_one_transaction(conn: &Connection, group: &mut [Box<dyn Write>]) -> Result<(), Fault> {
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    for write in group {
        write.apply(conn)?;
    }
    crash_point("store.group.applied");
    conn.prepare_cached("COMMIT")?.execute([])?;
    crash_point("store.group.committed");
    Ok(())
}
