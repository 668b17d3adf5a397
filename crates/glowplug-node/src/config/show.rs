//! Every value of a config with the place it comes from, for `glowplug config show`.

use super::layers::Values;
use super::node::NodeConfig;
use super::problem::Origin;
use super::setting::{Fallback, Section};
use super::value::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Dotted, for example `node.limits.waiting_max`.
    pub key: String,
    /// As it would be written in the file. In brackets: what happens where there is no fixed value.
    pub value: String,
    pub origin: Origin,
}

pub(super) fn list(node: &NodeConfig, read: &[(String, Values)]) -> Vec<Shown> {
    let mut shown = Vec::new();
    for (path, values) in read {
        let python = values.is_set("app");
        for setting in section_of(path).settings() {
            let key = format!("{path}.{}", setting.key);
            let (value, origin) = match (values.get(setting.key), setting.fallback) {
                (Some((Value::Texts(texts), origin)), _) => {
                    // Environments hold secrets; which variables there are is enough to see.
                    let names: Vec<&str> = texts.keys().map(String::as_str).collect();
                    (format!("({})", names.join(", ")), origin.clone())
                }
                (Some((value, Origin::Default)), _) if python && is_scaling(setting.key) => {
                    (format!("{value} (unless the class says otherwise)"), Origin::Default)
                }
                (Some((value, origin)), _) => (value.to_string(), origin.clone()),
                (None, _) if key == "node.data_dir" => {
                    (format!("{:?}", node.data_dir.display().to_string()), Origin::Default)
                }
                (None, Fallback::Otherwise(text)) => (format!("({text})"), Origin::Default),
                (None, Fallback::Value(text)) => (text.to_owned(), Origin::Default),
            };
            shown.push(Shown { key, value, origin });
        }
    }
    shown
}

fn section_of(path: &str) -> Section {
    let fixed = Section::ALL.into_iter().find(|section| section.path() == path);
    fixed.unwrap_or(if path.starts_with("apps.") { Section::App } else { Section::MachineType })
}

/// Whether a `fal.App` may bring its own value along.
fn is_scaling(key: &str) -> bool {
    !matches!(
        key,
        "access" | "policy" | "zygote" | "zygote_command" | "snapshot" | "freeze" | "frozen_for"
    )
}
