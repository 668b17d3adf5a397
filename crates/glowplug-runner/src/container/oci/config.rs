//! A container in the words of the OCI's runtime specification.
//!
//! Limits on memory, processors and processes are not among them: the shim has set them on the groups that
//! the runtime is told to use, in the way that fits the host.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::thread::CapabilitySet;
use serde_json::{Value, json};

use super::super::devices::{self, DeviceNode};
use super::super::mounts::{MASKED, READ_ONLY, files};
use super::super::spec::{ContainerSpec, Network, SystemCalls, Writes};
use super::super::{Capabilities, ResolvedUser, SOCKET_DIR};
use super::{Family, bundle, profile};

/// Of the specification that this follows; runtimes refuse what is younger than they are.
const VERSION: &str = "1.0.2";
const SOCKET_DIR_OPTIONS: [&str; 5] = ["nosuid", "nodev", "noexec", "mode=0700", "size=65536"];

/// All that the description of a container is made of.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) spec: &'a ContainerSpec,
    pub(crate) family: Family,
    pub(crate) argv: &'a [String],
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) working_dir: &'a Path,
    pub(crate) user: &'a ResolvedUser,
    pub(crate) capabilities: Capabilities,
    /// The container's first process, by the host's number.
    pub(crate) init: i32,
    pub(crate) scaffold: &'a Path,
    /// Names without `RLIMIT_`, soft and hard.
    pub(crate) rlimits: &'a [(&'static str, u64, u64)],
    pub(crate) groups_path: &'a str,
}

