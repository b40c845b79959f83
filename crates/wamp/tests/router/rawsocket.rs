//! What RawSocket has of its own: limits that each side announces, PING and PONG, no words for the end.

use super::carrier::greeting;
use super::*;

/// A peer that has joined and takes messages of at most 2 KiB.
async fn narrow(running: &Running) -> Peer {
    let codec = Codec::Json;
    let small = 0x20 | (greeting(codec) & 0x0F);
    let mut peer = Peer {
        socket: Carrier::raw_with(running.address, codec, small).await,
        codec,
    };
    let welcome = peer.ask(hello(json!({}))).await;
    assert_eq!(welcome[0], 2, "{welcome}");
    peer
}

#[tokio::test]
async fn r_v10_what_a_peer_cannot_take_is_an_error_for_who_waits_and_a_counted_drop() {
    let running = start(Limits::default()).await;
    let mut peer = narrow(&running).await;
    let (mut other, _) = running.joined_raw_as(Codec::Json, None).await;
    let small = json!(["x"]);
    let large = json!(["x".repeat(2 << 10)]);

    // A RESULT: the caller gets the ERROR.
    assert_eq!(other.ask(json!([64, 1, {}, "a.give"])).await[0], 65);
    peer.send(json!([48, 1, {}, "a.give"])).await;
    let invocation = other.next().await;
    other.send(json!([70, invocation[1], {}, large])).await;
    let error = peer.next().await;
    assert_eq!(
        (&error[0], &error[1], &error[2], &error[4]),
        (
            &json!(8),
            &json!(48),
            &json!(1),
            &json!("wamp.error.payload_size_exceeded")
        ),
        "{error}"
    );

    // An INVOCATION: so does its caller.
    assert_eq!(peer.ask(json!([64, 2, {}, "a.take"])).await[0], 65);
    let error = other.ask(json!([48, 2, {}, "a.take", large])).await;
    assert_eq!(error[4], "wamp.error.payload_size_exceeded", "{error}");

    // An EVENT: dropped and counted; the next one comes.
    assert_eq!(peer.ask(json!([32, 3, {}, "a.topic"])).await[0], 33);
    other.send(json!([16, 3, {}, "a.topic", large])).await;
    other.send(json!([16, 4, {}, "a.topic", small])).await;
    let event = peer.next().await;
    assert_eq!((&event[0], &event[4]), (&json!(36), &small), "{event}");
    assert_eq!(running.router.counters().dropped_events.too_large, 1);
    running.holds(2).await;
}

#[tokio::test]
async fn r_v9_a_message_above_the_announced_limit_ends_the_connection_at_its_header() {
    let limits = Limits {
        max_message_size: 64 << 10,
        ..Limits::default()
    };
    let running = start(limits).await;
    let (mut peer, _) = running.joined_raw_as(Codec::Json, None).await;
    peer.send(json!([48, 1, {}, "a.b", ["x".repeat(64 << 10)]])).await;
    assert_eq!(peer.closed().await, None);
    running.holds(0).await;
}

#[tokio::test]
async fn r_s20_a_peer_is_pinged_and_gone_when_it_does_not_answer() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    const INTERVAL: Duration = Duration::from_millis(100);
    let limits = Limits {
        ping_interval: INTERVAL,
        ..Limits::default()
    };
    let running = start(limits).await;
    let (peer, _) = running.joined_raw_as(Codec::Json, None).await;
    let Carrier::Raw(framed, _) = peer.socket else {
        panic!("a RawSocket");
    };
    let mut stream = framed.into_inner();
    // Who pings can be pinged.
    stream.write_all(&[1, 0, 0, 0]).await.unwrap();
    let mut pong = [0; 4];
    soon("a pong", stream.read_exact(&mut pong)).await.unwrap();
    assert_eq!(pong, [2, 0, 0, 0]);
    for _ in 0..3 {
        let mut ping = [0; 4];
        soon("a ping", stream.read_exact(&mut ping)).await.unwrap();
        assert_eq!(ping, [1, 0, 0, 0]);
        stream.write_all(&[2, 0, 0, 0]).await.unwrap();
    }
    let answered = tokio::time::Instant::now();
    let mut rest = Vec::new();
    soon("the end", stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, [1, 0, 0, 0], "one more ping, and no word of farewell");
    assert!(answered.elapsed() >= 2 * INTERVAL, "not before two intervals");
    running.holds(0).await;
}

/// Some take the header of a PING for a length, and are lost.
#[tokio::test]
async fn a_peer_that_may_not_know_pings_gets_none_and_stays() {
    let limits = Limits {
        ping_interval: Duration::from_millis(50),
        ..Limits::default()
    };
    let running = start(limits).await;
    let (mut peer, _) = running.joined_raw_as(Codec::Json, None).await;
    let nothing = tokio::time::timeout(Duration::from_millis(300), peer.socket.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    assert_eq!(peer.ask(json!([32, 1, {}, "a.b"])).await[0], 33);
}

#[tokio::test]
async fn r_v1_garbage_is_a_violation_and_the_stream_ends() {
    let running = start(Limits::default()).await;
    for codec in CODECS {
        let (mut peer, _) = running.joined_raw_as(codec, None).await;
        peer.send_frame(binary(b"\xFFnonsense")).await;
        peer.violated().await;
    }
    running.holds(0).await;
}

#[tokio::test]
async fn r_s21_a_client_that_begins_like_rawsocket_and_stops_is_closed() {
    use tokio::io::AsyncWriteExt as _;
    let limits = Limits {
        opening_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let running = start(limits).await;
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    silent.write_all(&[0x7F, 0xF1]).await.unwrap();
    soon("the end", silent.readable()).await.unwrap();
    assert_eq!(silent.try_read(&mut [0; 16]).unwrap(), 0);
    assert_eq!(running.router.counters().refused_sessions.timeout, 1);
}

/// A writer's end is not a reader's: the answer is still awaited.
#[tokio::test]
async fn r_s17_goodbye_is_answered_even_when_nothing_can_follow_it() {
    use tokio::io::AsyncWriteExt as _;
    let running = start(Limits::default()).await;
    let (mut peer, _) = running.joined_raw_as(Codec::Json, None).await;
    let Carrier::Raw(framed, _) = &mut peer.socket else {
        panic!("a RawSocket");
    };
    let goodbye = json!([6, {}, "wamp.close.close_realm"]).to_string();
    let mut last = (goodbye.len() as u32).to_be_bytes().to_vec();
    last.extend_from_slice(goodbye.as_bytes());
    framed.get_mut().write_all(&last).await.unwrap();
    framed.get_mut().shutdown().await.unwrap();
    assert_eq!(peer.next().await[2], "wamp.close.goodbye_and_out");
    assert_eq!(peer.closed().await, None);
    running.holds(0).await;
}
