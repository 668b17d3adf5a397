//! What happened, on its way to the engine.
//!
//! However untidy, the node's promises are kept: what a runner has come to is told in order, and that it
//! has ended and how an attempt did is told in the end.
//!
//! - *late*: up to [`LATE_MAX`] after it happened;
//! - *lost*: seen only when somebody looks again, every [`LOOK_AGAIN`];
//! - *twice*: on time, and once more up to [`LATE_MAX`] later, in no order.

use std::time::Duration;

use glowplug_core::event::Event;
use glowplug_core::{Action, RunnerId, Timestamp};

use super::super::Untidiness;
use super::super::agenda::Kind;
use super::super::checkers::Verdict;
use super::Driver;
use super::backend::part;
use crate::model::{micros, share_of};
use crate::traffic::Arrival;

const LATE_MAX: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_secs(10);

pub(super) type Report = Event;

impl<E, T, W> Driver<'_, T, W>
where
    E: std::error::Error + 'static,
    T: Iterator<Item = Result<Arrival, E>>,
    W: FnMut(Timestamp, u64, &Action),
{
    /// Something that a runner has come to.
    pub(super) fn report(&mut self, place: u32, event: Event) -> Verdict<()> {
        let mut at = self.when_told();
        let Some(runner) = self.facts.roster.get_mut(place) else { return Ok(()) };
        let body = &mut runner.body;
        // One before it may still be on its way.
        let before = body.reported_until.filter(|before| *before >= self.now);
        if let Some(before) = before {
            at = at.max(before);
        }
        if at > self.now || before.is_some() {
            body.reported_until = Some(at);
            self.repeat(&event);
            self.hold_up(at, event);
            return Ok(());
        }
        self.send(at, event)
    }

    /// How an attempt ended: gateways know nothing of each other, so these come in any order.
    pub(super) fn report_of_gateway(&mut self, event: Event) -> Verdict<()> {
        if self.world.untidiness == Untidiness::default() {
            return self.deliver(event);
        }
        let at = self.when_told();
        self.send(at, event)
    }

    /// Lets it come a second time, if it is to.
    fn repeat(&mut self, event: &Event) {
        let twice = self.world.untidiness.twice;
        if twice > 0.0 && self.untidiness.share() < twice {
            let again = self.now + self.some_lateness();
            self.hold_up(again, event.clone());
        }
    }

    fn send(&mut self, at: Timestamp, event: Event) -> Verdict<()> {
        self.repeat(&event);
        if at <= self.now {
            return self.tell(event);
        }
        self.hold_up(at, event);
        Ok(())
    }

    /// When the engine hears of what happens now.
    fn when_told(&mut self) -> Timestamp {
        let untidiness = self.world.untidiness;
        if untidiness.lost == 0.0 && untidiness.late == 0.0 {
            return self.now;
        }
        let fate = self.untidiness.share();
        if fate < untidiness.lost {
            let period = micros(LOOK_AGAIN);
            Timestamp::from_micros((self.now.as_micros() / period + 1) * period)
        } else if fate < untidiness.lost + untidiness.late {
            self.now + self.some_lateness()
        } else {
            self.now
        }
    }

    fn some_lateness(&mut self) -> Duration {
        Duration::from_micros(part(micros(LATE_MAX), share_of(self.untidiness.bits())))
    }

    pub(super) fn hold_up(&mut self, at: Timestamp, event: Event) {
        let index = self.held_up_free.pop().unwrap_or_else(|| {
            self.held_up.push(None);
            u32::try_from(self.held_up.len() - 1).unwrap_or(u32::MAX)
        });
        self.held_up[index as usize] = Some(event);
        self.agenda.enter(at, Kind::ReportComes, index, 0);
    }

    pub(super) fn report_comes(&mut self, index: u32) -> Verdict<()> {
        match self.held_up[index as usize].take() {
            Some(event) => {
                self.held_up_free.push(index);
                self.tell(event)
            }
            None => Ok(()),
        }
    }

    /// The engine hears of it.
    fn tell(&mut self, event: Event) -> Verdict<()> {
        match &event {
            Event::SetupStarted { runner, .. } => {
                if let Some(place) = self.facts.roster.find(*runner) {
                    self.facts.setup_started(place);
                }
            }
            Event::Ready { runner } => self.ready(*runner),
            Event::Thawed { runner } => self.facts.thawed(*runner),
            Event::Exited { runner, .. } => self.exited(*runner),
            _ => {}
        }
        self.deliver(event)
    }

    fn ready(&mut self, id: RunnerId) {
        let Some(place) = self.facts.roster.find(id) else { return };
        if self.facts.becomes_ready(place)
            && let Some(runner) = self.facts.roster.get_mut(place)
        {
            self.tally.ready(self.now, &mut runner.account);
        }
    }

    fn exited(&mut self, id: RunnerId) {
        let Some(place) = self.facts.roster.find(id) else { return };
        if !self.facts.exited(place) {
            return;
        }
        let Some(runner) = self.facts.roster.get_mut(place) else { return };
        let told = &runner.told;
        if !told.ready && !runner.account.is_ending() {
            self.tally.start_failed(told.app);
        }
        self.tally.ended(self.now, told.app, &mut runner.account, told.in_flight > 0);
    }
}
