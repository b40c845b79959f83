//! Every procedure over the wire: shapes of results, texts of errors, odd arguments, floods, cancellation.

use std::time::Duration;

use protocol::uri;
use reagent::link::Timing;
use reagent::rpc::PROCEDURES;
use serde_json::{Value, json};
use testkit::wait;
use wamp::client::{CallOptions, RequestError, Session};
use wamp::message::Message;
use wamp::{Dict, Payload};

use super::SOON;
use super::backend::{Answer, Backend};
use super::device::{Agent, Device, quick, refusal, results};
use super::plane::Plane;
use super::tap::{FORGED, Tap};

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

fn request(changes: &Value) -> Value {
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
async fn two_hundred_calls_at_once_are_all_answered() {
    two_hundred_calls_at_once_are_all_answered_on(&Plane::own().await).await;
}

pub(crate) async fn two_hundred_calls_at_once_are_all_answered_on(plane: &Plane) {
    let (backend, device, agent) = connected(plane).await;
    let calls = (0..200_u64).map(|number| {
        let (device, session) = (&device, &backend.session);
        async move {
            let kwargs = request(&json!({"app_key": 1 + number % 20}));
            device.call(session, "request_app_state", json!([]), kwargs).await
        }
    });
    for answer in futures_util::future::join_all(calls).await {
        answer.unwrap();
    }
    // And what follows is answered as before.
    device
        .call(&backend.session, "get_storage_data", json!([]), json!({}))
        .await
        .unwrap();
    agent.stop().await;
}

/// A call that waits for the backend's word about its caller, until it is cancelled.
async fn stuck(device: &Device, person: &Session, name: &str) -> Result<(), RequestError> {
    let procedure = uri::device(&device.serial, name);
    let options = CallOptions::timeout(Duration::from_millis(300));
    person.call(&procedure, Payload::Empty, options).await.map(drop)
}

#[tokio::test]
async fn an_interrupted_call_is_answered_at_once_and_frees_its_place() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let tap = Tap::before(&plane.url).await;
    let device = Device::new(&tap.url);
    let agent = device.start(Timing {
        backend_call: SOON,
        ..quick()
    });
    backend.status("CONNECTED").await;
    backend.does(uri::backend::CHECK_PRIVILEGE, Answer::Silence);
    let person = plane.join("4711").await;
    // More than run at once.
    for _ in 0..3 {
        let calls = (0..16).map(|_| stuck(&device, &person, "get_storage_data"));
        for answer in futures_util::future::join_all(calls).await {
            assert!(matches!(answer, Err(RequestError::Timeout(_))), "{answer:?}");
        }
    }
    let answers = || {
        tap.look(0, |wire| {
            let errors = wire.said.iter().filter_map(|message| match message {
                Message::Error {
                    request_type: 68,
                    error,
                    payload,
                    ..
                } => Some((error.clone(), payload.clone())),
                _ => None,
            });
            errors.collect::<Vec<_>>()
        })
        .unwrap()
    };
    let answers = wait::until_async("every INTERRUPT is answered", SOON, || async {
        let answers = answers();
        (answers.len() >= 48).then_some(answers)
    })
    .await;
    for (error, payload) in answers {
        assert_eq!(error, "wamp.error.canceled");
        assert_eq!(payload.args().unwrap(), [], "without arguments (4.16)");
    }
    backend.answers(uri::backend::CHECK_PRIVILEGE, json!(true));
    device
        .call(&person, "get_storage_data", json!([]), json!({}))
        .await
        .unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn a_flood_of_one_procedure_is_bounded_and_leaves_room_for_the_others() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let device = Device::new(&plane.url);
    let agent = device.start(Timing {
        backend_call: SOON,
        ..quick()
    });
    backend.status("CONNECTED").await;
    backend.does(uri::backend::CHECK_PRIVILEGE, Answer::Silence);
    let person = plane.join("4711").await;
    let flood: Vec<_> = (0..230)
        .map(|_| {
            let (person, procedure) = (person.clone(), uri::device(&device.serial, "get_storage_data"));
            tokio::spawn(async move {
                person
                    .call(&procedure, Payload::Empty, CallOptions::default())
                    .await
            })
        })
        .collect();
    wait::until_async("the calls beyond the bound are refused", SOON, || async {
        (flood.iter().filter(|call| call.is_finished()).count() == 6).then_some(())
    })
    .await;
    let handshake = device
        .call(&backend.session, "device_handshake", json!([]), json!({}))
        .await;
    assert!(handshake.is_ok(), "{handshake:?}");
    for call in flood {
        if call.is_finished() {
            let Err(RequestError::Peer(error)) = call.await.unwrap() else {
                panic!("refused")
            };
            let expected = (
                "too many calls of this procedure at once".to_owned(),
                "unavailable".to_owned(),
            );
            assert_eq!(refusal(&error), expected);
        } else {
            call.abort();
        }
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
