//! Many calls at once, calls that are given up, and a flood of one procedure.

use std::time::Duration;

use protocol::uri;
use reagent::link::Timing;
use serde_json::json;
use testkit::wait;
use wamp::Payload;
use wamp::client::{CallOptions, RequestError, Session};
use wamp::message::Message;

use super::SOON;
use super::backend::{Answer, Backend};
use super::device::{Device, quick, refusal};
use super::plane::Plane;
use super::tap::Tap;

use super::procedures::{connected, request};

#[tokio::test]
async fn two_hundred_calls_at_once_are_all_answered() {
    two_hundred_calls_at_once_are_all_answered_on(&Plane::own().await).await;
}

pub(crate) async fn two_hundred_calls_at_once_are_all_answered_on(plane: &Plane) {
    let (backend, device, agent) = connected(plane).await;
    // Requests are few: each of them waits for the disk, and their deadline is that of a caller.
    let calls = (0..200_u64).map(|number| {
        let (device, session) = (&device, &backend.session);
        async move {
            let (name, kwargs) = match number % 10 {
                0 => ("request_app_state", request(&json!({"app_key": 1 + number}))),
                _ => ("get_storage_data", json!({})),
            };
            device.call(session, name, json!([]), kwargs).await
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
