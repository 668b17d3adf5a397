//! Which crate may depend on which. The arrows point one way; see ARCHITECTURE.md.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Finding;
use crate::command::Program;

/// What each crate of this workspace may use of the others. A new crate gets its line here.
const ALLOWED: &[(&str, &[&str])] = &[
    ("glowplug-core", &[]),
    ("glowplug-api", &["glowplug-core"]),
    ("glowplug-store", &["glowplug-api", "glowplug-core"]),
    ("glowplug-artifacts", &["glowplug-api", "glowplug-core"]),
    ("glowplug-runner", &["glowplug-api", "glowplug-core", "glowplug-dial"]),
    ("glowplug-gateway", &["glowplug-api", "glowplug-core", "glowplug-dial"]),
    ("glowplug-image", &["glowplug-core"]),
    ("glowplug-dial", &["glowplug-core"]),
    ("glowplug-sim", &["glowplug-core"]),
    (
        "glowplug-node",
        &[
            "glowplug-api",
            "glowplug-artifacts",
            "glowplug-core",
            "glowplug-dial",
            "glowplug-image",
            "glowplug-gateway",
            "glowplug-runner",
            "glowplug-sim",
            "glowplug-store",
        ],
    ),
    (
        "glowplug-testkit",
        &["glowplug-api", "glowplug-core", "glowplug-node", "glowplug-runner", "glowplug-store"],
    ),
    (
        "glowplug",
        &[
            "glowplug-api",
            "glowplug-artifacts",
            "glowplug-core",
            "glowplug-gateway",
            "glowplug-image",
            "glowplug-node",
            "glowplug-runner",
            "glowplug-sim",
            "glowplug-store",
        ],
    ),
    ("xtask", &[]),
];

/// Fixtures: any crate may use it, but only for its tests.
const FIXTURES: &str = "glowplug-testkit";
/// Must not depend on anything, so that its decisions depend on nothing but their inputs.
const PURE: &str = "glowplug-core";

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// `dev` or `build`; absent for the usual kind.
    kind: Option<String>,
}

pub(super) fn packages() -> Result<Vec<Package>> {
    let args = ["metadata", "--no-deps", "--format-version", "1"];
    let json = Program::cargo(&args).capture()?;
    let metadata: Metadata =
        serde_json::from_str(&json).context("cannot read what `cargo metadata` says")?;
    Ok(metadata.packages)
}

pub(super) fn check(packages: &[Package]) -> Vec<Finding> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut findings = Vec::new();
    for package in packages {
        let manifest = match package.name.as_str() {
            "xtask" => "xtask/Cargo.toml".to_owned(),
            name => format!("crates/{name}/Cargo.toml"),
        };
        let mut report = |problem: String| findings.push(Finding::new(&manifest, 0, problem));
        let Some(allowed) = allowed.get(package.name.as_str()) else {
            report("this crate has no line in xtask/src/tidy/edges.rs and ARCHITECTURE.md".into());
            continue;
        };
        for dependency in &package.dependencies {
            let for_tests = dependency.kind.as_deref() == Some("dev");
            let name = dependency.name.as_str();
            let ours = packages.iter().any(|package| package.name == name);
            if package.name == PURE && !for_tests {
                report(format!("{PURE} may not depend on anything, and not on {name}"));
            } else if ours
                && !allowed.contains(&name)
                && !(for_tests && (name == FIXTURES || name == package.name))
            {
                report(format!("{} may not depend on {name}: see ARCHITECTURE.md", package.name));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependencies = dependencies
            .iter()
            .map(|(name, kind)| Dependency {
                name: (*name).to_owned(),
                kind: kind.map(str::to_owned),
            })
            .collect();
        Package { name: name.to_owned(), dependencies }
    }

    #[test]
    fn edges_that_point_up_or_aside_are_found() {
        let check = |name: &str, on: &str, kind: Option<&str>, fine: bool| {
            let mut packages = vec![package(name, &[(on, kind)])];
            if on.starts_with("glowplug") && on != name {
                packages.push(package(on, &[]));
            }
            assert_eq!(check(&packages).is_empty(), fine, "{name} on {on} as {kind:?}");
        };
        check("glowplug-node", "glowplug-gateway", None, true);
        check("glowplug-gateway", "glowplug-node", None, false);
        check("glowplug-gateway", "glowplug-runner", None, false);
        check("glowplug-gateway", "glowplug-testkit", None, false);
        check("glowplug-gateway", "glowplug-testkit", Some("dev"), true);
        check("glowplug-runner", "glowplug-runner", Some("dev"), true);
        check("glowplug-core", "serde", None, false);
        check("glowplug-core", "serde", Some("build"), false);
        check("glowplug-core", "proptest", Some("dev"), true);
        check("glowplug-new", "serde", None, false);
    }
}
