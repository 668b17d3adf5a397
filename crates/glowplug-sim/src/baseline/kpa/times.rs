//! What an app's models say of its pods, drawn as the engine's simulation draws it: the nth start takes
//! as long here as there.

use std::time::Duration;

use glowplug_core::Timestamp;

use crate::model::{AppModel, Purpose, Sampler};

#[derive(Debug)]
pub(super) struct Times {
    pull: Option<Sampler>,
    /// When what the first start pulled is there for all.
    pulled: Option<Timestamp>,
    setup: Sampler,
    service: Sampler,
    exit: Sampler,
}

impl Times {
    pub(super) fn new(model: &AppModel, seed: u64, app: u32) -> Self {
        let sampler = |model, purpose| Sampler::new(model, seed, purpose, app);
        Self {
            pull: model.pull.as_ref().map(|pull| sampler(pull, Purpose::Pull)),
            pulled: None,
            setup: sampler(&model.setup, Purpose::Setup),
            service: sampler(&model.service, Purpose::Service),
            exit: sampler(&model.exit, Purpose::Exit),
        }
    }

    /// When the next start, begun now, is ready.
    pub(super) fn ready(&mut self, now: Timestamp) -> Timestamp {
        let pulled = match (&mut self.pull, self.pulled) {
            (None, _) => now,
            (Some(_), Some(at)) => at.max(now),
            (Some(pull), None) => {
                let at = now + Duration::from_micros(pull.draw());
                self.pulled = Some(at);
                at
            }
        };
        pulled + Duration::from_micros(self.setup.draw())
    }

    /// Of the next request that does not bring its own.
    pub(super) fn service(&mut self) -> Duration {
        Duration::from_micros(self.service.draw())
    }

    /// Of the next end.
    pub(super) fn exit(&mut self) -> Duration {
        Duration::from_micros(self.exit.draw())
    }
}
