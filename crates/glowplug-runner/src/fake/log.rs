//! The log of a fake runner, in memory, under the same kinds of caps as a real one.

use std::collections::VecDeque;

use glowplug_core::Timestamp;

use crate::backend::{LogLine, LogStream};

/// All lines together.
pub const LOG_BYTES_MAX: usize = 256 << 10;
/// A longer line is cut.
pub const LINE_BYTES_MAX: usize = 16 << 10;
/// What a line costs besides its text.
const LINE_OVERHEAD_BYTES: usize = size_of::<LogLine>();

#[derive(Debug, Default)]
pub(super) struct FakeLog {
    lines: VecDeque<LogLine>,
    bytes: usize,
    next_number: u64,
    dropped: u64,
}

impl FakeLog {
    pub(super) fn push(&mut self, text: &str, now: Timestamp) {
        let kept = text.floor_char_boundary(LINE_BYTES_MAX);
        let text = if kept < text.len() {
            format!("{}… ({} more bytes in this line)", &text[..kept], text.len() - kept)
        } else {
            text.to_owned()
        };
        self.bytes += text.len() + LINE_OVERHEAD_BYTES;
        self.lines.push_back(LogLine {
            number: self.next_number,
            at_micros: now.as_micros(),
            stream: LogStream::Stdout,
            text,
        });
        self.next_number += 1;
        while self.bytes > LOG_BYTES_MAX
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.text.len() + LINE_OVERHEAD_BYTES;
            self.dropped += 1;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The lines from number `from`; before the first, a word about those that are missing.
    pub(super) fn from(&self, from: u64) -> Vec<LogLine> {
        let note = self.lines.front().filter(|oldest| from < oldest.number).map(|oldest| LogLine {
            number: oldest.number - 1,
            at_micros: oldest.at_micros,
            stream: LogStream::Supervisor,
            text: format!("{} lines before this were dropped", self.dropped),
        });
        let lines = self.lines.iter().filter(|line| line.number >= from).cloned();
        note.into_iter().chain(lines).collect()
    }

    pub(super) fn tail(&self, lines_max: usize) -> Vec<String> {
        let skipped = self.lines.len().saturating_sub(lines_max);
        self.lines.iter().skip(skipped).map(|line| line.text.clone()).collect()
    }
}
