//! Reads captured logs: all of it, its end, or as it grows.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;

use super::RunnerState;
use crate::backend::{LogLine, LogStream};
use crate::protocol::{LOG_FILE, OLDER_LOG_FILE};

/// Lines of an exit report.
pub(crate) const TAIL_LINES_MAX: usize = 20;
/// A line of an exit report is cut to this many characters.
const TAIL_LINE_CHARS_MAX: usize = 500;
/// The part of a file in which those lines are looked for.
const TAIL_BYTES_MAX: u64 = 256 << 10;
const READ_BYTES: usize = 64 << 10;
/// How soon a follower sees a new line.
const FOLLOW_PAUSE: Duration = Duration::from_millis(50);

/// Streams the log from line `from`; with a state to follow, until the runner has ended.
pub(super) fn read(
    dir: PathBuf,
    from: u64,
    follow: Option<watch::Receiver<RunnerState>>,
) -> BoxStream<'static, LogLine> {
    let reader = LogReader { from, ..LogReader::new(dir) };
    let start = Follower { reader, lines: VecDeque::new(), follow };
    let lines = stream::unfold(start, |mut follower| async {
        let line = follower.next().await?;
        Some((line, follower))
    });
    lines.filter(move |line| std::future::ready(line.number >= from)).boxed()
}

/// The last lines, for an exit report. Blocks.
pub(super) fn tail(dir: &Path) -> Vec<String> {
    let mut tail = last_lines(&dir.join(LOG_FILE));
    if tail.len() < TAIL_LINES_MAX {
        let mut older = last_lines(&dir.join(OLDER_LOG_FILE));
        older.append(&mut tail);
        tail = older;
    }
    let skipped = tail.len().saturating_sub(TAIL_LINES_MAX);
    let cut = |line: LogLine| line.text.chars().take(TAIL_LINE_CHARS_MAX).collect();
    tail.into_iter().skip(skipped).map(cut).collect()
}

/// The lines in the last part of a file; none if there is no such file.
fn last_lines(path: &Path) -> Vec<LogLine> {
    let read = || {
        let mut file = File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(TAIL_BYTES_MAX);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
        // The first line of a part is cut, unless the part is all.
        let whole =
            if start == 0 { 0 } else { bytes.iter().position(|b| *b == b'\n').unwrap_or(0) };
        Ok::<_, std::io::Error>(bytes.split_off(whole))
    };
    let bytes = read().unwrap_or_default();
    String::from_utf8_lossy(&bytes).lines().filter_map(parse).collect()
}

struct Follower {
    reader: LogReader,
    lines: VecDeque<LogLine>,
    follow: Option<watch::Receiver<RunnerState>>,
}

impl Follower {
    async fn next(&mut self) -> Option<LogLine> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            // Looked at before reading, so that the last lines are not missed.
            let is_over =
                self.follow.as_ref().is_none_or(|state| *state.borrow() == RunnerState::Ended);
            let mut reader = std::mem::take(&mut self.reader);
            let reading = tokio::task::spawn_blocking(move || {
                let lines = reader.read_more();
                (reader, lines)
            });
            let (reader, lines) = reading.await.ok()?;
            self.reader = reader;
            match lines {
                Some(lines) => self.lines.extend(lines),
                None if is_over => return None,
                None => tokio::time::sleep(FOLLOW_PAUSE).await,
            }
        }
    }
}

/// Reads the two files of a log in order, over rotations.
#[derive(Default)]
struct LogReader {
    dir: PathBuf,
    /// Lines before this one need not be read.
    from: u64,
    file: Option<(u64, File)>,
    partial: Vec<u8>,
}

impl LogReader {
    fn new(dir: PathBuf) -> Self {
        Self { dir, from: 0, file: None, partial: Vec::new() }
    }

    /// The next lines; `None` if there are none now.
    fn read_more(&mut self) -> Option<Vec<LogLine>> {
        loop {
            if let Some((_, file)) = &mut self.file {
                let mut chunk = vec![0; READ_BYTES];
                let count = file.read(&mut chunk).unwrap_or(0);
                if count > 0 {
                    self.partial.extend_from_slice(&chunk[..count]);
                    return Some(self.take_lines());
                }
            }
            self.open_next()?;
        }
    }

    /// The file after the one that is read to its end: the older one first, and again if a rotation has
    /// passed this reader by.
    fn open_next(&mut self) -> Option<()> {
        let current = self.file.as_ref().map(|(inode, _)| *inode);
        let inode_of = |name| fs::metadata(self.dir.join(name)).ok().map(|data| data.ino());
        let (older, newer) = (inode_of(OLDER_LOG_FILE), inode_of(LOG_FILE));
        let name = match current {
            Some(inode) if newer == Some(inode) => return None,
            Some(inode) if older == Some(inode) => LOG_FILE,
            _ if older.is_some() => OLDER_LOG_FILE,
            _ => LOG_FILE,
        };
        let mut file = File::open(self.dir.join(name)).ok()?;
        let inode = file.metadata().ok()?.ino();
        if current == Some(inode) {
            return None;
        }
        let begin = begin_of(&mut file, self.from).unwrap_or(0);
        file.seek(SeekFrom::Start(begin)).ok()?;
        self.file = Some((inode, file));
        self.partial.clear();
        Some(())
    }

