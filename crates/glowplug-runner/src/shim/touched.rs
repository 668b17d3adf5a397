//! Which files of its image a program opens until it is ready, as the kernel tells.
//!
//! ```text
//! root mounted → mark put on that one mount → program runs, opens are queued → ready: mark taken off,
//! the rest of the queue read → paths that are the image's own, in the order of first use
//! ```
//!
//! Only opens are asked for: to map, run or read a file it must be opened, and each is told once rather than
//! with every read. Which parts of a file were read the kernel does not say on an overlay, and what is in
//! the page cache says nothing right after a pull, so files are whole. Limits: [`BOUNDS`]; the
//! kernel's own on events that wait, beyond which the list is told to be incomplete.

mod paths;

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use self::paths::{Bounds, Paths};
use super::Shim;
use crate::protocol::{FromShim, OPENED_FILE, write_bytes};

/// What is kept of one start.
const BOUNDS: Bounds = Bounds { files: 65_536, path_bytes: 8 << 20 };
/// Events that are read at once. Each comes with an open file.
const EVENTS_PER_TURN: usize = 128;
/// Events whose files cannot be opened, beyond which a recording is given up.
const FAULTS_MAX: usize = 1_024;
const EVENT_BYTES: usize = size_of::<libc::fanotify_event_metadata>();

/// A recording that is going on. When it goes away nothing is told of the mount any more.
#[derive(Debug)]
pub(super) struct Recorder {
    group: OwnedFd,
    root: OwnedFd,
    paths: Paths,
    is_complete: bool,
    faults: usize,
}

/// What a start opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// Relative to the root, in the order of first use. Only files that the image has.
    pub(super) paths: Vec<Vec<u8>>,
    pub(super) is_complete: bool,
}

impl Recorder {
    /// Begins to record what is opened below the root of the container with this first process.
    pub(super) fn start(init: Pid, lower: &[PathBuf]) -> io::Result<Self> {
        let root = format!("/proc/{}/root", init.as_raw_nonzero());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        let paths = Paths::of(lower, BOUNDS)?;
        let group = new_group()?;
        mark(&group, libc::FAN_MARK_ADD, &root)?;
        Ok(Self { group, root, paths, is_complete: true, faults: 0 })
    }

    /// Takes in what has been told so far, up to one turn's worth. `true` if there may be more.
    pub(super) fn read(&mut self) -> bool {
        let mut buffer = [0_u8; EVENT_BYTES * EVENTS_PER_TURN];
        match rustix::io::read(&self.group, &mut buffer) {
            Ok(count) => {
                for event in events(&buffer[..count]) {
                    self.take(event);
                }
                count > 0
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            Err(_) => {
                // The file of an event could not be opened. The event is gone, those behind it are not.
                self.is_complete = false;
                self.faults += 1;
                !self.is_broken()
            }
        }
    }

    /// It is of no use to go on.
    pub(super) fn is_broken(&self) -> bool {
        self.faults >= FAULTS_MAX
    }

    fn take(&mut self, event: Event) {
        let Event::Opened(file) = event else {
            self.is_complete = false;
            return;
        };
        let Ok(path) = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) else {
            self.is_complete = false;
            return;
        };
        if let Some(path) = path.as_os_str().as_bytes().strip_prefix(b"/") {
            self.is_complete &= self.paths.add(path);
        }
    }

    /// Ends the recording.
    pub(super) fn finish(mut self) -> Opened {
        // From here on nothing is added, so the queue has an end.
        if mark(&self.group, libc::FAN_MARK_REMOVE, &self.root).is_err() {
            self.is_complete = false;
        } else {
            while self.read() {}
        }
        Opened { paths: self.paths.in_order(), is_complete: self.is_complete }
    }
}

impl AsFd for Recorder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

enum Event {
    Opened(File),
    /// More has happened than fits into the kernel's queue.
    Lost,
}

fn new_group() -> io::Result<OwnedFd> {
    // Not to wait for the other end of a pipe that the program has opened.
    let opened = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_LARGEFILE;
    let flags = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
    #[expect(unsafe_code, reason = "fanotify has no safe interface")]
    // SAFETY: takes no pointers. What comes back is a descriptor of nobody else, or an error.
    unsafe {
        match libc::fanotify_init(flags, opened.cast_unsigned()) {
            -1 => Err(io::Error::last_os_error()),
            group => Ok(OwnedFd::from_raw_fd(group)),
        }
    }
}

