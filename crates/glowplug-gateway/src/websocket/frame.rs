//! Where websocket frames begin and end (RFC 6455 §5.2), without a look at what they hold.
//!
//! A [`Scanner`] follows the bytes that one side sends. Heads are held back until they are complete and
//! found to be allowed, so that nothing of a forbidden frame is passed on. Payloads stay as they came:
//! masked, compressed, or not even UTF-8. Whoever receives them judges those.

use bytes::{BufMut, BytesMut};

/// Head of a frame: two bytes, eight of length, four of mask.
const HEAD_BYTES_MAX: usize = 14;
/// Payload of a frame that is no data (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: usize = 125;
/// Payload of a close frame beside its code.
const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// Who sends the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// Masks them.
    Caller,
    /// Does not.
    App,
}

/// A frame that must not be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("a message is larger than {bytes_max} bytes")]
    TooLarge { bytes_max: u64 },
    #[error("a text is not UTF-8")]
    NotText,
    #[error("{0}")]
    Protocol(&'static str),
}

/// A piece of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'s, 'i> {
    /// The whole head with the first piece, nothing with the others.
    pub(super) head: &'s [u8],
    pub(super) payload: &'i [u8],
    pub(super) kind: Kind,
    pub(super) ends_frame: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A frame of a message, and whether it is the last.
    Data {
        last: bool,
    },
    Close,
    /// Ping or pong.
    Keepalive,
}

#[derive(Debug)]
pub(super) struct Scanner {
    sender: Sender,
    /// Of all frames of one message together.
    message_bytes_max: u64,
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: usize,
    /// The frame whose payload comes, and how much of it is to come.
    frame: Option<(Kind, u64)>,
    /// Payload so far of the message that is not complete yet.
    message: Option<u64>,
}

impl Scanner {
    pub(super) fn new(sender: Sender, message_bytes_max: u64) -> Self {
        let head = [0; HEAD_BYTES_MAX];
        Self { sender, message_bytes_max, head, head_bytes: 0, frame: None, message: None }
    }

    /// The next piece, taken off the input. `None`: more bytes are needed first.
    pub(super) fn next<'s, 'i>(
        &'s mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Part<'s, 'i>>, Fault> {
        let begins = self.frame.is_none();
        if begins && !self.take_head(input) {
            return Ok(None);
        }
        let (kind, left) = match self.frame {
            Some(frame) => frame,
            None => self.judge()?,
        };
        if !begins && input.is_empty() {
            return Ok(None);
        }
        let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let (payload, rest) = input.split_at(bytes);
        *input = rest;
        let left = left - bytes as u64;
        let ends_frame = left == 0;
        self.frame = (!ends_frame).then_some((kind, left));
        let head: &[u8] = if begins { &self.head[..self.head_bytes] } else { &[] };
        if ends_frame {
            self.head_bytes = 0;
        }
        Ok(Some(Part { head, payload, kind, ends_frame }))
    }

    /// Whether a frame of ours may follow what came so far.
    pub(super) fn is_between_frames(&self) -> bool {
        self.frame.is_none()
    }

    /// Whether a message of ours may follow what came so far.
    pub(super) fn is_between_messages(&self) -> bool {
        self.is_between_frames() && self.message.is_none()
    }

    /// Returns whether the head is complete.
    fn take_head(&mut self, input: &mut &[u8]) -> bool {
        while self.head_bytes < self.head_length() {
            let Some((first, rest)) = input.split_first() else { return false };
            self.head[self.head_bytes] = *first;
            self.head_bytes += 1;
            *input = rest;
        }
        true
    }

    /// As far as it is known.
    fn head_length(&self) -> usize {
        if self.head_bytes < 2 {
            return 2;
        }
        let mask = if self.head[1] & MASKED == 0 { 0 } else { 4 };
        mask + match self.head[1] & !MASKED {
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    /// Whether the frame is allowed where it is.
    fn judge(&mut self) -> Result<(Kind, u64), Fault> {
        let [first, second, ..] = self.head;
        let is_masked = second & MASKED != 0;
        match (self.sender, is_masked) {
            (Sender::Caller, false) => {
                return Err(Fault::Protocol("a caller's frame is not masked"));
            }
            (Sender::App, true) => return Err(Fault::Protocol("an app's frame is masked")),
            _ => {}
        }
        let bytes = match second & !MASKED {
            126 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            127 => {
                let length = self.head[2..10].try_into().expect("eight bytes are eight");
                u64::from_be_bytes(length)
            }
            short => u64::from(short),
        };
        let last = first & FIN != 0;
        let kind = match first & 0x0f {
            opcode @ (CONTINUATION | TEXT | BINARY) => {
                let begins = opcode != CONTINUATION;
                match (begins, self.message) {
                    (false, None) => return Err(Fault::Protocol("a frame continues no message")),
                    (true, Some(_)) => {
                        return Err(Fault::Protocol("a message begins within another"));
                    }
                    _ => {}
                }
                let so_far = self.message.unwrap_or(0).saturating_add(bytes);
                if so_far > self.message_bytes_max {
                    return Err(Fault::TooLarge { bytes_max: self.message_bytes_max });
                }
                self.message = (!last).then_some(so_far);
                Kind::Data { last }
            }
            CLOSE | PING | PONG if !last || bytes > CONTROL_BYTES_MAX as u64 => {
                return Err(Fault::Protocol("a control frame is too long or in pieces"));
            }
            CLOSE => Kind::Close,
            PING | PONG => Kind::Keepalive,
            _ => return Err(Fault::Protocol("a frame is of a kind that there is not")),
        };
        Ok((kind, bytes))
    }
}

/// A text message to a caller.
pub(super) fn text(message: &str, out: &mut BytesMut) {
    head(TEXT, message.len(), out);
    out.put_slice(message.as_bytes());
}

/// A ping to a caller.
pub(super) fn ping(out: &mut BytesMut) {
    head(PING, 0, out);
}

/// A close frame; masked for an app, to which we are a client.
pub(super) fn close(to: Sender, code: u16, reason: &str, out: &mut BytesMut) {
    let payload = [&code.to_be_bytes()[..], cut(reason).as_bytes()].concat();
    if to == Sender::Caller {
        head(CLOSE, payload.len(), out);
        out.put_slice(&payload);
        return;
    }
    let length = u8::try_from(payload.len()).expect("it was cut to what a control frame holds");
    out.put_slice(&[FIN | CLOSE, MASKED | length]);
    let mask: [u8; 4] = rand::random();
    out.put_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// As much of a reason as a close frame holds.
pub(super) fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

fn head(opcode: u8, bytes: usize, out: &mut BytesMut) {
    out.put_u8(FIN | opcode);
    match (u8::try_from(bytes), u16::try_from(bytes)) {
        (Ok(short), _) if short < 126 => out.put_u8(short),
        (_, Ok(length)) => {
            out.put_u8(126);
            out.put_u16(length);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(bytes as u64);
        }
    }
}

#[cfg(test)]
mod tests;
