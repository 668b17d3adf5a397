//! What a caller said about retries, between its forms: the engine's, and the JSON that is kept.

use glowplug_core::retry::{Budgets, Wish};
use serde::{Deserialize, Serialize};

/// `X-Fal-Retry-Config`.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Retries>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_error: Option<Retries>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_error: Option<Retries>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_error: Option<Retries>,
}

#[derive(Serialize, Deserialize)]
struct Retries {
    retries: u32,
}

/// What is kept of a wish: that there be no retry, and the budgets.
pub(super) fn kept(wish: Wish) -> (bool, Option<String>) {
    let retries = |retries: Option<u32>| retries.map(|retries| Retries { retries });
    match wish {
        Wish::Unsaid => (false, None),
        Wish::Never => (true, None),
        Wish::Budgets(Budgets { timeout, client_error, server_error, connection_error }) => {
            let config = Config {
                timeout: retries(timeout),
                client_error: retries(client_error),
                server_error: retries(server_error),
                connection_error: retries(connection_error),
            };
            (false, serde_json::to_string(&config).ok())
        }
    }
}

/// The wish that was kept. One that cannot be read is none, as with the header.
pub(super) fn wish(no_retry: bool, config: Option<&str>) -> Wish {
    if no_retry {
        return Wish::Never;
    }
    let Some(config) = config.and_then(|json| serde_json::from_str::<Config>(json).ok()) else {
        return Wish::Unsaid;
    };
    let retries = |retries: Option<Retries>| retries.map(|retries| retries.retries);
    Wish::Budgets(Budgets {
        timeout: retries(config.timeout),
        client_error: retries(config.client_error),
        server_error: retries(config.server_error),
        connection_error: retries(config.connection_error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_survives_being_kept() {
        let some = Budgets { timeout: Some(2), connection_error: Some(0), ..Budgets::default() };
        for one in
            [Wish::Unsaid, Wish::Never, Wish::Budgets(some), Wish::Budgets(Budgets::default())]
        {
            let (no_retry, config) = kept(one);
            assert_eq!(wish(no_retry, config.as_deref()), one, "{config:?}");
        }
        let (_, config) = kept(Wish::Budgets(some));
        let json = r#"{"timeout":{"retries":2},"connection_error":{"retries":0}}"#;
        assert_eq!(config.as_deref(), Some(json), "the form is the header's");
        assert_eq!(wish(false, Some("{")), Wish::Unsaid);
    }
}
