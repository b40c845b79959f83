//! Rules and cases that a real router seldom shows: each by a script of its own.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message as Frame;
use wamp::client::{
    CallOptions, CancelMode, ClientConfig, Match, RegisterOptions, RequestError, Session, WampError, handler,
};
use wamp::payload::One;
use wamp::transport::{Incoming, accept};
use wamp::{Codec, Dict, Message, Payload, Value};

use crate::scripted::{SHORT, SOON, Script, cra, joined};
use crate::scripted_calls::{echo, registered, subscribed};

#[tokio::test]
async fn rule_12_rule_13_the_challenge_is_signed_as_it_came_whatever_session_it_names() {
    // Blanks, escapes and order that no encoder would choose, and a session that WELCOME does not confirm.
    for challenge in [
        r#"{ "session" : 1,"nonce":  "\u00e9\/" , "authid": "7-42"  }"#,
        "{\"nonce\":\"grüße\u{1f980}\",\n\t\"session\":99}",
        "not even JSON",
    ] {
        let (script, mut config) = Script::new().await;
        config.credentials = cra("test-secret");
        let router = async {
            let mut peer = script.accept().await;
            peer.hear().await;
            peer.say(json!([4, "wampcra", {"challenge": challenge}])).await;
            let answer = peer.hear().await;
            peer.say(json!([2, 77, {"roles": {"broker": {}}}])).await;
            (answer, peer)
        };
        let (session, (answer, _peer)) = tokio::join!(Session::connect(&config), router);
        assert_eq!(session.unwrap().id(), 77);
        let signature = answer[1].as_str().unwrap();
        assert!(
            wamp::auth::verify("test-secret", challenge, signature),
            "{challenge}"
        );
    }
}

#[tokio::test]
async fn c_01_a_router_that_knows_one_codec_is_spoken_to_in_it() {
    for codec in [Codec::Json, Codec::MessagePack, Codec::Cbor] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        // Offers all three.
        let config = ClientConfig::new(url, "realm1");
        let router = async {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut connection = accept(tcp, &[codec], 1 << 20).await.unwrap();
            let Some(Ok(Incoming::Data(hello))) = connection.stream.next().await else {
                panic!("no HELLO");
            };
            assert!(matches!(codec.decode(&hello).unwrap(), Message::Hello { .. }));
            let roles = Dict::from([("broker".to_owned(), Value::Dict(Dict::new()))]);
            let welcome = Message::Welcome {
                session: 9,
                details: Dict::from([("roles".to_owned(), Value::Dict(roles))]),
            };
            connection
                .sink
                .feed(codec.encode(&welcome).unwrap())
                .await
                .unwrap();
            connection.sink.flush().await.unwrap();
            connection
        };
        let (session, _connection) = tokio::join!(Session::connect(&config), router);
        let session = session.unwrap();
        assert_eq!((session.id(), session.codec()), (9, Some(codec)));
    }
}

