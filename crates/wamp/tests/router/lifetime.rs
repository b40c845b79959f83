//! How sessions end, and that whoever needs to know learns of it.

use super::*;
use wamp::client::{CallOptions, CloseReason};
use wamp::{Dict, Payload};

/// Long enough for a live peer to answer on a busy machine.
const INTERVAL: Duration = Duration::from_millis(700);

#[tokio::test]
async fn r_s17_goodbye_is_answered_and_the_connection_closed() {
    let running = start(Limits::default()).await;
    let mut peer = running.joined().await;
    peer.ask(json!([64, 1, {}, "re.ping"])).await;
    let answer = peer.ask(json!([6, {}, "wamp.close.close_realm"])).await;
    assert_eq!(
        (&answer[0], &answer[2]),
        (&json!(6), &json!("wamp.close.goodbye_and_out"))
    );
    assert_eq!(running.router.counters().registrations, 0);
    assert_eq!(peer.closed().await, Some(1000));
    running.holds(0).await;
}

#[tokio::test]
async fn r_s19_shutdown_says_goodbye_to_every_session_and_ends_in_time() {
    let limits = Limits {
        goodbye_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let mut running = start(limits).await;
    let client = running.client().await;
    // Joined, but deaf: never answers the GOODBYE.
    let mut deaf = running.joined().await;
    running.stop.cancel();
    assert_eq!(
        soon("the end", client.closed()).await,
        CloseReason::Goodbye("wamp.close.system_shutdown".to_owned())
    );
    assert_eq!(deaf.next().await[2], "wamp.close.system_shutdown");
    let served = soon("the router", &mut running.served).await;
    served.unwrap().unwrap();
    assert_eq!(running.router.counters().sessions, 0);
}

/// A testament of `peer` on `last.words`.
async fn bequeath(peer: &mut Peer) {
    let result = peer
        .ask(json!([
            48,
            1,
            {},
            "wamp.session.add_testament",
            ["last.words", ["gone"], {}]
        ]))
        .await;
    assert_eq!(result[0], 50);
}

#[tokio::test]
async fn r_s20_a_silent_peer_is_gone_within_two_ping_intervals_and_its_testament_published() {
    let limits = Limits {
        ping_interval: INTERVAL,
        ..Limits::default()
    };
    let running = start(limits).await;
    let listener = running.client().await;
    let mut words = listener.subscribe("last.words", Dict::new()).await.unwrap();
    let mut peer = running.joined().await;
    let last_heard = tokio::time::Instant::now();
    bequeath(&mut peer).await;
    // Nobody polls the peer's socket any more, so no ping is answered; TCP stays open.
    let event = soon("the testament", words.events.recv()).await.unwrap();
    assert_eq!(event.payload.first::<String>().unwrap().as_deref(), Some("gone"));
    assert!(last_heard.elapsed() >= 2 * INTERVAL, "not before two intervals");
    assert!(listener.is_open(), "who answers pings stays");
    running.holds(1).await;
}

#[tokio::test]
async fn a_peer_that_answers_pings_stays() {
    let limits = Limits {
        ping_interval: INTERVAL,
        ..Limits::default()
    };
    let running = start(limits).await;
    let mut peer = running.joined().await;
    for _ in 0..3 {
        let frame = peer.next_frame().await;
        assert!(matches!(frame, Some(Ok(Frame::Ping(_)))), "{frame:?}");
    }
    assert_eq!(peer.ask(json!([32, 1, {}, "a.b"])).await[0], 33);
}

#[tokio::test]
async fn r_m6_a_testament_is_published_once_when_tcp_drops_and_when_the_peer_closes() {
    let running = start(Limits::default()).await;
    let listener = running.client().await;
    let mut words = listener.subscribe("last.words", Dict::new()).await.unwrap();
    for graceful in [true, false] {
        let mut peer = running.joined().await;
        bequeath(&mut peer).await;
        if graceful {
            peer.socket.close().await;
        }
        drop(peer);
        soon("the testament", words.events.recv()).await.unwrap();
    }
    running.holds(1).await;
    assert!(words.events.try_recv().is_err(), "exactly one each");
}

#[tokio::test]
async fn r_m5_a_killed_session_that_does_not_answer_is_closed() {
    let limits = Limits {
        goodbye_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let running = start(limits).await;
    let admin = running.client().await;
    let mut victim = running.peer().await;
    let id = victim.ask(hello(json!({}))).await[1].as_u64().unwrap();
    admin
        .call(
            "wamp.session.kill",
            Payload::from_args(vec![id.into()]),
            CallOptions::default(),
        )
        .await
        .unwrap();
    assert_eq!(victim.next().await[2], "wamp.close.killed");
    assert_eq!(victim.closed().await, Some(1000));
    assert!(admin.is_open());
}

#[tokio::test]
async fn dropping_serve_ends_its_sessions() {
    let running = start(Limits::default()).await;
    let client = running.client().await;
    running.served.abort();
    assert!(matches!(
        soon("the end", client.closed()).await,
        CloseReason::Lost(_)
    ));
    running.holds(0).await;
}
