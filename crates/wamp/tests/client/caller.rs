//! Calls: deadlines, cancellation, partial results.

use futures_util::StreamExt as _;
use serde_json::{Value as Json, json};
use wamp::client::{CallOptions, CallStream, CancelMode, RequestError, Session};
use wamp::value::Dict;
use wamp::{Payload, Value};

use crate::scripted::{Peer, SHORT, joined};

/// A call whose results are streamed, after the router has heard of it.
async fn streamed(session: &Session, peer: &mut Peer, heard: Json) -> CallStream {
    let stream = session
        .call_stream("a.b", Payload::Empty, CallOptions::default())
        .await
        .unwrap();
    assert_eq!(peer.hear().await, heard);
    stream
}

#[tokio::test]
async fn rule_02_rule_03_a_timeout_is_ours_cancels_once_and_drops_late_answers() {
    let (session, mut peer) = joined(|_| {}).await;
    let (result, call) = tokio::join!(
        session.call("a.b", Payload::Empty, CallOptions::timeout(SHORT)),
        peer.hear()
    );
    assert!(matches!(result, Err(RequestError::Timeout(SHORT))));
    assert_eq!(call, json!([48, 1, {}, "a.b"]));
    assert_eq!(peer.hear().await, json!([49, 1, {"mode": "killnowait"}]));
    // Routers name the call or the cancellation in their ERROR.
    peer.say(json!([8, 49, 1, {}, "wamp.error.canceled"])).await;
    peer.say(json!([50, 1, {}, ["late"]])).await;
    let (result, call) = tokio::join!(
        session.call("a.b", Payload::Empty, CallOptions::default()),
        async {
            let call = peer.hear().await;
            peer.say(json!([50, 2, {}, ["answer"]])).await;
            call
        }
    );
    assert_eq!(call, json!([48, 2, {}, "a.b"]), "no second CANCEL before");
    assert_eq!(result.unwrap().payload.args().unwrap(), [Value::from("answer")]);
}

#[tokio::test]
async fn c_10_a_dropped_call_is_cancelled_once_and_an_answered_one_never() {
    let (session, mut peer) = joined(|_| {}).await;
    {
        let call = session.call("a.b", Payload::Empty, CallOptions::default());
        tokio::select! {
            _ = call => panic!("answered by nobody"),
            heard = peer.hear() => assert_eq!(heard, json!([48, 1, {}, "a.b"])),
        }
    }
    assert_eq!(peer.hear().await, json!([49, 1, {"mode": "killnowait"}]));
    let router = async {
        assert_eq!(peer.hear().await[1], 2);
        peer.say(json!([8, 49, 2, {}, "wamp.error.canceled"])).await;
    };
    let (result, ()) = tokio::join!(
        session.call("a.b", Payload::Empty, CallOptions::default()),
        router
    );
    assert!(matches!(result, Err(RequestError::Peer(error)) if error.uri == "wamp.error.canceled"));
    session.publish("a.b", Dict::new(), Payload::Empty).await.unwrap();
    assert_eq!(peer.hear().await[0], 16);
}

#[tokio::test]
async fn rule_17_c_09_a_partial_result_is_never_taken_for_the_final_one() {
    let (session, mut peer) = joined(|_| {}).await;
    let router = async {
        assert_eq!(peer.hear().await[2], json!({}));
        peer.say(json!([50, 1, {"progress": true}, ["partial"]])).await;
        peer.say(json!([50, 1, {}, ["final"]])).await;
    };
    let (result, ()) = tokio::join!(
        session.call("a.b", Payload::Empty, CallOptions::default()),
        router
    );
    assert_eq!(result.unwrap().payload.args().unwrap(), [Value::from("final")]);

    let mut stream = streamed(
        &session,
        &mut peer,
        json!([48, 2, {"receive_progress": true}, "a.b"]),
    )
    .await;
    peer.say(json!([50, 2, {"progress": true}, [1]])).await;
    peer.say(json!([50, 2, {"progress": true}, [2]])).await;
    peer.say(json!([
        8,
        48,
        2,
        {},
        "an.error",
        ["in place of the final result"]
    ]))
    .await;
    for expected in [1, 2] {
        let part = stream.next().await.unwrap().unwrap();
        assert!(part.is_partial());
        assert_eq!(part.payload.first::<u64>().unwrap(), Some(expected));
    }
    let error = stream.next().await.unwrap();
    assert!(matches!(error, Err(RequestError::Peer(error)) if error.uri == "an.error"));
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn c_10_a_stream_that_is_dropped_or_late_cancels_its_call_once() {
    let (session, mut peer) = joined(|_| {}).await;
    let mut stream = streamed(
        &session,
        &mut peer,
        json!([48, 1, {"receive_progress": true}, "a.b"]),
    )
    .await;
    peer.say(json!([50, 1, {"progress": true}, [1]])).await;
    assert!(stream.next().await.unwrap().unwrap().is_partial());
    drop(stream);
    assert_eq!(peer.hear().await, json!([49, 1, {"mode": "killnowait"}]));
    peer.say(json!([50, 1, {}, ["late"]])).await;

    let options = CallOptions {
        cancel: CancelMode::Kill,
        ..CallOptions::timeout(SHORT)
    };
    let mut stream = session.call_stream("a.b", Payload::Empty, options).await.unwrap();
    assert_eq!(peer.hear().await[1], 2);
    peer.say(json!([50, 2, {"progress": true}, [1]])).await;
    assert!(stream.next().await.unwrap().unwrap().is_partial());
    let late = stream.next().await.unwrap();
    assert!(matches!(late, Err(RequestError::Timeout(SHORT))), "{late:?}");
    assert!(stream.next().await.is_none());
    drop(stream);
    assert_eq!(peer.hear().await, json!([49, 2, {"mode": "kill"}]));

    // One that has ended is not cancelled.
    let mut stream = streamed(
        &session,
        &mut peer,
        json!([48, 3, {"receive_progress": true}, "a.b"]),
    )
    .await;
    peer.say(json!([50, 3, {}, ["final"]])).await;
    assert!(!stream.next().await.unwrap().unwrap().is_partial());
    drop(stream);
    session.publish("a.b", Dict::new(), Payload::Empty).await.unwrap();
    assert_eq!(peer.hear().await[0], 16);
}

#[tokio::test]
async fn a_caller_who_does_not_take_partial_results_loses_the_call() {
    let (session, mut peer) = joined(|_| {}).await;
    let mut stream = streamed(
        &session,
        &mut peer,
        json!([48, 1, {"receive_progress": true}, "a.b"]),
    )
    .await;
    for number in 0..2000 {
        peer.say(json!([50, 1, {"progress": true}, [number]])).await;
    }
    assert_eq!(peer.hear().await, json!([49, 1, {"mode": "killnowait"}]));
    for number in 0..1024 {
        let part = stream.next().await.unwrap().unwrap();
        assert_eq!(part.payload.first::<u64>().unwrap(), Some(number));
    }
    let error = stream.next().await.unwrap();
    assert!(matches!(error, Err(RequestError::Cancelled)), "{error:?}");
    assert!(stream.next().await.is_none());
}