#[tokio::test]
async fn rule_06_c_22_invalid_uris_are_refused_locally_and_nothing_is_sent() {
    let (session, mut peer) = joined(|_| {}).await;
    let invalid = |failure: Option<RequestError>| matches!(failure, Some(RequestError::InvalidUri(_)));
    for uri in ["", "a..b", "a b", "a.#", ".a", "a.", "a.\u{a0}b", "a\n"] {
        let call = session.call(uri, Payload::Empty, CallOptions::default()).await;
        assert!(invalid(call.err()), "{uri:?}");
        let parts = session
            .call_in_parts(uri, Payload::Empty, CallOptions::default())
            .await;
        assert!(invalid(parts.err()), "{uri:?}");
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
    let subscribe = session.subscribe("a b.", Match::Prefix).await;
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
    for (pattern, policy, name) in [
        ("", Match::Prefix, "prefix"),
        ("a.", Match::Prefix, "prefix"),
        ("A..b", Match::Wildcard, "wildcard"),
    ] {
        let (_, heard) = tokio::join!(session.subscribe(pattern, policy), peer.hear());
        assert_eq!((&heard[2], &heard[3]), (&json!({"match": name}), &json!(pattern)));
        let options = RegisterOptions {
            match_policy: policy,
            ..RegisterOptions::default()
        };
        let (_, heard) = tokio::join!(session.register(pattern, options, echo()), peer.hear());
        assert_eq!((&heard[2], &heard[3]), (&json!({"match": name}), &json!(pattern)));
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

#[tokio::test]
async fn rule_06_c_14_what_goes_wrong_in_a_handler_becomes_an_error_with_a_valid_uri() {
    let (session, mut peer) = joined(|_| {}).await;
    let failing = handler(|invocation| {
        let One(how): One<String> = invocation.payload.parse().unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_23_c_17_pongs_do_not_queue_behind_results() {
    const RESULT: usize = 4 << 20;
    const RESULTS: u64 = 16;
    const ROUNDS: u64 = 5;
    let (session, mut peer) = joined(|_| {}).await;
    let result = Payload::from_args(vec![Value::from("x".repeat(RESULT))]);
    let result = session.codec().unwrap().encode_payload(&result).unwrap();
    let bulk = handler(move |_| std::future::ready(Ok(result.clone())));
    registered(&session, &mut peer, 1, bulk).await;
    let mut pings = 0_u8;
    // Pongs behind results would be there every time; that nobody had a turn to answer while all results went happens
    // once in a while on a busy machine.
    let overtaken = async {
        for round in 0..ROUNDS {
            for request in round * RESULTS + 1..=(round + 1) * RESULTS {
                peer.say(json!([68, request, 1, {}])).await;
            }
            let (mut results, mut answered) = (0, 0);
            while results < RESULTS {
                // One ping after each result, so that there is always something to overtake.
                let sent = tokio::time::Instant::now();
                pings += 1;
                peer.ping(pings).await;
                loop {
                    match tokio::time::timeout(SOON, peer.frame()).await.unwrap() {
                        Frame::Pong(payload) if payload[..] == [pings] => break,
                        Frame::Text(_) => results += 1,
                        Frame::Ping(_) | Frame::Pong(_) => {}
                        other => panic!("{other:?}"),
                    }
                }
                assert!(sent.elapsed() < Duration::from_secs(1), "{:?}", sent.elapsed());
                answered += 1;
            }
            if answered > 2 {
                return true;
            }
        }
        false
    };
    assert!(
        overtaken.await,
        "all {RESULTS} results went before the pong, {ROUNDS} times"
    );
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

#[tokio::test]
async fn c_10_what_is_given_up_is_cancelled_as_the_caller_says() {
    let (session, mut peer) = joined(|_| {}).await;
    for (request, mode, name) in [
        (1, CancelMode::Skip, "skip"),
        (2, CancelMode::Kill, "kill"),
        (3, CancelMode::KillNoWait, "killnowait"),
    ] {
        let options = CallOptions {
            cancel: mode,
            ..CallOptions::timeout(SHORT)
        };
        let given_up = session.call("a.b", Payload::Empty, options).await;
        assert!(
            matches!(given_up, Err(RequestError::Timeout(SHORT))),
            "{given_up:?}"
        );
        assert_eq!(peer.hear().await, json!([48, request, {}, "a.b"]));
        assert_eq!(peer.hear().await, json!([49, request, {"mode": name}]));
    }
}

#[tokio::test]
async fn a_registration_that_is_given_up_may_hold_a_call_of_its_own_session() {
    let (session, mut peer) = joined(|config| config.reply_timeout = SHORT).await;
    let mut stream = session.call_stream("a.b", Payload::Empty, CallOptions::default());
    tokio::select! {
        _ = stream.next() => panic!("answered by nobody"),
        heard = peer.hear() => assert_eq!(heard[0], 48),
    }
    let held = std::sync::Mutex::new(stream);
    let holding = handler(move |_| {
        drop(held.lock());
        std::future::ready(Ok(Payload::Empty))
    });
    // Its last handle goes with the request that nobody answers, and the call with it.
    let given_up = session.register("a.b", RegisterOptions::default(), holding).await;
    assert!(matches!(given_up, Err(RequestError::Timeout(SHORT))));
    assert_eq!(peer.hear().await[0], 64);
    assert_eq!(peer.hear().await, json!([49, 1, {"mode": "killnowait"}]));
    session.publish("a.b", Dict::new(), Payload::Empty).await.unwrap();
    assert_eq!(peer.hear().await[0], 16);
}
