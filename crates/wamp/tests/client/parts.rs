//! Calls whose arguments come in parts, seen from the caller, from the callee, and from end to end.

use futures_util::StreamExt as _;
use serde_json::json;
use tokio::sync::mpsc;
use wamp::client::{
    CallOptions, CallPart, CallParts, CallStream, Invocation, RegisterOptions, RequestError, Session,
    WampError, handler,
};
use wamp::payload::{IntoPayload as _, One};
use wamp::value::Dict;
use wamp::{Codec, Payload, uri};

use crate::router;
use crate::scripted::{Peer, SHORT, SOON, Script, joined};
use crate::scripted_calls::registered;
use crate::suite::{BACKEND, DEVICE, Way};

fn number(number: u64) -> Payload {
    One(number).into_payload().unwrap()
}

fn read(payload: &Payload) -> u64 {
    payload.parse::<One<u64>>().unwrap().0
}

fn is_partial(next: Option<Result<CallPart, RequestError>>) -> bool {
    matches!(next, Some(Ok(CallPart::Partial(_))))
}

/// A call in parts whose first one the router has heard.
async fn begun(session: &Session, peer: &mut Peer, options: CallOptions) -> (CallParts, CallStream) {
    let begun = session.call_in_parts("a.b", number(0), options).await.unwrap();
    let options = json!({"progress": true, "receive_progress": true});
    assert_eq!(peer.hear().await, json!([48, 1, options, "a.b", [0]]));
    begun
}

async fn streaming() -> (Session, Peer) {
    let (script, config) = Script::new().await;
    let router = script.welcome_with(&["progressive_call_invocations"]);
    let (session, peer) = tokio::join!(Session::connect(&config), router);
    (session.unwrap(), peer)
}

#[tokio::test]
async fn all_parts_go_under_one_id_and_only_the_last_ends_them() {
    let (session, mut peer) = streaming().await;
    let (mut parts, mut results) = begun(&session, &mut peer, CallOptions::default()).await;
    assert!(parts.send(number(1)).await.unwrap());
    assert_eq!(peer.hear().await, json!([48, 1, {"progress": true}, "a.b", [1]]));
    // Other requests in between have ids of their own.
    session.publish("a.b", Dict::new(), Payload::Empty).await.unwrap();
    assert_eq!(peer.hear().await[1], 2);
    peer.say(json!([50, 1, {"progress": true}, [10]])).await;
    assert!(is_partial(results.next().await));
    assert!(parts.finish(number(2)).await.unwrap());
    assert_eq!(peer.hear().await, json!([48, 1, {}, "a.b", [2]]));
    peer.say(json!([50, 1, {}, [20]])).await;
    let last = results.next().await.unwrap().unwrap();
    assert!(matches!(last, CallPart::Final(last) if read(&last.payload) == 20));
    assert!(results.next().await.is_none());
    peer.is_silent_for(SHORT).await;
}

#[tokio::test]
async fn parts_of_a_call_that_has_ended_stay_here() {
    let (session, mut peer) = streaming().await;
    let (mut parts, mut results) = begun(&session, &mut peer, CallOptions::default()).await;
    peer.say(json!([8, 48, 1, {}, "re.error.enough"])).await;
    let error = results.next().await.unwrap();
    assert!(matches!(error, Err(RequestError::Peer(error)) if error.uri == "re.error.enough"));
    assert!(!parts.send(number(1)).await.unwrap());
    assert!(!parts.finish(number(2)).await.unwrap());
    peer.is_silent_for(SHORT).await;
}

#[tokio::test]
async fn giving_either_half_up_cancels_the_call_once() {
    let (session, mut peer) = streaming().await;
    let (parts, mut results) = begun(&session, &mut peer, CallOptions::default()).await;
    drop(parts);
    assert_eq!(peer.hear().await, json!([49, 1, {"mode": "killnowait"}]));
    let end = results.next().await.unwrap();
    assert!(matches!(end, Err(RequestError::Cancelled)), "{end:?}");
    drop(results);

    let (session, mut other) = streaming().await;
    let (mut parts, results) = begun(&session, &mut other, CallOptions::default()).await;
    drop(results);
    assert_eq!(other.hear().await, json!([49, 1, {"mode": "killnowait"}]));
    assert!(!parts.send(number(1)).await.unwrap());
    drop(parts);

    let (session, mut third) = streaming().await;
    let (parts, mut results) = begun(&session, &mut third, CallOptions::timeout(SHORT)).await;
    let end = results.next().await.unwrap();
    assert!(matches!(end, Err(RequestError::Timeout(SHORT))), "{end:?}");
    assert_eq!(third.hear().await, json!([49, 1, {"mode": "killnowait"}]));
    drop((parts, results));
    for peer in [&mut peer, &mut other, &mut third] {
        peer.is_silent_for(SHORT).await;
    }
}

#[tokio::test]
async fn a_router_that_does_not_announce_the_feature_hears_nothing_of_it() {
    let (session, mut peer) = joined(|_| {}).await;
    let refused = session
        .call_in_parts("a.b", number(0), CallOptions::default())
        .await;
    assert!(
        matches!(refused, Err(RequestError::NotSupported(_))),
        "{refused:?}"
    );
    peer.is_silent_for(SHORT).await;
}

