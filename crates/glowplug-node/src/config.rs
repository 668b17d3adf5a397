//! The config: from a file, the environment and the command line to plain, checked structs.
//!
//! Strength: command line, then environment, then file, then default. Everything wrong is found in one
//! pass and told with its place and the nearest fix; nothing is guessed. A [`Config`] that exists is one
//! a node can try to start with. What it does not know: whether an app's code can be imported, whether a
//! machine type could ever fit this machine, whether a port is free. Those belong to the node.
//!
//! Limits: [`FILE_BYTES_MAX`], [`APPS_MAX`], and those of `glowplug_core::spec::limits`.

mod app;
mod container;
mod database_url;
mod document;
mod image;
mod images;
mod layers;
mod machine;
mod mounts;
mod network;
mod node;
mod problem;
mod reference;
mod retries;
mod setting;
mod show;
mod unit;
mod value;
mod warmth;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use glowplug_gateway::host::Access;

pub use app::{APP_NAME_BYTES_MAX, AppConfig, AppName, DEFAULT_OWNER, Program};
pub use container::{ContainerConfig, ContainerNetwork, LazyStart};
pub use database_url::DatabaseUrl;
pub use image::{ImageName, ImageProgram};
pub use images::ImagesConfig;
pub use layers::{FlagSetting, FlagValue};
pub use machine::{DEFAULT_MACHINE, MachineTypeConfig, built_in as built_in_machine_types};
pub(crate) use mounts::DATA_DIR;
pub use mounts::{Data, Mount, SecretSource};
pub use network::Network;
pub use node::{
    ContentionConfig, FilesConfig, LimitsConfig, LogFormat, NodeConfig, QueueConfig,
    RealtimeConfig, RecorderConfig, ResourcesConfig, StoreConfig, WebhooksConfig,
};
pub use problem::{ConfigError, Origin, PROBLEMS_SHOWN_MAX, Problem, nearest};
pub use reference::render as render_reference;
pub(crate) use retries::condition as retry_condition;
pub use show::Shown;
pub use unit::{parse_bytes, parse_duration, write_bytes, write_duration};
pub use value::GpuGroup;
pub use warmth::{AppWarmth, SnapshotUse, WarmthConfig, ZygoteUse};

use document::{Entry, Raw};
use layers::Layers;
use problem::suggest;
use setting::Section;

/// The config file's name where none is given.
pub const FILE_NAME: &str = "glowplug.toml";
/// Names the config file when no argument does.
pub const FILE_ENV: &str = "GLOWPLUG_CONFIG";
/// A larger config file is refused.
pub const FILE_BYTES_MAX: u64 = 4 << 20;
/// Apps of one config.
pub const APPS_MAX: usize = 20_000;

/// Everything a node needs to know to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `None`: there is no config file.
    pub file: Option<PathBuf>,
    pub node: NodeConfig,
    /// By name; the built-in ones among them.
    pub machine_types: BTreeMap<String, MachineTypeConfig>,
    pub apps: Vec<AppConfig>,
}

/// A config and the origin of each of its values.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub shown: Vec<Shown>,
}

/// Which config file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileChoice {
    /// This one, and it must exist.
    Named(PathBuf),
    /// The one that [`FILE_ENV`] names, else [`FILE_NAME`] in the current directory if there is one.
    Search,
    /// The one that [`FILE_ENV`] names, else none.
    EnvOnly,
}

/// What a config is made from. Nothing else is looked at.
#[derive(Clone, Debug)]
pub struct Sources {
    pub file: FileChoice,
    pub flags: Vec<FlagSetting>,
    /// Leaves out the apps of the file and takes this one, which `flags` describe.
    pub only_app: Option<String>,
    /// Variables of the environment, at least those that begin with `GLOWPLUG_`, and `XDG_DATA_HOME`
    /// and `HOME`.
    pub env: BTreeMap<String, String>,
    /// The current directory.
    pub cwd: PathBuf,
}

impl Sources {
    /// The environment and current directory of this process.
    pub fn of_process(file: FileChoice, flags: Vec<FlagSetting>) -> std::io::Result<Self> {
        let wanted =
            |name: &str| name.starts_with("GLOWPLUG_") || ["HOME", "XDG_DATA_HOME"].contains(&name);
        let env = std::env::vars_os()
            .filter_map(|(name, value)| {
                let name = name.into_string().ok().filter(|name| wanted(name))?;
                Some((name, value.to_string_lossy().into_owned()))
            })
            // An empty variable says nothing, as in most programs.
            .filter(|(_, value)| !value.is_empty())
            .collect();
        Ok(Self { file, flags, only_app: None, env, cwd: std::env::current_dir()? })
    }
}

