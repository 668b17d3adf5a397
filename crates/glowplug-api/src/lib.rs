//! Wire types of Glowplug's HTTP surfaces: what crosses a socket, and nothing of what decides.

pub mod control;
pub mod error;
pub mod queue;

pub use error::{ErrorBody, ErrorType};
