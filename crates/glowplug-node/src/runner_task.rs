//! Everything the node does about one runner, in order: prepare, start, watch, probe, stop.
//!
//! The task ends when the engine has forgotten the runner. Reports of the backend (spawned, ready, exited)
//! do not pass through here: they go from the backend straight to the engine, see `backend_notices`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use glowplug_core::decision::StartCause;
use glowplug_core::resources::Allocation;
use glowplug_core::{AppId, Event, RunnerAddress, RunnerId};
use glowplug_image::store::Mounted;
use glowplug_runner::{Exit, ExitCause, Notice, StopMode};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::apps::HealthCheck;
use crate::launch::{self, Prepared};
use crate::probe;
use crate::shared::Shared;

/// Between two regular health checks (fal's number).
const HEALTH_INTERVAL: Duration = Duration::from_secs(15);

/// The signals that ask a program to end; their numbers are the same on every architecture of Linux.
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

#[derive(Debug)]
pub(crate) enum Command {
    Stop(StopMode),
    /// Take its processor away, or give it back.
    Freeze,
    Thaw,
    /// See whether it accepts connections; with a health check that is not regular, run it.
    Probe,
}

#[derive(Debug)]
pub(crate) struct Start {
    pub runner: RunnerId,
    pub app: AppId,
    pub revision: u32,
    pub allocation: Allocation,
    pub cause: StartCause,
}

/// Everything about a runner: from its start, or from when it was taken over.
pub(crate) async fn run(
    shared: Arc<Shared>,
    runner: RunnerId,
    app: AppId,
    start: Option<Start>,
    mut commands: mpsc::Receiver<Command>,
) {
    let started = match start {
        Some(start) => begin(&shared, &start, &mut commands).await,
        None => Some(Held(None)),
    };
    let Some(_held) = started else {
        // It was never there, or is already told to be gone.
        while commands.recv().await.is_some() {}
        return;
    };
    watch(&shared, runner, app, commands).await;
}

