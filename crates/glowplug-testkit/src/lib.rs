//! Fixtures for tests of a whole node: the real binary on a free port, and waits that end with what they
//! wait for. Dev-dependency only.

mod data_dir;
mod postgres;
mod process;
mod registry;
mod served;
mod table_layer;
mod wait;

pub use data_dir::data_dir_with_python_apps;
pub use postgres::{OwnPostgres, shared_postgres};
pub use process::processes_with;
pub use registry::{Access, OwnRegistry};
pub use served::{Served, ServedOptions};
pub use table_layer::{CHUNK_BYTES, TableFormat, TableLayer};
pub use wait::{eventually, wait_for, wait_until};
