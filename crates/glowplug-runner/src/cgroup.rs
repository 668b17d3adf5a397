//! Control groups: where a runner's limits can be set on this host, and the groups of one runner.
//!
//! Both layouts are known, also side by side: version 1, with one hierarchy per controller, and version
//! 2. A controller that is missing or not writable means no limit of that kind, with a note for the
//! runner's log; nothing fails for it. Groups are made below the group that the node itself is in, so
//! limits on the node hold for its runners too.

mod freezer;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, Mode, OFlags};
use serde::{Deserialize, Serialize};

use self::freezer::Freezer;
use crate::backend::Limits;
use crate::proc_table::{group_members, kill_if};

/// The controllers that limits are made of.
pub(crate) const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// The span over which the CPU limit is enforced.
const CPU_PERIOD_MICROS: u64 = 100_000;

/// Where runtimes expect version 2.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// A program that starts processes faster than they can be moved is given up on after this many rounds.
/// What it left outside is still found at its end.
const GATHER_ROUNDS_MAX: u32 = 16;

/// Where groups can be made on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CgroupPlan {
    /// The version 2 group to make groups in, writable, and the controllers that it passes on.
    pub(crate) unified: Option<Unified>,
    /// Version 1: controller and the group to make groups in.
    pub(crate) legacy: Vec<(String, PathBuf)>,
    /// Version 1: where the devices of a group can be limited. Version 2 has no file for that.
    pub(crate) devices: Option<PathBuf>,
    /// Version 1: where a group can be frozen. Of use where there is no version 2.
    pub(crate) freezer: Option<PathBuf>,
    /// Version 1: the groups below which an OCI runtime makes one in each hierarchy, wanted or not.
    pub(crate) all_legacy: Vec<PathBuf>,
}

/// What a runner's groups are to hold it to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) limits: Limits,
    /// The devices it may use, in the kernel's words. `None`: all.
    pub(crate) devices: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unified {
    pub(crate) base: PathBuf,
    pub(crate) controllers: Vec<String>,
}

impl CgroupPlan {
    /// What this process may use.
    pub(crate) fn discover() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut plan = Self::default();
        for hierarchy in parse_hierarchies(&mounts, &own) {
            if hierarchy.controllers.is_empty() {
                plan.unified = usable_unified(&hierarchy);
            } else if is_writable(&hierarchy.own) {
                plan.all_legacy.push(hierarchy.own.clone());
                let wanted = hierarchy.controllers.iter().filter(|c| CONTROLLERS.contains(&&***c));
                plan.legacy.extend(wanted.map(|c| (c.clone(), hierarchy.own.clone())));
                let has = |name: &str| hierarchy.controllers.iter().any(|known| known == name);
                if has("devices") {
                    plan.devices = Some(hierarchy.own.clone());
                }
                if has("freezer") {
                    plan.freezer = Some(hierarchy.own.clone());
                }
            }
        }
        plan
    }

    /// The groups that a runner with these bounds gets.
    pub(crate) fn dirs(&self, name: &str, bounds: &Bounds) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = Vec::new();
        if let Some(unified) = &self.unified {
            dirs.push(unified.base.join(name));
        }
        for (controller, base) in &self.legacy {
            let dir = base.join(name);
            if wanted(&bounds.limits, controller).is_some() && !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
        if let Some(dir) = self.devices_dir(name).filter(|_| bounds.devices.is_some())
            && !dirs.contains(&dir)
        {
            dirs.push(dir);
        }
        if self.unified.is_none()
            && let Some(freezer) = &self.freezer
            && !dirs.contains(&freezer.join(name))
        {
            dirs.push(freezer.join(name));
        }
        dirs
    }

    /// The groups that an OCI runtime may make or use for this runner.
    pub(crate) fn runtime_dirs(&self, name: &str) -> Vec<PathBuf> {
        self.all_legacy.iter().map(|base| base.join(name)).collect()
    }

    /// The runner's groups as an OCI runtime is told them: below its own in version 1, where each hierarchy
    /// may have it elsewhere; by the full path in version 2, where its own group cannot hold others.
    pub(crate) fn runtime_path(&self, name: &str) -> String {
        let unified = self.unified.as_ref().filter(|unified| !unified.controllers.is_empty());
        let below = unified.and_then(|unified| unified.base.strip_prefix(CGROUP_ROOT).ok());
        below.map_or_else(|| name.to_owned(), |below| format!("/{}", below.join(name).display()))
    }

    fn devices_dir(&self, name: &str) -> Option<PathBuf> {
        self.devices.as_ref().map(|base| base.join(name))
    }

    /// Where the limit of this controller goes.
    pub(crate) fn home(&self, controller: &str) -> Option<Home<'_>> {
        let unified =
            self.unified.as_ref().filter(|u| u.controllers.iter().any(|c| c == controller));
        if let Some(unified) = unified {
            return Some(Home { base: &unified.base, is_unified: true });
        }
        let legacy = self.legacy.iter().find(|(name, _)| name == controller);
        legacy.map(|(_, base)| Home { base, is_unified: false })
    }
}

