//! Requests on runners.

use std::time::Duration;

use glowplug_core::event::Event;
use glowplug_core::request::{Answer, Mode, Outcome};
use glowplug_core::{Action, Lease, Timestamp};

use super::super::agenda::Kind;
use super::super::body::Stage;
use super::super::checkers::Verdict;
use super::super::requests::{Ending, NOWHERE};
use super::Driver;
use super::backend::part;
use crate::model::{Faults, mix, share_of};
use crate::traffic::Arrival;

const OK: u16 = 200;
const ERROR: u16 = 500;

impl<E, T, W> Driver<'_, T, W>
where
    E: std::error::Error + 'static,
    T: Iterator<Item = Result<Arrival, E>>,
    W: FnMut(Timestamp, u64, &Action),
{
    /// The engine gives a request to a runner.
    pub(super) fn serve(&mut self, lease: Lease, mode: Mode) -> Verdict<()> {
        let (handle, place) = self.facts.assign(self.now, lease, mode)?;
        let generation = self.facts.requests.next_generation();
        let request = self.facts.requests.get_mut(handle);
        if lease.attempt == 1 {
            let arrived = request.arrived;
            self.tally.first_assigned(request.app, arrived, self.now.since(arrived));
        }
        request.generation = generation;
        request.failed = false;
        let app = &self.apps[request.app as usize];
        let (ending, work) = draw_ending(app.faults, request.luck, lease.attempt, request.work);
        request.ending = ending;
        let Some(runner) = self.facts.roster.get_mut(place) else { return Ok(()) };
        let first = runner.told.in_flight == 1;
        self.tally.assigned(self.now, &mut runner.account, first);
        let body = &mut runner.body;
        if body.stage != Stage::Serving {
            self.agenda.enter(self.now, Kind::ConnectFails, handle, generation);
            return Ok(());
        }
        request.on = place;
        request.nth = u32::try_from(body.on.len()).unwrap_or(u32::MAX);
        body.on.push(handle);
        if app.slowdown > 0.0 {
            let sharing = &mut self.facts.roster.cold_mut(place).sharing;
            sharing.join(self.now, app.slowdown, (handle, generation), work);
            self.expect_shared_work(place);
        } else {
            let at = self.now + Duration::from_micros(work);
            self.agenda.enter(at, Kind::AttemptEnds, handle, generation);
        }
        Ok(())
    }

    /// Enters into the agenda which of the requests that share a runner is done next.
    fn expect_shared_work(&mut self, place: u32) {
        let Some((runner, cold)) = self.facts.roster.both_mut(place) else { return };
        let slowdown = self.apps[runner.told.app as usize].slowdown;
        let requests = &self.facts.requests;
        let sharing = &mut cold.sharing;
        let next = sharing
            .next(slowdown, |share| requests.current(share.request, share.generation).is_some());
        self.sharing_generation = self.sharing_generation.wrapping_add(1);
        sharing.generation = self.sharing_generation;
        if let Some((at, _)) = next {
            self.agenda.enter(at, Kind::SharedWorkEnds, place, self.sharing_generation);
        }
    }

    pub(super) fn shared_work_ends(&mut self, place: u32, generation: u32) -> Verdict<()> {
        let Some((runner, cold)) = self.facts.roster.both_mut(place) else { return Ok(()) };
        let sharing = &mut cold.sharing;
        if sharing.generation != generation {
            return Ok(());
        }
        let slowdown = self.apps[runner.told.app as usize].slowdown;
        let requests = &self.facts.requests;
        let next = sharing
            .next(slowdown, |share| requests.current(share.request, share.generation).is_some());
        match next {
            Some((_, share)) => self.attempt_ends(share.request, share.generation),
            None => Ok(()),
        }
    }

    pub(super) fn attempt_ends(&mut self, handle: u32, generation: u32) -> Verdict<()> {
        let Some(request) = self.facts.requests.current(handle, generation) else { return Ok(()) };
        let (place, ending) = (request.on, request.ending);
        let status = match ending {
            Ending::Answer => OK,
            Ending::Error => ERROR,
            Ending::Crash => return self.die(place, "crashed"),
        };
        self.take_away(handle);
        self.facts.requests.get_mut(handle).failed = status == ERROR;
        let answer = Answer { status, ..Answer::default() };
        self.report_finished(handle, place, Outcome::Answered(answer))
    }

    /// An attempt met a runner that has ended without the engine's knowing.
    pub(super) fn connect_fails(&mut self, handle: u32, generation: u32) -> Verdict<()> {
        let Some(request) = self.facts.requests.current(handle, generation) else { return Ok(()) };
        let super::super::requests::Progress::InFlight { runner } = request.progress else {
            return Ok(());
        };
        let request = self.facts.requests.get_mut(handle);
        (request.failed, request.generation) = (true, 0);
        self.report_finished(handle, runner, Outcome::ConnectFailed)
    }

    fn report_finished(&mut self, handle: u32, place: u32, outcome: Outcome) -> Verdict<()> {
        let request = self.facts.requests.get(handle);
        let Some(runner) = self.facts.roster.get(place) else { return Ok(()) };
        let lease =
            Lease { request: request.id(), attempt: request.attempts, runner: runner.told.id };
        self.report_of_gateway(Event::Finished { lease, outcome })
    }

    /// Breaks the connections of all requests on a runner.
    pub(super) fn break_all_on(&mut self, place: u32) -> Verdict<()> {
        let Some(runner) = self.facts.roster.get_mut(place) else { return Ok(()) };
        let broken = std::mem::take(&mut runner.body.on);
        let mut attempts = Vec::with_capacity(broken.len());
        for handle in broken {
            let request = self.facts.requests.get_mut(handle);
            (request.on, request.failed) = (NOWHERE, true);
            attempts.push((handle, request.generation));
        }
        for (handle, generation) in attempts {
            // What followed from the one before may have taken this one away.
            if self.facts.requests.current(handle, generation).is_some() {
                self.facts.requests.get_mut(handle).generation = 0;
                self.report_finished(handle, place, Outcome::Disconnected)?;
            }
        }
        Ok(())
    }

    /// Takes a request off the runner that works on it, if one does.
    pub(super) fn take_away(&mut self, handle: u32) {
        let request = self.facts.requests.get_mut(handle);
        let (place, nth) = (request.on, request.nth);
        (request.on, request.generation) = (NOWHERE, 0);
        let Some(runner) = self.facts.roster.get_mut(place) else { return };
        let body = &mut runner.body;
        body.on.swap_remove(nth as usize);
        if let Some(moved) = body.on.get(nth as usize) {
            self.facts.requests.get_mut(*moved).nth = nth;
        }
        let is_last = body.on.is_empty() && body.stage == Stage::Ending;
        let slowdown = self.apps[runner.told.app as usize].slowdown;
        if slowdown > 0.0 {
            self.facts.roster.cold_mut(place).sharing.leave(self.now, slowdown);
            self.expect_shared_work(place);
        }
        if is_last {
            self.ending_without_work(place);
        }
    }

    /// The engine knows that an attempt is over.
    pub(super) fn release(&mut self, place: u32) {
        let Some(runner) = self.facts.roster.get_mut(place) else { return };
        let last = runner.told.in_flight == 0;
        self.tally.released(self.now, &mut runner.account, last, runner.told.exited);
    }
}

/// How an attempt ends, and after how much work.
fn draw_ending(faults: Faults, luck: u64, attempt: u32, work: u64) -> (Ending, u64) {
    if faults.crash == 0.0 && faults.error == 0.0 {
        return (Ending::Answer, work);
    }
    let bits = mix(luck ^ u64::from(attempt));
    let fate = share_of(bits);
    if fate < faults.crash {
        (Ending::Crash, part(work, share_of(mix(bits))))
    } else if fate < faults.crash + faults.error {
        (Ending::Error, work)
    } else {
        (Ending::Answer, work)
    }
}
