//! Valid frames with bytes changed at random, from a fixed seed: whatever a peer sends, it gets an answer or an orderly
//! close, nobody else notices, and nothing of it stays behind.

use super::*;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as RawFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use wamp::client::{CallOptions, RegisterOptions, handler};
use wamp::{Codec, Dict, Message, Payload, Value as WampValue};

const CASES: usize = 250;

/// One of everything that a client may say in a session, and of much that it may not.
fn messages() -> Vec<Message> {
    let options = |entries: &[(&str, WampValue)]| -> Dict {
        entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect()
    };
    let payload = Payload::from_parts(
        vec![1_u64.into(), "text".into(), WampValue::Null, 1.5.into()],
        options(&[("key", WampValue::List(vec![true.into(), (-3_i64).into()]))]),
    );
    let procedure = "re.procedure".to_owned();
    vec![
        Message::Call {
            request: 1,
            options: options(&[("timeout", 100_u64.into()), ("receive_progress", true.into())]),
            procedure: "re.bystander".to_owned(),
            payload: payload.clone(),
        },
        Message::Call {
            request: 1,
            options: options(&[("progress", true.into())]),
            procedure: "re.bystander".to_owned(),
            payload: payload.clone(),
        },
        Message::Call {
            request: 1,
            options: Dict::new(),
            procedure: "wamp.registration.remove_callee".to_owned(),
            payload: Payload::from_args(vec![77_u64.into(), 78_u64.into(), "my.reason".into()]),
        },
        Message::Call {
            request: 1,
            options: Dict::new(),
            procedure: "wamp.session.add_testament".to_owned(),
            payload: Payload::from_args(vec![
                "re.topic".into(),
                WampValue::List(vec![1_u64.into()]),
                WampValue::Dict(Dict::new()),
            ]),
        },
        Message::Call {
            request: 1,
            options: Dict::new(),
            procedure: "wamp.subscription.lookup".to_owned(),
            payload: Payload::from_args(vec![
                "re.".into(),
                WampValue::Dict(options(&[("match", "prefix".into())])),
            ]),
        },
        Message::Register {
            request: 1,
            options: options(&[("match", "wildcard".into()), ("invoke", "roundrobin".into())]),
            procedure: "re..procedure".to_owned(),
        },
        Message::Register {
            request: 1,
            options: options(&[("force_reregister", true.into())]),
            procedure,
        },
        Message::Subscribe {
            request: 1,
            options: options(&[("match", "prefix".into()), ("get_retained", true.into())]),
            topic: "re.top".to_owned(),
        },
        Message::Publish {
            request: 1,
            options: options(&[
                ("acknowledge", true.into()),
                ("retain", true.into()),
                ("exclude_me", false.into()),
                ("eligible", WampValue::List(vec![5_u64.into()])),
                ("exclude_authid", WampValue::List(vec!["x".into()])),
            ]),
            topic: "re.topic".to_owned(),
            payload: payload.clone(),
        },
        Message::Unsubscribe {
            request: 1,
            subscription: 77,
        },
        Message::Unregister {
            request: 1,
            registration: 77,
        },
        Message::Cancel {
            request: 1,
            options: options(&[("mode", "kill".into())]),
        },
        Message::Yield {
            request: 1,
            options: options(&[("progress", true.into())]),
            payload: payload.clone(),
        },
        Message::Error {
            request_type: 68,
            request: 1,
            details: Dict::new(),
            error: "re.error".to_owned(),
            payload,
        },
        Message::Goodbye {
            details: options(&[("message", "bye".into())]),
            reason: "wamp.close.close_realm".to_owned(),
        },
    ]
}

fn handshake() -> Vec<Message> {
    let roles: Dict = [("caller".to_owned(), WampValue::Dict(Dict::new()))].into();
    let details = Dict::from([
        ("roles".to_owned(), WampValue::Dict(roles)),
        ("authid".to_owned(), "7-42".into()),
        (
            "authmethods".to_owned(),
            WampValue::List(vec!["wampcra".into(), "ticket".into()]),
        ),
    ]);
    let mut with_key = details.clone();
    with_key.insert(
        "authmethods".to_owned(),
        WampValue::List(vec!["cryptosign".into()]),
    );
    let key = Dict::from([("pubkey".to_owned(), "0a".repeat(32).into())]);
    with_key.insert("authextra".to_owned(), WampValue::Dict(key));
    vec![
        Message::Hello {
            realm: Some("realm1".to_owned()),
            details,
        },
        Message::Hello {
            realm: Some("realm1".to_owned()),
            details: with_key,
        },
        Message::Authenticate {
            signature: "AAAA".to_owned(),
            extra: Dict::new(),
        },
        Message::Abort {
            details: Dict::new(),
            reason: "wamp.error.abort".to_owned(),
            payload: Payload::Empty,
        },
    ]
}

