//! Starts a shim and gives it its order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use glowplug_core::RunnerId;
use tokio::process::{Child, Command};

use super::{Inner, RunnerState, Slot, watch};
use crate::backend::{BackendError, Listen, RunnerAddress, RunnerSpec, Warm};
use crate::cgroup::Bounds;
use crate::container::oci::Family;
use crate::container::{ContainerSpec, Network, Runtime, SOCKET_DIR};
use crate::proc_table::ProcessMark;
use crate::protocol::{
    Identity, LaunchOrder, MARKER_VARIABLE, NAMESPACES_FILE, ORDER_BYTES_MAX, RECORD_FILE,
    RunnerRecord, SHIM_ERRORS_FILE, ToShim, encode, write_file,
};

pub(super) const APP_SOCKET: &str = "app.sock";
/// For handing the order to a shim that does not read it.
const ORDER_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A shim that has its order.
struct Launched {
    record: RunnerRecord,
    control: UnixStream,
    shim: Child,
}

impl Inner {
    /// Starts the runner whose lock this is.
    pub(super) async fn launch(
        self: &Arc<Self>,
        spec: RunnerSpec,
        lock: OwnedFd,
    ) -> Result<(), BackendError> {
        let (inner, id) = (Arc::clone(self), spec.id);
        // Making files and starting a process block for about a millisecond.
        let launching = tokio::task::spawn_blocking(move || inner.launch_blocking(&spec, lock));
        let launched =
            launching.await.map_err(|error| prepare_error(id, &error)).and_then(|result| result)?;
        let control = launched.control;
        let connection = control.set_nonblocking(true).and_then(|()| control.try_into());
        let connection = connection.map_err(|error| prepare_error(id, &error))?;
        let pid = launched.shim.id().and_then(|pid| i32::try_from(pid).ok());
        let mark = pid.and_then(ProcessMark::of);
        let shim = watch::reap(launched.shim);
        let (runner, watcher) =
            watch::Watcher::new(self, id, launched.record, RunnerState::Starting);
        self.runners().insert(id, Slot::Known(runner));
        tokio::spawn(watcher.run(connection, mark, Some(shim)));
        Ok(())
    }

    fn launch_blocking(&self, spec: &RunnerSpec, lock: OwnedFd) -> Result<Launched, BackendError> {
        let result = self.try_launch(spec, &lock);
        if result.is_err() {
            // Nothing was started, so nothing may stay. The error that matters is the first one.
            let _ = self.layout.remove(spec.id, lock);
        }
        result
    }

