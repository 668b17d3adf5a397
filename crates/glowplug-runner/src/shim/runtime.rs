//! Starts the program of a container through an OCI runtime, and lets the runtime clear up after it.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use glowplug_core::Rung;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Signal, kill_process_group, pidfd_open};

use super::launch::{Program, lowered, name_namespaces, output_pipe, program_not_found, record};
use super::{monotonic, signals};
use crate::cgroup::{RunnerGroups, go_through};
use crate::container::oci::{Bundle, Family, Terms, complaint};
use crate::container::{ContainerSpec, Preparation, Sandbox, Workshop, seal_root};
use crate::protocol::{LaunchOrder, MARKER_VARIABLE};

/// What a runtime says when it fails fits into this many times over.
const LOG_BYTES_MAX: u64 = 256 << 10;
/// To make a container, and again to start its program; a runtime that takes longer is killed. The shim hears
/// nobody meanwhile.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// To clear up after an ended container; a runtime that takes longer is killed.
const DELETE_TIMEOUT: Duration = Duration::from_secs(10);
/// Runtimes look for their own helpers.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A container that an OCI runtime was told to start.
#[derive(Debug)]
pub(super) struct Contained {
    sandbox: Sandbox,
    runtime: PathBuf,
    scaffold: PathBuf,
    /// Of the runner's groups, for a runtime that leaves them alone.
    doors: Vec<OwnedFd>,
}

/// Starts it, or says why that is not possible. `dir` is the runner's.
pub(super) fn start(
    order: &LaunchOrder,
    spec: &ContainerSpec,
    runtime: &Path,
    dir: &Path,
    groups: &RunnerGroups,
) -> Result<Program, String> {
    let preparation = Preparation { spec, scaffold: dir, working_dir: &order.cwd, doors: &[] };
    let sandbox = Sandbox::prepare(&preparation)?;
    let doors = match Family::of(runtime) {
        // It goes into them by itself, and wants to find them empty.
        Family::Common => Vec::new(),
        Family::Crun | Family::Runsc => {
            groups.doors().map_err(|error| format!("cannot keep its groups open: {error}"))?
        }
    };
    let contained =
        Contained { doors, sandbox, runtime: runtime.to_owned(), scaffold: dir.to_owned() };
    contained.write_config(order, spec)?;
    contained.run(order, spec, dir)
}

impl Contained {
    fn bundle<'a>(&'a self, id: &'a str) -> Bundle<'a> {
        Bundle::new(&self.runtime, id, &self.scaffold)
    }

    fn workshop(&self) -> Result<&Workshop, String> {
        self.sandbox.workshop().ok_or_else(|| "the container was not made for a runtime".to_owned())
    }

    fn init(&self) -> i32 {
        self.sandbox.init().as_raw_nonzero().get()
    }

    fn write_config(&self, order: &LaunchOrder, spec: &ContainerSpec) -> Result<(), String> {
        let bundle = self.bundle(&order.cgroup_name);
        let open_files = lowered(Resource::Nofile, order.limits.open_files_max.unwrap_or(u64::MAX));
        let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        let rlimits =
            [("CORE", 0, 0), ("NOFILE", number(open_files.current), number(open_files.maximum))];
        let terms = Terms {
            spec,
            family: bundle.family(),
            argv: &order.argv,
            env: &order.env,
            working_dir: &order.cwd,
            user: &self.sandbox.user,
            capabilities: spec.capabilities.possible().map_err(|error| error.to_string())?,
            init: self.init(),
            scaffold: &self.scaffold,
            rlimits: &rlimits,
            groups_path: &order.cgroups.runtime_path(&order.cgroup_name),
        };
        let config = serde_json::to_vec(&terms.config()?).map_err(|error| error.to_string())?;
        std::fs::write(self.workshop()?.file(Bundle::CONFIG), config)
            .map_err(|error| format!("cannot describe the container to its runtime: {error}"))
    }

    fn run(self, order: &LaunchOrder, spec: &ContainerSpec, dir: &Path) -> Result<Program, String> {
        let identity = &self.sandbox.user.identity;
        let (stdout, stdout_writer) = output_pipe(Some(identity))?;
        let (stderr, stderr_writer) = output_pipe(Some(identity))?;
        let bundle = self.bundle(&order.cgroup_name);
        // The command goes at once: the writing ends in it would keep the pipes open.
        let begin = |words: &[String]| {
            self.command(words, &order.env)?.stdout(stdout_writer).stderr(stderr_writer).spawn()
        };
        let mut recorder = None;
        let (pid, named) = if bundle.family().stays() {
            let child = begin(&bundle.run()).map_err(|error| self.cannot_run(&error))?;
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            // What is in a kernel of its own has no files that could be looked at.
            (pid, Some(self.sandbox.init()))
        } else {
            self.await_success(begin(&bundle.create()), order)?;
            let file = self.workshop()?.file(Bundle::PID);
            let pid = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
            let pid = pid.and_then(Pid::from_raw);
            if let Some(pid) = pid {
                seal_root(pid, spec)?;
                recorder = record(pid, spec);
            }
            let start = self.command(&bundle.start(), &order.env);
            let start = start.and_then(|mut command| {
                command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()
            });
            self.await_success(start, order)?;
            (pid, pid)
        };
        let pid =
            pid.ok_or_else(|| "the runtime named no process that it has started".to_owned())?;
        // A program that has ended already has no name, and nobody will ask for it.
        let _ = name_namespaces(dir, named.unwrap_or(pid));
        Ok(Program {
            pid,
            stdout,
            stderr,
            recorder,
            contained: Some(self),
            enclosure: None,
            rung: Rung::ImageCached,
            foster: None,
        })
    }

