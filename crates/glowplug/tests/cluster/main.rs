//! Nodes on a PostgreSQL server: one alone, two that share a queue, and a server that dies under them.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod alone;
mod ground;
mod outage;
mod together;
