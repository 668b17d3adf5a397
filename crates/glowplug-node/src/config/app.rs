//! `[apps.NAME]`: what runs, and how it is to be scaled.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use glowplug_core::retry::{Budgets, Condition};
use glowplug_core::spec::{Overrides, PolicyName, Scaling};
use glowplug_gateway::host::Access;
use glowplug_runner::Listen;

use super::container::{self, ContainerConfig};
use super::document::Entry;
use super::image::{self, ImageProgram};
use super::layers::{Layers, Values, table};
use super::machine::MachineTypeConfig;
use super::mounts::{self, SecretSource};
use super::problem::{Origin, nearest, suggest};
use super::setting::Section;
use super::value::Value;
use super::warmth::AppWarmth;

/// Bytes of an app's whole name.
pub const APP_NAME_BYTES_MAX: usize = 128;
/// The owner of apps that name none.
pub const DEFAULT_OWNER: &str = "local";
/// The environment that a name without one belongs to.
const MAIN_ENVIRONMENT: &str = "main";
/// Files looked at for one whose name is similar to a missing one's.
const SIMILAR_FILES_MAX: usize = 1_000;

/// `owner/app` or `owner/app--environment`, always with its owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppName(String);

impl AppName {
    /// Reads a name as users write it: the owner may be left out, and `--main` says nothing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let part_fits = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        let (owner, app) = text.split_once('/').unwrap_or((DEFAULT_OWNER, text));
        let (base, environment) = app.split_once("--").unwrap_or((app, MAIN_ENVIRONMENT));
        if ![owner, base, environment].into_iter().all(part_fits) {
            return Err(format!(
                "`{text}` is not a name for an app: letters, digits, `.`, `_` and `-`, as in `hello`, \
                 `team/hello` or `hello--staging`"
            ));
        }
        let name = match environment {
            MAIN_ENVIRONMENT => format!("{owner}/{base}"),
            _ => format!("{owner}/{base}--{environment}"),
        };
        if name.len() > APP_NAME_BYTES_MAX {
            return Err(format!("`{text}` is longer than {APP_NAME_BYTES_MAX} bytes"));
        }
        Ok(Self(name))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn owner(&self) -> &str {
        self.0.split_once('/').map_or(DEFAULT_OWNER, |(owner, _)| owner)
    }

    /// With its environment, if that is not `main`.
    pub fn app(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(_, app)| app)
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A `fal.App`. The file exists; whether it holds the class only Python can tell.
    Python {
        file: PathBuf,
        /// `None`: the one class of the file.
        class: Option<String>,
    },
    /// An HTTP server. Never empty.
    Command { argv: Vec<String> },
    /// An HTTP server in a container.
    Image(ImageProgram),
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Python { file, class: Some(class) } => write!(f, "{}::{class}", file.display()),
            Self::Python { file, class: None } => write!(f, "{}", file.display()),
            Self::Command { argv } => f.write_str(&argv.join(" ")),
            Self::Image(image) => image.image.fmt(f),
        }
    }
}

/// The scaling parameters that the config sets; what it leaves open comes from the class, if there is
/// one, and then from [`Scaling::default`].
fn scaling(values: &Values) -> Overrides {
    let duration = |key| values.is_set(key).then(|| values.duration(key)).flatten();
    let count = |key| values.is_set(key).then(|| values.count(key)).flatten();
    let number = |key| values.is_set(key).then(|| values.number(key)).flatten();
    let policy = values.text("policy").filter(|_| values.is_set("policy"));
    Overrides {
        policy: policy.and_then(|name| PolicyName::parse(&name)),
        wait_budget: duration("wait_budget"),
        wait_budget_percent: number("wait_budget_percent"),
        wait_price: number("wait_price"),
        keep_alive: duration("keep_alive"),
        min_concurrency: count("min_concurrency"),
        max_concurrency: count("max_concurrency"),
        concurrency_buffer: count("concurrency_buffer"),
        concurrency_buffer_perc: count("concurrency_buffer_perc"),
        scaling_delay: duration("scaling_delay"),
        max_multiplexing: count("max_multiplexing"),
        startup_timeout: duration("startup_timeout"),
        request_timeout: duration("request_timeout"),
        unused_runner_timeout: duration("unused_runner_timeout"),
        termination_grace_period: duration("termination_grace_period_seconds"),
        frozen_for: None,
    }
}

