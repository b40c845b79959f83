//! What the router writes into the log: who came, who went and why, who was refused; never a secret.

use std::fmt::{Debug, Write as _};
use std::sync::Mutex;

use super::*;
use tracing::field::{Field, Visit};
use tracing::span;
use wamp::auth::{self, cryptosign};

/// Keeps every event as one line of `name=value`.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl tracing::Subscriber for Recorder {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("wamp")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
}

impl Recorder {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Whether one line has all of these.
    fn has(&self, parts: &[&str]) -> bool {
        self.lines()
            .iter()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    }

    #[track_caller]
    fn says(&self, parts: &[&str]) {
        assert!(self.has(parts), "{parts:?} in {:#?}", self.lines());
    }
}

const TICKET: &str = "let me in";
const KEY: &str = "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7";

/// Joins under `authid` and answers the challenge; the answers, as the router got them.
async fn knock(running: &Running, authid: &str, method: &str, secret: &str) -> (Peer, String) {
    let mut peer = running.peer().await;
    let public = cryptosign::public_key(KEY).unwrap();
    let details = json!({"authid": authid, "authmethods": [method], "authextra": {"pubkey": public}});
    let challenge = peer.ask(hello(details)).await;
    let text = challenge[2]["challenge"].as_str().unwrap_or_default();
    let signature = match method {
        "wampcra" => auth::sign(secret, text),
        "ticket" => secret.to_owned(),
        _ => cryptosign::answer(secret, &wamp::Dict::from([("challenge".to_owned(), text.into())])).unwrap(),
    };
    peer.send(json!([5, signature, {}])).await;
    peer.next().await;
    (peer, signature)
}

#[tokio::test]
async fn joins_leaves_and_refusals_are_logged_and_secrets_are_not() {
    let recorder = Recorder::default();
    let _guard = tracing::subscriber::set_default(recorder.clone());
    let running = start(Limits::default()).await;
    let mut secrets = vec![SECRET.to_owned(), TICKET.to_owned(), "open sesame".to_owned()];
    for (authid, method, secret) in [
        ("7-42", "wampcra", SECRET),
        ("7-42", "wampcra", "open sesame"),
        ("stranger", "wampcra", SECRET),
        ("ticket", "ticket", TICKET),
        ("ticket", "ticket", "open sesame"),
        ("7-42", "cryptosign", KEY),
    ] {
        secrets.push(knock(&running, authid, method, secret).await.1);
    }
    running.holds(0).await;
    recorder.says(&[
        "session joined",
        "authid=\"7-42\"",
        "authrole=\"device\"",
        "realm=\"realm1\"",
        "peer=\"127.0.0.1",
    ]);
    recorder.says(&["session left", "authid=\"7-42\"", "reason=\"lost\""]);
    recorder.says(&["peer refused", "reason=\"credentials\"", "peer=\"127.0.0.1"]);
    let lines = recorder.lines();
    for secret in &secrets {
        assert!(
            !lines.iter().any(|line| line.contains(secret.as_str())),
            "{secret}: {lines:#?}"
        );
    }
}

#[tokio::test]
async fn the_way_a_session_ended_is_logged() {
    let recorder = Recorder::default();
    let _guard = tracing::subscriber::set_default(recorder.clone());
    let running = start(Limits {
        send_queue_bytes: 64 << 10,
        ..Limits::default()
    })
    .await;
    let (mut admin, _) = running.joined_as(Codec::Json, Some("as-backend-admin")).await;
    let (mut polite, _) = running.joined_as(Codec::Json, Some("as-device-polite")).await;
    polite.ask(json!([6, {}, "wamp.close.close_realm"])).await;
    recorder.says(&["session left", "as-device-polite", "reason=\"goodbye\""]);

    let (mut rude, _) = running.joined_as(Codec::Json, Some("as-device-rude")).await;
    rude.send(json!([2, 1, {}])).await;
    rude.violated().await;
    recorder.says(&["broke the protocol", "as-device-rude"]);

    let (mut victim, session) = running.joined_as(Codec::Json, Some("as-device-victim")).await;
    admin
        .ask(json!([48, 1, {}, "wamp.session.kill", [session], {"reason": "my.reason"}]))
        .await;
    victim.next().await;
    recorder.says(&["session killed", "my.reason", &format!("session={session}")]);
    recorder.says(&["session dismissed", "as-device-victim", "reason=\"my.reason\""]);

    let (mut limited, _) = running.joined_as(Codec::Json, Some("as-limited-x")).await;
    limited.ask(json!([48, 1, {}, "other.procedure"])).await;
    recorder.says(&[
        "not authorized",
        "as-limited-x",
        "action=\"call\"",
        "other.procedure",
    ]);

    let (mut deaf, _) = running.joined_as(Codec::Json, Some("as-device-deaf")).await;
    admin.ask(json!([64, 2, {}, "re.bulky"])).await;
    for request in 1..=1000 {
        if deaf.try_send(json!([48, request, {}, "re.bulky"])).await.is_err() {
            break;
        }
    }
    let bulk = "x".repeat(64 << 10);
    let answering = async {
        while !recorder.has(&["does not read", "as-device-deaf", "reason=\"overflow\""]) {
            let message = admin.next().await;
            if message[0] == 68 {
                admin.send(json!([70, message[1], {}, [bulk]])).await;
            }
        }
    };
    soon("the overflow", answering).await;
}

#[tokio::test]
async fn why_there_was_no_handshake_is_logged() {
    use tokio::io::AsyncWriteExt as _;
    let recorder = Recorder::default();
    let _guard = tracing::subscriber::set_default(recorder.clone());
    let running = start(Limits {
        goodbye_timeout: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    for (hello, reason) in [
        (&[0x7F, 0xF1, 0, 1][..], "reserved octets"),
        (b"GET / HTTP/1.1\r\n\r\n", "header"),
    ] {
        let mut stranger = TcpStream::connect(running.address).await.unwrap();
        stranger.write_all(hello).await.unwrap();
        until(reason, || recorder.has(&["connection refused", reason])).await;
    }
}
