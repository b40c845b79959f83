//! What the client does with any router that speaks WAMP: one function per promise, all against one URL.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use wamp::auth::Salting;
use wamp::client::{
    CallOptions, CallPart, CallResult, ClientConfig, CloseReason, ConnectError, Credentials, Handler,
    RegisterOptions, RequestError, Session, WampError, handler,
};
use wamp::router::{Attachment, Router};
use wamp::value::Dict;
use wamp::{Codec, Payload, Value, uri};

pub(crate) const REALM: &str = "realm1";
pub(crate) const DEVICE: &str = "7-42";
pub(crate) const SALTED: &str = "7-43";
pub(crate) const BACKEND: &str = "system";

/// Whom the router must know.
pub(crate) struct Principal {
    pub(crate) authid: &'static str,
    pub(crate) secret: &'static str,
    pub(crate) role: &'static str,
    pub(crate) salting: Option<Salting>,
}

pub(crate) fn users() -> [Principal; 3] {
    let user = |authid, secret, role| Principal {
        authid,
        secret,
        role,
        salting: None,
    };
    let salting = Salting {
        salt: "salt123".to_owned(),
        iterations: 1000,
        keylen: 32,
    };
    [
        user(DEVICE, "device secret", "device"),
        Principal {
            salting: Some(salting),
            ..user(SALTED, "plain password", "device")
        },
        user(BACKEND, "backend secret", "backend"),
    ]
}

pub(crate) fn config(url: &str, codec: Codec, authid: &str) -> ClientConfig {
    let user = users().into_iter().find(|user| user.authid == authid).unwrap();
    ClientConfig {
        credentials: Credentials::Cra {
            authid: authid.to_owned(),
            secret: user.secret.to_owned(),
        },
        codecs: vec![codec],
        ..ClientConfig::new(url, REALM)
    }
}

/// How sessions come about.
pub(crate) enum Way<'a> {
    Network {
        url: &'a str,
        codec: Codec,
    },
    /// Attached to a router in this process.
    Inside(&'a Router),
}

impl Way<'_> {
    pub(crate) async fn join(&self, authid: &str) -> Session {
        match self {
            Way::Network { url, codec } => Session::connect(&config(url, *codec, authid)).await.unwrap(),
            Way::Inside(router) => {
                let user = users().into_iter().find(|user| user.authid == authid).unwrap();
                let attachment = Attachment {
                    realm: REALM.to_owned(),
                    authid: authid.to_owned(),
                    role: user.role.to_owned(),
                };
                router.attach(attachment).unwrap()
            }
        }
    }

    fn codec(&self) -> Option<Codec> {
        match self {
            Way::Network { codec, .. } => Some(*codec),
            Way::Inside(_) => None,
        }
    }
}

/// Two sessions of one case.
struct Pair {
    device: Session,
    backend: Session,
}

impl Pair {
    async fn join(way: &Way<'_>) -> Pair {
        Pair {
            device: way.join(DEVICE).await,
            backend: way.join(BACKEND).await,
        }
    }

    async fn serve(&self, procedure: &str, handler: Handler) -> wamp::client::Registration {
        self.device
            .register(procedure, RegisterOptions::default(), handler)
            .await
            .unwrap()
    }

    async fn call(&self, procedure: &str, payload: Payload) -> Result<CallResult, RequestError> {
        self.backend
            .call(procedure, payload, CallOptions::timeout(Duration::from_secs(20)))
            .await
    }
}

/// Bound for what must happen by itself.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: did not happen"),
    }
}

fn text(text: &str) -> Payload {
    Payload::from_args(vec![Value::from(text)])
}

fn peer_uri<T: std::fmt::Debug>(result: Result<T, RequestError>) -> String {
    match result {
        Err(RequestError::Peer(error)) => error.uri,
        other => panic!("{other:?}"),
    }
}

