//! Lines of a stream, without a copy of each.

use std::io::{self, Read};
use std::ops::Range;

use super::error::{Error, Fault};
use super::limits::LINE_BYTES_MAX;

/// Bytes held at first. The buffer doubles for a long line, up to one line of [`LINE_BYTES_MAX`].
const BUFFER_BYTES: usize = 128 * 1024;

pub(super) struct Lines<R> {
    from: R,
    buffer: Vec<u8>,
    /// What of the buffer was read and not yet given out.
    start: usize,
    end: usize,
    /// Of the line that was given out last.
    number: u64,
    last: Range<usize>,
    over: bool,
}

/// A line without its end.
pub(super) struct Line<'a> {
    /// Counted from 1.
    pub(super) number: u64,
    pub(super) text: &'a [u8],
    pub(super) end: End,
}

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Newline,
    /// The stream was over.
    Stream,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(from: R) -> Self {
        Self {
            from,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            number: 0,
            last: 0..0,
            over: false,
        }
    }

    /// Counted from 1; 0 before the first.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The line that was given out last, again.
    pub(super) fn last(&self) -> &[u8] {
        &self.buffer[self.last.clone()]
    }

    /// `None`: that was all.
    pub(super) fn next_line(&mut self) -> Result<Option<Line<'_>>, Error> {
        let mut searched = self.start;
        loop {
            let found = self.buffer[searched..self.end].iter().position(|byte| *byte == b'\n');
            if let Some(length) = found {
                let line = self.start..searched + length;
                self.start = line.end + 1;
                self.number += 1;
                if line.len() > LINE_BYTES_MAX {
                    return Err(Fault::TooLong.at(self.number));
                }
                self.last = line.clone();
                let text = &self.buffer[line];
                return Ok(Some(Line { number: self.number, text, end: End::Newline }));
            }
            if self.end - self.start > LINE_BYTES_MAX {
                return Err(Fault::TooLong.at(self.number + 1));
            }
            searched = self.end - self.start;
            if !self.fill()? {
                break;
            }
        }
        let line = self.start..self.end;
        self.start = self.end;
        if line.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        self.last = line.clone();
        Ok(Some(Line { number: self.number, text: &self.buffer[line], end: End::Stream }))
    }

    /// Moves what is left to the front and reads behind it. False at the end of the stream.
    fn fill(&mut self) -> Result<bool, Error> {
        if self.over {
            return Ok(false);
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let count = loop {
            match self.from.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let count = count.map_err(|source| Error::reading(self.number, source))?;
        self.end += count;
        self.over = count == 0;
        Ok(!self.over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out at most `step` bytes at a time.
    struct Drip<'a> {
        rest: &'a [u8],
        step: usize,
    }

    impl Read for Drip<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.step.min(self.rest.len()).min(into.len());
            into[..count].copy_from_slice(&self.rest[..count]);
            self.rest = &self.rest[count..];
            Ok(count)
        }
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        let long = "x".repeat(BUFFER_BYTES * 3);
        let check = |text: &str, expected: &[(&str, End)]| {
            for step in [1, 2, 7, 4_096, usize::MAX] {
                if step < 7 && text.len() > 100 {
                    continue;
                }
                let mut lines = Lines::new(Drip { rest: text.as_bytes(), step });
                for (at, (line, end)) in expected.iter().enumerate() {
                    let found = lines.next_line().unwrap().unwrap();
                    assert_eq!((found.text, found.end), (line.as_bytes(), *end));
                    assert_eq!(found.number, at as u64 + 1);
                }
                assert!(lines.next_line().unwrap().is_none());
                assert!(lines.next_line().unwrap().is_none());
            }
        };
        check("", &[]);
        check("\n", &[("", End::Newline)]);
        check("a\n\nbc\n", &[("a", End::Newline), ("", End::Newline), ("bc", End::Newline)]);
        check("a\nb", &[("a", End::Newline), ("b", End::Stream)]);
        let text = format!("a\n{long}\nb\n");
        check(&text, &[("a", End::Newline), (&long, End::Newline), ("b", End::Newline)]);
    }

    #[test]
    fn a_line_without_an_end_fills_no_memory() {
        let mut lines = Lines::new(io::repeat(b'x'));
        let error = lines.next_line().err().unwrap().to_string();
        assert_eq!(error, "line 1: it is longer than 1048576 bytes");
        assert!(lines.buffer.len() <= 4 * LINE_BYTES_MAX);
    }
}