/// Reads and checks a config.
pub fn load(sources: Sources) -> Result<Loaded, ConfigError> {
    let (file, mut top, mut layers) = open(&sources)?;
    if let Some(app) = sources.only_app {
        top.retain(|entry| entry.key != "apps");
        top.push(app_of_flags(app));
    }
    layers.refuse_unknown_env();
    refuse_unknown_tables(&mut layers, &top);

    let machines = top_table(&mut layers, &top, "machine_types");
    let (machine_types, machine_values) = machine::read(&mut layers, machines);
    let node = top_table(&mut layers, &top, "node");
    let (node, mut read) = node::read(&mut layers, node, &machine_types);
    let apps = top_table(&mut layers, &top, "apps");
    let (apps, app_values) = app::read(&mut layers, apps, &machine_types);
    if apps.len() > APPS_MAX {
        let message = format!("there are {} apps; at most {APPS_MAX} are allowed", apps.len());
        layers.problem(Origin::Default, message, None);
    }

    let problems = layers.into_problems();
    match node {
        Some(node) if problems.is_empty() => {
            read.extend(machine_values);
            read.extend(app_values);
            let file = file.map(|path| sources.cwd.join(path));
            let shown = show::list(&node, &read);
            Ok(Loaded { config: Config { file, node, machine_types, apps }, shown })
        }
        _ => Err(ConfigError::Invalid(problems)),
    }
}

/// Where the node of this config listens. Mistakes anywhere else do not matter: who wants to talk to a
/// node that runs already must not be kept from it by an app that is just being edited.
pub fn node_address(sources: &Sources) -> Result<SocketAddr, ConfigError> {
    let (_, top, mut layers) = open(sources)?;
    let node = top_table(&mut layers, &top, "node");
    let address = layers.section(Section::Node, Section::Node.path(), node).address("listen");
    address.ok_or_else(|| ConfigError::Invalid(layers.into_problems()))
}

/// The config file's path and content, and the layers around it.
fn open(sources: &Sources) -> Result<(Option<PathBuf>, Vec<Entry>, Layers), ConfigError> {
    let file = choose_file(sources);
    let text = match &file {
        Some(path) => read_file(&sources.cwd, path)?,
        None => String::new(),
    };
    let top = document::parse(file.as_deref().unwrap_or(Path::new("")), &text)
        .map_err(|problem| ConfigError::Invalid(vec![problem]))?;
    let (cwd, env, flags) = (sources.cwd.clone(), sources.env.clone(), sources.flags.clone());
    Ok((file.clone(), top, Layers::new(file, cwd, env, flags)))
}

fn choose_file(sources: &Sources) -> Option<PathBuf> {
    let by_env = || sources.env.get(FILE_ENV).map(PathBuf::from);
    match &sources.file {
        FileChoice::Named(path) => Some(path.clone()),
        FileChoice::EnvOnly => by_env(),
        FileChoice::Search => by_env().or_else(|| {
            let here = PathBuf::from(FILE_NAME);
            sources.cwd.join(&here).is_file().then_some(here)
        }),
    }
}

fn read_file(cwd: &Path, path: &Path) -> Result<String, ConfigError> {
    let full = cwd.join(path);
    let failed = |problem| ConfigError::Read {
        path: path.to_owned(),
        nearest: app::similar_file(&full),
        problem,
    };
    let bytes = std::fs::metadata(&full).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        let path = path.to_owned();
        return Err(ConfigError::TooLarge { path, bytes, bytes_max: FILE_BYTES_MAX });
    }
    let bytes = std::fs::read(&full).map_err(failed)?;
    String::from_utf8(bytes).map_err(|_| ConfigError::NotText { path: path.to_owned() })
}

/// The table of an app that the command line alone describes.
fn app_of_flags(name: String) -> Entry {
    let app = Entry { key: name, line: 0, value: Raw::Table(Vec::new()) };
    Entry { key: "apps".to_owned(), line: 0, value: Raw::Table(vec![app]) }
}

fn refuse_unknown_tables(layers: &mut Layers, top: &[Entry]) {
    const TABLES: [&str; 3] = ["node", "machine_types", "apps"];
    for entry in top.iter().filter(|entry| !TABLES.contains(&entry.key.as_str())) {
        let home = Section::ALL
            .into_iter()
            .find(|section| section.settings().iter().any(|setting| setting.key == entry.key));
        let (what, help) = match (&entry.value, home) {
            (Raw::Table(_), _) => ("table", suggest(&entry.key, &TABLES, "the tables are")),
            (_, Some(home)) => ("key", format!("`{}` belongs in [{}]", entry.key, home.path())),
            _ => ("key", format!("put it in a table; the tables are: {}", TABLES.join(", "))),
        };
        let message = format!("unknown {what} `{}` at the top of the file", entry.key);
        layers.problem(layers.line(entry.line), message, Some(help));
    }
}

/// The entries of a table at the top of the file; none if it is not there.
fn top_table<'a>(layers: &mut Layers, top: &'a [Entry], name: &str) -> &'a [Entry] {
    let entry = top.iter().find(|entry| entry.key == name);
    entry.and_then(|entry| layers::table(layers, entry, name)).unwrap_or_default()
}

/// A user's name as part of a dotted path.
fn quoted(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { format!("{name:?}") }
}

#[cfg(test)]
mod tests;
