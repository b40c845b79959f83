//! The client against a router that says exactly what a test wants: requests, invocations, events.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use wamp::client::{
    CallOptions, CallPart, CallResult, CloseReason, EVENT_QUEUE, Handler, MAX_INVOCATIONS, RegisterOptions,
    Registration, RequestError, Session, Subscription, handler,
};
use wamp::value::Dict;
use wamp::{Payload, Value};

use crate::scripted::{Peer, SHORT, SOON, joined};

/// Registers `procedure`; the router gives it the id `id`.
pub(crate) async fn registered(
    session: &Session,
    peer: &mut Peer,
    id: u64,
    handler: Handler,
) -> Registration {
    let router = async {
        let register = peer.hear().await;
        assert_eq!(register[0], 64);
        peer.say(json!([65, register[1], id])).await;
    };
    let registering = session.register("a.procedure", RegisterOptions::default(), handler);
    let (registration, ()) = tokio::join!(registering, router);
    registration.unwrap()
}

pub(crate) async fn subscribed(session: &Session, peer: &mut Peer, id: u64) -> Subscription {
    let router = async {
        let subscribe = peer.hear().await;
        assert_eq!(subscribe[0], 32);
        peer.say(json!([33, subscribe[1], id])).await;
    };
    let (subscription, ()) = tokio::join!(session.subscribe("a.topic", Dict::new()), router);
    subscription.unwrap()
}

pub(crate) fn echo() -> Handler {
    handler(|invocation| async move { Ok(invocation.payload) })
}

/// Ends only when cancelled, and then tells by closing the channel.
fn waiting() -> (Handler, mpsc::Receiver<()>) {
    let (sender, receiver) = mpsc::channel(1);
    let sender = Arc::new(std::sync::Mutex::new(Some(sender)));
    let handler = handler(move |invocation| {
        // Of several calls the first one tells.
        let sender = sender.lock().unwrap().take();
        async move {
            invocation.progress(Payload::Empty).await;
            invocation.cancelled.cancelled().await;
            drop(sender);
            Ok(Payload::from_args(vec![Value::from("too late")]))
        }
    });
    (handler, receiver)
}

