//! Sums by app and by part of the time: small enough to be kept of thousands of simulations.

use std::time::Duration;

use glowplug_core::Timestamp;

use super::account::Account;

/// Waits that are counted apart.
pub const LIMITS: usize = 2;

/// What to sum up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Where one part ends and the next begins, in order. One less than there are parts.
    pub edges: Vec<Timestamp>,
    /// Requests that wait longer are counted, for each of these.
    pub limits: [Duration; LIMITS],
}

/// What happened to one app in one part of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartSums {
    /// Requests that came in it and got a runner, then or later.
    pub requests: u64,
    /// What they waited for it together.
    pub waited_micros: u64,
    /// How many of them waited longer, by limit.
    pub over: [u64; LIMITS],
    /// What runners spent in it, from placement to end.
    pub runner_micros: u64,
}

impl PartSums {
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.waited_micros += other.waited_micros;
        for (sum, over) in self.over.iter_mut().zip(other.over) {
            *sum += over;
        }
        self.runner_micros += other.runner_micros;
    }
}

/// The sums while they are made.
#[derive(Debug)]
pub(super) struct Summing {
    asked: Parts,
    apps: usize,
    /// By part, then by app.
    sums: Vec<PartSums>,
    part: usize,
    since: Timestamp,
}

impl Summing {
    pub(super) fn new(asked: &Parts, apps: usize) -> Self {
        Self {
            asked: asked.clone(),
            apps,
            sums: vec![PartSums::default(); apps * (asked.edges.len() + 1)],
            part: 0,
            since: Timestamp::ZERO,
        }
    }

    pub(super) fn next_edge(&self) -> Timestamp {
        self.asked.edges.get(self.part).copied().unwrap_or(Timestamp::MAX)
    }

    /// Goes on to the next part, when all that live have been counted up to its beginning.
    pub(super) fn pass_edge(&mut self) {
        self.since = self.next_edge();
        self.part += 1;
    }

    /// A request got its first runner.
    pub(super) fn waited(&mut self, app: u32, arrived: Timestamp, wait: Duration) {
        let part = self.asked.edges.partition_point(|edge| *edge <= arrived);
        let sums = &mut self.sums[part * self.apps + app as usize];
        sums.requests += 1;
        sums.waited_micros += u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        for (over, limit) in sums.over.iter_mut().zip(self.asked.limits) {
            *over += u64::from(wait > limit);
        }
    }

    /// Counts a runner up to a moment of this part.
    pub(super) fn lived(&mut self, app: u32, account: &Account, until: Timestamp) {
        let lived = until.since(account.placed().max(self.since));
        let sums = &mut self.sums[self.part * self.apps + app as usize];
        sums.runner_micros += u64::try_from(lived.as_micros()).unwrap_or(u64::MAX);
    }

    /// By part, then by app.
    pub(super) fn into_sums(self) -> Vec<Vec<PartSums>> {
        if self.apps == 0 {
            return vec![Vec::new(); self.asked.edges.len() + 1];
        }
        self.sums.chunks(self.apps).map(<[PartSums]>::to_vec).collect()
    }
}
