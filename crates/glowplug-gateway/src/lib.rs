//! The data plane: takes requests, waits for a runner with them, and carries the bytes.

pub mod host;
