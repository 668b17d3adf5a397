//! The shim: one small process per runner that outlives the node.
//!
//! ```text
//! order read → program runs ─┬─ program ends ────────────┬→ everything killed and reaped → exit written
//!                            ├─ stop: SIGTERM, grace, SIGKILL ┤
//!                            └─ no node for too long: as stop ┘
//! ```
//!
//! It starts the program, captures its log, ends it, and sees to it that nothing of it is left: it is the
//! foster parent of whatever the program leaves behind, and the program dies with it should it be killed.
//! It decides nothing else: readiness, timeouts and restarts belong to the node, which talks to it over a
//! unix socket, as any later node can. It has one thread and no runtime, so that it starts in a
//! millisecond and weighs little. Limits: [`LogCaps`](crate::LogCaps) on the log, `PEERS_MAX` nodes.

mod control;
mod criu;
mod finish;
mod foster;
mod frozen;
mod launch;
mod log_file;
mod output;
mod peers;
mod runtime;
mod sharing;
mod signals;
mod snapshot;
mod touched;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::dup;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};
use rustix::time::{ClockId, clock_gettime};

use self::foster::Foster;
use self::log_file::LogFile;
use self::output::Output;
use self::peers::{PEERS_MAX, Peer};
use self::signals::Signals;
use self::snapshot::Job;
use self::touched::Recorder;
use crate::backend::ExitCause;
use crate::cgroup::RunnerGroups;
use crate::enclosure::Enclosure;
use crate::proc_table::{ProcessMark, own_children};
use crate::protocol::{
    EXIT_FILE, ExitRecord, FromShim, LaunchOrder, PROCESSES_FILE, ProcessesRecord, ToShim,
    write_file,
};

/// More than a pipe holds, and an end to catching up with a program that never stops writing.
const CATCH_UP_TURNS_MAX: usize = 64;

/// Runs as the shim of the runner whose directory is the first argument.
///
/// The node starts this program with its end of a socket pair as standard input, and with the runner's
/// locked lock file as standard output: the lock is held for as long as this process lives.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(dir) = arguments.next().map(PathBuf::from) else {
        return complain("the directory of the runner is missing", None);
    };
    match run(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain("the shim failed", Some(&error)),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the node keeps this stream in a file for the error message"
)]
fn complain(problem: &str, error: Option<&io::Error>) -> ExitCode {
    match error {
        Some(error) => eprintln!("{problem}: {error}"),
        None => eprintln!("{problem}"),
    }
    ExitCode::FAILURE
}

fn run(dir: PathBuf) -> io::Result<()> {
    let control = UnixStream::from(dup(rustix::stdio::stdin())?);
    rustix::io::fcntl_setfd(&control, rustix::io::FdFlags::CLOEXEC)?;
    let lock = dup(rustix::stdio::stdout())?;
    rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::CLOEXEC)?;
    launch::detach_standard_streams()?;
    // Fails only for the leader of a session, which is as well.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let signals = Signals::take_over()?;
    let (peer, order) = Peer::with_order(control)?;

    let mut log = LogFile::create(dir.clone(), order.log_caps, monotonic());
    let (mut groups, notes) =
        RunnerGroups::create(&order.cgroups, &order.cgroup_name, &order.bounds());
    for note in notes {
        log.say(&note);
    }
    if order.has_oci_runtime() {
        groups.expect_others(order.cgroups.runtime_dirs(&order.cgroup_name));
    }
    if let Some(note) = order.hooks_that_are_not_run() {
        log.say(&note);
    }
    let mut shim = Shim {
        dir,
        order,
        groups,
        log,
        signals,
        peers: vec![peer],
        listener: None,
        outputs: Vec::new(),
        recorder: None,
        program: None,
        contained: None,
        foster: None,
        enclosure: None,
        job: None,
        ready: false,
        is_frozen: false,
        stop: Stop::NotAsked,
        alone_since: None,
        _lock: lock,
    };
    let problem = shim.begin().and_then(|()| {
        shim.settle_in()
            .and_then(|()| shim.watch())
            .map_err(|error| format!("the supervisor failed: {error}"))?
    });
    shim.finish(problem.err());
    Ok(())
}

/// Since an arbitrary moment.
fn monotonic() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

/// Since the Unix epoch.
fn wall_clock() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Realtime)).unwrap_or_default()
}

struct Shim {
    dir: PathBuf,
    order: LaunchOrder,
    groups: RunnerGroups,
    log: LogFile,
    signals: Signals,
    peers: Vec<Peer>,
    listener: Option<UnixListener>,
    outputs: Vec<Output>,
    recorder: Option<Recorder>,
    /// Not reaped before the end, so that its pid and its group's stay its own.
    program: Option<Pid>,
    /// By an OCI runtime.
    contained: Option<runtime::Contained>,
    /// By a zygote, whose child it is.
    foster: Option<Foster>,
    /// Where its memory can be captured.
    enclosure: Option<Enclosure>,
    /// Of a capture or a restore.
    job: Option<Job>,
    ready: bool,
    /// The program has no processor.
    is_frozen: bool,
    stop: Stop,
    alone_since: Option<Duration>,
    /// Held as long as this process lives.
    _lock: OwnedFd,
}