pub(crate) struct Home<'a> {
    pub(crate) base: &'a Path,
    pub(crate) is_unified: bool,
}

fn wanted(limits: &Limits, controller: &str) -> Option<u64> {
    match controller {
        "cpu" => limits.cpu_millis,
        "memory" => limits.memory_bytes,
        "pids" => limits.pids_max,
        _ => None,
    }
}

/// One mounted hierarchy and the group of this process in it. Version 2 has no controllers here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) controllers: Vec<String>,
    pub(crate) mount: PathBuf,
    pub(crate) own: PathBuf,
}

/// From the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub(crate) fn parse_hierarchies(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let own_path = |controller: Option<&str>| {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next()?, fields.next()?);
            let is_this = match controller {
                None => names.is_empty(),
                Some(controller) => names.split(',').any(|name| name == controller),
            };
            is_this.then_some(path)
        })
    };
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, mount) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let kind = right.next()?;
        let options = right.nth(1)?;
        let controllers: Vec<String> = match kind {
            "cgroup2" => Vec::new(),
            "cgroup" => options
                .split(',')
                .filter(|option| is_controller(option))
                .map(str::to_owned)
                .collect(),
            _ => return None,
        };
        if kind == "cgroup" && controllers.is_empty() {
            return None;
        }
        let path = own_path(controllers.first().map(String::as_str))?;
        // In a container the mount shows a part of the hierarchy only.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        let mount = PathBuf::from(mount);
        let own = mount.join(below);
        Some(Hierarchy { controllers, mount, own })
    };
    mounts.lines().filter_map(parse).collect()
}

/// Of the options of a mount; a hierarchy without controllers has a name instead.
fn is_controller(option: &str) -> bool {
    let is_flag = matches!(option, "rw" | "ro" | "xattr" | "noprefix" | "clone_children");
    !is_flag && (!option.contains('=') || option.starts_with("name="))
}

/// The group of this process, or else its parent (where a service manager delegates a subtree and starts
/// the service in a group below): a group with processes in it cannot pass on controllers.
fn usable_unified(hierarchy: &Hierarchy) -> Option<Unified> {
    let parent = (hierarchy.own != hierarchy.mount).then(|| hierarchy.own.parent()).flatten();
    for base in [Some(hierarchy.own.as_path()), parent].into_iter().flatten() {
        let controllers = if is_writable(base) { pass_on(base) } else { Vec::new() };
        if !controllers.is_empty() {
            return Some(Unified { base: base.to_owned(), controllers });
        }
    }
    // Without controllers a group still holds a runner's processes together.
    is_writable(&hierarchy.own)
        .then(|| Unified { base: hierarchy.own.clone(), controllers: Vec::new() })
}

/// Asks the group to pass on the controllers; returns those that it does.
fn pass_on(base: &Path) -> Vec<String> {
    let file = base.join("cgroup.subtree_control");
    for controller in CONTROLLERS {
        // A controller that is not there, or a group with processes, refuses: read back below.
        let _ = fs::write(&file, format!("+{controller}"));
    }
    let enabled = fs::read_to_string(&file).unwrap_or_default();
    let enabled = enabled.split_ascii_whitespace().filter(|name| CONTROLLERS.contains(name));
    enabled.map(str::to_owned).collect()
}

pub(crate) fn is_writable(dir: &Path) -> bool {
    rustix::fs::access(dir, Access::WRITE_OK).is_ok()
}

/// The groups of one runner, made.
#[derive(Debug, Default)]
pub(crate) struct RunnerGroups {
    dirs: Vec<PathBuf>,
    /// Open `cgroup.procs` files.
    entrances: Vec<OwnedFd>,
    /// Open `tasks` files, which only version 1 has.
    doors: Vec<OwnedFd>,
    memory: Option<PathBuf>,
    /// Made by others for this runner.
    others: Vec<PathBuf>,
}