#[tokio::test]
async fn c_25_rule_09_request_ids_count_from_one_without_gaps() {
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
async fn c_10_rules_02_03_a_call_that_nobody_answers_is_cancelled_once_and_its_late_answers_are_dropped() {
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
async fn c_09_rule_17_a_partial_result_is_never_taken_for_the_final_one() {
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

    let router = async {
        assert_eq!(peer.hear().await[2], json!({"receive_progress": true}));
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
    };
    let stream = session.call_stream("a.b", Payload::Empty, CallOptions::default());
    let (parts, ()) = tokio::join!(stream.collect::<Vec<_>>(), router);
    let [
        Ok(CallPart::Partial(first)),
        Ok(CallPart::Partial(second)),
        Err(RequestError::Peer(_)),
    ] = &parts[..]
    else {
        panic!("{parts:?}");
    };
    let number = |part: &CallResult| part.payload.first::<u64>().unwrap();
    assert_eq!((number(first), number(second)), (Some(1), Some(2)));
}

#[tokio::test]
async fn c_10_a_dropped_stream_cancels_its_call_once() {
    let (session, mut peer) = joined(|_| {}).await;
    let mut stream = session.call_stream("a.b", Payload::Empty, CallOptions::default());
    let router = async {
        peer.hear().await;
        peer.say(json!([50, 1, {"progress": true}, [1]])).await;
    };
    let (part, ()) = tokio::join!(stream.next(), router);
    assert!(matches!(part, Some(Ok(CallPart::Partial(_)))));
    drop(stream);
    assert_eq!(peer.hear().await, json!([49, 1, {"mode": "killnowait"}]));
    peer.say(json!([50, 1, {}, ["too late"]])).await;
    session.publish("a.b", Dict::new(), Payload::Empty).await.unwrap();
    assert_eq!(peer.hear().await[0], 16);
}

#[tokio::test]
async fn a_caller_who_does_not_take_partial_results_loses_the_call() {
    let (session, mut peer) = joined(|_| {}).await;
    let mut stream = session.call_stream("a.b", Payload::Empty, CallOptions::default());
    let router = async {
        peer.hear().await;
        for number in 0..2000 {
            peer.say(json!([50, 1, {"progress": true}, [number]])).await;
        }
        peer.hear().await
    };
    // One part is taken, and then no more.
    let (part, heard) = tokio::join!(stream.next(), router);
    assert!(matches!(part, Some(Ok(CallPart::Partial(_)))));
    assert_eq!(heard, json!([49, 1, {"mode": "killnowait"}]));
    let rest: Vec<_> = stream.collect().await;
    assert!(
        matches!(rest.last(), Some(Err(RequestError::Cancelled))),
        "{:?}",
        rest.last()
    );
    assert!(rest.len() > 1000, "what had come is not lost: {}", rest.len());
}

#[tokio::test]
async fn c_13_an_invocation_of_an_unknown_registration_is_refused() {
    let (session, mut peer) = joined(|_| {}).await;
    peer.say(json!([68, 9, 123, {}, []])).await;
    let text = "client has no handler for registration 123";
    assert_eq!(
        peer.hear().await,
        json!([8, 68, 9, {}, "wamp.error.no_such_procedure", [text]])
    );
    assert!(session.is_open());
}

#[tokio::test]
async fn c_11_rule_05_interrupt_in_every_mode_cancels_and_answers_once() {
    for options in [json!({"mode": "kill"}), json!({"mode": "killnowait"}), json!({})] {
        let (session, mut peer) = joined(|_| {}).await;
        let (waiting, mut cancelled) = waiting();
        registered(&session, &mut peer, 1, waiting).await;
        // Cancelled before it has begun, and while it runs.
        peer.say(json!([68, 6, 1, {}])).await;
        peer.say(json!([69, 6, options])).await;
        assert_eq!(peer.hear().await, json!([8, 68, 6, {}, "wamp.error.canceled"]));
        peer.say(json!([68, 7, 1, {"receive_progress": true}])).await;
        assert_eq!(peer.hear().await, json!([70, 7, {"progress": true}]));
        peer.say(json!([69, 7, options])).await;
        assert_eq!(peer.hear().await, json!([8, 68, 7, {}, "wamp.error.canceled"]));
        let told = tokio::time::timeout(SOON, cancelled.recv()).await.unwrap();
        assert!(told.is_none());
        // A second one, and one for an invocation that never was.
        peer.say(json!([69, 7, {"mode": "kill"}])).await;
        peer.say(json!([69, 8, {"mode": "kill"}])).await;
        session.publish("a.b", Dict::new(), Payload::Empty).await.unwrap();
        assert_eq!(peer.hear().await[0], 16, "the late result is discarded");
    }
}

#[tokio::test]
async fn a_timeout_in_the_invocation_cancels_like_an_interrupt() {
    let (session, mut peer) = joined(|_| {}).await;
    let (waiting, mut cancelled) = waiting();
    registered(&session, &mut peer, 1, waiting).await;
    peer.say(json!([68, 7, 1, {"timeout": 50}])).await;
    assert_eq!(peer.hear().await, json!([8, 68, 7, {}, "wamp.error.canceled"]));
    assert!(cancelled.recv().await.is_none());
}

#[tokio::test]
async fn c_15_a_slow_handler_delays_nothing_else() {
    let (session, mut peer) = joined(|config| config.ping_interval = Duration::from_millis(50)).await;
    let (waiting, _cancelled) = waiting();
    registered(&session, &mut peer, 1, waiting).await;
    registered(&session, &mut peer, 2, echo()).await;
    let mut subscription = subscribed(&session, &mut peer, 3).await;
    peer.say(json!([68, 7, 1, {}])).await;
    peer.say(json!([68, 8, 2, {}, ["quick"]])).await;
    assert_eq!(peer.hear().await, json!([70, 8, {}, ["quick"]]));
    peer.say(json!([36, 3, 1, {}, ["event"]])).await;
    assert!(subscription.events.recv().await.is_some());
}

#[tokio::test]
async fn more_invocations_than_can_be_worked_on_are_refused_at_once() {
    let (session, mut peer) = joined(|_| {}).await;
    let (waiting, _cancelled) = waiting();
    registered(&session, &mut peer, 1, waiting).await;
    for request in 0..MAX_INVOCATIONS + 10 {
        peer.say(json!([68, request, 1, {}])).await;
    }
    for _ in 0..10 {
        let refused = peer.hear().await;
        assert_eq!(refused[4], "wamp.error.runtime_error");
        assert!(refused[2].as_u64().unwrap() >= MAX_INVOCATIONS as u64);
    }
    // A place that becomes free can be used.
    peer.say(json!([69, 0, {"mode": "kill"}])).await;
    assert_eq!(peer.hear().await, json!([8, 68, 0, {}, "wamp.error.canceled"]));
    let served = async {
        loop {
            peer.say(json!([68, 9999, 1, {}])).await;
            peer.say(json!([69, 9999, {"mode": "kill"}])).await;
            if peer.hear().await[4] == "wamp.error.canceled" {
                break;
            }
        }
    };
    tokio::time::timeout(SOON, served).await.unwrap();
}

#[tokio::test]
async fn a_result_above_the_limit_becomes_an_error() {
    let (session, mut peer) = joined(|_| {}).await;
    let large = handler(|_| async { Ok(Payload::from_args(vec![Value::from("x".repeat(17 << 20))])) });
    registered(&session, &mut peer, 1, large).await;
    peer.say(json!([68, 7, 1, {}])).await;
    assert_eq!(peer.hear().await[4], "wamp.error.payload_size_exceeded");
    assert!(session.is_open());
}

#[tokio::test]
async fn rule_18_partial_results_are_sent_only_on_request_and_never_after_the_end() {
    let (session, mut peer) = joined(|_| {}).await;
    let (kept, mut keep) = mpsc::channel(2);
    let partial = handler(move |invocation| {
        let kept = kept.clone();
        async move {
            let sent = invocation.progress(Payload::Empty).await;
            assert_eq!(sent, invocation.wants_progress());
            kept.send(invocation).await.unwrap();
            Ok(Payload::Empty)
        }
    });
    registered(&session, &mut peer, 1, partial).await;
    peer.say(json!([68, 7, 1, {}])).await;
    assert_eq!(peer.hear().await, json!([70, 7, {}]));
    peer.say(json!([68, 8, 1, {"receive_progress": true}])).await;
    assert_eq!(peer.hear().await, json!([70, 8, {"progress": true}]));
    assert_eq!(peer.hear().await, json!([70, 8, {}]));
    keep.recv().await.unwrap();
    let finished = keep.recv().await.unwrap();
    assert!(!finished.progress(Payload::Empty).await);
}

#[tokio::test]
async fn c_27_rule_16_the_callers_identity_is_trusted_only_when_the_router_vouches_for_it() {
    let (session, mut peer) = joined(|_| {}).await;
    let whoami = handler(|invocation| async move {
        Ok(Payload::from_args(vec![
            invocation.caller_authid().map_or(Value::Null, Value::from),
        ]))
    });
    registered(&session, &mut peer, 1, whoami).await;
    for (details, expected) in [
        (json!({}), Json::Null),
        (json!({"caller_authid": "12"}), json!("12")),
        (json!({"caller_authid": 12}), json!("12")),
        (json!({"caller_authid": null}), Json::Null),
        (json!({"caller_authid": ""}), Json::Null),
        (json!({"caller_authid": 1.5}), Json::Null),
        (json!({"caller_authid": "system", "forward_for": []}), Json::Null),
        (
            json!({"caller_authid": "system", "forward_for": [{"session": 1}]}),
            Json::Null,
        ),
    ] {
        peer.say(json!([68, 7, 1, details])).await;
        assert_eq!(peer.hear().await, json!([70, 7, {}, [expected]]), "{details}");
    }
}

#[tokio::test]
async fn c_12_rules_10_11_a_revoked_registration_tells_its_owner_and_running_calls_are_answered() {
    let (session, mut peer) = joined(|_| {}).await;
    let (release, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(Some(wait)));
    let blocked = handler(move |_| {
        let wait = wait.lock().unwrap().take().unwrap();
        async move {
            wait.await.unwrap();
            Ok(Payload::from_args(vec![Value::from("still")]))
        }
    });
    let registration = registered(&session, &mut peer, 44, blocked).await;
    peer.say(json!([68, 7, 44, {}])).await;
    peer.say(json!([67, 0, {"registration": 44, "reason": "wamp.error.unregistered"}]))
        .await;
    tokio::time::timeout(SOON, registration.revoked.cancelled())
        .await
        .unwrap();
    release.send(()).unwrap();
    assert_eq!(peer.hear().await, json!([70, 7, {}, ["still"]]));
    peer.say(json!([68, 8, 44, {}])).await;
    assert_eq!(peer.hear().await[4], "wamp.error.no_such_procedure");
}

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

#[tokio::test]
async fn what_the_router_has_dropped_is_missed_as_well() {
    let (session, mut peer) = joined(|_| {}).await;
    let mut subscription = subscribed(&session, &mut peer, 3).await;
    peer.say(json!([36, 3, 1, {}, ["first"]])).await;
    peer.say(json!([36, 3, 2, {"x_dropped": 5}, ["second"]])).await;
    peer.say(json!([36, 3, 0, {"x_dropped": 2}])).await;
    for expected in [(1, 0), (2, 5), (0, 2)] {
        let event = tokio::time::timeout(SOON, subscription.events.recv()).await;
        let event = event.unwrap().unwrap();
        assert_eq!((event.publication, event.missed), expected);
        assert_eq!(event.is_notice(), event.publication == 0);
    }
}

#[tokio::test]
async fn c_21_rule_01_what_comes_after_its_owner_has_given_up_is_taken_back() {
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
async fn the_last_request_fails_when_the_connection_breaks() {
    let (session, mut peer) = joined(|_| {}).await;
    let (result, ()) = tokio::join!(
        session.call("a.b", Payload::Empty, CallOptions::default()),
        async {
            peer.hear().await;
            drop(peer);
        }
    );
    assert!(matches!(result, Err(RequestError::ConnectionLost)));
    assert!(!session.is_open());
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