    fn try_launch(&self, spec: &RunnerSpec, lock: &OwnedFd) -> Result<Launched, BackendError> {
        let failed = |problem: &dyn std::fmt::Display| prepare_error(spec.id, problem);
        if let Some(container) = &spec.container {
            self.check_container(spec, container).map_err(|problem| failed(&problem))?;
        }
        if matches!(spec.warm, Warm::Enclosed { .. } | Warm::Snapshot { .. }) {
            self.layout.make_enclosed_socket_dir().map_err(|error| failed(&error))?;
        }
        let identity = spec.user.as_deref().map(super::identity::resolve).transpose();
        let identity = identity.map_err(|problem| failed(&problem))?;
        let dir = self.layout.create(spec.id).map_err(|error| failed(&error))?;
        let owner = identity.as_ref().map(|identity| (identity.uid, identity.gid));
        let address = self.address(spec, owner).map_err(|error| failed(&error))?;
        let record = self.record(spec, address);
        write_file(&dir, RECORD_FILE, &record).map_err(|error| failed(&error))?;
        let order = encode(&ToShim::Launch(Box::new(self.order(spec, &record, identity))));
        let order = order.map_err(|error| failed(&error))?;
        if order.len() > ORDER_BYTES_MAX {
            return Err(failed(&format!(
                "its command and environment are longer than {ORDER_BYTES_MAX} bytes"
            )));
        }

        let (mut control, theirs) = UnixStream::pair().map_err(|error| failed(&error))?;
        let errors = File::create(dir.join(SHIM_ERRORS_FILE)).map_err(|error| failed(&error))?;
        let lock = lock.try_clone().map_err(|error| failed(&error))?;
        #[expect(clippy::disallowed_methods, reason = "the watcher is the owner of this child")]
        let mut command = Command::new(&self.options.shim.program);
        command
            .args(&self.options.shim.args)
            .arg(&dir)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::from(lock))
            .stderr(errors);
        if spec.container.is_some() {
            // The first process of a container is a copy of the shim: nothing of the node's is to be in it.
            command.env_clear();
        }
        let shim = command.spawn().map_err(|error| {
            failed(&format!("{} cannot be run: {error}", self.options.shim.program.display()))
        })?;
        // A shim that ends before it has read the order is found out by its watcher.
        let sent =
            control.set_write_timeout(Some(ORDER_TIMEOUT)).and_then(|()| control.write_all(&order));
        if let Err(error) = sent {
            tracing::warn!(runner = %spec.id, %error, "the shim does not take its order");
        }
        Ok(Launched { record, control, shim })
    }

    fn check_container(&self, spec: &RunnerSpec, container: &ContainerSpec) -> Result<(), String> {
        let possible = self.containers.get_or_init(crate::host::containers);
        possible.clone().map_err(|problem| format!("containers cannot run here: {problem}"))?;
        if container.root.lower.is_empty() {
            return Err("its container has no files: name at least one directory".to_owned());
        }
        if let Runtime::Oci(program) = &container.runtime {
            crate::host::runtime(&program.display().to_string())?;
            if Family::of(program).stays() && spec.listen == Listen::UnixSocket {
                return Err(format!(
                    "programs that {} runs have no sockets that can be reached from outside: listen on a \
                     port",
                    program.display()
                ));
            }
        }
        match &spec.user {
            Some(user) => Err(format!("user `{user}` is the host's: name the container's own")),
            None => Ok(()),
        }
    }

    fn address(
        &self,
        spec: &RunnerSpec,
        owner: Option<(u32, u32)>,
    ) -> std::io::Result<RunnerAddress> {
        match spec.listen {
            Listen::Port => match &spec.container {
                Some(container) if container.network == Network::None => {
                    let namespaces = self.layout.dir(spec.id).join(NAMESPACES_FILE);
                    Ok(RunnerAddress::InNamespace { namespaces, port: container.port })
                }
                _ => self.ports.pick().map(RunnerAddress::Tcp),
            },
            Listen::UnixSocket if spec.container.is_some() => {
                let namespaces = self.layout.dir(spec.id).join(NAMESPACES_FILE);
                let path = Path::new(SOCKET_DIR).join(APP_SOCKET);
                Ok(RunnerAddress::UnixInNamespace { namespaces, path })
            }
            Listen::UnixSocket => {
                let dir = self.layout.socket_dir(spec.id);
                std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
                if let Some((uid, gid)) = owner {
                    std::os::unix::fs::chown(&dir, Some(uid), Some(gid))?;
                }
                Ok(RunnerAddress::Unix(dir.join(APP_SOCKET)))
            }
        }
    }

    fn record(&self, spec: &RunnerSpec, address: RunnerAddress) -> RunnerRecord {
        let started_at_micros = self.now().as_micros();
        let name = self.layout.unique_name(spec.id);
        // Which devices does not matter here: what counts is that there is a group for them.
        let devices = spec.container.is_some().then(Vec::new);
        let bounds = Bounds { limits: spec.limits, devices };
        RunnerRecord {
            app: spec.app.clone(),
            revision: spec.revision,
            labels: spec.labels.clone(),
            started_at_micros,
            health_path: spec.health_path.clone(),
            marker: format!("{name}-{started_at_micros}"),
            cgroups: self.groups_of(spec, &name, &bounds),
            control_path: self.layout.control(spec.id),
            socket_dir: match &address {
                RunnerAddress::Unix(_) => Some(self.layout.socket_dir(spec.id)),
                _ => None,
            },
            address,
        }
    }

    /// All that may have to be removed.
    fn groups_of(&self, spec: &RunnerSpec, name: &str, bounds: &Bounds) -> Vec<PathBuf> {
        let mut groups = self.cgroups.dirs(name, bounds);
        let container = spec.container.as_ref();
        if container.is_some_and(|container| container.runtime != Runtime::Native) {
            groups.extend(self.cgroups.runtime_dirs(name));
        }
        groups
    }

    fn order(
        &self,
        spec: &RunnerSpec,
        record: &RunnerRecord,
        identity: Option<Identity>,
    ) -> LaunchOrder {
        LaunchOrder {
            argv: arguments(&spec.argv, &address_variable(&record.address)),
            cwd: spec.cwd.clone(),
            env: environment(spec, record, identity.as_ref()),
            identity,
            container: spec.container.clone(),
            warm: spec.warm.clone(),
            limits: spec.limits,
            cgroups: self.cgroups.clone(),
            cgroup_name: self.layout.unique_name(spec.id),
            grace: spec.grace,
            orphan_timeout: spec.orphan_timeout,
            log_caps: self.options.log_caps,
            control_path: record.control_path.clone(),
            socket_dir: record.socket_dir.clone(),
            enclosed_socket_dir: self.layout.enclosed_socket_dir(),
        }
    }
}

