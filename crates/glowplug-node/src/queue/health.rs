//! Whether the store takes what it is given, and since when it does not.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_store::StoreError;
use tokio::sync::watch;

use crate::shared::Shared;

/// Why the store refuses work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub since: Timestamp,
    /// When it was last met.
    pub met: Timestamp,
    pub problem: String,
    /// There is no room for new requests. Answers may find some all the same.
    is_full: bool,
}

/// Trouble that was not met for this long, while the store answers, is over.
const OVER: Duration = Duration::from_secs(10);

/// What the store's last writes came to.
#[derive(Debug)]
pub(crate) struct Health {
    trouble: Mutex<Option<Trouble>>,
    /// Answers that the store has not taken yet. While there are any, no attempt is begun: each would end
    /// in one more answer that has nowhere to go but memory.
    unkept: watch::Sender<usize>,
}

impl Default for Health {
    fn default() -> Self {
        Self { trouble: Mutex::default(), unkept: watch::channel(0).0 }
    }
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.lock().clone()
    }

    /// Whether there is no trouble that was met lately.
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        self.lock().as_ref().is_none_or(|trouble| now - trouble.met >= OVER)
    }

    /// Notes how a write went: a failure of the store's own is trouble until a write succeeds.
    pub(crate) fn note(&self, shared: &Shared, error: Option<&StoreError>) {
        match error {
            None => {
                if let Some(trouble) = self.lock().take() {
                    let lasted = shared.desk.now() - trouble.since;
                    tracing::info!("the store takes work again, after {} s", lasted.as_secs());
                }
            }
            Some(error) if is_trouble(error) => {
                shared.metrics.store_failed(error);
                let mut trouble = self.lock();
                let met = shared.desk.now();
                if trouble.is_none() {
                    tracing::error!("the store refuses work: {error}");
                }
                let since = trouble.as_ref().map_or(met, |trouble| trouble.since);
                let is_full = matches!(error, StoreError::Full { .. });
                *trouble = Some(Trouble { since, met, problem: error.to_string(), is_full });
            }
            Some(_) => {}
        }
    }

    /// As [`note`](Self::note), of an answer. That one was kept does not mean that there is room for new
    /// requests.
    pub(super) fn note_answer(&self, shared: &Shared, error: Option<&StoreError>) {
        let is_full = self.lock().as_ref().is_some_and(|trouble| trouble.is_full);
        if error.is_some() || !is_full {
            self.note(shared, error);
        }
    }

    /// One more answer waits for the store.
    pub(super) fn answer_waits(&self) {
        self.unkept.send_modify(|count| *count += 1);
    }

    pub(super) fn answer_kept(&self) {
        self.unkept.send_modify(|count| *count = count.saturating_sub(1));
    }

    /// Waits until no answer waits for the store.
    pub(super) async fn answers_kept(&self) {
        let mut unkept = self.unkept.subscribe();
        // It breaks off only when the node is gone.
        drop(unkept.wait_for(|count| *count == 0).await);
    }
}

/// Whether the store, and not what it was asked, is at fault.
fn is_trouble(error: &StoreError) -> bool {
    match error {
        StoreError::Full { .. }
        | StoreError::Unavailable { .. }
        | StoreError::Corrupt { .. }
        | StoreError::TooNew { .. } => true,
        StoreError::Duplicate(_)
        | StoreError::KeyReused { .. }
        | StoreError::Unsupported { .. }
        | StoreError::TooLarge { .. }
        | StoreError::BodyDamaged { .. } => false,
    }
}
