//! The writing side: one thread, one connection, and a commit shared by all writes that wait.
//!
//! ```text
//! wait for a write ─ take all others that wait, up to GROUP_WRITES_MAX
//!   └ BEGIN ─ each write ─ COMMIT (fsync) ─ answer every caller
//! ```
//!
//! While one group is being synced to the disk the next gathers, so groups grow with the load and
//! nothing ever waits for company. A write refuses before it has changed anything, and leaves the others
//! alone. If one meets a fault, the group is rolled back and done again with each write in a savepoint of
//! its own, which costs more, so that the fault is its own as well. When the transaction itself cannot be
//! finished, every write of the group fails and none has happened.

use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::disk::Disk;
use super::failure::{Failure, Fault};
use super::lane::{Alive, Message};
use crate::crash::crash_point;

/// Writes in one transaction. Beyond this the share of the sync in each write is next to nothing, and
/// the first of the group would only wait longer for the last.
pub(super) const GROUP_WRITES_MAX: usize = 512;

/// A write and whoever waits for it.
pub(super) trait Write: Send {
    /// Makes its changes within the transaction of the group, all or none. Fails if the group must be
    /// rolled back. May be called once more after that.
    fn apply(&mut self, conn: &Connection, within: Within) -> Result<(), Fault>;
    /// Tells the caller, now that the fate of the transaction is known.
    fn settle(self: Box<Self>, fate: &Result<(), Fault>);
}

/// What keeps the changes of one write apart from those of the others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    /// Nothing: the group stands or falls together.
    Group,
    Savepoint,
}

struct Waiting<F, A, T> {
    run: F,
    /// What is done with the outcome when it is known, whether or not the caller still waits.
    after: A,
    outcome: Option<Result<T, Failure>>,
    reply: oneshot::Sender<Result<T, Failure>>,
}

pub(super) fn write<T: Send + 'static>(
    run: impl FnMut(&Connection) -> Result<T, Failure> + Send + 'static,
    after: impl FnOnce(&mut Result<T, Failure>) + Send + 'static,
    reply: oneshot::Sender<Result<T, Failure>>,
) -> Box<dyn Write> {
    Box::new(Waiting { run, after, outcome: None, reply })
}

impl<F, A, T> Write for Waiting<F, A, T>
where
    F: FnMut(&Connection) -> Result<T, Failure> + Send,
    A: FnOnce(&mut Result<T, Failure>) + Send,
    T: Send,
{
    fn apply(&mut self, conn: &Connection, within: Within) -> Result<(), Fault> {
        let outcome = match within {
            Within::Group => in_group(conn, &mut self.run)?,
            Within::Savepoint => in_savepoint(conn, &mut self.run)?,
        };
        self.outcome = Some(outcome);
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
fn in_group<T>(
    conn: &Connection,
    run: impl FnMut(&Connection) -> Result<T, Failure>,
) -> Result<Result<T, Failure>, Fault> {
    match in_transaction(conn, run)? {
        Err(Failure::Fault(fault)) => Err(fault),
        outcome => Ok(outcome),
    }
}

/// As [`in_group`], and a fault of the write is its own.
fn in_savepoint<T>(
    conn: &Connection,
    run: impl FnMut(&Connection) -> Result<T, Failure>,
) -> Result<Result<T, Failure>, Fault> {
    conn.prepare_cached("SAVEPOINT one_write")?.execute([])?;
    let outcome = in_transaction(conn, run)?;
    if outcome.is_err() {
        conn.prepare_cached("ROLLBACK TO one_write")?.execute([])?;
    }
    conn.prepare_cached("RELEASE one_write")?.execute([])?;
    Ok(outcome)
}

/// Fails if the transaction is gone: after some faults SQLite has rolled it back by itself.
fn in_transaction<T>(
    conn: &Connection,
    mut run: impl FnMut(&Connection) -> Result<T, Failure>,
) -> Result<Result<T, Failure>, Fault> {
    let outcome = match run(conn) {
        Err(Failure::Fault(fault)) => Err(Failure::Fault(fault.explained(conn))),
        outcome => outcome,
    };
    if conn.is_autocommit() {
        return Err(match outcome {
            Err(Failure::Fault(fault)) => fault,
            _ => Fault::Passing("the transaction was rolled back".to_owned()),
        });
    }
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
    let fate = apply_all(conn, group)
        .and_then(|()| Ok(conn.prepare_cached("COMMIT")?.execute([])?))
        .map_err(|fault| fault.explained(conn));
    match fate {
        Ok(_) => {
            crash_point("store.group.committed");
            commits.fetch_add(1, Ordering::Relaxed);
        }
        Err(_) => roll_back(conn),
    }
    let fate = fate.map(drop);
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

/// Leaves a transaction in which all writes are made, but for those that were refused or had a fault of
/// their own.
fn apply_all(conn: &Connection, group: &mut [Box<dyn Write>]) -> Result<(), Fault> {
    begin(conn)?;
    let mut fate = apply_each(conn, group, Within::Group);
    if let Err(fault) = &fate {
        roll_back(conn);
        if matches!(fault, Fault::Full(_)) {
            give_back_log(conn);
        }
        begin(conn)?;
        fate = apply_each(conn, group, Within::Savepoint);
    }
    crash_point("store.group.applied");
    fate
}

fn begin(conn: &Connection) -> Result<(), Fault> {
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    Ok(())
}

fn apply_each(
    conn: &Connection,
    group: &mut [Box<dyn Write>],
    within: Within,
) -> Result<(), Fault> {
    group.iter_mut().try_for_each(|write| write.apply(conn, within))
}

fn roll_back(conn: &Connection) {
    if !conn.is_autocommit()
        && let Err(error) = conn.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "a failed transaction could not be rolled back");
    }
}
