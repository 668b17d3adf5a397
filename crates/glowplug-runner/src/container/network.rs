//! The network of a container that has none: a loopback of its own.

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketType, socket};

/// Brings up `lo` of the namespace that this process is in; the kernel gives it its addresses.
pub(super) fn raise_loopback() -> io::Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    #[expect(unsafe_code, reason = "an interface's flags have no safe interface")]
    // SAFETY: the request is zeroed, which is valid for all its fields, its name is shorter than its room
    // and so ends with a zero, and it lives until the call is over.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
            *place = libc::c_char::from_ne_bytes([*byte]);
        }
        let flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
        request.ifr_ifru.ifru_flags = flags;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