    fn take_lines(&mut self) -> Vec<LogLine> {
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let whole: Vec<u8> = self.partial.drain(..=end).collect();
        String::from_utf8_lossy(&whole).lines().filter_map(parse).collect()
    }
}

/// Where to begin reading a file so that line `from` and all after it are read, and not much before it: at
/// the beginning of a line. Lines are in the order of their numbers, so it is looked for by halves.
fn begin_of(file: &mut File, from: u64) -> std::io::Result<u64> {
    if from == 0 {
        return Ok(0);
    }
    let (mut before, mut after) = (0, file.metadata()?.len());
    while after - before > READ_BYTES as u64 {
        let middle = before + (after - before) / 2;
        match line_after(file, middle)? {
            Some((place, number)) if number < from && place < after => before = place,
            // A line that ends beyond what is looked at is as good as one that comes later.
            _ => after = middle,
        }
    }
    Ok(before)
}

/// Where the first line after `place` begins, and its number.
fn line_after(file: &mut File, place: u64) -> std::io::Result<Option<(u64, u64)>> {
    file.seek(SeekFrom::Start(place))?;
    let mut bytes = Vec::new();
    file.take(READ_BYTES as u64).read_to_end(&mut bytes)?;
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let rest = &bytes[end + 1..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&rest[..digits]).ok().and_then(|text| text.parse().ok());
    let is_whole = rest.get(digits) == Some(&b' ');
    Ok(number.filter(|_| is_whole).map(|number| (place + end as u64 + 1, number)))
}

/// `NUMBER MICROSECONDS STREAM TEXT`
fn parse(line: &str) -> Option<LogLine> {
    let mut fields = line.splitn(4, ' ');
    let number = fields.next()?.parse().ok()?;
    let at_micros = fields.next()?.parse().ok()?;
    let stream = match fields.next()? {
        "o" => LogStream::Stdout,
        "e" => LogStream::Stderr,
        _ => LogStream::Supervisor,
    };
    Some(LogLine { number, at_micros, stream, text: fields.next()?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_read_in_order_and_torn_lines_wait() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(OLDER_LOG_FILE), "0 5 o a b\n1 6 e \n").unwrap();
        fs::write(dir.path().join(LOG_FILE), "2 7 s note\n3 8 o to").unwrap();
        let mut reader = LogReader::new(dir.path().to_owned());
        let mut texts = Vec::new();
        while let Some(lines) = reader.read_more() {
            texts.extend(lines.into_iter().map(|line| (line.number, line.text)));
        }
        let expected = [(0, "a b".to_owned()), (1, String::new()), (2, "note".to_owned())];
        assert_eq!(texts, expected);
        // After the end of the runner a torn line is all there will ever be of it.
        assert_eq!(tail(dir.path()), ["a b", "", "note", "to"]);
    }

    #[test]
    fn a_long_log_is_not_read_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name, numbers: std::ops::Range<u64>| {
            // Of all lengths, one of them longer than what is read at a time.
            let long =
                |number: u64| if number == 7_000 { 200_000 } else { (number % 300) as usize };
            let line = |number| format!("{number} 5 o {}\n", "x".repeat(long(number)));
            let text: String = numbers.map(line).collect();
            fs::write(dir.path().join(name), &text).unwrap();
            text.len()
        };
        let bytes = write(OLDER_LOG_FILE, 0..8_000) + write(LOG_FILE, 8_000..16_000);
        for from in [0, 1, 6_999, 7_000, 7_001, 7_999, 8_000, 8_001, 15_999, 16_000] {
            let mut reader = LogReader { from, ..LogReader::new(dir.path().to_owned()) };
            let (mut numbers, mut read) = (Vec::new(), 0);
            while let Some(lines) = reader.read_more() {
                read += lines.iter().map(|line| line.text.len()).sum::<usize>();
                numbers.extend(lines.into_iter().map(|line| line.number).filter(|n| *n >= from));
            }
            assert_eq!(numbers, (from..16_000).collect::<Vec<_>>(), "from {from}");
            let left = bytes / 16_000 * usize::try_from(16_000 - from).unwrap();
            assert!(read <= left + 500_000, "from {from}: {read} bytes of {bytes} were read");
        }
    }

    #[test]
    fn a_rotation_under_the_reader_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (log, older) = (dir.path().join(LOG_FILE), dir.path().join(OLDER_LOG_FILE));
        fs::write(&log, "0 0 o first\n").unwrap();
        let mut reader = LogReader::new(dir.path().to_owned());
        assert_eq!(reader.read_more().unwrap().len(), 1);
        assert!(reader.read_more().is_none());
        fs::rename(&log, &older).unwrap();
        fs::write(&log, "1 0 o second\n").unwrap();
        assert_eq!(reader.read_more().unwrap()[0].text, "second");
        assert!(reader.read_more().is_none());
    }
}
