//! What an app writes while it works on a queued request: that request's log.
//!
//! A program's lines carry no request, so they are told apart by time. When an app works on several
//! requests at once, each of them has the lines of all.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use glowplug_core::{Lease, RunnerId, Timestamp};
use glowplug_gateway::host::QueueLog;
use glowplug_runner::{LogLine, LogStream};

use crate::shared::Shared;

/// How far each runner's log was read, so that no request begins at its start.
#[derive(Debug, Default)]
pub(super) struct LogEnds(Mutex<HashMap<RunnerId, u64>>);

impl LogEnds {
    fn ends(&self) -> MutexGuard<'_, HashMap<RunnerId, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, runner: RunnerId) -> u64 {
        self.ends().get(&runner).copied().unwrap_or(0)
    }

    fn read(&self, runner: RunnerId, end: u64) {
        let mut ends = self.ends();
        let known = ends.entry(runner).or_default();
        *known = end.max(*known);
    }

    pub(super) fn forget(&self, runner: RunnerId) {
        self.ends().remove(&runner);
    }
}

/// Reads the words of one attempt.
pub(super) struct Words {
    shared: Arc<Shared>,
    lease: Lease,
    began: Timestamp,
    /// The next line's number.
    next: u64,
}

impl Words {
    pub(super) fn new(shared: &Arc<Shared>, lease: Lease, began: Timestamp) -> Self {
        let next = shared.queue.log_ends.of(lease.runner);
        Self { shared: shared.clone(), lease, began, next }
    }

    /// Shows them to whoever follows the request, while the attempt runs.
    pub(super) async fn follow(&mut self) -> Infallible {
        self.read(true).await;
        std::future::pending().await
    }

    /// Takes what is there after the answer.
    pub(super) async fn take_last(&mut self) {
        self.read(false).await;
    }

    async fn read(&mut self, follow: bool) {
        let shared = self.shared.clone();
        if let Ok(mut lines) = shared.backend.logs(self.lease.runner, self.next, follow).await {
            while let Some(line) = lines.next().await {
                self.line(line);
            }
        }
    }

    fn line(&mut self, line: LogLine) {
        if line.number < self.next {
            return;
        }
        self.next = line.number + 1;
        self.shared.queue.log_ends.read(self.lease.runner, self.next);
        let at = Timestamp::from_micros(line.at_micros);
        if at < self.began {
            return;
        }
        let level = match line.stream {
            LogStream::Stderr => "STDERR",
            _ => "STDOUT",
        };
        let log = QueueLog { message: line.text, level: level.into(), source: "run".into(), at };
        self.shared.queue.said(self.lease.request, log);
    }
}
