//! A node: config, the desk around the engine, the executor of its actions, the control API, metrics.
//!
//! The only crate that knows all others. It decides nothing itself.

mod apps;
mod clock;
pub mod config;
mod control;
mod deploy;
mod desk;
mod events;
mod executor;
mod files;
mod host;
pub mod image_views;
mod images;
mod interest;
mod journal;
mod keys;
mod late;
mod launch;
mod metrics;
mod node;
mod probe;
mod processes;
mod queue;
pub mod queue_export;
mod recall;
pub mod recorder;
mod records;
mod retries;
mod runner_task;
mod scale;
mod settings;
mod shared;
mod snapshots;
pub mod store;
mod touched;
mod views;
mod webhooks;
mod why;
mod zygotes;

pub use events::NodeEvent;
pub use node::{IMAGES_DIR, Node, NodeOptions, capacity, is_running};
pub use snapshots::DIR as SNAPSHOTS_DIR;
