//! `glowplug doctor`

mod store;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use glowplug_node::config::NodeConfig;
use glowplug_runner::host::{self, FactStatus, HostFact};
use serde::Serialize;

use crate::cli::Context;
use crate::commands::place;
use crate::failure::Failure;

/// One line of the table.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    /// `ok`, `limited` or `missing`.
    status: &'static str,
    detail: String,
    remedy: Option<String>,
    /// Whether no node can start without it.
    #[serde(skip)]
    needed: bool,
}

impl Finding {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: "ok", detail: detail.into(), remedy: None, needed: false }
    }

    fn missing(name: &'static str, detail: impl Into<String>, remedy: &str) -> Self {
        let remedy = Some(remedy.to_owned());
        Self { name, status: "missing", detail: detail.into(), remedy, needed: false }
    }

    fn needed(self) -> Self {
        Self { needed: true, ..self }
    }
}

impl From<HostFact> for Finding {
    fn from(fact: HostFact) -> Self {
        let status = match fact.status {
            FactStatus::Ok => "ok",
            FactStatus::Limited => "limited",
            FactStatus::Missing => "missing",
        };
        Self { name: fact.name, status, detail: fact.detail, remedy: fact.remedy, needed: false }
    }
}

pub(crate) async fn run(place: &place::PlaceFlags, context: &Context) -> Result<(), Failure> {
    let mut findings = Vec::new();
    match context.config(place.settings()) {
        Ok(loaded) => {
            let file = loaded.config.file.as_ref().map(|file| file.display().to_string());
            findings.push(Finding::ok("config", file.unwrap_or_else(|| "all defaults".to_owned())));
            findings.push(data_dir(&loaded.config.node.data_dir));
            findings.push(port(&loaded.config.node));
            findings.extend(store::look(&loaded.config).await);
        }
        Err(failure) => {
            let detail = failure.to_string().lines().next().unwrap_or_default().to_owned();
            let remedy = "`glowplug config check` lists every mistake";
            findings.push(Finding::missing("config", detail, remedy).needed());
        }
    }
    let uv_remedy = "a node installs it for itself with the first Python app; or: pip install uv";
    findings.push(program("uv", "limited", uv_remedy));
    let python_remedy = "runs Python apps: install Debian's package python3";
    findings.push(program("python3", "missing", python_remedy));
    let buildah_remedy =
        "builds images from Dockerfiles, also those of classes: install Debian's package buildah";
    findings.push(program("buildah", "limited", buildah_remedy));
    findings.extend(host::facts(&host::find_gpus()).into_iter().map(Finding::from));

    context.output.value(&findings, |findings| {
        let row = |finding: &Finding| {
            let remedy = finding.remedy.clone().unwrap_or_default();
            vec![finding.name.to_owned(), finding.status.to_owned(), finding.detail.clone(), remedy]
        };
        let header = ["WHAT", "STATUS", "DETAIL", "HOW TO GET IT"];
        context.output.table(&header, findings.iter().map(row).collect(), "nothing was looked at")
    })?;
    match findings.iter().find(|finding| finding.needed && finding.status == "missing") {
        Some(finding) => Err(Failure::environment(format!(
            "a node cannot start here: {}: {}",
            finding.name, finding.detail
        ))),
        None => Ok(()),
    }
}

/// Whether files can be made in the data directory, or in the nearest directory above it that exists.
fn data_dir(dir: &Path) -> Finding {
    let name = "data directory";
    let existing = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    let probe = existing.join(format!(".glowplug-doctor-{}", std::process::id()));
    let written = fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe));
    match written {
        Ok(()) => Finding::ok(name, dir.display().to_string()),
        Err(error) => {
            let detail = format!("{} cannot be written: {error}", dir.display());
            Finding::missing(name, detail, "choose another with --data-dir").needed()
        }
    }
}

fn port(node: &NodeConfig) -> Finding {
    match TcpListener::bind(node.listen) {
        Ok(_) => Finding::ok("port", format!("{} is free", node.listen)),
        Err(error) => {
            let detail = format!("{}: {error}", node.listen);
            let remedy = "a node may run there already; else choose another with --listen";
            Finding { status: "limited", ..Finding::missing("port", detail, remedy) }
        }
    }
}

/// Where a program is found, as a shell would look for it. `otherwise`: the status if it is not.
fn program(name: &'static str, otherwise: &'static str, remedy: &str) -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found: Option<PathBuf> =
        std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    match found {
        Some(file) => Finding::ok(name, file.display().to_string()),
        None => {
            Finding { status: otherwise, ..Finding::missing(name, "not found in PATH", remedy) }
        }
    }
}
