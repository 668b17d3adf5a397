//! What the engine wants done, under the lock: callers are answered on the spot, the rest is left to others.

use glowplug_core::request::{Mode, Outcome, Refusal};
use glowplug_core::{Action, Event, Lease, RequestId, RunnerId, Timestamp};
use glowplug_gateway::host::Slot;
use tokio::sync::{oneshot, watch};

use super::{Attempt, Own, State, UnderWay, Verdict, Work};

impl State {
    pub(super) fn perform(&mut self, now: Timestamp, action: Action, own: &mut Own) {
        match action {
            Action::Assign { lease, mode } => self.assign(now, lease, mode, own),
            Action::Refuse { request, mode, refusal } => {
                self.refuse(now, request, mode, refusal, own);
            }
            Action::Deliver { lease } => self.attempt_over(lease, Verdict::Deliver, own),
            Action::Retry { lease, .. } => self.attempt_over(lease, Verdict::Retry, own),
            Action::Revoke { lease, refusal } => {
                self.records.refused(now, lease.request, &refusal);
                if let Some(attempt) = self.attempts.get_mut(&lease.request) {
                    let withdrawn = UnderWay::Withdrawn(refusal.clone());
                    if let UnderWay::Holding(revoke) = std::mem::replace(attempt, withdrawn) {
                        // Nobody waits for it if the attempt has just ended.
                        drop(revoke.send(refusal));
                    }
                }
            }
            Action::Interrupt { lease } => {
                if let Some(address) = self.addresses.get(&lease.runner).cloned() {
                    self.outbox.push_back(Work::Interrupt { lease, address });
                }
            }
            Action::Start { runner, app, revision, allocation, cause } => {
                self.metrics.start(app, cause);
                self.records.start(now, runner, app, revision, &allocation, cause);
                self.outbox.push_back(Work::Start { runner, app, revision, allocation, cause });
            }
            Action::Stop { runner, grace, reason } => {
                if let Some(grace) = grace {
                    self.leave(runner, now + grace);
                }
                self.outbox.push_back(Work::Stop { runner, grace, reason });
            }
            Action::Freeze { runner } => self.outbox.push_back(Work::Freeze { runner }),
            Action::Thaw { runner } => self.outbox.push_back(Work::Thaw { runner }),
            Action::Probe { runner } => self.outbox.push_back(Work::Probe { runner }),
            Action::Forget { runner } => {
                self.addresses.remove(&runner);
                self.leaving.remove(&runner);
                self.outbox.push_back(Work::Forget { runner });
            }
            Action::Note(decision) => {
                self.metrics.note(&decision);
                self.records.note(&decision);
                self.tape.note(&decision, &self.records);
                self.outbox.push_back(Work::Journal(decision));
            }
        }
    }

    /// Tells a runner's websockets when it is killed, those of today and those that are just being opened.
    fn leave(&mut self, runner: RunnerId, killed_at: Timestamp) {
        let leaving = self.leaving.entry(runner).or_insert_with(|| watch::channel(None).0);
        leaving.send_replace(Some(killed_at));
    }

    /// Nothing more is to happen to a request.
    fn close(&mut self, request: RequestId) {
        if let Some(record) = self.records.closed(request) {
            self.tape.request(record);
        }
    }

    fn assign(&mut self, now: Timestamp, lease: Lease, mode: Mode, own: &mut Own) {
        let Some(address) = self.addresses.get(&lease.runner).cloned() else {
            // A ready runner has an address; without one nothing can be sent, which ends the attempt.
            self.engine.handle(now, Event::Finished { lease, outcome: Outcome::ConnectFailed });
            return;
        };
        if let Some(record) = self.records.assigned(now, lease) {
            self.metrics.assigned(record.app, record.arrived, now);
        }
        let (revoke, revoked) = oneshot::channel();
        self.attempts.insert(lease.request, UnderWay::Holding(revoke));
        match mode {
            Mode::Queued => {
                self.outbox.push_back(Work::Attempt(Attempt { lease, address, revoked }));
            }
            Mode::Direct => {
                let slot = Slot { lease, address, revoked: Some(revoked) };
                if own.request == Some(lease.request) && own.slot.is_none() {
                    own.slot = Some(Ok(slot));
                } else if self
                    .callers
                    .remove(&lease.request)
                    .is_none_or(|caller| caller.send(Ok(slot)).is_err())
                {
                    // The caller went away just now; its place is free again.
                    let outcome = Outcome::CallerGone;
                    self.engine.handle(now, Event::Finished { lease, outcome });
                }
            }
        }
    }

    fn refuse(
        &mut self,
        now: Timestamp,
        request: RequestId,
        mode: Mode,
        refusal: Refusal,
        own: &mut Own,
    ) {
        self.records.refused(now, request, &refusal);
        self.close(request);
        match mode {
            Mode::Queued => {
                self.outbox.push_back(Work::CompleteRefused { request, refusal, attempts: 0 });
            }
            Mode::Direct if own.request == Some(request) && own.slot.is_none() => {
                own.slot = Some(Err(refusal));
            }
            Mode::Direct => {
                if let Some(caller) = self.callers.remove(&request) {
                    // A caller that is gone needs no answer.
                    drop(caller.send(Err(refusal)));
                }
            }
        }
    }

    fn attempt_over(&mut self, lease: Lease, verdict: Verdict, own: &mut Own) {
        let withdrawn = match self.attempts.remove(&lease.request) {
            Some(UnderWay::Withdrawn(refusal)) => Some(refusal),
            Some(UnderWay::Holding(_)) | None => None,
        };
        if verdict == Verdict::Deliver {
            self.close(lease.request);
        }
        self.metrics.attempt_over(verdict == Verdict::Retry);
        match (verdict, withdrawn) {
            _ if own.request == Some(lease.request) => own.verdict = Some(verdict),
            // Withdrawn for good: its runner will not answer for it. (For a direct request the gateway
            // has been told, and this finds nothing to complete.)
            (Verdict::Deliver, Some(refusal)) => {
                let (request, attempts) = (lease.request, lease.attempt);
                self.outbox.push_back(Work::CompleteRefused { request, refusal, attempts });
            }
            _ => {}
        }
    }
}
