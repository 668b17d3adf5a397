//! Four layers of settings, the stronger first: command line, environment, config file, defaults.
//!
//! The result for a section is, per key, the value of the strongest layer that sets it and where it
//! stands. Apps and machine types have no environment layer: their names cannot be spelled in one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::document::{Entry, Raw};
use super::problem::{Origin, Problem, suggest};
use super::setting::{Fallback, Section, Setting};
use super::value::{Kind, Unfit, Value};

/// Environment variables of settings: this, the section and the key, parted by `__`, in capitals.
const ENV_PREFIX: &str = "GLOWPLUG_NODE__";

/// Settings of earlier versions, and what they have become.
const MOVED: [(&str, &str); 1] = [("answer_retention", "`retention` in [node.queue]")];

/// A setting given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagSetting {
    /// As the user typed it, for example `--listen`.
    pub flag: String,
    /// `node`, `node.limits`, `apps.hello`, …
    pub section: String,
    pub key: String,
    pub value: FlagValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlagValue {
    Text(String),
    List(Vec<String>),
    Texts(Vec<(String, String)>),
}

impl FlagValue {
    fn read(&self, kind: Kind) -> Result<Value, Unfit> {
        let text = |text: &String| Raw::Text(text.clone());
        match self {
            Self::Text(text) => kind.read_text(text),
            Self::List(items) => kind.read(&Raw::List(items.iter().map(text).collect())),
            Self::Texts(pairs) => {
                let entry = |(key, value): &(String, String)| Entry {
                    key: key.clone(),
                    line: 0,
                    value: text(value),
                };
                kind.read(&Raw::Table(pairs.iter().map(entry).collect()))
            }
        }
    }
}

impl FlagSetting {
    /// `--listen` and `--data-dir` of the node.
    pub fn node(flag: &str, key: &str, value: impl Into<String>) -> Self {
        let section = Section::Node.path().to_owned();
        let value = FlagValue::Text(value.into());
        Self { flag: flag.to_owned(), section, key: key.to_owned(), value }
    }

    /// A setting of `[apps.NAME]`.
    pub fn app(name: &str, flag: &str, key: &str, value: FlagValue) -> Self {
        let section = format!("apps.{}", super::quoted(name));
        Self { flag: flag.to_owned(), section, key: key.to_owned(), value }
    }
}

