//! A question to the program over its control socket, asked without waiting.
//!
//! One line of JSON each way, then the program closes the connection. The protocol is described for authors
//! of programs in the guide's page on warmth.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::protocol::encode;

/// The longest answer.
const ANSWER_BYTES_MAX: usize = 16 << 10;
const READ_BYTES: usize = 4 << 10;

#[derive(Debug, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum Question<'a> {
    /// Its memory is about to be captured: let go of what must not be in it.
    BeforeSnapshot,
    /// It was restored: this is what it has to go by from here on.
    AfterRestore {
        env: &'a BTreeMap<String, String>,
        /// Fresh, for generators of random numbers that have no way to get any of their own.
        entropy: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Done(bool),
    Failed(String),
}

/// A question that has been asked.
pub(super) struct Talk {
    stream: OwnedFd,
    unsent: Vec<u8>,
    answer: Vec<u8>,
}

impl Talk {
    pub(super) fn begin(socket: &Path, question: &Question<'_>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let stream =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // Refused at once where nobody listens, and where too many wait already.
        rustix::net::connect(&stream, &SocketAddrUnix::new(socket)?)?;
        Ok(Self { stream, unsent: encode(question)?, answer: Vec::new() })
    }

    pub(super) fn wants(&self) -> PollFlags {
        if self.unsent.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
    }

    /// Goes on as far as that is possible now. `None`: there is more to come.
    pub(super) fn turn(&mut self) -> Option<Result<(), String>> {
        let broken = |error| Some(Err(format!("its control connection broke: {error}")));
        while !self.unsent.is_empty() {
            match rustix::io::write(&self.stream, &self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => break,
                Err(error) => return broken(error),
            }
        }
        loop {
            let mut chunk = [0; READ_BYTES];
            match rustix::io::read(&self.stream, &mut chunk) {
                Ok(0) => return Some(self.heard()),
                Ok(count) => self.answer.extend_from_slice(&chunk[..count]),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return None,
                Err(error) => return broken(error),
            }
            if self.answer.len() > ANSWER_BYTES_MAX {
                return Some(Err("its answer on the control socket is too long".to_owned()));
            }
        }
    }

    fn heard(&self) -> Result<(), String> {
        match serde_json::from_slice(&self.answer) {
            Ok(Answer::Done(true)) => Ok(()),
            Ok(Answer::Done(false)) => Err("the program does not want it".to_owned()),
            Ok(Answer::Failed(problem)) => Err(problem),
            Err(_) => Err("the program gave no answer on its control socket".to_owned()),
        }
    }
}

impl AsFd for Talk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Asks a program that reads the question and then says this.
    fn ask(says: &str) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut talk = Talk::begin(&socket, &Question::BeforeSnapshot).unwrap();
        assert!(talk.turn().is_none());
        let (mut program, _) = listener.accept().unwrap();
        let mut question = [0; 64];
        let count = program.read(&mut question).unwrap();
        assert_eq!(&question[..count], b"{\"do\":\"before_snapshot\"}\n");
        program.write_all(says.as_bytes()).unwrap();
        drop(program);
        talk.turn().unwrap()
    }

    #[test]
    fn an_answer_is_taken_for_what_it_is() {
        assert_eq!(ask("{\"done\":true}\n"), Ok(()));
        assert_eq!(ask("{\"failed\":\"no\"}\n"), Err("no".to_owned()));
        for nonsense in ["", "yes", "{\"done\":", "{}"] {
            assert!(ask(nonsense).unwrap_err().contains("no answer"), "{nonsense}");
        }
        let long = "x".repeat(ANSWER_BYTES_MAX + 1);
        assert!(ask(&long).unwrap_err().contains("too long"));
    }

    #[test]
    fn a_question_that_does_not_fit_at_once_is_sent_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let env = BTreeMap::from([("LONG".to_owned(), "x".repeat(2 << 20))]);
        let question = Question::AfterRestore { env: &env, entropy: "00".to_owned() };
        let mut talk = Talk::begin(&socket, &question).unwrap();
        assert!(talk.turn().is_none() && talk.wants().contains(PollFlags::OUT));
        let (mut program, _) = listener.accept().unwrap();
        let mut heard = Vec::new();
        while heard.last() != Some(&b'\n') {
            let mut chunk = [0; READ_BYTES];
            let count = program.read(&mut chunk).unwrap();
            heard.extend_from_slice(&chunk[..count]);
            assert!(talk.turn().is_none());
        }
        assert!(heard.len() > 2 << 20);
        program.write_all(b"{\"done\":true}").unwrap();
        drop(program);
        assert_eq!(talk.turn(), Some(Ok(())));
    }

    #[test]
    fn nobody_at_the_socket_is_an_error_at_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Talk::begin(&dir.path().join("none"), &Question::BeforeSnapshot).is_err());
    }
}
