//! What the calling device should run, what it reports, and its login at the registry.

use std::sync::Arc;

use protocol::{AppId, AppState, Stage};
use serde_json::{Map, Value};
use wamp::Payload;

use super::{device_and_payload, text, whole};
use crate::api::{StateEvent, uri};
use crate::delivery;
use crate::fault::Fault;
use crate::fleet::install_view;
use crate::keys::{AppKey, DeviceKey, ReleaseKey};
use crate::store::{ReportOutcome, StateChange};
use crate::studio::{Request, Studio, reply};

/// Name of a device's user at the registry. One password belongs to one user there, and the password is the
/// device's secret: so every device is a user of its own.
pub(crate) fn registry_user(device: DeviceKey) -> String {
    format!("device-{device}")
}

/// `get_requested_app_states`: every install of the device (`session-and-api.md` 7.4).
pub(super) async fn requested_states(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let (device, _) = device_and_payload(&studio, &request).await?;
    let installs = studio.store.installs(Some(device.key)).await?;
    let rows: Vec<Value> = installs
        .iter()
        .map(|install| Value::Object(delivery::row(install)))
        .collect();
    reply(&rows)
}

/// `update_app_on_device`: a state report, or without `state` a port report (`session-and-api.md` 7.5).
pub(super) async fn update_app(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let (device, members) = device_and_payload(&studio, &request).await?;
    let app = app_id(&members)?;
    match (members.get("state"), members.get("ports")) {
        (Some(Value::String(state)), _) => {
            let change = StateChange {
                app,
                state: state
                    .parse::<AppState>()
                    .ok()
                    .filter(|state| state.is_storable())
                    .ok_or_else(|| Fault::Invalid(format!("state {state:?} is not a state of an app")))?,
                release: ReleaseKey(whole(&members, "release_key")?.unwrap_or(0)),
                update_status: text(&members, "updateStatus")?,
            };
            let state = change.state;
            match studio.store.report_state(device.key, change).await? {
                ReportOutcome::Unknown if app.stage == Stage::Dev => {
                    let event = studio.development.add(device.key, AppKey(app.key), state);
                    studio
                        .publish(&request.session, device.key, uri::DEVELOPMENT_EVENTS, &event)
                        .await;
                }
                ReportOutcome::Unknown => {
                    tracing::debug!(device = device.name, %app, %state, "report about an app of no install");
                }
                ReportOutcome::Stored(install) => {
                    let event = StateEvent {
                        install: install_view(&install),
                        removed: false,
                    };
                    studio
                        .publish(&request.session, device.key, uri::STATE_EVENTS, &event)
                        .await;
                }
                ReportOutcome::Removed(install) => {
                    let event = StateEvent {
                        install: install_view(&install),
                        removed: true,
                    };
                    studio
                        .publish(&request.session, device.key, uri::STATE_EVENTS, &event)
                        .await;
                }
            }
            Ok(Payload::Empty)
        }
        (None | Some(Value::Null), Some(Value::Array(ports))) => {
            let (rules, bad) = protocol::PortRule::parse_list(ports);
            if let Some(bad) = bad.first() {
                return Err(Fault::Invalid(bad.to_string()));
            }
            drop(rules);
            studio.store.report_ports(device.key, app, ports.clone()).await?;
            Ok(Payload::Empty)
        }
        (None | Some(Value::Null), Some(_)) => Err(Fault::Invalid("ports is not a list".to_owned())),
        (None | Some(Value::Null), None) => Err(Fault::Invalid(
            "neither state nor ports: nothing is reported".to_owned(),
        )),
        (Some(_), _) => Err(Fault::Invalid("state is not a text".to_owned())),
    }
}

fn app_id(members: &Map<String, Value>) -> Result<AppId, Fault> {
    let key = whole(members, "app_key")?
        .filter(|key| *key > 0)
        .ok_or_else(|| Fault::Invalid("app_key is missing or 0".to_owned()))?;
    let stage = text(members, "stage")?;
    let stage = stage
        .parse::<Stage>()
        .map_err(|_| Fault::Invalid(format!("stage {stage:?} is not DEV or PROD")))?;
    Ok(AppId { key, stage })
}

/// `get_registry_token`: the user name of the calling device at the registry; the password is its own secret.
pub(super) async fn registry_token(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let device = studio.calling_device(&request.caller).await?;
    reply(&registry_user(device.key))
}
