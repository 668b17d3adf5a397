//! A test that needs a second process to kill: its binary has no test harness, and called with a word of its own it is
//! that process. That one says how far it is line by line, and the test kills it after some line.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// The one test of a binary.
pub(crate) struct Killed {
    pub(crate) name: &'static str,
    /// The word that makes the binary the process that is killed.
    pub(crate) mode: &'static str,
}

impl Killed {
    /// `work` gets the arguments behind the word.
    #[expect(
        clippy::print_stdout,
        reason = "without a harness, the test talks to its runner itself"
    )]
    pub(crate) fn main(&self, work: impl AsyncFnOnce(&[String]), test: impl Future<Output = ()>) {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
        let runtime = || tokio::runtime::Runtime::new().unwrap();
        if let [mode, rest @ ..] = arguments.as_slice()
            && mode == self.mode
        {
            runtime().block_on(work(rest));
        } else if has("--list") {
            // What nextest asks of a binary; none of its tests is ignored.
            if !has("--ignored") {
                println!("{}: test", self.name);
            }
        } else {
            runtime().block_on(test);
            println!("test {} ... ok", self.name);
        }
    }

    /// `false`: it was done before it had said so many lines.
    pub(crate) fn after<A: AsRef<OsStr>>(&self, arguments: &[A], lines: u64) -> bool {
        #[expect(clippy::disallowed_methods, reason = "the test is about this second process")]
        let mut process = Command::new(std::env::current_exe().unwrap())
            .arg(self.mode)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap()).lines();
        for (line, _) in said.zip(1..=lines) {
            line.unwrap();
        }
        if lines < u64::MAX {
            process.kill().unwrap();
        }
        !process.wait().unwrap().success()
    }
}

/// Of the process that is killed: how far it is.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// Any fixed choice will do; these spread.
pub(crate) fn some_line(seed: u64, lines_max: u64) -> u64 {
    1 + (seed * 0x9e37_79b9) % lines_max
}
