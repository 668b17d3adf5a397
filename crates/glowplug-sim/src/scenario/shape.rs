//! Shapes of traffic: when requests come, apart from whose they are and how long they take.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use glowplug_core::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::rate::{Moments, Rate, moment};
use super::source::TrafficError;
use crate::model::seconds;

/// Requests of one stream that are known and have not come yet: the rest of batches and of sessions, and
/// what an outage holds back.
pub const PENDING_MAX: usize = 1_000_000;

/// When requests come.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// At random, at a rate that may change over time.
    Random(Rate),
    /// One after each `every`, the first at the beginning.
    Even { every: Duration },
    /// At random, at `rate` in bursts and at `quiet_rate` between them. Both last as long as memoryless
    /// things do, on average so long.
    Bursts { rate: f64, quiet_rate: f64, burst: Duration, quiet: Duration },
    /// So many at once, or at random within `spread`, so many times a second.
    Batches { rate: f64, size: u32, spread: Duration },
    /// So many people begin a second; each sends `requests` on average, and thinks before the next one.
    Sessions { rate: f64, requests: f64, think: Duration },
    /// As `rate` says, but from `at` on nothing gets through for `outage`. Those who were held back all
    /// come within `spread` after it, each of them `1 + retries` times on average.
    Herd { rate: f64, at: Duration, outage: Duration, retries: f64, spread: Duration },
}

impl Shape {
    /// As many in all.
    #[must_use]
    pub fn scaled(&self, by: f64) -> Self {
        let mut shape = self.clone();
        match &mut shape {
            Self::Random(rate) => *rate = rate.scaled(by),
            Self::Even { every } => *every = seconds(every.as_secs_f64() / by),
            Self::Bursts { rate, quiet_rate, .. } => {
                *rate *= by;
                *quiet_rate *= by;
            }
            Self::Batches { rate, .. } | Self::Sessions { rate, .. } | Self::Herd { rate, .. } => {
                *rate *= by;
            }
        }
        shape
    }

    /// The moments from `from` on and before `until`, in order.
    pub fn moments(&self, from: Duration, until: Duration, seed: u64) -> Arriving {
        let random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let (from_secs, until_secs) = (from.as_secs_f64(), until.as_secs_f64());
        let poisson =
            |rate: f64, random| Moments::new(Rate::Constant(rate), from_secs, until_secs, random);
        match self {
            Self::Random(rate) => {
                Arriving::Random(Moments::new(rate.clone(), from_secs, until_secs, random))
            }
            Self::Even { every } => {
                let (from, until) = (Timestamp::ZERO + from, Timestamp::ZERO + until);
                Arriving::Even(Even { next: from, every: *every, until })
            }
            Self::Bursts { rate, quiet_rate, burst, quiet } => Arriving::Bursts(Bursts {
                rates: [*quiet_rate, *rate],
                means_secs: [quiet.as_secs_f64(), burst.as_secs_f64()],
                in_burst: true,
                now_secs: from_secs,
                changes_secs: from_secs,
                end_secs: until_secs,
                random,
            }),
            Self::Batches { rate, size, spread } => {
                let follow = Follow::Batch { size: *size, spread: *spread };
                Arriving::Cascade(Cascade::new(
                    poisson(*rate, random.clone()),
                    follow,
                    until,
                    random,
                ))
            }
            Self::Sessions { rate, requests, think } => {
                let follow = Follow::Session { requests: *requests, think: *think };
                Arriving::Cascade(Cascade::new(
                    poisson(*rate, random.clone()),
                    follow,
                    until,
                    random,
                ))
            }
            Self::Herd { rate, at, outage, retries, spread } => {
                let begins = Timestamp::ZERO + *at;
                let follow = Follow::Herd {
                    begins,
                    ends: begins + *outage,
                    retries: *retries,
                    spread: *spread,
                };
                Arriving::Cascade(Cascade::new(
                    poisson(*rate, random.clone()),
                    follow,
                    until,
                    random,
                ))
            }
        }
    }
}

/// The moments of a [`Shape`].
#[derive(Clone, Debug)]
pub enum Arriving {
    Random(Moments),
    Even(Even),
    Bursts(Bursts),
    Cascade(Cascade),
}

