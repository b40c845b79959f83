//! From the upgrade to WELCOME.

use tokio::io::AsyncWriteExt as _;

use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};

use super::*;
use wamp::auth;
use wamp::client::ConnectError;

async fn upgraded(address: SocketAddr, protocols: &str) -> tungstenite::Result<Option<String>> {
    let mut request = format!("ws://{address}/").into_client_request()?;
    if !protocols.is_empty() {
        let protocols = HeaderValue::from_str(protocols).unwrap();
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocols);
    }
    let stream = TcpStream::connect(address).await?;
    let (_, response) = tokio_tungstenite::client_async(request, stream).await?;
    let picked = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
    Ok(picked.map(|name| name.to_str().unwrap().to_owned()))
}

#[tokio::test]
async fn r_s1_the_first_known_subprotocol_of_the_client_is_chosen() {
    let running = start(Limits::default()).await;
    let picked = upgraded(running.address, "wamp.2.bogus, wamp.2.cbor, wamp.2.json").await;
    assert_eq!(picked.unwrap().as_deref(), Some("wamp.2.cbor"));
}

#[tokio::test]
async fn r_s2_no_known_subprotocol_is_refused_with_400() {
    let running = start(Limits::default()).await;
    for offer in ["", "wamp.2.bogus", "chat"] {
        match upgraded(running.address, offer).await {
            Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), 400),
            other => panic!("{offer:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn r_s3_an_anonymous_hello_is_welcomed_with_identity_and_features() {
    let running = start(Limits::default()).await;
    let mut peer = running.peer().await;
    let welcome = peer.ask(hello(json!({"_vendor": null, "x": [1.5]}))).await;
    assert_eq!(welcome[0], 2);
    let id = welcome[1].as_u64().unwrap();
    assert!((1..=1 << 53).contains(&id));
    let details = &welcome[2];
    for (key, expected) in [
        ("realm", "realm1"),
        ("authid", "guest"),
        ("authrole", "device"),
        ("authmethod", "anonymous"),
    ] {
        assert_eq!(details[key], expected);
    }
    assert_eq!(details["roles"]["dealer"]["features"]["call_canceling"], true);
    assert_eq!(
        details["roles"]["broker"]["features"]["publisher_exclusion"],
        true
    );
    assert_eq!(running.router.counters().sessions, 1);
}

#[tokio::test]
async fn r_s4_an_unknown_realm_is_refused_and_the_transport_closed() {
    let running = start(Limits::default()).await;
    let mut peer = running.peer().await;
    let abort = peer.ask(json!([1, "elsewhere", {"roles": {"caller": {}}}])).await;
    assert_eq!(abort[2], "wamp.error.no_such_realm");
    assert_eq!(peer.closed().await, Some(1000));
}

#[tokio::test]
async fn r_s5_a_hello_without_roles_is_refused() {
    let running = start(Limits::default()).await;
    for details in [json!({}), json!({"roles": {}})] {
        let mut peer = running.peer().await;
        peer.send(json!([1, "realm1", details])).await;
        peer.violated().await;
    }
}

#[tokio::test]
async fn r_s7_unknown_methods_are_skipped() {
    let running = start(Limits::default()).await;
    let mut peer = running.peer().await;
    let challenge = peer
        .ask(hello(
            json!({"authid": "7-42", "authmethods": ["foo", "wampcra"]}),
        ))
        .await;
    assert_eq!((&challenge[0], &challenge[1]), (&json!(4), &json!("wampcra")));
}

#[tokio::test]
async fn r_s8_no_usable_method_is_refused_for_known_and_unknown_alike() {
    let running = start(Limits::default()).await;
    for authid in ["7-42", "unknown"] {
        let mut peer = running.peer().await;
        let abort = peer
            .ask(hello(
                json!({"authid": authid, "authmethods": ["scram", "anonymous"]}),
            ))
            .await;
        assert_eq!(abort[2], "wamp.error.no_matching_auth_method", "{authid}");
    }
}

#[tokio::test]
async fn r_s9_a_correct_signature_is_welcomed_under_the_session_of_the_challenge() {
    let running = start(Limits::default()).await;
    let mut peer = running.peer().await;
    let challenge = peer
        .ask(hello(json!({"authid": "7-42", "authmethods": ["wampcra"]})))
        .await;
    let text = challenge[2]["challenge"].as_str().unwrap();
    let said: Value = serde_json::from_str(text).unwrap();
    let welcome = peer.ask(json!([5, auth::sign(SECRET, text), {}])).await;
    assert_eq!(welcome[0], 2);
    assert_eq!(welcome[1], said["session"]);
    assert_eq!(welcome[2]["authid"], "7-42");
    assert_eq!(welcome[2]["authextra"]["device_key"], 42);
}

#[tokio::test]
async fn r_s10_an_unknown_authid_is_answered_exactly_like_a_wrong_signature() {
    let running = start(Limits::default()).await;
    let mut answers = Vec::new();
    for authid in ["7-42", "unknown"] {
        let mut peer = running.peer().await;
        let challenge = peer
            .ask(hello(json!({"authid": authid, "authmethods": ["wampcra"]})))
            .await;
        let said: Value = serde_json::from_str(challenge[2]["challenge"].as_str().unwrap()).unwrap();
        let keys: Vec<String> = said.as_object().unwrap().keys().cloned().collect();
        assert_eq!(said["authid"], authid);
        let abort = peer.ask(json!([5, "AAAA", {}])).await;
        answers.push((keys, said["authrole"].clone(), abort, peer.closed().await));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(
        answers[0].2,
        json!([3, {"message": "WAMP-CRA client signature is invalid"}, "wamp.error.not_authorized"])
    );
    assert_eq!(running.router.counters().sessions, 0);
}

#[tokio::test]
async fn r_s10_whatever_methods_are_offered_nobody_learns_who_exists() {
    let running = start(Limits::default()).await;
    for methods in [
        json!(["ticket"]),
        json!(["ticket", "wampcra"]),
        json!(["wampcra", "ticket"]),
        json!(["anonymous", "ticket"]),
    ] {
        let mut answers = Vec::new();
        for authid in ["7-42", "unknown"] {
            let mut peer = running.peer().await;
            let challenge = peer
                .ask(hello(json!({"authid": authid, "authmethods": methods})))
                .await;
            let abort = peer.ask(json!([5, SECRET, {}])).await;
            answers.push((
                challenge[0].clone(),
                challenge[1].clone(),
                abort,
                peer.closed().await,
            ));
        }
        assert_eq!(answers[0], answers[1], "{methods}");
        assert_eq!(answers[0].0, 4, "{methods}");
    }
}

#[tokio::test]
async fn r_s11_a_nonce_serves_once_and_a_second_authenticate_is_a_violation() {
    let running = start(Limits::default()).await;
    let mut texts = Vec::new();
    for _ in 0..2 {
        let mut peer = running.peer().await;
        let challenge = peer
            .ask(hello(json!({"authid": "7-42", "authmethods": ["wampcra"]})))
            .await;
        let text = challenge[2]["challenge"].as_str().unwrap().to_owned();
        let signature = auth::sign(SECRET, &text);
        assert_eq!(peer.ask(json!([5, signature, {}])).await[0], 2);
        peer.send(json!([5, signature, {}])).await;
        peer.violated().await;
        texts.push(text);
    }
    assert_ne!(texts[0], texts[1]);
    let mut peer = running.peer().await;
    peer.ask(hello(json!({"authid": "7-42", "authmethods": ["wampcra"]})))
        .await;
    let abort = peer.ask(json!([5, auth::sign(SECRET, &texts[0]), {}])).await;
    assert_eq!(abort[2], "wamp.error.not_authorized");
}

#[tokio::test]
async fn r_s11_an_authenticate_that_does_not_come_in_time_is_refused() {
    let limits = Limits {
        auth_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let running = start(limits).await;
    let mut peer = running.peer().await;
    peer.ask(hello(json!({"authid": "7-42", "authmethods": ["wampcra"]})))
        .await;
    let abort = peer.next().await;
    assert_eq!((&abort[0], &abort[2]), (&json!(3), &json!("wamp.error.timeout")));
    peer.closed().await;
}

#[tokio::test]
async fn r_s12_a_salted_secret_needs_the_derived_key() {
    let running = start(Limits::default()).await;
    for keylen in ["16", "32", "64"] {
        let mut config = running.client_config();
        config.credentials = Credentials::Cra {
            authid: format!("salted-{keylen}"),
            secret: SECRET.to_owned(),
        };
        let session = Session::connect(&config).await.unwrap();
        assert!(session.is_open());

        let mut peer = running.peer().await;
        let challenge = peer
            .ask(hello(
                json!({"authid": format!("salted-{keylen}"), "authmethods": ["wampcra"]}),
            ))
            .await;
        let text = challenge[2]["challenge"].as_str().unwrap();
        let abort = peer.ask(json!([5, auth::sign(SECRET, text), {}])).await;
        assert_eq!(abort[2], "wamp.error.not_authorized", "plain secret");
    }
}

#[tokio::test]
async fn r_s13_the_right_ticket_is_welcomed_and_a_wrong_one_refused_like_an_unknown_authid() {
    let running = start(Limits::default()).await;
    let mut aborts = Vec::new();
    for (authid, ticket) in [
        ("ticket", "let me in"),
        ("ticket", "open sesame"),
        ("unknown", "let me in"),
    ] {
        let mut peer = running.peer().await;
        let challenge = peer
            .ask(hello(json!({"authid": authid, "authmethods": ["ticket"]})))
            .await;
        assert_eq!(challenge[1], "ticket");
        let answer = peer.ask(json!([5, ticket, {}])).await;
        if ticket == "let me in" && authid == "ticket" {
            assert_eq!(
                (&answer[0], &answer[2]["authrole"]),
                (&json!(2), &json!("backend"))
            );
        } else {
            assert_eq!(answer[2], "wamp.error.not_authorized");
            aborts.push(answer);
        }
    }
    assert_eq!(aborts[0], aborts[1]);
}

#[tokio::test]
async fn the_authenticators_own_reason_and_a_missing_role_reach_the_client() {
    let running = start(Limits::default()).await;
    let mut config = running.client_config();
    config.credentials = Credentials::Ticket {
        authid: "banned".to_owned(),
        ticket: String::new(),
    };
    match Session::connect(&config).await {
        Err(ConnectError::Aborted { reason, message }) => {
            assert_eq!(
                (reason.as_str(), message.as_str()),
                ("app.error.banned", "not today")
            );
        }
        other => panic!("{other:?}"),
    }
    let mut peer = running.peer().await;
    let abort = peer
        .ask(hello(json!({"authid": "roleless", "authmethods": ["anonymous"]})))
        .await;
    assert_eq!(abort[2], "wamp.error.no_such_role");
}

#[tokio::test]
async fn r_s14_any_other_first_message_is_a_violation() {
    let running = start(Limits::default()).await;
    for message in [
        json!([5, "signature", {}]),
        json!([48, 1, {}, "a.b"]),
        json!([6, {}, "a.b"]),
        json!([2, 1, {}]),
    ] {
        let mut peer = running.peer().await;
        peer.send(message).await;
        peer.violated().await;
    }
}

#[tokio::test]
async fn r_s21_a_client_that_says_nothing_is_closed() {
    let limits = Limits {
        opening_timeout: Duration::from_millis(100),
        auth_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let running = start(limits).await;
    // Not even an upgrade.
    let silent = TcpStream::connect(running.address).await.unwrap();
    soon("the end", silent.readable()).await.unwrap();
    assert_eq!(silent.try_read(&mut [0; 16]).unwrap(), 0);
    // An upgrade, but no HELLO.
    let mut peer = running.peer().await;
    assert_eq!(peer.next().await[2], "wamp.error.timeout");
    peer.closed().await;
}

#[tokio::test]
async fn sessions_beyond_the_limit_are_refused_until_one_leaves() {
    let limits = Limits {
        max_sessions: 1,
        ..Limits::default()
    };
    let running = start(limits).await;
    let first = running.client().await;
    match Session::connect(&running.client_config()).await {
        Err(error @ ConnectError::Aborted { .. }) => assert!(!error.is_credential_failure()),
        other => panic!("{other:?}"),
    }
    first.leave().await;
    running.holds(0).await;
    running.client().await;
}

#[tokio::test]
async fn a_stranger_may_send_little_before_it_has_joined() {
    let running = start(Limits::default()).await;
    // A HELLO that is larger than any honest one.
    let mut peer = running.peer().await;
    let filler = "x".repeat(1 << 20);
    let _ = peer
        .socket
        .send(Frame::text(
            hello(json!({"authextra": {"filler": filler}})).to_string(),
        ))
        .await;
    let abort = peer.next().await;
    assert_eq!(abort[2], "wamp.error.protocol_violation", "{abort}");
    // Headers without end.
    let mut endless = TcpStream::connect(running.address).await.unwrap();
    let line = format!("X-Filler: {}\r\n", "x".repeat(1000));
    endless.write_all(b"GET /ws HTTP/1.1\r\n").await.unwrap();
    let pouring = async { while endless.write_all(line.as_bytes()).await.is_ok() {} };
    soon("the end of the headers", pouring).await;
    // Who has joined sends what it likes.
    let mut peer = running.joined().await;
    let large = json!([48, 1, {}, "a.b", ["x".repeat(1 << 20)]]);
    assert_eq!(peer.ask(large).await[4], "wamp.error.no_such_procedure");
    running.holds(1).await;
}

#[tokio::test]
async fn connections_beyond_all_that_could_join_are_closed_and_counted() {
    let limits = Limits {
        max_sessions: 0,
        ..Limits::default()
    };
    let running = start(limits).await;
    let full = || running.router.counters().refused_sessions.full;
    let mut silent = Vec::new();
    while full() == 0 {
        assert!(silent.len() < 2000, "still none refused");
        silent.push(TcpStream::connect(running.address).await.unwrap());
    }
    assert!(silent.len() > 1024, "{}", silent.len());
}
