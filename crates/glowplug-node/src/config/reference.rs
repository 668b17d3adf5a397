//! The reference page of the config, rendered from the table of settings.

use std::fmt::Write;

use super::layers::env_names;
use super::machine::built_in;
use super::setting::{Fallback, Section};
use super::unit::write_bytes;
use super::value::Value;

const HEAD: &str = "\
# Configuration reference

Generated from the table of settings in `glowplug-node`; a test fails when this page is not current.

A node reads `glowplug.toml` in the current directory, or the file that `--config FILE` or
`GLOWPLUG_CONFIG` names. A setting may come from four places, the stronger first: the command line, the
environment, the file, the default. `glowplug config show --origin` tells for each where it comes from;
`glowplug config check` only looks for mistakes.

Durations are numbers of seconds, or texts such as `30s`, `5m`, `1h30m`, `250ms`, `2d`. Amounts of memory
are numbers of bytes, or texts such as `16GiB` or `512MB`. Relative paths begin at the config file's
directory, and at the current one in the environment and on the command line.

The settings of `[node]` and of the tables below it may be set in the environment under the names given;
apps and machine types only in the file.

What decides about an app's scaling, the stronger first: a change made by `glowplug apps scale`, this
file, the attributes of its class, the default. A `fal.App` sets a `keep_alive` of 60 s, so the default
here is that of commands.
";

/// The whole page, in Markdown.
pub fn render() -> String {
    let mut page = HEAD.to_owned();
    for section in Section::ALL {
        // Writing to a String cannot fail.
        let _ = write!(page, "\n## `[{}]`\n\n{}\n", section.path(), section.doc());
        for setting in section.settings() {
            let _ = write!(page, "\n### `{}`\n\n{}\n\n", setting.key, setting.doc);
            let _ = writeln!(page, "- value: {}", setting.kind.expected());
            let _ = match setting.fallback {
                Fallback::Value(text) => match setting.kind.read_text(text) {
                    Ok(value) => writeln!(page, "- default: `{value}`"),
                    Err(_) => writeln!(page, "- default: `{text}`"),
                },
                Fallback::Otherwise(text) => writeln!(page, "- default: {text}"),
            };
            let names = env_names(section, setting);
            if !names.is_empty() {
                let _ = writeln!(page, "- environment: `{}`", names.join("` or `"));
            }
        }
        if section == Section::MachineType {
            render_built_in(&mut page);
        }
    }
    page
}

fn render_built_in(page: &mut String) {
    page.push_str(
        "\n### Built-in machine types\n\n\
         They carry fal's names and amounts. An app that names no machine type gets `default`, which sets \
         little aside and holds nobody to it, so that several such apps fit a small machine; give an app a \
         machine type when it must not share what it needs. On a machine smaller than fal's, declare a type \
         of the same name with less.\n\n\
         | name | CPU cores | memory | GPU | enforced |\n| --- | --- | --- | --- | --- |\n",
    );
    let mut machines: Vec<_> = built_in().into_values().collect();
    machines.sort_by_key(|m| (m.machine.gpus, m.machine.memory_bytes, m.machine.name.clone()));
    for machine in machines {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} |",
            machine.machine.name,
            Value::CpuMillis(machine.machine.cpu_millis),
            write_bytes(machine.machine.memory_bytes),
            machine.machine.gpu_kind.as_deref().unwrap_or("none"),
            if machine.enforce { "yes" } else { "no" },
        );
    }
}
