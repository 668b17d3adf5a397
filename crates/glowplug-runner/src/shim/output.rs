//! What the program writes, on its way from a pipe to the log.

use std::os::fd::OwnedFd;

use super::log_file::{LineCutter, LogFile};
use super::monotonic;
use crate::backend::LogStream;

/// Read from one output at a time, so that no output starves the rest.
const OUTPUT_BYTES_PER_TURN: usize = 16 << 10;

pub(super) struct Output {
    pub(super) stream: LogStream,
    pub(super) pipe: Option<OwnedFd>,
    cutter: LineCutter,
}

impl Output {
    pub(super) fn new(stream: LogStream, pipe: OwnedFd) -> Self {
        Self { stream, pipe: Some(pipe), cutter: LineCutter::default() }
    }

    /// Reads what is there, up to one turn's worth. `true` if there may be more.
    pub(super) fn read(&mut self, log: &mut LogFile, line_bytes_max: usize) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        let mut buffer = [0; OUTPUT_BYTES_PER_TURN];
        let (stream, now) = (self.stream, monotonic());
        let count = match rustix::io::read(pipe, &mut buffer) {
            Ok(count) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return false,
            Err(_) => 0,
        };
        let each = |text: &[u8], cut| log.line(stream, text, cut, now);
        if count == 0 {
            self.pipe = None;
            self.cutter.finish(each);
        } else {
            self.cutter.feed(&buffer[..count], line_bytes_max, each);
        }
        count > 0
    }
}
