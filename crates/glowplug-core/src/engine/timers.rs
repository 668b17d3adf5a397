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
pub(super) struct Timers {
    armed: BTreeSet<(Timestamp, Owner)>,
    /// The first of them, which every event asks for.
    next: Option<Timestamp>,
}

impl Timers {
    /// Wakes `owner` at `at`, or earlier if `armed` says so already.
    pub(super) fn arm(&mut self, owner: Owner, armed: &mut Option<Timestamp>, at: Timestamp) {
        if armed.is_some_and(|earlier| earlier <= at) {
            return;
        }
        self.disarm(owner, armed);
        self.armed.insert((at, owner));
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
        *armed = Some(at);
    }

    pub(super) fn disarm(&mut self, owner: Owner, armed: &mut Option<Timestamp>) {
        if let Some(at) = armed.take() {
            self.armed.remove(&(at, owner));
            self.look_for_next();
        }
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.next
    }

    /// Takes one owner whose time has come. Its own note of being armed is its to clear.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Owner> {
        if self.next.is_none_or(|next| next > now) {
            return None;
        }
        let (_, owner) = self.armed.pop_first()?;
        self.look_for_next();
        Some(owner)
    }

    fn look_for_next(&mut self) {
        self.next = self.armed.first().map(|(at, _)| *at);
    }
}
