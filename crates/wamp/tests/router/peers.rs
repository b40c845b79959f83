//! Other implementations: autobahn-python as a peer of our router, and Crossbar.io as the judge of our signatures.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::*;
use testkit::crossbar::{Crossbar, REALM};
use testkit::wait;
use wamp::auth::cryptosign;
use wamp::client::ConnectError;

const KEY: &str = "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7";
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

/// What autobahn says about its session after everything it tried went well.
async fn autobahn(url: &str, authentication: &Value) -> Value {
    let mut command = Command::new(python());
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/router/autobahn_peer.py"))
        .arg(url)
        .arg(authentication.to_string())
        .stdin(Stdio::null());
    let ran = tokio::task::spawn_blocking(move || command.output());
    let ended = tokio::time::timeout(3 * SOON, ran).await;
    let output = ended.expect("autobahn ends in time").unwrap().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    // On a RawSocket autobahn complains about the end of the connection, whoever wanted it.
    let last = said
        .lines()
        .rfind(|line| line.starts_with('{'))
        .unwrap_or_else(|| panic!("nothing said: {complaint}"));
    serde_json::from_str(last).unwrap_or_else(|_| panic!("{said}\n{complaint}"))
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
                    _ => authenticate(&request),
                }
            })
        }),
        limits: Limits::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn autobahn_joins_calls_streams_and_publishes_with_every_proof() {
    let running = run(router()).await;
    for (method, authid, authentication) in [
        ("wampcra", "7-42", json!({"authid": "7-42", "secret": SECRET})),
        (
            "wampcra",
            "salted-32",
            json!({"authid": "salted-32", "secret": SECRET}),
        ),
        (
            "cryptosign",
            "keyholder",
            json!({"authid": "keyholder", "privkey": KEY}),
        ),
        ("anonymous", "guest", json!({})),
    ] {
        let said = autobahn(&running.url(), &json!({method: authentication})).await;
        let expected = json!({"authid": authid, "authrole": "device", "authmethod": method});
        assert_eq!(said, expected, "{method}");
        running.holds(0).await;
    }
    assert_eq!(running.router.counters().violations, 0);
}

/// autobahn has no PING there: with one it would be lost before it is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn autobahn_lives_on_a_rawsocket() {
    let mut config = router();
    config.limits.ping_interval = Duration::from_millis(5);
    let running = run(config).await;
    let url = format!("rs://{}", running.address);
    let said = autobahn(&url, &json!({"anonymous": {}})).await;
    assert_eq!(said["authid"], "guest", "{said}");
    running.holds(0).await;
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
