//! What a config says about retries: budgets by condition, and conditions that are skipped.

use glowplug_core::retry::{Budgets, Condition};

use super::document::{Entry, Raw};
use super::problem::suggest;
use super::value::Unfit;

/// fal's names of the conditions under which a request may be tried again.
pub(super) const CONDITIONS: [&str; 4] =
    ["timeout", "client_error", "server_error", "connection_error"];

pub(crate) fn condition(name: &str) -> Option<Condition> {
    match name {
        "timeout" => Some(Condition::Timeout),
        "client_error" => Some(Condition::ClientError),
        "server_error" => Some(Condition::ServerError),
        "connection_error" => Some(Condition::ConnectionError),
        _ => None,
    }
}

/// Reads `{ timeout = { retries = 2 } }`.
pub(super) fn budgets(entries: &[Entry]) -> Result<Budgets, Unfit> {
    let mut budgets = Budgets::default();
    for Entry { key, value, .. } in entries {
        let budget = match condition(key) {
            Some(Condition::Timeout) => &mut budgets.timeout,
            Some(Condition::ClientError) => &mut budgets.client_error,
            Some(Condition::ServerError) => &mut budgets.server_error,
            Some(Condition::ConnectionError) => &mut budgets.connection_error,
            None => {
                return Err(Unfit {
                    message: format!("has the unknown condition `{key}`"),
                    help: Some(suggest(key, &CONDITIONS, "the conditions are")),
                });
            }
        };
        *budget = Some(retries(key, value)?);
    }
    Ok(budgets)
}

fn retries(condition: &str, value: &Raw) -> Result<u32, Unfit> {
    let number = match value {
        Raw::Table(entries) => match entries.as_slice() {
            [Entry { key, value: Raw::Integer(number), .. }] if key == "retries" => {
                u32::try_from(*number).ok()
            }
            _ => None,
        },
        _ => None,
    };
    number.ok_or_else(|| Unfit {
        message: format!("has a `{condition}` that gives no number of retries"),
        help: Some(format!("write {condition} = {{ retries = 2 }}")),
    })
}

/// Checks a list of conditions.
pub(super) fn conditions(names: Vec<String>) -> Result<Vec<Condition>, Unfit> {
    let known = |name: String| {
        condition(&name).ok_or_else(|| Unfit {
            message: format!("has the unknown condition `{name}`"),
            help: Some(suggest(&name, &CONDITIONS, "the conditions are")),
        })
    };
    names.into_iter().map(known).collect()
}

/// As it would be written in the config file.
pub(super) fn written(budgets: &Budgets) -> String {
    let Budgets { timeout, client_error, server_error, connection_error } = *budgets;
    let named = CONDITIONS.into_iter().zip([timeout, client_error, server_error, connection_error]);
    let pairs: Vec<String> = named
        .filter_map(|(name, retries)| {
            retries.map(|retries| format!("{name} = {{ retries = {retries} }}"))
        })
        .collect();
    format!("{{ {} }}", pairs.join(", "))
}
