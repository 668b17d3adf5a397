//! Signs that somebody is about to use an app: its page was opened, the status of a request was asked for.
//!
//! Callers may ask for a status many times a second, so few of the signs reach the engine: one for each app
//! in [`INTERVAL`], which is told without a lock. They say something of apps with `policy = "auto"` alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use glowplug_core::spec::Policy;
use glowplug_core::{Event, Timestamp};

use crate::apps::App;
use crate::shared::Shared;

/// Between two signs for one app.
const INTERVAL: Duration = Duration::from_secs(1);

/// When the last sign for an app was reported, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct LastSign(AtomicU64);

impl LastSign {
    /// Whether a sign is to be reported at this moment; if so, the next one later.
    fn admits(&self, now: Timestamp) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let due = now - Timestamp::from_micros(last) >= INTERVAL;
        let taken = |()| {
            let now = now.as_micros();
            self.0.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        due.then_some(()).is_some_and(taken)
    }
}

/// Somebody shows interest in an app.
pub(crate) fn shown(shared: &Shared, app: &App) {
    if !app.last_sign.admits(shared.desk.now()) {
        return;
    }
    let scaling = app.deployed().map(|deployed| deployed.spec.scaling);
    if scaling.is_some_and(|scaling| matches!(scaling.policy, Policy::Auto(_))) {
        shared.desk.report(Event::Interest { app: app.id });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sign_a_second_is_admitted() {
        let (last, began) = (LastSign::default(), Timestamp::from_secs(1_000));
        let admitted = (0..100).filter(|nth| last.admits(began + INTERVAL / 10 * *nth)).count();
        assert_eq!(admitted, 10);
    }
}
