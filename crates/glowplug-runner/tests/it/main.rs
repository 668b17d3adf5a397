//! All integration tests in one binary.

#![expect(clippy::unwrap_used, reason = "a fixture that does not come up fails its test")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

mod container;
mod fake;
mod process;
mod snapshot;
