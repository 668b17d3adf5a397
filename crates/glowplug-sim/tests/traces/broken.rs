//! Files that cannot be read say where and why, and what to do.

use std::io::Cursor;

use glowplug_sim::trace::{Error, Format, Names, Options, Trace};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::reading::{complaint, read, read_with};

fn check(text: &str, expected: &str) {
    assert_eq!(complaint(text, &Options::default()), expected, "{text}");
}

#[test]
fn a_missing_column_names_those_there_are() {
    check(
        "when,app\n1,a\n",
        "line 1: nothing here is known to be the time: say which with \
         `--time-column`; there are `when`, `app`",
    );
    check(
        "time,who\n1,a\n",
        "line 1: nothing here is known to be the app: say which with \
         `--app-column`, or make everything one app with `--one-app`; there are `time`, `who`",
    );
    let names = Names { service: Some("took".into()), ..Names::default() };
    let options = Options { names, ..Options::default() };
    assert_eq!(
        complaint("time,app\n1,a\n", &options),
        "line 1: there is no `took` to take the service from: say which with `--service-column`; \
         there are `time`, `app`"
    );
    let options = Options { format: Format::AzureMinutes, ..Options::default() };
    assert_eq!(
        complaint("what,1\na,2\n", &options),
        "line 1: nothing here is known to be the function; there are `what`, `1`"
    );
    let options = Options { format: Format::AzureLlm, ..Options::default() };
    let found = complaint("TIMESTAMP,Tokens\n1,2\n", &options);
    assert!(found.contains("ContextTokens") && found.contains("`TIMESTAMP`, `Tokens`"), "{found}");
}

#[test]
fn values_that_make_no_sense_have_their_line() {
    check("time,app\n1,a\n-1,a\n", "line 3: `time` is `-1`, which is no time");
    check(
        "time,app\n1,a\n2024-02-30 00:00:00,a\n",
        "line 3: `time` is `2024-02-30 00:00:00`, \
         which is no time",
    );
    check("time,app,service\n1,a,-2\n", "line 2: `service` is `-2`, which is no length of time");
    check("time,app\n1,\n", "line 2: the app cannot be read: its name has 0 bytes, not 1 to 512");
    check("time,app\n1,a,b\n", "line 2: it has 3 columns, and the first line has 2");
    check("time,app\n1,\"a\nb\"\n2,a,b\n", "line 4: it has 3 columns, and the first line has 2");
    check("time,app\n1,a\n9e9,a\n", "line 3: the time of 2500000 h is more than 876000 h");
    check("HashApp,HashFunction,1,2\na,f,1,x\n", "line 2: `2` is `x`, which is no count");
    check("HashApp,HashFunction,1\na,f,-1\n", "line 2: `1` is `-1`, which is no count");
    check(
        "HashApp,HashFunction,1\na,f,30000000\n",
        "line 1: minute 1 has 30000000 invocations; at \
         most 20000000 are read",
    );
    check(
        "HashApp,HashFunction\na,f\n",
        "line 1: it has 0 columns of minutes, called `1`, `2`, … or \
         `minute_1`, …; 1 to 20160 are read",
    );
    check(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,x\n",
        "line 2: `GeneratedTokens` is `x`, \
         which is no number of tokens",
    );
    check(
        "{\"timestamp\":-5,\"input_length\":1,\"output_length\":1}\n",
        "line 1: `timestamp` is \
         `-5`, which is no time in milliseconds since the beginning",
    );
    check(
        "{\"ts\":1,\"app\":\"a\"}\n[]\n",
        "line 2: it is no JSON object: invalid type: sequence, \
         expected a map at line 1 column 0",
    );
    check(
        "{\"app\":\"a\",\"x\":1}\n",
        "line 1: nothing here is known to be the time: say which \
         with `--time-column`; there are `app`, `x`",
    );
    check(
        "::1 - - [15/Nov/2024:16:57:58 +0000] \"GET /a/b\" 200\nhello\n",
        "line 2: this is no \
         line of an access log: it has no time in brackets",
    );
    check(
        "::1 - - [yesterday] \"GET /a/b\" 200\n",
        "line 1: `time` is `yesterday`, and must be as \
         in 10/Oct/2000:13:55:36 -0700",
    );
    let durations = "HashFunction,Average\nf,fast\n";
    let error = read_with("HashApp,HashFunction,1\na,f,1\n", Some(durations), &Options::default());
    let error = error.err().unwrap().to_string();
    assert_eq!(error, "line 2: `Average` is `fast`, which is no duration in milliseconds");
    let options = Options { app_path: Some("v1".into()), ..Options::default() };
    let found = complaint("::1 - - [15/Nov/2024:16:57:58 +0000] \"GET /a/b\" 200\n", &options);
    assert!(found.contains("`v1` says nowhere in a path which app"), "{found}");
}

