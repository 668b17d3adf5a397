//! A runner's program for tests: tries to get out of its container, and to harm who is outside.
//!
//! Each attempt prints `held NAME: WHY` or `ESCAPED NAME: HOW`. None does harm where it succeeds, so that it can
//! be shown that they would. The environment says what there is on the host to aim at: `HOST_FILE`,
//! `HOST_PID`, `HOST_PORT`, `HOST_ABSTRACT`. Words on the command line are done in order:
//! `attempts`, `chroot-out`, `raise`, `unshare-user`, `setuid`, `euid`, `fill PATH`, `fork`, `wait`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{AddressFamily, SocketType, ipproto, socket};
use rustix::process::{Pid, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// An end to filling and forking where nothing stops it.
const FILL_BYTES_MAX: u64 = 1 << 30;
const CHUNK_BYTES: usize = 8 << 10;
const FORKS_MAX: usize = 512;
const DEEP_UP: &str = "../../../../../../../../../../..";

/// What was gained, in words; an error is what an attempt should meet.
type Attempt = io::Result<String>;
type Named = (&'static str, fn() -> Attempt);

fn main() {
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "attempts" => attempts(),
            "setuid" => say(&format!("setuid {}", run("/setuid-program", &["euid"]))),
            "chroot-out" => say(&told(chroot_out())),
            "raise" => say(&told(raise_capabilities())),
            "unshare-user" => say(&told(unshare_user())),
            "euid" => say(&rustix::process::geteuid().as_raw().to_string()),
            "fill" => fill(&words.next().unwrap_or_default()),
            "fork" => fork(),
            "wait" => loop {
                std::thread::park();
            },
            other => say(&format!("no such word: {other}")),
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn attempts() {
    let all: [Named; 37] = [
        ("host-file", || open_host_file(&host("HOST_FILE"))),
        ("host-file-through-init", || {
            open_host_file(&format!("/proc/1/root{}", host("HOST_FILE")))
        }),
        ("host-file-by-chroot", || in_a_child("chroot-out")),
        ("init-environment", || read("/proc/1/environ")),
        ("init-memory", || open_for_writing("/proc/1/mem")),
        ("init-files", || list("/proc/1/fd")),
        ("init-namespace", join_init),
        ("init-kill", kill_init),
        ("other-pids", other_pids),
        ("host-kill", signal_host),
        ("capabilities-raise", || in_a_child("raise")),
        ("unshare-user", || in_a_child("unshare-user")),
        ("unshare-mounts", || raw(libc::SYS_unshare, [flags(libc::CLONE_NEWNS), 0, 0, 0])),
        ("mount-tmpfs", || mount("tmpfs", "/mnt", "tmpfs", MountFlags::empty())),
        ("mount-proc", || mount("proc", "/mnt", "proc", MountFlags::empty())),
        ("mount-cgroups", || mount("cgroup", "/mnt", "cgroup2", MountFlags::empty())),
        ("mount-remount", || {
            done(rustix::mount::mount_remount("/proc/sys", MountFlags::BIND, c""))
        }),
        ("unmount-mask", || done(rustix::mount::unmount("/proc/sys", UnmountFlags::DETACH))),
        ("host-port", connect_host),
        ("host-abstract-socket", connect_abstract),
        ("interfaces", interfaces),
        ("raw-socket", || done(socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)))),
        ("packet-socket", || done(socket(AddressFamily::PACKET, SocketType::RAW, None))),
        // The kernel's null device, harmless and yet refused, and its memory, made but not opened.
        ("make-device", || make_device("/made-null", 3)),
        ("make-memory-device", || make_device("/made-memory", 1)),
        ("image-device", || open_for_writing("/image-null")),
        ("kernel-memory", || open_for_writing("/dev/mem")),
        ("kernel-log", || read("/dev/kmsg")),
        ("kernel-core", || read("/proc/kcore")),
        ("kernel-setting", || open_for_writing("/proc/sys/kernel/core_pattern")),
        ("kernel-trigger", || open_for_writing("/proc/sysrq-trigger")),
        ("kernel-uevent", || open_for_writing("/sys/kernel/uevent_helper")),
        ("read-only-bind", || done(File::create("/usr/written"))),
        ("ptrace-init", || raw(libc::SYS_ptrace, [16, 1, 0, 0])),
        ("keys", || raw(libc::SYS_keyctl, [0, usize::MAX - 2, 0, 0])),
        ("bpf", || raw(libc::SYS_bpf, [0, 0, 0, 0])),
        ("io-uring", || raw(libc::SYS_io_uring_setup, [0, 0, 0, 0])),
    ];
    for (name, attempt) in all {
        match attempt() {
            Ok(how) => say(&format!("ESCAPED {name}: {how}")),
            Err(why) => say(&format!("held {name}: {why}")),
        }
    }
    say("attempts done");
}

fn told(attempt: Attempt) -> String {
    attempt.map_or_else(|error| error.to_string(), |_| "out".to_owned())
}

fn unshare_user() -> Attempt {
    raw(libc::SYS_unshare, [flags(libc::CLONE_NEWUSER), 0, 0, 0])
}

fn host(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn held(why: &str) -> Attempt {
    Err(io::Error::other(why.to_owned()))
}

fn done<T, E: Into<io::Error>>(result: Result<T, E>) -> Attempt {
    result.map(|_| "done".to_owned()).map_err(Into::into)
}

fn open_host_file(path: &str) -> Attempt {
    done(File::open(path))
}

fn read(path: &str) -> Attempt {
    let mut bytes = [0; 64];
    let count = File::open(path)?.read(&mut bytes)?;
    if count == 0 { held("it is empty") } else { Ok(format!("{count} bytes")) }
}

/// Does not write, in case it may.
fn open_for_writing(path: &str) -> Attempt {
    done(OpenOptions::new().write(true).open(path))
}

fn list(path: &str) -> Attempt {
    let count = std::fs::read_dir(path)?.count();
    if count == 0 { held("it is empty") } else { Ok(format!("{count} entries")) }
}

fn raw(number: libc::c_long, arguments: [usize; 4]) -> Attempt {
    let [first, second, third, fourth] = arguments;
    #[expect(unsafe_code, reason = "these calls are to be refused, so nobody wraps them")]
    // SAFETY: no argument is a pointer that the kernel could follow into this process's memory.
    let result = unsafe { libc::syscall(number, first, second, third, fourth) };
    let error = io::Error::last_os_error();
    // Whoever gets as far as being told that the arguments are nonsense has been let in.
    match error.raw_os_error() {
        _ if result >= 0 => Ok("done".to_owned()),
        Some(libc::EINVAL | libc::EFAULT) => Ok("let in".to_owned()),
        _ => Err(error),
    }
}

fn flags(flags: libc::c_int) -> usize {
    usize::try_from(flags).unwrap_or(0)
}

/// Since what it would gain, or lose, must not change the attempts after it.
fn in_a_child(word: &str) -> Attempt {
    let said = run("/proc/self/exe", &[word]);
    if said == "out" { Ok(said) } else { held(&said) }
}

/// The old way out of a `chroot`: have a working directory above it.
fn chroot_out() -> Attempt {
    let file = host("HOST_FILE");
    std::fs::create_dir_all("/mnt")?;
    rustix::process::chroot("/mnt")?;
    rustix::process::chdir(DEEP_UP)?;
    rustix::process::chroot(".")?;
    File::open(file)?;
    Ok("out".to_owned())
}

fn join_init() -> Attempt {
    let namespace = File::open("/proc/1/ns/mnt")?;
    done(rustix::thread::move_into_link_name_space(namespace.as_fd(), None))
}

fn kill_init() -> Attempt {
    let init = Pid::INIT;
    rustix::process::kill_process(init, Signal::KILL)?;
    // Pid 1 is still there if this still runs, since all would end with it.
    std::thread::sleep(std::time::Duration::from_millis(20));
    held("it lives")
}

fn other_pids() -> Attempt {
    let pids = std::fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pids: Vec<u32> = pids.collect();
    if pids.iter().all(|pid| *pid < 8) {
        held(&format!("{pids:?}"))
    } else {
        Ok(format!("{pids:?}"))
    }
}

fn signal_host() -> Attempt {
    let pid = host("HOST_PID").parse().ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    done(rustix::process::test_kill_process(pid))
}

fn raise_capabilities() -> Attempt {
    let all = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE;
    let sets = CapabilitySets { effective: all, permitted: all, inheritable: all };
    done(rustix::thread::set_capabilities(None, sets))
}

fn mount(source: &str, target: &str, kind: &str, flags: MountFlags) -> Attempt {
    let _ = std::fs::create_dir_all("/mnt");
    done(rustix::mount::mount(source, target, kind, flags, None))
}

fn connect_host() -> Attempt {
    let port: u16 = host("HOST_PORT").parse().map_err(io::Error::other)?;
    done(TcpStream::connect(("127.0.0.1", port)))
}

/// Such sockets have no file, so only the network namespace is in the way.
fn connect_abstract() -> Attempt {
    let address = SocketAddr::from_abstract_name(host("HOST_ABSTRACT"))?;
    done(UnixStream::connect_addr(&address))
}

fn interfaces() -> Attempt {
    let names = std::fs::read_to_string("/proc/net/dev")?;
    let others: Vec<&str> = names
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next())
        .map(str::trim)
        .filter(|name| *name != "lo")
        .collect();
    if others.is_empty() { held("only lo") } else { Ok(others.join(" ")) }
}

fn make_device(path: &str, minor: u32) -> Attempt {
    let number = rustix::fs::makedev(1, minor);
    done(rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::RUSR, number))
}

/// What a program says.
fn run(program: &str, words: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "it is waited for right here")]
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => error.to_string(),
    }
}

fn fill(path: &str) {
    let mut written = 0;
    let chunk = [1; CHUNK_BYTES];
    let filled = File::create(Path::new(path)).and_then(|mut file| {
        while written < FILL_BYTES_MAX {
            file.write_all(&chunk)?;
            written += CHUNK_BYTES as u64;
        }
        Ok(())
    });
    let end = filled.map_or_else(|error| error.to_string(), |()| "without end".to_owned());
    say(&format!("filled {written} {end}"));
}

fn fork() {
    let mut children = Vec::new();
    let end = loop {
        if children.len() >= FORKS_MAX {
            break "without end".to_owned();
        }
        #[expect(clippy::disallowed_methods, reason = "the end of the container is their end")]
        let child = Command::new("/proc/self/exe").arg("wait").stdin(Stdio::null()).spawn();
        match child {
            Ok(child) => children.push(child),
            Err(error) => break error.to_string(),
        }
    };
    say(&format!("forked {} {end}", children.len()));
}
