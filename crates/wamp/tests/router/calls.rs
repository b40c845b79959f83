//! RPC and events through the crate's own client.

use std::collections::BTreeMap;

use super::*;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use wamp::client::{CallOptions, CallPart, Invocation, RegisterOptions, RequestError, WampError, handler};
use wamp::{Codec, Payload};

async fn with_codec(running: &Running, codec: Codec) -> Session {
    let mut config = running.client_config();
    config.codecs = vec![codec];
    Session::connect(&config).await.unwrap()
}

#[tokio::test]
async fn r_r1_arguments_survive_every_pair_of_codecs_binary_included() {
    let running = start(Limits::default()).await;
    let payload = Payload::from_parts(
        vec![
            wamp::Value::Null,
            true.into(),
            wamp::Value::Int(-5),
            wamp::Value::Uint(1 << 53),
            1.5.into(),
            "é\u{1f600}".into(),
            wamp::Value::Bytes(vec![0, 255, 7]),
            vec![wamp::Value::Uint(1)].into(),
        ],
        BTreeMap::from([("k".to_owned(), wamp::Value::Bytes(vec![1]))]),
    );
    let codecs = [Codec::Json, Codec::MessagePack, Codec::Cbor];
    for callee in codecs {
        let session = with_codec(&running, callee).await;
        let echo = handler(|invocation: Invocation| async move { Ok(invocation.payload) });
        session
            .register("re.echo", RegisterOptions::default(), echo)
            .await
            .unwrap();
        for caller in codecs {
            let caller = with_codec(&running, caller).await;
            let result = caller
                .call("re.echo", payload.clone(), CallOptions::default())
                .await
                .unwrap();
            assert_eq!(result.payload.args().unwrap(), payload.args().unwrap());
            assert_eq!(result.payload.kwargs().unwrap(), payload.kwargs().unwrap());
        }
        session.leave().await;
    }
}

#[tokio::test]
async fn r_r10_partial_results_stream_to_the_caller() {
    let running = start(Limits::default()).await;
    let (callee, caller) = (running.client().await, running.client().await);
    let count = handler(|invocation: Invocation| async move {
        for number in 0..3_u64 {
            assert!(invocation.progress(Payload::from_args(vec![number.into()])).await);
        }
        Ok(Payload::from_args(vec!["done".into()]))
    });
    callee
        .register("re.count", RegisterOptions::default(), count)
        .await
        .unwrap();
    let mut stream = caller.call_stream("re.count", Payload::Empty, CallOptions::default());
    let mut numbers = Vec::new();
    let last = loop {
        match stream.next().await.unwrap().unwrap() {
            CallPart::Partial(result) => numbers.push(result.payload.first::<u64>().unwrap().unwrap()),
            CallPart::Final(result) => break result,
        }
    };
    assert!(stream.next().await.is_none());
    assert_eq!(last.payload.first::<String>().unwrap().as_deref(), Some("done"));
    assert_eq!(numbers, vec![0, 1, 2]);
}

#[tokio::test]
async fn r_r9_r_r21_the_callee_sees_its_caller_and_its_error_reaches_it() {
    let running = start(Limits::default()).await;
    let (callee, caller) = (running.client().await, running.device().await);
    let refuse = handler(|invocation: Invocation| async move {
        Err(WampError::new(
            "re.error.refused",
            invocation.caller_authid().unwrap_or_default(),
        ))
    });
    callee
        .register("re.refuse", RegisterOptions::default(), refuse)
        .await
        .unwrap();
    match caller
        .call("re.refuse", Payload::Empty, CallOptions::default())
        .await
    {
        Err(RequestError::Peer(error)) => {
            assert_eq!(error.uri, "re.error.refused");
            assert_eq!(error.payload.first::<String>().unwrap().as_deref(), Some("7-42"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn r_r17_the_router_ends_a_call_at_its_timeout_and_cancels_the_handler() {
    let running = start(Limits::default()).await;
    let (callee, mut caller) = (running.client().await, running.joined().await);
    let (told, mut cancelled) = mpsc::channel(1);
    let hang = handler(move |invocation: Invocation| {
        let told = told.clone();
        async move {
            invocation.cancelled.cancelled().await;
            told.send(()).await.unwrap();
            Ok(Payload::Empty)
        }
    });
    callee
        .register("re.hang", RegisterOptions::default(), hang)
        .await
        .unwrap();
    let error = caller.ask(json!([48, 1, {"timeout": 50}, "re.hang"])).await;
    assert_eq!(
        (&error[0], &error[1], &error[2], &error[4]),
        (&json!(8), &json!(48), &json!(1), &json!("wamp.error.timeout"))
    );
    soon("the handler", cancelled.recv()).await.unwrap();
    assert!(callee.is_open());
}

#[tokio::test]
async fn r_r19_callers_of_a_lost_callee_are_told() {
    let running = start(Limits::default()).await;
    let (callee, caller) = (running.client().await, running.client().await);
    let (told, mut called) = mpsc::channel(1);
    let hang = handler(move |_| {
        let told = told.clone();
        async move {
            told.send(()).await.unwrap();
            std::future::pending().await
        }
    });
    callee
        .register("re.hang", RegisterOptions::default(), hang)
        .await
        .unwrap();
    let calling = tokio::spawn(async move {
        caller
            .call("re.hang", Payload::Empty, CallOptions::default())
            .await
    });
    soon("the invocation", called.recv()).await.unwrap();
    callee.abort();
    match soon("the answer", calling).await.unwrap() {
        Err(RequestError::Peer(error)) => assert_eq!(error.uri, "wamp.error.canceled"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn r_r4_an_evicted_callee_learns_of_it() {
    let running = start(Limits::default()).await;
    let (old, new) = (running.client().await, running.client().await);
    let nothing = || handler(|_| async { Ok(Payload::Empty) });
    let registration = old
        .register("re.ping", RegisterOptions::default(), nothing())
        .await
        .unwrap();
    let force = RegisterOptions {
        force_reregister: true,
        ..RegisterOptions::default()
    };
    new.register("re.ping", force, nothing()).await.unwrap();
    soon("the revocation", registration.revoked.cancelled()).await;
    assert!(old.is_open());
    assert_eq!(running.router.counters().registrations, 1);
}

#[tokio::test]
async fn events_cross_codecs_and_are_acknowledged_with_their_id() {
    let running = start(Limits::default()).await;
    let publisher = with_codec(&running, Codec::MessagePack).await;
    let mut subscriptions = Vec::new();
    for codec in [Codec::Json, Codec::MessagePack, Codec::Cbor] {
        let session = with_codec(&running, codec).await;
        let subscription = session.subscribe("re.topic", wamp::Dict::new()).await.unwrap();
        subscriptions.push((session, subscription));
    }
    let payload = Payload::from_args(vec![wamp::Value::Bytes(vec![9, 0])]);
    let publication = publisher
        .publish_acknowledged("re.topic", wamp::Dict::new(), payload.clone())
        .await
        .unwrap();
    for (_, subscription) in &mut subscriptions {
        let event = soon("the event", subscription.events.recv()).await.unwrap();
        assert_eq!(event.publication, publication);
        assert_eq!(event.payload.args().unwrap(), payload.args().unwrap());
    }
}
