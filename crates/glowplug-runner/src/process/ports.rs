//! Loopback ports for runners.
//!
//! Ports come from below the range that the kernel gives to outgoing connections, in turn, from a start
//! drawn at random, so a port returns only after all others: neither a late client of the runner before
//! nor a second node on this host meets the wrong program by chance.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

#[derive(Debug)]
pub(super) struct Ports {
    next: AtomicU16,
}

impl Ports {
    pub(super) fn new() -> Self {
        let random = RandomState::new().build_hasher().finish();
        let start = u16::try_from(random % u64::from(COUNT)).unwrap_or(0);
        Self { next: AtomicU16::new(start) }
    }

    /// A port on which nobody listens now.
    pub(super) fn pick(&self) -> io::Result<SocketAddr> {
        for _ in 0..COUNT {
            let step = |next: u16| Some((next + 1) % COUNT);
            let turn = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + turn.unwrap_or(0)));
            if TcpListener::bind(address).is_ok() {
                return Ok(address);
            }
        }
        Err(io::Error::other("every loopback port for runners is taken"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over_and_none_comes_twice_in_a_row() {
        let ports = Ports::new();
        let first = ports.pick().unwrap();
        let step = (first.port() - FIRST + 1) % COUNT;
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, FIRST + step));
        let second = ports.pick().unwrap();
        assert_ne!(second, first);
        if taken.is_ok() {
            assert_ne!(second.port(), FIRST + step);
        }
    }
}
