//! The driver as its users see it.

mod determinism;
mod simulation;
mod worlds;
