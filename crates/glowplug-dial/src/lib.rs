//! How to connect to a runner, wherever it listens: on the host's loopback, on a unix socket, or on either
//! in namespaces of its own.
//!
//! A crate by itself because all who talk to runners need it, and none of them knows the others.

pub mod namespace;
mod stream;

pub use self::stream::Stream;
