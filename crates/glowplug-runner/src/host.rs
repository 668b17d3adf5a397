//! What this host has and what it can do: the node's capacity, and the facts that `doctor` prints.
//!
//! Everything is looked up once, on request; nothing here is cached or watched.

mod cdi;
mod containers;
mod criu;
mod facts;
mod gpus;
mod runtimes;

use std::fs;
use std::path::Path;

use glowplug_core::resources::{Capacity, Gpu};

pub use self::cdi::{GpuPlaces, give_gpus};
pub use self::containers::containers;
pub use self::criu::{Criu, find_criu};
pub use self::facts::{FactStatus, HostFact, facts};
pub use self::gpus::{Gpus, find_gpus};
pub use self::runtimes::{runtime, runtime_names};
use crate::cgroup::{CgroupPlan, parse_hierarchies};

/// What the node may give to runners, as far as it can be seen, and how the GPUs were found.
pub fn discover() -> (Capacity, Gpus) {
    let gpus = find_gpus();
    let capacity = Capacity {
        cpu_millis: cpu_millis(),
        memory_bytes: memory_bytes(),
        gpus: gpus.found.clone(),
    };
    (capacity, gpus)
}

/// Whether runners can be limited in this: `cpu`, `memory` or `pids`.
pub fn can_limit(controller: &str) -> bool {
    CgroupPlan::discover().home(controller).is_some()
}

/// Whether a runner's processes are held together by a control group, whoever their parents are.
pub fn holds_together() -> bool {
    let plan = CgroupPlan::discover();
    plan.unified.is_some() || can_limit("pids")
}

/// The CPUs this process may run on, less what its control groups withhold.
fn cpu_millis() -> u64 {
    let affinity = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
    let allowed = u64::from(affinity.max(1)) * 1_000;
    let limits = own_groups("cpu").into_iter().filter_map(|dir| {
        let unified = fs::read_to_string(dir.join("cpu.max")).ok();
        unified.and_then(|text| parse_cpu_max(&text)).or_else(|| {
            let quota = fs::read_to_string(dir.join("cpu.cfs_quota_us")).ok()?;
            let period = fs::read_to_string(dir.join("cpu.cfs_period_us")).ok()?;
            parse_cpu_max(&format!("{} {}", quota.trim(), period.trim()))
        })
    });
    limits.fold(allowed, u64::min)
}

/// `QUOTA PERIOD` in thousandths of a core; `None` if there is no limit.
fn parse_cpu_max(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota.saturating_mul(1_000)).checked_div(period)
}

/// The memory of the machine, or the limit of a group around this process if that is less.
fn memory_bytes() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = parse_mem_total(&info).unwrap_or(0);
    let limits = own_groups("memory").into_iter().filter_map(|dir| {
        let files = ["memory.max", "memory.limit_in_bytes"];
        let text = files.iter().find_map(|file| fs::read_to_string(dir.join(file)).ok())?;
        text.trim().parse().ok()
    });
    limits.fold(total, u64::min)
}

fn parse_mem_total(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1_024)
}

/// The group of this process that the controller knows, and all groups around it.
fn own_groups(controller: &str) -> Vec<std::path::PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let knows = |names: &[String]| names.is_empty() || names.iter().any(|name| name == controller);
    let hierarchies = parse_hierarchies(&mounts, &own);
    let own = hierarchies.iter().filter(|hierarchy| knows(&hierarchy.controllers));
    let with_parents = own.flat_map(|hierarchy| {
        let inside = |dir: &&Path| dir.starts_with(&hierarchy.mount);
        hierarchy.own.ancestors().take_while(inside).map(Path::to_owned)
    });
    with_parents.collect()
}

/// How a list of GPUs reads: `2 × H100 80 GiB`.
fn describe_gpus(gpus: &[Gpu]) -> String {
    let name = |gpu: &Gpu| format!("{} {} GiB", gpu.kind, gpu.memory_bytes >> 30);
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for gpu in gpus {
        match kinds.iter_mut().find(|(kind, _)| *kind == name(gpu)) {
            Some((_, count)) => *count += 1,
            None => kinds.push((name(gpu), 1)),
        }
    }
    let kinds: Vec<String> =
        kinds.into_iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
    kinds.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cpu_max("-1 100000"), None);
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1_500));
        assert_eq!(parse_mem_total("MemTotal:  2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
    }

    #[test]
    fn this_host_has_something_to_run_on() {
        let (capacity, gpus) = discover();
        assert!(capacity.cpu_millis >= 10, "{capacity:?}");
        assert!(capacity.memory_bytes >= 64 << 20, "{capacity:?}");
        assert_eq!(capacity.gpus.is_empty(), gpus.why_none.is_some(), "{gpus:?}");
    }

    #[test]
    fn equal_gpus_are_counted() {
        let gpu = |index, kind: &str| Gpu { index, kind: kind.into(), memory_bytes: 80 << 30 };
        let gpus = [gpu(0, "H100"), gpu(1, "L40"), gpu(2, "H100")];
        assert_eq!(describe_gpus(&gpus), "2 × H100 80 GiB, 1 × L40 80 GiB");
    }
}
