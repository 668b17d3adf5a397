//! Traces from outside: what is written is read again, what others write is understood, and what is broken
//! is named.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod broken;
mod format;
mod imports;
mod logs;
mod long;
mod page;
mod parts;
mod reading;