/// Who gets in, and what a refusal looks like.
pub(crate) async fn admission(url: &str) {
    for authid in [DEVICE, SALTED] {
        let session = Session::connect(&config(url, Codec::Json, authid)).await.unwrap();
        let welcome = session.welcome();
        assert_eq!(welcome.get("authid").and_then(Value::as_str), Some(authid));
        assert_eq!(welcome.get("authrole").and_then(Value::as_str), Some("device"));
        assert!(session.id() > 0);
        session.leave().await;
        assert_eq!(session.closed().await, CloseReason::Left);
    }
    let credentials = |authid: &str, secret: &str| Credentials::Cra {
        authid: authid.to_owned(),
        secret: secret.to_owned(),
    };
    for credentials in [
        credentials(DEVICE, "wrong"),
        credentials(SALTED, "wrong"),
        credentials("nobody", "x"),
    ] {
        let refused = Session::connect(&ClientConfig {
            credentials,
            ..ClientConfig::new(url, REALM)
        })
        .await
        .unwrap_err();
        assert!(refused.is_credential_failure(), "{refused:?}");
        assert!(!refused.to_string().contains("wrong"), "{refused}");
    }
    let elsewhere = ClientConfig {
        realm: "no.such.realm".to_owned(),
        ..config(url, Codec::Json, DEVICE)
    };
    let refused = Session::connect(&elsewhere).await.unwrap_err();
    assert!(
        matches!(&refused, ConnectError::Aborted { reason, .. } if reason == uri::error::NO_SUCH_REALM),
        "{refused:?}"
    );
    assert!(!refused.is_credential_failure());
}

/// Every promise, one after the other.
pub(crate) async fn all(url: &str, codec: Codec) {
    all_by(&Way::Network { url, codec }).await;
}

/// The same by any way.
pub(crate) async fn all_by(way: &Way<'_>) {
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {$(
            let start = Instant::now();
            let pair = Pair::join(way).await;
            assert_eq!(pair.device.codec(), way.codec());
            $case(&pair).await;
            pair.device.leave().await;
            pair.backend.leave().await;
            println!("{} over {:?}: {:?}", stringify!($case), way.codec(), start.elapsed());
        )*};
    }
    cases!(
        c_24_calls_carry_every_kind_of_value_and_the_callers_identity,
        c_14_failures_of_a_handler_reach_the_caller_and_spare_the_others,
        c_09_partial_results_arrive_in_order_before_the_final_one,
        a_timeout_cancels_the_handler_and_the_session_goes_on,
        dropping_a_call_cancels_the_handler,
        a_taken_procedure_is_refused_unless_forced,
        an_unregistered_procedure_is_gone,
        events_arrive_in_order_until_unsubscribed,
        a_testament_is_published_when_the_connection_is_lost,
        large_messages_travel_both_ways,
        many_calls_at_once_are_all_answered,
        c_22_rules_06_07_invalid_requests_are_refused_locally,
    );
    leaving_and_being_killed(way).await;
}

async fn c_24_calls_carry_every_kind_of_value_and_the_callers_identity(pair: &Pair) {
    let (seen, mut saw) = mpsc::channel(1);
    let echo = handler(move |invocation| {
        let seen = seen.clone();
        async move {
            seen.send(invocation.caller_authid()).await.unwrap();
            Ok(invocation.payload.clone())
        }
    });
    pair.serve("re.mgmt.suite.echo", echo).await;
    let args = vec![
        Value::Null,
        Value::Bool(true),
        Value::Uint((1 << 53) + 1),
        Value::Int(-5),
        Value::Float(0.1),
        Value::Float(12.0),
        Value::from("grüße \u{1f980} \" \\ \n"),
        Value::Bytes(vec![0, 1, 255]),
        Value::List(vec![Value::List(Vec::new()), Value::Dict(Dict::new())]),
    ];
    let kwargs = Dict::from([(
        "nested".to_owned(),
        Value::Dict(Dict::from([("k".to_owned(), Value::Uint(1))])),
    )]);
    let payload = Payload::from_parts(args.clone(), kwargs.clone());
    let result = pair.call("re.mgmt.suite.echo", payload).await.unwrap();
    assert_eq!(result.payload.args().unwrap(), args);
    assert_eq!(result.payload.kwargs().unwrap(), kwargs);
    assert_eq!(saw.recv().await.unwrap().as_deref(), Some(BACKEND));
    // Keyword arguments without positional ones, and nothing at all.
    let only = Payload::from_kwargs(kwargs.clone());
    let result = pair.call("re.mgmt.suite.echo", only).await.unwrap();
    assert_eq!(result.payload.kwargs().unwrap(), kwargs);
    saw.recv().await.unwrap();
    let result = pair.call("re.mgmt.suite.echo", Payload::Empty).await.unwrap();
    assert_eq!(result.payload.args().unwrap(), Vec::new());
}