/// One app of the config, checked as far as that goes without running it.
#[derive(Clone, Debug, PartialEq)]
pub struct AppConfig {
    pub name: AppName,
    pub program: Program,
    /// Exists.
    pub cwd: PathBuf,
    pub env: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, SecretSource>,
    /// Begins with `/`.
    pub health_path: Option<String>,
    /// `None`: as suits the program.
    pub listen: Option<Listen>,
    /// `None`: the node's.
    pub user: Option<String>,
    pub warmth: AppWarmth,
    /// Of use to an app in a container.
    pub container: ContainerConfig,
    pub access: Access,
    /// Each of them exists. Empty: the class's own, else the node's `default_machine`.
    pub machine_types: Vec<String>,
    pub scaling: Overrides,
    /// `None`: the class's own, else requests wait as long as it takes. Zero: as long as it takes.
    pub request_start_timeout: Option<Duration>,
    pub retry_config: Option<Budgets>,
    pub skip_retry_conditions: Option<Vec<Condition>>,
}

/// Reads `[apps]`. Also returns the values as they were read, for `config show`.
pub(super) fn read(
    layers: &mut Layers,
    entries: &[Entry],
    machines: &BTreeMap<String, MachineTypeConfig>,
) -> (Vec<AppConfig>, Vec<(String, Values)>) {
    let (mut apps, mut read) = (Vec::<AppConfig>::new(), Vec::new());
    for entry in entries {
        let path = format!("apps.{}", super::quoted(&entry.key));
        let Some(table) = table(layers, entry, &path) else { continue };
        let values = layers.section(Section::App, &path, table);
        let place = layers.line(entry.line);
        if let Some(app) = read_app(layers, &entry.key, &path, &place, &values, machines) {
            if apps.iter().any(|other| other.name == app.name) {
                layers.problem(place, format!("the app `{}` is there twice", app.name), None);
            }
            apps.push(app);
        }
        read.push((path, values));
    }
    (apps, read)
}

/// `None` when there is nothing to make an app of; the reason is then among the problems.
fn read_app(
    layers: &mut Layers,
    key: &str,
    path: &str,
    place: &Origin,
    values: &Values,
    machines: &BTreeMap<String, MachineTypeConfig>,
) -> Option<AppConfig> {
    let name = match AppName::parse(key) {
        Ok(name) => Some(name),
        Err(message) => {
            layers.problem(place.clone(), message, None);
            None
        }
    };
    let program = read_program(layers, path, place, values);
    let container = container::read(layers, path, values);
    let warmth = AppWarmth::read(layers, path, values);
    let cwd = read_cwd(layers, path, values);
    if let Some(health_path) = values.text("health_path").filter(|path| !path.starts_with('/')) {
        let message = format!("`health_path` in [{path}] is \"{health_path}\"");
        let help = Some(format!("begin it with a slash: \"/{health_path}\""));
        layers.problem(values.origin("health_path"), message, help);
    }
    let machine_types = values.list("machine_type").unwrap_or_default();
    for machine in &machine_types {
        check_machine(layers, &values.origin("machine_type"), path, machine, machines);
    }
    let mut scaling = scaling(values);
    scaling.frozen_for = values.is_set("freeze").then_some(warmth.frozen_for);
    if let Err(error) = scaling.apply(Scaling::default()) {
        layers.problem(values.origin(error.key), format!("{error} in [{path}]"), None);
    }
    Some(AppConfig {
        name: name?,
        program: program?,
        cwd,
        env: values.texts("env").unwrap_or_default(),
        secrets: mounts::secrets(layers, path, values),
        health_path: values.text("health_path"),
        listen: values.text("listen").map(|listen| match listen.as_str() {
            "unix" => Listen::UnixSocket,
            _ => Listen::Port,
        }),
        user: values.text("user"),
        warmth,
        container,
        access: match values.text("access").as_deref() {
            Some("public") => Access::Public,
            _ => Access::Private,
        },
        machine_types,
        scaling,
        request_start_timeout: values.duration("request_start_timeout"),
        retry_config: values.retries("retry_config"),
        skip_retry_conditions: values.conditions("skip_retry_conditions"),
    })
}

