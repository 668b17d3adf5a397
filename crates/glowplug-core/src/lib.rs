//! The decisions of Glowplug, and nothing else.
//!
//! This crate holds no I/O, clock, randomness, logging, async, lock, or dependence on hash order, and it
//! depends on nothing of ours. Two drivers run it: the node in production, the simulator in planning.

pub mod address;
pub mod ids;
pub mod request;
pub mod resources;
pub mod spec;
pub mod time;

pub use address::RunnerAddress;
pub use ids::{AppId, Lease, RequestId, RunnerId};
pub use time::Timestamp;