    fn await_success(&self, spawned: io::Result<Child>, order: &LaunchOrder) -> Result<(), String> {
        let mut child = spawned.map_err(|error| self.cannot_run(&error))?;
        let ended = end_within(&mut child, START_TIMEOUT);
        match ended.map_err(|error| format!("lost the runtime: {error}"))? {
            Some(status) if status.success() => Ok(()),
            Some(_) => Err(self.explain(order)),
            None => Err(format!(
                "{} did not start the container within {} s: does it work by itself?",
                self.runtime.display(),
                START_TIMEOUT.as_secs()
            )),
        }
    }

    fn cannot_run(&self, error: &io::Error) -> String {
        format!("the runtime {} cannot be run: {error}", self.runtime.display())
    }

    /// The runtime, ready to be run where the container's files are mounted.
    fn command(&self, arguments: &[String], env: &BTreeMap<String, String>) -> io::Result<Command> {
        #[expect(clippy::disallowed_methods, reason = "the shim is the owner of this child")]
        let mut command = Command::new(&self.runtime);
        // By the marker a later node finds what a killed shim could not end.
        let marker = env.get(MARKER_VARIABLE).map(|marker| (MARKER_VARIABLE, marker.as_str()));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .envs(marker)
            .stdin(Stdio::null())
            .process_group(0);
        let workshop = self.workshop().map_err(io::Error::other)?;
        let mounts = workshop.mounts()?;
        let doors = self.doors.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?;
        #[expect(
            unsafe_code,
            reason = "the child must be where the bundle is before it is the runtime"
        )]
        // SAFETY: it makes system calls only: it allocates nothing, takes no lock, and runs no code of
        // others. The shim has one thread, so the child is a complete copy of it.
        unsafe {
            command.pre_exec(move || {
                signals::unblock_all();
                go_through(&doors);
                mounts.join()?;
                Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
            });
        }
        Ok(command)
    }

    fn explain(&self, order: &LaunchOrder) -> String {
        let mut log = String::new();
        let file = self.workshop().map(|workshop| workshop.file(Bundle::LOG));
        if let Ok(file) =
            file.map_or_else(|_| Err(io::ErrorKind::NotFound.into()), std::fs::File::open)
        {
            // What cannot be read explains nothing.
            let _ = file.take(LOG_BYTES_MAX).read_to_string(&mut log);
        }
        let name = self.runtime.display();
        match complaint(&log) {
            Some(said) if said.contains("executable file") && said.contains("not found") => {
                program_not_found(order)
            }
            Some(said) => format!("{name} could not start the container: {said}"),
            None => format!("{name} could not start the container, and did not say why"),
        }
    }

    /// Lets the runtime forget the container, which has ended or is to end.
    pub(super) fn delete(&self, order: &LaunchOrder) -> io::Result<()> {
        let bundle = self.bundle(&order.cgroup_name);
        let mut command = self.command(&bundle.delete(), &order.env)?;
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let ended = end_within(&mut child, DELETE_TIMEOUT)?;
        ended.map(drop).ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    /// Of a runtime that stays in place of the program, what its exit code says.
    pub(super) fn speaks_for_its_program(&self) -> bool {
        Family::of(&self.runtime).stays()
    }
}

/// How a runtime has ended. `None`: it did not in this time, and was killed with all of its group.
fn end_within(runtime: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(runtime);
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let give_up_at = monotonic() + limit;
    loop {
        if let Some(status) = runtime.try_wait()? {
            return Ok(Some(status));
        }
        let left = give_up_at.saturating_sub(monotonic());
        if left.is_zero() {
            kill_process_group(pid, Signal::KILL)?;
            runtime.wait()?;
            return Ok(None);
        }
        match poll(
            &mut [PollFd::new(&handle, PollFlags::IN)],
            Timespec::try_from(left).ok().as_ref(),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_does_not_end_is_killed_with_what_it_started() {
        let check = |script: &str, limit, expected: Option<i32>| {
            #[expect(clippy::disallowed_methods, reason = "the test is the owner of this child")]
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]).stdout(Stdio::piped()).process_group(0);
            let mut child = command.spawn().unwrap();
            let ended = end_within(&mut child, limit).unwrap();
            assert_eq!(ended.and_then(|status| status.code()), expected, "{script}");
            assert!(child.try_wait().unwrap().is_some(), "{script}");
            // Comes to an end only when nobody is left who could write.
            child.stdout.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
        };
        check("exit 0", Duration::from_mins(1), Some(0));
        check("exit 3", Duration::from_mins(1), Some(3));
        check("sleep 600 & sleep 600", Duration::from_millis(20), None);
    }
}