/// What must stay in its place while the runner is there.
struct Held(#[expect(dead_code, reason = "it is held, not looked at")] Option<Mounted>);

/// Prepares and starts. `None`: there is nothing to watch.
async fn begin(
    shared: &Arc<Shared>,
    start: &Start,
    commands: &mut mpsc::Receiver<Command>,
) -> Option<Held> {
    let runner = start.runner;
    let exited = |detail: String| shared.desk.report(Event::Exited { runner, detail });
    let prepared = tokio::select! {
        prepared = launch::prepare(shared, start) => prepared,
        () = stop_wanted(commands) => {
            exited("stopped before it was started".into());
            return None;
        }
    };
    let Prepared { spec, image } = match prepared {
        Ok(prepared) => prepared,
        Err(reason) => {
            exited(reason);
            return None;
        }
    };
    if let Err(error) = shared.backend.ensure(&spec).await {
        exited(format!("could not be started: {}", chain(&error)));
        return None;
    }
    Some(Held(image))
}

async fn stop_wanted(commands: &mut mpsc::Receiver<Command>) {
    while let Some(command) = commands.recv().await {
        if matches!(command, Command::Stop(_)) {
            return;
        }
    }
}

async fn watch(
    shared: &Arc<Shared>,
    runner: RunnerId,
    app: AppId,
    mut commands: mpsc::Receiver<Command>,
) {
    let mut failures = 0;
    // Nothing answers a health check without a processor.
    let mut is_frozen = shared.desk.is_frozen(runner);
    if is_frozen && let Err(error) = shared.backend.freeze(runner).await {
        // What it holds was told to an earlier life of the node. This one takes it for nothing.
        tracing::warn!(%runner, "it is not known what it holds: {}", chain(&error));
    }
    // Looked up each time: a runner may be taken over before its app is deployed.
    let health = || shared.apps.by_id(app).and_then(|app| app.deployed()?.health.clone());
    let start_period = health().map_or(HEALTH_INTERVAL, |check| check.start_period);
    let mut ticks = interval_at(Instant::now() + start_period, HEALTH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unserved = pin!(shared.images.late.unserved(runner));
    let mut is_served = true;
    loop {
        tokio::select! {
            () = &mut unserved, if is_served => {
                is_served = false;
                let detail = "what serves the files of its image has died".to_owned();
                shared.desk.report(Event::Unhealthy { runner, detail });
            }
            command = commands.recv() => match command {
                None => return,
                Some(Command::Stop(mode)) => {
                    if let Err(error) = shared.backend.stop(runner, mode).await {
                        tracing::error!(%runner, "cannot stop: {}", chain(&error));
                    }
                }
                Some(Command::Freeze) => {
                    is_frozen = true;
                    if let Err(error) = shared.backend.freeze(runner).await {
                        is_frozen = false;
                        let detail = chain(&error);
                        shared.desk.report(Event::FreezeFailed { runner, detail });
                    }
                }
                Some(Command::Thaw) => {
                    is_frozen = false;
                    // What was not asked in all that time is not asked at once.
                    ticks.reset();
                    failures = 0;
                    if let Err(error) = shared.backend.thaw(runner).await {
                        let detail = format!("it could not be thawed: {}", chain(&error));
                        shared.desk.report(Event::Unhealthy { runner, detail });
                    }
                }
                Some(Command::Probe) => {
                    if let Some(detail) = look(shared, runner, health().as_ref()).await {
                        shared.desk.report(Event::Unhealthy { runner, detail });
                    }
                }
            },
            _ = ticks.tick(), if !is_frozen => {
                let regular = health().filter(|check| check.regularly);
                let (Some(check), Some(address)) = (regular, shared.desk.address(runner)) else {
                    continue;
                };
                match probe::health(&address, &check).await {
                    Ok(()) => failures = 0,
                    Err(problem) => {
                        failures += 1;
                        if failures >= check.failure_threshold {
                            let detail = format!("its health check failed {failures} times: {problem}");
                            shared.desk.report(Event::Unhealthy { runner, detail });
                        }
                    }
                }
            }
        }
    }
}

/// What is wrong with a runner right now, if anything.
async fn look(
    shared: &Arc<Shared>,
    runner: RunnerId,
    health: Option<&HealthCheck>,
) -> Option<String> {
    let address: Arc<RunnerAddress> = shared.desk.address(runner)?;
    if let Err(problem) = probe::accepts(&address).await {
        return Some(format!("it no longer accepts connections: {problem}"));
    }
    let problem = probe::health(&address, health?).await.err()?;
    Some(format!("its health check failed: {problem}"))
}

/// Carries the backend's reports to the engine, in their order, until the backend is gone.
pub(crate) async fn backend_notices(shared: Arc<Shared>, mut notices: mpsc::Receiver<Notice>) {
    while let Some(notice) = notices.recv().await {
        if shared.snapshots.takes(&notice) {
            continue;
        }
        match notice {
            Notice::Spawned { runner, rung, .. } => {
                shared.snapshots.runner_spawned(&shared, runner, rung);
                shared.zygotes.runner_spawned(&shared, runner, rung);
                shared.desk.report(Event::SetupStarted { runner, rung });
            }
            Notice::Ready { runner, address, .. } => {
                shared.read_marks(runner);
                shared.desk.ready(runner, address);
                shared.announce_ready(runner);
                shared.images.late.settled(runner);
                shared.snapshots.runner_ready(&shared, runner);
                shared.zygotes.runner_ready(&shared, runner);
            }
            Notice::Frozen { runner, frozen: Ok(held_bytes), .. } => {
                shared.desk.report(Event::Frozen { runner, held_bytes });
            }
            Notice::Frozen { runner, frozen: Err(detail), .. } => {
                shared.desk.report(Event::FreezeFailed { runner, detail });
            }
            Notice::Thawed { runner, .. } => shared.desk.report(Event::Thawed { runner }),
            Notice::Touched { runner, files } => {
                // Written to the disk, which no other report is to wait for.
                let (keeper, now) = (shared.clone(), shared.desk.now());
                shared.tasks.spawn(async move {
                    keeper.images.end_recording(runner, files, now).await;
                });
            }
            Notice::NotRestored { runner, problem } => {
                shared.snapshots.not_restored(runner, &problem);
            }
            Notice::Captured { runner, problem } => {
                shared.snapshots.captured(runner, problem);
            }
            Notice::Exited { runner, exit, .. } => {
                let failed = ended_by_itself(&exit.cause).then(|| describe(&exit));
                let better = shared.snapshots.runner_exited(runner, failed.as_deref());
                let told = better.map_or_else(|| describe(&exit), str::to_owned);
                if let Some(address) = shared.desk.address(runner) {
                    shared.forwarder.forget(&address);
                }
                shared.zygotes.runner_exited(&shared, runner);
                if !shared.desk.exited(runner, told, ended_by_itself(&exit.cause)) {
                    // In a task of its own, since the supervisor may take its time to be gone.
                    let forgetful = shared.clone();
                    shared.tasks.spawn(async move { forgetful.forget_log(runner).await });
                }
            }
        }
    }
}

fn ended_by_itself(cause: &ExitCause) -> bool {
    match cause {
        ExitCause::Code(code) => *code != 0,
        ExitCause::Signal(signal) => ![SIGTERM, SIGKILL].contains(signal),
        ExitCause::OutOfMemory | ExitCause::SpawnFailed(_) => true,
        ExitCause::Unknown => false,
    }
}

/// An exit in one line.
pub(crate) fn describe(exit: &Exit) -> String {
    let cause = match &exit.cause {
        ExitCause::Code(code) => format!("exited with code {code}"),
        ExitCause::Signal(signal) => format!("was killed by signal {signal}"),
        ExitCause::OutOfMemory => "ran out of the memory its machine type allows".to_owned(),
        ExitCause::SpawnFailed(problem) => format!("could not be started: {problem}"),
        ExitCause::Unknown => "ended while nobody watched".to_owned(),
    };
    match telling_line(&exit.log_tail) {
        Some(line) => format!("{cause}; its last words: {}", brief(line)),
        None => cause,
    }
}

/// The line that says most about an end: the last one that speaks of an error, else the last.
fn telling_line(log_tail: &[String]) -> Option<&str> {
    let lines = || log_tail.iter().rev().map(|line| line.trim()).filter(|line| !line.is_empty());
    let speaks_of_error = |line: &&str| {
        let line = line.to_lowercase();
        ["error", "exception", "cannot", "failed", "not found"]
            .iter()
            .any(|word| line.contains(word))
    };
    lines().find(speaks_of_error).or_else(|| lines().next())
}

fn brief(text: &str) -> String {
    const BRIEF_CHARS_MAX: usize = 300;
    match text.char_indices().nth(BRIEF_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
