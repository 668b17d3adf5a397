//! Captures the program's memory, and restores a captured one in place of a start.
//!
//! ```text
//! capture:  asked ─► program lets go (before_snapshot) ─► CRIU writes ─► told, and the program has ended
//! restore:  CRIU reads ─► program takes up (after_restore) ─► spawned
//!               └──────────────┴── anything goes wrong ─► all of it killed, the program started plainly
//! ```
//!
//! Each step is waited for in the shim's loop, among all else that it does, and has a limit in time.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use glowplug_core::Rung;
use rustix::event::PollFd;
use rustix::process::{Pid, Signal, kill_process};

use super::control::{Question, Talk};
use super::criu::{self, CAPTURED_FILE, Captured, Criu};
use super::launch::{self, Program, output_pipe};
use super::{Output, Shim, Stop, foster, monotonic, sharing};
use crate::backend::{LogStream, Warm};
use crate::enclosure::{Enclosing, Enclosure, FirstPid};
use crate::proc_table::own_children;
use crate::protocol::{CONTROL_SOCKET, FromShim, read_file, write_file};

/// For CRIU to read, or write, the memory of a program.
const CRIU_TIMEOUT: Duration = Duration::from_secs(30);
/// For a program to let go of what must not be captured, or to take up what it has missed.
const TALK_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of fresh entropy for a restored program.
const ENTROPY_BYTES: usize = 32;

/// What is under way.
pub(super) struct Job {
    step: Step,
    give_up_at: Duration,
}

enum Step {
    Restoring { criu: Pid, captured: Captured, enclosure: Enclosure },
    TakingUp { talk: Talk, program: Pid, enclosure: Enclosure },
    LettingGo { talk: Talk, dir: PathBuf },
    Dumping { criu: Pid, captured: Captured, dir: PathBuf },
}

impl Job {
    fn criu(step: Step) -> Self {
        Self { step, give_up_at: monotonic() + CRIU_TIMEOUT }
    }

    fn talk(step: Step) -> Self {
        Self { step, give_up_at: monotonic() + TALK_TIMEOUT }
    }

    fn is_capture(&self) -> bool {
        matches!(self.step, Step::LettingGo { .. } | Step::Dumping { .. })
    }

    pub(super) fn give_up_at(&self) -> Duration {
        self.give_up_at
    }

    /// A child of the shim's that this waits for.
    pub(super) fn child(&self) -> Option<Pid> {
        match &self.step {
            Step::Restoring { criu, .. } | Step::Dumping { criu, .. } => Some(*criu),
            Step::TakingUp { program, .. } => Some(*program),
            Step::LettingGo { .. } => None,
        }
    }

    /// The connection that this waits for.
    pub(super) fn connection(&self) -> Option<PollFd<'_>> {
        match &self.step {
            Step::TakingUp { talk, .. } | Step::LettingGo { talk, .. } => {
                Some(PollFd::from_borrowed_fd(talk.as_fd(), talk.wants()))
            }
            Step::Restoring { .. } | Step::Dumping { .. } => None,
        }
    }
}

impl Shim {
    /// Starts the program, from its snapshot if it has one that CRIU begins to restore.
    pub(super) fn begin(&mut self) -> Result<(), String> {
        if let Warm::Snapshot { criu, dir } = self.order.warm.clone() {
            match self.begin_restore(&criu, &dir) {
                Ok(job) => {
                    self.job = Some(job);
                    return Ok(());
                }
                Err(problem) => self.give_up_snapshot(&problem),
            }
        }
        self.start_plainly()
    }

    fn start_plainly(&mut self) -> Result<(), String> {
        let program = self.start_program()?;
        self.take_on(program);
        Ok(())
    }

    /// By its zygote if it has one that does it.
    fn start_program(&mut self) -> Result<Program, String> {
        if let Warm::Zygote { socket } = &self.order.warm {
            match foster::start(&self.order, socket, &self.groups) {
                Ok(program) => return Ok(program),
                Err(problem) => {
                    self.log
                        .say(&format!("its zygote did not start it ({problem}): starting plainly"));
                }
            }
        }
        launch::start(&self.order, &self.dir, &self.groups)
    }

    fn take_on(&mut self, program: Program) {
        self.program = Some(program.pid);
        self.record(program.recorder);
        self.contained = program.contained;
        self.enclosure = program.enclosure;
        self.foster = program.foster;
        self.outputs = outputs(program.stdout, program.stderr);
        self.broadcast(&FromShim::Spawned { rung: program.rung });
        self.groups.gather(crate::proc_table::descendants);
    }

