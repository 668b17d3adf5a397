//! Files much longer than memory would be, made while they are read.

use std::io::{self, Read};

use glowplug_core::Timestamp;
use glowplug_sim::trace::{Options, Reader, Record, Summary, Trace, arrivals};

/// A text that is made line by line when it is asked for.
struct Made<F> {
    head: &'static str,
    line: F,
    lines: u64,
    next: u64,
    left: Vec<u8>,
}

impl<F: FnMut(u64, &mut Vec<u8>)> Made<F> {
    fn new(head: &'static str, lines: u64, line: F) -> Self {
        Self { head, line, lines, next: 0, left: Vec::new() }
    }
}

impl<F: FnMut(u64, &mut Vec<u8>)> Read for Made<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left.is_empty() && self.next == 0 {
            self.left.extend_from_slice(self.head.as_bytes());
        }
        while self.left.len() < into.len() && self.next < self.lines {
            (self.line)(self.next, &mut self.left);
            self.left.push(b'\n');
            self.next += 1;
        }
        let count = into.len().min(self.left.len());
        into[..count].copy_from_slice(&self.left[..count]);
        self.left.drain(..count);
        Ok(count)
    }
}

fn push(into: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    io::Write::write_fmt(into, text).unwrap();
}

/// Most memory this process ever had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What a stream of any length may add: less than half of those here.
const GROWTH_KIB_MAX: u64 = 16 * 1_024;

#[test]
fn a_long_trace_streams_in_bounded_memory() {
    const LINES: u64 = 1_000_000;
    let before = peak_kib();
    let head = "{\"glowplug_trace\":1}\na {\"name\":\"a\"}\na {\"name\":\"b\"}\n";
    let made = Made::new(head, LINES, |at, into| {
        push(into, format_args!("r {} {} q {} 0 1 200", at * 500, at % 2, at % 9_999));
    });
    let mut count = 0;
    let mut last = Timestamp::ZERO;
    for arrival in arrivals(Reader::new(made).unwrap()) {
        last = arrival.unwrap().at;
        count += 1;
    }
    assert_eq!((count, last), (LINES, Timestamp::from_micros((LINES - 1) * 500)));
    let grown = peak_kib() - before;
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
}

#[test]
fn a_long_csv_streams_in_bounded_memory() {
    const LINES: u64 = 300_000;
    let before = peak_kib();
    let made = Made::new("time,app,service_ms,note\n", LINES, |at, into| {
        let note = "as long as such notes are, so that the file is larger than what may be held";
        push(into, format_args!("{}.5,app-{},{},\"{note}\"", at / 10, at % 50, 1 + at % 900));
    });
    let summary = Summary::of(Trace::read(made, None, &Options::default()).unwrap()).unwrap();
    assert_eq!((summary.requests, summary.apps.len()), (LINES, 50));
    let grown = peak_kib() - before;
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
}

#[test]
fn a_line_of_a_gigabyte_is_refused_in_bounded_memory() {
    const GIB: u64 = 1 << 30;
    let before = peak_kib();
    let check = |head: &'static str, expected: &str| {
        let endless = head.as_bytes().chain(io::repeat(b'x').take(GIB));
        let error = match Trace::read(endless, None, &Options::default()) {
            Err(error) => error,
            Ok(trace) => trace.last().unwrap().map(drop).unwrap_err(),
        };
        assert_eq!(error.to_string(), expected);
    };
    check("{\"glowplug_trace\":1}\n", "line 2: it is longer than 1048576 bytes");
    check("time,app\n1,", "line 2: it is longer than 1048576 bytes");
    check("time,app\n1,a\n2,\"", "line 3: it is longer than 1048576 bytes");
    check("time,", "line 1: it is longer than 1048576 bytes");
    check("HashFunction,1\n", "line 2: it is longer than 1048576 bytes");
    check("{\"ts\":1,\"app\":\"", "line 1: it is longer than 1048576 bytes");
    check(
        "{\"input_length\":1,\"output_length\":1,\"x\":\"",
        "line 1: it is longer than 1048576 \
         bytes",
    );
    check(
        "::1 - - [15/Nov/2024:16:57:58 +0000] \"GET /",
        "line 1: it is longer than 1048576 \
         bytes",
    );
    let grown = peak_kib() - before;
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
}

#[test]
fn a_long_gap_between_requests_is_no_problem() {
    let made = Made::new("{\"glowplug_trace\":1}\na {\"name\":\"a\"}\n", 3, |at, into| {
        push(into, format_args!("r {} 0 d", at * 1_000_000_000_000_000));
    });
    let records: Vec<Record> = Reader::new(made).unwrap().map(Result::unwrap).collect();
    assert_eq!(records.len(), 4);
}
