//! Sockets in the namespaces of another process.
//!
//! A socket belongs for good to the network namespace in which it was made, so only its making has to happen
//! inside. A thread that does nothing else enters the namespace, makes the socket and ends: no thread of the
//! runtime is ever in a foreign namespace, not even when something fails.
//!
//! Files are looked up from the root of the process, without following a single link on the way: what is there
//! was put there by a program that is not trusted.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

/// Three numbers and what parts them.
const NAMES_BYTES_MAX: u64 = 96;

/// Which namespaces a process is in. A pid may be given out again, so the namespaces' own numbers stand
/// beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Names {
    pid: i32,
    network: u64,
    files: u64,
}

/// Writes to `file` which namespaces the process `pid` is in.
pub fn name(file: &Path, pid: i32) -> io::Result<()> {
    let number = |kind| open(pid, kind).and_then(|namespace| number_of(&namespace));
    let text = format!("{pid} {} {}\n", number("net")?, number("mnt")?);
    let unfinished = file.with_extension("new");
    File::create(&unfinished)?.write_all(text.as_bytes())?;
    std::fs::rename(unfinished, file)
}

/// A TCP socket that does not block, in the network that `file` names.
pub async fn socket(file: &Path) -> io::Result<OwnedFd> {
    let (sender, receiver) = oneshot::channel();
    let file = PathBuf::from(file);
    std::thread::Builder::new().name("namespace".to_owned()).spawn(move || {
        // Nobody waits for it any more if this fails.
        let _ = sender.send(make_inside(&file));
    })?;
    receiver.await.map_err(io::Error::other)?
}

/// What is at `path`, a full one, among the files that `file` names.
pub(crate) fn look_up(file: &Path, path: &Path) -> io::Result<OwnedFd> {
    let names = read(file)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(format!("/proc/{}/root", names.pid), flags, Mode::empty())?;
    // Checked after the root is held: from now on it does not matter whose the pid is.
    check(&open(names.pid, "mnt")?, names.files)?;
    let path = path.strip_prefix("/").map_err(io::Error::other)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let limits = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(openat2(root, path, flags, Mode::empty(), limits)?)
}

/// Leaves the calling thread in the namespace.
fn make_inside(file: &Path) -> io::Result<OwnedFd> {
    let names = read(file)?;
    let namespace = open(names.pid, "net")?;
    check(&namespace, names.network)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::INET, SocketType::STREAM, flags, Some(ipproto::TCP))?)
}

fn read(file: &Path) -> io::Result<Names> {
    let mut text = String::new();
    File::open(file)?.take(NAMES_BYTES_MAX).read_to_string(&mut text)?;
    let mut numbers = text.split_ascii_whitespace();
    let mut next = || numbers.next().and_then(|number| number.parse::<u64>().ok());
    let names = match (next(), next(), next()) {
        (Some(pid), Some(network), Some(files)) => {
            i32::try_from(pid).ok().map(|pid| Names { pid, network, files })
        }
        _ => None,
    };
    names.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Another process has the pid by now if the number is another: the runner is gone.
fn check(namespace: &File, number: u64) -> io::Result<()> {
    if number_of(namespace)? == number {
        return Ok(());
    }
    Err(io::ErrorKind::ConnectionRefused.into())
}

fn open(pid: i32, kind: &str) -> io::Result<File> {
    File::open(format!("/proc/{pid}/ns/{kind}"))
}

fn number_of(namespace: &File) -> io::Result<u64> {
    Ok(rustix::fs::fstat(namespace)?.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named() -> (tempfile::TempDir, PathBuf, i32) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("namespaces");
        let own = rustix::process::getpid().as_raw_nonzero().get();
        name(&file, own).unwrap();
        (dir, file, own)
    }

    #[test]
    fn namespaces_are_known_by_more_than_a_pid() {
        let (_dir, file, own) = named();
        let names = read(&file).unwrap();
        assert_eq!(names.pid, own);
        check(&open(own, "net").unwrap(), names.network).unwrap();
        std::fs::write(&file, format!("{own} 1 1\n")).unwrap();
        let refused = io::ErrorKind::ConnectionRefused;
        assert_eq!(make_inside(&file).unwrap_err().kind(), refused);
        assert_eq!(look_up(&file, Path::new("/etc")).unwrap_err().kind(), refused);
        std::fs::write(&file, "nonsense").unwrap();
        assert_eq!(read(&file).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn no_link_is_followed_anywhere() {
        let (dir, file, _own) = named();
        let real = dir.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::fs::write(real.join("x"), "").unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink(real.join("x"), dir.path().join("end")).unwrap();
        let dir = dir.path().canonicalize().unwrap();
        look_up(&file, &dir.join("real/x")).unwrap();
        assert!(look_up(&file, &dir.join("link/x")).is_err());
        assert!(look_up(&file, &dir.join("real/../real/x")).is_ok());
        assert!(look_up(&file, Path::new("/../../etc")).is_err());
        // The link itself is found, and is no socket.
        look_up(&file, &dir.join("end")).unwrap();
    }
}