/// Refuses a machine type that is neither built in nor declared.
pub(super) fn check_machine(
    layers: &mut Layers,
    origin: &Origin,
    path: &str,
    machine: &str,
    machines: &BTreeMap<String, MachineTypeConfig>,
) {
    if machines.contains_key(machine) {
        return;
    }
    let known: Vec<&str> = machines.keys().map(String::as_str).collect();
    let help = suggest(machine, &known, "declare it under [machine_types], or take one of");
    let message = format!("unknown machine type `{machine}` in [{path}]");
    layers.problem(origin.clone(), message, Some(help));
}

fn read_program(
    layers: &mut Layers,
    path: &str,
    place: &Origin,
    values: &Values,
) -> Option<Program> {
    const WAYS: [&str; 3] = ["app", "command", "image"];
    let given: Vec<&str> = WAYS.into_iter().filter(|key| values.is_set(key)).collect();
    container::refuse_for_commands(layers, path, values);
    match given.as_slice() {
        ["app"] => read_python(layers, path, &values.origin("app"), &values.text("app")?),
        ["command"] => {
            let argv = values.list("command")?;
            if argv.first().is_none_or(String::is_empty) {
                let message = format!("`command` in [{path}] names no program");
                layers.problem(values.origin("command"), message, None);
                return None;
            }
            Some(Program::Command { argv })
        }
        ["image"] | ["command", "image"] => image::read(layers, path, values).map(Program::Image),
        [] => {
            // A value of the wrong type has been told already, and is not "missing" on top of that.
            if !layers.has_problem_in(path) {
                layers.problem(
                    place.clone(),
                    format!("[{path}] does not say what runs"),
                    Some(
                        "add `app = \"file.py::Class\"`, `command = \"…\"` or `image = \"…\"`"
                            .into(),
                    ),
                );
            }
            None
        }
        [first, others @ ..] => {
            let message = format!("[{path}] has both `{first}` and `{}`", others.join("` and `"));
            layers.problem(values.origin(others[0]), message, Some("keep exactly one".into()));
            None
        }
    }
}

fn read_python(layers: &mut Layers, path: &str, origin: &Origin, text: &str) -> Option<Program> {
    let (file, class) = match text.split_once("::") {
        Some((file, class)) => (file, Some(class)),
        None => (text, None),
    };
    let identifier = |class: &str| {
        class.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && class.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    let is_python = Path::new(file).extension().is_some_and(|extension| extension == "py");
    if !is_python || !class.is_none_or(identifier) {
        let message = format!("`app` in [{path}] is \"{text}\", which names no Python class");
        let help = "write the file and the class as in \"app.py::MyApp\"";
        layers.problem(origin.clone(), message, Some(help.into()));
        return None;
    }
    let file = layers.base(origin).join(file);
    if !file.is_file() {
        let message = format!("`app` in [{path}] names a missing file: {}", file.display());
        layers.problem(
            origin.clone(),
            message,
            similar_file(&file).map(|near| format!("did you mean `{near}`?")),
        );
        return None;
    }
    Some(Program::Python { file, class: class.map(str::to_owned) })
}

fn read_cwd(layers: &mut Layers, path: &str, values: &Values) -> PathBuf {
    let Some((Value::Text(cwd), origin)) = values.get("cwd") else { return layers.file_dir() };
    let cwd = layers.base(origin).join(cwd);
    if !cwd.is_dir() {
        let message = format!("`cwd` in [{path}] is not a directory: {}", cwd.display());
        layers.problem(origin.clone(), message, None);
    }
    cwd
}

/// The file beside a missing one whose name is most like it.
pub(super) fn similar_file(missing: &Path) -> Option<String> {
    let dir = missing.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names: Vec<String> = std::fs::read_dir(dir)
        .ok()?
        .take(SIMILAR_FILES_MAX)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let wanted = missing.file_name()?.to_str()?;
    nearest(wanted, names.iter().map(String::as_str)).map(str::to_owned)
}
