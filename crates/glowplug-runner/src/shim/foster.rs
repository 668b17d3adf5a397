//! A program that a zygote has forked: the shim watches it without being its parent.
//!
//! ```text
//! asked ─► pid told ─► moved into the runner's groups ─► told to go ─► started ─► ended, told by the zygote
//!    └─────────┴───────────────────┴──────────────────────────┴─► an error: killed, started plainly instead
//! ```
//!
//! The zygote is its parent, holds its pid until this connection closes, and kills it when that happens early:
//! so the program dies with its shim. It dies with its zygote as well. All else that the program starts is found
//! by the runner's control groups, without which no zygote is used. What the other side says is checked, since
//! it is the app's own code: only a child of whoever listens on that socket is taken for the program.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use glowplug_core::Rung;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, sendmsg, socket_with, sockopt,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::launch::{Program, output_pipe};
use super::monotonic;
use crate::cgroup::RunnerGroups;
use crate::proc_table::parent_of;
use crate::protocol::{Identity, LaunchOrder, encode};

/// From the question to the program's beginning. A zygote that takes longer is not waited for.
const START_TIMEOUT: Duration = Duration::from_secs(2);
/// For a zygote to say how a program has ended that is seen to have ended.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// A zygote's longest message.
const REPLY_BYTES_MAX: usize = 4 << 10;
/// Passed to a zygote: two outputs and the doors of the runner's groups.
const DESCRIPTORS_MAX: usize = 16;

/// What is asked of a zygote.
#[derive(Serialize)]
struct Request<'a> {
    argv: &'a [String],
    cwd: &'a Path,
    env: &'a std::collections::BTreeMap<String, String>,
}

/// What it answers.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Pid(i32),
    Started(bool),
    Failed(String),
    Exited(Ended),
}

/// How a program has ended.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ended {
    Code(i32),
    Signal(i32),
}

/// The child of another.
pub(super) struct Foster {
    process: OwnedFd,
    zygote: UnixStream,
    input: Vec<u8>,
    ended: Option<Ended>,
    /// Nobody holds the program's pid any more, and nobody will tell its end.
    is_zygote_gone: bool,
}

/// Lets the zygote that listens there fork the program, or says why that is not possible.
pub(super) fn start(
    order: &LaunchOrder,
    socket: &Path,
    groups: &RunnerGroups,
) -> Result<Program, String> {
    if !groups.exist() || order.container.is_some() {
        return Err("nothing would hold its processes together".to_owned());
    }
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let (stdout, stdout_writer) = output_pipe(order.identity.as_ref())?;
    let (stderr, stderr_writer) = output_pipe(order.identity.as_ref())?;
    let give_up_at = monotonic() + START_TIMEOUT;
    let mut zygote = reach(socket).map_err(failed("it cannot be reached"))?;
    let peer = sockopt::socket_peercred(&zygote)
        .map_err(|error| format!("it cannot be told who it is: {error}"))?;
    check_user(peer.uid.as_raw(), order.identity.as_ref())?;
    let parent = peer.pid;
    // A door that root has opened lets through whom its holder names: not for a program with another user.
    let doors = if order.identity.is_none() { groups.doors() } else { Ok(Vec::new()) };
    let doors = doors.map_err(failed("its groups cannot be kept open"))?;
    let mut descriptors = vec![stdout_writer.as_fd(), stderr_writer.as_fd()];
    descriptors.extend(doors.iter().map(AsFd::as_fd).take(DESCRIPTORS_MAX - 2));
    ask(&mut zygote, order, &descriptors).map_err(failed("it does not take the request"))?;
    let mut input = Vec::new();
    let pid = match next_reply(&mut zygote, &mut input, give_up_at)
        .map_err(failed("it does not answer"))?
    {
        Reply::Pid(pid) => Pid::from_raw(pid).filter(|pid| *pid != parent),
        Reply::Failed(problem) => return Err(problem),
        other => return Err(format!("its answer makes no sense: {other:?}")),
    };
    let pid = pid.ok_or("it named no process that could be the program")?;
    let process = pidfd_open(pid, PidfdFlags::empty())
        .map_err(|error| format!("its process cannot be watched: {error}"))?;
    // Not before the pidfd: until then the pid could pass to another.
    if parent_of(pid.as_raw_nonzero().get()) != Some(parent.as_raw_nonzero().get()) {
        return Err("the process it named is not its child".to_owned());
    }
    let mut foster = Foster { process, zygote, input, ended: None, is_zygote_gone: false };
    if let Err(problem) = foster.let_go(pid, groups, give_up_at) {
        foster.kill();
        return Err(problem);
    }
    Ok(Program {
        pid,
        stdout,
        stderr,
        recorder: None,
        contained: None,
        enclosure: None,
        rung: Rung::Zygote,
        foster: Some(foster),
    })
}

/// The socket lies in a folder of the app's user, who can put a way to anybody else's there.
fn check_user(uid: u32, identity: Option<&Identity>) -> Result<(), String> {
    let own = || rustix::process::geteuid().as_raw();
    let wanted = identity.map_or_else(own, |identity| identity.uid);
    if uid == wanted {
        Ok(())
    } else {
        Err(format!("its socket leads to a program of user {uid} instead of {wanted}"))
    }
}

/// Connects without waiting for a zygote that does not accept, and bounds every wait after that.
fn reach(socket: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&stream, &SocketAddrUnix::new(socket)?)?;
    let stream = UnixStream::from(stream);
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(START_TIMEOUT))?;
    Ok(stream)
}

