//! Proof by key, and authentication by a procedure.

use super::*;
use wamp::auth::{self, cryptosign};
use wamp::client::{ConnectError, Invocation, RegisterOptions, WampError, handler};
use wamp::router::AskedProcedure;
use wamp::{Dict, Payload, Value as WampValue};

const KEY: &str = "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7";
const OTHER_KEY: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";

/// `keyholder` proves itself by key, everybody else is looked up by the procedure but those who offer it.
async fn asking(timeout: Duration) -> Running {
    let asked = AskedProcedure {
        timeout,
        ..AskedProcedure::new("re.authenticate")
    };
    run(RouterConfig {
        realm: "realm1".to_owned(),
        roles: roles(),
        authenticator: Arc::new(move |request: JoinRequest| {
            let asked = asked.clone();
            Box::pin(async move {
                match request.authid.as_deref() {
                    None => Ok(Principal::Anonymous {
                        authid: "authenticator".to_owned(),
                        role: "backend".to_owned(),
                    }),
                    Some("keyholder") => Ok(Principal::Cryptosign {
                        keys: vec![cryptosign::public_key(KEY).unwrap()],
                        role: "device".to_owned(),
                        extra: Dict::from([("from".to_owned(), "config".into())]),
                    }),
                    Some(_) => Ok(Principal::Asked(asked)),
                }
            })
        }),
        limits: Limits::default(),
    })
    .await
}

/// What the procedure answers: salted, moved under another name, by key, refused, nonsense.
fn known(invocation: &Invocation) -> Result<Payload, WampError> {
    let args = invocation.payload.args().unwrap();
    let text = |value: &WampValue, key: &str| value.get(key).and_then(WampValue::as_str).map(str::to_owned);
    assert_eq!(args[0].as_str(), Some("realm1"));
    let caller = invocation.details.get("caller_authrole");
    assert_eq!(caller.and_then(WampValue::as_str), Some("trusted"));
    let details = &args[2];
    assert_eq!(text(details, "authid").as_deref(), args[1].as_str());
    assert!(details.get("session").and_then(WampValue::as_u64).is_some());
    let peer = details
        .get("transport")
        .and_then(|transport| text(transport, "peer"));
    assert!(peer.unwrap().starts_with("127.0.0.1:"));
    let answer = match args[1].as_str().unwrap() {
        "salted" => json!({"secret": SECRET, "role": "device", "salt": "s", "iterations": 10, "keylen": 16}),
        "7-42" => {
            json!({"secret": SECRET, "role": "device", "authid": "renamed", "extra": {"device_key": 42}})
        }
        "elsewhere" => json!({"secret": SECRET, "role": "device", "realm": "nowhere"}),
        "key" => json!({"pubkey": cryptosign::public_key(KEY).unwrap(), "role": "device"}),
        "bare" => json!("device"),
        other => return Err(WampError::new("reswarm.error.no_such_device", other)),
    };
    Ok(Payload::from_args(vec![answer.into()]))
}

async fn offer(running: &Running) -> Session {
    let session = running.client().await;
    let answer = handler(|invocation: Invocation| async move { known(&invocation) });
    session
        .register("re.authenticate", RegisterOptions::default(), answer)
        .await
        .unwrap();
    session
}

async fn connect(running: &Running, credentials: Credentials) -> Result<Session, ConnectError> {
    let mut config = running.client_config();
    config.credentials = credentials;
    Session::connect(&config).await
}

fn cra(authid: &str, secret: &str) -> Credentials {
    Credentials::Cra {
        authid: authid.to_owned(),
        secret: secret.to_owned(),
    }
}

fn key(authid: Option<&str>, private_key: &str) -> Credentials {
    Credentials::Cryptosign {
        authid: authid.map(str::to_owned),
        private_key: private_key.to_owned(),
    }
}