/// Puts a mark on the mount that a descriptor is of, or takes it off.
fn mark(group: &OwnedFd, what: libc::c_uint, root: &OwnedFd) -> io::Result<()> {
    #[expect(unsafe_code, reason = "fanotify has no safe interface")]
    // SAFETY: the path is a string with an end that outlives the call.
    let result = unsafe {
        libc::fanotify_mark(
            group.as_raw_fd(),
            what | libc::FAN_MARK_MOUNT,
            libc::FAN_OPEN,
            root.as_raw_fd(),
            c".".as_ptr(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The events that a read has brought, each with its file, which is closed with it.
fn events(mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while bytes.len() >= EVENT_BYTES {
        #[expect(unsafe_code, reason = "the kernel's events have no safe interface")]
        // SAFETY: there are enough bytes, any bytes are a valid event, and it is read where it is not aligned.
        let event =
            unsafe { bytes.as_ptr().cast::<libc::fanotify_event_metadata>().read_unaligned() };
        if event.vers != libc::FANOTIFY_METADATA_VERSION {
            events.push(Event::Lost);
            break;
        }
        if event.fd >= 0 {
            #[expect(unsafe_code, reason = "the kernel hands over a descriptor as a number")]
            // SAFETY: the kernel has made it for this event, which is read once.
            let file = unsafe { File::from_raw_fd(event.fd) };
            events.push(Event::Opened(file));
        } else {
            events.push(Event::Lost);
        }
        let length = usize::try_from(event.event_len).unwrap_or(EVENT_BYTES).max(EVENT_BYTES);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    events
}

impl Shim {
    pub(super) fn record(&mut self, started: Option<io::Result<Recorder>>) {
        match started {
            Some(Ok(recorder)) => self.recorder = Some(recorder),
            Some(Err(error)) => {
                self.log.say(&format!("which files this start opens is not recorded: {error}"));
            }
            None => {}
        }
    }

    pub(super) fn take_recorded(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.read();
            if recorder.is_broken() {
                self.recorder = None;
                self.log
                    .say("which files this start opens is recorded no longer: they are refused");
            }
        }
    }

    /// A recording that cannot be written down is made again at another start.
    pub(super) fn end_recording(&mut self) {
        let Some(recorder) = self.recorder.take() else { return };
        let opened = recorder.finish();
        let bytes: Vec<u8> =
            opened.paths.iter().flat_map(|path| path.iter().copied().chain([0])).collect();
        if write_bytes(&self.dir, OPENED_FILE, &bytes).is_ok() {
            self.broadcast(&FromShim::Recorded { is_complete: opened.is_complete });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(fd: i32, version: u8, length: u32) -> Vec<u8> {
        // In the order of the kernel's structure: length, version, reserved, its own length, mask, fd, pid.
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([version, 0]);
        bytes.extend(u16::try_from(EVENT_BYTES).unwrap().to_ne_bytes());
        bytes.extend(libc::FAN_OPEN.to_ne_bytes());
        bytes.extend(fd.to_ne_bytes());
        bytes.extend(0_i32.to_ne_bytes());
        bytes
    }

    fn told(bytes: &[u8]) -> Vec<&'static str> {
        let name = |event: &Event| match event {
            Event::Opened(_) => "opened",
            Event::Lost => "lost",
        };
        events(bytes).iter().map(name).collect()
    }

    #[test]
    fn every_event_is_taken_or_told_to_be_lost() {
        let (version, length) =
            (libc::FANOTIFY_METADATA_VERSION, u32::try_from(EVENT_BYTES).unwrap());
        let null = || std::os::fd::IntoRawFd::into_raw_fd(File::open("/dev/null").unwrap());
        assert_eq!(told(&[]), [""; 0]);
        assert_eq!(told(&event(null(), version, length)), ["opened"]);
        let overflow = event(libc::FAN_NOFD, version, length);
        // An event's file is closed with it, so each has one of its own.
        let both = || [event(null(), version, length), overflow.clone()].concat();
        assert_eq!(told(&both()), ["opened", "lost"]);
        // What is cut off, and a kernel that speaks of something else.
        assert_eq!(told(&both()[..2 * EVENT_BYTES - 1]), ["opened"]);
        assert_eq!(told(&[event(-1, version + 1, length), overflow].concat()), ["lost"]);
        // A length that would never come to an end.
        assert_eq!(told(&event(-1, version, 0)), ["lost"]);
    }

    #[test]
    fn what_cannot_be_recorded_is_an_error() {
        // A number that no process has.
        let nobody = Pid::from_raw(i32::MAX).unwrap();
        assert!(Recorder::start(nobody, &[]).is_err());
    }
}
