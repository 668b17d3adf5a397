//! GPUs for containers: what the specs of the Container Device Interface say of them, as NVIDIA's container
//! toolkit writes them, and else the device nodes alone.
//!
//! Specs are read at each start, so that a new driver counts from the next start on. Limits: `SPECS_MAX` files
//! of `SPEC_BYTES_MAX` each.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::backend::RunnerSpec;
use crate::container::{Bind, ContainerSpec, Hook, HookStage, Writes};

const KIND: &str = "nvidia.com/gpu";
/// A spec of a machine with many GPUs and partitions of them takes some hundred thousand bytes.
const SPEC_BYTES_MAX: u64 = 8 << 20;
const SPECS_MAX: usize = 64;
/// What every program that uses a GPU needs besides the GPU's own node.
const SHARED_NODES: [&str; 3] = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"];

/// Where to look.
#[derive(Clone, Debug)]
pub struct GpuPlaces {
    /// Of specs.
    pub specs: Vec<PathBuf>,
    pub devices: PathBuf,
}

impl Default for GpuPlaces {
    fn default() -> Self {
        Self {
            specs: ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from).to_vec(),
            devices: "/dev".into(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<DeviceNode>,
    mounts: Vec<Mount>,
    hooks: Vec<SpecHook>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceNode {
    path: PathBuf,
    host_path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: PathBuf,
    container_path: PathBuf,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecHook {
    hook_name: String,
    path: PathBuf,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
}

/// Lets a runner in a container use the GPUs that it is assigned. Of other runners nothing is changed.
pub fn give_gpus(runner: &mut RunnerSpec, places: &GpuPlaces) -> Result<(), String> {
    let Some(container) = &mut runner.container else { return Ok(()) };
    if runner.gpus.is_empty() {
        return Ok(());
    }
    let (specs, unread) = read_specs(&places.specs)?;
    if specs.is_empty() {
        return nodes_alone(container, &runner.gpus, places, unread.as_deref());
    }
    let mut edits: Vec<&Edits> = Vec::new();
    for gpu in &runner.gpus {
        let name = gpu.to_string();
        let found = specs.iter().find_map(|spec| {
            spec.devices.iter().find(|device| device.name == name).map(|device| (spec, device))
        });
        let (spec, device) = found.ok_or_else(|| unknown(&name, &specs))?;
        for wanted in [&spec.container_edits, &device.container_edits] {
            if !edits.iter().any(|there| std::ptr::eq(*there, wanted)) {
                edits.push(wanted);
            }
        }
    }
    for edit in edits {
        apply(container, edit)?;
        let pairs = edit.env.iter().filter_map(|pair| pair.split_once('='));
        for (name, value) in pairs {
            // What the app or its image says counts.
            runner.env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    Ok(())
}

fn unknown(name: &str, specs: &[Spec]) -> String {
    let names = specs.iter().flat_map(|spec| &spec.devices).map(|device| device.name.as_str());
    let names: Vec<&str> = names.collect();
    format!(
        "the specs of {KIND} have no device `{name}` (they have {}): write them anew with `nvidia-ctk cdi \
         generate --device-name-strategy=index`",
        names.join(", ")
    )
}

fn apply(container: &mut ContainerSpec, edit: &Edits) -> Result<(), String> {
    for node in &edit.device_nodes {
        if let Some(host) = node.host_path.as_ref().filter(|host| **host != node.path) {
            return Err(format!(
                "a spec of {KIND} wants {} of the host as {}: devices keep their names here",
                host.display(),
                node.path.display()
            ));
        }
        if !container.devices.contains(&node.path) {
            container.devices.push(node.path.clone());
        }
    }
    container.binds.extend(edit.mounts.iter().map(|mount| Bind {
        source: mount.host_path.clone(),
        target: mount.container_path.clone(),
        writes: if mount.options.iter().any(|option| option == "ro") {
            Writes::Refused
        } else {
            Writes::Kept
        },
    }));
    for hook in &edit.hooks {
        let stage = HookStage::parse(&hook.hook_name).ok_or_else(|| {
            format!("a spec of {KIND} has a hook for `{}`, which is not known", hook.hook_name)
        })?;
        container.hooks.push(Hook {
            stage,
            path: hook.path.clone(),
            args: hook.args.clone(),
            env: hook.env.clone(),
        });
    }
    Ok(())
}

/// The specs of GPUs, and a file that may be one but cannot be read here.
fn read_specs(dirs: &[PathBuf]) -> Result<(Vec<Spec>, Option<PathBuf>), String> {
    let entries = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort_unstable();
    let (mut specs, mut unread) = (Vec::new(), None);
    for file in files.into_iter().take(SPECS_MAX) {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("json") => specs.extend(read(&file)?),
            Some("yaml" | "yml") => unread = Some(file),
            _ => {}
        }
    }
    Ok((specs, unread))
}

/// `None`: it is of other devices.
fn read(file: &Path) -> Result<Option<Spec>, String> {
    let mut text = String::new();
    let opened = fs::File::open(file);
    let read = opened.and_then(|file| file.take(SPEC_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let spec: Spec = serde_json::from_str(&text)
        .map_err(|error| format!("{} is no spec of devices: {error}", file.display()))?;
    Ok((spec.kind == KIND).then_some(spec))
}

/// Images that bring the driver's libraries along need no more.
fn nodes_alone(
    container: &mut ContainerSpec,
    gpus: &[u32],
    places: &GpuPlaces,
    unread: Option<&Path>,
) -> Result<(), String> {
    let own = gpus.iter().map(|gpu| places.devices.join(format!("nvidia{gpu}")));
    let own: Vec<PathBuf> = own.collect();
    if let Some(missing) = own.iter().find(|node| !node.exists()) {
        let remedy = match unread {
            Some(file) => format!(
                "{} is YAML, which is not read: write it as JSON with `nvidia-ctk cdi generate --format=json`",
                file.display()
            ),
            None => {
                "install NVIDIA's container toolkit and run `nvidia-ctk cdi generate --format=json \
                     --output=/etc/cdi/nvidia.json`"
                    .to_owned()
            }
        };
        return Err(format!(
            "a GPU cannot be given to the container, as there is no {}: {remedy}",
            missing.display()
        ));
    }
    container.devices.extend(own);
    let shared = SHARED_NODES.map(|name| places.devices.join(name));
    container.devices.extend(shared.into_iter().filter(|node| node.exists()));
    Ok(())
}
