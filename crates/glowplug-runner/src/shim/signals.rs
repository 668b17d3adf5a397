//! Signals as readable events, and the mask that makes them so.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Signal;

/// What the shim wants to know of, read from a file descriptor instead of interrupting it.
pub(super) struct Signals(OwnedFd);

impl Signals {
    /// Blocks the signals and opens the descriptor they are read from.
    pub(super) fn take_over() -> io::Result<Self> {
        let wanted = [Signal::CHILD, Signal::TERM, Signal::INT, Signal::HUP];
        #[expect(unsafe_code, reason = "signal masks have no safe interface here")]
        // SAFETY: `set` is initialised by sigemptyset before any other use, every pointer is to a live
        // local, and the descriptor returned by signalfd is owned by nobody else.
        let fd = unsafe {
            let mut set = MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            for signal in wanted {
                libc::sigaddset(set.as_mut_ptr(), signal.as_raw());
            }
            libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self(fd))
    }

    /// The signals since the last call. One name stands for any number of the same.
    pub(super) fn read(&self) -> Vec<i32> {
        const RECORD_BYTES: usize = size_of::<libc::signalfd_siginfo>();
        let mut buffer = [0; RECORD_BYTES * 16];
        let count = rustix::io::read(&self.0, &mut buffer).unwrap_or(0);
        buffer[..count]
            .chunks_exact(RECORD_BYTES)
            .filter_map(|record| {
                // The signal's number is the first field.
                let number = record.first_chunk::<4>()?;
                i32::try_from(u32::from_ne_bytes(*number)).ok()
            })
            .collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Undoes the mask. Called in the child between fork and exec, so it must not allocate or lock.
pub(super) fn unblock_all() {
    #[expect(unsafe_code, reason = "signal masks have no safe interface here")]
    // SAFETY: `set` is initialised by sigemptyset; both calls are async-signal-safe.
    unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
    }
}
