//! The procedures that agents call (`session-and-api.md` 7.1): one table, one file per group.
//!
//! The caller's identity decides which device is meant. A payload that names another one is refused: after a project
//! move or a copied identity file nothing may be written under the wrong device.

mod apps;
mod device;
mod presence;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use protocol::uri::backend as uri;
use serde_json::{Map, Value};
use wamp::Payload;

use crate::fault::Fault;
use crate::store::Device;
use crate::studio::{Request, Studio};

/// The answer of a procedure.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Payload, Fault>> + Send>>;
/// One procedure: its URI and what it does.
pub(crate) type Procedure = (&'static str, fn(Arc<Studio>, Request) -> Answer);

/// Everything an agent may call.
pub(crate) const PROCEDURES: &[Procedure] = &[
    (uri::READ_DEVICE_METADATA, |studio, request| {
        Box::pin(device::metadata(studio, request))
    }),
    (uri::GET_APP_CRED_KEY, |studio, request| {
        Box::pin(device::app_cred_key(studio, request))
    }),
    (uri::UPDATE_DEVICE_STATUS, |studio, request| {
        Box::pin(device::update_status(studio, request))
    }),
    (uri::UPDATE_DEVICE_ARCHITECTURE, |studio, request| {
        Box::pin(device::update_architecture(studio, request))
    }),
    (uri::CHECK_PRIVILEGE, |studio, request| {
        Box::pin(device::check_privilege(studio, request))
    }),
    (uri::GET_REQUESTED_APP_STATES, |studio, request| {
        Box::pin(apps::requested_states(studio, request))
    }),
    (uri::UPDATE_APP_ON_DEVICE, |studio, request| {
        Box::pin(apps::update_app(studio, request))
    }),
    (uri::GET_REGISTRY_TOKEN, |studio, request| {
        Box::pin(apps::registry_token(studio, request))
    }),
];

pub(crate) use apps::registry_user;
pub(crate) use presence::{disconnected, roll_call};

/// The calling device and the first argument, whose keys must be those of the caller.
async fn device_and_payload(
    studio: &Studio,
    request: &Request,
) -> Result<(Device, Map<String, Value>), Fault> {
    let device = studio.calling_device(&request.caller).await?;
    let members = request.first_dict()?;
    same_device(&device, &members)?;
    Ok((device, members))
}

/// Refuses a payload that names another device than the caller. Members that are left out claim nothing.
fn same_device(device: &Device, members: &Map<String, Value>) -> Result<(), Fault> {
    for (member, own) in [("device_key", device.key.0), ("swarm_key", device.swarm.0)] {
        match members.get(member) {
            None | Some(Value::Null) => {}
            Some(value) => match protocol::number::whole(value) {
                Some(named) if named == own => {}
                Some(named) => {
                    return Err(Fault::Denied(format!(
                        "{member} {named} is not yours: this session has {own}"
                    )));
                }
                None => return Err(Fault::Invalid(format!("{member} is not a whole number"))),
            },
        }
    }
    match members.get("serial_number") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(serial)) if *serial == device.serial => Ok(()),
        Some(_) => Err(Fault::Denied("serial_number is not yours".to_owned())),
    }
}

/// A text member; left out or null is empty.
fn text(members: &Map<String, Value>, member: &str) -> Result<String, Fault> {
    match members.get(member) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(Fault::Invalid(format!("{member} is not a text"))),
    }
}

/// A whole number; left out or null is `None`.
fn whole(members: &Map<String, Value>, member: &str) -> Result<Option<u64>, Fault> {
    match members.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => protocol::number::whole(value)
            .map(Some)
            .ok_or_else(|| Fault::Invalid(format!("{member} is not a whole number"))),
    }
}