/// The values of one section by key. Absent: no layer sets it and it has no default.
#[derive(Debug, Default)]
pub(super) struct Values(BTreeMap<&'static str, (Value, Origin)>);

/// One value takes its type from its setting's kind, which is the same table's word: a mismatch is a
/// slip in this module that the test over all defaults would show.
macro_rules! accessors {
    ($($name:ident: $variant:ident -> $type:ty;)*) => {$(
        pub(super) fn $name(&self, key: &str) -> Option<$type> {
            match self.0.get(key) {
                Some((Value::$variant(value), _)) => Some(value.clone()),
                _ => None,
            }
        }
    )*};
}

impl Values {
    accessors! {
        address: Address -> std::net::SocketAddr;
        text: Text -> String;
        boolean: Bool -> bool;
        duration: Duration -> std::time::Duration;
        bytes: Bytes -> u64;
        cpu_millis: CpuMillis -> u64;
        count: Count -> u32;
        number: Number -> f64;
        list: List -> Vec<String>;
        texts: Texts -> BTreeMap<String, String>;
        gpus: Gpus -> Vec<super::value::GpuGroup>;
        database_url: DatabaseUrl -> super::DatabaseUrl;
        networks: Networks -> Vec<super::Network>;
        retries: Retries -> glowplug_core::retry::Budgets;
        conditions: Conditions -> Vec<glowplug_core::retry::Condition>;
    }

    pub(super) fn get(&self, key: &str) -> Option<&(Value, Origin)> {
        self.0.get(key)
    }

    pub(super) fn origin(&self, key: &str) -> Origin {
        self.0.get(key).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// Whether some layer other than the defaults sets it.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.origin(key) != Origin::Default
    }
}

/// All layers but the defaults, and what was found wrong so far.
#[derive(Debug)]
pub(super) struct Layers {
    file: Option<PathBuf>,
    cwd: PathBuf,
    env: BTreeMap<String, String>,
    flags: Vec<FlagSetting>,
    problems: Vec<Problem>,
}

impl Layers {
    pub(super) fn new(
        file: Option<PathBuf>,
        cwd: PathBuf,
        env: BTreeMap<String, String>,
        flags: Vec<FlagSetting>,
    ) -> Self {
        Self { file, cwd, env, flags, problems: Vec::new() }
    }

    pub(super) fn problem(
        &mut self,
        origin: Origin,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.problems.push(Problem { origin, message: message.into(), help });
    }

    /// Everything found wrong, in the order of the file.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| match &problem.origin {
            Origin::File { line, .. } => *line,
            _ => 0,
        });
        self.problems
    }

    /// Whether something is wrong already with what `path` names.
    pub(super) fn has_problem_in(&self, path: &str) -> bool {
        let path = format!("[{path}]");
        self.problems.iter().any(|problem| problem.message.contains(&path))
    }

    pub(super) fn line(&self, line: usize) -> Origin {
        Origin::File { path: self.file.clone().unwrap_or_default(), line }
    }

    /// Where relative paths of a value with this origin begin.
    pub(super) fn base(&self, origin: &Origin) -> PathBuf {
        match origin {
            Origin::File { .. } => self.file_dir(),
            _ => self.cwd.clone(),
        }
    }

    /// The directory of the config file, or the current one if there is no file.
    pub(super) fn file_dir(&self) -> PathBuf {
        let dir = self.file.as_deref().and_then(Path::parent);
        match dir.filter(|dir| !dir.as_os_str().is_empty()) {
            Some(dir) => self.cwd.join(dir),
            None => self.cwd.clone(),
        }
    }

    /// Where data goes if nothing says where: beside the config file, or else to the user's data.
    pub(super) fn default_data_dir(&self) -> Option<PathBuf> {
        if self.file.is_some() {
            return Some(self.file_dir().join("glowplug-data"));
        }
        let data_home = self.env.get("XDG_DATA_HOME").map(PathBuf::from);
        let home = || self.env.get("HOME").map(|home| Path::new(home).join(".local/share"));
        data_home.filter(|dir| dir.is_absolute()).or_else(home).map(|dir| dir.join("glowplug"))
    }

    /// Reads one section. `path` is how it stands in the file, with the user's own names.
    pub(super) fn section(&mut self, section: Section, path: &str, entries: &[Entry]) -> Values {
        let mut values = Values::default();
        self.refuse_unknown_keys(section, path, entries);
        for setting in section.settings() {
            if let Some((value, origin)) = self.find(section, setting, path, entries) {
                match value {
                    Ok(value) => drop(values.0.insert(setting.key, (value, origin))),
                    Err(Unfit { message, help }) => self.problem(
                        origin,
                        format!("`{}` in [{path}] {message}", setting.key),
                        help,
                    ),
                }
            }
        }
        values
    }

    /// The strongest layer's value.
    fn find(
        &self,
        section: Section,
        setting: &Setting,
        path: &str,
        entries: &[Entry],
    ) -> Option<(Result<Value, Unfit>, Origin)> {
        let by_flag = |flag: &&FlagSetting| flag.section == path && flag.key == setting.key;
        if let Some(flag) = self.flags.iter().find(by_flag) {
            return Some((flag.value.read(setting.kind), Origin::Flag(flag.flag.clone())));
        }
        for name in env_names(section, setting) {
            if let Some(text) = self.env.get(&name) {
                return Some((setting.kind.read_text(text), Origin::Env(name)));
            }
        }
        if let Some(entry) = entries.iter().find(|entry| entry.key == setting.key) {
            return Some((setting.kind.read(&entry.value), self.line(entry.line)));
        }
        match setting.fallback {
            Fallback::Value(text) => Some((setting.kind.read_text(text), Origin::Default)),
            Fallback::Otherwise(_) => None,
        }
    }

    fn refuse_unknown_keys(&mut self, section: Section, path: &str, entries: &[Entry]) {
        let subsections = section.subsections().iter().map(|(key, _)| *key);
        let known: Vec<&str> =
            section.settings().iter().map(|setting| setting.key).chain(subsections).collect();
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let elsewhere = Section::ALL
                .into_iter()
                .find(|other| other.settings().iter().any(|setting| setting.key == entry.key));
            let moved = MOVED.iter().find(|(before, _)| *before == entry.key);
            let help = match elsewhere {
                _ if let Some((_, now)) = moved => format!("it is {now} now"),
                Some(other) => format!("`{}` belongs in [{}]", entry.key, other.path()),
                None => suggest(&entry.key, &known, "its keys are"),
            };
            let message = format!("unknown key `{}` in [{path}]", entry.key);
            self.problem(self.line(entry.line), message, Some(help));
        }
    }

    /// Variables that look like settings and are none.
    pub(super) fn refuse_unknown_env(&mut self) {
        let known: Vec<String> = Section::ALL
            .into_iter()
            .flat_map(|section| section.settings().iter().map(move |setting| (section, setting)))
            .flat_map(|(section, setting)| env_names(section, setting))
            .collect();
        let known: Vec<&str> =
            known.iter().map(String::as_str).filter(|name| name.starts_with(ENV_PREFIX)).collect();
        let unknown: Vec<String> = self
            .env
            .keys()
            .filter(|name| name.starts_with(ENV_PREFIX) && !known.contains(&name.as_str()))
            .cloned()
            .collect();
        for name in unknown {
            let help = suggest(&name, &known, "the variables are");
            self.problem(Origin::Env(name), "no setting has this name", Some(help));
        }
    }
}

/// The environment variables of a setting, the stronger first.
pub(super) fn env_names(section: Section, setting: &Setting) -> Vec<String> {
    let middle = match section {
        Section::Node => String::new(),
        Section::MachineType | Section::App => return Vec::new(),
        below => match below.path().strip_prefix("node.") {
            Some(name) => format!("{}__", name.to_ascii_uppercase()),
            None => return Vec::new(),
        },
    };
    let long = format!("{ENV_PREFIX}{middle}{}", setting.key.to_ascii_uppercase());
    setting.short_env.map(str::to_owned).into_iter().chain([long]).collect()
}

/// The entries of a table, or the problem that it is none.
pub(super) fn table<'a>(layers: &mut Layers, entry: &'a Entry, path: &str) -> Option<&'a [Entry]> {
    match &entry.value {
        Raw::Table(entries) => Some(entries),
        other => {
            let message = format!("`{path}` must be a table, not {}", other.describe());
            let help = format!("write it as [{path}] with its keys below");
            layers.problem(layers.line(entry.line), message, Some(help));
            None
        }
    }
}