impl RunnerGroups {
    /// Makes the groups and sets the limits; tells what could not be done, for the runner's log.
    pub(crate) fn create(plan: &CgroupPlan, name: &str, bounds: &Bounds) -> (Self, Vec<String>) {
        let mut groups = Self::default();
        let mut notes = Vec::new();
        for dir in plan.dirs(name, bounds) {
            match make(&dir) {
                Ok(entrance) => {
                    groups.entrances.push(entrance);
                    groups.doors.extend(open_to_write(&dir.join("tasks")).ok());
                    groups.dirs.push(dir);
                }
                Err(error) => notes.push(format!("cannot make group {}: {error}", dir.display())),
            }
        }
        for controller in CONTROLLERS {
            let Some(limit) = wanted(&bounds.limits, controller) else { continue };
            let Some(home) = plan.home(controller) else {
                notes.push(format!("no {controller} limit: this host has no {controller} group"));
                continue;
            };
            let dir = home.base.join(name);
            if let Err(error) = set_limit(&dir, home.is_unified, controller, limit) {
                notes.push(format!("no {controller} limit: {error}"));
            } else if controller == "memory" {
                groups.memory = Some(dir);
            }
        }
        // Without this controller the missing right to make nodes is what keeps devices away.
        if let (Some(devices), Some(dir)) = (&bounds.devices, plan.devices_dir(name))
            && let Err(error) = allow_devices(&dir, devices)
        {
            notes.push(format!("no limit on devices: {error}"));
        }
        (groups, notes)
    }

    /// Doors through which a process can [`go_through`] by itself.
    pub(crate) fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        self.doors.iter().map(OwnedFd::try_clone).collect()
    }

    /// Moves a program that has just been started into the groups that it has not gone into by itself, with
    /// what it has started since.
    ///
    /// Moving another process takes the kernel about 10 ms (it waits for every processor to pass a quiet
    /// point), which is longer than many a start. So the program does not wait for it: it runs while it is
    /// moved, and its limits hold from then on. `family` tells the processes that belong to it now.
    pub(crate) fn gather(&self, family: impl Fn() -> Vec<i32>) {
        for (dir, entrance) in self.dirs.iter().zip(&self.entrances) {
            for _ in 0..GATHER_ROUNDS_MAX {
                let inside = group_members(dir);
                let mut outside = family();
                outside.retain(|pid| !inside.contains(pid));
                if outside.is_empty() {
                    break;
                }
                for pid in outside {
                    // One that has ended meanwhile needs no limits.
                    let _ = rustix::io::write(entrance, pid.to_string().as_bytes());
                }
            }
        }
    }

    /// Whether there is any group at all.
    pub(crate) fn exist(&self) -> bool {
        !self.dirs.is_empty()
    }

    /// Whether this process is in all of them.
    pub(crate) fn hold(&self, pid: i32) -> bool {
        self.dirs.iter().all(|dir| group_members(dir).contains(&pid))
    }

    /// Whether no process is in any of them.
    pub(crate) fn are_empty(&self) -> bool {
        self.dirs.iter().all(|dir| group_members(dir).is_empty())
    }

    /// How many of the runner's processes the kernel has killed for want of memory.
    pub(crate) fn memory_kills(&self) -> u64 {
        let Some(dir) = &self.memory else { return 0 };
        let events = ["memory.events", "memory.oom_control"]
            .iter()
            .find_map(|file| fs::read_to_string(dir.join(file)).ok())
            .unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// Takes the processor from all that is inside, and what memory can be had. Returns what they hold on to.
    pub(crate) fn freeze(&self) -> Result<u64, String> {
        let freezer = Freezer::among(&self.dirs)
            .ok_or("this host has no control groups that can be frozen")?;
        freezer.freeze().map_err(|error| format!("its control group does not freeze: {error}"))?;
        if let Some(memory) = &self.memory {
            freezer::reclaim(memory);
        }
        Ok(freezer.held_bytes())
    }

    pub(crate) fn thaw(&self) -> io::Result<()> {
        Freezer::among(&self.dirs).map_or(Ok(()), |freezer| freezer.thaw())
    }

    pub(crate) fn kill(&self) {
        kill_groups(&self.dirs);
    }

    pub(crate) fn remove(&self) -> bool {
        remove_groups(&self.dirs) && remove_groups(&self.others)
    }

    /// To be removed with the rest, where they are made at all.
    pub(crate) fn expect_others(&mut self, dirs: Vec<PathBuf>) {
        self.others = dirs;
    }
}

