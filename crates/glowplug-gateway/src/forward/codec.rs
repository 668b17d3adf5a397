//! HTTP/1.1 as it is spoken with runners: bytes to messages and back, without any input or output.
//!
//! What a runner sends is untrusted. Whatever leaves room for two readings of where an answer ends (two
//! lengths, a length beside chunks, codings we do not know) is an error, so that nothing of one answer
//! can be taken for a part of another. Upgrades are not spoken here.

mod answer_body;
mod head;
mod request;
#[cfg(test)]
mod tests;

pub(super) use answer_body::{AnswerDecoder, BodyFault};
pub(super) use head::{Head, HeadFault, Parsed, parse_head};
pub(super) use request::{Framing, Outbox, encode_chunk, encode_end, encode_head};
