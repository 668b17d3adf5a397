//! What of an app's requests is tried again: its config's word, else that of its class.

use glowplug_artifacts::RetrySettings;
use glowplug_core::retry::{Budgets, Condition, Conditions, Rules};

use crate::config::{AppConfig, retry_condition};

/// What the class itself says. Names that this version does not know say nothing.
pub(crate) fn of_class(settings: &RetrySettings) -> Rules {
    let mut budgets = Budgets::default();
    for (name, retries) in settings.retries.iter().flatten() {
        let budget = match retry_condition(name) {
            Some(Condition::Timeout) => &mut budgets.timeout,
            Some(Condition::ClientError) => &mut budgets.client_error,
            Some(Condition::ServerError) => &mut budgets.server_error,
            Some(Condition::ConnectionError) => &mut budgets.connection_error,
            None => continue,
        };
        *budget = Some(*retries);
    }
    let skip = settings.skip.iter().filter_map(|name| retry_condition(name)).collect();
    Rules { budgets, skip }
}

/// What holds for the app: each of the two settings is the config's if it is there.
pub(crate) fn of_app(class: Rules, config: &AppConfig) -> Rules {
    let skip = config.skip_retry_conditions.as_ref();
    let skip = skip.map(|names| names.iter().copied().collect::<Conditions>());
    Rules {
        budgets: config.retry_config.unwrap_or(class.budgets),
        skip: skip.unwrap_or(class.skip),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_class_names_conditions_as_fal_does() {
        let settings = RetrySettings {
            retries: Some(BTreeMap::from([("timeout".into(), 2), ("novelty".into(), 5)])),
            skip: vec!["server_error".into(), "novelty".into()],
            request_start_timeout: None,
        };
        let rules = of_class(&settings);
        assert_eq!(rules.budgets, Budgets { timeout: Some(2), ..Budgets::default() });
        assert_eq!(rules.skip, [Condition::ServerError].into_iter().collect());
        assert_eq!(of_class(&RetrySettings::default()), Rules::default());
    }
}
