//! Starts that are forked from zygotes, with the real binary and real Python apps: they answer as plain starts do,
//! never repeat a random number, and leave nothing behind whatever is killed.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod chance;
mod faults;
mod kept;
mod kills;
mod refusals;
mod scene;
mod starts;
