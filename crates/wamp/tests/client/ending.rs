//! Within a session and at its end: keep-alive, violations, GOODBYE and ABORT from either side.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio_tungstenite::tungstenite::Message as Frame;
use wamp::Payload;
use wamp::client::{CallOptions, CloseReason, RequestError};
use wamp::value::Dict;

use crate::scripted::{SHORT, SOON, joined};

#[tokio::test]
async fn c_06_messages_that_belong_to_the_handshake_are_violations_later() {
    for message in [
        json!([2, 1, {"roles": {"broker": {}}}]),
        json!([4, "wampcra", {"challenge": "c"}]),
        json!([48, 1, {}, "a.b"]),
    ] {
        let (session, mut peer) = joined(|_| {}).await;
        peer.say(message).await;
        let abort = peer.hear().await;
        assert_eq!(
            (&abort[0], &abort[2]),
            (&json!(3), &json!("wamp.error.protocol_violation"))
        );
        assert_eq!(peer.hear_close().await, 1002);
        assert!(matches!(session.closed().await, CloseReason::Lost(_)));
    }
}

#[tokio::test]
async fn c_06_answers_and_events_that_nobody_waits_for_are_ignored() {
    let (session, mut peer) = joined(|_| {}).await;
    for message in [
        json!([50, 99, {}]),
        json!([36, 5, 6, {}, ["x"]]),
        json!([8, 48, 98, {}, "wamp.error.canceled"]),
        json!([17, 97, 1]),
        json!([69, 96, {"mode": "kill"}]),
        json!([67, 0, {"registration": 4, "reason": "x"}]),
        json!([67, 0]),
        json!([35, 0, {"subscription": 4}]),
        json!([35, 95]),
        // Unreadable messages are skipped.
        json!([36, "x"]),
        json!({"not": "a message"}),
        json!([999]),
    ] {
        peer.say(message).await;
    }
    session.publish("a.b", Dict::new(), Payload::Empty).await.unwrap();
    assert_eq!(peer.hear().await, json!([16, 1, {}, "a.b"]));
    assert!(session.is_open());
}

#[tokio::test]
async fn rule_22_c_07_goodbye_of_the_router_is_answered_once() {
    let (session, mut peer) = joined(|_| {}).await;
    let pending = {
        let session = session.clone();
        tokio::spawn(async move { session.call("a.b", Payload::Empty, CallOptions::default()).await })
    };
    assert_eq!(peer.hear().await[0], 48);
    peer.say(json!([6, {}, "wamp.close.killed"])).await;
    assert_eq!(peer.hear().await, json!([6, {}, "wamp.close.goodbye_and_out"]));
    assert_eq!(peer.hear_close().await, 1000);
    assert_eq!(
        session.closed().await,
        CloseReason::Goodbye("wamp.close.killed".to_owned())
    );
    assert!(matches!(
        pending.await.unwrap(),
        Err(RequestError::ConnectionLost)
    ));
}

#[tokio::test]
async fn rule_19_c_07_abort_in_a_session_ends_it_and_is_no_credential_failure() {
    let (session, mut peer) = joined(|_| {}).await;
    peer.say(json!([3, {}, "wamp.error.authentication_failed"])).await;
    assert_eq!(peer.hear_close().await, 1000);
    let reason = CloseReason::Aborted("wamp.error.authentication_failed".to_owned());
    assert_eq!(session.closed().await, reason);
    // As often as one likes.
    assert_eq!(session.closed().await, reason);
}

#[tokio::test]
async fn rule_23_c_16_a_silent_router_is_dead_after_two_pings_without_an_answer() {
    let interval = Duration::from_millis(100);
    let begin = Instant::now();
    let (session, peer) = joined(|config| config.ping_interval = interval).await;
    // The other end neither reads nor answers, and the TCP connection stands.
    let reason = tokio::time::timeout(SOON, session.closed()).await.unwrap();
    assert!(
        matches!(&reason, CloseReason::Lost(what) if what.contains("ping")),
        "{reason:?}"
    );
    assert!(begin.elapsed() >= interval * 3, "{:?}", begin.elapsed());
    drop(peer);
}

#[tokio::test]
async fn a_router_that_answers_pings_stays() {
    let (session, mut peer) = joined(|config| config.ping_interval = Duration::from_millis(20)).await;
    for _ in 0..20 {
        // Reading answers.
        match peer.next(true).await {
            Some(Frame::Ping(payload)) => assert_eq!(&payload[..], b"keepalive"),
            other => panic!("{other:?}"),
        }
    }
    assert!(session.is_open());
}

#[tokio::test]
async fn leaving_a_router_that_does_not_answer_takes_a_bounded_time() {
    let (session, mut peer) = joined(|config| config.reply_timeout = SHORT).await;
    let begin = Instant::now();
    let (heard, ()) = tokio::join!(peer.hear(), session.leave());
    assert_eq!(heard, json!([6, {}, "wamp.close.close_realm"]));
    assert!(begin.elapsed() >= SHORT * 2, "{:?}", begin.elapsed());
    assert!(begin.elapsed() < SHORT * 2 + Duration::from_secs(4));
    assert!(!session.is_open());
}

#[tokio::test]
async fn leaving_says_goodbye_once_and_closes() {
    let (session, mut peer) = joined(|_| {}).await;
    let router = async {
        let goodbye = peer.hear().await;
        peer.say(json!([6, {}, "wamp.close.normal"])).await;
        (goodbye, peer.hear_close().await)
    };
    let (heard, (), ()) = tokio::join!(router, session.leave(), session.leave());
    assert_eq!(heard, (json!([6, {}, "wamp.close.close_realm"]), 1000));
    assert_eq!(session.closed().await, CloseReason::Left);
}

#[tokio::test]
async fn the_last_handle_takes_the_transport_with_it() {
    let (session, mut peer) = joined(|_| {}).await;
    let other = session.clone();
    drop(session);
    other.publish("a.b", Dict::new(), Payload::Empty).await.unwrap();
    assert_eq!(peer.hear().await[0], 16);
    drop(other);
    assert!(peer.next(false).await.is_none(), "no GOODBYE, no close frame");
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
async fn rule_21_the_transport_is_closed_in_a_bounded_time_when_the_router_leaves_it_open() {
    for last in [
        json!([3, {}, "wamp.error.authentication_failed"]),
        json!([6, {}, "wamp.close.killed"]),
    ] {
        let (session, mut peer) = joined(|_| {}).await;
        peer.say(last).await;
        session.closed().await;
        let begin = Instant::now();
        // Neither close frame nor end of the stream comes from here.
        let mut heard = Vec::new();
        let end = tokio::time::timeout(SOON, peer.tcp().read_to_end(&mut heard)).await;
        end.unwrap().unwrap();
        assert!(!heard.is_empty(), "a close frame");
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
}
