//! The captured log of one runner: lines in, at most a fixed number of bytes on disk.
//!
//! Two files; when the newer is half of the cap, it replaces the older. A rate cap on top of it keeps a
//! program that floods its log from wearing the disk. What is dropped is counted and said in the log;
//! dropped lines keep their numbers, so a reader sees the gap. One line on disk is
//! `NUMBER MICROSECONDS STREAM TEXT`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::backend::LogStream;
use crate::protocol::{LOG_FILE, LogCaps, OLDER_LOG_FILE};

/// What number, time and stream add to a line, at most.
const PREFIX_BYTES_MAX: usize = 48;

pub(super) struct LogFile {
    dir: PathBuf,
    caps: LogCaps,
    file: Option<File>,
    /// In the newer file, what is in `pending` included.
    file_bytes: u64,
    pending: Vec<u8>,
    next_number: u64,
    /// The number of the first line in the newer file.
    first_number: u64,
    rotated: bool,
    allowance: u64,
    allowance_at: Duration,
    dropped_lines: u64,
    dropped_bytes: u64,
}

impl LogFile {
    pub(super) fn create(dir: PathBuf, caps: LogCaps, now: Duration) -> Self {
        let file = open(&dir).ok();
        Self {
            dir,
            caps,
            file,
            file_bytes: 0,
            pending: Vec::new(),
            next_number: 0,
            first_number: 0,
            rotated: false,
            allowance: caps.bytes_per_second_max,
            allowance_at: now,
            dropped_lines: 0,
            dropped_bytes: 0,
        }
    }

    /// One line of the program. `cut` bytes of it were already thrown away by the line cap.
    pub(super) fn line(&mut self, stream: LogStream, text: &[u8], cut: u64, now: Duration) {
        self.refill(now);
        let size = (text.len() + PREFIX_BYTES_MAX) as u64;
        if size > self.allowance {
            self.dropped_lines += 1;
            self.dropped_bytes += text.len() as u64 + cut;
            self.next_number += 1;
            return;
        }
        self.allowance -= size;
        self.report_drops();
        let text = String::from_utf8_lossy(text);
        if cut == 0 {
            self.append(stream, &text);
        } else {
            self.append(stream, &format!("{text}… ({cut} more bytes in this line)"));
        }
    }

    /// The supervisor's own words. No rate cap: it says little.
    pub(super) fn say(&mut self, text: &str) {
        self.report_drops();
        self.append(LogStream::Supervisor, text);
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.allowance_at).as_micros();
        let earned = passed * u128::from(self.caps.bytes_per_second_max) / 1_000_000;
        if earned > 0 {
            self.allowance_at = now;
            let earned = u64::try_from(earned).unwrap_or(u64::MAX);
            self.allowance =
                self.allowance.saturating_add(earned).min(self.caps.bytes_per_second_max);
        }
    }

    fn report_drops(&mut self) {
        if self.dropped_lines == 0 {
            return;
        }
        let text = format!(
            "{} lines ({} bytes) were dropped: the program wrote more than {} bytes a second",
            self.dropped_lines, self.dropped_bytes, self.caps.bytes_per_second_max
        );
        (self.dropped_lines, self.dropped_bytes) = (0, 0);
        self.append(LogStream::Supervisor, &text);
    }

    fn append(&mut self, stream: LogStream, text: &str) {
        let half = self.caps.total_bytes_max / 2;
        let size = (text.len() + PREFIX_BYTES_MAX) as u64;
        if self.file_bytes > 0 && self.file_bytes + size > half {
            self.rotate();
        }
        let before = self.pending.len();
        let stream = match stream {
            LogStream::Stdout => 'o',
            LogStream::Stderr => 'e',
            LogStream::Supervisor => 's',
        };
        let (number, micros) = (self.next_number, super::wall_clock().as_micros());
        // Writing to memory cannot fail.
        let _ = writeln!(self.pending, "{number} {micros} {stream} {text}");
        self.next_number += 1;
        self.file_bytes += (self.pending.len() - before) as u64;
    }

    fn rotate(&mut self) {
        self.flush();
        let was_rotated = self.rotated;
        let moved = fs::rename(self.dir.join(LOG_FILE), self.dir.join(OLDER_LOG_FILE));
        self.file = moved.and_then(|()| open(&self.dir)).ok();
        (self.file_bytes, self.rotated) = (0, true);
        let oldest_kept = self.first_number;
        self.first_number = self.next_number;
        if was_rotated {
            let cap = self.caps.total_bytes_max;
            self.append(
                LogStream::Supervisor,
                &format!("lines before {oldest_kept} were dropped: {cap} bytes of log are kept"),
            );
        }
    }

    /// Hands the lines to the kernel. A full disk loses them and hurts nothing else.
    pub(super) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if let Some(file) = &mut self.file {
            let _ = file.write_all(&self.pending);
        }
        self.pending.clear();
    }
}

