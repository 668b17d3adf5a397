//! The driver as its users see it.

mod baselines;
mod determinism;
mod plan;
mod simulation;
mod worlds;
