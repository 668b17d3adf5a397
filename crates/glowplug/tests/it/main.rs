//! The real binary, run as a user runs it: exit code, standard output and standard error.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod auto;
mod binary;
mod client;
mod config;
mod machine;
mod plan;
mod recorded;
mod recorder;
mod replay;
mod serving;
mod simulate;
mod stub_node;