    fn begin_restore(&mut self, program: &Path, images: &Path) -> Result<Job, String> {
        let captured: Captured = read_file(images, CAPTURED_FILE)
            .ok_or_else(|| format!("{CAPTURED_FILE} is missing or broken"))?;
        captured.check(images)?;
        let doors = self.groups.doors().map_err(|error| error.to_string())?;
        let socket_dir = self.order.socket_dir.clone();
        let socket_dir = socket_dir.ok_or("the runner has no directory for its socket")?;
        let enclosure = Enclosure::make(&Enclosing {
            socket_dir: &socket_dir,
            place: &self.order.enclosed_socket_dir,
            doors: &doors,
            pids: FirstPid::Lowest,
        })?;
        let identity = self.order.identity.as_ref();
        let (stdout, stdout_writer) = output_pipe(identity)?;
        let (stderr, stderr_writer) = output_pipe(identity)?;
        let criu = Criu { program, enclosure: &enclosure, groups: &self.groups, images };
        let criu = criu
            .restore(&captured, &self.dir, (stdout_writer, stderr_writer))
            .map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
        self.outputs = outputs(stdout, stderr);
        Ok(Job::criu(Step::Restoring { criu, captured, enclosure }))
    }

    /// Begins a capture of the program, or says at once why there is none.
    pub(super) fn begin_capture(&mut self, dir: &Path) {
        let begun = self.ask_to_let_go(dir);
        match begun {
            Ok(job) => self.job = Some(job),
            Err(problem) => self.broadcast(&FromShim::Captured { problem: Some(problem) }),
        }
    }

    fn ask_to_let_go(&self, dir: &Path) -> Result<Job, String> {
        if self.job.is_some() || self.stop != Stop::NotAsked {
            return Err("the runner is at something else".to_owned());
        }
        if self.enclosure.is_none() {
            return Err("the program does not run where it can be captured".to_owned());
        }
        let talk =
            Talk::begin(&self.control_socket()?, &Question::BeforeSnapshot).map_err(|error| {
                format!("the program does not listen on its control socket: {error}")
            })?;
        Ok(Job::talk(Step::LettingGo { talk, dir: dir.to_owned() }))
    }

    fn begin_dump(&self, dir: PathBuf) -> Result<Job, String> {
        let (Warm::Enclosed { criu: program }, Some(enclosure), Some(pid)) =
            (&self.order.warm, &self.enclosure, self.program)
        else {
            return Err("the program has ended".to_owned());
        };
        if enclosure.has_strays() {
            return Err("the program has left processes behind that are no children of its own \
                        (daemons), which would be missing"
                .to_owned());
        }
        sharing::check(&captured_processes(enclosure))?;
        let captured = Captured {
            pid: criu::innermost_pid(pid.as_raw_nonzero().get()).ok_or("the program has ended")?,
            stdout_inode: self.pipe_inode(LogStream::Stdout),
            stderr_inode: self.pipe_inode(LogStream::Stderr),
            files: BTreeMap::new(),
        };
        let criu = Criu { program, enclosure, groups: &self.groups, images: &dir };
        let criu = criu
            .dump(captured.pid)
            .map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
        Ok(Job::criu(Step::Dumping { criu, captured, dir }))
    }

    /// Zero, which no pipe has, where the program has closed it.
    fn pipe_inode(&self, stream: LogStream) -> u64 {
        let output = self.outputs.iter().find(|output| output.stream == stream);
        let pipe = output.and_then(|output| output.pipe.as_ref());
        pipe.and_then(|pipe| rustix::fs::fstat(pipe).ok()).map_or(0, |stat| stat.st_ino)
    }

    fn control_socket(&self) -> Result<PathBuf, String> {
        let dir = self.order.socket_dir.as_ref();
        Ok(dir.ok_or("the program has no control socket")?.join(CONTROL_SOCKET))
    }

    /// Goes on with what is under way. An error: the program cannot be started at all.
    pub(super) fn advance_job(&mut self) -> Result<(), String> {
        match self.job.take() {
            None => Ok(()),
            Some(job) if job.is_capture() => {
                self.advance_capture(job);
                Ok(())
            }
            Some(job) => self.advance_restore(job),
        }
    }

    fn advance_restore(&mut self, mut job: Job) -> Result<(), String> {
        if self.stop != Stop::NotAsked {
            return Err("stopped while its snapshot was restored".to_owned());
        }
        let is_late = monotonic() >= job.give_up_at;
        let next = match (job.step, &self.dir) {
            (Step::Restoring { criu, captured, enclosure }, dir) => match criu::ended(criu) {
                Some(Ok(())) => self.begin_take_up(&captured, enclosure),
                Some(Err(problem)) => Err(problem + &criu::restore_complaints(dir)),
                None if is_late => Err("CRIU took too long".to_owned()),
                None => {
                    job.step = Step::Restoring { criu, captured, enclosure };
                    Ok(job)
                }
            },
            (Step::TakingUp { mut talk, program, enclosure }, _) => match talk.turn() {
                Some(Ok(())) => {
                    self.take_restored(program, enclosure);
                    return Ok(());
                }
                Some(Err(problem)) => Err(problem),
                None if is_late => Err("the restored program does not take up its work".to_owned()),
                None => {
                    job.step = Step::TakingUp { talk, program, enclosure };
                    Ok(job)
                }
            },
            (step, _) => {
                job.step = step;
                Ok(job)
            }
        };
        match next {
            Ok(job) => {
                self.job = Some(job);
                Ok(())
            }
            Err(problem) => self.fall_back(&problem),
        }
    }