fn ask(
    zygote: &mut UnixStream,
    order: &LaunchOrder,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let line = encode(&Request { argv: &order.argv, cwd: &order.cwd, env: &order.env })?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = control.push(SendAncillaryMessage::ScmRights(descriptors));
    assert!(fits, "the space was made for this many");
    let sent = sendmsg(&*zygote, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL)?;
    zygote.write_all(&line[sent..])
}

/// Waits for one message until this moment.
fn next_reply(
    zygote: &mut UnixStream,
    input: &mut Vec<u8>,
    give_up_at: Duration,
) -> io::Result<Reply> {
    loop {
        if let Some(reply) = take_reply(input)? {
            return Ok(reply);
        }
        let left = give_up_at.saturating_sub(monotonic());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        zygote.set_read_timeout(Some(left))?;
        let mut chunk = [0; 512];
        let count = zygote.read(&mut chunk)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        input.extend_from_slice(&chunk[..count]);
    }
}

fn take_reply(input: &mut Vec<u8>) -> io::Result<Option<Reply>> {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        if input.len() > REPLY_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        return Ok(None);
    };
    let reply = serde_json::from_slice(&input[..end])?;
    input.drain(..=end);
    Ok(Some(reply))
}

impl Foster {
    /// Takes the waiting process in and lets it become the program.
    fn let_go(
        &mut self,
        pid: Pid,
        groups: &RunnerGroups,
        give_up_at: Duration,
    ) -> Result<(), String> {
        let pid = pid.as_raw_nonzero().get();
        groups.gather(|| vec![pid]);
        if !groups.hold(pid) {
            return Err("its process does not go into the runner's groups".to_owned());
        }
        self.zygote
            .write_all(b"{\"go\":true}\n")
            .map_err(|error| format!("its process cannot be told to begin: {error}"))?;
        match next_reply(&mut self.zygote, &mut self.input, give_up_at) {
            Ok(Reply::Started(_)) => {}
            Ok(Reply::Failed(problem)) => return Err(problem),
            Ok(other) => return Err(format!("its process did not begin: {other:?}")),
            Err(error) => return Err(format!("its process does not begin: {error}")),
        }
        self.zygote.set_nonblocking(true).map_err(|error| format!("it cannot be heard: {error}"))
    }

    /// What to wait for beside the rest: the program's end, and what the zygote says.
    pub(super) fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let zygote = (!self.is_zygote_gone).then(|| self.zygote.as_fd());
        [Some(self.process.as_fd()), zygote].into_iter().flatten()
    }

    pub(super) fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.process, PollFlags::IN)];
        let now = Timespec::default();
        poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0)
    }

    /// Takes what the zygote has said. `false` once it has gone, which its children do not survive.
    pub(super) fn hear(&mut self) -> bool {
        let mut chunk = [0; 512];
        match self.zygote.read(&mut chunk) {
            Ok(0) => self.is_zygote_gone = true,
            Ok(count) => self.input.extend_from_slice(&chunk[..count]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.is_zygote_gone = true,
        }
        loop {
            match take_reply(&mut self.input) {
                Ok(Some(Reply::Exited(ended))) => self.ended = Some(ended),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    self.is_zygote_gone = true;
                    break;
                }
            }
        }
        !self.is_zygote_gone
    }

    /// Whether the program's pid can still be no other's.
    pub(super) fn holds_pid(&self) -> bool {
        !self.is_zygote_gone
    }

    pub(super) fn kill(&self) {
        // It may have ended in between, which is what was wanted.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }

    /// How the killed or ended program has ended. Waits for it, and a little for its zygote to say so.
    pub(super) fn into_end(mut self, timeout: Duration) -> Option<Ended> {
        let give_up_at = monotonic() + timeout;
        while !self.has_ended() {
            let left = give_up_at.saturating_sub(monotonic());
            if left.is_zero() {
                return None;
            }
            let mut fds = [PollFd::new(&self.process, PollFlags::IN)];
            let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
        }
        let give_up_at = monotonic() + END_TIMEOUT;
        while self.hear() && self.ended.is_none() {
            let left = give_up_at.saturating_sub(monotonic());
            if left.is_zero() {
                break;
            }
            let mut fds = [PollFd::new(&self.zygote, PollFlags::IN)];
            let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
        }
        let killed_with_zygote =
            self.is_zygote_gone.then_some(Ended::Signal(Signal::KILL.as_raw()));
        self.ended.or(killed_with_zygote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_program_of_the_same_user_is_asked() {
        let own = rustix::process::geteuid().as_raw();
        let other = Identity { uid: own + 1, gid: own + 1, groups: Vec::new() };
        assert_eq!(check_user(own, None), Ok(()));
        assert_eq!(check_user(own + 1, Some(&other)), Ok(()));
        assert!(check_user(own + 1, None).is_err());
        assert!(check_user(own, Some(&other)).is_err(), "not even one of the node's own");
    }

    #[test]
    fn replies_are_read_one_by_one() {
        let mut input = b"{\"pid\": 7}\n{\"exited\": {\"signal\": 9}}\n{\"exi".to_vec();
        assert_eq!(take_reply(&mut input).unwrap(), Some(Reply::Pid(7)));
        assert_eq!(take_reply(&mut input).unwrap(), Some(Reply::Exited(Ended::Signal(9))));
        assert_eq!(take_reply(&mut input).unwrap(), None);
        assert!(take_reply(&mut b"nonsense\n".to_vec()).is_err());
        assert!(take_reply(&mut vec![b' '; REPLY_BYTES_MAX + 1]).is_err());
    }
}
