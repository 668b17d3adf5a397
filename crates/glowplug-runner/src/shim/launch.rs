//! Starts the program: in a group of its own, with lowered limits, as its user, dying with the shim.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use glowplug_core::Rung;
use rustix::fs::{Gid, OFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::foster::Foster;
use super::runtime::Contained;
use super::signals;
use super::touched::Recorder;
use crate::backend::Warm;
use crate::cgroup::{RunnerGroups, go_through};
use crate::container::{ContainerSpec, Entrance, Preparation, Recording, Runtime, Sandbox};
use crate::enclosure::{Enclosing, Enclosure, EnclosureDoor, FirstPid};
use crate::protocol::{
    CONTROL_SOCKET, CONTROL_VARIABLE, Identity, LaunchOrder, MARKER_VARIABLE, NAMESPACES_FILE,
};

/// A program that has been started, and what it writes.
pub(super) struct Program {
    pub(super) pid: Pid,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// `None`: not wanted. An error: not possible.
    pub(super) recorder: Option<io::Result<Recorder>>,
    /// If an OCI runtime has started it.
    pub(super) contained: Option<Contained>,
    /// If its memory can be captured.
    pub(super) enclosure: Option<Enclosure>,
    /// What it began with in the end.
    pub(super) rung: Rung,
    /// If a zygote has forked it.
    pub(super) foster: Option<Foster>,
}

/// Starts it, or says why that is not possible, in words for the app's owner. `dir` is the runner's.
pub(super) fn start(
    order: &LaunchOrder,
    dir: &Path,
    groups: &RunnerGroups,
) -> Result<Program, String> {
    let Some((name, arguments)) = order.argv.split_first() else {
        return Err("the command is empty".to_owned());
    };
    let container = order.container.as_ref();
    if let Some(spec) = container
        && let Runtime::Oci(runtime) = &spec.runtime
    {
        return super::runtime::start(order, spec, runtime, dir, groups);
    }
    let doors = groups.doors().map_err(|error| format!("cannot keep its groups open: {error}"))?;
    let entrance = container.map(|spec| prepare(spec, order, dir, &doors)).transpose()?;
    let recorder = entrance
        .as_ref()
        .zip(container)
        .and_then(|(entrance, spec)| record(entrance.sandbox().init(), spec));
    let enclosure = enclose(order, &doors)?;
    let user = entrance.as_ref().map(|entrance| &entrance.sandbox().user);
    let identity = user.map(|user| &user.identity).or(order.identity.as_ref());
    let (stdout, stdout_writer) = output_pipe(identity)?;
    let (stderr, stderr_writer) = output_pipe(identity)?;
    #[expect(clippy::disallowed_methods, reason = "the shim is the owner of this child")]
    let mut command = Command::new(name);
    command
        .env_clear()
        .envs(user.map(|user| ("HOME", &user.home)))
        .stdin(Stdio::null())
        .stdout(stdout_writer)
        .stderr(stderr_writer);
    if enclosure.is_some() {
        command.args(enclosed_arguments(order, arguments)).envs(enclosed_environment(order));
    } else {
        command.args(arguments).envs(&order.env).process_group(0);
    }
    if entrance.is_none() && enclosure.is_none() {
        command.current_dir(&order.cwd);
    }
    let door = enclosure.as_ref().map(|enclosure| enclosure.door(&order.cwd)).transpose();
    let door = door.map_err(|error| format!("cannot enter where it is to run: {error}"))?;
    let restrictions = Restrictions::new(order, entrance, door, doors);
    #[expect(unsafe_code, reason = "the child must restrict itself before it becomes the program")]
    // SAFETY: `apply` makes system calls only: it allocates nothing, takes no lock, and runs no code of
    // others. The shim has one thread, so the child is a complete copy of it.
    unsafe {
        command.pre_exec(move || restrictions.apply());
    }
    let child = match &enclosure {
        Some(enclosure) => enclosure.spawn_inside(|| command.spawn()),
        None => command.spawn(),
    };
    let child = child.map_err(|error| explain(order, &error))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| "the kernel gave the program no usable pid".to_owned())?;
    let (contained, rung) = (None, Rung::ImageCached);
    Ok(Program { pid, stdout, stderr, recorder, contained, enclosure, rung, foster: None })
}

/// Where a program runs that is to be captured.
fn enclose(order: &LaunchOrder, doors: &[OwnedFd]) -> Result<Option<Enclosure>, String> {
    let (Warm::Enclosed { .. }, Some(socket_dir)) = (&order.warm, &order.socket_dir) else {
        return Ok(None);
    };
    let place = &order.enclosed_socket_dir;
    let enclosing = Enclosing { socket_dir, place, doors, pids: FirstPid::Program };
    Enclosure::make(&enclosing).map(Some)
}

/// With the path of its socket's directory as it is inside.
fn enclosed_arguments(order: &LaunchOrder, arguments: &[String]) -> Vec<String> {
    arguments.iter().map(|argument| as_inside(order, argument)).collect()
}

/// What an enclosed program finds, and is told again when it is restored. The runner's marker is no part of
/// it: it would be in every runner that is restored from this one.
pub(super) fn enclosed_environment(order: &LaunchOrder) -> BTreeMap<String, String> {
    let inside = |(name, value): (&String, &String)| (name.clone(), as_inside(order, value));
    let mut env: BTreeMap<String, String> = order.env.iter().map(inside).collect();
    env.remove(MARKER_VARIABLE);
    let control = order.enclosed_socket_dir.join(CONTROL_SOCKET);
    env.insert(CONTROL_VARIABLE.to_owned(), control.display().to_string());
    env
}