fn open(dir: &std::path::Path) -> io::Result<File> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(dir.join(LOG_FILE))
}

/// Cuts a stream of bytes into lines, and lines to their cap.
#[derive(Default)]
pub(super) struct LineCutter {
    partial: Vec<u8>,
    cut: u64,
}

impl LineCutter {
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        line_bytes_max: usize,
        mut each: impl FnMut(&[u8], u64),
    ) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (content, ends) = match piece.split_last() {
                Some((b'\n', content)) => (content, true),
                _ => (piece, false),
            };
            let room = line_bytes_max.saturating_sub(self.partial.len()).min(content.len());
            let (kept, lost) = content.split_at(room);
            self.partial.extend_from_slice(kept);
            self.cut += lost.len() as u64;
            if ends {
                self.end_line(&mut each);
            }
        }
    }

    /// What is left when the stream has ended.
    pub(super) fn finish(&mut self, mut each: impl FnMut(&[u8], u64)) {
        if !self.partial.is_empty() || self.cut > 0 {
            self.end_line(&mut each);
        }
    }

    fn end_line(&mut self, each: &mut impl FnMut(&[u8], u64)) {
        let line = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        each(line, self.cut);
        self.partial.clear();
        self.cut = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(chunks: &[&[u8]], cap: usize) -> Vec<(String, u64)> {
        let mut cutter = LineCutter::default();
        let mut lines = Vec::new();
        let mut take = |text: &[u8], cut| lines.push((String::from_utf8_lossy(text).into(), cut));
        for chunk in chunks {
            cutter.feed(chunk, cap, &mut take);
        }
        cutter.finish(&mut take);
        lines
    }

    #[test]
    fn lines_are_cut_wherever_the_chunks_end() {
        let expected = [("one".to_owned(), 0), (String::new(), 0), ("two".to_owned(), 0)];
        assert_eq!(lines_of(&[b"one\n\ntwo"], 9), expected);
        assert_eq!(lines_of(&[b"o", b"ne\r", b"\n", b"\nt", b"wo", b""], 9), expected);
        assert_eq!(lines_of(&[b"12345", b"678\n9\n"], 4), [("1234".into(), 4), ("9".into(), 0)]);
    }

    #[test]
    fn the_disk_holds_no_more_than_the_cap() {
        let dir = tempfile::tempdir().unwrap();
        let caps = LogCaps { total_bytes_max: 8 << 10, ..LogCaps::default() };
        let mut log = LogFile::create(dir.path().to_owned(), caps, Duration::ZERO);
        for round in 0..2_000 {
            log.line(LogStream::Stdout, format!("line {round}").as_bytes(), 0, Duration::ZERO);
        }
        log.flush();
        let size = |name| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size(LOG_FILE) + size(OLDER_LOG_FILE) <= caps.total_bytes_max);
        let kept = fs::read_to_string(dir.path().join(LOG_FILE)).unwrap();
        assert!(kept.contains("line 1999") && kept.contains("were dropped"), "{kept}");
    }

    #[test]
    fn lines_above_the_rate_are_counted_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let caps = LogCaps { bytes_per_second_max: 1_000, ..LogCaps::default() };
        let mut log = LogFile::create(dir.path().to_owned(), caps, Duration::ZERO);
        for _ in 0..100 {
            log.line(LogStream::Stdout, &[b'x'; 52], 0, Duration::ZERO);
        }
        log.line(LogStream::Stdout, b"later", 0, Duration::from_secs(1));
        log.flush();
        let kept = fs::read_to_string(dir.path().join(LOG_FILE)).unwrap();
        assert_eq!(kept.lines().count(), 12, "{kept}");
        assert!(kept.contains(" s 90 lines (4680 bytes) were dropped"), "{kept}");
        assert!(kept.lines().last().unwrap().starts_with("101 "), "{kept}");
    }
}
