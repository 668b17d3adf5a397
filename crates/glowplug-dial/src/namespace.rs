//! Sockets in the network namespace of another process.
//!
//! A socket belongs for good to the namespace in which it was made, so only its making has to happen inside. A
//! thread that does nothing else enters the namespace, makes the socket and ends: no thread of the runtime
//! is ever in a foreign namespace, not even when something fails.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

/// Two numbers and what parts them.
const NAME_BYTES_MAX: u64 = 64;

/// Writes to `file` which network namespace it is that the process `pid` is in. A pid may be given out again,
/// so the namespace's own number stands beside it.
pub fn name(file: &Path, pid: i32) -> io::Result<()> {
    let number = number_of(&open_of(pid)?)?;
    let mut text = String::new();
    let _ = writeln!(text, "{pid} {number}");
    let unfinished = file.with_extension("new");
    File::create(&unfinished)?.write_all(text.as_bytes())?;
    std::fs::rename(unfinished, file)
}

/// A TCP socket that does not block, in the namespace that `file` names.
pub async fn socket(file: &Path) -> io::Result<OwnedFd> {
    let (sender, receiver) = oneshot::channel();
    let file = PathBuf::from(file);
    std::thread::Builder::new().name("namespace".to_owned()).spawn(move || {
        // Nobody waits for it any more if this fails.
        let _ = sender.send(make_inside(&file));
    })?;
    receiver.await.map_err(io::Error::other)?
}

/// Leaves the calling thread in the namespace.
fn make_inside(file: &Path) -> io::Result<OwnedFd> {
    let namespace = open(file)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::INET, SocketType::STREAM, flags, Some(ipproto::TCP))?)
}

fn open(file: &Path) -> io::Result<File> {
    let mut text = String::new();
    File::open(file)?.take(NAME_BYTES_MAX).read_to_string(&mut text)?;
    let numbers = text.trim_end().split_once(' ');
    let numbers = numbers.and_then(|(pid, number)| Some((pid.parse().ok()?, number.parse().ok()?)));
    let (pid, number): (i32, u64) = numbers.ok_or(io::ErrorKind::InvalidData)?;
    let namespace = open_of(pid)?;
    if number_of(&namespace)? == number {
        return Ok(namespace);
    }
    // Another process has the pid by now: the runner is gone.
    Err(io::ErrorKind::ConnectionRefused.into())
}

fn open_of(pid: i32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/ns/net"))
}

fn number_of(namespace: &File) -> io::Result<u64> {
    Ok(rustix::fs::fstat(namespace)?.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_known_by_more_than_a_pid() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("network");
        let own = rustix::process::getpid().as_raw_nonzero().get();
        name(&file, own).unwrap();
        assert_eq!(
            number_of(&open(&file).unwrap()).unwrap(),
            number_of(&open_of(own).unwrap()).unwrap()
        );
        std::fs::write(&file, format!("{own} 1\n")).unwrap();
        assert_eq!(open(&file).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        std::fs::write(&file, "nonsense").unwrap();
        assert_eq!(open(&file).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
