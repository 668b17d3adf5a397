//! What all stores promise, and what the one on the disk keeps when the process or the file suffers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backup;
mod bodies;
#[macro_use]
mod conformance;
mod crash;
mod damage;
mod model;
mod postgres;
mod queue_model;
mod samples;
mod small_disk;
mod torn;
