//! The second driver of `glowplug-core`: the node's engine on a virtual clock.
//!
//! | module | holds |
//! | --- | --- |
//! | `traffic` | what comes: one request at a time, from wherever |
//! | `trace` | recorded traffic: the format, readers for other formats |
//! | `model` | how long things take: pull, setup, service, exit; how they fail |
//! | `simulation` | the driver: agenda, faults, checkers |
//! | `outcome` | what was measured |
//! | `scenario` | traffic and worlds of our own making, and what is expected of them |
//! | `baseline` | others on the same traffic: Knative's autoscaler, the clairvoyant bound |
//! | `judge` | policies on the same traffic, held against each other |
//! | `plan` | recorded traffic at many settings, and what is best for which intent |
//!
//! A simulation is a pure function of its inputs and a seed: no clock, no threads, no I/O but the reading
//! of traces. What it predicts is what the node does, because both run the same engine.

pub mod baseline;
mod excerpt;
pub mod judge;
pub mod model;
pub mod outcome;
pub mod plan;
pub mod report;
pub mod scenario;
pub mod simulation;
pub mod trace;
pub mod traffic;
