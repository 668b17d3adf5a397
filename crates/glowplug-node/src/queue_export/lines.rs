//! Lines out of pieces of any length.

use super::{Error, LINE_BYTES_MAX};

/// Collects pieces until they are lines.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
    /// How much of it has been looked through for an end.
    looked: usize,
    /// Lines given out.
    count: u64,
}

impl Lines {
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Error> {
        if self.pending.len() + piece.len() > LINE_BYTES_MAX {
            let problem = format!("it is longer than {LINE_BYTES_MAX} bytes");
            return Err(Error::Line { line: self.count + 1, problem });
        }
        self.pending.extend_from_slice(piece);
        Ok(())
    }

    /// The next whole line, without its end.
    pub fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.pending[self.looked..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end.map(|end| self.looked + end) else {
            self.looked = self.pending.len();
            return None;
        };
        let rest = self.pending.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.pending, rest);
        line.pop();
        (self.looked, self.count) = (0, self.count + 1);
        Some(line)
    }

    /// What is left after the last end of a line.
    pub fn rest(self) -> Option<Vec<u8>> {
        Some(self.pending).filter(|rest| !rest.is_empty())
    }
}
