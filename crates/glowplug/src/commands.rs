//! The commands, one file each.

pub(crate) mod apps;
pub(crate) mod ca;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod image;
pub(crate) mod keys;
pub(crate) mod man;
pub(crate) mod place;
pub(crate) mod plan;
pub(crate) mod queue;
pub(crate) mod reading;
pub(crate) mod run;
pub(crate) mod runners;
pub(crate) mod scaling;
pub(crate) mod serve;
pub(crate) mod simulate;
pub(crate) mod snapshots;
pub(crate) mod target;
pub(crate) mod trace;
pub(crate) mod version;
pub(crate) mod webhooks;
pub(crate) mod why;
