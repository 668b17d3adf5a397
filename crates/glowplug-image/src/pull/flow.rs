//! Between the stages of a pull: bounded queues that are read like files.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

/// Chunks of the network that wait to be inflated; a few megabytes.
pub(crate) const CHUNKS_MAX: usize = 64;
/// Inflated blocks that wait to be unpacked.
pub(crate) const BLOCKS_MAX: usize = 16;
pub(crate) const BLOCK_BYTES: usize = 256 << 10;

/// The reading end. The queue's end is the end of the data only if the sender said so: one that was dropped
/// half-way must not look like a short file.
#[derive(Debug)]
pub(crate) struct Flow {
    receiver: mpsc::Receiver<Part>,
    current: Bytes,
    is_complete: bool,
}

#[derive(Debug)]
pub(crate) enum Part {
    Bytes(Bytes),
    End,
}

impl Flow {
    pub(crate) fn new(parts_max: usize) -> (mpsc::Sender<Part>, Self) {
        let (sender, receiver) = mpsc::channel(parts_max);
        (sender, Self { receiver, current: Bytes::new(), is_complete: false })
    }
}

impl Read for Flow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.is_complete {
            match self.receiver.blocking_recv() {
                Some(Part::Bytes(bytes)) => self.current = bytes,
                Some(Part::End) => self.is_complete = true,
                None => {
                    let message = "the stage before this one has given up";
                    return Err(io::Error::new(io::ErrorKind::BrokenPipe, message));
                }
            }
        }
        let bytes = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..bytes]);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_read_as_one_file() {
        let (sender, mut flow) = Flow::new(4);
        for part in ["ab", "", "cde"] {
            sender.blocking_send(Part::Bytes(part.into())).unwrap();
        }
        sender.blocking_send(Part::End).unwrap();
        let mut all = String::new();
        flow.read_to_string(&mut all).unwrap();
        assert_eq!(all, "abcde");
    }

    #[test]
    fn a_sender_that_gives_up_is_an_error() {
        let (sender, mut flow) = Flow::new(1);
        sender.blocking_send(Part::Bytes("ab".into())).unwrap();
        drop(sender);
        let error = flow.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
