//! One task per runner: listens to its shim, probes readiness, passes on stops, tells the end.
//!
//! ```text
//! starting ──probe ok──► ready ──stop──► stopping ──► ended
//!     └──────────stop─────────────────────▲   ▲
//!                     shim gone: remains are killed and buried
//! ```

use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use glowplug_core::RunnerId;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::codec::{Framed, LinesCodec};

use super::layout::Ownership;
use super::{CONTACT_PAUSE, CONTACT_TIMEOUT, Inner, Runner, RunnerState, adopt, logs};
use crate::backend::{Exit, ExitCause, Notice, TouchedFiles};
use crate::probe;
use crate::proc_table::{ProcessMark, kill_if};
use crate::protocol::{
    FromShim, MESSAGE_BYTES_MAX, OPENED_FILE, PROCESSES_FILE, REPORTED_FILE, RunnerRecord,
    SHIM_ERRORS_FILE, ToShim,
};

/// Commands that wait for the watcher, which hands them on at once.
const COMMANDS_MAX: usize = 16;
/// Readers that wait for the log to catch up; more of them read what is there.
const LOG_READERS_MAX: usize = 256;
/// A shim that is still starting its program hears nothing: files of an image may be slow to come. If it has
/// not ended this long after it should have, it is killed, and its runner with it.
const UNHEARD_TIMEOUT: Duration = Duration::from_secs(2);
/// Of what a broken shim says, this much is passed on.
const SHIM_ERROR_BYTES_MAX: usize = 2_000;

#[derive(Debug)]
pub(super) enum Command {
    Tell(ToShim),
    /// Answered once all that the program has written is in the log file.
    CatchUpLog(oneshot::Sender<()>),
}

type Connection = Framed<UnixStream, LinesCodec>;

pub(super) struct Watcher {
    inner: Arc<Inner>,
    id: RunnerId,
    dir: PathBuf,
    record: Arc<RunnerRecord>,
    /// Known if this backend has started it.
    shim: Option<ProcessMark>,
    commands: mpsc::Receiver<Command>,
    state: Arc<watch::Sender<RunnerState>>,
    is_frozen: Arc<AtomicBool>,
}

/// A watcher that has found its runner alive.
pub(super) struct Attached {
    watcher: Watcher,
    connection: Connection,
}

/// Waits for the shim, so that it leaves no zombie even after the backend has let go of it.
pub(super) fn reap(mut shim: Child) -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        // Its status says nothing that its exit report does not.
        let _ = shim.wait().await;
        let _ = sender.send(());
    });
    receiver
}

fn framed(stream: UnixStream) -> Connection {
    Framed::new(stream, LinesCodec::new_with_max_length(MESSAGE_BYTES_MAX))
}

/// The next message; `None` once the shim is gone or cannot be understood.
async fn receive(connection: &mut Connection) -> Option<FromShim> {
    let line = connection.next().await?.ok()?;
    serde_json::from_str(&line).ok()
}

impl Watcher {
    pub(super) fn new(
        inner: &Arc<Inner>,
        id: RunnerId,
        record: RunnerRecord,
        state: RunnerState,
    ) -> (Runner, Self) {
        let (command_sender, commands) = mpsc::channel(COMMANDS_MAX);
        let state = Arc::new(watch::Sender::new(state));
        let record = Arc::new(record);
        let runner = Runner {
            record: Arc::clone(&record),
            commands: command_sender,
            state: Arc::clone(&state),
            is_frozen: Arc::default(),
        };
        let is_frozen = Arc::clone(&runner.is_frozen);
        let dir = inner.layout.dir(id);
        (
            runner,
            Self {
                inner: Arc::clone(inner),
                id,
                dir,
                record,
                shim: None,
                commands,
                state,
                is_frozen,
            },
        )
    }

    /// Watches a runner that this backend has started.
    pub(super) async fn run(
        mut self,
        connection: UnixStream,
        shim: Option<ProcessMark>,
        end: Option<oneshot::Receiver<()>>,
    ) {
        self.shim = shim;
        self.watch(framed(connection), end, false).await;
    }

    /// Learns what the runner does now. `None` if it ended in this moment.
    pub(super) async fn attach(self, connection: UnixStream) -> Option<Attached> {
        let mut connection = framed(connection);
        let hello = tokio::time::timeout(CONTACT_TIMEOUT, receive(&mut connection)).await;
        let Ok(Some(FromShim::Attached { ready, stopping, frozen })) = hello else { return None };
        self.is_frozen.store(frozen, Ordering::Release);
        let state = match (stopping, ready) {
            (true, _) => RunnerState::Stopping,
            (false, true) => RunnerState::Ready,
            (false, false) => RunnerState::Starting,
        };
        self.state.send_replace(state);
        Some(Attached { watcher: self, connection })
    }