fn as_inside(order: &LaunchOrder, text: &str) -> String {
    let Some(socket_dir) = &order.socket_dir else { return text.to_owned() };
    let (outside, inside) = (socket_dir.display(), order.enclosed_socket_dir.display());
    text.replace(&format!("{outside}/"), &format!("{inside}/"))
}

/// Before the program is there, so that it is the first to be seen. `member`: a process of the container.
pub(super) fn record(member: Pid, spec: &ContainerSpec) -> Option<io::Result<Recorder>> {
    let is_wanted = spec.recording == Recording::UntilReady;
    is_wanted.then(|| Recorder::start(member, &spec.root.lower))
}

/// Makes the container, and writes down where it is.
fn prepare(
    spec: &ContainerSpec,
    order: &LaunchOrder,
    dir: &Path,
    doors: &[OwnedFd],
) -> Result<Entrance, String> {
    let preparation = Preparation { spec, scaffold: dir, working_dir: &order.cwd, doors };
    let sandbox = Sandbox::prepare(&preparation)?;
    name_namespaces(dir, sandbox.init())?;
    Entrance::new(sandbox, spec, &order.cwd)
}

/// Writes down that this process is where the program can be reached.
pub(super) fn name_namespaces(dir: &Path, pid: Pid) -> Result<(), String> {
    glowplug_dial::namespace::name(&dir.join(NAMESPACES_FILE), pid.as_raw_nonzero().get())
        .map_err(|error| format!("cannot write down where the container is: {error}"))
}

/// A pipe whose reading end does not block.
pub(super) fn output_pipe(identity: Option<&Identity>) -> Result<(OwnedFd, OwnedFd), String> {
    let make = || {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&reader, OFlags::NONBLOCK)?;
        if let Some(identity) = identity {
            // Programs that open /dev/stdout anew need the right to.
            let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
            rustix::fs::fchown(&writer, Some(uid), Some(gid))?;
        }
        Ok((reader, writer))
    };
    make().map_err(|error: io::Error| format!("cannot make a pipe for the log: {error}"))
}

fn explain(order: &LaunchOrder, error: &io::Error) -> String {
    let program = order.argv.first().map_or("", String::as_str);
    if order.container.is_none() && !order.cwd.is_dir() {
        return format!("the working directory {} does not exist", order.cwd.display());
    }
    match error.kind() {
        io::ErrorKind::NotFound => program_not_found(order),
        io::ErrorKind::PermissionDenied if !program.contains('/') => format!(
            "the program `{program}` was not found where its user may look: give its full path"
        ),
        io::ErrorKind::PermissionDenied => {
            format!(
                "`{program}` may not be run: is it executable, and may its user enter its folder?"
            )
        }
        _ => format!("`{program}` could not be started: {error}"),
    }
}

pub(super) fn program_not_found(order: &LaunchOrder) -> String {
    let program = order.argv.first().map_or("", String::as_str);
    format!(
        "the program `{program}` was not found: give its full path, or install it where PATH finds it"
    )
}

/// Everything the child needs between fork and exec, prepared so that it need not allocate.
struct Restrictions {
    rlimits: Vec<(Resource, Rlimit)>,
    identity: Option<(Uid, Gid, Vec<Gid>)>,
    entrance: Option<Entrance>,
    enclosure: Option<EnclosureDoor>,
    doors: Vec<OwnedFd>,
    shim: Pid,
}

impl Restrictions {
    fn new(
        order: &LaunchOrder,
        entrance: Option<Entrance>,
        enclosure: Option<EnclosureDoor>,
        doors: Vec<OwnedFd>,
    ) -> Self {
        let mut rlimits = vec![(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })];
        if let Some(wanted) = order.limits.open_files_max {
            rlimits.push((Resource::Nofile, lowered(Resource::Nofile, wanted)));
        }
        let identity = order.identity.as_ref().map(|identity| {
            let groups = identity.groups.iter().copied().map(Gid::from_raw).collect();
            (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid), groups)
        });
        Self { rlimits, identity, entrance, enclosure, doors, shim: rustix::process::getpid() }
    }

    /// Runs in the child. The order matters: limits while it still has the right to, then the user, and the tie
    /// to the shim after that, because a change of user cuts it. Last is the filter, which holds for the rest.
    fn apply(&self) -> io::Result<()> {
        signals::unblock_all();
        go_through(&self.doors);
        if let Some(entrance) = &self.entrance {
            entrance.join()?;
        }
        if let Some(enclosure) = &self.enclosure {
            enclosure.join()?;
        }
        for (resource, limit) in &self.rlimits {
            rustix::process::setrlimit(*resource, *limit)?;
        }
        if let Some((uid, gid, groups)) = &self.identity {
            rustix::thread::set_thread_groups(groups)?;
            rustix::thread::set_thread_gid(*gid)?;
            rustix::thread::set_thread_uid(*uid)?;
            rustix::thread::set_no_new_privs(true)?;
        }
        if let Some(entrance) = &self.entrance {
            entrance.give_up_rights()?;
        }
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // A parent outside the pid namespace cannot be seen; the one inside is no shim.
        let is_seen = self.entrance.is_none() && self.enclosure.is_none();
        let parent = is_seen.then_some(self.shim);
        if rustix::process::getppid() != parent {
            // The shim died before the tie was made.
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        self.entrance.as_ref().map_or(Ok(()), Entrance::filter)
    }
}

/// Neither the soft nor the hard limit is ever raised: that is refused even to root on some hosts.
pub(super) fn lowered(resource: Resource, wanted: u64) -> Rlimit {
    let now = rustix::process::getrlimit(resource);
    let lower = |limit: Option<u64>| Some(limit.map_or(wanted, |limit| limit.min(wanted)));
    Rlimit { current: lower(now.current), maximum: lower(now.maximum) }
}

/// Points the standard streams of the shim away from what the node gave it to start with.
pub(super) fn detach_standard_streams() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}
