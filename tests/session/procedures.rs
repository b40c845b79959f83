//! Every procedure over the wire: shapes of results, texts of errors, what a router may say about the caller.

use protocol::uri;
use reagent::rpc::PROCEDURES;
use serde_json::{Value, json};
use testkit::wait;
use wamp::message::Message;
use wamp::{Dict, Payload};

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
            "tunnelCapable",
            "variant",
            "version"
        ]
    );
    assert_eq!(metadata["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(metadata["serialNumber"], device.serial);
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

#[tokio::test]
async fn a_router_with_nonsense_in_its_details_gets_answers_all_the_same() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let tap = Tap::before(&plane.url).await;
    let device = Device::new(&tap.url);
    let agent = device.start(quick());
    backend.status("CONNECTED").await;
    let registration = |name: &str| {
        tap.look(0, |wire| {
            let request = wire.said.iter().find_map(|message| match message {
                Message::Register {
                    request, procedure, ..
                } if procedure.ends_with(name) => Some(*request),
                _ => None,
            });
            wire.heard.iter().find_map(|message| match message {
                Message::Registered {
                    request: answered,
                    registration,
                } if Some(*answered) == request => Some(*registration),
                _ => None,
            })
        })
        .flatten()
        .unwrap()
    };
    let details = [
        json!({"caller_authid": null, "timeout": -5, "receive_progress": "yes"}),
        json!({"caller_authid": ["system"], "caller_authrole": {"a": 1}}),
        json!({"caller_authid": -1}),
        json!({"caller_authid": 1.5}),
        json!({"caller_authid": "system", "forward_for": [{"session": 1}]}),
        json!({"caller_authrole": "system", "forward_for": null}),
        json!({}),
    ];
    let count = details.len();
    for (number, details) in details.into_iter().enumerate() {
        let Value::Object(details) = details else {
            unreachable!()
        };
        tap.forge(
            0,
            Message::Invocation {
                request: FORGED + number as u64,
                registration: registration("device_handshake"),
                details: details
                    .into_iter()
                    .map(|(key, value)| (key, value.into()))
                    .collect(),
                payload: Payload::Empty,
            },
        );
    }
    // An account as a number is an account.
    tap.forge(
        0,
        Message::Invocation {
            request: FORGED + 900,
            registration: registration("get_agent_metadata"),
            details: Dict::from([("caller_authid".to_owned(), wamp::Value::Uint(4711))]),
            payload: Payload::Empty,
        },
    );
    // What nobody registered.
    tap.forge(
        0,
        Message::Invocation {
            request: FORGED + 901,
            registration: 1,
            details: Dict::new(),
            payload: Payload::Empty,
        },
    );
    let answered = |id: u64| {
        tap.look(0, |wire| {
            wire.said.iter().find_map(|message| match message {
                Message::Error {
                    request,
                    error,
                    payload,
                    ..
                } if *request == id => Some(Err((error.clone(), payload.clone()))),
                Message::Yield { request, .. } if *request == id => Some(Ok(())),
                _ => None,
            })
        })
        .flatten()
    };
    for number in 0..count {
        let answer =
            wait::until_async("an answer", SOON, || async { answered(FORGED + number as u64) }).await;
        let (error, payload) = answer.unwrap_err();
        let denied = refusal(&wamp::client::WampError { uri: error, payload });
        assert_eq!(
            denied,
            ("insufficient privileges".to_owned(), "denied".to_owned()),
            "{number}"
        );
    }
    let answer = wait::until_async("an answer", SOON, || async { answered(FORGED + 900) }).await;
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(
        backend.calls(uri::backend::CHECK_PRIVILEGE)[0]["requestor_account_key"],
        4711
    );
    let answer = wait::until_async("an answer", SOON, || async { answered(FORGED + 901) }).await;
    assert_eq!(answer.unwrap_err().0, "wamp.error.no_such_procedure");
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
            "device_handshake",
            "get_images",
            "prune_images",
            "list_containers",
            "get_app_log_history",
            "get_storage_data",
            "get_agent_metadata",
            "system_restart_agent",
        ]
    );
}