/// How far the end has been asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    NotAsked,
    /// SIGTERM was sent; SIGKILL follows at this moment.
    KillAt(Duration),
    /// SIGKILL was sent by the shim, not by the kernel.
    Killed,
}

/// Which descriptor of the poll set belongs to what.
enum Source {
    Signals,
    Listener,
    Peer(usize),
    Output(usize),
    Recorder,
    Foster,
    Job,
}

impl Shim {
    /// What need not be done before the program runs: the way in for later nodes, and who runs.
    fn settle_in(&mut self) -> io::Result<()> {
        rustix::process::umask(Mode::from_raw_mode(0o077));
        // Only the holder of the runner's lock may replace the socket of a shim that is gone.
        let _ = std::fs::remove_file(&self.order.control_path);
        let listener = UnixListener::bind(&self.order.control_path)?;
        listener.set_nonblocking(true)?;
        self.listener = Some(listener);
        self.record_processes();
        Ok(())
    }

    /// What could not be written down can still be found by its groups.
    fn record_processes(&self) {
        let own = ProcessMark::of(rustix::process::getpid().as_raw_nonzero().get());
        let program = self.program.and_then(|pid| ProcessMark::of(pid.as_raw_nonzero().get()));
        if let (Some(shim), Some(program)) = (own, program) {
            let _ = write_file(&self.dir, PROCESSES_FILE, &ProcessesRecord { shim, program });
        }
    }

    /// Serves the nodes and captures the log until the program has ended, or cannot be started.
    fn watch(&mut self) -> io::Result<Result<(), String>> {
        // What came right behind the launch order is read already, so no event will tell of it.
        let early = self.peers.first_mut().and_then(|peer| peer.receive().ok());
        early.into_iter().flatten().for_each(|message| self.obey(0, &message));
        loop {
            self.keep_deadlines();
            let advanced = self.advance_job();
            self.log.flush();
            if advanced.is_err() || self.has_ended() {
                return Ok(advanced);
            }
            let ready = self.poll(self.time_to_next_deadline())?;
            let mut gone = Vec::new();
            for source in ready {
                match source {
                    Source::Signals => self.handle_signals(),
                    Source::Listener => self.accept(),
                    Source::Peer(index) => match self.peers[index].receive() {
                        Ok(messages) => messages.iter().for_each(|m| self.obey(index, m)),
                        Err(_) => gone.push(index),
                    },
                    Source::Output(index) => {
                        self.outputs[index].read(&mut self.log, self.order.log_caps.line_bytes_max);
                    }
                    Source::Recorder => self.take_recorded(),
                    Source::Foster => self.hear_zygote(),
                    // As is done in each round.
                    Source::Job => {}
                }
            }
            for index in gone.into_iter().rev() {
                self.peers.remove(index);
            }
        }
    }

