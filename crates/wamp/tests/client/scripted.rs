//! The client against a router that says exactly what a test wants: joining, keep-alive, endings.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use wamp::client::{
    CallOptions, ClientConfig, CloseReason, ConnectError, Credentials, RequestError, Session,
};
use wamp::value::Dict;
use wamp::{Codec, Payload};

/// Bound for what must happen by itself.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The reply timeout of the tests that let it pass.
pub(crate) const SHORT: Duration = Duration::from_millis(200);

/// A listener that waits for its one client.
pub(crate) struct Script {
    listener: TcpListener,
}

/// The router's end of a connection.
pub(crate) struct Peer {
    socket: WebSocketStream<TcpStream>,
}

impl Script {
    pub(crate) async fn new() -> (Script, ClientConfig) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let config = ClientConfig {
            codecs: vec![Codec::Json],
            ..ClientConfig::new(url, "realm1")
        };
        (Script { listener }, config)
    }

    pub(crate) async fn accept(&self) -> Peer {
        let (tcp, _) = self.listener.accept().await.unwrap();
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let pick = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            let name = "wamp.2.json".parse().unwrap();
            response.headers_mut().insert("sec-websocket-protocol", name);
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(tcp, pick).await.unwrap();
        Peer { socket }
    }

    /// Accepts, reads HELLO, says WELCOME.
    pub(crate) async fn welcome(&self) -> Peer {
        self.welcome_with(&[]).await
    }

    /// The same of a router whose dealer announces these features.
    pub(crate) async fn welcome_with(&self, features: &[&str]) -> Peer {
        let mut peer = self.accept().await;
        assert_eq!(peer.hear().await[0], 1);
        let features = features
            .iter()
            .map(|feature| ((*feature).to_owned(), json!(true)));
        let features: serde_json::Map<_, _> = features.collect();
        peer.say(json!([2, 77, {"roles": {"broker": {}, "dealer": {"features": features}}}]))
            .await;
        peer
    }
}

impl Peer {
    pub(crate) async fn say(&mut self, message: Json) {
        self.socket.send(Frame::text(message.to_string())).await.unwrap();
    }

    /// The next frame, or the first one that is no ping.
    async fn next(&mut self, pings: bool) -> Option<Frame> {
        let next = async {
            loop {
                match self.socket.next().await.transpose().ok().flatten() {
                    Some(Frame::Ping(_)) if !pings => {}
                    frame => return frame,
                }
            }
        };
        match tokio::time::timeout(SOON, next).await {
            Ok(frame) => frame,
            Err(_) => panic!("the client says nothing"),
        }
    }

    /// The next message of the client.
    pub(crate) async fn hear(&mut self) -> Json {
        match self.next(false).await {
            Some(Frame::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?} in place of a message"),
        }
    }

    pub(crate) async fn ping(&mut self, payload: u8) {
        self.socket.send(Frame::Ping(vec![payload].into())).await.unwrap();
    }

    /// The next frame, whatever it is.
    pub(crate) async fn frame(&mut self) -> Frame {
        self.socket.next().await.unwrap().unwrap()
    }

    /// The TCP connection itself, which answers nothing.
    pub(crate) fn tcp(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }

    /// Nothing but pings comes for this long.
    pub(crate) async fn is_silent_for(&mut self, time: Duration) {
        let next = tokio::time::timeout(time, self.next(false)).await;
        assert!(next.is_err(), "{next:?}");
    }

    /// The client's close frame, with its code.
    pub(crate) async fn hear_close(&mut self) -> u16 {
        match self.next(false).await {
            Some(Frame::Close(Some(close))) => close.code.into(),
            other => panic!("{other:?} in place of a close frame"),
        }
    }
}

/// A joined session and the router's end of it.
pub(crate) async fn joined(change: impl FnOnce(&mut ClientConfig)) -> (Session, Peer) {
    let (script, mut config) = Script::new().await;
    change(&mut config);
    let (session, peer) = tokio::join!(Session::connect(&config), script.welcome());
    (session.unwrap(), peer)
}

pub(crate) fn cra(secret: &str) -> Credentials {
    Credentials::Cra {
        authid: "7-42".to_owned(),
        secret: secret.to_owned(),
    }
}

#[tokio::test]
async fn rules_04_08_hello_says_who_we_are_and_what_we_can_do() {
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
async fn c_02_rule_15_a_welcome_full_of_strange_details_is_accepted() {
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
async fn c_03_rules_12_13_14_challenges_are_signed_as_the_vectors_say() {
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
async fn c_04_rule_14_a_challenge_that_costs_too_much_is_refused_at_once() {
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
async fn c_05_rules_20_21_refusals_are_told_apart_and_the_transport_is_closed() {
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
async fn c_07_rule_22_goodbye_of_the_router_is_answered_once() {
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
async fn c_07_rule_19_abort_in_a_session_ends_it_and_is_no_credential_failure() {
    let (session, mut peer) = joined(|_| {}).await;
    peer.say(json!([3, {}, "wamp.error.authentication_failed"])).await;
    assert_eq!(peer.hear_close().await, 1000);
    let reason = CloseReason::Aborted("wamp.error.authentication_failed".to_owned());
    assert_eq!(session.closed().await, reason);
    // As often as one likes.
    assert_eq!(session.closed().await, reason);
}

#[tokio::test]
async fn c_16_rule_23_a_silent_router_is_dead_after_two_pings_without_an_answer() {
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