impl Terms<'_> {
    pub(crate) fn config(&self) -> Result<Value, String> {
        let root = self.scaffold.join("root");
        let root =
            json!({ "path": text(&root)?, "readonly": self.spec.root.writes == Writes::Refused });
        let mut linux = json!({
            "namespaces": self.namespaces(),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        });
        let nodes = devices::look_up(&self.spec.devices)?;
        linux["devices"] = nodes.iter().map(device).collect();
        if self.family == Family::Common {
            linux["cgroupsPath"] = json!(self.groups_path);
            linux["resources"] = json!({ "devices": rules(&nodes) });
        }
        if self.spec.system_calls == SystemCalls::Filtered {
            linux["seccomp"] = profile::profile();
        }
        let mut config = json!({
            "ociVersion": VERSION,
            "hostname": self.spec.hostname,
            "root": root,
            "process": self.process()?,
            "mounts": self.mounts()?,
            "linux": linux,
        });
        if !self.spec.hooks.is_empty() {
            config["hooks"] = self.hooks()?;
        }
        Ok(config)
    }

    fn hooks(&self) -> Result<Value, String> {
        let mut hooks = json!({});
        for hook in &self.spec.hooks {
            let stage = serde_json::to_value(hook.stage).map_err(|error| error.to_string())?;
            let name = stage.as_str().unwrap_or_default();
            if hooks[name].is_null() {
                hooks[name] = json!([]);
            }
            if let Some(of_stage) = hooks[name].as_array_mut() {
                of_stage.push(json!({ "path": hook.path, "args": hook.args, "env": hook.env }));
            }
        }
        Ok(hooks)
    }

    fn process(&self) -> Result<Value, String> {
        let home = ("HOME", &*self.user.home);
        let own = self.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let env: BTreeMap<&str, &str> = std::iter::once(home).chain(own).collect();
        let env: Vec<String> =
            env.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let limit = |(name, soft, hard): &(&str, u64, u64)| json!({ "type": format!("RLIMIT_{name}"), "soft": soft, "hard": hard });
        let identity = &self.user.identity;
        let bounding = names(self.capabilities);
        // As natively: root alone has any.
        let held = if identity.uid == 0 { bounding.clone() } else { Vec::new() };
        Ok(json!({
            "terminal": false,
            "args": self.argv,
            "cwd": text(self.working_dir)?,
            "env": env,
            "user": {
                "uid": identity.uid,
                "gid": identity.gid,
                "additionalGids": identity.groups,
                "umask": 0o022,
            },
            "capabilities": { "bounding": bounding, "effective": held, "permitted": held },
            "rlimits": self.rlimits.iter().map(limit).collect::<Vec<_>>(),
            "noNewPrivileges": true,
        }))
    }

    fn namespaces(&self) -> Value {
        let of_init = |kind: &str| format!("/proc/{}/ns/{kind}", self.init);
        let mut all =
            ["mount", "ipc", "uts", "cgroup"].map(|kind| json!({ "type": kind })).to_vec();
        all.push(if self.family.stays() {
            json!({ "type": "pid" })
        } else {
            json!({ "type": "pid", "path": of_init("pid") })
        });
        if self.spec.network == Network::None {
            all.push(json!({ "type": "network", "path": of_init("net") }));
        }
        Value::Array(all)
    }

    fn mounts(&self) -> Result<Value, String> {
        let shared = self.spec.shared_memory_bytes;
        let mut all = vec![
            place("proc", "/proc", &["nosuid", "nodev", "noexec"]),
            place("sysfs", "/sys", &["nosuid", "nodev", "noexec", "ro"]),
            place("tmpfs", "/dev", &["nosuid", "noexec", "strictatime", "mode=0755", "size=65536"]),
            place(
                "devpts",
                "/dev/pts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            memory("/dev/shm", shared, "noexec"),
            place("mqueue", "/dev/mqueue", &["nosuid", "nodev", "noexec"]),
        ];
        for scratch in &self.spec.scratch {
            all.push(memory(text(&scratch.target)?, scratch.bytes, "exec"));
        }
        let (uid, gid) = (self.user.identity.uid, self.user.identity.gid);
        let owner = [format!("uid={uid}"), format!("gid={gid}")];
        let options = SOCKET_DIR_OPTIONS.into_iter().chain(owner.iter().map(String::as_str));
        all.push(place("tmpfs", SOCKET_DIR, &options.collect::<Vec<_>>()));
        for (number, bind) in self.spec.binds.iter().enumerate() {
            let source = bundle::bind_place(self.scaffold, number);
            // Held by what is bound already, all that is mounted below it included; some runtimes take from
            // the uppermost what they are not told of.
            let mut options = vec!["rbind", "nosuid", "nodev"];
            if bind.writes == Writes::Refused {
                options.push("ro");
            }
            all.push(json!({
                "destination": text(&bind.target)?,
                "type": "bind",
                "source": text(&source)?,
                "options": options,
            }));
        }
        if let Some(secrets) = &self.spec.secrets {
            all.push(json!({
                "destination": text(&secrets.dir)?,
                "type": "bind",
                "source": text(&bundle::secrets_place(self.scaffold))?,
                "options": ["bind", "ro", "nosuid", "nodev", "noexec"],
            }));
        }
        Ok(Value::Array(all))
    }
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| {
        format!("{} is no name that an OCI runtime can be told: use UTF-8", path.display())
    })
}

fn place(kind: &str, target: &str, options: &[&str]) -> Value {
    json!({ "destination": target, "type": kind, "source": kind, "options": options })
}

fn memory(target: &str, bytes: u64, exec: &str) -> Value {
    let (size, count) = (format!("size={bytes}"), format!("nr_inodes={}", files(bytes)));
    place("tmpfs", target, &["nosuid", "nodev", exec, "mode=1777", &size, &count])
}

fn names(capabilities: Capabilities) -> Vec<String> {
    let set = CapabilitySet::from_bits_truncate(capabilities.bits());
    set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}

fn kind(node: &DeviceNode) -> &'static str {
    if node.kind == rustix::fs::FileType::BlockDevice { "b" } else { "c" }
}

