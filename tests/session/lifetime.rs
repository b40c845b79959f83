//! Heartbeat, loss, return: what keeps a session alive and what follows its end.

use std::time::Duration;

use protocol::uri;
use protocol::uri::backend::{READ_DEVICE_METADATA, UPDATE_DEVICE_STATUS};
use reagent::agent::Exit;
use reagent::link::Timing;
use serde_json::json;
use testkit::wait;
use tokio_util::sync::CancellationToken;
use wamp::Dict;
use wamp::client::{RegisterOptions, handler};
use wamp::message::Message;
use wamp::payload::Payload;

use super::SOON;
use super::backend::{Answer, Backend};
use super::device::{Device, quick, results};
use super::plane::Plane;
use super::tap::{Tap, first};

/// Heartbeats that a test can count, and calls that go unanswered in no time.
fn beating() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(50),
        backend_call: Duration::from_millis(300),
        ..quick()
    }
}

#[tokio::test]
async fn the_heartbeat_says_configuring_until_the_device_is_configured() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let released = CancellationToken::new();
    backend.does(
        uri::backend::GET_REQUESTED_APP_STATES,
        Answer::After(released.clone(), json!([])),
    );
    let device = Device::new(&plane.url);
    let timing = Timing {
        backend_call: SOON,
        ..beating()
    };
    let agent = device.start(timing);
    let before = backend.called(UPDATE_DEVICE_STATUS, 5).await;
    for update in &before {
        assert_eq!(update["status"], "CONFIGURING", "{before:#?}");
    }
    released.cancel();
    backend.status("CONNECTED").await;
    backend.forget();
    let after = backend.called(UPDATE_DEVICE_STATUS, 3).await;
    for update in &after {
        assert_eq!(update["status"], "CONNECTED", "{after:#?}");
        assert_eq!(update["wamp_session_id"], before[0]["wamp_session_id"]);
        assert_eq!(update["stats"].as_object().unwrap().len(), 13);
    }
    agent.stop().await;
}