#[track_caller]
fn aborted(result: Result<Session, ConnectError>) -> (String, String) {
    match result {
        Err(ConnectError::Aborted { reason, message }) => (reason, message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_procedure_that_is_asked_decides_who_joins_as_whom() {
    let running = asking(SOON).await;
    let _backend = offer(&running).await;
    for authid in ["7-42", "salted"] {
        let session = connect(&running, cra(authid, SECRET)).await.unwrap();
        assert!(session.is_open());
        let (reason, _) = aborted(connect(&running, cra(authid, "wrong")).await);
        assert_eq!(reason, "wamp.error.not_authorized");
    }
    let mut peer = running.peer().await;
    let challenge = peer
        .ask(hello(json!({"authid": "7-42", "authmethods": ["wampcra"]})))
        .await;
    let text = challenge[2]["challenge"].as_str().unwrap();
    assert!(
        !text.contains("renamed"),
        "what the procedure says is not for strangers"
    );
    let welcome = peer.ask(json!([5, auth::sign(SECRET, text), {}])).await;
    assert_eq!(
        (&welcome[2]["authid"], &welcome[2]["authrole"]),
        (&json!("renamed"), &json!("device"))
    );
    assert_eq!(welcome[2]["authextra"]["device_key"], 42);
    let ticket = Credentials::Ticket {
        authid: "7-42".to_owned(),
        ticket: SECRET.to_owned(),
    };
    connect(&running, ticket).await.unwrap();
    connect(&running, key(Some("key"), KEY)).await.unwrap();
    running.holds(2).await;
}

#[tokio::test]
async fn what_the_procedure_refuses_or_garbles_becomes_the_abort() {
    let running = asking(SOON).await;
    let (reason, _) = aborted(connect(&running, cra("7-42", SECRET)).await);
    assert_eq!(reason, "wamp.error.no_such_procedure", "nobody offers it yet");
    let _backend = offer(&running).await;
    assert_eq!(
        aborted(connect(&running, cra("stranger", SECRET)).await),
        ("reswarm.error.no_such_device".to_owned(), "stranger".to_owned())
    );
    let (reason, message) = aborted(connect(&running, cra("bare", SECRET)).await);
    assert_eq!(reason, "wamp.error.runtime_error");
    assert!(!message.contains(SECRET));
    let (reason, _) = aborted(connect(&running, cra("elsewhere", SECRET)).await);
    assert_eq!(reason, "wamp.error.no_such_realm");
    let mut peer = running.peer().await;
    let abort = peer
        .ask(hello(json!({"authid": "7-42", "authmethods": ["scram"]})))
        .await;
    assert_eq!(abort[2], "wamp.error.no_matching_auth_method");
    let refused = running.router.counters().refused_sessions;
    assert_eq!(
        (
            refused.authenticator,
            refused.no_such_realm,
            refused.no_auth_method
        ),
        (3, 1, 1)
    );
    assert_eq!(
        running.router.counters().sessions,
        1,
        "the router's own do not count"
    );
}

#[tokio::test]
async fn a_procedure_that_does_not_answer_or_goes_away_refuses_and_is_told() {
    let running = asking(Duration::from_millis(100)).await;
    let mut backend = running.joined().await;
    assert_eq!(backend.ask(json!([64, 1, {}, "re.authenticate"])).await[0], 65);
    let (reason, _) = aborted(connect(&running, cra("7-42", SECRET)).await);
    assert_eq!(reason, "wamp.error.runtime_error");
    assert_eq!(backend.next().await[0], 68);
    let interrupt = backend.next().await;
    assert_eq!(
        (&interrupt[0], &interrupt[2]["mode"]),
        (&json!(69), &json!("killnowait"))
    );

    let running = asking(SOON).await;
    let mut backend = running.joined().await;
    assert_eq!(backend.ask(json!([64, 1, {}, "re.authenticate"])).await[0], 65);
    let mut peer = running.peer().await;
    peer.send(hello(json!({"authid": "7-42", "authmethods": ["wampcra"]})))
        .await;
    assert_eq!(backend.next().await[0], 68);
    drop(backend);
    assert_eq!(peer.next().await[2], "wamp.error.canceled");
}

#[tokio::test]
async fn cryptosign_admits_the_holder_of_the_key_and_nobody_else() {
    let running = asking(SOON).await;
    let session = connect(&running, key(Some("keyholder"), KEY)).await.unwrap();
    assert!(session.is_open());
    let refused = aborted(connect(&running, key(Some("keyholder"), OTHER_KEY)).await);
    assert_eq!(refused.0, "wamp.error.not_authorized");

    let public = cryptosign::public_key(KEY).unwrap();
    let ask = |authextra: Value| {
        hello(json!({
            "authid": "keyholder", "authmethods": ["cryptosign"], "authextra": authextra
        }))
    };
    let answer = |challenge: &Value, private_key: &str| {
        let extra = Dict::from([(
            "challenge".to_owned(),
            challenge[2]["challenge"].as_str().unwrap().into(),
        )]);
        cryptosign::answer(private_key, &extra).unwrap()
    };
    let mut seen = Vec::new();
    for authextra in [
        json!({"pubkey": public}),
        json!({"pubkey": public.to_uppercase(), "channel_binding": null}),
        json!({}),
    ] {
        let mut peer = running.peer().await;
        let challenge = peer.ask(ask(authextra)).await;
        assert_eq!((&challenge[0], &challenge[1]), (&json!(4), &json!("cryptosign")));
        assert_eq!(challenge[2]["channel_binding"], Value::Null);
        let welcome = peer.ask(json!([5, answer(&challenge, KEY), {}])).await;
        assert_eq!(
            (&welcome[0], &welcome[2]["authid"]),
            (&json!(2), &json!("keyholder"))
        );
        assert_eq!(
            (&welcome[2]["authmethod"], &welcome[2]["authextra"]["from"]),
            (&json!("cryptosign"), &json!("config"))
        );
        seen.push(challenge[2]["challenge"].clone());
    }
    assert!(
        seen[0] != seen[1] && seen[1] != seen[2],
        "never the same question twice"
    );

    // A key that is not the principal's, an old answer, nonsense.
    let mut refusals = Vec::new();
    for (named, signed) in [
        (&public, "other"),
        (&cryptosign::public_key(OTHER_KEY).unwrap(), "other"),
        (&public, "old"),
        (&public, ""),
    ] {
        let mut peer = running.peer().await;
        let challenge = peer.ask(ask(json!({"pubkey": named}))).await;
        let signature = match signed {
            "other" => answer(&challenge, OTHER_KEY),
            "old" => answer(&json!([4, "cryptosign", {"challenge": seen[0]}]), KEY),
            nonsense => nonsense.to_owned(),
        };
        let abort = peer.ask(json!([5, signature, {}])).await;
        assert_eq!(abort[2], "wamp.error.not_authorized");
        assert!(signature.is_empty() || !abort.to_string().contains(&signature));
        refusals.push(abort);
    }
    assert!(refusals.iter().all(|refusal| *refusal == refusals[0]));

    let mut peer = running.peer().await;
    let abort = peer
        .ask(ask(json!({"pubkey": public, "channel_binding": "tls-unique"})))
        .await;
    assert_eq!(abort[2], "wamp.error.not_authorized");
}

#[tokio::test]
async fn r_s10_a_key_that_nobody_has_is_answered_like_a_wrong_one() {
    let running = start(Limits::default()).await;
    let mut answers = Vec::new();
    for authid in ["7-42", "unknown"] {
        let mut peer = running.peer().await;
        let public = cryptosign::public_key(KEY).unwrap();
        let details =
            json!({"authid": authid, "authmethods": ["cryptosign"], "authextra": {"pubkey": public}});
        let challenge = peer.ask(hello(details)).await;
        assert_eq!(challenge[2]["challenge"].as_str().unwrap().len(), 64);
        answers.push((peer.ask(json!([5, "00", {}])).await, peer.closed().await));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn sessions_of_one_authid_are_bounded() {
    let running = start(Limits {
        max_sessions_per_authid: 1,
        ..Limits::default()
    })
    .await;
    let first = running.device().await;
    let (reason, message) = aborted(connect(&running, cra("7-42", SECRET)).await);
    assert_eq!(reason, "wamp.error.runtime_error", "no credential failure");
    assert!(message.contains("one authid"), "{message}");
    running.client().await;
    first.leave().await;
    until("room", || running.router.counters().sessions <= 1).await;
    running.device().await;
    assert_eq!(running.router.counters().refused_sessions.full, 1);
}
