//! Performs what the engine wants done, outside its lock.
//!
//! One task takes the desk's outbox in order and hands each piece to its owner: everything about one runner
//! to that runner's task, queued attempts to the queue, decisions to the journal. It never waits for any of
//! them.

use std::collections::HashMap;
use std::sync::Arc;

use glowplug_core::decision::Decision;
use glowplug_core::{AppId, RunnerId};
use glowplug_runner::StopMode;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::desk::Work;
use crate::queue::Queue;
use crate::runner_task::{self, Command, Start};
use crate::shared::Shared;

/// Commands on their way to one runner's task: stop, kill, ready, a few probes. Further probes are
/// dropped; a stop repeats by the engine's own timer.
const COMMANDS_MAX: usize = 16;

pub(crate) struct Executor {
    shared: Arc<Shared>,
    journal: mpsc::Sender<Decision>,
    runners: HashMap<RunnerId, mpsc::Sender<Command>>,
}

impl Executor {
    pub(crate) fn new(shared: Arc<Shared>, journal: mpsc::Sender<Decision>) -> Self {
        Self { shared, journal, runners: HashMap::new() }
    }

    /// Runs until cancelled; what is in the outbox then is still performed.
    pub(crate) async fn run(mut self, cancelled: CancellationToken) {
        loop {
            let shared = self.shared.clone();
            let filled = shared.desk.outbox_filled.notified();
            for work in shared.desk.take_outbox() {
                self.perform(work);
            }
            tokio::select! {
                () = filled => {}
                () = cancelled.cancelled() => break,
            }
        }
        for work in self.shared.desk.take_outbox() {
            self.perform(work);
        }
    }

    fn perform(&mut self, work: Work) {
        match work {
            Work::Start { runner, app, revision, allocation, cause } => {
                let start = Start { runner, app, revision, allocation, cause };
                self.look_after(runner, app, Some(start));
            }
            Work::Watch { runner, app } => self.look_after(runner, app, None),
            Work::Stop { runner, grace, reason } => {
                tracing::debug!(%runner, %reason, "stopping");
                let mode = match grace {
                    Some(grace) => StopMode::Graceful { grace },
                    None => StopMode::Kill,
                };
                self.command(runner, Command::Stop(mode));
            }
            Work::Freeze { runner } => self.command(runner, Command::Freeze),
            Work::Thaw { runner } => self.command(runner, Command::Thaw),
            Work::Probe { runner } => self.command(runner, Command::Probe),
            Work::Forget { runner } => {
                self.runners.remove(&runner);
                self.shared.ended(runner);
            }
            Work::Attempt(attempt) => Queue::attempt(&self.shared, attempt),
            Work::Interrupt { lease, address } => {
                self.shared.queue.interrupt(&self.shared, lease, address);
            }
            Work::CompleteRefused { request, refusal, attempts } => {
                self.shared.queue.refused(&self.shared, request, refusal, attempts);
            }
            Work::Journal(decision) => self.write_down(decision),
        }
    }

    fn look_after(&mut self, runner: RunnerId, app: AppId, start: Option<Start>) {
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        self.runners.insert(runner, commands);
        let shared = self.shared.clone();
        self.shared.tasks.spawn(runner_task::run(shared, runner, app, start, received));
    }

    fn command(&self, runner: RunnerId, command: Command) {
        let sent = self.runners.get(&runner).is_some_and(|task| task.try_send(command).is_ok());
        if !sent {
            tracing::debug!(%runner, "the runner's task is busy or gone");
        }
    }

    fn write_down(&self, decision: Decision) {
        tracing::info!(target: "glowplug::decision", "{decision}");
        if self.journal.try_send(decision).is_err() {
            self.shared.metrics.journal_dropped(1);
        }
    }
}