/// Changes a frame in one to four places: bits, bytes, length.
fn mutate(frame: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    const TELLING: [u8; 16] = [
        0x00, 0x01, 0x7f, 0x80, 0x81, 0x90, 0xa0, 0xbf, 0xc0, 0xc1, 0xdd, 0xdf, 0xff, b'[', b'"', b'{',
    ];
    let mut frame = frame.to_vec();
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(..=frame.len());
        match random.u8(..6) {
            0 if at < frame.len() => frame[at] ^= 1 << random.u8(..8),
            1 if at < frame.len() => frame[at] = TELLING[random.usize(..TELLING.len())],
            2 => frame.insert(at, TELLING[random.usize(..TELLING.len())]),
            3 if at < frame.len() => drop(frame.remove(at)),
            4 => frame.truncate(at),
            5 => {
                let from = random.usize(..=at);
                let part = frame[from..at].to_vec();
                frame.splice(at..at, part);
            }
            _ => {}
        }
    }
    frame
}

fn raw(codec: Codec, frame: Vec<u8>) -> Frame {
    let kind = match codec.is_binary() {
        true => Data::Binary,
        false => Data::Text,
    };
    Frame::Frame(RawFrame::message(frame, OpCode::Data(kind), true))
}

/// Reads to the end; what was said, and how it was closed.
async fn rest(peer: &mut Peer, codec: Codec) -> (Vec<Message>, Option<u16>) {
    let mut said = Vec::new();
    let mut code = None;
    while let Some(Ok(frame)) = peer.next_frame().await {
        match frame {
            Frame::Text(text) => said.push(codec.decode(&text.into()).unwrap()),
            Frame::Binary(bytes) => said.push(codec.decode(&bytes).unwrap()),
            Frame::Close(Some(frame)) => code = Some(frame.code.into()),
            _ => {}
        }
    }
    (said, code)
}

async fn hurl(codec: Codec, joined: bool, seed: u64) {
    let running = start(Limits::default()).await;
    let bystander = running.client().await;
    let echo = handler(|invocation| async move { Ok(invocation.payload) });
    bystander
        .register("re.bystander", RegisterOptions::default(), echo)
        .await
        .unwrap();
    let _heard = bystander.subscribe("re.topic", Dict::new()).await.unwrap();
    let caller = running.client().await;
    let mut random = fastrand::Rng::with_seed(seed);
    let frames: Vec<_> = if joined { messages() } else { handshake() }
        .iter()
        .map(|message| codec.encode(message).unwrap())
        .collect();
    let hello = codec.encode(&Message::Hello {
        realm: Some("realm1".to_owned()),
        details: Dict::from([("roles".to_owned(), roles().into())]),
    });
    let hello = hello.unwrap().to_vec();
    let goodbye = codec.encode(&messages().pop().unwrap()).unwrap().to_vec();
    for case in 0..CASES {
        let frame = mutate(&frames[case % frames.len()], &mut random);
        let shown = format!("case {case}: {}", String::from_utf8_lossy(&frame));
        let mut peer = Peer::connect(running.address, codec.subprotocol()).await.unwrap();
        if joined {
            peer.send_frame(raw(codec, hello.clone())).await;
        }
        peer.send_frame(raw(codec, frame)).await;
        // The router may have hung up already.
        let _ = peer.socket.send(raw(codec, goodbye.clone())).await;
        let (said, code) = rest(&mut peer, codec).await;
        // A connection whose task died would end without a word.
        let last = said.last();
        let orderly = match last {
            Some(Message::Abort { reason, .. }) if reason == "wamp.error.protocol_violation" => {
                code == Some(1002)
            }
            Some(Message::Abort { .. } | Message::Goodbye { .. }) => code == Some(1000),
            Some(_) | None => code.is_some(),
        };
        assert!(orderly, "{shown}: {said:?}, closed with {code:?}");
        if case % 25 == 0 {
            let echoed = caller
                .call(
                    "re.bystander",
                    Payload::from_args(vec![7_u64.into()]),
                    CallOptions::default(),
                )
                .await;
            assert_eq!(
                echoed.unwrap().payload.first::<u64>().unwrap(),
                Some(7),
                "{shown}"
            );
        }
    }
    running.holds(2).await;
    assert!(bystander.is_open() && caller.is_open());
    let counters = running.router.counters();
    assert_eq!((counters.registrations, counters.subscriptions), (1, 1));
    drop((bystander, caller));
    running.holds(0).await;
    let counters = running.router.counters();
    assert_eq!((counters.registrations, counters.subscriptions), (0, 0));
}

fn roles() -> Dict {
    let features: Dict = ["progressive_call_invocations", "call_canceling"]
        .map(|feature| (feature.to_owned(), true.into()))
        .into();
    let role = Dict::from([("features".to_owned(), WampValue::Dict(features))]);
    ["caller", "callee", "publisher", "subscriber"]
        .map(|name| (name.to_owned(), WampValue::Dict(role.clone())))
        .into()
}

#[tokio::test]
async fn mutated_json_in_a_session_harms_nobody() {
    hurl(Codec::Json, true, 1).await;
}

#[tokio::test]
async fn mutated_messagepack_in_a_session_harms_nobody() {
    hurl(Codec::MessagePack, true, 2).await;
}

#[tokio::test]
async fn mutated_cbor_in_a_session_harms_nobody() {
    hurl(Codec::Cbor, true, 3).await;
}

#[tokio::test]
async fn mutated_handshakes_harm_nobody() {
    for (codec, seed) in [(Codec::Json, 4), (Codec::MessagePack, 5), (Codec::Cbor, 6)] {
        hurl(codec, false, seed).await;
    }
}