#[test]
fn unsorted_rows_say_what_to_do() {
    check(
        "time,app\n10,a\n11,a\n7.5,a\n",
        "line 4: it came 3.50 s before one that went ahead of \
         it, and the reorder window is 0 µs: sort the file by time, or raise `--reorder`",
    );
}

/// How everything packed with zstd begins.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

#[test]
fn durations_that_nobody_reads_are_refused() {
    for (text, format) in [
        ("time,app\n1,a\n", "csv"),
        ("{\"ts\":1,\"path\":\"/a/b\"}\n", "json-log"),
        ("{\"glowplug_trace\":1}\n", "glowplug"),
    ] {
        let error = read_with(text, Some("HashFunction,Average\nf,1\n"), &Options::default());
        assert_eq!(
            error.err().map(|error| error.to_string()),
            Some(format!(
                "durations belong beside a file of counts per minute, and this one is {format}: \
                 leave out `--durations`"
            ))
        );
    }
}

#[test]
fn long_values_are_shown_by_their_beginning() {
    let digits = "9".repeat(300);
    let shown = &digits[..60];
    check(
        &format!("time,app\n{digits}x,a\n"),
        &format!("line 2: `time` is `{shown}…`, which is no time"),
    );
    check(
        &format!("{{\"glowplug_trace\":1}}\na {{\"name\":\"local/a\"}}\nr {digits} 0 d\n"),
        &format!("line 3: the field `at` is `{shown}…`, which is no whole number in range"),
    );
}

#[test]
fn other_files_are_not_taken_for_traffic() {
    check("just words\n", "line 1: cannot tell what this file is: say it with `--format`");
    check("\0\0\0\0", "line 1: cannot tell what this file is: say it with `--format`");
    let bytes = |bytes: &'static [u8]| {
        Trace::read(bytes, None, &Options::default()).map(drop).unwrap_err().to_string()
    };
    assert_eq!(bytes(b""), "the file is empty");
    let gzip = "line 1: it is compressed with gzip: unpack it, or pack it with zstd instead";
    assert_eq!(bytes(&[0x1f, 0x8b, 8, 0, 0]), gzip);
    assert_eq!(
        bytes(&[0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff]),
        "the trace ends in the middle of its first line: copy or export it again"
    );
    let damaged = [ZSTD_MAGIC.as_slice(), &[0xff; 64]].concat();
    assert_eq!(bytes(damaged.leak()), "cannot read its beginning");
    let folder = glowplug_sim::trace::open(".".as_ref(), &Options::default());
    assert_eq!(folder.map(drop).unwrap_err().to_string(), "cannot read its beginning");
    let error = glowplug_sim::trace::open("not-there.csv".as_ref(), &Options::default());
    assert_eq!(error.map(drop).unwrap_err().to_string(), "cannot open `not-there.csv`");
    let latin = b"time,app\n1,caf\xe9\n".as_slice();
    let mut trace = Trace::read(latin, None, &Options::default());
    let error = trace.as_mut().map(Iterator::last).map(Option::unwrap);
    let told = match error {
        Err(error) => error.to_string(),
        Ok(record) => record.unwrap_err().to_string(),
    };
    assert_eq!(told, "line 2: it is not UTF-8 text");
}

