//! What is not a message ends the session, what is not allowed in one does not.

use super::*;

async fn all_are_violations(texts: &[&'static str]) {
    let running = start(Limits::default()).await;
    for text in texts {
        let mut peer = running.joined().await;
        peer.send_frame(Frame::text(*text)).await;
        peer.violated().await;
    }
    running.holds(0).await;
    assert_eq!(running.router.counters().violations, texts.len() as u64);
}

#[tokio::test]
async fn r_v1_what_is_not_a_message_is_a_violation() {
    all_are_violations(&[
        "",
        "nonsense",
        "{}",
        "[]",
        "[\"1\"]",
        "[1.5]",
        "[99]",
        "[-1]",
        "null",
        "[48, 1, {}, \"a.b\"",
    ])
    .await;
}

#[tokio::test]
async fn r_v3_messages_of_the_wrong_shape_are_violations() {
    all_are_violations(&[
        "[48]",
        "[48, 1, {}]",
        "[48, 1, [], \"a.b\"]",
        "[48, 1, {}, 5]",
        "[48, 1, {}, \"a.b\", {}]",
        "[48, 1, {}, \"a.b\", [], []]",
        "[48, 1, {}, \"a.b\", [], {}, 1]",
        "[32, 1, {}, \"a.b\", []]",
        "[66, 1]",
        "[70, 1]",
    ])
    .await;
}

#[tokio::test]
async fn r_v4_request_ids_out_of_range_are_violations() {
    let running = start(Limits::default()).await;
    for id in [
        "0",
        "-1",
        "9007199254740993",
        "1.5",
        "\"1\"",
        "null",
        "18446744073709551616",
    ] {
        let mut peer = running.joined().await;
        peer.send_frame(Frame::text(format!("[32, {id}, {{}}, \"a.b\"]")))
            .await;
        peer.violated().await;
    }
    let mut peer = running.joined().await;
    let subscribed = peer.ask(json!([32, 1_u64 << 53, {}, "a.b"])).await;
    assert_eq!(
        (&subscribed[0], &subscribed[1]),
        (&json!(33), &json!(1_u64 << 53))
    );
}

#[tokio::test]
async fn r_v2_the_wrong_kind_of_frame_is_a_violation() {
    let running = start(Limits::default()).await;
    let mut peer = running.joined().await;
    peer.send_frame(binary(b"[48, 1, {}, \"a.b\"]")).await;
    peer.violated().await;
}

#[tokio::test]
async fn r_v1_malformed_binary_messages_are_violations() {
    let running = start(Limits::default()).await;
    // Truncated, an array claiming 4·10^9 items, an unknown type.
    for (codec, messages) in [
        (
            "wamp.2.msgpack",
            [
                vec![0x94, 0x30],
                vec![0xdd, 0xee, 0x6b, 0x28, 0x00],
                vec![0x91, 0x63],
            ],
        ),
        (
            "wamp.2.cbor",
            [
                vec![0x84, 0x18],
                vec![0x9a, 0xee, 0x6b, 0x28, 0x00],
                vec![0x81, 0x18, 0x63],
            ],
        ),
    ] {
        for message in messages {
            let mut peer = Peer::connect(running.address, codec).await.unwrap();
            peer.send_frame(binary(&message)).await;
            let Some(Ok(Frame::Binary(abort))) = peer.next_frame().await else {
                panic!("no ABORT");
            };
            assert!(
                abort
                    .windows(29)
                    .any(|part| part == b"wamp.error.protocol_violation")
            );
            assert_eq!(peer.closed().await, Some(1002));
        }
    }
}

#[tokio::test]
async fn r_v11_deep_nesting_is_a_violation() {
    let running = start(Limits::default()).await;
    let mut peer = running.joined().await;
    let deep = format!(
        "[48, 1, {{}}, \"a.b\", {}1{}]",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    peer.send_frame(Frame::text(deep)).await;
    peer.violated().await;
}

#[tokio::test]
async fn r_v9_an_oversized_message_closes_with_1009() {
    let limits = Limits {
        max_message_size: 64 << 10,
        ..Limits::default()
    };
    let running = start(limits).await;
    let mut peer = running.joined().await;
    let large = json!([48, 1, {}, "a.b", ["x".repeat(1 << 20)]]);
    peer.send(large).await;
    assert_eq!(peer.closed().await, Some(1009));
    running.holds(0).await;
}

#[tokio::test]
async fn r_v12_fragments_are_put_together_and_a_ping_between_them_is_answered_at_once() {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame as RawFrame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    let running = start(Limits::default()).await;
    let mut peer = running.joined().await;
    let message = json!([32, 1, {}, "a.b"]).to_string();
    let (head, tail) = message.split_at(7);
    let fragment =
        |text: &str, kind, last| Frame::Frame(RawFrame::message(text.to_owned(), OpCode::Data(kind), last));
    peer.send_frame(fragment(head, Data::Text, false)).await;
    peer.send_frame(Frame::Ping(Bytes::from_static(b"hi"))).await;
    assert_eq!(
        peer.next_frame().await.unwrap().unwrap(),
        Frame::Pong(Bytes::from_static(b"hi"))
    );
    peer.send_frame(fragment(tail, Data::Continue, true)).await;
    assert_eq!(peer.next().await[0], 33);
}

#[tokio::test]
async fn r_v6_an_invalid_uri_is_an_error_and_the_session_lives() {
    let running = start(Limits::default()).await;
    let mut peer = running.joined().await;
    for code in [48, 64, 32] {
        let error = peer.ask(json!([code, 1, {}, "a..b"])).await;
        assert_eq!(
            (&error[0], &error[1], &error[4]),
            (&json!(8), &json!(code), &json!("wamp.error.invalid_uri"))
        );
    }
    assert_eq!(peer.ask(json!([32, 2, {}, "a.b"])).await[0], 33);
}
