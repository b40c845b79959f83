//! Calls, procedures and events with types in place of payloads, against our router.

use serde::{Deserialize, Serialize};
use wamp::Codec;
use wamp::client::{
    CallOptions, Match, PublishOptions, RegisterOptions, RequestError, Session, WampError, procedure,
};
use wamp::payload::{Args, IntoPayload as _, Kwargs, One};

use crate::router;
use crate::suite::{BACKEND, DEVICE, config};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reading {
    sensor: String,
    celsius: f64,
}

async fn pair(codec: Codec) -> (Session, Session) {
    let url = router::start().await;
    (
        Session::connect(&config(&url, codec, DEVICE)).await.unwrap(),
        Session::connect(&config(&url, codec, BACKEND)).await.unwrap(),
    )
}

#[tokio::test]
async fn types_travel_with_every_codec() {
    for codec in [Codec::Json, Codec::MessagePack, Codec::Cbor] {
        let (device, backend) = pair(codec).await;
        let add = procedure(|Args((a, b)): Args<(i64, i64)>, _| async move {
            let sum = a.checked_add(b);
            sum.map(One)
                .ok_or_else(|| WampError::new("re.error.overflow", "too large"))
        });
        device
            .register("re.mgmt.add", RegisterOptions::default(), add)
            .await
            .unwrap();
        let warmer = procedure(|Kwargs(reading): Kwargs<Reading>, _| async move {
            Ok(Kwargs(Reading {
                celsius: reading.celsius + 1.0,
                ..reading
            }))
        });
        device
            .register("re.mgmt.warmer", RegisterOptions::default(), warmer)
            .await
            .unwrap();

        let options = CallOptions::default;
        let One(sum): One<i64> = backend
            .ask("re.mgmt.add", Args((2, -44)), options())
            .await
            .unwrap();
        assert_eq!(sum, -42);
        let overflow = backend
            .ask::<_, One<i64>>("re.mgmt.add", Args((i64::MAX, 1)), options())
            .await;
        assert!(matches!(overflow, Err(RequestError::Peer(error)) if error.uri == "re.error.overflow"));
        let reading = Reading {
            sensor: "boiler".to_owned(),
            celsius: 61.5,
        };
        let Kwargs(warmed): Kwargs<Reading> = backend
            .ask("re.mgmt.warmer", Kwargs(&reading), options())
            .await
            .unwrap();
        assert_eq!((warmed.sensor.as_str(), warmed.celsius), ("boiler", 62.5));
    }
}

#[tokio::test]
async fn what_does_not_fit_is_an_error_at_the_right_end() {
    let (device, backend) = pair(Codec::Json).await;
    let add = procedure(|Args((a, b)): Args<(i64, i64)>, _| async move { Ok(One(a + b)) });
    device
        .register("re.mgmt.add", RegisterOptions::default(), add)
        .await
        .unwrap();
    let misfit = backend
        .ask::<_, One<i64>>("re.mgmt.add", Args(("hunter2", 1)), CallOptions::default())
        .await;
    let Err(RequestError::Peer(error)) = misfit else {
        panic!("{misfit:?}");
    };
    assert_eq!(error.uri, "wamp.error.invalid_argument");
    assert!(error.to_string().contains("(i64, i64)"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");

    let unexpected = backend
        .ask::<_, One<String>>("re.mgmt.add", Args((1, 2)), CallOptions::default())
        .await;
    assert!(
        matches!(unexpected, Err(RequestError::Unexpected(_))),
        "{unexpected:?}"
    );
}

#[tokio::test]
async fn events_are_read_as_types_and_options_have_names() {
    let (device, backend) = pair(Codec::Cbor).await;
    let mut readings = backend.subscribe("re.mgmt.reading", Match::Prefix).await.unwrap();
    let own = PublishOptions {
        include_me: true,
        ..PublishOptions::default()
    };
    let reading = Reading {
        sensor: "boiler".to_owned(),
        celsius: 61.5,
    };
    let payload = One(&reading).into_payload().unwrap();
    device
        .publish_acknowledged("re.mgmt.reading.one", own, payload)
        .await
        .unwrap();
    let event = readings.events.recv().await.unwrap();
    assert_eq!(event.payload.parse::<One<Reading>>().unwrap(), One(reading));
    assert_eq!(
        event.details.get("topic").and_then(wamp::Value::as_str),
        Some("re.mgmt.reading.one")
    );
}
