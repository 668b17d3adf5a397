//! The writing side: a few connections, and a commit shared by all writes that wait.
//!
//! ```text
//! wait for a write ─ take all others that wait, up to GROUP_WRITES_MAX and GROUP_BYTES_MAX
//!   └ BEGIN ─ all statements, without waiting for one to send the next ─ NOTIFY ─ COMMIT ─ answer
//! ```
//!
//! While one group is being synced to the disk of the server the next gathers, so groups grow with the
//! load and nothing ever waits for company. A write whose request is refused (a duplicate, say) has
//! changed nothing and leaves the others alone. When the server refuses a statement, the whole
//! transaction is undone; then each write of the group gets a transaction of its own, so that only the
//! one at fault fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use futures::future::{BoxFuture, join, join_all};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::columns::Db;
use super::failure::{Failure, Fault, Kind};
use super::notices::{Notices, Sender};
use crate::crash::crash_point;

/// Writes in one transaction. Beyond this the share of the sync in each write is next to nothing, and
/// the first of the group would only wait longer for the last.
pub(super) const GROUP_WRITES_MAX: usize = 256;
/// Bytes of bodies in one transaction; a single write may have more.
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How often a group is tried again that collided with another node's.
const COLLISIONS_MAX: u32 = 5;

/// The transaction of a group, as each write of it sees it.
pub(super) struct Group<'a> {
    pub(super) db: &'a Db,
    /// What the other nodes are told when the transaction is through.
    pub(super) notices: &'a Notices,
}

/// A write and whoever waits for it.
pub(super) trait Write: Send {
    fn bytes(&self) -> usize;
    /// Makes its changes within the transaction of the group, all or none. May be called again after the
    /// transaction was undone.
    fn apply<'a>(&'a mut self, group: &'a Group<'a>) -> BoxFuture<'a, Result<(), Fault>>;
    /// Tells the caller, now that the fate of the transaction is known.
    fn settle(self: Box<Self>, fate: &Result<(), Fault>);
}

/// What a write does, with what it was given.
pub(super) type Run<D, T> = for<'a> fn(&'a D, &'a Group<'a>) -> BoxFuture<'a, Result<T, Failure>>;

struct Waiting<D, T> {
    bytes: usize,
    given: D,
    run: Run<D, T>,
    outcome: Option<Result<T, Failure>>,
    reply: oneshot::Sender<Result<T, Failure>>,
}

pub(super) fn write<D: Send + Sync + 'static, T: Send + 'static>(
    bytes: usize,
    given: D,
    run: Run<D, T>,
    reply: oneshot::Sender<Result<T, Failure>>,
) -> Box<dyn Write> {
    Box::new(Waiting { bytes, given, run, outcome: None, reply })
}

impl<D: Send + Sync, T: Send> Write for Waiting<D, T> {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn apply<'a>(&'a mut self, group: &'a Group<'a>) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            match (self.run)(&self.given, group).await {
                Err(Failure::Fault(fault)) => return Err(fault),
                outcome => self.outcome = Some(outcome),
            }
            Ok(())
        })
    }

    fn settle(self: Box<Self>, fate: &Result<(), Fault>) {
        let answer = match (fate, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            // Even a refusal may rest on changes that did not come to be.
            (Err(fault), _) => Err(Failure::Fault(fault.clone())),
            (Ok(()), None) => {
                unreachable!("a group commits only after all its writes were applied")
            }
        };
        // The caller may have stopped waiting, which is its right.
        drop(self.reply.send(answer));
    }
}

/// What all writers of a store share.
pub(super) struct Writers {
    pub(super) pool: Pool,
    pub(super) queue: Mutex<mpsc::Receiver<Box<dyn Write>>>,
    pub(super) sender: Sender,
    /// Transactions that went through.
    pub(super) commits: Arc<AtomicU64>,
    /// How long a transaction may take.
    pub(super) answer_timeout: Duration,
}

impl Writers {
    /// Works until nobody is left to ask.
    pub(super) async fn work(&self) {
        loop {
            let group = self.gather().await;
            if group.is_empty() {
                return;
            }
            self.commit(group).await;
        }
    }

