//! When a waiting request is expected to be answered.
//!
//! Places become free one after the other: on runners that are ready when their attempts have taken what
//! attempts take, on runners that start when their start has taken what starts take. Whoever is n-th in line
//! gets the n-th of these places, so all that is needed is to let as many requests through as are before
//! this one. It is an expectation, not a promise: who comes later may be served before, and a start may
//! fail.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::time::Duration;

use super::Engine;
use super::state::{App, Progress, Runner};
use crate::ids::RequestId;
use crate::lifecycle::State;
use crate::time::{Pretty, Timestamp};

/// Places that are looked at one by one. With more, all are taken to be like the first of them.
const PLACES_MAX: usize = 256;
/// Requests that are let through one by one. What is before them passes in whole turns of all places.
const TURNS_MAX: usize = 4_096;

/// When a waiting request is expected to be answered, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eta {
    /// From now.
    pub after: Duration,
    pub basis: Basis,
}

/// What an [`Eta`] was made of. Displayed as a sentence without a full stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis {
    /// Requests before it.
    pub ahead: usize,
    /// Places for requests on runners that are ready or start.
    pub places: usize,
    /// What an attempt takes.
    pub service: Duration,
    /// When the next runner is ready, if none is and one starts.
    pub ready_in: Option<Duration>,
    /// How long the request waits after a failed attempt first.
    pub delayed: Option<Duration>,
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.places == 1 { "" } else { "s" };
        write!(
            f,
            "{} ahead on {} place{s}, {} each",
            self.ahead,
            self.places,
            Pretty(self.service)
        )?;
        if let Some(ready_in) = self.ready_in {
            write!(f, "; the next runner is ready in about {}", Pretty(ready_in))?;
        }
        if let Some(delayed) = self.delayed {
            write!(f, "; it is tried again in {}", Pretty(delayed))?;
        }
        Ok(())
    }
}

impl App {
    /// Takes a measured attempt into the estimate: new ones weigh an eighth.
    pub(super) fn learn_service(&mut self, took: Duration) {
        self.service = Some(match self.service {
            Some(known) => (known * 7 + took) / 8,
            None => took,
        });
    }
}

impl Engine {
    /// When a waiting request is expected to be answered. `None` for one that does not wait, and where
    /// nothing is known yet: no attempt of its app has ended, or no runner of it was ever ready or is to be.
    pub fn eta(&self, id: RequestId, now: Timestamp) -> Option<Eta> {
        let request = self.requests.get(&id)?;
        let app = self.apps.get(&request.app)?;
        let delayed = match request.progress {
            Progress::InFlight { .. } => return None,
            Progress::Waiting => None,
            Progress::Delayed { until } => Some(until - now),
        };
        let service = app.service?;
        let ahead = app.waiting.position(request.priority, &request.place(id));
        let mut free_at = self.places(app, service, now);
        let places = free_at.len();
        if places == 0 {
            return None;
        }
        let none_ready = app.ready.is_empty();
        let ready_in = free_at.iter().min().copied().filter(|_| none_ready);
        let begins = nth_turn(&mut free_at, ahead, service).max(delayed.unwrap_or_default());
        let basis = Basis { ahead, places, service, ready_in, delayed };
        Some(Eta { after: begins + service, basis })
    }

    /// When each place of an app becomes free, from now.
    fn places(&self, app: &App, service: Duration, now: Timestamp) -> Vec<Duration> {
        let each = app.places_per_runner();
        let mut free_at = Vec::new();
        for runner in app.ready.iter().filter_map(|id| self.runners.get(id)) {
            let held = runner.in_flight.iter().take(each);
            let taken = held.map(|held| service.saturating_sub(now - held.since));
            let open = each.saturating_sub(runner.in_flight.len());
            free_at.extend(taken.chain(std::iter::repeat_n(Duration::ZERO, open)));
            if free_at.len() >= PLACES_MAX {
                return free_at;
            }
        }
        let Some(start) = app.restart_cost else { return free_at };
        for runner in app.starting.iter().filter_map(|id| self.runners.get(id)) {
            // What waits for room may wait long. Only if it is all there is, one of them is hoped for.
            if runner.state == State::Pending && runner.placed.is_none() && !free_at.is_empty() {
                continue;
            }
            let comes = remaining_start(runner, start, now);
            free_at.extend(std::iter::repeat_n(comes, each));
            if free_at.len() >= PLACES_MAX {
                break;
            }
        }
        free_at.truncate(PLACES_MAX);
        free_at
    }
}

/// How long a runner's start will still take, if starts take `start` from their place on.
fn remaining_start(runner: &Runner, start: Duration, now: Timestamp) -> Duration {
    match (runner.state, runner.placed, runner.delay_until) {
        (State::Thawing, ..) => Duration::ZERO,
        (State::FailureDelay, _, Some(until)) => (until - now) + start,
        (_, Some(placed), _) => start.saturating_sub(now - placed),
        _ => start,
    }
}

/// When the turn of who has `ahead` others before it comes.
fn nth_turn(free_at: &mut Vec<Duration>, ahead: usize, service: Duration) -> Duration {
    let places = free_at.len();
    // Whole turns of all places take one service time each; the rest is let through one by one.
    let turns = ahead.saturating_sub(TURNS_MAX.max(4 * places)) / places;
    let whole = service.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX));
    let mut heap: BinaryHeap<Reverse<Duration>> = free_at.drain(..).map(Reverse).collect();
    for _ in 0..ahead - turns * places {
        if let Some(mut first) = heap.peek_mut() {
            first.0 += service;
        }
    }
    whole + heap.peek().map_or(Duration::ZERO, |first| first.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_as_places_become_free() {
        let secs = Duration::from_secs;
        let turn = |free_at: &[u64], ahead| {
            let mut free_at = free_at.iter().copied().map(secs).collect();
            nth_turn(&mut free_at, ahead, secs(10)).as_secs()
        };
        assert_eq!(turn(&[0], 0), 0);
        assert_eq!(turn(&[4], 0), 4);
        assert_eq!(turn(&[4], 3), 34);
        assert_eq!(turn(&[4, 2], 1), 4);
        assert_eq!(turn(&[4, 2], 2), 12);
        // A third place is there later.
        assert_eq!(turn(&[4, 2, 13], 4), 14);
        // As many as are not let through one by one.
        assert_eq!(turn(&[4, 2], 1_000_001), 5_000_004);
        assert_eq!(turn(&[4], 1_000_000), 10_000_004);
    }

    #[test]
    fn the_basis_is_a_sentence() {
        let basis = Basis {
            ahead: 3,
            places: 2,
            service: Duration::from_millis(4_100),
            ready_in: Some(Duration::from_secs(12)),
            delayed: None,
        };
        let text = "3 ahead on 2 places, 4.10 s each; the next runner is ready in about 12.0 s";
        assert_eq!(basis.to_string(), text);
        let basis = Basis {
            ahead: 0,
            places: 1,
            ready_in: None,
            delayed: Some(Duration::from_millis(250)),
            ..basis
        };
        let text = "0 ahead on 1 place, 4.10 s each; it is tried again in 250 ms";
        assert_eq!(basis.to_string(), text);
    }
}