async fn c_14_failures_of_a_handler_reach_the_caller_and_spare_the_others(pair: &Pair) {
    let failing = handler(|invocation| async move {
        let how = invocation.payload.first::<String>().unwrap().unwrap();
        match how.as_str() {
            "panic" => panic!("on purpose"),
            "uri" => Err(WampError::new("not a uri..", "text")),
            _ => Err(WampError {
                uri: "re.error.own".to_owned(),
                payload: Payload::from_parts(
                    vec![Value::from("why")],
                    Dict::from([("code".to_owned(), Value::Uint(7))]),
                ),
            }),
        }
    });
    pair.serve("re.mgmt.suite.fail", failing).await;
    match pair.call("re.mgmt.suite.fail", text("own")).await {
        Err(RequestError::Peer(error)) => {
            assert_eq!(error.uri, "re.error.own");
            assert_eq!(error.payload.args().unwrap(), [Value::from("why")]);
            assert_eq!(error.payload.kwargs().unwrap()["code"], Value::Uint(7));
            assert_eq!(error.to_string(), "re.error.own: why");
        }
        other => panic!("{other:?}"),
    }
    let failure = pair.call("re.mgmt.suite.fail", text("uri")).await;
    assert_eq!(peer_uri(failure), uri::error::RUNTIME_ERROR);
    let failure = pair.call("re.mgmt.suite.fail", text("panic")).await;
    assert_eq!(peer_uri(failure), uri::error::RUNTIME_ERROR);
    let failure = pair.call("re.mgmt.suite.nobody", Payload::Empty).await;
    assert_eq!(peer_uri(failure), uri::error::NO_SUCH_PROCEDURE);
    assert!(pair.device.is_open() && pair.backend.is_open());
}

async fn c_09_partial_results_arrive_in_order_before_the_final_one(pair: &Pair) {
    let counting = handler(|invocation| async move {
        let mut sent = 0;
        for number in 0..100_u64 {
            if invocation
                .progress(Payload::from_args(vec![Value::Uint(number)]))
                .await
            {
                sent += 1;
            }
        }
        Ok(Payload::from_args(vec![Value::Uint(sent)]))
    });
    pair.serve("re.mgmt.suite.count", counting).await;
    let stream = pair
        .backend
        .call_stream("re.mgmt.suite.count", Payload::Empty, CallOptions::default());
    let parts: Vec<_> = soon("progress", stream.collect()).await;
    let mut numbers = Vec::new();
    let mut last = None;
    for part in parts {
        assert!(last.is_none(), "nothing follows the final result");
        match part.unwrap() {
            CallPart::Partial(result) => numbers.push(result.payload.first::<u64>().unwrap().unwrap()),
            CallPart::Final(result) => last = result.payload.first::<u64>().unwrap(),
        }
    }
    assert_eq!(last, Some(100));
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    // Without the wish nothing partial is sent.
    let result = pair.call("re.mgmt.suite.count", Payload::Empty).await.unwrap();
    assert_eq!(result.payload.first::<u64>().unwrap(), Some(0));
}

/// A handler that ends only when it is cancelled, and tells so.
async fn serve_until_cancelled(pair: &Pair, procedure: &str) -> (mpsc::Receiver<()>, mpsc::Receiver<()>) {
    let (started, start) = mpsc::channel(1);
    let (cancelled, cancel) = mpsc::channel(1);
    let waiting = handler(move |invocation| {
        let (started, cancelled) = (started.clone(), cancelled.clone());
        async move {
            started.send(()).await.unwrap();
            invocation.cancelled.cancelled().await;
            cancelled.send(()).await.unwrap();
            Ok(Payload::Empty)
        }
    });
    pair.serve(procedure, waiting).await;
    (start, cancel)
}

async fn a_timeout_cancels_the_handler_and_the_session_goes_on(pair: &Pair) {
    let (_start, mut cancel) = serve_until_cancelled(pair, "re.mgmt.suite.wait").await;
    let bound = Duration::from_millis(300);
    let begin = Instant::now();
    let result = pair
        .backend
        .call("re.mgmt.suite.wait", Payload::Empty, CallOptions::timeout(bound))
        .await;
    assert!(
        matches!(result, Err(RequestError::Timeout(after)) if after == bound),
        "{result:?}"
    );
    assert!(begin.elapsed() < Duration::from_secs(5));
    soon("INTERRUPT", cancel.recv()).await.unwrap();
    still_works(pair).await;
}

