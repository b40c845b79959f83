//! What a connect looks like on the wire, and what is there afterwards.

use protocol::uri;
use reagent::rpc::PROCEDURES;
use serde_json::{Value, json};
use testkit::wait;
use wamp::Dict;

use super::SOON;
use super::backend::Backend;
use super::device::{Device, quick};
use super::plane::Plane;
use super::tap::Tap;

const CONNECTED: &str = "CALL reswarm.devices.update_device_status CONNECTED";

pub(crate) async fn the_wire_shows_the_order_of_the_contract_on(plane: &Plane) {
    let backend = Backend::join(plane).await;
    let tap = Tap::before(&plane.url).await;
    let device = Device::new(&tap.url);
    let agent = device.start(quick());
    backend.status("CONNECTED").await;
    let said = tap.said(0);

    let before = [
        "HELLO",
        "AUTHENTICATE",
        "REGISTER wamp_connection_established",
        "CALL wamp.session.add_testament",
        "CALL reswarm.devices.read_device_metadata",
        "CALL reswarm.devices.get_app_cred_key",
        "CALL reswarm.devices.update_device_status CONFIGURING",
    ];
    assert_eq!(said[..before.len()], before, "{said:#?}");
    let (static_ones, rest) = said[before.len()..].split_at(PROCEDURES.len());
    let mut expected: Vec<_> = PROCEDURES
        .iter()
        .map(|procedure| format!("REGISTER {} by force", procedure.name))
        .collect();
    let mut found = static_ones.to_vec();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    let at = |what: &str| {
        let position = rest.iter().position(|said| said == what);
        position.unwrap_or_else(|| panic!("no {what} in {rest:#?}"))
    };
    let architecture = at("CALL reswarm.devices.update_device_architecture");
    let listeners =
        at("SUBSCRIBE wamp.subscription.on_create").max(at("SUBSCRIBE wamp.subscription.on_delete"));
    let states = at("CALL reswarm.containers.get_requested_app_states");
    assert_eq!(architecture, 0);
    assert!(
        architecture < listeners && listeners < states && states < at(CONNECTED),
        "{rest:#?}"
    );
    agent.stop().await;
    assert_eq!(tap.said(0).last().unwrap(), "GOODBYE wamp.close.close_realm");
}

#[tokio::test]
async fn the_wire_shows_the_order_of_the_contract() {
    the_wire_shows_the_order_of_the_contract_on(&Plane::own().await).await;
}

#[tokio::test]
async fn what_is_said_on_connect_has_the_shapes_of_the_contract() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let tap = Tap::before(&plane.url).await;
    let device = Device::new(&tap.url);
    let agent = device.start(quick());
    let connected = backend.status("CONNECTED").await;

    let calls = |procedure: &str| backend.calls(procedure);
    assert_eq!(
        calls(uri::backend::READ_DEVICE_METADATA),
        [json!({ "device_key": 7 })]
    );
    assert_eq!(
        calls(uri::backend::GET_REQUESTED_APP_STATES),
        [json!({ "device_key": 7 })]
    );
    assert_eq!(
        calls(uri::backend::GET_APP_CRED_KEY),
        [Value::Null],
        "without arguments"
    );
    let architecture = &calls(uri::backend::UPDATE_DEVICE_ARCHITECTURE)[0];
    let keys: Vec<_> = architecture.as_object().unwrap().keys().collect();
    let mut expected = [
        "swarm_key",
        "device_key",
        "architecture",
        "os",
        "arch",
        "variant",
        "agent_version",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(architecture["agent_version"], env!("CARGO_PKG_VERSION"));

    // 7.2, and `docker_available` of the later revisions.
    assert_eq!(connected["swarm_key"], 42);
    assert_eq!(connected["device_key"], 7);
    assert_eq!(connected["stats"].as_object().unwrap().len(), 13);
    assert_eq!(connected["stats"]["docker_available"], false);
    let session = tap.look(0, |wire| {
        wire.heard.iter().find_map(|message| match message {
            wamp::message::Message::Welcome { session, .. } => Some(*session),
            _ => None,
        })
    });
    assert_eq!(connected["wamp_session_id"].as_u64(), session.flatten());

    let testament = tap
        .look(0, |wire| {
            let call = wire.said.iter().find(|message| {
                matches!(message, wamp::message::Message::Call { procedure, .. } if procedure == "wamp.session.add_testament")
            });
            let wamp::message::Message::Call { payload, options, .. } = call.unwrap() else { unreachable!() };
            assert!(options.is_empty() && payload.kwargs().unwrap().is_empty());
            payload.args().unwrap().iter().map(wamp::Value::to_json).collect::<Vec<_>>()
        })
        .unwrap();
    let body = json!({"swarm_key": 42, "device_key": 7, "serial_number": device.serial,
        "wamp_session_id": connected["wamp_session_id"]});
    assert_eq!(
        testament,
        [json!("reswarm.api.testament_device"), json!([body]), json!({})]
    );
    agent.stop().await;
}

pub(crate) async fn the_testament_is_published_when_the_agent_is_killed_on(plane: &Plane) {
    let backend = Backend::join(plane).await;
    let mut left = backend
        .session
        .subscribe(uri::TESTAMENT_TOPIC, Dict::new())
        .await
        .unwrap();
    let device = Device::new(&plane.url);
    let mut agent = device.spawn(&[]);
    let session = backend.status("CONNECTED").await["wamp_session_id"].clone();
    agent.kill();
    let event = tokio::time::timeout(SOON, left.events.recv())
        .await
        .unwrap()
        .unwrap();
    let args = event.payload.args().unwrap();
    assert_eq!(
        args[0].to_json(),
        json!({"swarm_key": 42, "device_key": 7, "serial_number": device.serial, "wamp_session_id": session})
    );
}

#[tokio::test]
async fn the_testament_is_published_when_the_agent_is_killed() {
    the_testament_is_published_when_the_agent_is_killed_on(&Plane::own().await).await;
}

pub(crate) async fn the_first_procedure_greets_whatever_is_asked_on(plane: &Plane) {
    let backend = Backend::join(plane).await;
    let device = Device::new(&plane.url);
    let agent = device.start(quick());
    backend.status("CONNECTED").await;
    for args in [json!([]), json!([1, {"a": 2}])] {
        let answer = device
            .call(
                &backend.session,
                "wamp_connection_established",
                args,
                json!({"x": 1}),
            )
            .await
            .unwrap();
        assert_eq!(super::device::results(&answer), [json!("Hello :-)")]);
    }
    agent.stop().await;
}

#[tokio::test]
async fn the_first_procedure_greets_whatever_is_asked() {
    the_first_procedure_greets_whatever_is_asked_on(&Plane::own().await).await;
}

#[tokio::test]
async fn a_procedure_that_a_stale_session_holds_is_taken_over() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let device = Device::new(&plane.url);
    // The session of an agent that is gone, as far as the device knows.
    let stale = plane.join("stale").await;
    let held = stale
        .register(
            &uri::device(&device.serial, "get_images"),
            wamp::client::RegisterOptions::default(),
            wamp::client::handler(|_| async { Ok(wamp::Payload::Empty) }),
        )
        .await
        .unwrap();
    let agent = device.start(quick());
    backend.status("CONNECTED").await;
    wait::until_async("the stale session is told", SOON, || async {
        held.revoked.is_cancelled().then_some(())
    })
    .await;
    assert!(stale.is_open());
    agent.stop().await;
}
