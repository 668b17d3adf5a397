//! The real binary against bad apps, kills and full machines: whatever an app or a crash does, every
//! accepted request is answered once, and nothing is left behind.
//!
//! `GLOWPLUG_SOAK_SECONDS` makes the soak longer than its default.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod bad_apps;
mod contention;
mod crash;
mod frozen;
mod ground;
mod lifecycle;
mod queue;
mod refusals;
mod soak;
mod stopping;
mod webhooks;
