//! Container images: pulled once, unpacked once, shared by content, mounted in microseconds.
//!
//! ```text
//! registry, archive ──Source──► layers ──unpack──► objects + layer indexes ──merge──► tree ──► EROFS image
//!                                                                                      mounted under overlays
//! ```
//!
//! This crate prepares and caches, and never chooses: which image is wanted when is the engine's business.

pub mod analyze;
pub mod config;
mod content;
pub mod contents;
pub mod convert;
mod digest;
pub mod erofs;
pub mod layer;
pub mod lazy;
mod pins;
pub mod pull;
pub mod source;
pub mod store;
pub mod toc;
pub mod touched;
pub mod tree;

pub use content::ContentId;
pub use digest::{Digest, InvalidDigest};
pub use oci_client::{ParseError, Reference};
pub use store::Store;
