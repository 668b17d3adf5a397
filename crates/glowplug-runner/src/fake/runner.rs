//! One fake runner: a task that sets up, serves and ends.

use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::{fs, io};

use futures::stream::{self, BoxStream, StreamExt};
use glowplug_core::{RunnerId, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::behaviour::Random;
use super::log::FakeLog;
use super::server::{self, Listener};
use super::{FakeBehaviour, FakeStop, FakeWorld, lock};
use crate::backend::{
    Clock, Exit, ExitCause, Listen, LogLine, Notice, ObservedRunner, ObservedState, RunnerAddress,
    RunnerSpec, StopMode,
};
use crate::probe;

/// Orders that wait for the runner. Further ones add nothing.
const ORDERS_MAX: usize = 8;
const TAIL_LINES_MAX: usize = 20;
/// What a frozen one says it holds.
const HELD_BYTES: u64 = 1 << 20;
const CRASH_CODE: i32 = 3;
const START_FAILURE_CODE: i32 = 1;

#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Stop(StopMode),
    Crash,
}

pub(super) struct FakeRunner {
    spec: RunnerSpec,
    address: RunnerAddress,
    socket_dir: Option<PathBuf>,
    behaviour: FakeBehaviour,
    started_at: Timestamp,
    clock: Clock,
    random: Mutex<Random>,
    unhealthy_answers: AtomicU32,
    log: Mutex<FakeLog>,
    life: watch::Sender<Life>,
    orders: mpsc::Sender<Order>,
    /// How many backends are attached.
    visitors: watch::Sender<usize>,
    /// Whether a backend has told of the end.
    reported: AtomicBool,
}

/// What has happened so far.
#[derive(Clone, Debug, Default)]
struct Life {
    ready: bool,
    stopping: bool,
    frozen: bool,
    /// How often it was frozen or thawed.
    turns: u64,
    exit: Option<Exit>,
    /// Grows with the log, to wake those who follow it.
    log_lines: u64,
}

/// An attached backend, until it is dropped.
pub(super) struct Visit(Arc<FakeRunner>);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.visitors.send_modify(|count| *count -= 1);
    }
}

impl FakeRunner {
    pub(super) fn start(
        world: &FakeWorld,
        spec: RunnerSpec,
        behaviour: FakeBehaviour,
    ) -> io::Result<Arc<Self>> {
        let (address, socket_dir) = match spec.listen {
            Listen::Port => {
                // Bound again when the setup is over. Should another take the port in between, the
                // start fails as a real one would.
                let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                (RunnerAddress::Tcp(free.local_addr()?), None)
            }
            Listen::UnixSocket => {
                let dir = world.shared.socket_dir.with_extension(spec.id.to_string());
                fs::DirBuilder::new().mode(0o700).create(&dir)?;
                (RunnerAddress::Unix(dir.join("app.sock")), Some(dir))
            }
        };
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        let runner = Arc::new(Self {
            address,
            socket_dir,
            started_at: world.now(),
            clock: Arc::clone(&world.shared.clock),
            random: Mutex::new(Random::for_runner(world.shared.seed, spec.id)),
            unhealthy_answers: AtomicU32::new(behaviour.unhealthy_answers),
            log: Mutex::default(),
            life: watch::Sender::default(),
            orders,
            visitors: watch::Sender::new(0),
            reported: AtomicBool::new(false),
            spec,
            behaviour,
        });
        tokio::spawn(Arc::clone(&runner).live(receiver));
        Ok(runner)
    }

    pub(super) fn id(&self) -> RunnerId {
        self.spec.id
    }

    pub(super) fn has_ended(&self) -> bool {
        self.life.borrow().exit.is_some()
    }

    pub(super) fn is_reported(&self) -> bool {
        self.reported.load(Ordering::Acquire)
    }

    pub(super) fn log_bytes(&self) -> usize {
        lock(&self.log).bytes()
    }

    /// `false`: it has ended.
    pub(super) fn order(&self, order: Order) -> bool {
        if self.has_ended() {
            return false;
        }
        if matches!(order, Order::Stop(_)) {
            self.life.send_modify(|life| (life.stopping, life.frozen) = (true, false));
        }
        // A full queue holds orders that end the runner already.
        let _ = self.orders.try_send(order);
        true
    }

