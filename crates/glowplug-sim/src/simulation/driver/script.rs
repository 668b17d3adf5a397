//! Happenings of the scenario.

use glowplug_core::event::Event;
use glowplug_core::{Action, AppId, Timestamp};

use super::super::agenda::Kind;
use super::super::body::Stage;
use super::super::checkers::Verdict;
use super::super::happening::What;
use super::Driver;
use crate::traffic::Arrival;

impl<E, T, W> Driver<'_, T, W>
where
    E: std::error::Error + 'static,
    T: Iterator<Item = Result<Arrival, E>>,
    W: FnMut(Timestamp, u64, &Action),
{
    pub(super) fn enter_happenings(&mut self) {
        for (nth, happening) in (0..).zip(&self.world.happenings) {
            self.agenda.enter(happening.at, Kind::Happens, nth, 0);
        }
    }

    pub(super) fn happening(&mut self, nth: u32) -> Verdict<()> {
        self.happenings_left -= 1;
        let world = self.world;
        match &world.happenings[nth as usize].what {
            What::Deploy { app, spec } => {
                let starts = &mut self.apps[*app as usize].starts;
                if self.facts.revision(*app) != spec.revision {
                    starts.pulled_at = None;
                }
                self.facts.app_changed(*app, spec.clone());
                self.deliver(Event::AppChanged { app: AppId(*app), spec: spec.clone() })
            }
            What::Remove { app } => {
                self.facts.app_removed(*app);
                self.deliver(Event::AppRemoved { app: AppId(*app) })
            }
            What::Resize { capacity } => {
                self.facts.capacity_changed(capacity.clone());
                self.deliver(Event::CapacityChanged { capacity: capacity.clone() })
            }
            What::Faults { app, faults } => {
                self.apps[*app as usize].faults = *faults;
                Ok(())
            }
            What::Kill { app, runners } => self.kill(*app, *runners),
            What::Warm { app, runners } => {
                self.deliver(Event::WarmRequested { app: AppId(*app), runners: *runners })
            }
            What::ShutDown => {
                self.facts.shut_down();
                self.deliver(Event::ShutDown)
            }
        }
    }

    fn kill(&mut self, app: u32, runners: u32) -> Verdict<()> {
        let lives = |place: &u32| {
            let runner = self.facts.roster.get(*place);
            runner.is_some_and(|runner| runner.told.app == app && runner.body.stage != Stage::Gone)
        };
        let places: Vec<u32> =
            self.facts.roster.by_age().into_iter().filter(lives).take(runners as usize).collect();
        places.into_iter().try_for_each(|place| self.die(place, "killed from outside"))
    }
}