    fn poll(&self, timeout: Option<Duration>) -> io::Result<Vec<Source>> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let mut sources = vec![Source::Signals];
        for (index, peer) in self.peers.iter().enumerate() {
            fds.push(PollFd::new(peer, PollFlags::IN));
            sources.push(Source::Peer(index));
        }
        for (index, output) in self.outputs.iter().enumerate() {
            if let Some(pipe) = &output.pipe {
                fds.push(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN));
                sources.push(Source::Output(index));
            }
        }
        if let Some(recorder) = &self.recorder {
            fds.push(PollFd::new(recorder, PollFlags::IN));
            sources.push(Source::Recorder);
        }
        for fd in self.foster.iter().flat_map(Foster::sources) {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            sources.push(Source::Foster);
        }
        if let Some(connection) = self.job.as_ref().and_then(Job::connection) {
            fds.push(connection);
            sources.push(Source::Job);
        }
        // After the peers, so that a node that takes over is told what the one before it has said last.
        if let Some(listener) = &self.listener {
            fds.push(PollFd::new(listener, PollFlags::IN));
            sources.push(Source::Listener);
        }
        let timeout = timeout.and_then(|span| Timespec::try_from(span).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let hit = fds.iter().map(|fd| !fd.revents().is_empty());
        Ok(sources.into_iter().zip(hit).filter_map(|(source, hit)| hit.then_some(source)).collect())
    }

    fn handle_signals(&mut self) {
        for signal in self.signals.read() {
            if signal == Signal::CHILD.as_raw() {
                self.reap_strays();
            } else if signal != Signal::HUP.as_raw() {
                self.log.say("the supervisor was told to end");
                self.begin_stop(self.order.grace);
            }
        }
    }

    /// Reaps what the program has left behind and what has ended since.
    fn reap_strays(&self) {
        let awaited = [self.program, self.job.as_ref().and_then(Job::child)];
        for pid in own_children().into_iter().filter_map(Pid::from_raw) {
            if !awaited.contains(&Some(pid)) {
                // It may still run; then its own end brings the next signal.
                let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
    }

    /// A program that is not there yet, or that CRIU is at work on, has not.
    fn has_ended(&self) -> bool {
        self.job.is_none() && self.program_has_ended()
    }

    fn program_has_ended(&self) -> bool {
        if let Some(foster) = &self.foster {
            return foster.has_ended();
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.program.is_none_or(|pid| {
            !matches!(rustix::process::waitid(WaitId::Pid(pid), options), Ok(None))
        })
    }

    fn hear_zygote(&mut self) {
        let Some(foster) = &mut self.foster else { return };
        if !foster.hear() && !foster.has_ended() {
            self.log.say("its zygote has ended, and it ends with it");
            self.kill_now();
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let Ok((stream, _)) = listener.accept() else { return };
        if self.peers.len() >= PEERS_MAX {
            return;
        }
        let attached = FromShim::Attached {
            ready: self.ready,
            stopping: self.stop != Stop::NotAsked,
            frozen: self.is_frozen,
        };
        if let Ok(mut peer) = Peer::new(stream)
            && peer.send(&attached).is_ok()
        {
            self.peers.push(peer);
        }
    }

    fn obey(&mut self, peer: usize, message: &ToShim) {
        match message {
            // Only ever the first message, which is read elsewhere.
            ToShim::Launch(_) => {}
            ToShim::Ready => {
                self.ready = true;
                self.end_recording();
            }
            ToShim::Stop { grace } => self.begin_stop(*grace),
            ToShim::Kill => self.kill_now(),
            ToShim::Freeze => self.freeze(),
            ToShim::Thaw => self.thaw(),
            ToShim::CatchUpLog => self.catch_up_log(peer),
            ToShim::Capture { dir } => self.begin_capture(dir),
        }
    }

    fn catch_up_log(&mut self, peer: usize) {
        for output in &mut self.outputs {
            for _ in 0..CATCH_UP_TURNS_MAX {
                if !output.read(&mut self.log, self.order.log_caps.line_bytes_max) {
                    break;
                }
            }
        }
        self.log.flush();
        // That a peer is gone is found out when it is read from.
        let _ = self.peers[peer].send(&FromShim::LogCaughtUp);
    }

    /// A second stop can bring the kill forward, never put it off.
    fn begin_stop(&mut self, grace: Duration) {
        let kill_at = monotonic().saturating_add(grace);
        match self.stop {
            Stop::NotAsked => {
                self.signal_group(self.order.stop_signal());
                self.let_run();
                self.stop = Stop::KillAt(kill_at);
            }
            Stop::KillAt(earlier) => self.stop = Stop::KillAt(earlier.min(kill_at)),
            Stop::Killed => {}
        }
    }

    fn kill_now(&mut self) {
        self.groups.kill();
        self.signal_group(Signal::KILL);
        self.let_run();
        self.stop = Stop::Killed;
    }

    fn signal_group(&self, signal: Signal) {
        let foster = self.foster.as_ref();
        if signal == Signal::KILL {
            foster.into_iter().for_each(Foster::kill);
        }
        if let Some(pid) = self.program
            && foster.is_none_or(Foster::holds_pid)
        {
            // An error means that the group is empty already.
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }

    fn keep_deadlines(&mut self) {
        let now = monotonic();
        if let Stop::KillAt(moment) = self.stop
            && now >= moment
        {
            self.log.say("the program did not end in its time of grace and was killed");
            self.kill_now();
        }
        if !self.peers.is_empty() {
            self.alone_since = None;
            return;
        }
        let since = *self.alone_since.get_or_insert(now);
        if self.stop == Stop::NotAsked && now.saturating_sub(since) >= self.order.orphan_timeout {
            self.log.say("no node has come back for this runner: stopping it");
            self.begin_stop(self.order.grace);
        }
    }

    fn time_to_next_deadline(&self) -> Option<Duration> {
        let deadline = match (self.stop, self.alone_since) {
            (Stop::KillAt(moment), _) => Some(moment),
            (Stop::NotAsked, Some(since)) => Some(since.saturating_add(self.order.orphan_timeout)),
            _ => None,
        };
        let job = self.job.as_ref().map(Job::give_up_at);
        let deadline = deadline.into_iter().chain(job).min()?;
        Some(deadline.saturating_sub(monotonic()))
    }

    fn broadcast(&mut self, message: &FromShim) {
        self.peers.retain_mut(|peer| peer.send(message).is_ok());
    }

    fn record_exit(&self, cause: &ExitCause) {
        // With no room on the disk, attached nodes still hear of the end.
        let _ = write_file(&self.dir, EXIT_FILE, &ExitRecord { cause: cause.clone() });
    }
}
