//! What all requests have in common: ids, shapes, deadlines, the way out.

use std::collections::HashSet;

use serde_json::json;
use wamp::client::{CallOptions, CloseReason, MatchPolicy, RegisterOptions, RequestError};
use wamp::value::Dict;
use wamp::{Payload, Value};

use crate::scripted::{SHORT, SOON, echo, joined, registered, subscribed};

#[tokio::test]
async fn rule_01_rule_09_c_25_unanswered_requests_end_and_ids_count_from_one_without_gaps() {
    let (session, mut peer) = joined(|config| config.reply_timeout = SHORT).await;
    let bound = CallOptions::timeout(SHORT);
    let (nobody_answers, heard) = tokio::join!(
        async {
            tokio::join!(
                session.call("a.b", Payload::Empty, bound.clone()),
                session.subscribe("a.b", Dict::new()),
                session.register("a.b", RegisterOptions::default(), echo()),
                session.publish("a.b", Dict::new(), Payload::Empty),
                session.publish_acknowledged("a.b", Dict::new(), Payload::Empty),
                session.unregister(5),
                session.unsubscribe(5),
                // Refused locally: takes no number.
                session.call("a b", Payload::Empty, bound.clone()),
                session.call("a.b", Payload::Empty, bound.clone()),
            )
        },
        async {
            let mut ids = Vec::new();
            while ids.len() < 8 {
                let message = peer.hear().await;
                if message[0] != 49 {
                    ids.push(message[1].as_u64().unwrap());
                }
            }
            ids
        }
    );
    assert_eq!(heard, (1..=8).collect::<Vec<_>>());
    assert!(matches!(nobody_answers.0, Err(RequestError::Timeout(SHORT))));
    assert!(matches!(nobody_answers.1, Err(RequestError::Timeout(SHORT))));
    assert!(matches!(nobody_answers.2, Err(RequestError::Timeout(SHORT))));
    assert!(nobody_answers.3.is_ok());
    assert!(matches!(nobody_answers.4, Err(RequestError::Timeout(SHORT))));
    assert!(matches!(nobody_answers.5, Err(RequestError::Timeout(SHORT))));
    assert!(matches!(nobody_answers.6, Err(RequestError::Timeout(SHORT))));
    assert!(matches!(nobody_answers.7, Err(RequestError::InvalidUri(_))));
}

#[tokio::test]
async fn requests_have_the_shape_of_the_contract() {
    let (session, mut peer) = joined(|config| config.reply_timeout = SHORT).await;
    let force = RegisterOptions {
        force_reregister: true,
        ..RegisterOptions::default()
    };
    let heard = async {
        let mut heard = Vec::new();
        for _ in 0..3 {
            heard.push(peer.hear().await);
        }
        heard
    };
    let (heard, _, _, _) = tokio::join!(
        heard,
        session.register("re.mgmt.x.get_images", force, echo()),
        session.publish_acknowledged("a.b", Dict::new(), Payload::from_args(vec![Value::Uint(1)])),
        session.call(
            "reswarm.devices.get_app_cred_key",
            Payload::Empty,
            CallOptions::timeout(SHORT)
        ),
    );
    assert_eq!(
        heard,
        [
            json!([64, 1, {"force_reregister": true}, "re.mgmt.x.get_images"]),
            json!([16, 2, {"acknowledge": true}, "a.b", [1]]),
            json!([48, 3, {}, "reswarm.devices.get_app_cred_key"]),
        ]
    );
}

#[tokio::test]
async fn c_21_what_comes_after_its_owner_has_given_up_is_taken_back() {
    let (session, mut peer) = joined(|config| config.reply_timeout = SHORT).await;
    let (given_up, register) = tokio::join!(
        session.register("a.b", RegisterOptions::default(), echo()),
        peer.hear()
    );
    assert!(matches!(given_up, Err(RequestError::Timeout(SHORT))));
    peer.say(json!([65, register[1], 500])).await;
    assert_eq!(peer.hear().await, json!([66, 2, 500]));
    let (given_up, subscribe) = tokio::join!(session.subscribe("a.b", Dict::new()), peer.hear());
    assert!(matches!(given_up, Err(RequestError::Timeout(SHORT))));
    peer.say(json!([33, subscribe[1], 600])).await;
    assert_eq!(peer.hear().await, json!([34, 4, 600]));
}