#[tokio::test]
async fn two_heartbeats_without_an_answer_end_the_old_connection_and_make_a_new_one() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let tap = Tap::before(&plane.url).await;
    let device = Device::new(&tap.url);
    let agent = device.start(beating());
    let old = backend.status("CONNECTED").await["wamp_session_id"].clone();
    let mut left = backend
        .session
        .subscribe(uri::TESTAMENT_TOPIC, Dict::new())
        .await
        .unwrap();
    backend.does(UPDATE_DEVICE_STATUS, Answer::Silence);
    // The old session is gone at the router before the new one wants its place.
    let event = tokio::time::timeout(SOON, left.events.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(event.payload.args().unwrap()[0].to_json()["wamp_session_id"], old);
    backend.does(UPDATE_DEVICE_STATUS, Answer::Empty);
    wait::until_async("another session is connected", SOON, || async {
        (backend.status("CONNECTED").await["wamp_session_id"] != old).then_some(())
    })
    .await;
    tap.wait("the old connection is closed", 0, |wire| wire.closed)
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_heartbeat_that_is_answered_with_an_error_is_a_sign_of_life() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let tap = Tap::before(&plane.url).await;
    let device = Device::new(&tap.url);
    let agent = device.start(beating());
    backend.status("CONNECTED").await;
    for uri in ["wamp.error.canceled", "wamp.error.no_such_procedure", "app.error"] {
        backend.does(UPDATE_DEVICE_STATUS, Answer::Error(uri));
        backend.forget();
        backend.called(UPDATE_DEVICE_STATUS, 5).await;
    }
    // Replies that make no sense are answers, too.
    for value in [json!(null), json!([]), json!("x"), json!({"reswarmBaseURL": 5})] {
        backend.answers(UPDATE_DEVICE_STATUS, value);
        backend.forget();
        backend.called(UPDATE_DEVICE_STATUS, 3).await;
    }
    assert_eq!(tap.connections(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn after_a_restart_of_the_router_everything_is_there_again() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let tap = Tap::before(&plane.url).await;
    let device = Device::new(&tap.url);
    let agent = device.start(quick());
    backend.status("CONNECTED").await;
    let address = plane.address();
    plane.stop();
    tap.wait("the agent hung up", 0, |wire| wire.closed).await;
    assert_eq!(
        tap.said(0).last().unwrap(),
        "GOODBYE wamp.close.goodbye_and_out",
        "the router's GOODBYE is answered"
    );
    let plane = Plane::own_at(&address).await;
    let backend = Backend::join(&plane).await;
    backend.status("CONNECTED").await;
    assert_eq!(
        without_answers(&tap.said(0)),
        without_answers(&tap.said(tap.connections() - 1))
    );
    let hello = device
        .call(
            &backend.session,
            "wamp_connection_established",
            json!([]),
            json!({}),
        )
        .await
        .unwrap();
    assert_eq!(results(&hello), [json!("Hello :-)")]);
    let stats = device
        .call(&backend.session, "get_storage_data", json!([]), json!({}))
        .await
        .unwrap();
    assert!(results(&stats)[0]["cpu_count"].as_u64().unwrap() > 0);
    agent.stop().await;
}

/// What a connect says, in an order that does not depend on chance.
fn without_answers(said: &[String]) -> Vec<String> {
    let mut said: Vec<_> = said
        .iter()
        .filter(|said| !said.starts_with("GOODBYE"))
        .cloned()
        .collect();
    said.sort();
    said
}

#[tokio::test]
async fn an_abort_or_an_eviction_inside_a_session_only_means_to_come_back() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let tap = Tap::before(&plane.url).await;
    let device = Device::new(&tap.url);
    let agent = device.start(quick());
    let ends = [
        // A session killed through a proxy of Crossbar.io.
        Message::Abort {
            details: Dict::new(),
            reason: "wamp.error.authentication_failed".to_owned(),
            payload: Payload::Empty,
        },
        Message::Goodbye {
            details: Dict::new(),
            reason: "wamp.close.normal".to_owned(),
        },
        Message::Goodbye {
            details: Dict::new(),
            reason: "wamp.close.killed".to_owned(),
        },
        // Not for a client at all.
        Message::Hello {
            realm: None,
            details: Dict::new(),
        },
    ];
    for (number, end) in ends.into_iter().enumerate() {
        backend.status("CONNECTED").await;
        backend.forget();
        tap.forge(number, end);
        tap.wait("the agent hung up", number, |wire| wire.closed).await;
    }
    backend.status("CONNECTED").await;
    assert!(agent.is_running());
    assert_eq!(tap.connections(), 5);
    agent.stop().await;
}

#[tokio::test]
async fn a_place_that_somebody_took_by_force_is_taken_back_once_it_is_free() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let tap = Tap::before(&plane.url).await;
    let device = Device::new(&tap.url);
    let agent = device.start(quick());
    backend.status("CONNECTED").await;
    let place = uri::device(&device.serial, "wamp_connection_established");
    let other = plane.join("other").await;
    let force = RegisterOptions {
        force_reregister: true,
        ..RegisterOptions::default()
    };
    let intruder = handler(|_| async { Ok(Payload::Empty) });
    other.register(&place, force, intruder).await.unwrap();
    other.leave().await;
    wait::until_async("the device answers again", SOON, || async {
        let answer = device
            .call(
                &backend.session,
                "wamp_connection_established",
                json!([]),
                json!({}),
            )
            .await;
        answer.is_ok().then_some(())
    })
    .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_second_device_with_the_same_serial_ends_after_eight_attempts() {
    let plane = Plane::own().await;
    let tap = Tap::before(&plane.url).await;
    let device = Device::new(&tap.url);
    let first_one = plane.join("first").await;
    let place = uri::device(&device.serial, "wamp_connection_established");
    let hello = handler(|_| async { Ok(Payload::Empty) });
    first_one
        .register(&place, RegisterOptions::default(), hello)
        .await
        .unwrap();
    let end = device.start(quick()).end().await;
    assert_eq!(
        end,
        Exit::Failure("another device is connected with the same serial number".to_owned())
    );
    assert_eq!(tap.connections(), 8);
    for number in 0..8 {
        let said = tap.said(number);
        assert_eq!(
            said[2..],
            [
                "REGISTER wamp_connection_established",
                "GOODBYE wamp.close.close_realm"
            ],
            "{said:?}"
        );
    }
}

#[tokio::test]
async fn a_stale_session_with_the_serial_is_waited_for() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let tap = Tap::before(&plane.url).await;
    let device = Device::new(&tap.url);
    let stale = plane.join("stale").await;
    let place = uri::device(&device.serial, "wamp_connection_established");
    let hello = handler(|_| async { Ok(Payload::Empty) });
    stale
        .register(&place, RegisterOptions::default(), hello)
        .await
        .unwrap();
    let agent = device.start(quick());
    wait::until_async("some attempts were made", SOON, || async {
        (tap.connections() >= 3).then_some(())
    })
    .await;
    stale.leave().await;
    backend.status("CONNECTED").await;
    agent.stop().await;
}

