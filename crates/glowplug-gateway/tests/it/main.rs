//! The gateway over real sockets: a real caller, a real runner, and a host that is a table.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod attempt;
mod client;
mod failures;
mod files;
mod host;
mod leaving;
mod limits;
mod protocols;
mod proxy;
mod queue;
mod run;
mod socket;
mod stage;
mod streaming;
mod table_files;
mod tunnels;
mod upstream;
mod wait;
mod websocket;