async fn dropping_a_call_cancels_the_handler(pair: &Pair) {
    let (mut start, mut cancel) = serve_until_cancelled(pair, "re.mgmt.suite.wait").await;
    let session = pair.backend.clone();
    let call = tokio::spawn(async move {
        session
            .call("re.mgmt.suite.wait", Payload::Empty, CallOptions::default())
            .await
    });
    soon("INVOCATION", start.recv()).await.unwrap();
    call.abort();
    soon("INTERRUPT", cancel.recv()).await.unwrap();
    still_works(pair).await;
}

/// Stale answers have not disturbed the session.
async fn still_works(pair: &Pair) {
    let echo = handler(|invocation| async move { Ok(invocation.payload) });
    let registration = pair.serve("re.mgmt.suite.still", echo).await;
    let result = pair.call("re.mgmt.suite.still", text("here")).await.unwrap();
    assert_eq!(result.payload.args().unwrap(), [Value::from("here")]);
    pair.device.unregister(registration.id).await.unwrap();
}

async fn a_taken_procedure_is_refused_unless_forced(pair: &Pair) {
    let answering = |answer: &'static str| handler(move |_| async move { Ok(text(answer)) });
    let old = pair.serve("re.mgmt.suite.taken", answering("old")).await;
    let procedure = "re.mgmt.suite.taken";
    let refused = pair
        .backend
        .register(procedure, RegisterOptions::default(), answering("new"))
        .await;
    assert_eq!(peer_uri(refused), uri::error::PROCEDURE_ALREADY_EXISTS);
    assert!(!old.revoked.is_cancelled());
    let force = RegisterOptions {
        force_reregister: true,
        ..RegisterOptions::default()
    };
    let new = pair
        .backend
        .register(procedure, force, answering("new"))
        .await
        .unwrap();
    assert_ne!(new.id, old.id);
    soon("revocation", old.revoked.cancelled()).await;
    let result = pair.call(procedure, Payload::Empty).await.unwrap();
    assert_eq!(result.payload.args().unwrap(), [Value::from("new")]);
    assert!(!new.revoked.is_cancelled());
}

async fn an_unregistered_procedure_is_gone(pair: &Pair) {
    let nothing = handler(|_| async { Ok(Payload::Empty) });
    let registration = pair.serve("re.mgmt.suite.gone", nothing).await;
    pair.call("re.mgmt.suite.gone", Payload::Empty).await.unwrap();
    pair.device.unregister(registration.id).await.unwrap();
    let failure = pair.call("re.mgmt.suite.gone", Payload::Empty).await;
    assert_eq!(peer_uri(failure), uri::error::NO_SUCH_PROCEDURE);
    let again = pair.device.unregister(registration.id).await;
    assert_eq!(peer_uri(again), uri::error::NO_SUCH_REGISTRATION);
}

async fn events_arrive_in_order_until_unsubscribed(pair: &Pair) {
    let topic = "re.mgmt.suite.topic";
    let mut subscription = pair.backend.subscribe(topic, Dict::new()).await.unwrap();
    let mut second = pair.backend.subscribe(topic, Dict::new()).await.unwrap();
    assert_eq!(second.id, subscription.id);
    let own = pair.device.subscribe(topic, Dict::new()).await.unwrap();
    for number in 0..50_u64 {
        let payload = Payload::from_args(vec![Value::Uint(number)]);
        pair.device.publish(topic, Dict::new(), payload).await.unwrap();
    }
    let last = Payload::from_kwargs(Dict::from([("last".to_owned(), Value::Bool(true))]));
    let publication = pair
        .device
        .publish_acknowledged(topic, Dict::new(), last)
        .await
        .unwrap();
    for events in [&mut subscription.events, &mut second.events] {
        for number in 0..50_u64 {
            let event = soon("EVENT", events.recv()).await.unwrap();
            assert_eq!(event.payload.first::<u64>().unwrap(), Some(number));
            assert_eq!(event.missed, 0);
        }
        let event = soon("EVENT", events.recv()).await.unwrap();
        assert_eq!(event.publication, publication);
        assert_eq!(event.payload.kwargs().unwrap()["last"], Value::Bool(true));
    }
    pair.backend.unsubscribe(subscription.id).await.unwrap();
    assert!(soon("end", subscription.events.recv()).await.is_none());
    let again = pair.backend.unsubscribe(subscription.id).await;
    assert_eq!(peer_uri(again), uri::error::NO_SUCH_SUBSCRIPTION);
    // The publisher is not told what it has said itself.
    let mut own = own.events;
    assert!(own.try_recv().is_err());
}

