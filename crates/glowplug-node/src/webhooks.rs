//! Calls the webhooks of queued requests that are complete.
//!
//! ```text
//! complete ─► store: due ─► lines, one for each host ─► call ─┬─► delivered
//!               ▲                                             ├─► failed
//!               └──────────────── later ◄─────────────────────┘
//! ```
//!
//! Nothing but the store knows what is due, so a restart forgets nothing: what was given out and not told of
//! is given out again after [`DELIVERY_LEASE`]. A receiver may therefore be called twice; it gets the same
//! bytes each time. Here are held, within [`lines::HELD_BYTES_MAX`], the deliveries that wait for a turn.
//! What may be called, and how, is in [`glowplug_gateway::webhook`].

mod lines;
mod schedule;
mod standing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use glowplug_core::{RequestId, Timestamp};
use glowplug_gateway::webhook::{
    Client, Outcome, Payload, SigningKey, Target, TargetError, WebhookOptions,
};
use glowplug_store::{
    DELIVERY_LEASE, Delivery, DeliveryAttempt, DeliveryState, Store, StoreError, crash_point,
};
use tokio::sync::Notify;

use self::lines::{Lines, Waiting};
use self::schedule::Schedule;
use crate::clock::Clock;
use crate::config::WebhooksConfig;
use crate::metrics::Metrics;

/// The setting in which the nodes of a store keep their common key.
const KEY_SETTING: &str = "webhook_key";
/// Deliveries taken from the store at a time.
const BATCH: usize = 256;
/// Batches taken at one look: the calls under way stand still meanwhile.
const BATCHES_PER_LOOK_MAX: usize = 4;
/// While no more can be held. What is due stays in the store, where other nodes find it.
const FULL_RETRY: Duration = Duration::from_secs(1);
/// Between two looks into the store. Many requests that end together are looked for once.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(20);
/// And at the latest: another node of the same store may have ended with calls undone.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(30);
/// After the store could not be read.
const STORE_RETRY: Duration = Duration::from_secs(5);
/// For what one call needs of a store that is away: between two tries, and at most. Together with the longest
/// call it is less than [`DELIVERY_LEASE`], or nearly so.
const CALL_RETRY: Duration = Duration::from_secs(1);
const STORE_PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Webhooks {
    store: Arc<dyn Store>,
    clock: Clock,
    metrics: Arc<Metrics>,
    client: Client,
    key: SigningKey,
    schedule: Schedule,
    /// Something may have become due.
    wake: Notify,
}

/// A call that is over.
struct Called {
    waiting: Waiting,
    /// How long the receiver took; `None` if it was not called.
    took: Option<Duration>,
    again_at: Option<Timestamp>,
}

/// The key that the nodes of this store sign with, made by the first of them.
pub(crate) async fn signing_key(store: &dyn Store) -> anyhow::Result<SigningKey> {
    let made = SigningKey::generate()?;
    let kept = store.claim_setting(String::new(), KEY_SETTING.to_owned(), made).await?;
    Ok(SigningKey::parse(&kept)?)
}

/// What the config says of webhooks.
pub(crate) fn options(config: &WebhooksConfig) -> WebhookOptions {
    let allow = config.allow.iter().map(|network| {
        let network = network.to_string();
        network.parse().expect("the config has read it as a network")
    });
    WebhookOptions {
        allow: allow.collect(),
        first_timeout: config.first_timeout,
        timeout: config.timeout,
        calls_max: config.calls_max,
        ca_file: config.ca_file.clone(),
        ..WebhookOptions::default()
    }
}

