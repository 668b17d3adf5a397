//! Requests that are open, from arrival to answer or refusal. Nothing of them is kept after that.
//!
//! Ids count up, as the node's do. The low bits of an id are its place in the table, so finding a request
//! is one look; an id whose place is still taken by an older request is left out. The low 32 bits are a
//! handle that stays good when the table grows.

use glowplug_core::request::Mode;
use glowplug_core::{Lease, RequestId, Timestamp};

/// Places at the beginning. The table doubles when half of them are taken.
const PLACES_FIRST: usize = 64;
/// No runner works on it.
pub(super) const NOWHERE: u32 = u32::MAX;

/// What the engine was told of a request and has decided about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting,
    /// Between two attempts.
    Delayed {
        until: Timestamp,
    },
    /// `runner`: its place in the roster.
    InFlight {
        runner: u32,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    /// 0: nothing is here.
    id: u64,
    pub(super) app: u32,
    pub(super) mode: Mode,
    pub(super) arrived: Timestamp,
    /// It must be given to a runner before this.
    pub(super) start_deadline: Timestamp,
    /// Begun.
    pub(super) attempts: u32,
    pub(super) progress: Progress,

    /// Microseconds of work, for a runner that has it alone.
    pub(super) work: u64,
    /// Random bits from which its attempts draw how they fail.
    pub(super) luck: u64,
    /// The runner that really works on it, as a place in the roster, and its place on that runner.
    pub(super) on: u32,
    pub(super) nth: u32,
    /// Of the attempt, given out once; entries of the agenda about others are void. 0: none yet.
    pub(super) generation: u32,
    /// How the attempt will end.
    pub(super) ending: Ending,
    /// The attempt came to no good.
    pub(super) failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Answer,
    Error,
    /// The runner dies.
    Crash,
}

#[derive(Debug)]
pub(super) struct Requests {
    places: Vec<Request>,
    last_id: u64,
    last_generation: u32,
    open: usize,
}

impl Request {
    fn nobody() -> Self {
        Self {
            id: 0,
            app: 0,
            mode: Mode::Queued,
            arrived: Timestamp::ZERO,
            start_deadline: Timestamp::MAX,
            attempts: 0,
            progress: Progress::Waiting,
            work: 0,
            luck: 0,
            on: NOWHERE,
            nth: 0,
            generation: 0,
            ending: Ending::Answer,
            failed: false,
        }
    }

    pub(super) fn id(&self) -> RequestId {
        RequestId(u128::from(self.id))
    }
}

impl Default for Requests {
    fn default() -> Self {
        let places = vec![Request::nobody(); PLACES_FIRST];
        Self { places, last_id: 0, last_generation: 0, open: 0 }
    }
}

impl Requests {
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Enters a request that waits.
    pub(super) fn enter(&mut self, app: u32, mode: Mode, arrived: Timestamp) -> u32 {
        if self.open * 2 >= self.places.len() {
            self.grow();
        }
        loop {
            self.last_id += 1;
            let handle = low_bits(self.last_id);
            let id = self.last_id;
            let here = self.get_mut(handle);
            if here.id == 0 {
                *here = Request { id, app, mode, arrived, ..Request::nobody() };
                self.open += 1;
                return handle;
            }
        }
    }

    pub(super) fn find(&self, id: RequestId) -> Option<u32> {
        let id = u64::try_from(id.0).ok().filter(|id| *id != 0)?;
        let handle = low_bits(id);
        (self.get(handle).id == id).then_some(handle)
    }

    /// The request that is in flight under this lease, on the runner at that place.
    pub(super) fn find_leased(&self, lease: Lease, runner: u32) -> Option<u32> {
        let handle = self.find(lease.request)?;
        let request = self.get(handle);
        (request.attempts == lease.attempt && request.progress == Progress::InFlight { runner })
            .then_some(handle)
    }

    /// The request an entry of the agenda is about, unless that attempt is over.
    pub(super) fn current(&self, handle: u32, generation: u32) -> Option<&Request> {
        let request = self.get(handle);
        (request.id != 0 && request.generation == generation).then_some(request)
    }

    pub(super) fn next_generation(&mut self) -> u32 {
        self.last_generation = self.last_generation.wrapping_add(1).max(1);
        self.last_generation
    }

    pub(super) fn get(&self, handle: u32) -> &Request {
        &self.places[handle as usize & (self.places.len() - 1)]
    }

    pub(super) fn get_mut(&mut self, handle: u32) -> &mut Request {
        let at = handle as usize & (self.places.len() - 1);
        &mut self.places[at]
    }

    pub(super) fn leave(&mut self, handle: u32) {
        let here = self.get_mut(handle);
        here.id = 0;
        here.generation = 0;
        self.open -= 1;
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Request> {
        self.places.iter().filter(|request| request.id != 0)
    }

    /// Moves everybody to their place in a table of twice the size.
    fn grow(&mut self) {
        let size = self.places.len() * 2;
        let old = std::mem::replace(&mut self.places, vec![Request::nobody(); size]);
        for request in old.into_iter().filter(|request| request.id != 0) {
            let place = self.get_mut(low_bits(request.id));
            *place = request;
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
fn low_bits(id: u64) -> u32 {
    id as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_survive_growth_and_ids_are_never_shared() {
        let mut requests = Requests::default();
        let mut open = Vec::new();
        for nth in 0..10_000u32 {
            let handle = requests.enter(nth, Mode::Queued, Timestamp::ZERO);
            open.push((requests.get(handle).id(), handle, nth));
            // One of three stays open for long.
            if !nth.is_multiple_of(3) {
                let (_, handle, _) = open.remove(open.len() / 2);
                requests.leave(handle);
            }
        }
        assert_eq!(requests.open(), open.len());
        for (id, handle, app) in &open {
            assert_eq!(requests.find(*id), Some(*handle));
            assert_eq!(requests.get(*handle).app, *app);
        }
        let mut ids: Vec<_> = open.iter().map(|(id, ..)| *id).collect();
        ids.dedup();
        assert_eq!(ids.len(), open.len());
    }

    #[test]
    fn an_attempt_that_is_over_is_not_current() {
        let mut requests = Requests::default();
        let handle = requests.enter(0, Mode::Queued, Timestamp::ZERO);
        let generation = requests.next_generation();
        requests.get_mut(handle).generation = generation;
        assert!(requests.current(handle, generation).is_some());
        assert!(requests.current(handle, generation + 1).is_none());
        requests.leave(handle);
        assert!(requests.current(handle, generation).is_none());
    }
}