fn prepare_error(runner: RunnerId, problem: &dyn std::fmt::Display) -> BackendError {
    BackendError::Prepare { runner, problem: problem.to_string() }
}

/// The variable that tells the program where to listen, and its value.
fn address_variable(address: &RunnerAddress) -> (&'static str, String) {
    match address {
        RunnerAddress::Tcp(address) => ("PORT", address.port().to_string()),
        RunnerAddress::InNamespace { port, .. } => ("PORT", port.to_string()),
        RunnerAddress::Unix(path) | RunnerAddress::UnixInNamespace { path, .. } => {
            ("GLOWPLUG_SOCKET", path.display().to_string())
        }
    }
}

fn arguments(argv: &[String], (name, value): &(&'static str, String)) -> Vec<String> {
    let fill = |argument: &String| {
        argument.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value)
    };
    argv.iter().map(fill).collect()
}

/// A minimal environment, then the app's own, then what no app may change.
fn environment(
    spec: &RunnerSpec,
    record: &RunnerRecord,
    identity: Option<&Identity>,
) -> BTreeMap<String, String> {
    let mut env = match spec.container {
        // Its home is found out with its user, in the container's own files.
        Some(_) => BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]),
        None => host_environment(spec, identity),
    };
    env.extend(spec.env.clone());
    let (name, value) = address_variable(&record.address);
    env.insert(name.to_owned(), value);
    if spec.listen == Listen::Port {
        env.insert("HOST".to_owned(), "127.0.0.1".to_owned());
    }
    // In a container the devices it is given are all it can see, and they are counted anew.
    if spec.container.is_none() || spec.gpus.is_empty() {
        let gpus: Vec<String> = spec.gpus.iter().map(u32::to_string).collect();
        env.insert("CUDA_VISIBLE_DEVICES".to_owned(), gpus.join(","));
    }
    env.insert(MARKER_VARIABLE.to_owned(), record.marker.clone());
    env
}

/// Of the node's own environment, what programs of this host need.
fn host_environment(spec: &RunnerSpec, identity: Option<&Identity>) -> BTreeMap<String, String> {
    let inherited = |name: &str, default: &str| {
        (name.to_owned(), std::env::var(name).unwrap_or_else(|_| default.to_owned()))
    };
    let home = match identity {
        Some(_) => spec.cwd.clone(),
        None => std::env::var_os("HOME").map_or_else(|| spec.cwd.clone(), PathBuf::from),
    };
    BTreeMap::from([
        inherited("PATH", DEFAULT_PATH),
        inherited("LANG", "C.UTF-8"),
        inherited("TMPDIR", "/tmp"),
        ("HOME".to_owned(), home.display().to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_filled_in_wherever_it_is_named() {
        let argv = ["x", "--port", "$PORT", "http://h:${PORT}/", "$HOME"].map(str::to_owned);
        let port = ("PORT", "8000".to_owned());
        assert_eq!(arguments(&argv, &port), ["x", "--port", "8000", "http://h:8000/", "$HOME"]);
        let socket = ("GLOWPLUG_SOCKET", "/s/app.sock".to_owned());
        let argv = ["--uds", "$GLOWPLUG_SOCKET"].map(str::to_owned);
        assert_eq!(arguments(&argv, &socket), ["--uds", "/s/app.sock"]);
    }
}
