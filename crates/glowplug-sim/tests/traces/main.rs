//! Traces from outside: what is written is read again, and what is broken is named.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod format;
