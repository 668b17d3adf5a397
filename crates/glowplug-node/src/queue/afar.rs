//! Requests of other nodes that somebody follows through this one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use glowplug_core::RequestId;
use tokio::sync::watch;

/// Requests of other nodes followed at once. Whoever follows one more sees its status as it is now.
const WATCHED_MAX: usize = 10_000;

/// Wakes those who follow a request that is not this node's.
#[derive(Debug, Default)]
pub(super) struct Watched(Mutex<Watches>);

#[derive(Debug, Default)]
struct Watches {
    /// Other nodes use the store.
    shared: bool,
    by_id: HashMap<RequestId, watch::Sender<u64>>,
}

impl Watched {
    fn watches(&self) -> MutexGuard<'_, Watches> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on other nodes' requests can be followed.
    pub(super) fn open(&self) {
        self.watches().shared = true;
    }

    pub(super) fn is_open(&self) -> bool {
        self.watches().shared
    }

    pub(super) fn subscribe(&self, id: RequestId) -> Option<watch::Receiver<u64>> {
        let mut watches = self.watches();
        if !watches.shared {
            return None;
        }
        if watches.by_id.len() >= WATCHED_MAX {
            watches.by_id.retain(|_, changed| changed.receiver_count() > 0);
        }
        if watches.by_id.len() >= WATCHED_MAX {
            return None;
        }
        let changed = watches.by_id.entry(id).or_insert_with(|| watch::channel(0).0);
        Some(changed.subscribe())
    }

    /// The request is complete: there is nothing more to see.
    pub(super) fn complete(&self, id: RequestId) {
        if let Some(changed) = self.watches().by_id.remove(&id) {
            changed.send_modify(|count| *count += 1);
        }
    }

    /// Lets everybody look: what other nodes do to a request before its end is not told.
    pub(super) fn look(&self) {
        self.watches().by_id.retain(|_, changed| {
            changed.send_modify(|count| *count += 1);
            changed.receiver_count() > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_requests_are_followed_where_there_are_others() {
        let (watched, id) = (Watched::default(), RequestId(7));
        assert!(watched.subscribe(id).is_none());
        watched.open();
        let mut follower = watched.subscribe(id).unwrap();
        watched.look();
        assert!(follower.has_changed().unwrap());
        follower.mark_unchanged();
        watched.complete(id);
        assert_eq!(*follower.borrow_and_update(), 2);
        assert!(follower.has_changed().is_err(), "there is nothing more to come");
    }

    #[test]
    fn who_has_gone_makes_room() {
        let watched = Watched::default();
        watched.open();
        let held = watched.subscribe(RequestId(0)).unwrap();
        for id in 1..=WATCHED_MAX as u128 {
            assert!(watched.subscribe(RequestId(id)).is_some(), "{id}");
        }
        watched.look();
        assert_eq!(watched.watches().by_id.len(), 1);
        assert!(held.has_changed().unwrap());
    }
}