#[test]
fn nothing_but_a_header_is_an_empty_trace() {
    for text in ["time,app\n", "HashApp,HashFunction,1\n", "\n\n{}\n"] {
        let found = read(text, &Options::default());
        assert!(found.is_ok_and(|found| found.requests.is_empty()), "{text}");
    }
}

/// The beginning of a file of each format, so that what follows is read as one.
const HEADS: [&str; 6] = [
    "time,app,service\n1,a,1\n",
    "HashApp,HashFunction,1,2\na,f,1,0\n",
    "TIMESTAMP,ContextTokens,GeneratedTokens\n1,1,1\n",
    "{\"timestamp\":1,\"input_length\":1,\"output_length\":1}\n",
    "{\"ts\":1,\"path\":\"/a/b\"}\n",
    "::1 - - [15/Nov/2024:16:57:58 +0000] \"GET /a/b\" 200 1 0.5\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn garbage_never_panics_in_any_format(
        bytes in vec(any::<u8>(), 0..200),
        text in "[0-9a-z\",.:{}\\[\\] /+-]{0,120}",
        format in 0..HEADS.len(),
    ) {
        for rest in [bytes.as_slice(), text.as_bytes()] {
            let whole = [HEADS[format].as_bytes(), rest, b"\n"].concat();
            let trace = Trace::read(Cursor::new(whole), None, &Options::default());
            if let Ok(trace) = trace {
                let records: Vec<_> = trace.collect();
                // Nothing comes after an error.
                let fine = records.iter().take_while(|record| record.is_ok()).count();
                prop_assert!(fine + 1 >= records.len());
            }
        }
    }
}

/// Every format, packed and cut anywhere, ends in an error that says how far it was read.
#[test]
fn cut_archives_of_all_formats_are_told() {
    use std::fmt::Write as _;
    let many = |head: &str, line: &dyn Fn(u64) -> String| {
        let mut text = head.to_owned();
        (0..400).for_each(|at| writeln!(text, "{}", line(at)).unwrap());
        text
    };
    let texts = [
        many("time,app\n", &|at| format!("{at},app-{}", at * 7_919 % 101)),
        many("HashApp,HashFunction,1,2\n", &|at| format!("app-{at},f,{},0", at * 7_919 % 11)),
        many("TIMESTAMP,ContextTokens,GeneratedTokens\n", &|at| format!("{at},{},1", at * 7_919)),
        many("", &|at| format!("{{\"timestamp\":{at},\"input_length\":{at},\"output_length\":1}}")),
        many("", &|at| format!("{{\"ts\":{at},\"app\":\"a{}\"}}", at * 7_919 % 101)),
        many("", &|at| {
            format!("::1 - - [15/Nov/2024:16:{:02}:00 +0000] \"GET /a/b{at}\" 200 1", at / 7)
        }),
        many("{\"glowplug_trace\":1}\na {\"name\":\"a\"}\n", &|at| format!("r {at} 0 q")),
    ];
    for text in texts {
        let packed = zstd::encode_all(text.as_bytes(), 3).unwrap();
        for length in (1..packed.len()).step_by(7) {
            let cut = Cursor::new(packed[..length].to_vec());
            let error = match Trace::read(cut, None, &Options::default()) {
                Err(error) => error,
                Ok(trace) => trace.last().unwrap().map(drop).unwrap_err(),
            };
            // Less than what a frame begins with is no archive at all.
            let told = matches!(error, Error::Cut { line } if line <= 402)
                || length < 4 && matches!(error, Error::Line { line: 1, .. });
            assert!(told, "{} cut at {length}: {error}", text.lines().next().unwrap());
        }
    }
}
