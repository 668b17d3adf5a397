//! Changing an app's scaling while it runs: kept in the store, in force at once.

use std::collections::HashMap;
use std::sync::Arc;

use glowplug_api::ErrorType;
use glowplug_api::control::ScalingPatch;
use glowplug_core::Event;
use glowplug_core::spec::{AppSpec, Overrides, Policy, Scaling};
use glowplug_store::{Store, StoreError};

use crate::apps::{App, Deployed, Status};
use crate::shared::Shared;
use crate::{recall, settings};

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
    // Held to the end, so that of two changes at once none is lost.
    let mut changed = shared.scaling.lock().await;
    let before = changed.get(app.name()).copied().unwrap_or_default();
    let refused = |problem: String| (ErrorType::BadRequest, problem);
    let settings = settings::overrides(patch).map_err(refused)?.over(before);
    let scaling = resulting(app, &deployed, settings).map_err(refused)?;
    let json = serde_json::to_string(&settings::patch(&settings))
        .map_err(|error| (ErrorType::InternalError, error.to_string()))?;
    shared
        .store
        .put_setting(app.name().to_owned(), settings::SCALING.to_owned(), json)
        .await
        .map_err(|error| (ErrorType::StoreUnavailable, error.to_string()))?;
    changed.insert(app.name().to_owned(), settings);
    put_in_force(shared, app, &deployed, scaling).await;
    Ok(())
}

fn resulting(app: &App, deployed: &Deployed, settings: Overrides) -> Result<Scaling, String> {
    let scaling = settings.over(app.config.scaling).apply(deployed.class_scaling);
    scaling.map_err(|error| error.to_string())
}

async fn put_in_force(
    shared: &Arc<Shared>,
    app: &Arc<App>,
    deployed: &Arc<Deployed>,
    scaling: Scaling,
) {
    if let (Policy::Fixed, Policy::Auto(aims)) = (deployed.spec.scaling.policy, scaling.policy) {
        recall::one(shared, app, aims).await;
    }
    let spec = AppSpec { scaling, ..deployed.spec.clone() };
    shared.apps.deploy(app, Deployed { spec: spec.clone(), ..(**deployed).clone() });
    shared.desk.report(Event::AppChanged { app: app.id, spec });
}

/// Takes up what was changed through another node of the same store.
pub(crate) async fn reload(shared: &Arc<Shared>) -> Result<(), StoreError> {
    let mut changed = shared.scaling.lock().await;
    let before = std::mem::replace(&mut *changed, load(&*shared.store).await?);
    for app in shared.apps.all() {
        let settings = changed.get(app.name()).copied().unwrap_or_default();
        if before.get(app.name()).copied().unwrap_or_default() == settings {
            continue;
        }
        // One that is being prepared finds it when it is ready.
        let Status::Ready(deployed) = app.status() else { continue };
        match resulting(app, &deployed, settings) {
            Ok(scaling) => put_in_force(shared, app, &deployed, scaling).await,
            Err(problem) => {
                let app = app.name();
                tracing::warn!(
                    app,
                    "scaling that another node set is not possible here: {problem}"
                );
            }
        }
    }
    Ok(())
}

/// What was changed at run time before, by app.
pub(crate) async fn load(store: &dyn Store) -> Result<HashMap<String, Overrides>, StoreError> {
    let settings = store.settings().await?;
    let scaling = settings.into_iter().filter(|(_, key, _)| key == settings::SCALING);
    Ok(scaling
        .filter_map(|(app, _, json)| {
            let patch: ScalingPatch = serde_json::from_str(&json).ok()?;
            Some((app, settings::overrides(&patch).ok()?))
        })
        .collect())
}
