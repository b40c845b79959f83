//! Apps, their releases, and the registry that holds their images.

use std::sync::Arc;

use protocol::PortRule;
use serde_json::{Map, Value};
use wamp::Payload;

use super::{app_view, check_name, check_version, environment};
use crate::api::{AddApp, AddRelease, OneApp, RegistryLogin};
use crate::fault::Fault;
use crate::registry::PUBLISHER;
use crate::store::{App, NewRelease};
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
    check_document(wanted.docker_compose.as_ref())?;
    let release = match (wanted.version, wanted.docker_compose) {
        (Some(version), docker_compose) => Some(NewRelease {
            version,
            docker_compose,
        }),
        (None, None) => None,
        (None, Some(_)) => {
            return Err(Fault::Invalid(
                "a Compose document belongs to a version: name it, too".to_owned(),
            ));
        }
    };
    let (_, bad) = PortRule::parse_list(&wanted.ports);
    if let Some(bad) = bad.first() {
        return Err(Fault::Invalid(bad.to_string()));
    }
    let template = environment(wanted.environment, "defaultValue")?;
    let app = studio
        .store
        .add_app(wanted.name, account, release, wanted.ports, template)
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
        docker_compose,
        exists_ok,
    } = request.kwargs()?;
    check_version(&version)?;
    check_document(docker_compose.as_ref())?;
    let app = find(&studio, &app).await?;
    studio.require_owner(account, app.owner, "the app").await?;
    // A device tells by the document of the installed version which kind of app it has: the kind never changes.
    if let Some(before) = app.releases.first() {
        match (&before.docker_compose, &docker_compose) {
            (Some(_), None) => {
                return Err(Fault::Invalid(format!(
                    "app {:?} is a Compose app: its versions need a document (--compose FILE)",
                    app.name
                )));
            }
            (None, Some(_)) => {
                return Err(Fault::Invalid(format!(
                    "app {:?} is a single container: add another app for the Compose document",
                    app.name
                )));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    let release = NewRelease {
        version,
        docker_compose,
    };
    reply(&app_view(
        &studio.store.add_release(app.key, release, exists_ok).await?,
    ))
}

/// A document that a device can work with: at least one service, each an object.
fn check_document(document: Option<&Map<String, Value>>) -> Result<(), Fault> {
    let Some(document) = document else {
        return Ok(());
    };
    match document.get("services") {
        Some(Value::Object(services)) if !services.is_empty() && services.values().all(Value::is_object) => {
            Ok(())
        }
        _ => Err(Fault::Invalid("the Compose document has no services".to_owned())),
    }
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
