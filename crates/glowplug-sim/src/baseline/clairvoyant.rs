//! What could be had by who knows when each request comes.
//!
//! Requests go to the server that became idle last, so the nth server is in use exactly while at least
//! `n` are needed. Its idle gaps are then a matter of its own: each is either kept through, which costs
//! the gap, or ended and paid for with a start at its end. Who knows the length of each gap keeps those
//! up to the price of a start.
//!
//! **What it bounds.** Take any policy that serves each request at the moment it comes, whatever it
//! knows, and however it routes. If it makes no more starts than a [`Point`], it has at least that
//! point's idle seconds: no choice of gaps, and no other way to route, has a smaller sum of `idle +
//! keep_gaps_within × starts`.
//!
//! With `keep_gaps_within` set to the length of a start, that sum is the least that has to be paid
//! beside the busy seconds for **no wait at all**: a prewarmer who knows the future starts each server
//! just in time ([`Point::idle_secs`] and [`Point::startup_secs`] together).
//!
//! **What it does not bound.** Starts take no time here: a request that waits for one does not push back
//! what comes after it. A policy that lets requests wait may need fewer starts than a point with the
//! same idle seconds, since requests that queue up share a runner that they would not have shared in
//! time. With `max_multiplexing` above 1 the bound is loose, as requests are packed as if they could
//! move from one server to another, and slow none down.
//!
//! State: for each app a heap of requests in progress and one moment for each server it ever needed at
//! once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use glowplug_core::Timestamp;

use crate::model::{AppModel, Purpose, Sampler, micros};
use crate::simulation::Failure;
use crate::traffic::Arrival;

/// What one choice of gaps costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Gaps up to this are kept through.
    pub keep_gaps_within: Duration,
    pub requests: u64,
    pub starts: u64,
    pub busy_secs: f64,
    pub idle_secs: f64,
    /// All starts together, at the mean length of a start.
    pub startup_secs: f64,
}

/// Points by what was asked for, in the same order.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    pub total: Vec<Point>,
    /// By index of the app.
    pub apps: Vec<Vec<Point>>,
}

impl Point {
    /// Share of requests that would meet a server that has yet to start, if starts were not made ahead.
    pub fn cold_rate(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { count(self.starts) / count(self.requests) }
    }

    /// The mean wait if starts were not made ahead, and waiting requests held nothing up.
    pub fn wait_mean(&self) -> Duration {
        match self.requests {
            0 => Duration::ZERO,
            requests => Duration::from_secs_f64(self.startup_secs / count(requests)),
        }
    }

    /// Seconds paid beside the busy ones, per busy one. `None`: nothing was busy.
    pub fn overhead(&self) -> Option<f64> {
        (self.busy_secs > 0.0).then(|| (self.idle_secs + self.startup_secs) / self.busy_secs)
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.starts += other.starts;
        self.busy_secs += other.busy_secs;
        self.idle_secs += other.idle_secs;
        self.startup_secs += other.startup_secs;
    }
}

/// One point for each of `keep_gaps_within`. `apps` and `seed` as those of a
/// [`World`](crate::simulation::World).
pub fn bound<E>(
    apps: &[AppModel],
    seed: u64,
    traffic: impl Iterator<Item = Result<Arrival, E>>,
    keep_gaps_within: &[Duration],
) -> Result<Bound, Failure<E>>
where
    E: std::error::Error + 'static,
{
    bound_from(Timestamp::ZERO, apps, seed, traffic, keep_gaps_within)
}

/// As [`bound`], of what comes and what is spent from `count_from` on.
pub fn bound_from<E>(
    count_from: Timestamp,
    apps: &[AppModel],
    seed: u64,
    traffic: impl Iterator<Item = Result<Arrival, E>>,
    keep_gaps_within: &[Duration],
) -> Result<Bound, Failure<E>>
where
    E: std::error::Error + 'static,
{
    let mut limits: Vec<u64> = keep_gaps_within.iter().copied().map(micros).collect();
    limits.sort_unstable();
    limits.dedup();
    let mut servers: Vec<Servers> =
        (0..).zip(apps).map(|(index, app)| Servers::new(app, seed, index, limits.len())).collect();
    let mut counting = count_from == Timestamp::ZERO;
    for arrival in super::in_order(apps.len(), traffic) {
        let arrival = arrival?;
        if !counting && arrival.at >= count_from {
            counting = true;
            for servers in &mut servers {
                servers.begin_anew(count_from);
            }
        }
        servers[arrival.app as usize].arrive(&limits, &arrival);
    }
    let apps: Vec<Vec<Point>> = servers
        .iter_mut()
        .zip(apps)
        .map(|(servers, app)| {
            servers.advance(Timestamp::MAX);
            let mean = app.setup.mean();
            keep_gaps_within.iter().map(|within| servers.point(&limits, *within, mean)).collect()
        })
        .collect();
    let total = keep_gaps_within.iter().enumerate().map(|(nth, within)| {
        let mut sum = Point { keep_gaps_within: *within, ..Point::default() };
        for points in &apps {
            sum.add(&points[nth]);
        }
        sum
    });
    Ok(Bound { total: total.collect(), apps })
}

