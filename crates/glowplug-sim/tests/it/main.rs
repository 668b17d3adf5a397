//! The driver as its users see it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod baselines;
mod determinism;
mod erlang;
mod judge;
mod limits;
mod plan;
mod random;
mod scenarios;
mod settling;
mod simfaas;
mod simulation;
mod warm_up;
mod worlds;
