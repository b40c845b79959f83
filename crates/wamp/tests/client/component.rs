//! A component through everything that can happen to its sessions.

use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wamp::client::{
    Backoff, CallOptions, ClientConfig, CloseReason, Component, EVICTIONS, PublishOptions, RegisterOptions,
    Report, RequestError, Session, Taken, handler,
};
use wamp::{Dict, Payload, Value};

use crate::router;
use crate::scripted::{Peer, SOON, Script};
use crate::suite::{BACKEND, DEVICE, config};

/// Delays that a test can wait for.
const QUICK: Backoff = Backoff {
    first: Duration::from_millis(20),
    most: Duration::from_millis(100),
    refused: Duration::from_secs(3600),
};

/// A component at work. Dropping it ends it.
struct Running {
    reports: mpsc::UnboundedReceiver<Report>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn run(component: Component) -> Running {
    let (sender, reports) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let task = tokio::spawn(component.run(stop.clone(), move |report| drop(sender.send(report))));
    Running { reports, stop, task }
}

impl Running {
    async fn next(&mut self) -> Report {
        match tokio::time::timeout(SOON, self.reports.recv()).await {
            Ok(Some(report)) => report,
            Ok(None) => panic!("the component has ended"),
            Err(_) => panic!("the component says nothing"),
        }
    }

    async fn connected(&mut self) -> (Session, Vec<(String, RequestError)>) {
        match self.next().await {
            Report::Connected { session, refused } => (session, refused),
            other => panic!("{other:?}"),
        }
    }