#[tokio::test]
async fn a_move_to_another_project_is_followed_and_nothing_of_it_is_said_on_the_old_session() {
    the_move_on(&Plane::own().await).await;
}

pub(crate) async fn the_move_on(plane: &Plane) {
    let backend = Backend::join(plane).await;
    let tap = Tap::before(&plane.url).await;
    let device = Device::new(&tap.url);
    device.knows(12, &[protocol::AppState::Running]).await;
    backend.answers(
        READ_DEVICE_METADATA,
        json!({"swarm_key": 43.0, "device_name": "gate 2", "swarm_name": "site", "ownername": "corp"}),
    );
    // Heartbeats and the waiting report try hard to say it.
    let agent = device.start(Timing {
        heartbeat: Duration::from_millis(5),
        ..quick()
    });
    let connected = backend.status("CONNECTED").await;
    assert_eq!(connected["swarm_key"], 43);
    assert_eq!(tap.connections(), 2);
    tap.look(0, |wire| {
        for message in &wire.said {
            assert_ne!(first(message)["swarm_key"], 43, "{message:?}");
        }
    });
    assert_eq!(tap.said(0).last().unwrap(), "GOODBYE wamp.close.close_realm");
    tap.look(1, |wire| {
        let Message::Hello { details, .. } = &wire.said[0] else {
            panic!("{:?}", wire.said)
        };
        assert_eq!(details["authid"].as_str(), Some("43-7"));
        for message in wire
            .said
            .iter()
            .filter(|message| first(message).get("swarm_key").is_some())
        {
            assert_eq!(first(message)["swarm_key"], 43, "{message:?}");
        }
    });
    let flock = device.flock();
    assert_eq!(flock["swarm_key"], 43);
    assert_eq!(flock["name"], "gate 2");
    assert_eq!(flock["swarm_name"], "site");
    assert_eq!(flock["swarm_owner_name"], "corp");
    assert_eq!(
        flock["owner_account_key"], 5,
        "what the agent does not know stays"
    );
    agent.stop().await;
}

#[tokio::test]
async fn metadata_without_texts_changes_nothing() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let device = Device::new(&plane.url);
    let before = std::fs::read(device.path("device.flock")).unwrap();
    for metadata in [
        json!({"swarm_key": "42", "device_name": null, "swarm_name": "", "ownername": 5}),
        json!({"swarm_key": 42}),
        json!({"swarm_key": 0, "device_name": "x"}),
        json!({"swarm_key": "many", "device_name": "x"}),
        json!({"device_name": "x"}),
        json!(null),
        json!([]),
    ] {
        backend.answers(READ_DEVICE_METADATA, metadata.clone());
        backend.forget();
        let agent = device.start(quick());
        backend.status("CONNECTED").await;
        agent.stop().await;
        assert_eq!(
            std::fs::read(device.path("device.flock")).unwrap(),
            before,
            "{metadata}"
        );
    }
}

