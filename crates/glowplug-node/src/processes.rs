//! Where this node keeps its processes: runners, and beside them the zygotes that runners are forked from.

use std::path::Path;
use std::sync::Arc;

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
    open(config, shim, clock, &Zygotes::dir(&config.node.data_dir))
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
