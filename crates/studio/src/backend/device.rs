//! Identity, status and privileges of the calling device.

use std::sync::Arc;

use protocol::Privilege;
use protocol::report::{ArchitectureUpdate, HostStats};
use serde_json::{Value, json};
use wamp::Payload;

use super::{device_and_payload, text, whole};
use crate::api::{DeviceEvent, uri};
use crate::fault::Fault;
use crate::keys::{AccountKey, DeviceKey};
use crate::store::StatusChange;
use crate::studio::{Request, Studio, reply};

/// `read_device_metadata`
pub(super) async fn metadata(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let (device, _) = device_and_payload(&studio, &request).await?;
    reply(&json!({
        "device_key": device.key,
        "device_name": device.name,
        "swarm_key": device.swarm,
        "swarm_name": device.swarm_name,
        "ownername": device.owner_name,
    }))
}

/// `get_app_cred_key`: no arguments, one text.
pub(super) async fn app_cred_key(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let device = studio.calling_device(&request.caller).await?;
    match studio.store.app_cred_key(device.key).await? {
        Some(key) => reply(&key),
        None => Err(Fault::NotFound("the device was removed".to_owned())),
    }
}

/// `update_device_status`: `session-and-api.md` 7.2.
pub(super) async fn update_status(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let (device, members) = device_and_payload(&studio, &request).await?;
    let status = match text(&members, "status")?.as_str() {
        "CONFIGURING" => "CONFIGURING",
        "CONNECTED" => "CONNECTED",
        "EMERGENCY" => "EMERGENCY",
        other => {
            return Err(Fault::Invalid(format!(
                "status {other:?} is not one of CONFIGURING, CONNECTED, EMERGENCY"
            )));
        }
    };
    // The router's word about the session counts; the payload's only where callers are not disclosed with it.
    let session = match (request.caller.session, whole(&members, "wamp_session_id")?) {
        (Some(session), _) | (None, Some(session)) => session,
        (None, None) => return Err(Fault::Invalid("wamp_session_id is missing".to_owned())),
    };
    let stats: Option<HostStats> = match members.get("stats") {
        None | Some(Value::Null) => None,
        Some(stats) => Some(
            serde_json::from_value(stats.clone())
                .map_err(|error| Fault::Invalid(format!("stats are unusable: {error}")))?,
        ),
    };
    let tunnel_capable = match members.get("tunnel_capable") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(flag)) => Some(*flag),
        Some(_) => return Err(Fault::Invalid("tunnel_capable is not a boolean".to_owned())),
    };
    let change = StatusChange {
        status,
        session,
        stats,
        tunnel_capable,
    };
    let before = studio.store.set_status(device.key, change).await?;
    if before != status {
        studio.alarm.ring();
        tracing::info!(device = device.name, status, "device status");
        let event = DeviceEvent {
            device_key: device.key,
            device: device.name.clone(),
            status: status.to_owned(),
        };
        studio
            .publish(&request.session, device.key, uri::DEVICE_EVENTS, &event)
            .await;
    }
    match &studio.settings.base_url {
        Some(url) => reply(&json!({ "reswarmBaseURL": url })),
        None => Ok(Payload::Empty),
    }
}

/// `update_device_architecture`: `session-and-api.md` 7.3.
pub(super) async fn update_architecture(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let (device, members) = device_and_payload(&studio, &request).await?;
    let update = ArchitectureUpdate {
        swarm_key: device.swarm.0,
        device_key: device.key.0,
        architecture: text(&members, "architecture")?,
        os: text(&members, "os")?,
        arch: text(&members, "arch")?,
        variant: text(&members, "variant")?,
        agent_version: text(&members, "agent_version")?,
    };
    if update.architecture.is_empty() {
        return Err(Fault::Invalid("architecture is missing".to_owned()));
    }
    studio.store.set_architecture(device.key, update).await?;
    Ok(Payload::Empty)
}

/// `check_privilege`: `session-and-api.md` 6.2; answers one boolean.
pub(super) async fn check_privilege(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let (device, members) = device_and_payload(&studio, &request).await?;
    let entity = text(&members, "entity")?;
    if entity != "DEVICE" {
        return Err(Fault::Invalid(format!("entity {entity:?} is not DEVICE")));
    }
    match whole(&members, "entity_key")? {
        Some(key) if DeviceKey(key) == device.key => {}
        Some(key) => return Err(Fault::Denied(format!("entity_key {key} is not yours"))),
        None => return Err(Fault::Invalid("entity_key is missing".to_owned())),
    }
    let name = text(&members, "privilege")?;
    let privilege: Privilege = serde_json::from_value(Value::String(name.clone())).map_err(|_| {
        Fault::Invalid(format!(
            "privilege {name:?} is not one of READ, NETWORK, DEVELOP, MAINTAIN"
        ))
    })?;
    let Some(account) = whole(&members, "requestor_account_key")? else {
        return Err(Fault::Invalid("requestor_account_key is missing".to_owned()));
    };
    reply(
        &studio
            .store
            .is_allowed(AccountKey(account), device.key, privilege)
            .await?,
    )
}