fn device(node: &DeviceNode) -> Value {
    json!({
        "path": node.path,
        "type": kind(node),
        "major": rustix::fs::major(node.device),
        "minor": rustix::fs::minor(node.device),
        "fileMode": node.mode.bits(),
        "uid": node.uid,
        "gid": node.gid,
    })
}

fn rules(nodes: &[DeviceNode]) -> Vec<Value> {
    let allow = |node: &DeviceNode| {
        json!({
            "allow": true,
            "type": kind(node),
            "major": rustix::fs::major(node.device),
            "minor": rustix::fs::minor(node.device),
            "access": "rwm",
        })
    };
    std::iter::once(json!({ "allow": false, "access": "rwm" }))
        .chain(nodes.iter().map(allow))
        .collect()
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Spec;

    use super::*;
    use crate::container::Bind;
    use crate::protocol::Identity;

    fn described(change: impl FnOnce(&mut ContainerSpec), uid: u32, family: Family) -> Spec {
        let mut spec = ContainerSpec::new(vec!["/image".into()]);
        change(&mut spec);
        let identity = Identity { uid, gid: 7, groups: vec![7, 44] };
        let user = ResolvedUser { identity, home: "/home/x".to_owned() };
        let env = BTreeMap::from([("A".to_owned(), "b=c".to_owned())]);
        let terms = Terms {
            spec: &spec,
            family,
            argv: &["/serve".to_owned()],
            env: &env,
            working_dir: Path::new("/work"),
            user: &user,
            capabilities: spec.capabilities,
            init: 42,
            scaffold: Path::new("/runners/r1"),
            rlimits: &[("NOFILE", 10, 20)],
            groups_path: "group",
        };
        serde_json::from_value(terms.config().unwrap())
            .expect("the specification's own types read it")
    }

    #[test]
    fn it_says_what_the_specification_has_words_for() {
        let spec = described(|_| (), 1000, Family::Common);
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.env().as_ref().unwrap(), &["A=b=c", "HOME=/home/x"]);
        assert_eq!(process.user().additional_gids().as_ref().unwrap(), &[7, 44]);
        let capabilities = process.capabilities().as_ref().unwrap();
        assert!(capabilities.effective().as_ref().unwrap().is_empty(), "not root");
        assert_eq!(capabilities.bounding().as_ref().unwrap().len(), 9);
        assert_eq!(process.no_new_privileges(), Some(true));
        let linux = spec.linux().as_ref().unwrap();
        let joined = linux.namespaces().as_ref().unwrap().iter().filter(|it| it.path().is_some());
        let joined: Vec<_> = joined.filter_map(|it| it.path().as_ref()?.to_str()).collect();
        assert_eq!(joined, ["/proc/42/ns/pid", "/proc/42/ns/net"]);
        assert!(linux.seccomp().is_some());
        assert_eq!(spec.root().as_ref().unwrap().readonly(), Some(false));
    }

    #[test]
    fn a_kernel_of_its_own_has_pids_of_its_own() {
        let spec = described(|spec| spec.network = Network::Host, 0, Family::Runsc);
        let linux = spec.linux().as_ref().unwrap();
        let joined = linux.namespaces().as_ref().unwrap().iter().filter(|it| it.path().is_some());
        assert_eq!(joined.count(), 0);
        assert!(linux.cgroups_path().is_none(), "the groups are the shim's");
    }

    #[test]
    fn binds_come_with_their_limits_and_last() {
        let bind = Bind { source: "/a".into(), target: "/b".into(), writes: Writes::Refused };
        let spec = described(|spec| spec.binds.push(bind), 0, Family::Common);
        let last = spec.mounts().as_ref().unwrap().last().unwrap();
        assert_eq!(last.destination(), Path::new("/b"));
        assert_eq!(last.source().as_deref(), Some(Path::new("/runners/r1/bundle/bind-0")));
        assert_eq!(last.options().as_ref().unwrap(), &["rbind", "nosuid", "nodev", "ro"]);
    }
}
