//! Apps, their releases, and the registry that holds their images.

use std::sync::Arc;

use protocol::PortRule;
use wamp::Payload;

use super::{app_view, check_name, check_version, environment};
use crate::api::{AddApp, AddRelease, OneApp, RegistryLogin};
use crate::fault::Fault;
use crate::registry::PUBLISHER;
use crate::store::App;
use crate::studio::{Request, Studio, reply};

/// Finds an app; every account may install every app.
pub(super) async fn find(studio: &Studio, text: &str) -> Result<App, Fault> {
    match studio.store.find_app(text.to_owned()).await? {
        Some(app) => Ok(app),
        None => Err(Fault::NotFound(format!(
            "no app {text:?}: 'studio app list' shows all"
        ))),
    }
}

pub(super) async fn add(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let account = request.caller.account()?;
    let wanted: AddApp = request.kwargs()?;
    check_name("an app", &wanted.name)?;
    if let Some(version) = &wanted.version {
        check_version(version)?;
    }
    let (_, bad) = PortRule::parse_list(&wanted.ports);
    if let Some(bad) = bad.first() {
        return Err(Fault::Invalid(bad.to_string()));
    }
    let template = environment(wanted.environment, "defaultValue")?;
    let app = studio
        .store
        .add_app(wanted.name, account, wanted.version, wanted.ports, template)
        .await?;
    tracing::info!(app = app.name, key = %app.key, "app added");
    reply(&app_view(&app))
}

pub(super) async fn list(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    request.caller.account()?;
    let apps = studio.store.apps().await?;
    reply(&apps.iter().map(app_view).collect::<Vec<_>>())
}

pub(super) async fn remove(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let account = request.caller.account()?;
    let OneApp { app } = request.kwargs()?;
    let app = find(&studio, &app).await?;
    studio.require_owner(account, app.owner, "the app").await?;
    studio.store.remove_app(app.key).await?;
    tracing::info!(app = app.name, key = %app.key, "app removed");
    reply(&app_view(&app))
}

pub(super) async fn add_release(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let account = request.caller.account()?;
    let AddRelease {
        app,
        version,
        exists_ok,
    } = request.kwargs()?;
    check_version(&version)?;
    let app = find(&studio, &app).await?;
    studio.require_owner(account, app.owner, "the app").await?;
    reply(&app_view(
        &studio.store.add_release(app.key, version, exists_ok).await?,
    ))
}

/// The login for publishing images.
pub(super) async fn registry_login(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    request.caller.account()?;
    let (username, password) = match &studio.registry {
        Some(registry) => (PUBLISHER.to_owned(), registry.publisher_password().to_owned()),
        None => (String::new(), String::new()),
    };
    reply(&RegistryLogin {
        registry: studio.settings.registry.clone(),
        repository: studio.settings.repository.clone(),
        username,
        password,
    })
}