/// The servers one app needs, lowest first.
#[derive(Debug)]
struct Servers {
    per_server: usize,
    service: Sampler,
    /// When requests in progress end.
    ends: BinaryHeap<Reverse<Timestamp>>,
    /// Since when the nth server is idle, of those that were needed before.
    idle_since: Vec<Timestamp>,
    needed: usize,
    /// What was before does not count.
    from: Timestamp,
    /// Up to when busy seconds are counted.
    counted: Timestamp,
    busy_micros: u64,
    requests: u64,
    /// Times that a server was needed which was not before.
    needs: u64,
    /// Gaps by the least limit they are within; those beyond all limits are left out.
    gaps: Vec<Gaps>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Gaps {
    count: u64,
    micros: u64,
}

impl Servers {
    fn new(app: &AppModel, seed: u64, index: u32, limits: usize) -> Self {
        Self {
            per_server: app.spec.scaling.max_multiplexing.max(1) as usize,
            service: Sampler::new(&app.service, seed, Purpose::Service, index),
            ends: BinaryHeap::new(),
            idle_since: Vec::new(),
            needed: 0,
            from: Timestamp::ZERO,
            counted: Timestamp::ZERO,
            busy_micros: 0,
            requests: 0,
            needs: 0,
            gaps: vec![Gaps::default(); limits],
        }
    }

    fn arrive(&mut self, limits: &[u64], arrival: &Arrival) {
        self.advance(arrival.at);
        let service = match arrival.service {
            Some(service) => service,
            None => Duration::from_micros(self.service.draw()),
        };
        self.requests += 1;
        self.ends.push(Reverse(arrival.at + service));
        if self.ends.len() > self.needed * self.per_server {
            self.need_another(limits, arrival.at);
        }
    }

    fn begin_anew(&mut self, now: Timestamp) {
        self.advance(now);
        self.from = now;
        (self.busy_micros, self.requests, self.needs) = (0, 0, 0);
        self.gaps.fill(Gaps::default());
    }

    fn need_another(&mut self, limits: &[u64], now: Timestamp) {
        self.needs += 1;
        match self.idle_since.get(self.needed) {
            None => self.idle_since.push(now),
            Some(since) => {
                let gap = micros(now - *since);
                let limit = limits.partition_point(|limit| *limit < gap);
                if let Some(gaps) = self.gaps.get_mut(limit) {
                    gaps.count += 1;
                    gaps.micros += micros(now - (*since).max(self.from));
                }
            }
        }
        self.needed += 1;
    }

    /// Lets requests end that do by then.
    fn advance(&mut self, now: Timestamp) {
        while let Some(Reverse(end)) = self.ends.peek().copied()
            && end <= now
        {
            self.ends.pop();
            self.count_up_to(end);
            if self.ends.len() <= (self.needed - 1) * self.per_server {
                self.needed -= 1;
                self.idle_since[self.needed] = end;
            }
        }
        if self.needed > 0 || now != Timestamp::MAX {
            self.count_up_to(now);
        }
    }

    fn count_up_to(&mut self, now: Timestamp) {
        self.busy_micros += micros(now - self.counted) * self.needed as u64;
        self.counted = now;
    }

    /// Gaps longer than `within` end with a start.
    fn point(&self, limits: &[u64], within: Duration, start: Duration) -> Point {
        let kept_limits = limits.partition_point(|limit| *limit <= micros(within));
        let kept = self.gaps[..kept_limits].iter().fold(Gaps::default(), |sum, gaps| Gaps {
            count: sum.count + gaps.count,
            micros: sum.micros + gaps.micros,
        });
        let starts = self.needs - kept.count;
        Point {
            keep_gaps_within: within,
            requests: self.requests,
            starts,
            busy_secs: count(self.busy_micros) / 1e6,
            idle_secs: count(kept.micros) / 1e6,
            startup_secs: count(starts) * start.as_secs_f64(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts up to 2^53")]
fn count(number: u64) -> f64 {
    number as f64
}
