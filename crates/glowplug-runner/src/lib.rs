//! Backends: the ways to start, watch and stop a runner. One trait, one conformance suite for all.

mod backend;
mod cgroup;
#[cfg(feature = "conformance")]
pub mod conformance;
mod container;
mod enclosure;
mod fake;
pub mod host;
mod probe;
mod proc_table;
mod process;
mod protocol;
pub mod shim;

pub use backend::{
    Backend, BackendError, Clock, Exit, ExitCause, Limits, Listen, LogLine, LogStream, Notice,
    ObservedRunner, ObservedState, RunnerAddress, RunnerSpec, StopMode, TouchedFiles, Warm,
};
pub use container::{
    Bind, Capabilities, ContainerSpec, ContainerUser, Hook, HookStage, Network, Recording, Root,
    Runtime, Scratch, SecretFiles, SystemCalls, Writes,
};
pub use fake::{
    FAKE_LINE_BYTES_MAX, FAKE_LOG_BYTES_MAX, FakeBackend, FakeBehaviour, FakeStop, FakeWorld,
    SetupTime,
};
pub use process::{ProcessBackend, ProcessOptions, ShimCommand};
pub use protocol::LogCaps;
