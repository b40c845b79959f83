//! Devices: add, list, show, remove, call.

use std::sync::Arc;
use std::time::Duration;

use protocol::Privilege;
use protocol::flock::{Flock, FlockDocument};
use serde_json::Value;
use wamp::client::{CallOptions, RequestError, WampError};
use wamp::uri::error;
use wamp::{Dict, Payload};

use super::{check_name, device_view};
use crate::api::{AddDevice, CallDevice, DeviceAdded, OneDevice};
use crate::fault::{DeviceError, Fault};
use crate::keys::DeviceAuthid;
use crate::store::NewDevice;
use crate::studio::{DEVICE_DEADLINE, Request, Studio, reply};

/// Longest deadline a caller may ask for.
const LONGEST_CALL: Duration = Duration::from_secs(3600);

/// Procedures that agents answer to the platform itself, never to a person: with them a caller could steer a device
/// past the store, so they need the right to do what they lead to.
const PLATFORM_ONLY: [&str; 4] = [
    "request_app_state",
    "device_handshake",
    "get_tunnel_state",
    "check_host_port",
];

/// The file that makes a machine this device.
fn flock(studio: &Studio, new: &NewDevice) -> Flock {
    let device = &new.device;
    Flock {
        name: device.name.clone(),
        secret: new.secret.clone(),
        swarm_key: device.swarm.0,
        device_key: device.key.0,
        swarm_name: device.swarm_name.clone(),
        swarm_owner_name: device.owner_name.clone(),
        serial_number: device.serial.clone(),
        device_endpoint_url: studio.settings.public_url.clone(),
        docker_registry_url: studio.settings.registry.clone(),
        docker_main_repository: studio.settings.repository.clone(),
        environment: "local".to_owned(),
        appliance_domain: String::new(),
        update_url: studio.settings.update_url.clone(),
        board_model: String::new(),
        certificate: String::new(),
        certificate_key: String::new(),
    }
}

pub(super) async fn add(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let account = request.caller.account()?;
    let AddDevice { name } = request.kwargs()?;
    check_name("a device", &name)?;
    let swarm = studio.store.first_swarm().await?;
    let new = studio.store.add_device(name, swarm, account).await?;
    studio.renew_reach(account).await?;
    if let Some(registry) = &studio.registry {
        registry.refresh_users().await;
    }
    tracing::info!(device = new.device.name, key = %new.device.key, "device added");
    let flock = FlockDocument::issue(&flock(&studio, &new)).to_text();
    reply(&DeviceAdded {
        device: device_view(&new.device),
        flock,
    })
}

pub(super) async fn list(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let account = request.caller.account()?;
    let mut views = Vec::new();
    for device in studio.store.devices().await? {
        if studio.sees(account, &device).await? {
            views.push(device_view(&device));
        }
    }
    reply(&views)
}

pub(super) async fn show(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let account = request.caller.account()?;
    let OneDevice { device } = request.kwargs()?;
    reply(&device_view(&studio.device_for(account, &device).await?))
}

pub(super) async fn remove(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let account = request.caller.account()?;
    let OneDevice { device } = request.kwargs()?;
    let device = studio.device_for(account, &device).await?;
    studio.require_owner(account, device.owner, "the device").await?;
    studio.store.remove_device(device.key).await?;
    if let Some(registry) = &studio.registry {
        registry.refresh_users().await;
    }
    tracing::info!(device = device.name, key = %device.key, "device removed");
    // Its secret is gone, so it cannot come back; a device without a session has none to end.
    let authid = DeviceAuthid {
        swarm: device.swarm,
        device: device.key,
    }
    .to_string();
    let arguments = Payload::from_parts(
        vec![authid.into()],
        Dict::from([("message".to_owned(), "the device was removed".into())]),
    );
    let options = CallOptions::timeout(DEVICE_DEADLINE);
    if let Err(error) = request
        .session
        .call("wamp.session.kill_by_authid", arguments, options)
        .await
    {
        tracing::warn!(device = device.name, %error, "the removed device's sessions were not ended");
    }
    reply(&device_view(&device))
}

/// Calls a device for the account. The agent decides by the account whether it obeys.
pub(super) async fn call(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let account = request.caller.account()?;
    let mut wanted: CallDevice = request.kwargs()?;
    let device = studio.device_for(account, &wanted.device).await?;
    if PLATFORM_ONLY.contains(&wanted.procedure.as_str()) {
        studio.require(account, &device, Privilege::Maintain).await?;
    }
    let procedure = protocol::uri::device(&device.serial, &wanted.procedure);
    if !wamp::uri::is_loose(&procedure) {
        return Err(Fault::Invalid(format!(
            "{:?} cannot be the name of a procedure",
            wanted.procedure
        )));
    }
    let deadline = wanted.timeout.map_or(DEVICE_DEADLINE, Duration::from_millis);
    if deadline.is_zero() || deadline > LONGEST_CALL {
        return Err(Fault::Invalid(
            "timeout has to be between 1 ms and an hour".to_owned(),
        ));
    }
    wanted
        .kwargs
        .insert("requestor_account_key".to_owned(), Value::from(account.0));
    let payload = Payload::from_parts(
        wanted.args.into_iter().map(wamp::Value::from).collect(),
        wanted
            .kwargs
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect(),
    );
    match request
        .session
        .call(&procedure, payload, CallOptions::timeout(deadline))
        .await
    {
        Ok(result) => Ok(result.payload),
        Err(RequestError::Peer(answer)) if answer.uri == error::NO_SUCH_PROCEDURE => {
            // The store's view may lag behind a lost session by the time the testament takes.
            let online = studio
                .store
                .device(device.key)
                .await?
                .is_some_and(|device| device.is_online());
            Err(if online {
                Fault::NotFound(format!(
                    "device {:?} offers no procedure {:?}",
                    device.name, wanted.procedure
                ))
            } else {
                Fault::Offline(format!("device {:?} is offline", device.name))
            })
        }
        Err(RequestError::Peer(answer)) => Err(Fault::Device(Box::new(DeviceError(answer)))),
        Err(failure) => {
            let text = format!("device {:?} did not answer: {failure}", device.name);
            Err(Fault::Device(Box::new(DeviceError(WampError::new(
                error::CANCELED,
                text,
            )))))
        }
    }
}