impl Webhooks {
    /// `retention`: how long the store keeps answers.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Clock,
        metrics: Arc<Metrics>,
        client: Client,
        key: SigningKey,
        retention: Duration,
    ) -> Self {
        let schedule = Schedule::new(client.options(), retention);
        Self { store, clock, metrics, client, key, schedule, wake: Notify::new() }
    }

    /// Refuses a URL that would never be called, while its caller can still be told.
    pub(crate) fn check(&self, url: &str) -> Result<(), TargetError> {
        self.client.target(url).map(drop)
    }

    /// A request is complete, or a person asked for a call.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// What receivers verify signatures with.
    pub(crate) fn public_keys(&self) -> serde_json::Value {
        self.key.public_keys()
    }

    /// Calls what is due until it is dropped. Calls under way are dropped with it.
    pub(crate) async fn run(self: Arc<Self>) {
        let options = self.client.options();
        let mut lines = Lines::new(options.concurrency_max, options.per_host_max);
        let mut calls: FuturesUnordered<BoxFuture<'_, Called>> = FuturesUnordered::new();
        let mut look_at = Timestamp::ZERO;
        loop {
            if self.clock.now() >= look_at {
                look_at = self.look(&mut lines).await;
            }
            while let Some(waiting) = lines.next(self.calls_end_by()) {
                calls.push(Box::pin(self.deliver(waiting)));
            }
            tokio::select! {
                Some(called) = calls.next(), if !calls.is_empty() => {
                    lines.done(&called.waiting, called.took);
                    look_at = look_at.min(called.again_at.unwrap_or(Timestamp::MAX));
                }
                () = tokio::time::sleep(look_at - self.clock.now()) => {}
                () = self.wake.notified() => {
                    look_at = look_at.min(self.clock.now() + LOOK_INTERVAL_MIN);
                }
            }
        }
    }

    /// Puts what is due in line. Says when to look again.
    async fn look(&self, lines: &mut Lines) -> Timestamp {
        for _ in 0..BATCHES_PER_LOOK_MAX {
            let now = self.clock.now();
            if lines.is_full() {
                return now + FULL_RETRY;
            }
            match self.take_due(now, lines).await {
                Ok(Some(next)) => {
                    return next.clamp(now + LOOK_INTERVAL_MIN, now + LOOK_INTERVAL_MAX);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!("webhooks cannot be read: {error}");
                    return now + STORE_RETRY;
                }
            }
        }
        self.clock.now() + LOOK_INTERVAL_MIN
    }

    /// One batch. `None`: there may be more.
    async fn take_due(
        &self,
        now: Timestamp,
        lines: &mut Lines,
    ) -> Result<Option<Timestamp>, StoreError> {
        // Giving out writes, and most of the time there is nothing to give out.
        match self.store.next_delivery().await? {
            None => return Ok(Some(Timestamp::MAX)),
            Some(at) if at > now => return Ok(Some(at)),
            Some(_) => {}
        }
        let due = self.store.due_deliveries(now, BATCH).await?;
        crash_point("node.webhook.given_out");
        if due.is_empty() {
            // Another node was faster.
            return Ok(Some(now));
        }
        for delivery in due {
            let target = self.client.target(&delivery.url);
            let host = target.as_ref().map_or_else(|_| String::new(), Target::host);
            lines.push(Waiting { delivery, host, until: now + DELIVERY_LEASE });
        }
        Ok(None)
    }

    /// A call that begins now has ended by then.
    fn calls_end_by(&self) -> Timestamp {
        let options = self.client.options();
        self.clock.now() + options.timeout.max(options.first_timeout)
    }

    async fn deliver(&self, waiting: Waiting) -> Called {
        let mut took = None;
        let again_at = match self.call(&waiting.delivery, &mut took).await {
            Ok(Some(DeliveryState::Due(at))) => Some(at),
            Ok(_) => None,
            Err(error) => {
                // It is given out again when its lease has run out.
                let request = waiting.delivery.request;
                tracing::warn!(%request, "a call of its webhook could not be kept: {error}");
                None
            }
        };
        Called { waiting, took, again_at }
    }

    /// What became of the webhook; `None` if its request has been dropped. `took`: set when the call is over.
    async fn call(
        &self,
        delivery: &Delivery,
        took: &mut Option<Duration>,
    ) -> Result<Option<DeliveryState>, StoreError> {
        let by = self.clock.now() + STORE_PATIENCE;
        let body = self.insist(by, || self.body(delivery.request)).await?;
        let Some(body) = body else { return Ok(None) };
        let at = self.clock.now();
        let outcome = match self.client.target(&delivery.url) {
            Ok(target) => {
                let options = self.client.options();
                let first = delivery.attempts == 0;
                let timeout = if first { options.first_timeout } else { options.timeout };
                let signed = self.key.sign(delivery.request, &delivery.caller, at, &body);
                self.client.call(&target, signed, body.into(), timeout).await
            }
            Err(error) => Outcome::Refused(error.to_string()),
        };
        crash_point("node.webhook.called");
        let now = self.clock.now();
        *took = Some(now - at);
        let (state, problem) = self.schedule.after(delivery, &outcome, now, rand::random());
        self.metrics.webhook_called(match state {
            DeliveryState::Delivered => "delivered",
            DeliveryState::Due(_) => "again",
            DeliveryState::Failed => "failed",
        });
        if state == DeliveryState::Failed {
            let request = delivery.request;
            let why = problem.as_deref().unwrap_or_default();
            tracing::info!(%request, calls = delivery.attempts + 1, "its webhook has failed: {why}");
        }
        let status = match outcome {
            Outcome::Answered(status) => Some(status),
            Outcome::Refused(_) | Outcome::Failed(_) => None,
        };
        let attempt = DeliveryAttempt { at, took: now - at, status, problem };
        let by = self.clock.now() + STORE_PATIENCE;
        self.insist(by, || self.store.called(delivery.request, attempt.clone(), state)).await?;
        Ok(Some(state))
    }

    /// Asks a store that is away again, but not for ever: the delivery is given out again some day.
    async fn insist<T, F>(&self, by: Timestamp, ask: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        loop {
            match ask().await {
                Err(StoreError::Unavailable { .. }) if self.clock.now() < by => {
                    tokio::time::sleep(CALL_RETRY).await;
                }
                answer => return answer,
            }
        }
    }

    /// What the webhook of a request says; `None` if the request has been dropped.
    async fn body(&self, request: RequestId) -> Result<Option<Vec<u8>>, StoreError> {
        let record = self.store.request(request).await?;
        let Some(completed) = record.and_then(|record| record.completed) else { return Ok(None) };
        let Some(response) = self.store.response(request).await? else { return Ok(None) };
        let error = completed.error.as_ref().map(|(message, _)| message.as_str());
        let payload = Payload { request, status: response.status, body: &response.body, error };
        Ok(Some(payload.to_json()))
    }

    /// Asks for one more call, now, as a person does. `None`: the request has no webhook, or is not complete.
    pub(crate) async fn call_again(
        &self,
        request: RequestId,
    ) -> Result<Option<DeliveryState>, StoreError> {
        let Some(record) = self.store.delivery(request).await? else { return Ok(None) };
        if record.state == DeliveryState::Delivered {
            return Ok(Some(record.state));
        }
        let at = self.clock.now();
        let problem = Some("not a call: a person asked for one more".to_owned());
        let asked = DeliveryAttempt { at, took: Duration::ZERO, status: None, problem };
        let state = DeliveryState::Due(at);
        self.store.called(request, asked, state).await?;
        self.wake();
        Ok(Some(state))
    }
}
