//! Where this node keeps its processes: runners, and beside them the zygotes that runners are forked from.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use glowplug_runner::{Backend, LogCaps, ProcessBackend, ProcessOptions, ShimCommand};

use crate::clock::Clock;
use crate::config::Config;
use crate::zygotes::Zygotes;

pub(crate) fn of_runners(
    config: &Config,
    shim: ShimCommand,
    clock: Clock,
) -> anyhow::Result<Arc<dyn Backend>> {
    open(config, shim, clock, &config.node.data_dir)
}

pub(crate) fn of_zygotes(
    config: &Config,
    shim: ShimCommand,
    clock: Clock,
) -> anyhow::Result<Arc<dyn Backend>> {
    let dir = Zygotes::dir(&config.node.data_dir);
    // Others may pass through (apps may have users of their own), not look around.
    let made = DirBuilder::new().recursive(true).mode(0o711).create(&dir);
    made.with_context(|| format!("cannot create {}", dir.display()))?;
    open(config, shim, clock, &dir)
}

fn open(
    config: &Config,
    shim: ShimCommand,
    clock: Clock,
    dir: &Path,
) -> anyhow::Result<Arc<dyn Backend>> {
    let backend = ProcessBackend::new(ProcessOptions {
        runners_dir: dir.join("runners"),
        socket_dir: dir.join("sockets"),
        shim,
        clock: clock.shared(),
        log_caps: LogCaps {
            total_bytes_max: config.node.limits.runner_log_bytes_max,
            ..LogCaps::default()
        },
    })?;
    Ok(Arc::new(backend))
}
