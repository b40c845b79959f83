//! What the options ask for, asked of real routers: those that every one of them fulfils.

use std::time::Duration;

use wamp::client::{
    CallOptions, InvokePolicy, MatchPolicy, PublishOptions, RegisterOptions, Session, SubscribeOptions,
    Subscription, procedure,
};
use wamp::{Payload, Value};

use crate::scripted::SOON;
use crate::suite::{BACKEND, DEVICE, Way};

pub(crate) async fn all(way: &Way<'_>) {
    let (device, backend) = (way.join(DEVICE).await, way.join(BACKEND).await);
    subscribers_are_chosen(&device, &backend).await;
    patterns_match_and_name_the_topic(&device, &backend).await;
    retained_events_come_first_for_who_asks(&device, &backend).await;
    shared_procedures_take_turns(&device, &backend).await;
    device.leave().await;
    backend.leave().await;
}

async fn numbers(subscription: &mut Subscription, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let event = tokio::time::timeout(SOON, subscription.events.recv())
            .await
            .unwrap()
            .unwrap();
        numbers.push(event.payload.parse().unwrap());
    }
    numbers
}

async fn subscribers_are_chosen(device: &Session, backend: &Session) {
    let topic = "re.mgmt.options.chosen";
    let mut by_device = device
        .subscribe(topic, SubscribeOptions::default())
        .await
        .unwrap();
    let mut by_backend = backend
        .subscribe(topic, SubscribeOptions::default())
        .await
        .unwrap();
    let plain = PublishOptions::default;
    let list = |authid: &str| vec![authid.to_owned()];
    for (number, options) in [
        plain(),
        PublishOptions {
            exclude_me: Some(false),
            ..plain()
        },
        PublishOptions {
            exclude: vec![backend.id()],
            exclude_me: Some(false),
            ..plain()
        },
        PublishOptions {
            exclude_authid: list(BACKEND),
            ..plain()
        },
        PublishOptions {
            exclude_authrole: list("backend"),
            ..plain()
        },
        PublishOptions {
            eligible: Some(vec![backend.id()]),
            ..plain()
        },
        PublishOptions {
            eligible_authid: Some(list(DEVICE)),
            exclude_me: Some(false),
            ..plain()
        },
        PublishOptions {
            eligible_authrole: Some(list("backend")),
            ..plain()
        },
    ]
    .into_iter()
    .enumerate()
    {
        device
            .publish_acknowledged(topic, options, Payload::of(&[number]).unwrap())
            .await
            .unwrap();
    }
    let last = PublishOptions {
        exclude_me: Some(false),
        ..plain()
    };
    device
        .publish_acknowledged(topic, last, Payload::of(&[99]).unwrap())
        .await
        .unwrap();
    assert_eq!(numbers(&mut by_device, 4).await, [1, 2, 6, 99]);
    assert_eq!(numbers(&mut by_backend, 5).await, [0, 1, 5, 7, 99]);
}

async fn patterns_match_and_name_the_topic(device: &Session, backend: &Session) {
    let topic = "re.mgmt.options.pattern";
    for (pattern, policy) in [
        ("re.mgmt.options.pat", MatchPolicy::Prefix),
        ("re.mgmt..pattern", MatchPolicy::Wildcard),
    ] {
        let mut subscription = backend.subscribe(pattern, policy).await.unwrap();
        device
            .publish(topic, PublishOptions::default(), Payload::of(&[1]).unwrap())
            .await
            .unwrap();
        let event = tokio::time::timeout(SOON, subscription.events.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            event.details.get("topic").and_then(Value::as_str),
            Some(topic),
            "{policy:?}"
        );
        backend.unsubscribe(subscription.id).await.unwrap();

        let options = RegisterOptions {
            match_policy: policy,
            ..RegisterOptions::default()
        };
        let which =
            procedure(|(): (), invocation| async move { Ok(invocation.details.get("procedure").cloned()) });
        let registration = device.register(pattern, options, which).await.unwrap();
        let result = backend
            .call(topic, Payload::Empty, CallOptions::timeout(SOON))
            .await
            .unwrap();
        assert_eq!(result.payload.parse::<String>().unwrap(), topic, "{policy:?}");
        device.unregister(registration.id).await.unwrap();
    }
}

async fn retained_events_come_first_for_who_asks(device: &Session, backend: &Session) {
    let topic = "re.mgmt.options.retained";
    let retain = PublishOptions {
        retain: true,
        ..PublishOptions::default()
    };
    // Some routers retain only what somebody has been interested in.
    let first = backend
        .subscribe(topic, SubscribeOptions::default())
        .await
        .unwrap();
    device
        .publish_acknowledged(topic, retain, Payload::of(&[7]).unwrap())
        .await
        .unwrap();
    backend.unsubscribe(first.id).await.unwrap();
    let asking = SubscribeOptions {
        get_retained: true,
        ..SubscribeOptions::default()
    };
    let mut subscription = backend.subscribe(topic, asking).await.unwrap();
    let event = tokio::time::timeout(SOON, subscription.events.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(event.details.get("retained").and_then(Value::as_bool), Some(true));
    assert_eq!(event.payload.parse::<u64>().unwrap(), 7);
}

async fn shared_procedures_take_turns(device: &Session, backend: &Session) {
    let uri = "re.mgmt.options.shared";
    let options = RegisterOptions {
        invoke: InvokePolicy::RoundRobin,
        ..RegisterOptions::default()
    };
    for (session, name) in [(device, DEVICE), (backend, BACKEND)] {
        let says_who = procedure(move |(): (), _| async move { Ok(name) });
        session.register(uri, options.clone(), says_who).await.unwrap();
    }
    let mut answers = Vec::new();
    for _ in 0..4 {
        let bound = CallOptions::timeout(Duration::from_secs(10));
        let result = backend.call(uri, Payload::Empty, bound).await.unwrap();
        answers.push(result.payload.parse::<String>().unwrap());
    }
    assert_eq!(answers, [DEVICE, BACKEND, DEVICE, BACKEND]);
}
