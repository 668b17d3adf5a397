//! `docs/reference/trace-format.md` says what is true.

use glowplug_core::decision::StartCause;
use glowplug_sim::trace::{Format, LEVEL_DEFAULT, Reader, Record, Writer, limits};

const PAGE: &str = include_str!("../../../../docs/reference/trace-format.md");

/// The page's first block of that kind.
fn block(kind: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("```{kind}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn the_example_is_a_trace_and_written_the_same() {
    let example = block("text");
    let reader = Reader::new(example.as_bytes()).unwrap();
    let mut writer = Writer::new(Vec::new(), reader.header(), LEVEL_DEFAULT).unwrap();
    let records: Vec<Record> = reader.map(Result::unwrap).collect();
    for record in &records {
        writer.write(record).unwrap();
    }
    let packed = writer.finish().unwrap();
    let text = String::from_utf8(zstd::decode_all(packed.as_slice()).unwrap()).unwrap();
    assert_eq!(text, example);
}

#[test]
fn the_limits_and_formats_are_those_of_the_program() {
    let grouped = |number: usize| {
        let digits = number.to_string();
        let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(as_text).collect();
        groups.join(",")
    };
    let days = limits::TIME_MAX.as_secs() / 86_400;
    for said in [
        format!("{} bytes", grouped(limits::LINE_BYTES_MAX)),
        format!("{} apps", grouped(limits::APPS_MAX as usize)),
        format!("{} bytes", limits::NAME_BYTES_MAX),
        format!("{} days", grouped(usize::try_from(days).unwrap())),
    ] {
        assert!(PAGE.contains(&said), "{said}");
    }
    for format in Format::ALL {
        assert!(PAGE.contains(&format!("`{}`", format.label())), "{format:?}");
    }
}

#[test]
fn every_cause_of_a_start_is_there() {
    for cause in StartCause::ALL {
        assert!(PAGE.contains(&format!("`{}`", cause.label())), "{cause:?}");
    }
}

fn as_text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
