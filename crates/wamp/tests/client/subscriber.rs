//! Events: in order, bounded, and what happens when the router takes a subscription away.

use serde_json::json;
use wamp::Value;
use wamp::client::EVENT_QUEUE;

use crate::scripted::{SOON, echo, joined, registered, subscribed};

#[tokio::test]
async fn c_12_a_revoked_subscription_ends() {
    let (session, mut peer) = joined(|_| {}).await;
    let mut subscription = subscribed(&session, &mut peer, 44).await;
    peer.say(json!([36, 44, 1, {}, ["last"]])).await;
    peer.say(json!([35, 0, {"subscription": 44}])).await;
    let last = tokio::time::timeout(SOON, subscription.events.recv())
        .await
        .unwrap();
    assert_eq!(last.unwrap().payload.args().unwrap(), [Value::from("last")]);
    assert!(subscription.events.recv().await.is_none());
}

#[tokio::test]
async fn a_slow_subscriber_learns_what_it_missed() {
    const EXTRA: usize = 7;
    let (session, mut peer) = joined(|_| {}).await;
    let mut subscription = subscribed(&session, &mut peer, 3).await;
    registered(&session, &mut peer, 1, echo()).await;
    for number in 0..EVENT_QUEUE + EXTRA {
        peer.say(json!([36, 3, 1, {}, [number]])).await;
    }
    // Answered behind all the events: they have been read.
    peer.say(json!([68, 7, 1, {}])).await;
    peer.hear().await;
    for number in 0..EVENT_QUEUE {
        let event = subscription.events.recv().await.unwrap();
        assert_eq!(
            (event.payload.first::<usize>().unwrap(), event.missed),
            (Some(number), 0)
        );
    }
    peer.say(json!([36, 3, 1, {}, ["next"]])).await;
    let event = tokio::time::timeout(SOON, subscription.events.recv())
        .await
        .unwrap();
    assert_eq!(event.unwrap().missed, EXTRA as u64);
}
