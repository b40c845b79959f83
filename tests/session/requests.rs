//! `request_app_state` and everybody's arguments: what is read, what is refused in which words.

use reagent::rpc::PROCEDURES;
use serde_json::{Value, json};

use super::device::refusal;
use super::plane::Plane;
use super::procedures::connected;

pub(crate) fn request(changes: &Value) -> Value {
    let mut request = json!({"app_key": 12, "app_name": "App", "stage": "PROD", "current_state": "PRESENT",
        "target_state": "PRESENT"});
    request
        .as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    request
}

#[tokio::test]
async fn every_bad_request_is_refused_over_the_wire_and_leaves_nothing_behind() {
    let plane = Plane::own().await;
    let (backend, device, agent) = connected(&plane).await;
    let number = |text: &str| format!("strconv.Atoi: parsing {text:?}: invalid syntax");
    let text = |text: &str| text.to_owned();
    let rows = [
        (json!({"app_key": "six"}), text("failed to parse app_key")),
        (json!({"app_key": -6}), text("failed to parse app_key")),
        (json!({"app_key": 6.5}), text("failed to parse app_key")),
        (json!({"app_key": [6]}), text("failed to parse app_key")),
        (json!({"app_key": 0}), text("missing from payload app_key")),
        (json!({"app_key": null}), text("missing from payload app_key")),
        (json!({"app_name": ""}), text("failed to parse appName")),
        (json!({"app_name": null}), text("failed to parse appName")),
        (json!({"app_name": 5}), text("failed to parse appName")),
        (json!({"stage": 5}), text("failed to parse stage")),
        (json!({"stage": ""}), text("missing from payload stage")),
        (json!({"stage": null}), text("missing from payload stage")),
        (json!({"target_state": 1}), text("failed to parse requestedState")),
        (
            json!({"manually_requested_state": []}),
            text("failed to parse manuallyRequestedState"),
        ),
        (json!({"current_state": 1}), text("failed to parse currentState")),
        (json!({"state": {}}), text("failed to parse currentState2")),
        (
            json!({"requestor_account_key": true}),
            text("failed to parse requestorAccountKey"),
        ),
        (json!({"requestor_account_key": "x"}), number("x")),
        (
            json!({"account_id": []}),
            text("failed to parse requestorAccountKey2"),
        ),
        (json!({"account_id": "1.5"}), number("1.5")),
        (
            json!({"device_owner_account_key": {}}),
            text("failed to parse deviceOwnerAccountKey"),
        ),
        (json!({"device_owner_account_key": "me"}), number("me")),
        (
            json!({"release_key": true}),
            text("failed to parse releaseKeyString"),
        ),
        (
            json!({"release_key": "v1"}),
            text("strconv.ParseUint: parsing \"v1\": invalid syntax"),
        ),
        (
            json!({"new_release_key": true}),
            text("failed to parse newReleaseKey"),
        ),
        (json!({"version": 1}), text("failed to parse version")),
        (
            json!({"present_version": 1}),
            text("failed to parse presentVersion"),
        ),
        (
            json!({"newest_version": 1}),
            text("failed to parse newestVersion"),
        ),
        (
            json!({"request_update": "yes"}),
            text("failed to parse requestUpdate"),
        ),
        (
            json!({"cancel_transition": 1}),
            text("failed to parse cancelTransition"),
        ),
        (json!({"environment": []}), text("failed to parse environment")),
        (
            json!({"environment_template": 1}),
            text("failed to parse environment template"),
        ),
        (json!({"ports": {}}), text("failed to parse ports")),
        (
            json!({"docker_compose": []}),
            text("failed to parse docker compose"),
        ),
        (
            json!({"new_docker_compose": "x"}),
            text("failed to parse new docker compose"),
        ),
        (
            json!({"docker_credentials": []}),
            text("failed to parse docker credentials"),
        ),
        (
            json!({"docker_credentials": {"r": "x"}}),
            text("failed to parse docker credentials"),
        ),
        (
            json!({"docker_credentials": {"r": {"username": 1, "password": "x"}}}),
            text("failed to parse docker credentials"),
        ),
    ];
    for (changes, expected) in rows {
        let error = device
            .call(
                &backend.session,
                "request_app_state",
                json!([]),
                request(&changes),
            )
            .await
            .unwrap_err();
        assert_eq!(refusal(&error), (expected, text("invalid_argument")), "{changes}");
    }
    for changes in [
        json!({"stage": "TEST"}),
        json!({"target_state": ""}),
        json!({"target_state": "FLYING"}),
        json!({"current_state": "", "state": ""}),
        json!({"current_state": "FLYING"}),
    ] {
        let error = device
            .call(
                &backend.session,
                "request_app_state",
                json!([]),
                request(&changes),
            )
            .await
            .unwrap_err();
        let (found, code) = refusal(&error);
        assert!(found.contains("CHECK constraint failed"), "{changes}: {found}");
        assert_eq!(code, "invalid_argument");
    }
    let error = device
        .call(
            &backend.session,
            "request_app_state",
            json!([request(&json!({}))]),
            json!({}),
        )
        .await
        .unwrap_err();
    assert_eq!(
        refusal(&error).0,
        "missing from payload app_key",
        "positional arguments are ignored"
    );
    agent.stop().await;
    let store = device.store().await;
    assert_eq!(store.apps().await.unwrap(), []);
    store.close().await;
}

