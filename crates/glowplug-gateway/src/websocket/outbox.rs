//! What is on its way to a caller, and what is dropped when the caller is too slow.
//!
//! ```text
//! straight:  app's bytes ──► writing ──► caller       nothing is read from the app while something is unsent
//! dropping:  app's frames ──► messages ──► writing ──► caller      beyond the limit the oldest message goes
//! ```
//!
//! A caller that asks for `max_buffering=N` wants the newest rather than all: at most N whole messages wait,
//! and together no more bytes than one message may have. What has begun to be written is written to its end.
//! Pings and pongs overtake messages, a close comes after them.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::frame::{Kind, Part, Scanner};

/// Pings and pongs of the app that wait. Beyond it nothing is read from the app.
const URGENT_BYTES_MAX: usize = 4 * 1024;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    writing: Bytes,
    /// Follows `writing`.
    next: BytesMut,
    backlog: Option<Backlog>,
}

/// Whole messages that wait.
#[derive(Debug)]
struct Backlog {
    messages_max: usize,
    bytes_max: usize,
    messages: VecDeque<Bytes>,
    /// Of `messages` together.
    bytes: usize,
    /// The frame that is coming.
    frame: BytesMut,
    /// The frames before it of the same message.
    message: BytesMut,
    /// Comes after the messages.
    farewell: BytesMut,
    dropped: u64,
}

impl Outbox {
    /// `messages_max`: how many wait before the oldest is dropped; `None`: none is.
    pub(super) fn new(messages_max: Option<usize>, bytes_max: u64) -> Self {
        let backlog = messages_max.map(|messages_max| Backlog {
            messages_max,
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            messages: VecDeque::new(),
            bytes: 0,
            frame: BytesMut::new(),
            message: BytesMut::new(),
            farewell: BytesMut::new(),
            dropped: 0,
        });
        Self { backlog, ..Self::default() }
    }

    /// Whether more may be read from the app.
    pub(super) fn has_room(&self) -> bool {
        match self.backlog {
            Some(_) => self.next.len() < URGENT_BYTES_MAX,
            None => self.writing.is_empty() && self.next.is_empty(),
        }
    }

    pub(super) fn put(&mut self, part: &Part<'_, '_>) {
        let Some(backlog) = &mut self.backlog else {
            self.next.extend_from_slice(part.head);
            self.next.extend_from_slice(part.payload);
            return;
        };
        backlog.frame.extend_from_slice(part.head);
        backlog.frame.extend_from_slice(part.payload);
        if part.ends_frame {
            // A message is as large as its payloads, and may have any number of these that hold nothing.
            let adds_nothing = part.kind == Kind::Data { last: false }
                && part.payload.is_empty()
                && !part.head.is_empty()
                && !backlog.message.is_empty();
            if adds_nothing {
                backlog.frame.clear();
                return;
            }
            let frame = std::mem::take(&mut backlog.frame);
            match part.kind {
                Kind::Data { last } => backlog.take(frame, last),
                Kind::Keepalive => self.next.extend_from_slice(&frame),
                Kind::Close => backlog.farewell = frame,
            }
        }
    }

    /// Whether frames of ours can be put between those of the app.
    pub(super) fn is_between_frames(&self, app: &Scanner) -> bool {
        self.backlog.is_some() || app.is_between_frames()
    }

    /// Whether a message of ours can be put between those of the app.
    pub(super) fn is_between_messages(&self, app: &Scanner) -> bool {
        self.backlog.is_some() || app.is_between_messages()
    }

    /// Puts a frame of ours behind those that came.
    pub(super) fn say(&mut self, frame: &[u8]) {
        self.next.extend_from_slice(frame);
    }

    /// Puts our last frames behind everything that waits.
    pub(super) fn say_last(&mut self, frames: &[u8]) {
        match &mut self.backlog {
            Some(backlog) => backlog.farewell = BytesMut::from(frames),
            None => self.next.extend_from_slice(frames),
        }
    }

    /// What is to be written now; empty if there is nothing.
    pub(super) fn writing(&mut self) -> &mut Bytes {
        if self.writing.is_empty() {
            self.writing = std::mem::take(&mut self.next).freeze();
        }
        if self.writing.is_empty()
            && let Some(backlog) = &mut self.backlog
        {
            self.writing = backlog.give();
        }
        &mut self.writing
    }

    /// Messages that were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.backlog.as_ref().map_or(0, |backlog| backlog.dropped)
    }
}

