//! What must survive a crash, behind one trait: [`Store`].
//!
//! - [`SqliteStore`] keeps everything in one SQLite file and needs nothing else installed. A write is
//!   answered after it is on the disk; writes that arrive together share one commit.
//! - [`PostgresStore`] keeps everything on a PostgreSQL server, for several nodes on one queue.
//! - [`MemoryStore`] behaves the same and forgets everything when it is dropped.
//!
//! The store remembers and never decides: which request runs next, when it is retried and how long an
//! answer is kept is for its callers to say. Times come from them too, in the records.

mod crash;
pub mod limits;
mod memory;
mod postgres;
mod records;
mod sqlite;
mod store;

pub use crash::{CRASH_POINTS, crash_point};
pub use limits::Bounds;
pub use memory::MemoryStore;
pub use postgres::{PostgresOptions, PostgresStore};
pub use records::*;
pub use sqlite::{Durability, SqliteOptions, SqliteStore, free_bytes};
pub use store::{DELIVERY_LEASE, Result, Store, StoreError};
