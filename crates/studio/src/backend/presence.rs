//! Whose session has ended: by its testament, and by asking the router, as testaments may be published while nobody
//! listens, or never.

use std::collections::HashSet;
use std::time::Duration;

use protocol::report::Testament;
use wamp::Payload;
use wamp::client::{CallOptions, Event, Session};

use crate::api::{DeviceEvent, uri};
use crate::keys::{DeviceAuthid, DeviceKey};
use crate::store::{Device, StoreError};
use crate::studio::Studio;

/// For the list of all sessions.
const LIST: Duration = Duration::from_secs(10);

/// Why it is not known who is connected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RollCallError {
    #[error("the router names no sessions: {0}")]
    Router(String),
    #[error("the fleet store did not answer")]
    Store(#[from] StoreError),
}

/// A testament of a device's session was published. Only the device's current session ends it: one that a newer
/// session has replaced says nothing, and neither does one that another device left.
pub(crate) async fn disconnected(studio: &Studio, session: &Session, event: &Event) {
    let testament = match event.payload.first::<Testament>() {
        Ok(Some(testament)) => testament,
        Ok(None) => return tracing::warn!("a testament without content was ignored"),
        Err(error) => return tracing::warn!(%error, "an unreadable testament was ignored"),
    };
    let key = DeviceKey(testament.device_key);
    // A router that discloses no publishers is believed: the testament has to name the session, which is no secret
    // but hard to guess.
    if let Some(author) = event.details.get("publisher_authid")
        && author
            .as_str()
            .and_then(DeviceAuthid::parse)
            .map(|author| author.device)
            != Some(key)
    {
        return tracing::warn!(device = %key, "a testament that somebody else left was ignored");
    }
    match studio
        .store
        .disconnect(key, testament.serial_number, testament.wamp_session_id)
        .await
    {
        Ok(Some(device)) => tell(studio, session, device).await,
        Ok(None) => tracing::debug!(device = %key, "the testament of an older session was ignored"),
        Err(error) => tracing::error!(%error, "a testament could not be stored"),
    }
}

/// Marks every device disconnected whose session the router does not have any more.
pub(crate) async fn roll_call(studio: &Studio, session: &Session) -> Result<(), RollCallError> {
    // Those that come after this may be missing in the router's answer.
    let mut gone = studio.store.sessions().await?;
    if gone.is_empty() {
        return Ok(());
    }
    let present = sessions(session).await.map_err(RollCallError::Router)?;
    gone.retain(|(_, session)| !present.contains(session));
    let devices = studio.store.disconnect_gone(gone).await?;
    if !devices.is_empty() {
        studio.alarm.ring();
    }
    for device in devices {
        tell(studio, session, device).await;
    }
    Ok(())
}

/// The sessions of the realm.
async fn sessions(session: &Session) -> Result<HashSet<u64>, String> {
    let listed = session
        .call("wamp.session.list", Payload::Empty, CallOptions::timeout(LIST))
        .await
        .map_err(|error| error.to_string())?;
    let sessions = listed.payload.first().map_err(|error| error.to_string())?;
    sessions.ok_or_else(|| "an empty answer".to_owned())
}

/// A device was found disconnected.
async fn tell(studio: &Studio, session: &Session, device: Device) {
    tracing::info!(device = device.name, "device disconnected");
    let event = DeviceEvent {
        device_key: device.key,
        device: device.name,
        status: device.status,
    };
    studio
        .publish(session, device.key, uri::DEVICE_EVENTS, &event)
        .await;
}
