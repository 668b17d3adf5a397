//! Machine types: the ones built in, and the user's own.

use std::collections::BTreeMap;

use glowplug_core::resources::MachineType;

use super::document::Entry;
use super::layers::{Layers, Values, table};
use super::setting::Section;

/// The machine type of apps that name none, unless `default_machine` says otherwise. Small, so that a few
/// such apps fit any machine, and only set aside, so that none of them is held to it.
pub const DEFAULT_MACHINE: &str = "default";

#[derive(Clone, Debug, PartialEq)]
pub struct MachineTypeConfig {
    pub machine: MachineType,
    pub price_per_hour: Option<f64>,
    /// Whether runners are held to the amounts, or the amounts are only set aside.
    pub enforce: bool,
}

/// Name, CPU millis, memory, model of its one GPU.
type BuiltIn = (&'static str, u64, u64, Option<&'static str>);

const MB: u64 = 1_000_000;
const GB: u64 = 1_000_000_000;

/// fal's machine types as its documentation lists them. Where it names no CPU and memory beside a GPU,
/// those of the next smaller GPU are taken.
const BUILT_IN: [BuiltIn; 12] = [
    (DEFAULT_MACHINE, 250, 256 * MB, None),
    ("XS", 500, 512 * MB, None),
    ("S", 1_000, GB, None),
    ("M", 2_000, 2 * GB, None),
    ("L", 4_000, 15 * GB, None),
    ("XL", 8_000, 30 * GB, None),
    ("GPU-A100", 12_000, 60 * GB, Some("A100")),
    ("GPU-L40", 12_000, 60 * GB, Some("L40")),
    ("GPU-H100", 12_000, 112 * GB, Some("H100")),
    ("GPU-RTXPRO6000", 12_000, 112 * GB, Some("RTXPRO6000")),
    ("GPU-H200", 12_000, 112 * GB, Some("H200")),
    ("GPU-B200", 19_000, 210 * GB, Some("B200")),
];

/// The machine types of a node without a config.
pub fn built_in() -> BTreeMap<String, MachineTypeConfig> {
    let machine = |(name, cpu_millis, memory_bytes, gpu_kind): BuiltIn| MachineTypeConfig {
        machine: MachineType {
            name: name.to_owned(),
            cpu_millis,
            memory_bytes,
            gpus: u32::from(gpu_kind.is_some()),
            gpu_kind: gpu_kind.map(str::to_owned),
            gpu_memory_bytes: 0,
        },
        price_per_hour: None,
        enforce: name != DEFAULT_MACHINE,
    };
    BUILT_IN.into_iter().map(|built_in| (built_in.0.to_owned(), machine(built_in))).collect()
}

/// The built-in machine types, changed and added to by `[machine_types]`. Also returns the values as
/// they were read, for `config show`.
pub(super) fn read(
    layers: &mut Layers,
    entries: &[Entry],
) -> (BTreeMap<String, MachineTypeConfig>, Vec<(String, Values)>) {
    let mut machines = built_in();
    let mut read = Vec::new();
    for entry in entries {
        let path = format!("machine_types.{}", super::quoted(&entry.key));
        let Some(table) = table(layers, entry, &path) else { continue };
        let values = layers.section(Section::MachineType, &path, table);
        let machine = combine(machines.get(&entry.key), &entry.key, &values);
        let wants_gpu = machine.machine.gpu_kind.is_some() || machine.machine.gpu_memory_bytes > 0;
        if wants_gpu && machine.machine.gpus == 0 {
            layers.problem(
                layers.line(entry.line),
                format!("[{path}] describes its GPU but has none"),
                Some("add `gpus = 1`".into()),
            );
        }
        machines.insert(entry.key.clone(), machine);
        read.push((path, values));
    }
    (machines, read)
}

fn combine(built_in: Option<&MachineTypeConfig>, name: &str, values: &Values) -> MachineTypeConfig {
    let base = built_in.cloned().unwrap_or_else(|| MachineTypeConfig {
        machine: MachineType { name: name.to_owned(), ..MachineType::default() },
        price_per_hour: None,
        enforce: true,
    });
    MachineTypeConfig {
        machine: MachineType {
            name: base.machine.name,
            cpu_millis: values.cpu_millis("cpu").unwrap_or(base.machine.cpu_millis),
            memory_bytes: values.bytes("memory").unwrap_or(base.machine.memory_bytes),
            gpus: values.count("gpus").unwrap_or(base.machine.gpus),
            gpu_kind: values.text("gpu_kind").or(base.machine.gpu_kind),
            gpu_memory_bytes: values.bytes("gpu_memory").unwrap_or(base.machine.gpu_memory_bytes),
        },
        price_per_hour: values.number("price_per_hour").or(base.price_per_hour),
        enforce: values.boolean("enforce").unwrap_or(base.enforce),
    }
}