impl Iterator for Arriving {
    type Item = Result<Timestamp, TrafficError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Random(moments) => moments.next().map(Ok),
            Self::Even(even) => even.next().map(Ok),
            Self::Bursts(bursts) => bursts.next().map(Ok),
            Self::Cascade(cascade) => cascade.next(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Even {
    next: Timestamp,
    every: Duration,
    until: Timestamp,
}

impl Iterator for Even {
    type Item = Timestamp;

    fn next(&mut self) -> Option<Timestamp> {
        let at = self.next;
        self.next = at + self.every;
        (at < self.until).then_some(at)
    }
}

#[derive(Clone, Debug)]
pub struct Bursts {
    /// Between bursts, and in them.
    rates: [f64; 2],
    means_secs: [f64; 2],
    in_burst: bool,
    now_secs: f64,
    changes_secs: f64,
    end_secs: f64,
    random: Xoshiro256PlusPlus,
}

impl Bursts {
    fn exponential(&mut self, mean: f64) -> f64 {
        let one: f64 = Exp1.sample(&mut self.random);
        one * mean
    }
}

impl Iterator for Bursts {
    type Item = Timestamp;

    fn next(&mut self) -> Option<Timestamp> {
        while self.now_secs < self.end_secs {
            if self.now_secs >= self.changes_secs {
                self.in_burst = !self.in_burst;
                let lasts = self.exponential(self.means_secs[usize::from(self.in_burst)]);
                self.changes_secs = self.now_secs + lasts;
            }
            let rate = self.rates[usize::from(self.in_burst)];
            let gap = self.exponential(1.0) / rate;
            let next = self.now_secs + gap;
            if !(rate > 0.0 && next < self.changes_secs) {
                self.now_secs = self.changes_secs;
                continue;
            }
            self.now_secs = next;
            if next < self.end_secs {
                return Some(moment(next));
            }
        }
        None
    }
}

/// What follows from a moment.
#[derive(Clone, Debug)]
enum Follow {
    Batch { size: u32, spread: Duration },
    Session { requests: f64, think: Duration },
    Herd { begins: Timestamp, ends: Timestamp, retries: f64, spread: Duration },
}

/// Moments that each have some requests follow them, in order of the requests.
#[derive(Clone, Debug)]
pub struct Cascade {
    causes: Moments,
    next_cause: Option<Timestamp>,
    pending: BinaryHeap<Reverse<Timestamp>>,
    follow: Follow,
    until: Timestamp,
    random: Xoshiro256PlusPlus,
}

impl Cascade {
    fn new(
        mut causes: Moments,
        follow: Follow,
        until: Duration,
        mut random: Xoshiro256PlusPlus,
    ) -> Self {
        // Causes have drawn from a copy: what follows must not repeat their numbers.
        random.jump();
        Self {
            next_cause: causes.next(),
            causes,
            pending: BinaryHeap::new(),
            follow,
            until: Timestamp::ZERO + until,
            random,
        }
    }

    /// Whatever follows lies at or after its cause, so nothing earlier can come once a cause was looked at.
    fn let_follow(&mut self, cause: Timestamp) -> Result<(), TrafficError> {
        match self.follow.clone() {
            Follow::Batch { size, spread } => {
                for _ in 0..size {
                    self.push_within(cause, spread)?;
                }
            }
            Follow::Session { requests, think } => {
                let mut at = cause;
                self.push(at)?;
                while self.random.random::<f64>() * requests > 1.0 {
                    let one: f64 = Exp1.sample(&mut self.random);
                    at = at + think.mul_f64(one);
                    self.push(at)?;
                }
            }
            Follow::Herd { begins, ends, retries, spread } => {
                if !(begins..ends).contains(&cause) {
                    return self.push(cause);
                }
                self.push_within(ends, spread)?;
                while self.random.random::<f64>() * (1.0 + retries) > 1.0 {
                    self.push_within(ends, spread)?;
                }
            }
        }
        Ok(())
    }

    fn push_within(&mut self, begin: Timestamp, spread: Duration) -> Result<(), TrafficError> {
        let share = if spread.is_zero() { 0.0 } else { self.random.random::<f64>() };
        self.push(begin + spread.mul_f64(share))
    }

    fn push(&mut self, at: Timestamp) -> Result<(), TrafficError> {
        if at >= self.until {
            return Ok(());
        }
        if self.pending.len() >= PENDING_MAX {
            return Err(TrafficError::TooManyPending { limit: PENDING_MAX });
        }
        self.pending.push(Reverse(at));
        Ok(())
    }
}

impl Iterator for Cascade {
    type Item = Result<Timestamp, TrafficError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(cause) = self.next_cause {
            if self.pending.peek().is_some_and(|Reverse(at)| *at <= cause) {
                break;
            }
            self.next_cause = self.causes.next();
            if let Err(error) = self.let_follow(cause) {
                return Some(Err(error));
            }
        }
        self.pending.pop().map(|Reverse(at)| Ok(at))
    }
}
