//! The nodes that are attached to a shim: normally one, for a moment two when a node takes over.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::protocol::{FromShim, LaunchOrder, MESSAGE_BYTES_MAX, ORDER_BYTES_MAX, ToShim, encode};

/// More are turned away.
pub(super) const PEERS_MAX: usize = 8;
/// How long the node that started the shim may take to say what for.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 4 << 10;

pub(super) struct Peer {
    stream: UnixStream,
    input: Vec<u8>,
}

impl Peer {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, input: Vec::new() })
    }

    /// Waits for the launch order, the first message of the first peer.
    pub(super) fn with_order(mut stream: UnixStream) -> io::Result<(Self, LaunchOrder)> {
        stream.set_read_timeout(Some(ORDER_TIMEOUT))?;
        let mut input = Vec::new();
        let end = loop {
            let searched = input.len();
            let mut chunk = [0; 16 << 10];
            let count = stream.read(&mut chunk)?;
            input.extend_from_slice(&chunk[..count]);
            let newline = input.iter().skip(searched).position(|byte| *byte == b'\n');
            if let Some(position) = newline {
                break searched + position;
            }
            if count == 0 || input.len() > ORDER_BYTES_MAX {
                return Err(invalid("the launch order is cut off or too long"));
            }
        };
        let order = serde_json::from_slice(&input[..end])?;
        input.drain(..=end);
        stream.set_nonblocking(true)?;
        match order {
            ToShim::Launch(order) => Ok((Self { stream, input }, *order)),
            _ => Err(invalid("the first message is no launch order")),
        }
    }

    /// The messages that have come. An error means that the peer is gone, or talks nonsense.
    pub(super) fn receive(&mut self) -> io::Result<Vec<ToShim>> {
        let mut chunk = [0; READ_BYTES];
        match self.stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.input.extend_from_slice(&chunk[..count]),
            Err(error) if is_temporary(&error) => {}
            Err(error) => return Err(error),
        }
        let mut messages = Vec::new();
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            messages.push(serde_json::from_slice(&self.input[..end])?);
            self.input.drain(..=end);
        }
        if self.input.len() > MESSAGE_BYTES_MAX {
            return Err(invalid("a message is too long"));
        }
        Ok(messages)
    }

    /// Sends without waiting. A peer that does not read is as good as gone.
    pub(super) fn send(&mut self, message: &FromShim) -> io::Result<()> {
        self.stream.write_all(&encode(message)?)
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