    pub(super) fn freeze(&self, frozen: bool) {
        self.life.send_modify(|life| {
            life.frozen = frozen && life.ready && !life.stopping;
            life.turns += 1;
        });
    }

    /// Until it has a processor.
    pub(super) async fn runs(&self) {
        // The sender is this runner's own, so waiting on it cannot fail.
        let _ = self.life.subscribe().wait_for(|life| !life.frozen).await;
    }

    pub(super) fn answers_unhealthy(&self, path: &str) -> bool {
        let less_one = |left: u32| left.checked_sub(1);
        self.spec.health_path.as_deref() == Some(path)
            && self
                .unhealthy_answers
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less_one)
                .is_ok()
    }

    pub(super) fn crashes_now(&self) -> bool {
        lock(&self.random).happens(self.behaviour.crash_per_request)
    }

    pub(super) fn visit(self: &Arc<Self>) -> Visit {
        self.visitors.send_modify(|count| *count += 1);
        Visit(Arc::clone(self))
    }

    pub(super) fn say(&self, text: &str) {
        lock(&self.log).push(text, (self.clock)());
        self.life.send_modify(|life| life.log_lines += 1);
    }

    async fn live(self: Arc<Self>, orders: mpsc::Receiver<Order>) {
        for line in &self.behaviour.says {
            self.say(line);
        }
        let cause = tokio::select! {
            biased;
            cause = self.obey(orders) => cause,
            cause = Arc::clone(&self).work() => cause,
            cause = self.miss_the_node() => cause,
        };
        if let Some(dir) = &self.socket_dir {
            // Nothing else is in it, and nothing else uses it.
            let _ = fs::remove_dir_all(dir);
        }
        let log_tail = lock(&self.log).tail(TAIL_LINES_MAX);
        self.life.send_modify(|life| life.exit = Some(Exit { cause, log_tail }));
    }

    /// Setup and service, until it fails of itself.
    async fn work(self: Arc<Self>) -> ExitCause {
        if let Some(code) = self.behaviour.exit_at_once {
            return ExitCause::Code(code);
        }
        let (setup, fails) = {
            let mut random = lock(&self.random);
            let setup = self.behaviour.setup.draw(&mut random);
            (setup, random.happens(self.behaviour.start_failure))
        };
        sleep(setup).await;
        if fails {
            self.say("the setup has failed, as it was told to");
            return ExitCause::Code(START_FAILURE_CODE);
        }
        if self.behaviour.never_ready {
            return std::future::pending().await;
        }
        match Listener::bind(&self.address).await {
            Ok(listener) => {
                let serving = server::serve(listener, Arc::clone(&self));
                tokio::join!(serving, self.become_ready());
                ExitCause::Code(0)
            }
            Err(error) => {
                self.say(&format!("cannot listen on {}: {error}", self.address));
                ExitCause::Code(START_FAILURE_CODE)
            }
        }
    }

    async fn become_ready(&self) {
        probe::until_ready(&self.address, self.spec.health_path.as_deref()).await;
        self.life.send_modify(|life| life.ready = true);
    }

    /// Until an order ends the runner.
    async fn obey(&self, mut orders: mpsc::Receiver<Order>) -> ExitCause {
        const SIGTERM: ExitCause = ExitCause::Signal(15);
        const SIGKILL: ExitCause = ExitCause::Signal(9);
        let mut ends: Option<(Instant, ExitCause)> = None;
        loop {
            let end = ends.as_ref().map(|(moment, _)| *moment);
            let time_is_up = async {
                match end {
                    Some(moment) => sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            let grace = tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Stop(StopMode::Graceful { grace })) => grace,
                    Some(Order::Stop(StopMode::Kill)) => return SIGKILL,
                    Some(Order::Crash) => return ExitCause::Code(CRASH_CODE),
                    // Never: this runner itself can send.
                    None => return ExitCause::Unknown,
                },
                () = time_is_up => return ends.map_or(ExitCause::Unknown, |(_, cause)| cause),
            };
            let killed_at = Instant::now() + grace;
            let next = match self.behaviour.stop {
                FakeStop::Prompt => return SIGTERM,
                FakeStop::After(span) if span < grace => {
                    (Instant::now() + span, ExitCause::Code(0))
                }
                FakeStop::After(_) | FakeStop::Ignored => (killed_at, SIGKILL),
            };
            // A second stop can bring the end forward, never put it off.
            if ends.as_ref().is_none_or(|(moment, _)| next.0 < *moment) {
                ends = Some(next);
            }
        }
    }

    /// Until no backend has been attached for as long as the spec allows.
    async fn miss_the_node(&self) -> ExitCause {
        let mut visitors = self.visitors.subscribe();
        loop {
            // The sender is this runner's own, so waiting on it cannot fail.
            let _ = visitors.wait_for(|count| *count == 0).await;
            tokio::select! {
                () = sleep(self.spec.orphan_timeout) => {
                    self.say("no node has come back for this runner: stopping it");
                    return ExitCause::Signal(15);
                }
                _ = visitors.wait_for(|count| *count > 0) => {}
            }
        }
    }

    /// Tells a backend what happens, to the end.
    pub(super) async fn forward(
        &self,
        world: &FakeWorld,
        notices: &mpsc::Sender<Notice>,
        tell_spawned: bool,
    ) {
        let runner = self.id();
        if tell_spawned {
            let rung = self.spec.warm.rung();
            let _ = notices.send(Notice::Spawned { runner, at: world.now(), rung }).await;
        }
        let mut life = self.life.subscribe();
        let mut told_ready = false;
        let mut told_turns = life.borrow().turns;
        loop {
            let Life { ready, stopping, frozen, turns, exit, .. } =
                life.borrow_and_update().clone();
            if ready && !told_ready && !stopping && exit.is_none() {
                told_ready = true;
                let (at, address) = (world.now(), self.address.clone());
                let _ = notices.send(Notice::Ready { runner, at, address }).await;
            }
            if turns > told_turns {
                told_turns = turns;
                let at = world.now();
                let notice = if frozen {
                    Notice::Frozen { runner, at, frozen: Ok(HELD_BYTES) }
                } else {
                    Notice::Thawed { runner, at }
                };
                let _ = notices.send(notice).await;
            }
            if let Some(exit) = exit {
                // Where nobody listens any more, the end is left for the next backend to tell.
                if let Ok(permit) = notices.reserve().await {
                    self.reported.store(true, Ordering::Release);
                    permit.send(Notice::Exited { runner, at: world.now(), exit });
                }
                return;
            }
            if life.changed().await.is_err() {
                return;
            }
        }
    }

    /// `None`: it has ended.
    pub(super) fn describe(&self) -> Option<ObservedRunner> {
        let life = self.life.borrow();
        let state = match (&life.exit, life.stopping, life.ready) {
            (Some(_), _, _) => return None,
            (None, true, _) => ObservedState::Stopping,
            (None, false, true) => ObservedState::Ready(self.address.clone()),
            (None, false, false) => ObservedState::Starting,
        };
        Some(ObservedRunner {
            id: self.id(),
            app: self.spec.app.clone(),
            revision: self.spec.revision,
            labels: self.spec.labels.clone(),
            state,
            is_frozen: life.frozen,
            started_at: self.started_at,
        })
    }
}

/// The log from line `from`; with `follow`, until the runner has ended.
pub(super) fn log_lines(
    runner: Arc<FakeRunner>,
    from: u64,
    follow: bool,
) -> BoxStream<'static, LogLine> {
    let life = runner.life.subscribe();
    let batches =
        stream::unfold((runner, life, from), move |(runner, mut life, from)| async move {
            loop {
                let is_over = life.borrow_and_update().exit.is_some();
                let lines = lock(&runner.log).from(from);
                if let Some(last) = lines.last() {
                    let next = last.number + 1;
                    return Some((stream::iter(lines), (runner, life, next)));
                }
                if is_over || !follow || life.changed().await.is_err() {
                    return None;
                }
            }
        });
    batches.flatten().boxed()
}
