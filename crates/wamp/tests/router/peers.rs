//! Other implementations: autobahn-python as a peer of our router, and Crossbar.io as the judge of our signatures.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::*;
use testkit::crossbar::{Crossbar, REALM};
use testkit::wait;
use wamp::auth::cryptosign;
use wamp::client::ConnectError;

const KEY: &str = "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7";
const TICKET: &str = "let me in";
const OTHER_KEY: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";

/// The Python beside Crossbar.io, which brings autobahn along.
fn python() -> PathBuf {
    let crossbar = std::env::var_os("REAGENT_CROSSBAR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/crossbar-venv/bin/crossbar"),
        PathBuf::from,
    );
    let python = crossbar.with_file_name("python");
    assert!(
        python.exists(),
        "autobahn is not installed: `make test` installs it together with Crossbar.io"
    );
    python
}

/// What autobahn says about its session after everything it tried went well, or about the door that stayed closed.
async fn autobahn(transport: &Value, authentication: &Value) -> Value {
    let mut command = Command::new(python());
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/router/autobahn_peer.py"))
        .arg(transport.to_string())
        .arg(authentication.to_string())
        .stdin(Stdio::null());
    let ran = tokio::task::spawn_blocking(move || command.output());
    let ended = tokio::time::timeout(3 * SOON, ran).await;
    let output = ended.expect("autobahn ends in time").unwrap().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    // Autobahn logs to where it prints.
    let answer = said.lines().rev().find(|line| line.starts_with('{'));
    let answer = answer.and_then(|line| serde_json::from_str(line).ok());
    answer.unwrap_or_else(|| panic!("no answer: {said}\n{complaint}"))
}

fn router() -> RouterConfig {
    RouterConfig {
        realm: "realm1".to_owned(),
        roles: roles(),
        authenticator: Arc::new(|request: JoinRequest| {
            Box::pin(async move {
                match request.authid.as_deref() {
                    Some("keyholder") => Ok(Principal::Cryptosign {
                        keys: vec![cryptosign::public_key(KEY).unwrap()],
                        role: "device".to_owned(),
                        extra: wamp::Dict::new(),
                    }),
                    Some("ticket") => Ok(Principal::Ticket {
                        ticket: TICKET.to_owned(),
                        role: "device".to_owned(),
                        extra: wamp::Dict::new(),
                    }),
                    _ => authenticate(&request),
                }
            })
        }),
        limits: Limits::default(),
    }
}

/// Over WebSocket, in the first codec that both know.
fn websocket(running: &Running) -> Value {
    json!({"type": "websocket", "url": running.url()})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn autobahn_joins_calls_streams_and_publishes_with_every_proof() {
    let running = run(router()).await;
    let named = |authid: &str, key: &str, value: &str| json!({"authid": authid, key: value});
    for (method, authid, authentication) in [
        ("wampcra", "7-42", named("7-42", "secret", SECRET)),
        ("wampcra", "salted-16", named("salted-16", "secret", SECRET)),
        ("wampcra", "salted-32", named("salted-32", "secret", SECRET)),
        ("ticket", "ticket", named("ticket", "ticket", TICKET)),
        ("cryptosign", "keyholder", named("keyholder", "privkey", KEY)),
        ("anonymous", "guest", json!({})),
    ] {
        let said = autobahn(&websocket(&running), &json!({method: authentication})).await;
        let expected = json!({"authid": authid, "authrole": "device", "authmethod": method});
        assert_eq!(said, expected, "{method}");
        running.holds(0).await;
    }
    assert_eq!(running.router.counters().violations, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn autobahn_does_the_same_in_every_codec_over_every_transport() {
    let running = run(router()).await;
    let endpoint =
        json!({"type": "tcp", "host": running.address.ip().to_string(), "port": running.address.port()});
    for codec in ["json", "msgpack", "cbor"] {
        for transport in [
            json!({"type": "websocket", "url": running.url(), "serializers": [codec]}),
            json!({
                "type": "rawsocket", "url": format!("rs://{}", running.address), "serializer": codec,
                "endpoint": endpoint,
            }),
        ] {
            let said = autobahn(&transport, &json!({"anonymous": {}})).await;
            let expected = json!({"authid": "guest", "authrole": "device", "authmethod": "anonymous"});
            assert_eq!(said, expected, "{transport}");
            running.holds(0).await;
        }
    }
    assert_eq!(running.router.counters().violations, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn autobahn_is_refused_with_a_wrong_proof() {
    let running = run(router()).await;
    let proofs = [
        json!({"wampcra": {"authid": "7-42", "secret": "wrong"}}),
        json!({"wampcra": {"authid": "salted-32", "secret": "wrong"}}),
        json!({"ticket": {"authid": "ticket", "ticket": "wrong"}}),
        json!({"cryptosign": {"authid": "keyholder", "privkey": OTHER_KEY}}),
    ];
    for (refused, proof) in proofs.iter().enumerate() {
        let said = autobahn(&websocket(&running), proof).await;
        assert_eq!(said, json!({"refused": "wamp.error.not_authorized"}), "{proof}");
        let count = running.router.counters().refused_sessions.credentials;
        assert_eq!(count, refused as u64 + 1, "{proof}");
    }
}

#[tokio::test]
async fn crossbar_admits_the_holder_of_a_key_and_nobody_else() {
    let port = wait::free_port();
    let principal = json!({
        "realm": REALM, "role": "device", "authorized_keys": [cryptosign::public_key(KEY).unwrap()]
    });
    let everything = json!({
        "uri": "", "match": "prefix",
        "allow": {"call": true, "register": true, "publish": true, "subscribe": true},
    });
    let config = json!({
        "version": 2,
        "controller": {"id": "node1"},
        "workers": [{
            "type": "router",
            "id": "router1",
            "realms": [{"name": REALM, "roles": [{"name": "device", "permissions": [everything]}]}],
            "transports": [{
                "type": "websocket",
                "id": "ws_key",
                "endpoint": {"type": "tcp", "interface": "127.0.0.1", "port": port},
                "auth": {"cryptosign": {"type": "static", "principals": {"keyholder": principal}}},
            }],
        }],
    });
    let node = Crossbar::start_with(&config, port, port).unwrap_or_else(|error| panic!("{error}"));
    let mut client = ClientConfig::new(node.url(), REALM);
    let credentials = |private_key: &str| Credentials::Cryptosign {
        authid: Some("keyholder".to_owned()),
        private_key: private_key.to_owned(),
    };
    client.credentials = credentials(KEY);
    let session = Session::connect(&client).await.unwrap();
    assert!(session.is_open());
    session.leave().await;
    client.credentials = credentials(OTHER_KEY);
    match Session::connect(&client).await {
        Err(error @ ConnectError::Aborted { .. }) => assert!(error.is_credential_failure(), "{error}"),
        other => panic!("{other:?}"),
    }
}
