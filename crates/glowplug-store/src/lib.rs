//! What must survive a crash.

mod store;

pub use store::*;