    /// Empty when the queue is closed.
    async fn gather(&self) -> Vec<Box<dyn Write>> {
        let mut queue = self.queue.lock().await;
        let mut group: Vec<_> = queue.recv().await.into_iter().collect();
        let mut bytes = group.iter().map(|write| write.bytes()).sum::<usize>();
        while (1..GROUP_WRITES_MAX).contains(&group.len()) && bytes < GROUP_BYTES_MAX {
            let Ok(write) = queue.try_recv() else { break };
            bytes += write.bytes();
            group.push(write);
        }
        group
    }

    async fn commit(&self, mut group: Vec<Box<dyn Write>>) {
        let fate = self.attempt(&mut group).await;
        if group.len() > 1 && matches!(&fate, Err(fault) if fault.kind == Kind::Statement) {
            return self.commit_each(group).await;
        }
        settle(group, &fate);
    }

    async fn commit_each(&self, group: Vec<Box<dyn Write>>) {
        let mut fate = Ok(());
        for write in group {
            let mut alone = vec![write];
            // A server that went away is not waited for once for every write.
            if !matches!(&fate, Err(Fault { kind: Kind::Away, .. })) {
                fate = self.attempt(&mut alone).await;
            }
            settle(alone, &fate);
        }
    }

    /// Tries again what was certainly undone and may work next time.
    async fn attempt(&self, group: &mut [Box<dyn Write>]) -> Result<(), Fault> {
        let mut collisions = 0;
        let mut has_reconnected = false;
        loop {
            let (fault, may_have_happened) = match self.in_one_transaction(group).await {
                Ok(()) => {
                    self.commits.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Err(failed) => failed,
            };
            match fault.kind {
                Kind::Collided if collisions < COLLISIONS_MAX => collisions += 1,
                // The connection broke before the commit was asked for.
                Kind::Away if !may_have_happened && !has_reconnected => has_reconnected = true,
                _ => return Err(fault),
            }
        }
    }

    /// A failure says whether any of the group may have come to be.
    async fn in_one_transaction(
        &self,
        group: &mut [Box<dyn Write>],
    ) -> Result<(), (Fault, MayHaveHappened)> {
        let db = self.pool.get().await.map_err(|error| (Fault::from(error), false))?;
        let work = self.statements(&db, group);
        let fate = tokio::time::timeout(self.answer_timeout, work).await.unwrap_or_else(|_| {
            let problem = format!("the server did not answer within {:?}", self.answer_timeout);
            Err((Fault::new(Kind::Away, problem), true))
        });
        let Err((fault, _)) = &fate else { return fate };
        let is_usable = fault.kind != Kind::Away
            && matches!(
                tokio::time::timeout(self.answer_timeout, db.batch_execute("ROLLBACK")).await,
                Ok(Ok(()))
            );
        if !is_usable {
            // It may be in the middle of anything.
            drop(Object::take(db));
        }
        fate
    }

    async fn statements(
        &self,
        db: &Db,
        group: &mut [Box<dyn Write>],
    ) -> Result<(), (Fault, MayHaveHappened)> {
        let notices = Notices::default();
        let within = Group { db, notices: &notices };
        // In this order on the wire, and none waits for the answer to the one before.
        let writes = join_all(group.iter_mut().map(|write| write.apply(&within)));
        let (begun, applied) = join(db.batch_execute("BEGIN"), writes).await;
        begun.map_err(|error| (Fault::from(error), false))?;
        // Only the first failure says why: after it all the others fail as well.
        let mut faults = applied.into_iter().filter_map(Result::err);
        if let Some(fault) = faults.find(|fault| fault.kind != Kind::Aborted) {
            return Err((fault, false));
        }
        self.sender.send(db, notices).await.map_err(|fault| (fault, false))?;
        crash_point("store.group.applied");
        db.batch_execute("COMMIT").await.map_err(|error| (Fault::from(error), true))?;
        crash_point("store.group.committed");
        Ok(())
    }
}

type MayHaveHappened = bool;

fn settle(group: Vec<Box<dyn Write>>, fate: &Result<(), Fault>) {
    for write in group {
        write.settle(fate);
    }
}