#[tokio::test]
async fn a_router_that_does_not_read_blocks_publishers_and_nobody_else() {
    let (session, mut peer) = joined(|_| {}).await;
    let payload = Payload::from_args(vec![Value::from("x".repeat(1 << 20))]);
    let payload = session.codec().unwrap().encode_payload(&payload).unwrap();
    // Memory stays bounded because the publisher waits.
    let mut published = 0;
    while tokio::time::timeout(SHORT, session.publish("a.b", Dict::new(), payload.clone()))
        .await
        .is_ok()
    {
        published += 1;
        assert!(published < 200, "publishing goes on for ever");
    }
    // The receive path does not wait with it.
    peer.say(json!([6, {}, "wamp.close.killed"])).await;
    let reason = tokio::time::timeout(SOON, session.closed()).await.unwrap();
    assert_eq!(reason, CloseReason::Goodbye("wamp.close.killed".to_owned()));
    let refused = session.publish("a.b", Dict::new(), Payload::Empty).await;
    assert!(matches!(refused, Err(RequestError::ConnectionLost)));
}

#[tokio::test]
async fn pipelined_registrations_are_matched_by_request() {
    let (session, mut peer) = joined(|_| {}).await;
    let mut registering = tokio::task::JoinSet::new();
    for number in 0..34_u64 {
        let session = session.clone();
        registering.spawn(async move {
            let procedure = format!("a.procedure{number}");
            session
                .register(&procedure, RegisterOptions::default(), echo())
                .await
                .unwrap()
                .id
        });
    }
    let mut requests = Vec::new();
    for _ in 0..34 {
        requests.push(peer.hear().await[1].as_u64().unwrap());
    }
    for request in requests.iter().rev() {
        peer.say(json!([65, request, request + 1000])).await;
    }
    let ids: HashSet<_> = registering.join_all().await.into_iter().collect();
    assert_eq!(ids, (1001..=1034).collect());
}

#[tokio::test]
async fn rule_06_c_22_invalid_uris_are_refused_locally_and_nothing_is_sent() {
    let (session, mut peer) = joined(|_| {}).await;
    let invalid = |failure: Option<RequestError>| matches!(failure, Some(RequestError::InvalidUri(_)));
    for uri in ["", "a..b", "a b", "a.#", ".a", "a.", "a.\u{a0}b", "a\n"] {
        let call = session.call(uri, Payload::Empty, CallOptions::default()).await;
        assert!(invalid(call.err()), "{uri:?}");
        let stream = session
            .call_stream(uri, Payload::Empty, CallOptions::default())
            .await;
        assert!(invalid(stream.err()), "{uri:?}");
        let publish = session.publish(uri, Dict::new(), Payload::Empty).await;
        assert!(invalid(publish.err()), "{uri:?}");
        let publish = session
            .publish_acknowledged(uri, Dict::new(), Payload::Empty)
            .await;
        assert!(invalid(publish.err()), "{uri:?}");
        let subscribe = session.subscribe(uri, Dict::new()).await;
        assert!(invalid(subscribe.err()), "{uri:?}");
        let register = session.register(uri, RegisterOptions::default(), echo()).await;
        assert!(invalid(register.err()), "{uri:?}");
    }
    // Nor may a pattern contain blanks.
    let subscribe = session.subscribe("a b.", MatchPolicy::Prefix).await;
    assert!(invalid(subscribe.err()));
    session.publish("a.b", Dict::new(), Payload::Empty).await.unwrap();
    assert_eq!(peer.hear().await, json!([16, 1, {}, "a.b"]));
}

