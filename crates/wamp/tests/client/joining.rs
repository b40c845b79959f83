//! From the connection to WELCOME: what we say of ourselves, how we prove it, and what a refusal looks like.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpListener;
use wamp::client::{ClientConfig, ConnectError, Session};
use wamp::transport::{Incoming, accept};
use wamp::{Codec, Dict, Message, Value};

use crate::scripted::{SHORT, Script, cra};

#[tokio::test]
async fn rule_04_rule_08_hello_says_who_we_are_and_what_we_can_do() {
    let (script, mut config) = Script::new().await;
    config.credentials = cra("s");
    let router = async {
        let mut peer = script.accept().await;
        let hello = peer.hear().await;
        peer.say(json!([2, 1, {"roles": {"dealer": {}}}])).await;
        (hello, peer)
    };
    let (session, (hello, _peer)) = tokio::join!(Session::connect(&config), router);
    session.unwrap();
    assert_eq!(hello[0], 1);
    assert_eq!(hello[1], "realm1");
    let details = hello[2].as_object().unwrap();
    let mut keys: Vec<_> = details.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["authid", "authmethods", "roles"]);
    assert_eq!(details["authid"], "7-42");
    assert_eq!(details["authmethods"], json!(["wampcra"]));
    let mut roles: Vec<_> = details["roles"].as_object().unwrap().keys().collect();
    roles.sort_unstable();
    assert_eq!(roles, ["callee", "caller", "publisher", "subscriber"]);
    for (role, feature) in [
        ("callee", "caller_identification"),
        ("callee", "call_canceling"),
        ("callee", "progressive_call_invocations"),
        ("callee", "progressive_call_results"),
        ("callee", "registration_revocation"),
        ("caller", "call_canceling"),
        ("caller", "progressive_call_invocations"),
        ("caller", "progressive_call_results"),
    ] {
        assert_eq!(
            details["roles"][role]["features"][feature], true,
            "{role} {feature}"
        );
    }
    let all = details["roles"].to_string();
    assert!(!all.contains("payload_passthru_mode"));
}

#[tokio::test]
async fn rule_15_c_02_a_welcome_full_of_strange_details_is_accepted() {
    let (script, config) = Script::new().await;
    let router = async {
        let mut peer = script.accept().await;
        peer.hear().await;
        peer.say(json!([2, 9007199254740992_u64, {
            "roles": {"broker": {"features": {"x": null}}, "dealer": null},
            "authextra": {"own_fd": -1, "ratio": 0.25, "none": null, "list": [1, [2.5, {"a": null}]],
                "bulk": "x".repeat(200 << 10)},
            "_vendor": {"k": [true]},
        }]))
        .await;
        peer
    };
    let (session, _peer) = tokio::join!(Session::connect(&config), router);
    let session = session.unwrap();
    assert_eq!(session.id(), 1 << 53);
    assert!(session.welcome().contains_key("_vendor"));
}

