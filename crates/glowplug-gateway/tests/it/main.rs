//! The gateway over real sockets: a real caller, a real runner, and a host that is a table.

mod client;
mod host;
mod run;
mod upstream;
mod wait;
