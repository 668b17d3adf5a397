//! Changing an app's scaling while it runs: kept in the store, in force at once.

use std::sync::Arc;

use glowplug_api::ErrorType;
use glowplug_api::control::ScalingPatch;
use glowplug_core::Event;
use glowplug_core::spec::AppSpec;

use crate::apps::{App, Deployed, Status};
use crate::settings;
use crate::shared::Shared;

pub(crate) async fn change(
    shared: &Arc<Shared>,
    app: &Arc<App>,
    patch: &ScalingPatch,
) -> Result<(), (ErrorType, String)> {
    let deployed = match app.status() {
        Status::Ready(deployed) => deployed,
        Status::Preparing { doing } => {
            let detail = format!("{} is still being prepared ({doing}); try again", app.name());
            return Err((ErrorType::Conflict, detail));
        }
        Status::Broken { reason } => return Err((ErrorType::AppBroken, reason)),
    };
    let settings = settings::merge(&stored(shared, app).await?, patch);
    let base = app.config.scaling.apply(deployed.class_scaling);
    let scaling =
        settings::apply(&settings, base).map_err(|problem| (ErrorType::BadRequest, problem))?;
    let json = serde_json::to_string(&settings)
        .map_err(|error| (ErrorType::InternalError, error.to_string()))?;
    shared
        .store
        .put_setting(app.name().to_owned(), settings::SCALING.to_owned(), json)
        .await
        .map_err(|error| (ErrorType::StoreUnavailable, error.to_string()))?;
    let spec = AppSpec { scaling, ..deployed.spec.clone() };
    shared.apps.deploy(app, Deployed { spec: spec.clone(), ..(*deployed).clone() });
    shared.desk.report(Event::AppChanged { app: app.id, spec });
    Ok(())
}

/// What was changed at run time before.
pub(crate) async fn stored(
    shared: &Shared,
    app: &App,
) -> Result<ScalingPatch, (ErrorType, String)> {
    let settings = shared
        .store
        .settings()
        .await
        .map_err(|error| (ErrorType::StoreUnavailable, error.to_string()))?;
    let json = settings
        .into_iter()
        .find(|(name, key, _)| name == app.name() && key == settings::SCALING)
        .map(|(_, _, json)| json);
    Ok(json.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default())
}
