//! Apps in development on a device: built there, tried there, published from there. The studio stores nothing of
//! them; it hands a person's wish to the device and what the device reports to those who may see it.

use std::sync::Arc;

use protocol::{AppId, AppState, Privilege, Stage, naming};
use serde_json::json;
use wamp::Payload;
use wamp::client::{CallOptions, RequestError};
use wamp::uri::error;

use super::app::find;
use super::check_version;
use crate::api::{Developed, LookAtDevelopment, RequestDevelopment};
use crate::fault::{DeviceError, Fault};
use crate::studio::{DEVICE_DEADLINE, Request, Studio, reply};

pub(super) async fn request(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let account = request.caller.account()?;
    let wanted: RequestDevelopment = request.kwargs()?;
    let device = studio.device_for(account, &wanted.device).await?;
    studio.require(account, &device, Privilege::Develop).await?;
    let app = find(&studio, &wanted.app).await?;
    let version = match (wanted.target, wanted.version) {
        (AppState::Published, Some(version)) => {
            check_version(&version)?;
            // Whoever may publish a version of the app may do so from a device, and nobody else.
            studio.require_owner(account, app.owner, "the app").await?;
            version
        }
        (AppState::Published, None) => {
            return Err(Fault::Invalid("a publication needs a version".to_owned()));
        }
        (
            AppState::Built
            | AppState::Running
            | AppState::Present
            | AppState::Removed
            | AppState::Uninstalled,
            version,
        ) => version.unwrap_or_default(),
        (target, _) => {
            return Err(Fault::Invalid(format!("{target} cannot be asked for")));
        }
    };
    let members = json!({
        "app_key": app.key, "app_name": app.name, "stage": "DEV", "current_state": "REMOVED",
        "target_state": wanted.target, "release_key": 0, "new_release_key": 0, "version": version,
        "present_version": "", "newest_version": "", "request_update": false,
        "requestor_account_key": account, "device_owner_account_key": device.owner,
        "environment": {}, "environment_template": app.environment_template, "ports": app.ports,
        "docker_compose": wanted.docker_compose, "new_docker_compose": null, "docker_credentials": {},
        "cancel_transition": wanted.cancel,
    });
    let kwargs = match wamp::Value::from(members) {
        wamp::Value::Dict(kwargs) => kwargs,
        _ => wamp::Dict::new(),
    };
    let reports = studio.development.newest();
    let procedure = protocol::uri::device(&device.serial, "request_app_state");
    let called = request
        .session
        .call(
            &procedure,
            Payload::from_kwargs(kwargs),
            CallOptions::timeout(DEVICE_DEADLINE),
        )
        .await;
    match called {
        Ok(_) => {}
        Err(RequestError::Peer(answer)) if answer.uri == error::NO_SUCH_PROCEDURE => {
            return Err(Fault::Offline(format!("device {:?} is offline", device.name)));
        }
        Err(RequestError::Peer(answer)) => return Err(Fault::Device(Box::new(DeviceError(answer)))),
        Err(failure) => {
            let text = format!("device {:?} did not answer: {failure}", device.name);
            return Err(Fault::Device(Box::new(DeviceError(
                wamp::client::WampError::new(error::CANCELED, text),
            ))));
        }
    }
    tracing::info!(device = device.name, app = app.name, target = %wanted.target, %account, "development requested");
    let id = AppId {
        key: app.key.0,
        stage: Stage::Dev,
    };
    reply(&Developed {
        device_key: device.key,
        device: device.name.clone(),
        serial_number: device.serial.clone(),
        app_key: app.key,
        app: app.name.clone(),
        container: naming::container(id, &app.name),
        publication: naming::publish_channel(app.key.0, &app.name),
        reports,
    })
}

pub(super) async fn look(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let account = request.caller.account()?;
    let LookAtDevelopment { device, app, after } = request.kwargs()?;
    let device = studio.device_for(account, &device).await?;
    let app = find(&studio, &app).await?;
    reply(&studio.development.after(device.key, app.key, after))
}
