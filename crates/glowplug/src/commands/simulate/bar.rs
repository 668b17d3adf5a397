//! How far a simulation has come, if it takes its time: on a terminal's standard error, and nowhere else.

use std::cell::Cell;
use std::time::Duration;

use glowplug_core::time::Pretty;
use glowplug_core::{Action, Timestamp};
use glowplug_sim::scenario::TrafficError;
use glowplug_sim::traffic::Arrival;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// It appears when a simulation has taken this long.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
/// Requests and actions between two looks at the clock.
const LOOK_EVERY: u64 = 4_096;

/// While traffic comes it fills; after that it says what goes on, since nobody knows how long that takes.
pub(super) struct Bar {
    drawn: ProgressBar,
    length: Duration,
    shown_after: Duration,
    /// Requests and actions so far.
    seen: Cell<u64>,
}

impl Bar {
    pub(super) fn new(length: Duration) -> Self {
        Self::shown_after(length, SHOWN_AFTER)
    }

    fn shown_after(length: Duration, shown_after: Duration) -> Self {
        let style = ProgressStyle::with_template("{spinner} {bar:30} {percent:>3} % {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar =
            ProgressBar::with_draw_target(Some(length.as_secs()), ProgressDrawTarget::hidden());
        Self { drawn: bar.with_style(style), length, shown_after, seen: Cell::new(0) }
    }

    /// The traffic, looked at as it comes.
    pub(super) fn traffic<T>(
        &self,
        traffic: T,
    ) -> impl Iterator<Item = Result<Arrival, TrafficError>>
    where
        T: Iterator<Item = Result<Arrival, TrafficError>>,
    {
        traffic.inspect(|arrival| {
            if let Ok(arrival) = arrival
                && self.is_time()
            {
                self.drawn.set_position(arrival.at.since(Timestamp::ZERO).as_secs());
            }
        })
    }

    /// What is done, with or without traffic.
    pub(super) fn actions(&self) -> impl FnMut(Timestamp, u64, &Action) {
        |now, events, _| {
            if self.is_time() {
                self.comes_to(now.since(Timestamp::ZERO), events);
            }
        }
    }

    pub(super) fn clear(&self) {
        self.drawn.finish_and_clear();
    }

    fn is_time(&self) -> bool {
        let seen = self.seen.get() + 1;
        self.seen.set(seen);
        if !seen.is_multiple_of(LOOK_EVERY) || self.drawn.elapsed() < self.shown_after {
            return false;
        }
        if self.drawn.is_hidden() {
            self.drawn.set_draw_target(ProgressDrawTarget::stderr());
        }
        true
    }

    fn comes_to(&self, now: Duration, events: u64) {
        self.drawn.set_position(now.min(self.length).as_secs());
        let after = now.saturating_sub(self.length);
        self.drawn.set_message(if after.is_zero() {
            format!("{events} events")
        } else {
            format!("{} after the traffic, {events} events", Pretty(after))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_when_no_traffic_comes_any_more() {
        let bar = Bar::shown_after(Duration::from_hours(1), Duration::ZERO);
        let mut done = bar.actions();
        let action = Action::Probe { runner: glowplug_core::RunnerId { boot: 1, sequence: 1 } };
        for (minutes, position, message) in [
            (30, 1_800, "4096 events"),
            (60, 3_600, "8192 events"),
            (90, 3_600, "30 min after the traffic, 12288 events"),
        ] {
            let before = bar.seen.get();
            for event in before + 1..=before + LOOK_EVERY {
                done(Timestamp::from_secs(minutes * 60), event, &action);
            }
            assert_eq!((bar.drawn.position(), bar.drawn.message().as_str()), (position, message));
        }
    }
}
