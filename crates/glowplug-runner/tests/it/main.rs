//! All integration tests in one binary.

#![expect(clippy::unwrap_used, reason = "a fixture that does not come up fails its test")]

mod container;
mod fake;
mod process;