    fn take_restored(&mut self, program: Pid, enclosure: Enclosure) {
        self.enclosure = Some(enclosure);
        self.program = Some(program);
        // What CRIU has made is where CRIU was, which on version 2 is nowhere.
        self.groups.gather(crate::proc_table::descendants);
        self.record_processes();
        self.broadcast(&FromShim::Spawned { rung: Rung::Snapshot });
    }

    fn advance_capture(&mut self, mut job: Job) {
        let is_late = monotonic() >= job.give_up_at;
        let is_stopped = self.stop != Stop::NotAsked;
        match job.step {
            Step::LettingGo { .. } if is_stopped || self.program_has_ended() => {
                self.end_capture(Err("the program ended before it was captured".to_owned()));
            }
            Step::LettingGo { mut talk, dir } => match talk.turn() {
                Some(let_go) => match let_go.and_then(|()| self.begin_dump(dir)) {
                    Ok(job) => self.job = Some(job),
                    Err(problem) => self.end_capture(Err(problem)),
                },
                None if is_late => {
                    self.end_capture(Err("the program does not let itself be captured".to_owned()));
                }
                None => {
                    job.step = Step::LettingGo { talk, dir };
                    self.job = Some(job);
                }
            },
            Step::Dumping { criu, captured, dir } => match criu::ended(criu) {
                Some(Ok(())) => self.end_capture(write_captured(captured, &dir)),
                Some(Err(problem)) => {
                    self.end_capture(Err(problem + &criu::dump_complaints(&dir)));
                }
                None if is_late || is_stopped => {
                    // What CRIU leaves behind when it is killed is good for nothing.
                    let _ = kill_process(criu, Signal::KILL);
                    self.kill_now();
                    self.end_capture(Err("CRIU took too long, or was stopped".to_owned()));
                }
                None => {
                    job.step = Step::Dumping { criu, captured, dir };
                    self.job = Some(job);
                }
            },
            step => {
                job.step = step;
                self.job = Some(job);
            }
        }
    }

    fn end_capture(&mut self, captured: Result<(), String>) {
        if captured.is_ok() {
            // CRIU has ended the program, for this very purpose.
            self.stop = Stop::Killed;
        }
        self.broadcast(&FromShim::Captured { problem: captured.err() });
    }

    fn begin_take_up(&mut self, captured: &Captured, enclosure: Enclosure) -> Result<Job, String> {
        let init = enclosure.init().as_raw_nonzero().get();
        let is_program =
            |pid: &i32| *pid != init && criu::innermost_pid(*pid) == Some(captured.pid);
        let program = own_children().into_iter().find(is_program).and_then(Pid::from_raw);
        let program = program.ok_or("the restored program ended at once")?;
        let mut entropy = [0; ENTROPY_BYTES];
        fresh_entropy(&mut entropy).map_err(|error| format!("there is no entropy: {error}"))?;
        let env = launch::enclosed_environment(&self.order);
        let question = Question::AfterRestore { env: &env, entropy: hex(&entropy) };
        let talk = Talk::begin(&self.control_socket()?, &question).map_err(|error| {
            format!("the restored program does not listen on its control socket: {error}")
        })?;
        Ok(Job::talk(Step::TakingUp { talk, program, enclosure }))
    }

    /// In the same runner: whoever waits for it is to notice nothing but the time that it takes.
    fn fall_back(&mut self, problem: &str) -> Result<(), String> {
        self.give_up_snapshot(problem);
        self.end_everything();
        if let Some(dir) = &self.order.socket_dir {
            clear(dir);
        }
        self.start_plainly()?;
        self.record_processes();
        Ok(())
    }

    fn give_up_snapshot(&mut self, problem: &str) {
        self.log.say(&format!("its snapshot was not restored, so it starts anew: {problem}"));
        self.broadcast(&FromShim::NotRestored { problem: problem.to_owned() });
    }
}

/// All but the first of the enclosure, which is part of the shim.
fn captured_processes(enclosure: &Enclosure) -> Vec<i32> {
    let init = enclosure.init().as_raw_nonzero().get();
    crate::proc_table::descendants().into_iter().filter(|pid| *pid != init).collect()
}

/// Last, so that a capture that is cut off is none.
fn write_captured(captured: Captured, dir: &Path) -> Result<(), String> {
    captured
        .complete(dir)
        .and_then(|captured| write_file(dir, CAPTURED_FILE, &captured))
        .map_err(|error| format!("cannot write {CAPTURED_FILE}: {error}"))
}

fn outputs(stdout: OwnedFd, stderr: OwnedFd) -> Vec<Output> {
    vec![Output::new(LogStream::Stdout, stdout), Output::new(LogStream::Stderr, stderr)]
}

/// Sockets that a restored program has left would be in the way of the one that is started.
fn clear(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let _ = std::fs::remove_file(entry.path());
    }
}

fn fresh_entropy(into: &mut [u8]) -> std::io::Result<()> {
    use std::io::Read;
    std::fs::File::open("/dev/urandom")?.read_exact(into)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