async fn a_testament_is_published_when_the_connection_is_lost(pair: &Pair) {
    let topic = "reswarm.api.testament_device";
    let mut subscription = pair.backend.subscribe(topic, Dict::new()).await.unwrap();
    let event = Dict::from([("device_key".to_owned(), Value::Uint(42))]);
    let args = vec![
        Value::from(topic),
        Value::List(vec![Value::Dict(event.clone())]),
        Value::Dict(Dict::new()),
    ];
    let bound = CallOptions::timeout(Duration::from_secs(10));
    pair.device
        .call("wamp.session.add_testament", Payload::from_args(args), bound)
        .await
        .unwrap();
    pair.device.abort();
    assert!(matches!(pair.device.closed().await, CloseReason::Lost(_)));
    let testament = soon("testament", subscription.events.recv()).await.unwrap();
    assert_eq!(testament.payload.args().unwrap(), [Value::Dict(event)]);
}

async fn large_messages_travel_both_ways(pair: &Pair) {
    let echo = handler(|invocation| async move { Ok(invocation.payload) });
    pair.serve("re.mgmt.suite.large", echo).await;
    let large = text(&"0123456789abcdef".repeat(256 << 10));
    let result = pair.call("re.mgmt.suite.large", large.clone()).await.unwrap();
    assert_eq!(result.payload.args().unwrap(), large.args().unwrap());
}

async fn many_calls_at_once_are_all_answered(pair: &Pair) {
    let echo = handler(|invocation| async move { Ok(invocation.payload) });
    pair.serve("re.mgmt.suite.many", echo).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200_u64 {
        let session = pair.backend.clone();
        calls.spawn(async move {
            let payload = Payload::from_args(vec![Value::Uint(number)]);
            let bound = CallOptions::timeout(Duration::from_secs(30));
            let result = session.call("re.mgmt.suite.many", payload, bound).await.unwrap();
            assert_eq!(result.payload.first::<u64>().unwrap(), Some(number));
        });
    }
    let answered = calls.join_all().await.len();
    assert_eq!(answered, 200);
}

async fn c_22_rules_06_07_invalid_requests_are_refused_locally(pair: &Pair) {
    let nothing = || handler(|_| async { Ok(Payload::Empty) });
    for invalid in ["", "a..b", "a b", "a.#", ".a", "a."] {
        let refused = pair.call(invalid, Payload::Empty).await;
        assert!(
            matches!(refused, Err(RequestError::InvalidUri(_))),
            "{invalid:?}: {refused:?}"
        );
        let refused = pair.device.publish(invalid, Dict::new(), Payload::Empty).await;
        assert!(matches!(refused, Err(RequestError::InvalidUri(_))));
        let refused = pair.device.subscribe(invalid, Dict::new()).await.map(drop);
        assert!(matches!(refused, Err(RequestError::InvalidUri(_))));
        let refused = pair
            .device
            .register(invalid, RegisterOptions::default(), nothing())
            .await
            .map(drop);
        assert!(matches!(refused, Err(RequestError::InvalidUri(_))));
    }
    // Between sessions of one process nothing is too large.
    if pair.device.codec().is_none() {
        return still_works(pair).await;
    }
    let too_large = text(&"x".repeat(16 << 20));
    let refused = pair.call("re.mgmt.suite.any", too_large).await;
    assert!(
        matches!(refused, Err(RequestError::TooLarge(_))),
        "{:?}",
        refused.map(drop)
    );
    still_works(pair).await;
}

async fn leaving_and_being_killed(way: &Way<'_>) {
    let Pair { device, backend } = Pair::join(way).await;
    let nothing = handler(|_| async { Ok(Payload::Empty) });
    let registration = device
        .register("re.mgmt.suite.leaving", RegisterOptions::default(), nothing)
        .await
        .unwrap();
    let kill = Payload::from_args(vec![Value::Uint(device.id())]);
    let bound = CallOptions::timeout(Duration::from_secs(10));
    backend.call("wamp.session.kill", kill, bound).await.unwrap();
    let reason = soon("GOODBYE", device.closed()).await;
    assert!(matches!(reason, CloseReason::Goodbye(_)), "{reason:?}");
    soon("end of the registration", registration.revoked.cancelled()).await;
    assert!(!device.is_open());
    let late = device
        .call("re.mgmt.suite.any", Payload::Empty, CallOptions::default())
        .await;
    assert!(matches!(late, Err(RequestError::ConnectionLost)));
    let begin = Instant::now();
    backend.leave().await;
    backend.leave().await;
    assert_eq!(backend.closed().await, CloseReason::Left);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}
