//! Backends: the ways to start, watch and stop a runner. One trait, one conformance suite for all.

mod backend;
mod cgroup;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod host;
mod probe;
mod proc_table;
mod process;
mod protocol;
pub mod shim;

pub use backend::{
    Backend, BackendError, Clock, Exit, ExitCause, Limits, Listen, LogLine, LogStream, Notice,
    ObservedRunner, ObservedState, RunnerAddress, RunnerSpec, StopMode,
};
pub use process::{ProcessBackend, ProcessOptions, ShimCommand};
pub use protocol::LogCaps;
