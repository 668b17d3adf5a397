//! One connection that keeps this node's lease, hears what other nodes do, and looks after those that died.
//!
//! ```text
//! connect ─ LISTEN ─ catch up ─┬─ each third of a lease: renew, look for orphans ─┐
//!    ▲                         └─ each notice: tell whoever listens               │
//!    └──────────── wait, longer each time ◄──── the connection broke ◄────────────┘
//! ```
//!
//! Whatever may have been missed while there was no connection is told after it is back: answers that
//! were recorded meanwhile, cancellations of this node's requests, and that there may be orphans and other
//! settings. Orphans
//! are told of again each third of a lease, as long as there are any, so nobody has to remember.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::poll_fn;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;
use tokio_postgres::AsyncMessage;

use super::columns::Db;
use super::connect::Server;
use super::failure::{Failure, Fault, Kind};
use super::notices::Sender;
use super::{answers, registry, waiting};
use crate::records::Change;

/// Changes that a receiver may fall behind before it has to look for itself.
pub(super) const CHANGES_MAX: usize = 4096;
/// Answers told of after a silence; whoever waits for an older one looks for itself.
const MISSED_MAX: usize = CHANGES_MAX / 2;
/// How much longer than the silence the answers are looked for that were missed: transactions commit a
/// while after their time.
const MISSED_MARGIN: Duration = Duration::from_secs(30);
/// The first wait for a server that is away, and the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// The lists of dead nodes are tidied once in so many thirds of a lease.
const SWEEP_EVERY: u32 = 100;

pub(super) struct Watch {
    pub(super) server: Server,
    pub(super) sender: Sender,
    pub(super) boot: Arc<AtomicU32>,
    pub(super) lease: Duration,
    pub(super) changes: broadcast::Sender<Change>,
    /// Told once `LISTEN` is in force.
    pub(super) listening: watch::Sender<bool>,
}

/// When the server was last heard of.
struct Contact {
    last: Instant,
    is_first: bool,
}

impl Watch {
    pub(super) async fn run(self) {
        let mut backoff = BACKOFF_MIN;
        let mut contact = Contact { last: Instant::now(), is_first: true };
        loop {
            let before = contact.last;
            let Err(failure) = self.one_connection(&mut contact).await;
            self.listening.send_replace(false);
            let problem = match failure {
                Failure::Fault(fault) => fault.to_string(),
                Failure::Refused(error) => error.to_string(),
            };
            tracing::warn!(place = %self.server.place, %problem, "lost the watch on the queue");
            if contact.last > before {
                backoff = BACKOFF_MIN;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn one_connection(
        &self,
        contact: &mut Contact,
    ) -> Result<std::convert::Infallible, Failure> {
        let (client, mut connection) = self.server.connect().await?;
        let (sender, boot, changes) =
            (self.sender.clone(), Arc::clone(&self.boot), self.changes.clone());
        let broken = Arc::new(Notify::new());
        let end = Arc::clone(&broken);
        // Ended by the drop of `db`.
        let hearing = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                let AsyncMessage::Notification(notice) = message else { continue };
                for change in sender.read(notice.payload(), boot.load(Ordering::Acquire)) {
                    // Nobody may be listening.
                    let _ = changes.send(change);
                }
            }
            end.notify_one();
        });
        let db = Db::new(client, hearing);
        db.batch_execute(&format!("LISTEN {}", self.sender.channel)).await?;
        self.catch_up(&db, contact).await?;
        self.listening.send_replace(true);
        for round in 1_u32.. {
            let due = Instant::now() + self.lease / 3;
            let looked = tokio::time::timeout_at(due, self.look_after(&db, round, contact)).await;
            looked.map_err(|_| silent())??;
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = broken.notified() => return Err(silent().into()),
            }
        }
        Err(silent().into())
    }

    async fn catch_up(&self, db: &Db, contact: &mut Contact) -> Result<(), Failure> {
        let boot = self.boot.load(Ordering::Acquire);
        if boot != 0 {
            registry::renew(db, boot, self.lease).await?;
            for id in waiting::asked_cancels(db, boot).await? {
                let _ = self.changes.send(Change::CancelAsked(id));
            }
        }
        if !contact.is_first {
            let within = contact.last.elapsed() + MISSED_MARGIN;
            for id in answers::recently_completed(db, within, MISSED_MAX).await? {
                let _ = self.changes.send(Change::Completed(id));
            }
            let _ = self.changes.send(Change::Orphaned);
            let _ = self.changes.send(Change::Settings);
            tracing::info!(place = %self.server.place, "the watch on the queue is back");
        }
        contact.is_first = false;
        Ok(())
    }

    async fn look_after(&self, db: &Db, round: u32, contact: &mut Contact) -> Result<(), Failure> {
        let boot = self.boot.load(Ordering::Acquire);
        if boot != 0 {
            registry::renew(db, boot, self.lease).await?;
            if contact.last.elapsed() > self.lease {
                tracing::warn!(
                    boot,
                    "the lease of this node had run out: other nodes may have taken its requests over"
                );
            }
        }
        contact.last = Instant::now();
        if waiting::are_there_orphans(db, boot).await? {
            let _ = self.changes.send(Change::Orphaned);
        }
        if round.is_multiple_of(SWEEP_EVERY) {
            registry::sweep(db).await?;
        }
        Ok(())
    }
}

fn silent() -> Fault {
    Fault::new(Kind::Away, "the connection broke, or the server did not answer in time")
}