    async fn watch(
        mut self,
        mut connection: Connection,
        shim: Option<oneshot::Receiver<()>>,
        is_spawned: bool,
    ) {
        let detach = self.inner.detach.clone();
        let cause = tokio::select! {
            biased;
            () = detach.cancelled() => return,
            cause = self.follow(&mut connection, is_spawned) => cause,
        };
        if let Some(cause) = cause {
            // The end of the connection is the end of the shim, for whoever started it.
            let gone = async {
                while connection.next().await.is_some() {}
                if let Some(shim) = shim {
                    let _ = shim.await;
                }
            };
            let _ = tokio::time::timeout(CONTACT_TIMEOUT, gone).await;
            self.report(cause).await;
        } else {
            self.bury_when_unlocked().await;
        }
    }

    /// Until the runner has ended. `None`: its shim is gone without a word.
    async fn follow(
        &mut self,
        connection: &mut Connection,
        mut is_spawned: bool,
    ) -> Option<ExitCause> {
        let record = Arc::clone(&self.record);
        let mut probe = pin!(probe::until_ready(&record.address, record.health_path.as_deref()));
        let mut commands_open = true;
        // The shim answers in the order in which it is asked.
        let mut log_readers = VecDeque::new();
        let mut give_up_at = None;
        loop {
            let is_starting = *self.state.borrow() == RunnerState::Starting;
            tokio::select! {
                biased;
                message = receive(connection) => match message? {
                    FromShim::Spawned { rung } => {
                        is_spawned = true;
                        let (runner, at) = (self.id, self.inner.now());
                        self.tell(Notice::Spawned { runner, at, rung }).await;
                    }
                    FromShim::Exited(cause) => return Some(cause),
                    FromShim::LogCaughtUp => {
                        let reader: Option<oneshot::Sender<()>> = log_readers.pop_front();
                        let _ = reader.map(|reader| reader.send(()));
                    }
                    FromShim::Recorded { is_complete } => self.tell_touched(is_complete).await,
                    FromShim::NotRestored { problem } => {
                        self.tell(Notice::NotRestored { runner: self.id, problem }).await;
                    }
                    FromShim::Captured { problem } => {
                        self.tell(Notice::Captured { runner: self.id, problem }).await;
                    }
                    FromShim::Frozen { held_bytes } => self.tell_frozen(Ok(held_bytes)).await,
                    FromShim::NotFrozen { problem } => self.tell_frozen(Err(problem)).await,
                    FromShim::Thawed => {
                        self.is_frozen.store(false, Ordering::Release);
                        let (runner, at) = (self.id, self.inner.now());
                        self.tell(Notice::Thawed { runner, at }).await;
                    }
                    FromShim::Attached { .. } => {}
                },
                command = self.commands.recv(), if commands_open => match command {
                    Some(Command::Tell(message)) => {
                        pass_on(connection, &message).await;
                        give_up_at = time_to_end(&message).or(give_up_at);
                    }
                    Some(Command::CatchUpLog(reader)) => {
                        if log_readers.len() < LOG_READERS_MAX {
                            pass_on(connection, &ToShim::CatchUpLog).await;
                            log_readers.push_back(reader);
                        }
                    }
                    None => commands_open = false,
                },
                () = until(give_up_at), if give_up_at.is_some() && !is_spawned => {
                    tracing::warn!(runner = %self.id, "the shim is stuck in its start and is killed");
                    give_up_at = None;
                    if let Some(shim) = self.shim {
                        kill_if(shim.pid, || shim.is_alive());
                    }
                }
                () = &mut probe, if is_starting && is_spawned => {
                    let became_ready = self.state.send_if_modified(|state| {
                        let is_starting = *state == RunnerState::Starting;
                        if is_starting {
                            *state = RunnerState::Ready;
                        }
                        is_starting
                    });
                    if became_ready {
                        pass_on(connection, &ToShim::Ready).await;
                        self.tell_ready().await;
                    }
                }
            }
        }
    }

    /// A list that cannot be read is as good as none.
    async fn tell_touched(&self, is_complete: bool) {
        let path = self.dir.join(OPENED_FILE);
        let reading = tokio::task::spawn_blocking(move || {
            let bytes = std::fs::read(&path);
            let _ = std::fs::remove_file(&path);
            bytes
        });
        let Ok(Ok(bytes)) = reading.await else { return };
        let paths = bytes.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        let files = TouchedFiles { paths: paths.map(<[u8]>::to_vec).collect(), is_complete };
        self.tell(Notice::Touched { runner: self.id, files }).await;
    }

