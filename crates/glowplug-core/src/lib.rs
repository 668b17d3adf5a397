//! The decisions of Glowplug, and nothing else.
//!
//! This crate holds no I/O, clock, randomness, logging, async, lock, or dependence on hash order, and it
//! depends on nothing of ours. Two drivers run it: the node in production, the simulator in planning.

pub mod action;
pub mod address;
pub mod auto;
pub mod backoff;
pub mod decision;
pub mod engine;
pub mod event;
pub mod ids;
pub mod lifecycle;
pub mod request;
pub mod resources;
pub mod retry;
pub mod scaler;
pub mod spec;
pub mod time;
pub mod warmth;

pub use action::Action;
pub use address::RunnerAddress;
pub use engine::Engine;
pub use event::Event;
pub use ids::{AppId, CallerId, HintId, Lease, RequestId, RunnerId};
pub use time::Timestamp;
pub use warmth::{Ladder, Rung};
