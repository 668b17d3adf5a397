//! Whether programs can be put into containers here, and if not, what is in the way.

use std::fs;
use std::path::Path;

use rustix::thread::CapabilitySet;

use super::facts::{FactStatus, HostFact};

/// Joining several namespaces at once, and limiting whole trees of mounts, are as old as this.
const KERNEL_MIN: (u32, u32) = (5, 12);
const NAMESPACES: [&str; 6] = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
const FILE_SYSTEMS: [&str; 3] = ["overlay", "proc", "tmpfs"];
/// Root's own rights that a container is made with. Root in somebody else's container lacks them.
const RIGHTS: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::MKNOD);

/// Something that is missing, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Obstacle {
    problem: String,
    remedy: &'static str,
}

/// `Err` says what is missing and what to do about it.
pub fn containers() -> Result<(), String> {
    match obstacle() {
        None => Ok(()),
        Some(Obstacle { problem, remedy }) => Err(format!("{problem}: {remedy}")),
    }
}

pub(super) fn fact() -> HostFact {
    let name = "containers";
    match obstacle() {
        None => HostFact::ok(name, "apps can run from images, each in namespaces of its own"),
        Some(Obstacle { problem, remedy }) => {
            HostFact::lacking(name, FactStatus::Missing, problem, remedy)
        }
    }
}

fn obstacle() -> Option<Obstacle> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let held = rustix::thread::capabilities(None).map(|sets| sets.effective);
    let release = rustix::system::uname();
    rights(rustix::process::geteuid().is_root(), held.unwrap_or(CapabilitySet::empty()))
        .or_else(|| kernel(&release.release().to_string_lossy()))
        .or_else(|| namespaces(Path::new("/proc/self/ns")))
        .or_else(|| file_systems(&read("/proc/filesystems")))
        .or_else(|| filters(&read("/proc/sys/kernel/seccomp/actions_avail")))
}

fn rights(is_root: bool, held: CapabilitySet) -> Option<Obstacle> {
    if !is_root {
        let problem = "the node does not run as root".to_owned();
        return Some(Obstacle { problem, remedy: "run it as root if apps are to run from images" });
    }
    let missing = RIGHTS.difference(held);
    (!missing.is_empty()).then(|| {
        let names: Vec<&str> = missing.iter_names().map(|(name, _)| name).collect();
        Obstacle {
            problem: format!("the node's root may not do everything ({})", names.join(", ")),
            remedy: "run the node on the host itself, or in a privileged container",
        }
    })
}

fn kernel(release: &str) -> Option<Obstacle> {
    let mut parts = release.split(|letter: char| !letter.is_ascii_digit());
    let mut next = || parts.next().and_then(|part| part.parse::<u32>().ok());
    let version = (next().unwrap_or(0), next().unwrap_or(0));
    (version < KERNEL_MIN).then(|| Obstacle {
        problem: format!("the kernel is Linux {release}"),
        remedy: "use Linux 5.12 or newer",
    })
}

fn namespaces(dir: &Path) -> Option<Obstacle> {
    let missing = NAMESPACES.into_iter().find(|name| !dir.join(name).exists())?;
    Some(Obstacle {
        problem: format!("the kernel has no `{missing}` namespaces"),
        remedy: "use a kernel that was built with all namespaces",
    })
}

/// From the text of `/proc/filesystems`. A kernel may still load what is not there yet, but only overlay
/// is ever left out of one.
fn file_systems(known: &str) -> Option<Obstacle> {
    let is_known = |name: &&str| known.lines().any(|line| line.split('\t').nth(1) == Some(name));
    let missing = FILE_SYSTEMS.into_iter().find(|name| !is_known(name))?;
    Some(Obstacle {
        problem: format!("the kernel has no `{missing}` file system"),
        remedy: "load it (`modprobe overlay`), or use a kernel that has it",
    })
}

fn filters(actions: &str) -> Option<Obstacle> {
    let knows = actions.split_ascii_whitespace().any(|action| action == "errno");
    (!knows).then(|| Obstacle {
        problem: "the kernel cannot filter system calls".to_owned(),
        remedy: "use a kernel that was built with CONFIG_SECCOMP_FILTER",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_is_named() {
        let problem =
            |obstacle: Option<Obstacle>| obstacle.map(|it| it.problem).unwrap_or_default();
        assert!(problem(rights(false, RIGHTS)).contains("root"));
        let less = RIGHTS.difference(CapabilitySet::SYS_ADMIN);
        assert!(problem(rights(true, less)).contains("SYS_ADMIN"));
        assert_eq!(rights(true, CapabilitySet::all()), None);
        assert!(problem(kernel("5.4.0-42-generic")).contains("5.4.0-42"));
        assert_eq!(kernel("5.12"), None);
        assert_eq!(kernel("6.1.0-13-amd64"), None);
        assert!(problem(file_systems("nodev\tproc\nnodev\ttmpfs\n\text4\n")).contains("overlay"));
        assert_eq!(file_systems("nodev\tproc\nnodev\ttmpfs\nnodev\toverlay\n"), None);
        assert!(problem(filters("kill_process trap\n")).contains("filter"));
        assert_eq!(filters("kill_process errno allow\n"), None);
        let empty = tempfile::tempdir().unwrap();
        assert!(problem(namespaces(empty.path())).contains("cgroup"));
        assert_eq!(namespaces(Path::new("/proc/self/ns")), None);
    }
}
