//! What no caller and no router should send.

use protocol::uri;
use reagent::rpc::PROCEDURES;
use serde_json::{Value, json};
use testkit::wait;
use wamp::message::Message;
use wamp::{Dict, Payload};

use super::SOON;
use super::backend::Backend;
use super::device::{Device, quick, refusal};
use super::plane::Plane;
use super::tap::{FORGED, Tap};

use super::procedures::{connected, request};

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