/// Adds up what comes, and tells the sum so far.
async fn sum(invocation: Invocation) -> Result<Payload, WampError> {
    let mut sum = read(&invocation.payload);
    let Some(mut parts) = invocation.parts() else {
        return Ok(number(sum));
    };
    assert!(invocation.parts().is_none(), "they are taken once");
    while let Some(part) = parts.recv().await {
        sum += read(&part);
        invocation.progress(number(sum)).await;
        if sum > 100 {
            return Err(WampError::new("re.error.enough", "enough"));
        }
    }
    Ok(number(sum))
}

#[tokio::test]
async fn parts_reach_the_handler_and_what_comes_after_its_answer_is_no_new_call() {
    let (session, mut peer) = joined(|_| {}).await;
    registered(&session, &mut peer, 1, handler(sum)).await;
    let more = json!({"progress": true, "receive_progress": true});
    for (details, value) in [(&more, 1), (&more, 2)] {
        peer.say(json!([68, 7, 1, details, [value]])).await;
    }
    assert_eq!(peer.hear().await, json!([70, 7, {"progress": true}, [3]]));
    peer.say(json!([68, 7, 1, {"receive_progress": true}, [3]])).await;
    assert_eq!(peer.hear().await, json!([70, 7, {"progress": true}, [6]]));
    assert_eq!(peer.hear().await, json!([70, 7, {}, [6]]));

    // Answered before the last part has come.
    for value in [1, 100] {
        peer.say(json!([68, 8, 1, {"progress": true}, [value]])).await;
    }
    assert_eq!(peer.hear().await[4], "re.error.enough");
    for details in [json!({"progress": true}), json!({})] {
        peer.say(json!([68, 8, 1, details, [5]])).await;
    }
    // A whole call, with the id that is free again.
    peer.say(json!([68, 8, 1, {}, [4]])).await;
    assert_eq!(peer.hear().await, json!([70, 8, {}, [4]]));
}

#[tokio::test]
async fn a_handler_that_does_not_take_its_parts_is_cancelled() {
    let (session, mut peer) = joined(|_| {}).await;
    let lazy = handler(|invocation| async move {
        let parts = invocation.parts().unwrap();
        invocation.cancelled.cancelled().await;
        drop(parts);
        Ok(Payload::Empty)
    });
    registered(&session, &mut peer, 1, lazy).await;
    for value in 0..1100 {
        peer.say(json!([68, 7, 1, {"progress": true}, [value]])).await;
    }
    assert_eq!(peer.hear().await, json!([8, 68, 7, {}, uri::error::CANCELED]));
    peer.is_silent_for(SHORT).await;
    assert!(session.is_open());
}

async fn adds_up(way: &Way<'_>) {
    let (device, backend) = (way.join(DEVICE).await, way.join(BACKEND).await);
    let (cancelled, mut cancel) = mpsc::channel::<()>(1);
    let adding = handler(move |invocation| {
        let cancelled = cancelled.clone();
        async move {
            let token = invocation.cancelled.clone();
            let result = sum(invocation).await;
            if token.is_cancelled() {
                cancelled.send(()).await.unwrap();
            }
            result
        }
    });
    device
        .register("re.mgmt.parts.sum", RegisterOptions::default(), adding)
        .await
        .unwrap();
    let call = || backend.call_in_parts("re.mgmt.parts.sum", number(1), CallOptions::timeout(SOON));
    let (mut parts, results) = call().await.unwrap();
    for value in 2..10 {
        assert!(parts.send(number(value)).await.unwrap());
    }
    assert!(parts.finish(number(10)).await.unwrap());
    let results: Vec<u64> = results
        .map(|part| read(&part.unwrap().into_result().payload))
        .collect()
        .await;
    assert_eq!(results, [3, 6, 10, 15, 21, 28, 36, 45, 55, 55]);

    // Given up by the caller, and refused by the callee.
    let (mut parts, mut results) = call().await.unwrap();
    assert!(parts.send(number(2)).await.unwrap());
    assert!(is_partial(results.next().await));
    drop(parts);
    let results: Vec<_> = results.collect().await;
    assert!(
        matches!(results[..], [Err(RequestError::Cancelled)]),
        "{results:?}"
    );
    tokio::time::timeout(SOON, cancel.recv()).await.unwrap().unwrap();
    let (mut parts, mut results) = call().await.unwrap();
    assert!(parts.send(number(1000)).await.unwrap());
    assert!(is_partial(results.next().await));
    let error = results.next().await.unwrap();
    assert!(matches!(error, Err(RequestError::Peer(error)) if error.uri == "re.error.enough"));
    assert!(!parts.finish(number(1)).await.unwrap());
    assert!(device.is_open() && backend.is_open());
}

#[tokio::test]
async fn a_call_in_parts_works_from_end_to_end_over_the_network_and_inside_a_process() {
    let url = router::start().await;
    for codec in [Codec::Json, Codec::MessagePack, Codec::Cbor] {
        adds_up(&Way::Network { url: &url, codec }).await;
    }
    adds_up(&Way::Inside(&router::router())).await;
}
