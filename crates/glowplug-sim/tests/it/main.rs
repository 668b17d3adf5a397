//! The driver as its users see it.

mod baselines;
mod determinism;
mod simulation;
mod worlds;
