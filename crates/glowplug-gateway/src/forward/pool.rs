//! Idle connections to runners, newest used first.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use glowplug_core::{RunnerAddress, Timestamp};

use super::Connection;

#[derive(Debug, Default)]
pub(super) struct Pool {
    runners: HashMap<RunnerAddress, Vec<Idle>, RandomState>,
}

/// An unused connection. Those of one runner are in the order of `since`.
#[derive(Debug)]
struct Idle {
    since: Timestamp,
    connection: Box<Connection>,
}

impl Pool {
    /// The connection used last and since when it is idle, if that was not before `oldest`.
    pub(super) fn checkout(
        &mut self,
        address: &RunnerAddress,
        oldest: Timestamp,
    ) -> Option<(Box<Connection>, Timestamp)> {
        let idle = self.runners.get_mut(address)?;
        match idle.pop()? {
            last if last.since >= oldest => Some((last.connection, last.since)),
            // The others were used even longer ago.
            _ => {
                idle.clear();
                None
            }
        }
    }

    /// Keeps a connection, or returns it if there are `max` already.
    pub(super) fn give_back(
        &mut self,
        address: &RunnerAddress,
        connection: Box<Connection>,
        now: Timestamp,
        max: usize,
    ) -> Option<Box<Connection>> {
        let Some(idle) = self.runners.get_mut(address) else {
            self.runners.insert(address.clone(), vec![Idle { since: now, connection }]);
            return None;
        };
        if idle.len() >= max {
            return Some(connection);
        }
        idle.push(Idle { since: now, connection });
        None
    }

    pub(super) fn forget(&mut self, address: &RunnerAddress) -> impl Sized + use<> {
        self.runners.remove(address)
    }

    /// Takes out what was used last before `oldest`, and the runners left with nothing.
    pub(super) fn take_older(&mut self, oldest: Timestamp) -> impl Sized + use<> {
        let mut taken = Vec::new();
        self.runners.retain(|_, idle| {
            let old = idle.partition_point(|idle| idle.since < oldest);
            taken.extend(idle.drain(..old));
            !idle.is_empty()
        });
        taken
    }
}