impl Backlog {
    /// Takes in a frame of a message.
    fn take(&mut self, frame: BytesMut, last: bool) {
        if self.message.is_empty() {
            self.message = frame;
        } else {
            self.message.extend_from_slice(&frame);
        }
        if last {
            let message = std::mem::take(&mut self.message).freeze();
            while self.messages.len() >= self.messages_max
                || self.bytes + message.len() > self.bytes_max
            {
                let Some(oldest) = self.messages.pop_front() else { break };
                self.bytes -= oldest.len();
                self.dropped += 1;
            }
            self.bytes += message.len();
            self.messages.push_back(message);
        }
    }

    fn give(&mut self) -> Bytes {
        match self.messages.pop_front() {
            Some(message) => {
                self.bytes -= message.len();
                message
            }
            None => std::mem::take(&mut self.farewell).freeze(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{self, Sender};
    use super::*;

    fn put(outbox: &mut Outbox, mut bytes: &[u8]) {
        let mut scanner = Scanner::new(Sender::App, 1 << 20);
        while let Some(part) = scanner.next(&mut bytes).unwrap() {
            outbox.put(&part);
        }
    }

    fn message(text: &str) -> Vec<u8> {
        let mut out = BytesMut::new();
        frame::text(text, &mut out);
        out.to_vec()
    }

    /// Everything that is left to write.
    fn written(outbox: &mut Outbox) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let writing = outbox.writing();
            if writing.is_empty() {
                return all;
            }
            all.extend(std::mem::take(writing));
        }
    }

    #[test]
    fn nothing_is_dropped_unless_asked_for() {
        let mut outbox = Outbox::new(None, 100);
        assert!(outbox.has_room());
        put(&mut outbox, &message("a"));
        assert!(!outbox.has_room(), "the app waits for the caller");
        put(&mut outbox, &message("b"));
        assert_eq!(written(&mut outbox), [message("a"), message("b")].concat());
        assert!(outbox.has_room());
    }

    #[test]
    fn the_oldest_goes_and_what_was_begun_stays() {
        let mut outbox = Outbox::new(Some(2), 100);
        put(&mut outbox, &message("begun"));
        let begun = outbox.writing().split_to(3);
        for text in ["a", "b", "c", "d"] {
            put(&mut outbox, &message(text));
            assert!(outbox.has_room());
        }
        assert_eq!(outbox.dropped(), 2);
        let all = [begun.to_vec(), written(&mut outbox)].concat();
        assert_eq!(all, [message("begun"), message("c"), message("d")].concat());
    }

    #[test]
    fn bytes_are_bounded_and_the_newest_is_kept_whatever_its_size() {
        let mut outbox = Outbox::new(Some(60), 100);
        for _ in 0..10 {
            put(&mut outbox, &message(&"x".repeat(40)));
        }
        assert_eq!(outbox.dropped(), 8);
        put(&mut outbox, &message(&"y".repeat(120)));
        assert_eq!((outbox.dropped(), written(&mut outbox)), (10, message(&"y".repeat(120))));
    }

    #[test]
    fn pings_overtake_and_the_close_comes_last() {
        let mut outbox = Outbox::new(Some(1), 100);
        let (mut ping, mut close) = (BytesMut::new(), BytesMut::new());
        frame::ping(&mut ping);
        frame::close(Sender::Caller, 1000, "", &mut close);
        // The ping comes in the middle of the message.
        let mut first = message("ab");
        first[0] = 0x01;
        let mut second = message("cd");
        second[0] = 0x80;
        put_all(&mut outbox, &[&first, &ping, &second, &close]);
        assert_eq!(written(&mut outbox), [&ping[..], &first, &second, &close].concat());
    }

    #[test]
    fn frames_without_payload_do_not_pile_up() {
        let mut outbox = Outbox::new(Some(1), 100);
        let (begin, nothing, end) = ([0x01, 1, b'a'], [0x00, 0], [0x80, 0]);
        put(&mut outbox, &[&begin[..], &nothing.repeat(100_000), &end].concat());
        assert_eq!(written(&mut outbox), [&begin[..], &end].concat());
    }

    fn put_all(outbox: &mut Outbox, frames: &[&[u8]]) {
        put(outbox, &frames.concat());
    }

    #[test]
    fn pings_without_end_are_no_longer_read() {
        let mut outbox = Outbox::new(Some(1), 100);
        let mut ping = BytesMut::new();
        frame::ping(&mut ping);
        for _ in 0..URGENT_BYTES_MAX / 2 {
            assert!(outbox.has_room());
            put(&mut outbox, &ping);
        }
        assert!(!outbox.has_room());
    }
}
