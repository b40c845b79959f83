//! Every procedure over the wire: shapes of results, texts of errors, odd arguments, floods, cancellation.

use protocol::uri;
use reagent::rpc::PROCEDURES;
use serde_json::{Value, json};

use wamp::client::SubscribeOptions;

use super::SOON;
use super::backend::Backend;
use super::device::{Agent, Device, quick, refusal, results};
use super::plane::Plane;

/// A connected device.
pub(crate) async fn connected(plane: &Plane) -> (Backend, Device, Agent) {
    let backend = Backend::join(plane).await;
    let device = Device::new(&plane.url);
    let agent = device.start(quick());
    backend.status("CONNECTED").await;
    (backend, device, agent)
}

#[tokio::test]
async fn results_have_the_shapes_of_the_contract() {
    results_have_the_shapes_of_the_contract_on(&Plane::own().await).await;
}

pub(crate) async fn results_have_the_shapes_of_the_contract_on(plane: &Plane) {
    let (backend, device, agent) = connected(plane).await;
    let call = async |name: &str, args: Value| {
        let answer = device.call(&backend.session, name, args, json!({})).await;
        answer.unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let handshake = call("device_handshake", json!([])).await;
    assert!(handshake.args().unwrap().is_empty());
    let kwargs = handshake.kwargs().unwrap();
    assert_eq!(kwargs.keys().collect::<Vec<_>>(), ["id", "utp"]);
    assert_eq!(kwargs["id"].as_str(), Some(device.serial.as_str()));
    let time = kwargs["utp"].as_str().unwrap();
    assert!(
        time.len() == "2026-08-14T10:00:00Z".len() || time.len() == "2026-08-14T10:00:00+02:00".len(),
        "{time}"
    );
    assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");

    let metadata = results(&call("get_agent_metadata", json!([])).await);
    let [Value::Object(metadata)] = metadata.as_slice() else {
        panic!("{metadata:?}")
    };
    let mut keys: Vec<_> = metadata.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "OSVersion",
            "arch",
            "canUpdate",
            "os",
            "serialNumber",
            "trialVersion",
            "tunnelCapable",
            "variant",
            "version"
        ]
    );
    assert_eq!(metadata["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(metadata["serialNumber"], device.serial);
    assert_eq!(metadata["trialVersion"], "");
    assert_eq!(metadata["os"], metadata["OSVersion"]);
    assert!(
        metadata["os"].as_str().unwrap().starts_with("linux"),
        "{metadata:?}"
    );

    let stats = results(&call("get_storage_data", json!([])).await);
    let [Value::Object(stats)] = stats.as_slice() else {
        panic!("{stats:?}")
    };
    let expected = [
        "cpu_count",
        "cpu_usage",
        "memory_total",
        "memory_used",
        "memory_available",
        "storage_total",
        "storage_used",
        "storage_free",
        "docker_apps_total",
        "docker_apps_used",
        "docker_apps_free",
        "docker_apps_mounted",
    ];
    for key in expected {
        assert!(stats.contains_key(key), "{key} in {stats:?}");
    }

    let history = call(
        "get_app_log_history",
        json!([{"containerName": "prod_77_nothing"}]),
    )
    .await;
    assert_eq!(
        results(&history),
        [json!([])],
        "one argument, and an empty list is a list"
    );

    let request = json!({"app_key": 12, "app_name": "App", "stage": "PROD", "current_state": "PRESENT",
        "target_state": "PRESENT", "requestor_account_key": 1});
    let accepted = device
        .call(
            &backend.session,
            "request_app_state",
            json!(["ignored", 5]),
            request,
        )
        .await
        .unwrap();
    assert!(accepted.args().unwrap().is_empty() && accepted.kwargs().unwrap().is_empty());

    // Without Docker these say so, and the agent goes on.
    for (name, args) in [
        ("get_images", json!([])),
        ("list_containers", json!([])),
        ("prune_images", json!([{}])),
        ("prune_images", json!([{"all": false}])),
        ("prune_images", json!([{"all": true}])),
    ] {
        let error = device
            .call(&backend.session, name, args, json!({}))
            .await
            .unwrap_err();
        let (text, code) = refusal(&error);
        assert!(!text.is_empty());
        assert_eq!(code, "unavailable", "{name}: {text}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn bad_arguments_get_the_texts_of_the_contract() {
    let plane = Plane::own().await;
    let (backend, device, agent) = connected(&plane).await;
    let history = "get_app_log_history";
    let all = "all value for container prune is not a boolean";
    for (name, args, expected) in [
        (history, json!([]), "arguments are missing"),
        (history, json!([null]), "first param should be a dict"),
        (history, json!(["prod_1_x"]), "first param should be a dict"),
        (
            history,
            json!([[{"containerName": "prod_1_x"}]]),
            "first param should be a dict",
        ),
        (history, json!([{}]), "invalid value for containerName"),
        (
            history,
            json!([{"containerName": null}]),
            "invalid value for containerName",
        ),
        (
            history,
            json!([{"containerName": 5}]),
            "invalid value for containerName",
        ),
        (history, json!([{"containerName": ""}]), "container name is empty"),
        (
            history,
            json!([{"containerName": "prod"}]),
            "invalid container name",
        ),
        (
            history,
            json!([{"containerName": "db_1_x"}]),
            "invalid container name",
        ),
        (
            history,
            json!([{"containerName": "../../etc/passwd"}]),
            "invalid container name",
        ),
        ("prune_images", json!([]), "arguments are missing"),
        ("prune_images", json!([null]), "first param should be a dict"),
        ("prune_images", json!([true]), "first param should be a dict"),
        ("prune_images", json!([{"all": "true"}]), all),
        ("prune_images", json!([{"all": 1}]), all),
    ] {
        let error = device
            .call(&backend.session, name, args.clone(), json!({}))
            .await
            .unwrap_err();
        let found = refusal(&error);
        assert_eq!(
            found,
            (expected.to_owned(), "invalid_argument".to_owned()),
            "{name} {args}"
        );
    }
    agent.stop().await;
}

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
async fn an_archive_is_uploaded_and_viewers_see_how_far_it_is() {
    an_archive_is_uploaded_and_viewers_see_how_far_it_is_on(&Plane::own().await).await;
}

pub(crate) async fn an_archive_is_uploaded_and_viewers_see_how_far_it_is_on(plane: &Plane) {
    let (backend, device, agent) = connected(plane).await;
    let topic = uri::logs(&device.serial, "dev_6_myapp");
    let mut viewer = backend
        .session
        .subscribe(&topic, SubscribeOptions::default())
        .await
        .unwrap();
    let call = async |chunk: &str| {
        let args = json!([chunk, "MyApp.tgz", "dev_6_myapp", 24, "1"]);
        device.call(&backend.session, "write_data", args, json!({})).await
    };
    for chunk in ["BEGIN", &"ab".repeat(10), &"AB".repeat(14), "END"] {
        let reply = call(chunk).await.unwrap();
        assert!(reply.args().unwrap().is_empty() && reply.kwargs().unwrap().is_empty());
    }
    let archive = std::fs::read(device.path("apps/build/MyApp.tgz")).unwrap();
    assert_eq!(archive, [0xab; 24]);
    let late = call("00").await.unwrap_err();
    assert_eq!(refusal(&late).0, "We received a chunk without an active transfer");

    let mut seen = Vec::new();
    while seen.len() < 4 {
        let event = tokio::time::timeout(SOON, viewer.events.recv())
            .await
            .expect("it is told")
            .unwrap();
        seen.push(event.payload.args().unwrap()[0].to_json());
    }
    // Lines and progress take different ways: only each way has an order.
    let (lines, progress): (Vec<Value>, Vec<Value>) =
        seen.into_iter().partition(|message| message["type"] == "build");
    let lines: Vec<_> = lines.iter().map(|line| &line["chunk"]).collect();
    assert_eq!(
        lines,
        [
            "Received first package on device!",
            "File transfer has finished, starting build..."
        ]
    );
    let step =
        |percent: &str| json!({"id": "MyApp.tgz", "status": "Transfer Progress:", "progress": percent});
    for expected in [step("41.667%"), step("100.000%")] {
        assert!(progress.contains(&expected), "{expected} in {progress:?}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_restart_is_answered_first() {
    let plane = Plane::own().await;
    let (backend, device, agent) = connected(&plane).await;
    let person = plane.join("4711").await;
    backend.answers(uri::backend::CHECK_PRIVILEGE, json!(false));
    let error = device
        .call(&person, "system_restart_agent", json!([]), json!({}))
        .await
        .unwrap_err();
    assert_eq!(refusal(&error).0, "insufficient privileges to restart agent");
    let accepted = device
        .call(&backend.session, "system_restart_agent", json!([]), json!({}))
        .await
        .unwrap();
    assert!(accepted.args().unwrap().is_empty() && accepted.kwargs().unwrap().is_empty());
    agent.stop().await;
}

#[tokio::test]
async fn the_table_holds_what_this_version_promises() {
    let names: Vec<_> = PROCEDURES.iter().map(|procedure| procedure.name).collect();
    assert_eq!(
        names,
        [
            "request_app_state",
            "write_data",
            "device_handshake",
            "get_images",
            "prune_images",
            "list_containers",
            "get_app_log_history",
            "query_app_logs",
            "query_device_logs",
            "get_storage_data",
            "get_agent_metadata",
            "update_agent",
            "system_restart_agent",
        ]
    );
}
