//! Telling a device what is wanted: the keyword arguments of `request_app_state` and the rows of
//! `get_requested_app_states` (`app-lifecycle.md` 13.1, 13.2). Both say the same, so one function makes both.

use serde_json::{Map, Value, json};
use wamp::Payload;
use wamp::client::{CallOptions, RequestError, Session};
use wamp::uri::error;

use crate::api::Delivery;
use crate::fault::Fault;
use crate::store::{Install, Store};
use crate::studio::DEVICE_DEADLINE;

/// Times that a request which was overtaken by a newer one is sent again before the next connect has to do.
const ATTEMPTS: u32 = 3;

/// One row of `get_requested_app_states`.
pub(crate) fn row(install: &Install) -> Map<String, Value> {
    let members = json!({
        "app_key": install.app,
        "app_name": install.app_name,
        "stage": install.stage,
        "device_key": install.device,
        "serial_number": install.serial,
        "current_state": install.current,
        "target_state": install.target,
        "manually_requested_state": install.target,
        "release_key": install.release,
        "new_release_key": install.new_release,
        "present_version": install.present_version,
        "newest_version": install.newest_version,
        "request_update": install.request_update,
        "requestor_account_key": install.requestor,
        "device_owner_account_key": install.device_owner,
        "environment": install.environment,
        "environment_template": install.environment_template,
        "ports": install.ports,
        "docker_compose": install.docker_compose,
        "new_docker_compose": install.new_docker_compose,
        "app_cred_epoch": install.app_cred_epoch,
    });
    match members {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// The keyword arguments of `request_app_state`.
pub(crate) fn kwargs(install: &Install) -> Map<String, Value> {
    let mut members = row(install);
    // Known to the device; not part of this message.
    members.remove("device_key");
    members.remove("serial_number");
    members.insert("docker_credentials".to_owned(), json!({}));
    members.insert("cancel_transition".to_owned(), json!(false));
    members
}

/// Sends the request as stored to its device. A request stored meanwhile is sent instead: the last one that the
/// device hears is the last one stored.
pub(crate) async fn deliver(store: &Store, session: &Session, install: &Install) -> Result<Delivery, Fault> {
    let mut sent = install.clone();
    for _ in 0..ATTEMPTS {
        let delivery = send(session, &sent).await;
        let now = store.install(sent.device, sent.app, sent.stage).await?;
        match now {
            Some(now) if now.revision != sent.revision => sent = now,
            _ => return Ok(delivery),
        }
    }
    Ok(Delivery::Failed {
        reason: "requests for this app arrive faster than the device answers".to_owned(),
    })
}

async fn send(session: &Session, install: &Install) -> Delivery {
    let procedure = protocol::uri::device(&install.serial, "request_app_state");
    let kwargs = match wamp::Value::from(Value::Object(kwargs(install))) {
        wamp::Value::Dict(kwargs) => kwargs,
        _ => wamp::Dict::new(),
    };
    let payload = Payload::from_kwargs(kwargs);
    match session
        .call(&procedure, payload, CallOptions::timeout(DEVICE_DEADLINE))
        .await
    {
        Ok(_) => Delivery::Accepted,
        Err(RequestError::Peer(answer)) if answer.uri == error::NO_SUCH_PROCEDURE => Delivery::Offline,
        Err(failure) => Delivery::Failed {
            reason: failure.to_string(),
        },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::keys::{AccountKey, AppKey, DeviceKey, ReleaseKey};
    use protocol::{AppState, Stage};

    pub(crate) fn example() -> Install {
        Install {
            device: DeviceKey(3),
            device_name: "press".to_owned(),
            serial: "abc".to_owned(),
            online: true,
            device_owner: AccountKey(9),
            app: AppKey(6),
            app_name: "MyApp".to_owned(),
            stage: Stage::Prod,
            target: AppState::Running,
            current: AppState::Present,
            release: ReleaseKey(100),
            new_release: ReleaseKey(101),
            present_version: "1.4.0".to_owned(),
            newest_version: "1.5.0".to_owned(),
            docker_compose: None,
            new_docker_compose: None,
            request_update: true,
            update_status: String::new(),
            requestor: AccountKey(12),
            environment: Map::from_iter([("MQTT_HOST".to_owned(), json!({"value": "broker.local"}))]),
            environment_template: Map::from_iter([("MQTT_PORT".to_owned(), json!({"defaultValue": 1883}))]),
            ports: vec![
                json!({"name": "web", "port": 8080, "protocol": "http", "active": true, "main": true}),
            ],
            app_cred_epoch: 2,
            revision: 1,
            reports: 0,
            updated: String::new(),
        }
    }

    #[test]
    fn keyword_arguments_are_those_of_the_contract() {
        let expected = json!({
            "app_key": 6, "app_name": "MyApp", "stage": "PROD", "current_state": "PRESENT",
            "target_state": "RUNNING", "manually_requested_state": "RUNNING", "release_key": 100,
            "new_release_key": 101, "present_version": "1.4.0", "newest_version": "1.5.0", "request_update": true,
            "requestor_account_key": 12, "device_owner_account_key": 9, "app_cred_epoch": 2,
            "environment": {"MQTT_HOST": {"value": "broker.local"}},
            "environment_template": {"MQTT_PORT": {"defaultValue": 1883}},
            "ports": [{"name": "web", "port": 8080, "protocol": "http", "active": true, "main": true}],
            "docker_compose": null, "new_docker_compose": null, "docker_credentials": {}, "cancel_transition": false,
        });
        assert_eq!(Value::Object(kwargs(&example())), expected);
    }

    #[test]
    fn both_forms_are_what_a_device_reads() {
        let install = example();
        let from_kwargs = protocol::request::parse_kwargs(&kwargs(&install)).unwrap();
        let from_row = protocol::request::parse_row(&Value::Object(row(&install))).unwrap();
        assert_eq!(from_kwargs, from_row);
        assert_eq!(from_row.target, AppState::Running);
        assert_eq!((from_row.release_key, from_row.new_release_key), (100, 101));
        assert!(from_row.docker_compose.is_none());
    }
}