#[tokio::test]
async fn rule_14_c_03_challenges_are_signed_as_the_vectors_say() {
    for (extra, signature) in [
        (json!({}), "Krsa34kwZ3Odt2QHA+B6MDy+UkKmvlIULdSgzy8fXQc="),
        (
            json!({"salt": null}),
            "Krsa34kwZ3Odt2QHA+B6MDy+UkKmvlIULdSgzy8fXQc=",
        ),
        (
            json!({"salt": "salt123"}),
            "3BHPYtQ/nMOfvzKbBfzd6b0i1ePMSGmu9tFBbAiE43w=",
        ),
        (
            json!({"salt": "salt123", "iterations": 100, "keylen": 16}),
            "EDukfKcRhdXT4mdZJstVCeJrAUggHqlqw3CV0cVsOmQ=",
        ),
    ] {
        let (script, mut config) = Script::new().await;
        config.credentials = cra("test-secret");
        let router = async {
            let mut peer = script.accept().await;
            peer.hear().await;
            let mut extra = extra;
            extra["challenge"] = json!(r#"{"nonce":"abc"}"#);
            peer.say(json!([4, "wampcra", extra])).await;
            let answer = peer.hear().await;
            peer.say(json!([2, 1, {"roles": {"broker": {}}}])).await;
            (answer, peer)
        };
        let (session, (answer, _peer)) = tokio::join!(Session::connect(&config), router);
        session.unwrap();
        assert_eq!(answer, json!([5, signature, {}]));
    }
}

#[tokio::test]
async fn rule_14_c_04_a_challenge_that_costs_too_much_is_refused_at_once() {
    let (script, mut config) = Script::new().await;
    config.credentials = cra("s");
    let router = async {
        let mut peer = script.accept().await;
        peer.hear().await;
        let extra = json!({"challenge": "c", "salt": "s", "iterations": 1_000_000_000, "keylen": 32});
        peer.say(json!([4, "wampcra", extra])).await;
        let abort = peer.hear().await;
        (abort, peer.hear_close().await)
    };
    let begin = Instant::now();
    let (refused, (abort, code)) = tokio::join!(Session::connect(&config), router);
    assert!(matches!(refused, Err(ConnectError::Protocol(_))), "{refused:?}");
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert_eq!(abort[0], 3);
    assert_eq!(abort[2], "wamp.error.protocol_violation");
    assert_eq!(code, 1002);
}

#[tokio::test]
async fn a_challenge_of_another_method_gets_no_secret() {
    let (script, mut config) = Script::new().await;
    config.credentials = cra("top secret");
    let router = async {
        let mut peer = script.accept().await;
        peer.hear().await;
        peer.say(json!([4, "ticket", {}])).await;
        let answer = peer.hear().await;
        peer.say(json!([3, {"message": "no"}, "wamp.error.authentication_failed"]))
            .await;
        assert_eq!(peer.hear_close().await, 1000);
        answer
    };
    let (refused, answer) = tokio::join!(Session::connect(&config), router);
    assert_eq!(answer, json!([5, "", {}]));
    assert!(refused.unwrap_err().is_credential_failure());
}

#[tokio::test]
async fn rule_20_c_05_refusals_are_told_apart_and_the_transport_is_closed() {
    for (reason, credentials) in [
        ("wamp.error.no_such_realm", false),
        ("wamp.error.not_authorized", true),
        ("wamp.error.authentication_failed", true),
        ("reswarm.error.no_such_device", false),
    ] {
        let (script, config) = Script::new().await;
        let router = async {
            let mut peer = script.accept().await;
            peer.hear().await;
            peer.say(json!([3, {"message": "because"}, reason])).await;
            peer.hear_close().await
        };
        let (refused, code) = tokio::join!(Session::connect(&config), router);
        let refused = refused.unwrap_err();
        assert_eq!(code, 1000);
        assert_eq!(refused.is_credential_failure(), credentials);
        match refused {
            ConnectError::Aborted {
                reason: said,
                message,
            } => {
                assert_eq!((said.as_str(), message.as_str()), (reason, "because"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_router_that_does_not_welcome_is_a_protocol_error() {
    for answer in [
        json!([2, 1, {}]),
        json!([2, 1, {"roles": {"caller": {}}}]),
        json!([36, 1, 1, {}]),
        json!([2, 1.5, {}]),
        json!("hello"),
    ] {
        let (script, config) = Script::new().await;
        let router = async {
            let mut peer = script.accept().await;
            peer.hear().await;
            peer.say(answer).await;
            peer.hear().await
        };
        let (refused, abort) = tokio::join!(Session::connect(&config), router);
        assert!(matches!(refused, Err(ConnectError::Protocol(_))), "{refused:?}");
        assert_eq!(abort[2], "wamp.error.protocol_violation");
    }
}

#[tokio::test]
async fn a_router_that_is_silent_or_hangs_up_while_joining_is_named() {
    let (script, mut config) = Script::new().await;
    config.reply_timeout = SHORT;
    let (refused, _peer) = tokio::join!(Session::connect(&config), script.accept());
    assert!(
        matches!(refused, Err(ConnectError::Timeout("HELLO"))),
        "{refused:?}"
    );

    let (script, mut config) = Script::new().await;
    config.connect_timeout = SHORT;
    // The TCP connection stands, the upgrade never comes.
    let refused = Session::connect(&config).await;
    assert!(
        matches!(refused, Err(ConnectError::Timeout("connecting"))),
        "{refused:?}"
    );
    drop(script);

    let (script, config) = Script::new().await;
    let router = async { drop(script.accept().await) };
    let (refused, ()) = tokio::join!(Session::connect(&config), router);
    assert!(matches!(refused, Err(ConnectError::Transport(_))), "{refused:?}");
}

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