#[tokio::test]
async fn a_backend_that_comes_late_gets_everything_soon() {
    let plane = Plane::own().await;
    let backend = Backend::silent(&plane).await;
    let device = Device::new(&plane.url);
    device.knows(12, &[]).await;
    let agent = device.start(quick());
    // The procedures do not wait for the backend.
    wait::until_async("the device answers", SOON, || async {
        let stats = device
            .call(&backend.session, "get_storage_data", json!([]), json!({}))
            .await;
        stats.is_ok().then_some(())
    })
    .await;
    backend.offer_all().await;
    backend.status("CONNECTED").await;
    for procedure in [
        READ_DEVICE_METADATA,
        uri::backend::GET_APP_CRED_KEY,
        uri::backend::UPDATE_DEVICE_ARCHITECTURE,
        uri::backend::GET_REQUESTED_APP_STATES,
        uri::backend::UPDATE_APP_ON_DEVICE,
    ] {
        backend.called(procedure, 1).await;
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_backend_without_credential_keys_is_still_asked_for_its_list() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let key = uri::backend::GET_APP_CRED_KEY;
    backend.does(key, Answer::Error("wamp.error.no_such_procedure"));
    let device = Device::new(&plane.url);
    let agent = device.start(Timing {
        resync: Duration::from_millis(100),
        ..quick()
    });
    backend.status("CONNECTED").await;
    backend.forget();
    backend.called(uri::backend::GET_REQUESTED_APP_STATES, 3).await;
    backend.called(key, 3).await;
    // Once it has one, nothing is missing any more.
    backend.answers(key, json!("credential-key"));
    backend.forget();
    backend.called(key, 1).await;
    backend.called(uri::backend::GET_REQUESTED_APP_STATES, 3).await;
    assert_eq!(backend.calls(key).len(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_backend_that_never_answers_does_not_keep_the_procedures_away() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    for procedure in [
        READ_DEVICE_METADATA,
        uri::backend::GET_APP_CRED_KEY,
        UPDATE_DEVICE_STATUS,
    ] {
        backend.does(procedure, Answer::Silence);
    }
    let device = Device::new(&plane.url);
    let agent = device.start(Timing {
        backend_call: Duration::from_millis(200),
        ..quick()
    });
    wait::until_async("the device answers", SOON, || async {
        let stats = device
            .call(&backend.session, "get_storage_data", json!([]), json!({}))
            .await;
        stats.is_ok().then_some(())
    })
    .await;
    agent.stop().await;
}

#[tokio::test]
async fn the_base_url_is_learned_and_remembered() {
    let plane = Plane::own().await;
    let backend = Backend::join(&plane).await;
    let device = Device::new(&plane.url);
    backend.answers(
        UPDATE_DEVICE_STATUS,
        json!({"reswarmBaseURL": "https://studio.example"}),
    );
    let agent = device.start(quick());
    backend.status("CONNECTED").await;
    agent.stop().await;
    for useless in [
        json!({}),
        json!({"reswarmBaseURL": null}),
        json!({"reswarmBaseURL": ""}),
        json!(null),
    ] {
        backend.answers(UPDATE_DEVICE_STATUS, useless);
        backend.forget();
        let agent = device.start(quick());
        backend.status("CONNECTED").await;
        agent.stop().await;
    }
    let store = device.store().await;
    let remembered = store.fact("base_url").await.unwrap();
    assert_eq!(remembered.as_deref(), Some("https://studio.example"));
}
