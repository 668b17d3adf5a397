//! The end of a runner: kill all of it, reap all of it, say why it ended.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait, waitpid};

use super::foster::Ended;
use super::runtime::Contained;
use super::{Shim, Stop, monotonic};
use crate::backend::ExitCause;
use crate::container::oci::SIGNAL_CODE_BASE;
use crate::proc_table::own_children;
use crate::protocol::FromShim;

/// Killed processes are given this long to disappear; only one stuck in the kernel takes longer.
const REAP_TIMEOUT: Duration = Duration::from_secs(10);
const REAP_PAUSE: Duration = Duration::from_millis(2);
/// A pipe holds far less than this many turns' worth.
const DRAIN_TURNS_MAX: usize = 64;

impl Shim {
    /// `problem`: why the program could not be started, if so.
    pub(super) fn finish(&mut self, problem: Option<String>) {
        // Counted before a runtime removes the groups.
        let memory_kills = self.groups.memory_kills();
        self.delete_container();
        let status = self.end_everything();
        let memory_kills = memory_kills.max(self.groups.memory_kills());
        self.drain_outputs();
        let cause = match (problem, status) {
            (Some(problem), _) => ExitCause::SpawnFailed(problem),
            (None, Some(status)) => self.cause(status, memory_kills > 0),
            (None, None) => ExitCause::Unknown,
        };
        self.remove_groups();
        if let Some(dir) = &self.order.socket_dir {
            // Gone already if the program tidied up after itself.
            let _ = std::fs::remove_dir_all(dir);
        }
        self.listener = None;
        let _ = std::fs::remove_file(&self.order.control_path);
        self.log.flush();
        self.record_exit(&cause);
        self.broadcast(&FromShim::Exited(cause));
    }

    /// Kills and reaps until this process has no child left.
    pub(super) fn end_everything(&mut self) -> Option<Ended> {
        self.groups.kill();
        self.signal_group(Signal::KILL);
        // Reaped only now that its group was killed: until then the group's id could not pass to others.
        let program = self.program.take();
        let give_up_at = monotonic() + REAP_TIMEOUT;
        let ended = match self.foster.take() {
            Some(foster) => {
                self.empty_groups(give_up_at);
                foster.into_end(REAP_TIMEOUT)
            }
            None => program
                .and_then(|pid| waitpid(Some(pid), WaitOptions::empty()).ok().flatten())
                .and_then(|(_, status)| ended(status)),
        };
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => continue,
                Err(_) => break,
                Ok(None) => {}
            }
            // A child that is not reaped keeps its pid, so these are the right ones. Their own children
            // come to this process next.
            for pid in own_children().into_iter().filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
            self.groups.kill();
            if monotonic() >= give_up_at {
                self.log
                    .say("some processes of this runner do not end even though they were killed");
                break;
            }
            self.wait_for_child();
        }
        ended
    }

    /// What is nobody's child here is in the groups.
    fn empty_groups(&mut self, give_up_at: Duration) {
        while !self.groups.are_empty() && monotonic() < give_up_at {
            self.wait_for_child();
            self.groups.kill();
        }
    }

    fn wait_for_child(&self) {
        let mut fds = [PollFd::new(&self.signals, PollFlags::IN)];
        let pause = Timespec::try_from(REAP_PAUSE).ok();
        let _ = poll(&mut fds, pause.as_ref());
        self.signals.read();
    }

    /// All writers are gone, so what is in the pipes is all there will be.
    fn drain_outputs(&mut self) {
        for output in &mut self.outputs {
            for _ in 0..DRAIN_TURNS_MAX {
                if !output.read(&mut self.log, self.order.log_caps.line_bytes_max) {
                    break;
                }
            }
        }
    }

    /// While what it has mounted is there still: that goes with its first process.
    fn delete_container(&mut self) {
        if let Some(contained) = self.contained.take() {
            if let Err(error) = contained.delete(&self.order) {
                self.log
                    .say(&format!("the container's runtime did not clear up after it: {error}"));
            }
            self.contained = Some(contained);
        }
    }

    fn cause(&self, ended: Ended, out_of_memory: bool) -> ExitCause {
        let out_of_memory = self.stop != Stop::Killed && out_of_memory;
        let contained = self.contained.as_ref();
        if contained.is_some_and(Contained::speaks_for_its_program)
            && let Ended::Code(code) = ended
            && code > SIGNAL_CODE_BASE
        {
            return if out_of_memory {
                ExitCause::OutOfMemory
            } else {
                ExitCause::Signal(code - SIGNAL_CODE_BASE)
            };
        }
        match ended {
            Ended::Signal(_) if out_of_memory => ExitCause::OutOfMemory,
            Ended::Signal(signal) => ExitCause::Signal(signal),
            // A child of the program was killed and the program gave up for it.
            Ended::Code(code) if code != 0 && out_of_memory => ExitCause::OutOfMemory,
            Ended::Code(code) => ExitCause::Code(code),
        }
    }

    fn remove_groups(&mut self) {
        let give_up_at = monotonic() + REAP_TIMEOUT;
        while !self.groups.remove() {
            if monotonic() >= give_up_at {
                self.log.say("a control group of this runner could not be removed");
                return;
            }
            self.wait_for_child();
        }
    }
}

fn ended(status: WaitStatus) -> Option<Ended> {
    let signal = status.terminating_signal().map(Ended::Signal);
    signal.or(status.exit_status().map(Ended::Code))
}
