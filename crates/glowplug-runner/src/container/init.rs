//! Pid 1 of a container: makes it, says so, and sleeps for the rest of its life.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;

use super::capabilities::Capabilities;
use super::{
    ContainerSpec, Network, Preparation, Prepared, Report, ResolvedUser, Runtime, SOCKET_DIR,
    files, mounts, network, oci, passwd, secrets, unshare,
};
use crate::cgroup::go_through;

/// Starts pid 1 of the pid namespace that was just made. It reports through the socket, once.
pub(super) fn start(preparation: &Preparation<'_>) -> io::Result<(Pid, UnixStream)> {
    fork(|report| run(preparation, &report))
}

/// Starts a child that does this and ends. It comes with the way to hear from it, of which each side has its
/// own end alone: whoever waits there learns of the other's end.
pub(crate) fn fork(work: impl FnOnce(UnixStream)) -> io::Result<(Pid, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    #[expect(unsafe_code, reason = "a child that does not become another program has no safe way")]
    // SAFETY: the shim has one thread, so the child is a complete copy of it, whose heap and locks are in
    // order. It never leaves the block for it.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // Even a panic must not run on into the code of the shim.
        let end = EndsProcess;
        drop(ours);
        work(theirs);
        drop(end);
        unreachable!("a process that has ended runs no code")
    }
    let pid = Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(io::Error::last_os_error)?;
    Ok((pid, ours))
}

/// Ends the process without any clean-up that belongs to the shim it was copied from.
struct EndsProcess;

impl Drop for EndsProcess {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "ending without clean-up has no safe interface")]
        // SAFETY: nothing of this copy of the shim is needed by anyone.
        unsafe {
            libc::_exit(1);
        }
    }
}

/// Comes back only if nobody is there to report to.
fn run(preparation: &Preparation<'_>, report: &UnixStream) {
    // Dies with the shim. If that is gone already, the report finds nobody and this ends as well.
    let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let made = tied
        .map_err(|error| format!("cannot tie the container to its supervisor: {error}"))
        .and_then(|()| make(preparation));
    let text = serde_json::to_vec(&match made {
        Ok(prepared) => Report::Prepared(prepared),
        Err(problem) => Report::Failed(problem),
    });
    let retired = text.map_err(io::Error::from).and_then(|text| {
        retire()?;
        let mut channel = report;
        channel.write_all(&text)?;
        report.shutdown(Shutdown::Write)?;
        // Until the shim has taken what it needs.
        channel.read(&mut [0])
    });
    if retired.is_ok() {
        sleep_for_ever();
    }
}

/// In words that need no more context.
fn make(preparation: &Preparation<'_>) -> Result<Prepared, String> {
    let spec = preparation.spec;
    if spec.runtime == Runtime::Native {
        // OCI runtimes want the groups that they are named to be empty.
        go_through(preparation.doors);
    }
    // Not in the way of what is aimed at the shim's own group.
    let _ = rustix::process::setsid();
    // What is made for the container is root's, whatever the node's own habit.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    match &spec.runtime {
        Runtime::Native => make_whole(preparation).map(|user| Prepared { user, workshop: None }),
        Runtime::Oci(_) => oci::bundle::make(preparation),
    }
}

fn make_whole(preparation: &Preparation<'_>) -> Result<ResolvedUser, String> {
    let spec = preparation.spec;
    let flags = UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP;
    part(spec, flags)?;
    rustix::system::sethostname(spec.hostname.as_bytes())
        .map_err(|error| format!("cannot name the container `{}`: {error}", spec.hostname))?;
    let host_files = files::HostFiles::read(spec.network);
    mounts::build(preparation)?;
    host_files.write(&spec.hostname)?;
    let user = passwd::resolve(&spec.user)?;
    files::make_working_dir(preparation.working_dir)?;
    files::give(Path::new(SOCKET_DIR), &user.identity)?;
    if let Some(files) = &spec.secrets {
        secrets::mount(files, &user.identity)?;
    }
    mounts::seal(spec)?;
    Ok(user)
}

/// Gives this process mounts of its own, a network if it is to have one, and these namespaces.
pub(super) fn part(spec: &ContainerSpec, others: UnshareFlags) -> Result<(), String> {
    let mut flags = UnshareFlags::NEWNS | others;
    if spec.network == Network::None {
        flags |= UnshareFlags::NEWNET;
    }
    unshare(flags).map_err(|error| format!("cannot make the container's namespaces: {error}"))?;
    if spec.network == Network::None {
        network::raise_loopback()
            .map_err(|error| format!("cannot bring up the container's loopback: {error}"))?;
    }
    Ok(())
}

/// Gives up all that this process does not need to sleep, so that there is nothing to take over.
pub(crate) fn retire() -> io::Result<()> {
    let _ = rustix::thread::set_name(c"init");
    #[expect(unsafe_code, reason = "these have no safe interface")]
    // SAFETY: SIG_IGN installs no code. With SIGCHLD ignored the kernel reaps every child by itself. The
    // last call takes no pointers.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        // Not to be read or traced by the program, whose user may be the same.
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    }
    Capabilities::NONE.bound()?;
    Capabilities::NONE.hold()?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Without a single open file: the runner's lock, above all, is not this process's to hold.
pub(crate) fn sleep_for_ever() -> ! {
    #[expect(unsafe_code, reason = "these have no safe interface")]
    // SAFETY: nothing in this process uses a descriptor from here on.
    unsafe {
        libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
        loop {
            libc::pause();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_end_of_an_init_that_has_said_nothing_is_noticed() {
        let killed = |_report: UnixStream| {
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
        };
        let check = |how: &str, work: fn(UnixStream)| {
            let (pid, report) = fork(work).unwrap();
            // Only so that the test comes to an end.
            report.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            assert_eq!((&report).read(&mut [0]).map_err(|error| error.kind()), Ok(0), "{how}");
            let options = rustix::process::WaitOptions::empty();
            rustix::process::waitpid(Some(pid), options).unwrap();
        };
        check("killed", killed);
        check("ended", |_| ());
    }

    #[test]
    fn the_end_of_who_waits_is_noticed_by_an_init() {
        let (pid, report) = fork(|report| {
            let _ = (&report).read(&mut [0]);
        })
        .unwrap();
        drop(report);
        let options = rustix::process::WaitOptions::empty();
        let (_, status) = rustix::process::waitpid(Some(pid), options).unwrap().unwrap();
        assert!(status.exited());
    }
}
