//! `glowplug ca`

use glowplug_core::Timestamp;
use glowplug_gateway::LocalAuthority;
use serde_json::json;

use crate::cli::{Context, reachable};
use crate::commands::place;
use crate::failure::Failure;
use crate::output::now_micros;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print only lines for a shell: eval "$(glowplug ca --export)"
    #[arg(long)]
    export: bool,
    #[command(flatten)]
    place: place::PlaceFlags,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let node = context.config(args.place.settings())?.config.node;
    let now = Timestamp::from_micros(now_micros());
    let authority = LocalAuthority::open(&node.data_dir, now).map_err(Failure::environment)?;
    let path = authority.certificate_path().display().to_string();
    let address = reachable(node.listen);
    // What fal's Python client needs: it speaks TLS only, and tells its two services apart by host alone.
    let variables = [
        ("SSL_CERT_FILE", path.clone()),
        ("FAL_RUN_HOST", format!("{address}/run")),
        ("FAL_QUEUE_RUN_HOST", format!("{address}/queue")),
    ];
    let lines: Vec<String> = variables
        .iter()
        .map(|(name, value)| format!("export {name}={}", shell_quoted(value)))
        .collect();
    let output = context.output;
    if output.is_json() {
        let env: serde_json::Map<_, _> =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        return output.data(&format!("{:#}", json!({ "certificate": path, "env": env })));
    }
    if args.export {
        return output.data(&lines.join("\n"));
    }
    output.data(&path)?;
    output.note(&format!(
        "\nfal's Python client uses this node with:\n  {}\nand with FAL_KEY=ID:SECRET from `glowplug keys create`; \
         while the node has no keys, any text in that form",
        lines.join("\n  ")
    ));
    Ok(())
}

/// In single quotes, unless it needs none.
fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:[]".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_survive_the_shell() {
        assert_eq!(shell_quoted("/srv/a-b_c/ca.pem"), "/srv/a-b_c/ca.pem");
        assert_eq!(shell_quoted("/srv/it's here"), r"'/srv/it'\''s here'");
    }
}
