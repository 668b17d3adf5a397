//! `glowplug config`

use glowplug_node::config::{Loaded, Origin, Shown};
use serde_json::{Value, json};

use crate::cli::Context;
use crate::commands::place;
use crate::failure::Failure;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Every setting with its value
    Show {
        /// Also say where each value comes from: file and line, variable, flag or default
        #[arg(long)]
        origin: bool,
        /// Leave out what is not set anywhere
        #[arg(long)]
        set: bool,
        #[command(flatten)]
        place: place::PlaceFlags,
    },
    /// Look for mistakes and start nothing
    Check,
}

pub(crate) fn run(command: &Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Show { origin, set, place } => {
            show(&context.config(place.settings())?, *origin, *set, context)
        }
        Command::Check => {
            let loaded = context.config(Vec::new())?;
            let file = loaded.config.file.as_ref().map(|file| file.display().to_string());
            let apps = loaded.config.apps.len();
            context.output.value(
                &json!({ "ok": true, "file": file, "apps": apps }),
                |_| match &file {
                    Some(file) => format!("{file} is fine; its apps: {apps}"),
                    None => "there is no config file; all defaults".to_owned(),
                },
            )
        }
    }
}

fn show(loaded: &Loaded, origin: bool, set: bool, context: &Context) -> Result<(), Failure> {
    let shown: Vec<&Shown> =
        loaded.shown.iter().filter(|shown| !set || shown.origin != Origin::Default).collect();
    let json: Vec<Value> = shown
        .iter()
        .map(|shown| {
            json!({
                "key": shown.key,
                "value": shown.value,
                "origin": shown.origin.to_string(),
            })
        })
        .collect();
    context.output.value(&json, |_| {
        let rows = shown
            .iter()
            .map(|shown| {
                let mut row = vec![shown.key.clone(), shown.value.clone()];
                if origin {
                    row.push(shown.origin.to_string());
                }
                row
            })
            .collect();
        let header: &[&str] = if origin { &["KEY", "VALUE", "ORIGIN"] } else { &["KEY", "VALUE"] };
        context.output.table(header, rows, "nothing is set; all defaults")
    })
}