#[tokio::test]
async fn rule_07_loose_uris_and_patterns_are_sent_as_they_are() {
    let (session, mut peer) = joined(|config| config.reply_timeout = SHORT).await;
    for uri in [
        "A-b/c%.\u{e9}",
        "re.mgmt.7-42.Ping",
        "a",
        "reswarm.device.%d.list/ondestroy",
    ] {
        session.publish(uri, Dict::new(), Payload::Empty).await.unwrap();
        assert_eq!(peer.hear().await[3], uri);
    }
    for (pattern, policy) in [
        ("", MatchPolicy::Prefix),
        ("a.", MatchPolicy::Prefix),
        ("A..b", MatchPolicy::Wildcard),
    ] {
        let (_, heard) = tokio::join!(session.subscribe(pattern, policy), peer.hear());
        assert_eq!(
            (&heard[2], &heard[3]),
            (&json!({"match": policy.name()}), &json!(pattern))
        );
        let options = RegisterOptions {
            match_policy: policy,
            ..RegisterOptions::default()
        };
        let (_, heard) = tokio::join!(session.register(pattern, options, echo()), peer.hear());
        assert_eq!(
            (&heard[2], &heard[3]),
            (&json!({"match": policy.name()}), &json!(pattern))
        );
    }
}

#[tokio::test]
async fn rule_10_ids_of_the_router_are_taken_as_they_come() {
    const LARGEST: u64 = 1 << 53;
    let (session, mut peer) = joined(|_| {}).await;
    for id in [0, LARGEST, 5] {
        let registration = registered(&session, &mut peer, id, echo()).await;
        assert_eq!(registration.id, id);
        let mut subscription = subscribed(&session, &mut peer, id).await;
        assert_eq!(subscription.id, id);
        // The router counts all its invocations together, or not at all.
        for request in [LARGEST, 3, 1_000_000, 0] {
            peer.say(json!([68, request, id, {}, [request]])).await;
            assert_eq!(peer.hear().await, json!([70, request, {}, [request]]));
        }
        peer.say(json!([36, id, LARGEST, {}])).await;
        let event = tokio::time::timeout(SOON, subscription.events.recv())
            .await
            .unwrap();
        assert_eq!(event.unwrap().publication, LARGEST);
        // Request 0 is no answer to anything of ours.
        peer.say(json!([67, 0, {"registration": id}])).await;
        tokio::time::timeout(SOON, registration.revoked.cancelled())
            .await
            .unwrap();
        peer.say(json!([35, 0, {"subscription": id}])).await;
        let end = tokio::time::timeout(SOON, subscription.events.recv())
            .await
            .unwrap();
        assert!(end.is_none());
    }
}

#[tokio::test]
async fn c_24_binary_is_nul_and_base64_over_json_both_ways() {
    let (session, mut peer) = joined(|_| {}).await;
    let bytes = Value::Bytes(vec![0, 255, 16]);
    let wire = json!("\u{0}AP8Q");
    let payload = Payload::from_parts(vec![bytes.clone()], Dict::from([("k".to_owned(), bytes.clone())]));
    let call = session.call("a.b", payload.clone(), CallOptions::default());
    let router = async {
        assert_eq!(peer.hear().await, json!([48, 1, {}, "a.b", [wire], {"k": wire}]));
        peer.say(json!([50, 1, {}, [wire], {"k": wire}])).await;
    };
    let (result, ()) = tokio::join!(call, router);
    let result = result.unwrap().payload;
    assert_eq!(result.args().unwrap(), std::slice::from_ref(&bytes));
    assert_eq!(result.kwargs().unwrap()["k"], bytes);
    registered(&session, &mut peer, 1, echo()).await;
    peer.say(json!([68, 7, 1, {}, [wire]])).await;
    assert_eq!(peer.hear().await, json!([70, 7, {}, [wire]]));
}
