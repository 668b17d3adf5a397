//! What of an image a start touches before its runner is ready: what is worth having first the next time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use glowplug_core::Timestamp;
use serde::{Deserialize, Serialize};

/// Further files of one start are not recorded: an app that touches so many is better off with all of them.
pub const FILES_MAX: usize = 65_536;
/// Ranges that are kept apart in one file. Beyond it, those with the smallest gap between them become one.
pub const RANGES_MAX: usize = 64;

/// The files that one app touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// Microseconds since the Unix epoch.
    recorded: u64,
    /// In the order of their first use, each once.
    files: Vec<TouchedFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TouchedFile {
    /// As in [`Entry::path`](crate::layer::Entry::path).
    pub path: Vec<u8>,
    /// Bytes from the start of the file, in order, apart from each other. Empty: all of it.
    pub ranges: Vec<Range<u64>>,
}

impl Touched {
    /// A file that comes twice keeps its first place and has the ranges of both.
    pub fn new(recorded: Timestamp, files: impl IntoIterator<Item = TouchedFile>) -> Self {
        let mut touched = Self { recorded: recorded.as_micros(), files: Vec::new() };
        touched.append(files);
        touched
    }

    pub fn recorded(&self) -> Timestamp {
        Timestamp::from_micros(self.recorded)
    }

    /// In the order of their first use.
    pub fn files(&self) -> &[TouchedFile] {
        &self.files
    }

    /// Adds what another start touched, after what is here.
    pub fn add(&mut self, other: Self) {
        self.recorded = self.recorded.max(other.recorded);
        self.append(other.files);
    }

    fn append(&mut self, files: impl IntoIterator<Item = TouchedFile>) {
        let known = self.files.iter().enumerate();
        let mut places: BTreeMap<Vec<u8>, usize> =
            known.map(|(place, file)| (file.path.clone(), place)).collect();
        for mut file in files {
            if let Some(place) = places.get(&file.path) {
                self.files[*place].widen(&file.ranges);
            } else if self.files.len() < FILES_MAX {
                places.insert(file.path.clone(), self.files.len());
                if !file.ranges.is_empty() {
                    file.ranges = joined(std::mem::take(&mut file.ranges));
                }
                self.files.push(file);
            }
        }
    }
}

impl TouchedFile {
    pub fn whole(path: Vec<u8>) -> Self {
        Self { path, ranges: Vec::new() }
    }

    fn widen(&mut self, ranges: &[Range<u64>]) {
        if self.ranges.is_empty() || ranges.is_empty() {
            self.ranges.clear();
        } else {
            self.ranges.extend_from_slice(ranges);
            self.ranges = joined(std::mem::take(&mut self.ranges));
        }
    }
}

/// In order, apart from each other, and at most [`RANGES_MAX`].
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    let mut apart: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match apart.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    let excess = apart.len().saturating_sub(RANGES_MAX);
    if excess == 0 {
        return apart;
    }
    let mut gaps: Vec<(u64, usize)> =
        apart.windows(2).zip(1..).map(|(pair, next)| (pair[1].start - pair[0].end, next)).collect();
    gaps.sort_unstable();
    let closed: BTreeSet<usize> = gaps[..excess].iter().map(|(_, next)| *next).collect();
    let mut kept: Vec<Range<u64>> = Vec::new();
    for (place, range) in apart.into_iter().enumerate() {
        match kept.last_mut() {
            Some(last) if closed.contains(&place) => last.end = range.end,
            _ => kept.push(range),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, ranges: &[(u64, u64)]) -> TouchedFile {
        let ranges = ranges.iter().map(|&(start, end)| start..end).collect();
        TouchedFile { path: path.into(), ranges }
    }

    fn touched(seconds: u64, files: &[TouchedFile]) -> Touched {
        Touched::new(Timestamp::from_micros(seconds * 1_000_000), files.to_vec())
    }

    #[test]
    fn a_second_start_adds_what_the_first_did_not_touch() {
        let mut first = touched(5, &[file("b", &[]), file("a", &[(0, 10)]), file("b", &[(3, 4)])]);
        first.add(touched(3, &[file("c", &[]), file("a", &[(20, 30), (5, 12)])]));
        let expected = [file("b", &[]), file("a", &[(0, 12), (20, 30)]), file("c", &[])];
        assert_eq!(first.files(), expected);
        assert_eq!(first.recorded(), Timestamp::from_micros(5_000_000));
    }

    #[test]
    fn what_was_read_as_a_whole_stays_whole() {
        let mut first = touched(1, &[file("a", &[(0, 1)])]);
        first.add(touched(1, &[file("a", &[])]));
        first.add(touched(1, &[file("a", &[(7, 9)])]));
        assert_eq!(first.files(), [file("a", &[])]);
    }

    #[test]
    fn too_many_ranges_lose_their_smallest_gaps() {
        let most = u64::try_from(RANGES_MAX).unwrap();
        // Gaps grow with the place: those at the start go.
        let mut start = 0;
        let mut ranges = Vec::new();
        for number in 0..most + 2 {
            start += number;
            ranges.push((start, start + 1));
            start += 1;
        }
        let (first, last) = ranges.last().copied().unwrap();
        let touched = touched(1, &[file("a", &ranges)]);
        let kept = &touched.files()[0].ranges;
        assert_eq!(kept.len(), RANGES_MAX);
        assert_eq!(kept.last(), Some(&(first..last)));
        assert_eq!(kept[0], 0..ranges[2].1);
    }

    #[test]
    fn a_list_has_an_end() {
        let files = (0..=FILES_MAX).map(|number| TouchedFile::whole(number.to_string().into()));
        assert_eq!(Touched::new(Timestamp::from_micros(0), files).files().len(), FILES_MAX);
    }
}
