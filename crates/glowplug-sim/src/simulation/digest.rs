//! A fingerprint of a course: every action in its order, with its time.
//!
//! Notes are left out. They say what was decided and cause nothing, so a course is the same with or without
//! them.

use glowplug_core::{Action, Lease, RunnerId, Timestamp};

const FACTOR: u64 = 0x517c_c1b7_2722_0a95;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest(u64);

impl Digest {
    pub(super) fn value(self) -> u64 {
        // The last words stay in the high bits otherwise.
        self.0 ^ (self.0 >> 32)
    }

    fn fold(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    }

    fn fold_runner(&mut self, tag: u64, runner: RunnerId) {
        self.fold((tag << 32) ^ u64::from(runner.sequence));
    }

    fn fold_lease(&mut self, tag: u64, lease: Lease) {
        self.fold_runner(tag, lease.runner);
        self.fold_request(u64::from(lease.attempt), lease.request.0);
    }

    #[expect(clippy::cast_possible_truncation, reason = "ids count up from 1")]
    fn fold_request(&mut self, tag: u64, id: u128) {
        self.fold((tag << 48) ^ id as u64);
    }

    pub(super) fn take(&mut self, now: Timestamp, action: &Action) {
        if matches!(action, Action::Note(_)) {
            return;
        }
        self.fold(now.as_micros());
        match action {
            Action::Start { runner, app, cause, allocation, .. } => {
                self.fold_runner(1, *runner);
                self.fold(u64::from(app.0) << 8 | *cause as u64);
                for gpu in &allocation.gpus {
                    self.fold(u64::from(*gpu));
                }
            }
            Action::Stop { runner, grace, .. } => {
                self.fold_runner(2 + u64::from(grace.is_some()), *runner);
            }
            Action::Freeze { runner } => self.fold_runner(12, *runner),
            Action::Thaw { runner } => self.fold_runner(13, *runner),
            Action::Probe { runner } => self.fold_runner(4, *runner),
            Action::Forget { runner } => self.fold_runner(5, *runner),
            Action::Assign { lease, .. } => self.fold_lease(6, *lease),
            Action::Deliver { lease } => self.fold_lease(7, *lease),
            Action::Retry { lease, .. } => self.fold_lease(8, *lease),
            Action::Revoke { lease, .. } => self.fold_lease(9, *lease),
            Action::Interrupt { lease } => self.fold_lease(10, *lease),
            Action::Refuse { request, .. } => self.fold_request(11, request.0),
            Action::Note(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use glowplug_core::RequestId;

    use super::*;

    #[test]
    fn every_part_counts() {
        let lease = |request, attempt, sequence| Lease {
            request: RequestId(request),
            attempt,
            runner: RunnerId { boot: 1, sequence },
        };
        let digest = |secs: u64, actions: &[Action]| {
            let mut digest = Digest::default();
            for action in actions {
                digest.take(Timestamp::from_secs(secs), action);
            }
            digest.value()
        };
        let deliver =
            |request, attempt, runner| Action::Deliver { lease: lease(request, attempt, runner) };
        let one = digest(1, &[deliver(1, 1, 1)]);
        for other in [
            digest(2, &[deliver(1, 1, 1)]),
            digest(1, &[deliver(2, 1, 1)]),
            digest(1, &[deliver(1, 2, 1)]),
            digest(1, &[deliver(1, 1, 2)]),
            digest(1, &[Action::Interrupt { lease: lease(1, 1, 1) }]),
            digest(1, &[deliver(1, 1, 1), deliver(1, 1, 1)]),
            digest(1, &[]),
        ] {
            assert_ne!(one, other);
        }
        let (first, second) = (deliver(1, 1, 1), deliver(2, 1, 1));
        assert_ne!(digest(1, &[first.clone(), second.clone()]), digest(1, &[second, first]));
    }
}
