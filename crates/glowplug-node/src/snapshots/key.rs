//! What a snapshot is good for, in one word.

use std::collections::BTreeSet;
use std::fs;

use glowplug_runner::{RunnerSpec, host};
use sha2::{Digest as _, Sha256};

use crate::apps::Deployed;

/// Variables that differ from runner to runner, and are told to a restored one.
const OF_ONE_RUNNER: [&str; 4] =
    ["FAL_JOB_ID", "GLOWPLUG_RUNNER_ID", "GLOWPLUG_TIMELINE", "GLOWPLUG_MODULES"];
/// Of the hash, these many are enough to tell the snapshots of one node apart.
const KEY_HEX_DIGITS: usize = 32;

pub(super) fn of(
    deployed: &Deployed,
    spec: &RunnerSpec,
    secrets: &BTreeSet<String>,
    criu: &host::Criu,
) -> String {
    let is_kept =
        |name: &String| !OF_ONE_RUNNER.contains(&name.as_str()) && !secrets.contains(name);
    let env: Vec<_> = spec.env.iter().filter(|(name, _)| is_kept(name)).collect();
    let program =
        (&deployed.code, &spec.argv, &spec.cwd, env, &spec.user, &spec.limits.open_files_max);
    let said = (program, machine(), &criu.version, env!("CARGO_PKG_VERSION"));
    let mut key = format!("{:x}", Sha256::digest(format!("{said:?}")));
    key.truncate(KEY_HEX_DIGITS);
    key
}

/// Kernel, processor, and this boot: a restored process goes on with the clock that it had.
fn machine() -> (String, String, String) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo");
    let features =
        processor.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let features = features.unwrap_or_default().to_owned();
    (read("/proc/sys/kernel/osrelease"), read("/proc/sys/kernel/random/boot_id"), features)
}
