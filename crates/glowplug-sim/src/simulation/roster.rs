//! Runners that exist, from their start until the engine has dropped them.
//!
//! A runner has a place here, which is given to another after it. Sequence numbers are looked up in pages
//! that go when nobody is on them any more, so memory follows the runners that exist, not those that did.

use glowplug_core::resources::Allocation;
use glowplug_core::{RunnerId, Timestamp};

use super::body::{Body, Plan};
use super::sharing::Sharing;
use crate::outcome::Account;

/// Sequence numbers on a page.
const PAGE_SIZE: usize = 256;
const NOBODY: u32 = u32::MAX;

/// What the engine has decided about a runner's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    No,
    /// It gets no new requests.
    Decided,
    /// It was told to end within a grace period.
    Told,
    /// It was told to end at once.
    ToldAtOnce,
}

/// Whether the engine has taken its processor away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Warmth {
    Warm,
    Frozen,
    /// It is given back, which the engine has not heard of.
    Thawing,
}

/// What the engine was told of a runner and has asked of it: what the checkers go by.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) id: RunnerId,
    pub(super) app: u32,
    pub(super) setup_started: bool,
    pub(super) ready: bool,
    pub(super) warmth: Warmth,
    pub(super) exited: bool,
    pub(super) end: End,
    pub(super) in_flight: u32,
}

/// What is looked at for every request, close together.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) told: Told,
    pub(super) body: Body,
    pub(super) account: Account,
}

/// What is looked at when a runner starts or ends, or is shared.
#[derive(Debug, Default)]
pub(super) struct Cold {
    pub(super) allocation: Allocation,
    pub(super) plan: Plan,
    /// Used if requests slow each other down.
    pub(super) sharing: Sharing,
}

#[derive(Debug)]
struct Page {
    places: Box<[u32; PAGE_SIZE]>,
    taken: u32,
}

#[derive(Debug, Default)]
pub(super) struct Roster {
    runners: Vec<Option<Runner>>,
    cold: Vec<Cold>,
    /// Of the places: outlives the runners, so that entries about an earlier one are known to be void.
    generations: Vec<u32>,
    free: Vec<u32>,
    pages: Vec<Option<Page>>,
    boot: u32,
}

impl Told {
    pub(super) fn new(id: RunnerId, app: u32) -> Self {
        Self {
            id,
            app,
            setup_started: false,
            ready: false,
            warmth: Warmth::Warm,
            exited: false,
            end: End::No,
            in_flight: 0,
        }
    }

    /// It counts against `max_concurrency`.
    pub(super) fn is_alive(&self) -> bool {
        self.end == End::No && !self.exited && self.warmth != Warmth::Frozen
    }
}

impl Roster {
    pub(super) fn new(boot: u32) -> Self {
        Self { boot, ..Self::default() }
    }

    /// Gives a runner its place. `None`: its id is taken already.
    pub(super) fn enter(&mut self, told: Told, now: Timestamp) -> Option<u32> {
        let (page, line) = spot(told.id);
        if self.find(told.id).is_some() || told.id.boot != self.boot {
            return None;
        }
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let runner = Runner { told, body: Body::default(), account: Account::new(now) };
        let place = self.free_place();
        self.runners[place as usize] = Some(runner);
        self.cold[place as usize] = Cold::default();
        let fresh = || Page { places: Box::new([NOBODY; PAGE_SIZE]), taken: 0 };
        let page = self.pages[page].get_or_insert_with(fresh);
        page.places[line] = place;
        page.taken += 1;
        Some(place)
    }

    fn free_place(&mut self) -> u32 {
        if let Some(place) = self.free.pop() {
            return place;
        }
        self.runners.push(None);
        self.cold.push(Cold::default());
        self.generations.push(0);
        u32::try_from(self.runners.len() - 1).expect("runner ids have 32 bits")
    }

    pub(super) fn find(&self, id: RunnerId) -> Option<u32> {
        let (page, line) = spot(id);
        let place = self.pages.get(page)?.as_ref()?.places[line];
        (place != NOBODY && id.boot == self.boot).then_some(place)
    }

    pub(super) fn leave(&mut self, place: u32) {
        let Some(runner) = self.runners[place as usize].take() else { return };
        let (page, line) = spot(runner.told.id);
        self.new_generation(place);
        self.free.push(place);
        if let Some(taken) = &mut self.pages[page] {
            taken.places[line] = NOBODY;
            taken.taken -= 1;
            if taken.taken == 0 {
                self.pages[page] = None;
            }
        }
    }

    pub(super) fn get(&self, place: u32) -> Option<&Runner> {
        self.runners.get(place as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut Runner> {
        self.runners.get_mut(place as usize)?.as_mut()
    }

    pub(super) fn cold_mut(&mut self, place: u32) -> &mut Cold {
        &mut self.cold[place as usize]
    }

    /// Both parts of a runner.
    pub(super) fn both_mut(&mut self, place: u32) -> Option<(&mut Runner, &mut Cold)> {
        let cold = self.cold.get_mut(place as usize)?;
        Some((self.runners[place as usize].as_mut()?, cold))
    }

    /// Makes void what the agenda has about the runner's next stage.
    pub(super) fn new_generation(&mut self, place: u32) -> u32 {
        let generation = &mut self.generations[place as usize];
        *generation = generation.wrapping_add(1);
        *generation
    }

    pub(super) fn is_current(&self, place: u32, generation: u32) -> bool {
        self.generations[place as usize] == generation
    }

    pub(super) fn len(&self) -> usize {
        self.runners.len() - self.free.len()
    }

    /// All runners with their places, oldest first.
    pub(super) fn by_age(&self) -> Vec<u32> {
        let mut places: Vec<(u32, u32)> = (0..)
            .zip(&self.runners)
            .filter_map(|(place, runner)| Some((runner.as_ref()?.told.id.sequence, place)))
            .collect();
        places.sort_unstable();
        places.into_iter().map(|(_, place)| place).collect()
    }
}

fn spot(id: RunnerId) -> (usize, usize) {
    let sequence = id.sequence as usize;
    (sequence / PAGE_SIZE, sequence % PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sequence: u32) -> Told {
        Told::new(RunnerId { boot: 1, sequence }, 0)
    }

    #[test]
    fn places_are_used_again_and_pages_go() {
        let mut roster = Roster::new(1);
        let first = roster.enter(told(1), Timestamp::ZERO).unwrap();
        assert_eq!(roster.enter(told(1), Timestamp::ZERO), None, "twice");
        for sequence in 2..100_000 {
            let place = roster.enter(told(sequence), Timestamp::ZERO).unwrap();
            let generation = roster.new_generation(place);
            assert_eq!(roster.find(told(sequence).id), Some(place));
            roster.leave(place);
            assert!(!roster.is_current(place, generation));
            assert_eq!(roster.find(told(sequence).id), None);
        }
        assert_eq!(roster.runners.len(), 2);
        assert_eq!(roster.pages.iter().flatten().count(), 1);
        assert_eq!(roster.find(told(1).id), Some(first));
        assert_eq!(roster.len(), 1);
    }
}