#[tokio::test]
async fn every_form_of_a_whole_number_is_accepted_and_odd_extras_read_as_none() {
    let plane = Plane::own().await;
    let (backend, device, agent) = connected(&plane).await;
    for (app, changes) in [
        (21, json!({"app_key": 21.0})),
        (22, json!({"app_key": "22"})),
        (
            23,
            json!({"app_key": 23, "requestor_account_key": "5", "release_key": 8.0, "new_release_key": "9"}),
        ),
        (
            24,
            json!({"app_key": 24, "instance_key": "x", "app_cred_epoch": -3}),
        ),
        (
            25,
            json!({"app_key": 25, "environment": null, "ports": null, "docker_compose": null, "version": null}),
        ),
        (
            26,
            json!({"app_key": 26, "target_state": "", "manually_requested_state": "PRESENT"}),
        ),
        (
            27,
            json!({"app_key": 27, "current_state": null, "state": "PRESENT", "unknown": {"a": [1]}}),
        ),
    ] {
        let answer = device
            .call(
                &backend.session,
                "request_app_state",
                json!([]),
                request(&changes),
            )
            .await;
        assert!(answer.is_ok(), "{app} {changes}: {answer:?}");
    }
    agent.stop().await;
    let store = device.store().await;
    let mut keys: Vec<_> = store
        .apps()
        .await
        .unwrap()
        .iter()
        .map(|row| row.app.key)
        .collect();
    keys.sort_unstable();
    assert_eq!(keys, [21, 22, 23, 24, 25, 26, 27]);
    store.close().await;
}

#[tokio::test]
async fn no_argument_takes_the_agent_down() {
    let plane = Plane::own().await;
    let (backend, device, agent) = connected(&plane).await;
    let deep = (0..60).fold(json!(1), |inner, _| json!([inner]));
    let nasty = [
        json!(null),
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(-0.0),
        json!(""),
        json!("\u{0}"),
        json!("\u{0}AAEC"),
        json!("x".repeat(1 << 16)),
        json!("../../../../etc/passwd"),
        json!("prod_18446744073709551616_x"),
        json!("prod_1_"),
        json!("prod_1_\u{1F4A3}\n"),
        json!([]),
        json!({}),
        deep,
    ];
    let keys = [
        "containerName",
        "all",
        "app_key",
        "app_name",
        "environment",
        "ports",
        "docker_credentials",
        "stage",
    ];
    // A restart is what it says.
    let names = PROCEDURES.iter().map(|procedure| procedure.name);
    for name in names.filter(|name| *name != "system_restart_agent") {
        for value in &nasty {
            for key in keys {
                for (args, kwargs) in [
                    (json!([value]), json!({})),
                    (json!([{ key: value }]), json!({})),
                    (json!([]), request(&json!({ key: value }))),
                ] {
                    if let Err(error) = device.call(&backend.session, name, args, kwargs).await {
                        let (text, code) = refusal(&error);
                        assert_ne!(code, "internal", "{name} {key}: {text}");
                        assert!(text.len() < 4096, "{name} {key} answers {} bytes", text.len());
                    }
                }
            }
        }
    }
    assert!(agent.is_running());
    agent.stop().await;
}
