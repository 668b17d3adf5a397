//! What this host can do for runners, in words a person can act on.

use std::fs;
use std::path::Path;

use super::{Gpus, cpu_millis, describe_gpus, memory_bytes};
use crate::cgroup::{CONTROLLERS, CgroupPlan};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactStatus {
    Ok,
    /// Works, with something less than it could.
    Limited,
    Missing,
}

/// One line of `glowplug doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFact {
    pub name: &'static str,
    pub status: FactStatus,
    pub detail: String,
    /// What to do about it, if anything need be.
    pub remedy: Option<String>,
}

impl HostFact {
    pub(super) fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: FactStatus::Ok, detail: detail.into(), remedy: None }
    }

    pub(super) fn lacking(
        name: &'static str,
        status: FactStatus,
        detail: impl Into<String>,
        remedy: &str,
    ) -> Self {
        Self { name, status, detail: detail.into(), remedy: Some(remedy.to_owned()) }
    }
}

/// Everything about this host that concerns runners.
pub fn facts(gpus: &Gpus) -> Vec<HostFact> {
    let plan = CgroupPlan::discover();
    let mut facts = vec![cpu(), memory(), gpu(gpus)];
    facts.extend(CONTROLLERS.map(|controller| limit(&plan, controller)));
    facts.extend([
        containment(&plan),
        users(),
        super::containers::fact(),
        super::runtimes::fact(),
        super::criu::fact(),
        user_namespaces(),
        pidfds(),
    ]);
    facts
}

fn cpu() -> HostFact {
    let millis = cpu_millis();
    HostFact::ok(
        "CPU",
        format!("{}.{} cores for this process", millis / 1_000, millis % 1_000 / 100),
    )
}

fn memory() -> HostFact {
    let bytes = memory_bytes();
    if bytes == 0 {
        let remedy = "set `memory` under [node.resources] in the config";
        return HostFact::lacking("memory", FactStatus::Missing, "cannot be read", remedy);
    }
    HostFact::ok("memory", format!("{} MiB for this process", bytes >> 20))
}

fn gpu(gpus: &Gpus) -> HostFact {
    match &gpus.why_none {
        None => HostFact::ok("GPUs", describe_gpus(&gpus.found)),
        Some(why) => {
            let remedy = "needed only for apps that ask for GPUs: install NVIDIA's driver, or declare \
                          the GPUs in the config";
            HostFact::lacking("GPUs", FactStatus::Missing, why, remedy)
        }
    }
}

fn limit(plan: &CgroupPlan, controller: &'static str) -> HostFact {
    let name = match controller {
        "cpu" => "CPU limits",
        "memory" => "memory limits",
        _ => "process limits",
    };
    match plan.home(controller) {
        Some(home) => {
            let version = if home.is_unified { 2 } else { 1 };
            HostFact::ok(
                name,
                format!("control groups, version {version}, in {}", home.base.display()),
            )
        }
        None => HostFact::lacking(
            name,
            FactStatus::Missing,
            format!("no writable control group passes on `{controller}`: runners are not limited"),
            "run the node as root, or as a systemd service with `Delegate=yes` and \
             `DelegateSubgroup=node`",
        ),
    }
}

fn containment(plan: &CgroupPlan) -> HostFact {
    let name = "containment";
    match &plan.unified {
        Some(unified) if unified.base.join("cgroup.kill").exists() || is_root(&unified.base) => {
            HostFact::ok(name, "a runner's processes are killed as one group")
        }
        Some(_) => HostFact::ok(name, "a runner's processes are found by their group"),
        None => HostFact::lacking(
            name,
            FactStatus::Limited,
            "a runner's processes are found by parent and environment, without a group",
            "mount cgroup2 writable for the node's user (systemd: `Delegate=yes`)",
        ),
    }
}

/// The root of the hierarchy has no `cgroup.kill` of its own.
fn is_root(dir: &Path) -> bool {
    !dir.join("cgroup.type").exists()
}

fn users() -> HostFact {
    if rustix::process::geteuid().is_root() {
        return HostFact::ok("users", "runners can have unprivileged users of their own");
    }
    let remedy = "run the node as root if apps must not share its user";
    let detail = "runners run as the node's own user";
    HostFact::lacking("users", FactStatus::Limited, detail, remedy)
}

fn user_namespaces() -> HostFact {
    let name = "user namespaces";
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let max = read("/proc/sys/user/max_user_namespaces");
    let debian = read("/proc/sys/kernel/unprivileged_userns_clone");
    let ubuntu = read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    match max.as_deref() {
        None => HostFact::lacking(
            name,
            FactStatus::Missing,
            "this kernel was built without them",
            "needed only for containers without root",
        ),
        Some("0") => HostFact::lacking(
            name,
            FactStatus::Missing,
            "switched off",
            "sysctl user.max_user_namespaces=15000",
        ),
        Some(_) if debian.as_deref() == Some("0") => HostFact::lacking(
            name,
            FactStatus::Limited,
            "for root only",
            "sysctl kernel.unprivileged_userns_clone=1",
        ),
        Some(_) if ubuntu.as_deref() == Some("1") => HostFact::lacking(
            name,
            FactStatus::Limited,
            "restricted by AppArmor",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        Some(_) => HostFact::ok(name, "available"),
    }
}

fn pidfds() -> HostFact {
    let own = rustix::process::getpid();
    match rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()) {
        Ok(_) => HostFact::ok("pidfds", "a recycled pid is never signalled"),
        Err(_) => HostFact::lacking(
            "pidfds",
            FactStatus::Missing,
            "processes that a killed supervisor left behind cannot be ended safely",
            "use Linux 5.3 or newer",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::find_gpus;
    use super::*;

    #[test]
    fn whatever_is_lacking_has_a_remedy() {
        let facts = facts(&find_gpus());
        assert!(facts.len() >= 10, "{facts:?}");
        for fact in facts {
            assert_eq!(fact.status == FactStatus::Ok, fact.remedy.is_none(), "{fact:?}");
            assert!(!fact.detail.is_empty(), "{fact:?}");
        }
    }
}
