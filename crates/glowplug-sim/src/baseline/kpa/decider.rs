//! The decision of Knative's pod autoscaler: how many pods from how much concurrency.
//!
//! ```text
//! wanted(window) = ⌈average concurrency over the window / target⌉,
//!                  at least ⌊ready / max_scale_down⌋, at most ⌈ready × max_scale_up⌉
//! stable mode    = wanted(stable window)
//! panic mode     = the most that either window wanted since it began
//! ```
//!
//! Panic begins when the panic window, before its bounds, wants `panic_threshold` times the ready pods,
//! and ends a stable window after that was last so. `ready` counts as 1 when there is none.

use std::time::Duration;

use glowplug_core::Timestamp;

/// The numbers that a decision depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Concurrent requests one pod is meant to have.
    pub(super) target: f64,
    pub(super) panic_threshold: f64,
    pub(super) max_scale_up: f64,
    pub(super) max_scale_down: f64,
    pub(super) stable: Duration,
}

/// Average concurrency over the two windows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed {
    pub(super) stable: f64,
    pub(super) panic: f64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Decider {
    panic: Option<Panic>,
}

#[derive(Clone, Copy, Debug)]
struct Panic {
    /// When the threshold was last reached.
    since: Timestamp,
    /// The most pods wanted since it began.
    pods: u32,
}

impl Decider {
    pub(super) fn is_panicking(&self) -> bool {
        self.panic.is_some()
    }

    /// Pods wanted.
    pub(super) fn decide(
        &mut self,
        rules: &Rules,
        now: Timestamp,
        ready: u32,
        observed: Observed,
    ) -> u32 {
        let ready = f64::from(ready.max(1));
        let most = (rules.max_scale_up * ready).ceil();
        let least = (ready / rules.max_scale_down).floor();
        let bounded = |wanted: f64| whole(wanted.max(least).min(most));
        let for_stable = (observed.stable / rules.target).ceil();
        let for_panic = (observed.panic / rules.target).ceil();

        if for_panic / ready >= rules.panic_threshold {
            let pods = self.panic.map_or(0, |panic| panic.pods);
            self.panic = Some(Panic { since: now, pods });
        } else if self.panic.is_some_and(|panic| panic.since + rules.stable < now) {
            self.panic = None;
        }
        match &mut self.panic {
            None => bounded(for_stable),
            Some(panic) => {
                panic.pods = panic.pods.max(bounded(for_stable)).max(bounded(for_panic));
                panic.pods
            }
        }
    }
}

/// Neither negative nor more than can be counted.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the conversion stops at the ends of the range"
)]
fn whole(pods: f64) -> u32 {
    pods as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        target: 0.7,
        panic_threshold: 2.0,
        max_scale_up: 1_000.0,
        max_scale_down: 2.0,
        stable: Duration::from_mins(1),
    };

    /// Each step: at a second, with so many pods ready, both averages; and the pods that are wanted
    /// then.
    fn check(rules: &Rules, steps: &[(u64, u32, (f64, f64), u32)]) {
        let mut decider = Decider::default();
        for &(secs, ready, (stable, panic), expected) in steps {
            let observed = Observed { stable, panic };
            let wanted = decider.decide(rules, Timestamp::from_secs(secs), ready, observed);
            assert_eq!(wanted, expected, "at {secs} s of {steps:?}");
        }
    }

    #[test]
    fn constant_concurrency_wants_its_share_of_pods() {
        for (concurrency, expected) in
            [(0.0, 0), (0.001, 1), (0.7, 1), (0.71, 2), (1.4, 2), (10.0, 15)]
        {
            // The pods are there already, so that there is no panic and no bound.
            let ready = expected.max(1);
            check(&RULES, &[(2, ready, (concurrency, concurrency), expected)]);
        }
    }

    #[test]
    fn scale_down_is_by_half_at_most() {
        check(&RULES, &[(2, 9, (0.0, 0.0), 4), (4, 4, (0.0, 0.0), 2), (6, 2, (0.0, 0.0), 1)]);
        check(&RULES, &[(2, 1, (0.0, 0.0), 0)]);
        let slow = Rules { max_scale_down: 1.25, ..RULES };
        check(&slow, &[(2, 10, (0.0, 0.0), 8)]);
    }

    #[test]
    fn scale_up_is_bounded_by_what_is_ready() {
        let slow = Rules { max_scale_up: 1.1, ..RULES };
        check(&slow, &[(2, 10, (70.0, 70.0), 11)]);
        check(&slow, &[(2, 0, (70.0, 70.0), 2)]);
    }

    #[test]
    fn a_burst_panics_and_panic_never_scales_down() {
        check(
            &RULES,
            &[
                // 3 / 0.7 wants 5 pods, which is over twice the 2 that are ready.
                (100, 2, (0.5, 3.0), 5),
                // The burst is over, but the panic is not: nothing is given up.
                (102, 2, (0.5, 0.1), 5),
                (130, 5, (0.1, 0.0), 5),
                // More is still followed.
                (132, 5, (0.1, 4.8), 7),
                // 132 did not reach the threshold (7 / 5 < 2), so the minute counts from 100, and must
                // be over.
                (160, 7, (0.1, 0.0), 7),
                (162, 7, (0.1, 0.0), 3),
            ],
        );
    }

    #[test]
    fn panic_is_extended_while_its_threshold_is_reached() {
        check(
            &RULES,
            &[
                (100, 0, (1.0, 1.0), 2),
                (150, 1, (1.0, 1.0), 2),
                (162, 2, (0.0, 0.0), 2),
                (210, 2, (0.0, 0.0), 2),
                (212, 2, (0.0, 0.0), 1),
            ],
        );
    }

    #[test]
    fn panic_begins_at_its_threshold_exactly() {
        let check = |ready, expected| check(&RULES, &[(2, ready, (0.0, 2.8), expected)]);
        // 4 pods wanted: twice 2, but not twice 3.
        check(2, 4);
        check(3, 1);
    }
}
