//! Invocations: every one is answered exactly once, whatever the handler does.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message as Frame;
use wamp::client::{
    CallOptions, Handler, MAX_INVOCATIONS, RegisterOptions, RequestError, WampError, handler, procedure,
};
use wamp::value::Dict;
use wamp::{Payload, Value};

use crate::scripted::{SOON, echo, joined, registered, subscribed};

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
async fn c_08_an_invocation_and_an_event_right_behind_their_answers_are_not_lost() {
    let (session, mut peer) = joined(|_| {}).await;
    let router = async {
        let register = peer.hear().await;
        peer.say(json!([65, register[1], 500])).await;
        peer.say(json!([68, 31, 500, {}, ["early"]])).await;
        peer.hear().await
    };
    let registering = session.register("a.b", RegisterOptions::default(), echo());
    let (registration, answer) = tokio::join!(registering, router);
    assert_eq!(registration.unwrap().id, 500);
    assert_eq!(answer, json!([70, 31, {}, ["early"]]));

    let router = async {
        let subscribe = peer.hear().await;
        peer.say(json!([33, subscribe[1], 600])).await;
        peer.say(json!([36, 600, 1, {}, ["early"]])).await;
        peer.say(json!([68, 32, 500, {}])).await;
        // Answered behind the event, which has been read by then.
        peer.hear().await
    };
    let (subscription, _) = tokio::join!(session.subscribe("a.b", Dict::new()), router);
    let event = subscription.unwrap().events.try_recv().unwrap();
    assert_eq!(event.payload.args().unwrap(), [Value::from("early")]);
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
async fn rule_05_c_11_interrupt_in_every_mode_cancels_and_answers_once() {
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
async fn c_23_what_is_above_the_limit_is_refused_locally() {
    let (session, mut peer) = joined(|_| {}).await;
    let large = handler(|_| async { Ok(Payload::from_args(vec![Value::from("x".repeat(17 << 20))])) });
    registered(&session, &mut peer, 1, large).await;
    peer.say(json!([68, 7, 1, {}])).await;
    assert_eq!(peer.hear().await[4], "wamp.error.payload_size_exceeded");
    assert!(session.is_open());

    let large = || Payload::from_args(vec![Value::from("x".repeat(17 << 20))]);
    let refused = session.call("a.b", large(), CallOptions::default()).await;
    assert!(matches!(refused, Err(RequestError::TooLarge(_))), "{refused:?}");
    let refused = session.publish("a.b", Dict::new(), large()).await;
    assert!(matches!(refused, Err(RequestError::TooLarge(_))), "{refused:?}");
    session.publish("a.b", Dict::new(), Payload::Empty).await.unwrap();
    assert_eq!(
        peer.hear().await,
        json!([16, 2, {}, "a.b"]),
        "nothing else was sent"
    );
}

#[tokio::test]
async fn a_typed_procedure_answers_arguments_that_do_not_fit_without_repeating_them() {
    let (session, mut peer) = joined(|_| {}).await;
    let login = procedure(|(name, attempts): (String, u8), _| async move {
        match name.as_str() {
            "nobody" => Err(WampError::new("re.error.nobody", "who?")),
            _ => Ok((name, attempts + 1)),
        }
    });
    registered(&session, &mut peer, 1, login).await;
    for (arguments, answer) in [
        (json!(["me", 1]), json!([70, 7, {}, ["me", 2]])),
        (
            json!(["nobody", 1]),
            json!([8, 68, 7, {}, "re.error.nobody", ["who?"]]),
        ),
        (
            json!(["me", "hunter2"]),
            json!([
                8,
                68,
                7,
                {},
                "wamp.error.invalid_argument",
                ["[1]: expected u8, got text"]
            ]),
        ),
        (
            json!(["me"]),
            json!([
                8,
                68,
                7,
                {},
                "wamp.error.invalid_argument",
                ["expected a tuple of size 2, got 1"]
            ]),
        ),
    ] {
        peer.say(json!([68, 7, 1, {}, arguments])).await;
        assert_eq!(peer.hear().await, answer);
    }
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
async fn rule_16_c_27_the_callers_identity_is_trusted_only_when_the_router_vouches_for_it() {
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
async fn rule_11_c_12_a_revoked_registration_tells_its_owner_and_running_calls_are_answered() {
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
async fn rule_06_c_14_what_goes_wrong_in_a_handler_becomes_an_error_with_a_valid_uri() {
    let (session, mut peer) = joined(|_| {}).await;
    let failing = handler(|invocation| {
        let how: String = invocation.payload.parse().unwrap();
        assert!(how != "panic before", "on purpose");
        async move {
            match how.as_str() {
                "panic" => panic!("on purpose"),
                uri => Err(WampError::new(uri, "text")),
            }
        }
    });
    registered(&session, &mut peer, 1, failing).await;
    registered(&session, &mut peer, 2, echo()).await;
    for (how, uri) in [
        ("panic before", "wamp.error.runtime_error"),
        ("panic", "wamp.error.runtime_error"),
        ("not a uri", "wamp.error.runtime_error"),
        ("a..b", "wamp.error.runtime_error"),
        ("", "wamp.error.runtime_error"),
        ("re.error.own", "re.error.own"),
    ] {
        peer.say(json!([68, 7, 1, {}, [how]])).await;
        let answer = peer.hear().await;
        assert_eq!(
            (&answer[0], &answer[1], &answer[4]),
            (&json!(8), &json!(68), &json!(uri)),
            "{how}"
        );
        peer.say(json!([68, 8, 2, {}, ["unaffected"]])).await;
        assert_eq!(peer.hear().await, json!([70, 8, {}, ["unaffected"]]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_23_c_17_pongs_do_not_queue_behind_results() {
    const RESULT: usize = 4 << 20;
    const RESULTS: u64 = 16;
    let (session, mut peer) = joined(|_| {}).await;
    let result = Payload::from_args(vec![Value::from("x".repeat(RESULT))]);
    let result = session.codec().unwrap().encode_payload(&result).unwrap();
    let bulk = handler(move |_| std::future::ready(Ok(result.clone())));
    registered(&session, &mut peer, 1, bulk).await;
    for request in 1..=RESULTS {
        peer.say(json!([68, request, 1, {}])).await;
    }
    let (mut results, mut behind) = (0, 0);
    let mut pings = 0_u8;
    while results < RESULTS {
        // One ping after each result, so that there is always something to overtake.
        let sent = tokio::time::Instant::now();
        pings += 1;
        peer.ping(pings).await;
        let mut before = 0;
        loop {
            match tokio::time::timeout(SOON, peer.frame()).await.unwrap() {
                Frame::Pong(payload) if payload[..] == [pings] => break,
                Frame::Text(_) => before += 1,
                Frame::Ping(_) | Frame::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(sent.elapsed() < Duration::from_secs(1), "{:?}", sent.elapsed());
        results += before;
        behind = behind.max(before);
    }
    assert!(pings > 2, "all {RESULTS} results went before the pong");
    assert!(behind < RESULTS);
}

#[tokio::test]
async fn rule_24_a_small_message_does_not_wait_until_the_one_before_is_acknowledged() {
    const ROUNDS: u64 = 50;
    let (session, mut peer) = joined(|_| {}).await;
    let twice = handler(|invocation| async move {
        invocation.progress(Payload::Empty).await;
        // Written by now: everything here is one thread.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        Ok(Payload::Empty)
    });
    registered(&session, &mut peer, 1, twice).await;
    let begin = tokio::time::Instant::now();
    for request in 0..ROUNDS {
        // Who has just spoken acknowledges late, in the hope of having more to say.
        peer.say(json!([68, request, 1, {"receive_progress": true}]))
            .await;
        assert_eq!(peer.hear().await, json!([70, request, {"progress": true}]));
        assert_eq!(peer.hear().await, json!([70, request, {}]));
    }
    // 40 ms each, if it waited.
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}
