//! Traffic and worlds of our own making.
//!
//! | module | holds |
//! | --- | --- |
//! | `rate` | how often something comes, as a function of time |
//! | `shape` | when requests come: at random, in bursts, batches, sessions, herds |
//! | `source` | streams of requests, merged in order of time |

mod rate;
mod shape;
mod source;

pub use rate::{Moments, Rate};
pub use shape::{Arriving, PENDING_MAX, Shape};
pub use source::{Creep, Service, Stream, Traffic, TrafficError, zipf};
