//! What keeps apps warm: `zygote`, `snapshot` and `freeze` of an app, and `[node.warmth]`.

use std::path::PathBuf;
use std::time::Duration;

use super::layers::{Layers, Values};

/// Words that stand for a way of their own in `zygote`, and for no module.
const AUTO: &str = "auto";
const OFF: &str = "off";

/// What an app says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppWarmth {
    pub zygote: ZygoteUse,
    /// What forks the runners of a command. Empty: nothing does.
    pub zygote_command: Vec<String>,
    pub snapshot: SnapshotUse,
    /// How long a frozen runner is kept. Zero: none is frozen.
    pub frozen_for: Duration,
}

/// Whether starts of an app are forked from a process that has imported its modules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ZygoteUse {
    /// With the modules that its first start was seen to import.
    #[default]
    Learned,
    /// With these modules.
    Declared(Vec<String>),
    Off,
}

/// Whether starts of an app are restored from the memory of one that was set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotUse {
    /// Where the host can and the app allows it.
    #[default]
    Auto,
    Off,
    /// An app of which none can be taken says so in its status.
    Required,
}

/// `[node.warmth]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmthConfig {
    /// What zygotes may take of the memory. Zero: there are none.
    pub zygote_memory_max: u64,
    /// What snapshots may take of the disk. Zero: there are none.
    pub snapshot_bytes_max: u64,
    /// What frozen runners may take of the memory. Zero: none is frozen.
    pub frozen_memory_max: u64,
    /// The program that takes and restores snapshots. `None`: `criu`, where PATH has it.
    pub criu: Option<PathBuf>,
}

impl AppWarmth {
    /// A value that cannot be read is told, and its default is taken.
    pub(super) fn read(layers: &mut Layers, path: &str, values: &Values) -> Self {
        let freezes = values.text("freeze").as_deref() == Some(AUTO);
        let frozen_for = values.duration("frozen_for").filter(|_| freezes);
        Self {
            zygote: zygote(layers, path, values),
            zygote_command: zygote_command(layers, path, values),
            snapshot: match values.text("snapshot").as_deref() {
                Some(OFF) => SnapshotUse::Off,
                Some("required") => SnapshotUse::Required,
                _ => SnapshotUse::Auto,
            },
            frozen_for: frozen_for.unwrap_or_default(),
        }
    }
}

fn zygote(layers: &mut Layers, path: &str, values: &Values) -> ZygoteUse {
    let modules = values.list("zygote").unwrap_or_default();
    let names: Vec<&str> = modules.iter().map(String::as_str).collect();
    match names.as_slice() {
        [] | [AUTO] => ZygoteUse::Learned,
        [OFF] => ZygoteUse::Off,
        names => {
            if let Some(wrong) = names.iter().find(|name| !is_module(name)) {
                let message =
                    format!("`zygote` in [{path}] has \"{wrong}\", which names no Python module");
                let help = "write \"auto\", \"off\", or modules as in [\"numpy\", \"torch.nn\"]";
                layers.problem(values.origin("zygote"), message, Some(help.to_owned()));
            }
            ZygoteUse::Declared(modules)
        }
    }
}

/// Other apps have zygotes by themselves, or cannot have any.
fn zygote_command(layers: &mut Layers, path: &str, values: &Values) -> Vec<String> {
    let argv = values.list("zygote_command").unwrap_or_default();
    let is_command = values.is_set("command") && !values.is_set("image");
    if !argv.is_empty() && !is_command {
        let message = format!("`zygote_command` in [{path}] is for apps that are a `command`");
        let help = "remove it: a `fal.App` has a zygote of its own accord".to_owned();
        layers.problem(values.origin("zygote_command"), message, Some(help));
        return Vec::new();
    }
    argv
}

/// As `import` takes it.
fn is_module(name: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    name.split('.').all(is_part) && ![AUTO, OFF].contains(&name)
}

impl WarmthConfig {
    /// `criu` is absolute already. `None` if a value that has a default could not be read, which was told.
    pub(super) fn read(warmth: &Values, criu: Option<PathBuf>) -> Option<Self> {
        Some(Self {
            zygote_memory_max: warmth.bytes("zygote_memory_max")?,
            snapshot_bytes_max: warmth.bytes("snapshot_bytes_max")?,
            frozen_memory_max: warmth.bytes("frozen_memory_max")?,
            criu,
        })
    }
}

/// The named program as an absolute path. It need not be there: `glowplug doctor` says what is missing.
pub(super) fn criu(layers: &Layers, warmth: &Values) -> Option<PathBuf> {
    let named = warmth.text("criu")?;
    Some(layers.base(&warmth.origin("criu")).join(named))
}
