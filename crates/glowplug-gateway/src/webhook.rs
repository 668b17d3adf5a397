//! Webhooks: telling an address of the caller's choice what became of a queued request.
//!
//! ```text
//! stored answer ─► Payload ─► body ─┐
//!                  SigningKey ──────┴─► headers ─► Client ─► Outcome
//! url ─► Target (refused?) ─► addresses (refused?) ──┘
//! ```
//!
//! Here is one call: what is sent, how it is signed, where it may go. When a webhook is called, and how
//! often, is for the node to say. The caller of a request chooses where this node connects to, so every
//! address is judged, after its name was resolved, before a connection to it is opened.

mod address;
mod call;
mod options;
mod payload;
mod signature;
mod target;
mod trust;

pub use address::{Cidr, CidrError};
pub use call::{Client, Outcome};
pub use options::{WebhookOptions, limits};
pub use payload::Payload;
pub use signature::{KeyError, Signed, SigningKey};
pub use target::{Target, TargetError};
pub use trust::TrustError;
