//! Backends: the ways to start, watch and stop a runner. One trait, one conformance suite for all.

mod backend;

pub use backend::{
    Backend, BackendError, Exit, ExitCause, Limits, Listen, LogLine, LogStream, Notice,
    ObservedRunner, ObservedState, RunnerAddress, RunnerSpec, StopMode,
};
