//! `glowplug keys`

use clap::ValueEnum;
use glowplug_api::control::{KeyCreated, KeyRequest, KeyView};

use crate::cli::Context;
use crate::failure::Failure;
use crate::output::moment;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a key and print it, this once
    Create {
        /// What the key is for
        #[arg(long, default_value = "")]
        alias: String,
        /// What it may do: call apps, or also change things
        #[arg(long, value_enum, ignore_case = true, default_value_t = Scope::Api)]
        scope: Scope,
    },
    /// All keys, without their secrets
    List,
    /// Make a key useless
    Revoke {
        /// The part of the key before the colon
        id: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum Scope {
    Api,
    Admin,
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Create { alias, scope } => create(alias, scope, context).await,
        Command::List => {
            let keys: Vec<KeyView> = context.client()?.get(&["keys"], &[]).await?;
            context.output.value(&keys, |keys| {
                let row = |key: &KeyView| {
                    let created = moment(key.created_at_micros);
                    vec![key.id.clone(), key.alias.clone(), key.scope.clone(), created]
                };
                let header = ["KEY", "ALIAS", "SCOPE", "CREATED"];
                let empty = "no keys: callers on this machine need none";
                context.output.table(&header, keys.iter().map(row).collect(), empty)
            })
        }
        Command::Revoke { id } => {
            context.client()?.remove(&["keys", &id]).await?;
            context
                .output
                .value(&serde_json::json!({ "revoked": id }), |_| format!("key {id} is revoked"))
        }
    }
}

async fn create(alias: String, scope: Scope, context: &Context) -> Result<(), Failure> {
    let scope = match scope {
        Scope::Api => "API".to_owned(),
        Scope::Admin => "ADMIN".to_owned(),
    };
    let request = KeyRequest { alias, scope };
    let created: KeyCreated = context.client()?.post(&["keys"], &[], Some(&request)).await?;
    context.output.value(&created, |key| format!("{}:{}", key.id, key.secret))?;
    if !context.output.is_json() {
        context.output.note("keep it safe: only its hash is stored, and it is not shown again");
        context
            .output
            .note("use it as FAL_KEY or GLOWPLUG_KEY, or as `Authorization: Key ID:SECRET`");
    }
    Ok(())
}