/// Moves this process, which must have one thread, into groups of version 1. Makes system calls only.
///
/// A thread that moves itself, unlike one that is moved, keeps nobody waiting: this takes microseconds, and a
/// program that goes in before it starts is limited from its first instruction on.
pub(crate) fn go_through(doors: &[OwnedFd]) {
    for door in doors {
        // Whoever stays outside is moved later.
        let _ = rustix::io::write(door, b"0");
    }
}

fn open_to_write(file: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn make(dir: &Path) -> io::Result<OwnedFd> {
    match fs::create_dir(dir) {
        // Left by a runner of the same id: its counters must not be taken for this one's.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            kill_groups(std::slice::from_ref(&dir.to_owned()));
            fs::remove_dir(dir)?;
            fs::create_dir(dir)?;
        }
        other => other?,
    }
    open_to_write(&dir.join("cgroup.procs"))
}

fn set_limit(dir: &Path, is_unified: bool, controller: &str, limit: u64) -> io::Result<()> {
    let write = |file: &str, value: String| fs::write(dir.join(file), value);
    let quota = limit.saturating_mul(CPU_PERIOD_MICROS) / 1_000;
    match (controller, is_unified) {
        ("cpu", true) => write("cpu.max", format!("{quota} {CPU_PERIOD_MICROS}")),
        ("cpu", false) => {
            write("cpu.cfs_period_us", CPU_PERIOD_MICROS.to_string())?;
            write("cpu.cfs_quota_us", quota.to_string())
        }
        ("memory", true) => {
            // Hosts without swap accounting have no such files; the limit itself must be there.
            let _ = write("memory.swap.max", "0".to_owned());
            let _ = write("memory.oom.group", "1".to_owned());
            write("memory.max", limit.to_string())
        }
        ("memory", false) => {
            write("memory.limit_in_bytes", limit.to_string())?;
            let _ = write("memory.memsw.limit_in_bytes", limit.to_string());
            Ok(())
        }
        _ => write("pids.max", limit.to_string()),
    }
}

fn allow_devices(dir: &Path, devices: &[String]) -> io::Result<()> {
    fs::write(dir.join("devices.deny"), "a")?;
    devices.iter().try_for_each(|device| fs::write(dir.join("devices.allow"), device))
}

/// SIGKILL to all that is in these groups.
pub(crate) fn kill_groups(dirs: &[PathBuf]) {
    for dir in dirs {
        if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
            continue;
        }
        for pid in group_members(dir) {
            kill_if(pid, || group_members(dir).contains(&pid));
        }
        freezer::let_go(dir);
    }
}

/// Removes empty groups. `false` if one is still in use.
pub(crate) fn remove_groups(dirs: &[PathBuf]) -> bool {
    let mut removed = true;
    for dir in dirs {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => removed = false,
            _ => {}
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_are_read() {
        let mounts = "\
24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw
25 24 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
26 24 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
27 24 0:25 /docker/abc /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory
28 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
";
        let own = "4:memory:/docker/abc/node\n3:cpu,cpuacct:/a\n1:name=systemd:/a\n0::/b\n";
        let found = parse_hierarchies(mounts, own);
        let dirs: Vec<&str> = found.iter().map(|h| h.own.to_str().unwrap()).collect();
        assert!(dirs.contains(&"/sys/fs/cgroup/cpu,cpuacct/a"), "{dirs:?}");
        assert!(dirs.contains(&"/sys/fs/cgroup/memory/node"), "{dirs:?}");
        assert!(dirs.contains(&"/sys/fs/cgroup/unified/b"), "{dirs:?}");
        assert!(found.iter().any(|h| h.controllers == ["cpu", "cpuacct"]));
        let named = found.iter().find(|h| h.controllers == ["name=systemd"]).unwrap();
        assert_eq!(named.own, Path::new("/sys/fs/cgroup/systemd/a"));
    }

    #[test]
    fn only_wanted_limits_make_version_1_groups() {
        let plan = CgroupPlan {
            unified: Some(Unified { base: "/u".into(), controllers: Vec::new() }),
            legacy: vec![("cpu".into(), "/c".into()), ("memory".into(), "/m".into())],
            devices: Some("/d".into()),
            ..CgroupPlan::default()
        };
        let paths = |bounds: &Bounds| {
            let dirs = plan.dirs("x", bounds);
            dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        let limits = Limits { memory_bytes: Some(1), ..Limits::default() };
        assert_eq!(paths(&Bounds { limits, devices: None }), "/u/x /m/x");
        assert_eq!(paths(&Bounds::default()), "/u/x");
        let devices = Some(Vec::new());
        assert_eq!(paths(&Bounds { devices, ..Bounds::default() }), "/u/x /d/x");
    }
}
