//! The data plane: takes requests, waits for a runner with them, and carries the bytes.
//!
//! [`Gateway::bind`] opens the one port of a node. What the port means (which app, which runner, which
//! queue) is asked of the [`host::Host`] it is given; whatever is not of the data plane goes to the
//! [`Fallback`] the node hands in.

pub mod answer;
pub mod attempt;
mod auth;
pub mod body;
mod dispatch;
pub mod files;
pub mod forward;
mod header;
pub mod host;
mod identity;
mod listener;
pub mod options;
mod path;
mod proxy;
mod queue;
mod run;
pub mod tls;
pub mod token;
mod tokens;
pub mod webhook;
mod websocket;

pub use body::Body;
pub use dispatch::Peer;
pub use forward::Forwarder;
pub use listener::{BindError, Fallback, Gateway};
pub use options::Options;
pub use tls::LocalAuthority;
