//! The driver as its users see it.

mod baselines;
mod determinism;
mod plan;
mod random;
mod scenarios;
mod simulation;
mod worlds;
