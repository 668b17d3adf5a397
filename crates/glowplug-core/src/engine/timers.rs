//! At most one armed wake-up per runner, app and request.
//!
//! Timers are lazy: an owner that is woken looks at what is due *now* and arms itself again. So the warm
//! path, where deadlines only move later, never touches them.

use std::collections::BTreeSet;

use crate::ids::{AppId, RequestId, RunnerId};
use crate::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Runner(RunnerId),
    App(AppId),
    Request(RequestId),
}

#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Timestamp, Owner)>);

impl Timers {
    /// Wakes `owner` at `at`, or earlier if `armed` says so already.
    pub(super) fn arm(&mut self, owner: Owner, armed: &mut Option<Timestamp>, at: Timestamp) {
        if armed.is_some_and(|earlier| earlier <= at) {
            return;
        }
        self.disarm(owner, armed);
        self.0.insert((at, owner));
        *armed = Some(at);
    }

    pub(super) fn disarm(&mut self, owner: Owner, armed: &mut Option<Timestamp>) {
        if let Some(at) = armed.take() {
            self.0.remove(&(at, owner));
        }
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes one owner whose time has come. Its own note of being armed is its to clear.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Owner> {
        let (at, owner) = *self.0.first()?;
        (at <= now).then(|| {
            self.0.pop_first();
            owner
        })
    }
}