    /// The shim was killed: its lock comes free when the kernel has cleared it away.
    async fn bury_when_unlocked(self) {
        let deadline = Instant::now() + CONTACT_TIMEOUT;
        loop {
            match self.inner.layout.own(self.id) {
                Ok(Ownership::Ours(lock)) => return self.bury(lock).await,
                Ok(Ownership::Taken) if Instant::now() < deadline => {}
                // Another node has found it first, or this host is in trouble. Either way nothing
                // answers any more under this id.
                _ => return self.report(ExitCause::Unknown).await,
            }
            tokio::time::sleep(CONTACT_PAUSE).await;
        }
    }

    /// Ends what is left of a runner without a shim, and reports it.
    pub(super) async fn bury(self, lock: std::os::fd::OwnedFd) {
        let deadline = Instant::now() + CONTACT_TIMEOUT;
        loop {
            let (dir, record) = (self.dir.clone(), Arc::clone(&self.record));
            let killing = tokio::task::spawn_blocking(move || adopt::kill_remains(&dir, &record));
            match killing.await {
                Ok(true) => break,
                _ if Instant::now() >= deadline => {
                    tracing::warn!(runner = %self.id, "some of its processes cannot be killed");
                    break;
                }
                _ => tokio::time::sleep(CONTACT_PAUSE).await,
            }
        }
        let _ = std::fs::remove_file(&self.record.control_path);
        if let Some(dir) = &self.record.socket_dir {
            let _ = std::fs::remove_dir_all(dir);
        }
        let cause = match adopt::recorded_cause(&self.dir) {
            ExitCause::Unknown => self.shim_error().unwrap_or(ExitCause::Unknown),
            known => known,
        };
        drop(lock);
        self.report(cause).await;
    }

    /// A shim that could not even start the program says why before it ends.
    fn shim_error(&self) -> Option<ExitCause> {
        if self.dir.join(PROCESSES_FILE).exists() {
            return None;
        }
        let mut said = std::fs::read_to_string(self.dir.join(SHIM_ERRORS_FILE)).ok()?;
        let cut = said.char_indices().nth(SHIM_ERROR_BYTES_MAX).map_or(said.len(), |(at, _)| at);
        said.truncate(cut);
        let said = said.trim();
        (!said.is_empty()).then(|| ExitCause::SpawnFailed(said.to_owned()))
    }

    async fn report(self, cause: ExitCause) {
        let dir = self.dir.clone();
        let tail = tokio::task::spawn_blocking(move || logs::tail(&dir)).await;
        let exit = Exit { cause, log_tail: tail.unwrap_or_default() };
        // Where nobody listens any more, the end is left for the next node to tell.
        let Ok(permit) = self.inner.notices.reserve().await else { return };
        // Marked before it is told: a node that dies in between finds the runner missing when it comes
        // back, which says the same, whereas a second notice could be taken for a second end.
        let _ = std::fs::File::create(self.dir.join(REPORTED_FILE));
        self.state.send_replace(RunnerState::Ended);
        permit.send(Notice::Exited { runner: self.id, at: self.inner.now(), exit });
    }

    async fn tell_frozen(&self, frozen: Result<u64, String>) {
        self.is_frozen.store(frozen.is_ok(), Ordering::Release);
        let (runner, at) = (self.id, self.inner.now());
        self.tell(Notice::Frozen { runner, at, frozen }).await;
    }

    async fn tell_ready(&self) {
        let (runner, address) = (self.id, self.record.address.clone());
        self.tell(Notice::Ready { runner, at: self.inner.now(), address }).await;
    }

    async fn tell(&self, notice: Notice) {
        // Nobody listens any more: the node is on its way out.
        let _ = self.inner.notices.send(notice).await;
    }
}

impl Attached {
    /// Watches a runner that another has started.
    pub(super) async fn resume(self) {
        if *self.watcher.state.borrow() == RunnerState::Ready {
            self.watcher.tell_ready().await;
        }
        self.watcher.watch(self.connection, None, true).await;
    }
}

/// When a shim that was told this must have ended.
fn time_to_end(message: &ToShim) -> Option<Instant> {
    match message {
        ToShim::Kill => Some(Instant::now() + UNHEARD_TIMEOUT),
        ToShim::Stop { grace } => Instant::now().checked_add(grace.saturating_add(UNHEARD_TIMEOUT)),
        _ => None,
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// A shim that no longer reads is found out by the end of its connection.
async fn pass_on(connection: &mut Connection, message: &ToShim) {
    if let Ok(line) = serde_json::to_string(message) {
        let _ = connection.send(line).await;
    }
}