    async fn stopped(mut self) {
        self.stop.cancel();
        loop {
            if matches!(self.next().await, Report::Stopped) {
                break;
            }
        }
    }
}

fn answering(text: &'static str) -> wamp::client::Handler {
    handler(move |_| async move { Ok(Payload::from_args(vec![text.into()])) })
}

async fn answer(session: &Session, procedure: &str) -> Result<Option<String>, RequestError> {
    let called = session.call(procedure, Payload::Empty, CallOptions::timeout(SOON));
    Ok(called.await?.payload.first().unwrap())
}

#[tokio::test]
async fn c_18_after_a_loss_everything_is_there_again_and_nothing_twice() {
    let url = router::start().await;
    let backend = Session::connect(&config(&url, wamp::Codec::Json, BACKEND))
        .await
        .unwrap();
    let mut last_words = backend
        .subscribe("re.mgmt.last.words", wamp::Dict::new())
        .await
        .unwrap();
    let (heard, mut events) = mpsc::unbounded_channel();
    let component = Component::new(config(&url, wamp::Codec::Cbor, DEVICE))
        .backoff(QUICK)
        .testament("re.mgmt.last.words", Payload::from_args(vec!["gone".into()]))
        .register(
            "re.mgmt.one",
            RegisterOptions::default(),
            Taken::Retry,
            answering("one"),
        )
        .register(
            "re.mgmt.two",
            RegisterOptions::default(),
            Taken::Force,
            answering("two"),
        )
        .subscribe("re.mgmt.news", wamp::Dict::new(), move |event| {
            let heard = heard.clone();
            async move {
                heard
                    .send(event.payload.first::<u64>().unwrap().unwrap())
                    .unwrap();
            }
        });
    let mut running = run(component);
    for round in 0..3_u64 {
        let (session, refused) = running.connected().await;
        assert!(refused.is_empty(), "{refused:?}");
        for name in ["one", "two"] {
            let found = answer(&backend, &format!("re.mgmt.{name}")).await.unwrap();
            assert_eq!(found.as_deref(), Some(name));
        }
        let news = Payload::from_args(vec![Value::Uint(round)]);
        backend
            .publish("re.mgmt.news", wamp::Dict::new(), news)
            .await
            .unwrap();
        assert_eq!(events.recv().await, Some(round));

        // A call on its way when the session is killed fails, and says so.
        session.abort();
        let pending = session
            .call("re.mgmt.one", Payload::Empty, CallOptions::default())
            .await;
        assert!(
            matches!(pending, Err(RequestError::ConnectionLost)),
            "{pending:?}"
        );
        assert!(matches!(
            running.next().await,
            Report::Lost {
                reason: CloseReason::Lost(_),
                ..
            }
        ));
        let event = last_words.events.recv().await.unwrap();
        assert_eq!(event.payload.first::<String>().unwrap().as_deref(), Some("gone"));
    }
    assert!(events.try_recv().is_err(), "one event each");
    running.connected().await;
    running.stopped().await;
    assert!(
        answer(&backend, "re.mgmt.one").await.is_err(),
        "gone with the component"
    );
}

/// Answers requests of a component as a router does; the codes and URIs of what it asked for, in order.
async fn accept_all(peer: &mut Peer, requests: usize) -> Vec<(u64, String)> {
    let mut heard = Vec::new();
    for number in 0..requests as u64 {
        let message = peer.hear().await;
        let code = message[0].as_u64().unwrap();
        heard.push((code, message[3].as_str().unwrap().to_owned()));
        let reply = if code == 48 {
            json!([50, message[1], {}])
        } else {
            json!([code + 1, message[1], 100 + number])
        };
        peer.say(reply).await;
    }
    heard
}

#[tokio::test]
async fn c_18_rule_25_testament_registrations_subscriptions_and_then_the_word() {
    let (script, config) = Script::new().await;
    let component = Component::new(config)
        .backoff(QUICK)
        .subscribe("a.topic", wamp::Dict::new(), |_| async {})
        .register(
            "a.one",
            RegisterOptions::default(),
            Taken::Retry,
            answering("one"),
        )
        .register(
            "a.two",
            RegisterOptions::default(),
            Taken::Retry,
            answering("two"),
        )
        .testament("a.testament", Payload::Empty);
    let mut running = run(component);
    for _ in 0..2 {
        let mut peer = script.welcome().await;
        let mut heard = accept_all(&mut peer, 3).await;
        assert!(
            running.reports.try_recv().is_err(),
            "not before everything is there"
        );
        heard.extend(accept_all(&mut peer, 1).await);
        let order: Vec<_> = heard.iter().map(|(code, uri)| (*code, uri.as_str())).collect();
        assert_eq!(
            order,
            [
                (48, "wamp.session.add_testament"),
                (64, "a.one"),
                (64, "a.two"),
                (32, "a.topic")
            ]
        );
        running.connected().await;
        // Request ids began at 1 again: the last one was the fourth.
        peer.say(json!([3, {}, "wamp.error.authentication_failed"])).await;
        match running.next().await {
            Report::Lost { reason, .. } => {
                assert_eq!(
                    reason,
                    CloseReason::Aborted("wamp.error.authentication_failed".to_owned())
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn c_19_a_taken_procedure_is_retried_forced_or_left_as_the_policy_says() {
    let url = router::start().await;
    let holder = Session::connect(&config(&url, wamp::Codec::Json, BACKEND))
        .await
        .unwrap();
    let mut held = Vec::new();
    for name in ["retry", "force", "leave"] {
        let uri = format!("re.mgmt.{name}");
        held.push(
            holder
                .register(&uri, RegisterOptions::default(), answering("theirs"))
                .await
                .unwrap(),
        );
    }
    let register = |component: Component, name: &str, taken| {
        component.register(
            format!("re.mgmt.{name}"),
            RegisterOptions::default(),
            taken,
            answering("ours"),
        )
    };
    let component = Component::new(config(&url, wamp::Codec::Json, DEVICE)).backoff(QUICK);
    let component = register(component, "retry", Taken::Retry);
    let component = register(component, "force", Taken::Force);
    let component = register(component, "leave", Taken::GiveUp);
    let mut running = run(component);
    let (_, refused) = running.connected().await;
    let refused: Vec<_> = refused.iter().map(|(uri, _)| uri.as_str()).collect();
    assert_eq!(refused, ["re.mgmt.retry", "re.mgmt.leave"]);
    tokio::time::timeout(SOON, held[1].revoked.cancelled())
        .await
        .unwrap();

    // As long as they have it, it is asked for again and again, never in a tight loop.
    for _ in 0..3 {
        match running.next().await {
            Report::Unregistered { procedure, retry_in } => {
                assert_eq!(procedure, "re.mgmt.retry");
                assert!(retry_in.unwrap() >= QUICK.first / 4, "{retry_in:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    holder.unregister(held[0].id).await.unwrap();
    loop {
        match running.next().await {
            Report::Registered { procedure } => break assert_eq!(procedure, "re.mgmt.retry"),
            Report::Unregistered { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    for (name, expected) in [("retry", "ours"), ("force", "ours"), ("leave", "theirs")] {
        let found = answer(&holder, &format!("re.mgmt.{name}")).await.unwrap();
        assert_eq!(found.as_deref(), Some(expected), "{name}");
    }
    running.stopped().await;
}

#[tokio::test]
async fn c_20_rule_11_two_twins_do_not_evict_each_other_for_ever() {
    let url = router::start().await;
    let component = Component::new(config(&url, wamp::Codec::Json, DEVICE))
        .backoff(QUICK)
        .register(
            "re.mgmt.twin",
            RegisterOptions::default(),
            Taken::Force,
            answering("ours"),
        );
    let mut running = run(component);
    running.connected().await;
    let twin = Session::connect(&config(&url, wamp::Codec::Json, DEVICE))
        .await
        .unwrap();
    let force = RegisterOptions {
        force_reregister: true,
        ..RegisterOptions::default()
    };
    for eviction in 1..=EVICTIONS + 1 {
        let taken = twin
            .register("re.mgmt.twin", force.clone(), answering("theirs"))
            .await
            .unwrap();
        match running.next().await {
            Report::Unregistered { retry_in, .. } if eviction > EVICTIONS => assert_eq!(retry_in, None),
            Report::Unregistered { retry_in, .. } => {
                assert!(retry_in.is_some());
                assert!(matches!(running.next().await, Report::Registered { .. }));
                tokio::time::timeout(SOON, taken.revoked.cancelled())
                    .await
                    .unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        answer(&twin, "re.mgmt.twin").await.unwrap().as_deref(),
        Some("theirs")
    );
    running.stopped().await;
}

#[tokio::test]
async fn c_05_rule_20_a_refused_component_waits_longer_than_one_that_finds_nobody() {
    let url = router::start().await;
    let mut wrong = config(&url, wamp::Codec::Json, DEVICE);
    wrong.credentials = wamp::client::Credentials::Cra {
        authid: DEVICE.to_owned(),
        secret: "not the secret".to_owned(),
    };
    let mut running = run(Component::new(wrong).backoff(QUICK));
    match running.next().await {
        Report::Unreachable { error, retry_in } => {
            assert!(error.is_credential_failure());
            assert!(retry_in >= QUICK.refused);
        }
        other => panic!("{other:?}"),
    }
    // Stopping does not wait for the delay.
    running.stopped().await;

    let nobody = ClientConfig::new(format!("ws://127.0.0.1:{}", testkit::wait::free_port()), "realm1");
    let mut running = run(Component::new(nobody).backoff(QUICK));
    for _ in 0..3 {
        match running.next().await {
            Report::Unreachable { retry_in, .. } => {
                assert!(
                    retry_in >= QUICK.first / 2 && retry_in <= QUICK.most,
                    "{retry_in:?}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    running.stopped().await;
}

#[tokio::test]
async fn c_21_a_router_that_answers_nothing_leaves_a_component_with_what_it_can_say() {
    let (script, mut config) = Script::new().await;
    config.reply_timeout = Duration::from_secs(1);
    let component = Component::new(config).backoff(QUICK).register(
        "a.one",
        RegisterOptions::default(),
        Taken::Retry,
        answering("one"),
    );
    let mut running = run(component);
    let mut peer = script.welcome().await;
    assert_eq!(peer.hear().await[0], 64);
    let (_, refused) = running.connected().await;
    assert!(
        matches!(&refused[..], [(uri, RequestError::Timeout(_))] if uri == "a.one"),
        "{refused:?}"
    );
    // It is asked for again, and now there is an answer.
    let again = peer.hear().await;
    assert_eq!((&again[0], &again[3]), (&json!(64), &json!("a.one")));
    peer.say(json!([65, again[1], 9])).await;
    match running.next().await {
        Report::Registered { procedure } => assert_eq!(procedure, "a.one"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn c_14_an_event_handler_that_panics_gets_the_next_event_all_the_same() {
    let url = router::start().await;
    let (heard, mut events) = mpsc::unbounded_channel();
    let component = Component::new(config(&url, wamp::Codec::Json, DEVICE))
        .backoff(QUICK)
        .subscribe("re.mgmt.news", wamp::Dict::new(), move |event| {
            let number = event.payload.first::<u64>().unwrap().unwrap();
            // Before there is a future, and inside it.
            assert_ne!(number, 0, "on purpose");
            let heard = heard.clone();
            async move {
                assert_ne!(number, 1, "on purpose");
                heard.send(number).unwrap();
            }
        });
    let mut running = run(component);
    let (session, _) = running.connected().await;
    let backend = Session::connect(&config(&url, wamp::Codec::Json, BACKEND))
        .await
        .unwrap();
    for number in 0..3_u64 {
        let payload = Payload::from_args(vec![number.into()]);
        backend
            .publish("re.mgmt.news", wamp::Dict::new(), payload)
            .await
            .unwrap();
    }
    let next = tokio::time::timeout(SOON, events.recv()).await.unwrap();
    assert_eq!(next, Some(2));
    assert!(session.is_open());
    running.stopped().await;
}

#[tokio::test]
async fn stopping_on_purpose_takes_the_testament_back() {
    let url = router::start().await;
    let backend = Session::connect(&config(&url, wamp::Codec::Json, BACKEND))
        .await
        .unwrap();
    let topic = "re.mgmt.component.gone";
    let mut gone = backend.subscribe(topic, Dict::new()).await.unwrap();
    let component = Component::new(config(&url, wamp::Codec::Json, DEVICE))
        .backoff(QUICK)
        .testament(topic, Payload::from_args(vec!["gone".into()]));
    let mut running = run(component);
    let (session, refused) = running.connected().await;
    assert!(refused.is_empty(), "{refused:?}");
    // Lost, the session has something to tell.
    session.abort();
    let event = tokio::time::timeout(SOON, gone.events.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(event.payload.args().unwrap(), [Value::from("gone")]);
    while !matches!(running.next().await, Report::Connected { .. }) {}
    running.stopped().await;
    // The router has dealt with the GOODBYE by now: whatever it had to publish would come first.
    let own = PublishOptions {
        include_me: true,
        ..PublishOptions::default()
    };
    let marker = Payload::from_args(vec!["marker".into()]);
    backend.publish(topic, own, marker).await.unwrap();
    let event = tokio::time::timeout(SOON, gone.events.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(event.payload.args().unwrap(), [Value::from("marker")]);
}

#[tokio::test]
async fn c_12_a_topic_that_is_taken_away_is_told_and_back_with_the_next_session() {
    let (script, config) = Script::new().await;
    let component =
        Component::new(config)
            .backoff(QUICK)
            .subscribe("a.topic", wamp::Dict::new(), |_| async {});
    let mut running = run(component);
    let mut peer = script.welcome().await;
    accept_all(&mut peer, 1).await;
    running.connected().await;
    peer.say(json!([35, 0, {"subscription": 100, "reason": "because"}]))
        .await;
    match running.next().await {
        Report::Unsubscribed { topic } => assert_eq!(topic, "a.topic"),
        other => panic!("{other:?}"),
    }
    drop(peer);
    assert!(matches!(running.next().await, Report::Lost { .. }));
    let mut peer = script.welcome().await;
    let heard = accept_all(&mut peer, 1).await;
    assert_eq!(heard, [(32, "a.topic".to_owned())]);
    running.connected().await;
}
