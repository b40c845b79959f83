//! The session that comes back: against the scripted router, against ours, and against Crossbar.io.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tokio::sync::{mpsc, watch};
use wamp::client::reconnect::{
    Backoff, Feed, Item, MissingCause, Plan, ReconnectingSession, State, Status, WhenTaken,
};
use wamp::client::{
    CallOptions, ClientConfig, CloseReason, ConnectError, Handler, RegisterOptions, RequestError, Session,
    Testament, handler,
};
use wamp::{Dict, Payload, Value, uri};

use crate::scripted::{Peer, SHORT, SOON, Script, cra};
use crate::suite::{self, BACKEND, DEVICE};
use crate::{crossbar, router};

/// Pauses that a test can wait for.
fn quick() -> Backoff {
    Backoff {
        first: Duration::from_millis(20),
        cap: Duration::from_millis(100),
        refused: SHORT,
        stable: Duration::from_secs(60),
    }
}

fn plan(config: ClientConfig) -> Plan {
    Plan::new(config).backoff(quick())
}

fn nothing() -> Handler {
    handler(|_| async { Ok(Payload::Empty) })
}

/// Waits until the status is as wanted.
async fn until(session: &ReconnectingSession, what: &str, wanted: impl FnMut(&Status) -> bool) -> Status {
    let mut status: watch::Receiver<Status> = session.watch();
    match tokio::time::timeout(SOON, status.wait_for(wanted)).await {
        Ok(status) => status.unwrap().clone(),
        Err(_) => panic!("{what}: {:?}", session.status()),
    }
}

/// Hears a request, which is the message without its id, and answers it; gives the id.
async fn answer(peer: &mut Peer, request: Json, answer: Json) -> u64 {
    let mut heard = peer.hear().await;
    let id = heard.as_array_mut().unwrap().remove(1);
    assert_eq!(heard, request);
    let mut answer = answer;
    let place = if answer[0] == 8 { 2 } else { 1 };
    answer.as_array_mut().unwrap().insert(place, id.clone());
    peer.say(answer).await;
    id.as_u64().unwrap()
}

async fn published(peer: &mut Peer, topic: &str) {
    let heard = peer.hear().await;
    assert_eq!((&heard[0], &heard[3]), (&json!(16), &json!(topic)));
}

/// Says over the wire that everything else is there.
fn announcing(plan: Plan) -> Plan {
    plan.connected(|session: Session| async move {
        session
            .publish("re.here", Dict::new(), Payload::Empty)
            .await
            .unwrap();
    })
}

#[tokio::test]
async fn rule_25_c_18_everything_comes_back_in_order_with_fresh_ids_and_the_loss_is_reported() {
    let (script, config) = Script::new().await;
    let testament = Testament::new("re.gone", Payload::from_args(vec![Value::Uint(42)]));
    let mut plan = announcing(plan(config))
        .testament(testament)
        .register(
            "re.first",
            RegisterOptions::default(),
            WhenTaken::Retry,
            nothing(),
        )
        .register(
            "re.second",
            RegisterOptions::default(),
            WhenTaken::Retry,
            nothing(),
        );
    let mut news = plan.subscribe("re.news", Dict::new());
    let session = plan.start();
    for round in 1..=3_u64 {
        let mut peer = tokio::time::timeout(SOON, script.welcome()).await.unwrap();
        let will =
            json!([48, {}, "wamp.session.add_testament", ["re.gone", [42], {}, {}], {"scope": "destroyed"}]);
        let ids = [
            answer(&mut peer, will, json!([50, {}, [1]])).await,
            answer(&mut peer, json!([64, {}, "re.first"]), json!([65, 100 * round])).await,
            answer(
                &mut peer,
                json!([64, {}, "re.second"]),
                json!([65, 100 * round + 1]),
            )
            .await,
            answer(
                &mut peer,
                json!([32, {}, "re.news"]),
                json!([33, 100 * round + 2]),
            )
            .await,
        ];
        assert_eq!(ids, [1, 2, 3, 4]);
        published(&mut peer, "re.here").await;
        let status = until(&session, "connected", |status| status.session().is_some()).await;
        assert_eq!((status.sessions, status.missing.len()), (round, 0));

        // Both procedures are served, and events arrive, once.
        peer.say(json!([68, 1, 100 * round, {}])).await;
        assert_eq!(peer.hear().await, json!([70, 1, {}]));
        peer.say(json!([36, 100 * round + 2, 9, {}, [round]])).await;
        if round > 1 {
            let gap = tokio::time::timeout(SOON, news.recv()).await.unwrap();
            assert!(matches!(gap, Some(Feed::Gap)), "{gap:?}");
        }
        match tokio::time::timeout(SOON, news.recv()).await.unwrap() {
            Some(Feed::Event(event)) => assert_eq!(event.payload.parse::<u64>().unwrap(), round),
            other => panic!("{other:?}"),
        }
        assert!(news.try_recv().is_err());

        // A call that is pending when the connection breaks fails, and is counted.
        let current = session.session().await.unwrap();
        let (lost, ()) = tokio::join!(
            current.call("re.b", Payload::Empty, CallOptions::default()),
            async {
                assert_eq!(peer.hear().await[0], 48);
                drop(peer);
            }
        );
        assert!(matches!(lost, Err(RequestError::ConnectionLost)));
        let status = until(&session, "lost", |status| status.session().is_none()).await;
        let loss = status.last_loss.unwrap();
        assert_eq!(loss.failed_calls, 1);
        assert!(matches!(loss.reason, CloseReason::Lost(_)), "{loss:?}");
    }
    session.stop().await;
    assert!(news.recv().await.is_none());
}

#[tokio::test]
async fn c_16_a_silent_router_is_left_and_tried_again_with_growing_pauses() {
    let (script, mut config) = Script::new().await;
    config.ping_interval = Duration::from_millis(30);
    let session = plan(config).start();
    let begin = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..4 {
        // The peers neither read nor answer, and their TCP connections stand.
        silent.push(tokio::time::timeout(SOON, script.welcome()).await.unwrap());
    }
    // Three times three intervals, and pauses of 20, 40 and 80 ms less the jitter.
    assert!(
        begin.elapsed() >= Duration::from_millis(3 * 60 + 112),
        "{:?}",
        begin.elapsed()
    );
    let status = session.status();
    assert!(matches!(status.last_loss.unwrap().reason, CloseReason::Lost(what) if what.contains("ping")));
    session.stop().await;
}

#[tokio::test]
async fn rule_20_a_refusal_is_reported_and_retried_after_the_long_pause() {
    for (reason, credentials) in [
        ("wamp.error.not_authorized", true),
        ("wamp.error.no_such_realm", false),
        ("wamp.error.no_such_procedure", false),
    ] {
        let (script, mut config) = Script::new().await;
        config.credentials = cra("s");
        let session = plan(config).start();
        let mut peer = script.accept().await;
        peer.hear().await;
        let begin = Instant::now();
        peer.say(json!([3, {}, reason])).await;
        assert_eq!(peer.hear_close().await, 1000);
        drop(peer);
        let status = until(&session, "waiting", |status| {
            matches!(status.state, State::Waiting(_))
        })
        .await;
        let failure = status.last_failure.unwrap();
        assert_eq!(failure.is_credential_failure(), credentials);
        assert!(matches!(&*failure, ConnectError::Aborted { reason: said, .. } if said == reason));
        // The router has come to its senses.
        let _peer = tokio::time::timeout(SOON, script.welcome()).await.unwrap();
        assert!(begin.elapsed() >= SHORT.mul_f64(0.8), "{:?}", begin.elapsed());
        until(&session, "connected", |status| status.session().is_some()).await;
    }
}

#[tokio::test]
async fn c_19_a_taken_procedure_is_forced_retried_or_given_up_as_the_plan_says() {
    let taken = || json!([8, 64, {}, uri::error::PROCEDURE_ALREADY_EXISTS]);
    let (script, config) = Script::new().await;
    let session = announcing(plan(config))
        .register(
            "re.forced",
            RegisterOptions::default(),
            WhenTaken::Force,
            nothing(),
        )
        .start();
    let mut peer = script.welcome().await;
    answer(&mut peer, json!([64, {}, "re.forced"]), taken()).await;
    answer(
        &mut peer,
        json!([64, {"force_reregister": true}, "re.forced"]),
        json!([65, 1]),
    )
    .await;
    published(&mut peer, "re.here").await;
    until(&session, "connected", |status| {
        status.session().is_some() && status.missing.is_empty()
    })
    .await;

    let (script, config) = Script::new().await;
    let session = announcing(plan(config))
        .register(
            "re.retried",
            RegisterOptions::default(),
            WhenTaken::Retry,
            nothing(),
        )
        .start();
    let mut peer = script.welcome().await;
    answer(&mut peer, json!([64, {}, "re.retried"]), taken()).await;
    published(&mut peer, "re.here").await;
    let begin = Instant::now();
    for _ in 0..4 {
        answer(&mut peer, json!([64, {}, "re.retried"]), taken()).await;
    }
    // 20, 40, 80 and 100 ms less the jitter: no tight loop.
    assert!(
        begin.elapsed() >= Duration::from_millis(150),
        "{:?}",
        begin.elapsed()
    );
    let missing = session.status().missing.pop().unwrap();
    assert_eq!(missing.item, Item::Registration("re.retried".to_owned()));
    assert!(!missing.given_up);
    assert!(
        matches!(missing.cause, MissingCause::Refused(RequestError::Peer(error))
        if error.uri == uri::error::PROCEDURE_ALREADY_EXISTS)
    );
    answer(&mut peer, json!([64, {}, "re.retried"]), json!([65, 7])).await;
    until(&session, "registered", |status| status.missing.is_empty()).await;

    let (script, config) = Script::new().await;
    let session = announcing(plan(config))
        .register(
            "re.optional",
            RegisterOptions::default(),
            WhenTaken::GiveUp,
            nothing(),
        )
        .register(
            "re.forbidden",
            RegisterOptions::default(),
            WhenTaken::Force,
            nothing(),
        )
        .start();
    let mut peer = script.welcome().await;
    answer(&mut peer, json!([64, {}, "re.optional"]), taken()).await;
    answer(
        &mut peer,
        json!([64, {}, "re.forbidden"]),
        json!([8, 64, {}, uri::error::NOT_AUTHORIZED]),
    )
    .await;
    published(&mut peer, "re.here").await;
    let status = until(&session, "connected", |status| status.session().is_some()).await;
    assert!(status.missing.len() == 2 && status.missing.iter().all(|missing| missing.given_up));
    peer.is_silent_for(SHORT).await;
}

#[tokio::test]
async fn rule_11_c_20_a_twin_that_evicts_us_again_and_again_wins_in_the_end() {
    let (script, config) = Script::new().await;
    let session = announcing(plan(config))
        .register(
            "re.place",
            RegisterOptions::default(),
            WhenTaken::Force,
            nothing(),
        )
        .start();
    let mut peer = script.welcome().await;
    answer(&mut peer, json!([64, {}, "re.place"]), json!([65, 1])).await;
    published(&mut peer, "re.here").await;
    let begin = Instant::now();
    for round in 1..=5_u64 {
        peer.say(json!([67, 0, {"registration": round, "reason": uri::error::UNREGISTERED}]))
            .await;
        let status = until(&session, "evicted", |status| status.evictions == round).await;
        let missing = &status.missing[0];
        assert!(matches!(missing.cause, MissingCause::Revoked));
        assert_eq!(missing.given_up, round == 5);
        if round < 5 {
            let taken = json!([8, 64, {}, uri::error::PROCEDURE_ALREADY_EXISTS]);
            answer(&mut peer, json!([64, {}, "re.place"]), taken).await;
            let force = json!([64, {"force_reregister": true}, "re.place"]);
            answer(&mut peer, force, json!([65, round + 1])).await;
            until(&session, "back", |status| status.missing.is_empty()).await;
        }
    }
    assert!(
        begin.elapsed() >= Duration::from_millis(190),
        "{:?}",
        begin.elapsed()
    );
    peer.is_silent_for(SHORT).await;
    assert!(session.status().session().unwrap().is_open());
}

#[tokio::test]
async fn a_revoked_subscription_comes_back_with_a_gap_and_one_that_nobody_reads_ends() {
    let (script, config) = Script::new().await;
    let mut plan = announcing(plan(config));
    let mut news = plan.subscribe("re.news", Dict::new());
    let session = plan.start();
    let mut peer = script.welcome().await;
    answer(&mut peer, json!([32, {}, "re.news"]), json!([33, 5])).await;
    published(&mut peer, "re.here").await;
    peer.say(json!([35, 0, {"subscription": 5, "reason": uri::error::UNSUBSCRIBED}]))
        .await;
    answer(&mut peer, json!([32, {}, "re.news"]), json!([33, 6])).await;
    let gap = tokio::time::timeout(SOON, news.recv()).await.unwrap();
    assert!(matches!(gap, Some(Feed::Gap)), "{gap:?}");
    assert_eq!(session.status().evictions, 1);
    drop(news);
    let heard = peer.hear().await;
    assert_eq!((&heard[0], &heard[2]), (&json!(34), &json!(6)));
    peer.say(json!([35, heard[1]])).await;
    drop(peer);
    let mut peer = tokio::time::timeout(SOON, script.welcome()).await.unwrap();
    published(&mut peer, "re.here").await;
}

#[tokio::test]
async fn c_21_a_router_that_answers_nothing_does_not_keep_the_session_from_being_used() {
    let (script, mut config) = Script::new().await;
    config.reply_timeout = Duration::from_millis(50);
    let mut plan = announcing(plan(config))
        .testament(Testament::new("re.gone", Payload::Empty))
        .register(
            "re.place",
            RegisterOptions::default(),
            WhenTaken::Retry,
            nothing(),
        );
    let _news = plan.subscribe("re.news", Dict::new());
    let session = plan.start();
    let mut peer = script.welcome().await;
    let mut heard = Vec::new();
    while !heard.contains(&16) {
        heard.push(peer.hear().await[0].as_u64().unwrap());
    }
    assert_eq!(heard, [48, 49, 64, 32, 16], "CANCEL ends the call");
    let status = until(&session, "connected", |status| status.session().is_some()).await;
    let items: Vec<_> = status
        .missing
        .iter()
        .map(|missing| (&missing.item, missing.given_up))
        .collect();
    assert_eq!(
        items,
        [
            (&Item::Testament("re.gone".to_owned()), true),
            (&Item::Registration("re.place".to_owned()), false),
            (&Item::Subscription("re.news".to_owned()), false),
        ]
    );
}

#[tokio::test]
async fn stopping_flushes_the_testament_and_says_goodbye_and_dropping_does_it_in_the_background() {
    for dropped in [false, true] {
        let (script, config) = Script::new().await;
        let session = plan(config)
            .testament(Testament::new("re.gone", Payload::Empty))
            .start();
        let mut peer = script.welcome().await;
        assert_eq!(peer.hear().await[3], "wamp.session.add_testament");
        peer.say(json!([50, 1, {}, [1]])).await;
        let watch = session.watch();
        until(&session, "connected", |status| status.session().is_some()).await;
        let stopping = async {
            match dropped {
                true => drop(session),
                false => session.stop().await,
            }
        };
        let router = async {
            let flush = |scope| json!([48, {}, "wamp.session.flush_testaments", [], {"scope": scope}]);
            answer(&mut peer, flush("detached"), json!([50, {}, [0]])).await;
            answer(&mut peer, flush("destroyed"), json!([50, {}, [1]])).await;
            assert_eq!(peer.hear().await, json!([6, {}, "wamp.close.close_realm"]));
            peer.say(json!([6, {}, "wamp.close.normal"])).await;
            assert_eq!(peer.hear_close().await, 1000);
        };
        tokio::join!(stopping, router);
        let mut watch = watch;
        let stopped = watch.wait_for(|status| matches!(status.state, State::Stopped));
        drop(tokio::time::timeout(SOON, stopped).await.unwrap());
    }
}

#[tokio::test]
async fn stopping_is_prompt_while_dialling_and_while_waiting() {
    // Nobody listens here any more.
    let (script, config) = Script::new().await;
    drop(script);
    let slow = Backoff {
        first: Duration::from_secs(3600),
        cap: Duration::from_secs(3600),
        ..quick()
    };
    let session = Plan::new(config).backoff(slow).start();
    until(&session, "waiting", |status| {
        matches!(status.state, State::Waiting(_))
    })
    .await;
    tokio::time::timeout(SOON, session.stop()).await.unwrap();
    // Connected, but never upgraded.
    let (script, config) = Script::new().await;
    let session = plan(config).start();
    let status = session.watch();
    let stopped = tokio::time::timeout(SOON, session.stop()).await;
    assert!(stopped.is_ok());
    assert!(matches!(status.borrow().state, State::Stopped));
    drop(script);
}

/// A session is killed by the backend; the plan's comes back, and the testament is published in between.
async fn survives_being_killed(url: &str) {
    let backend = Session::connect(&suite::config(url, wamp::Codec::MessagePack, BACKEND))
        .await
        .unwrap();
    let mut gone = backend
        .subscribe("reswarm.api.testament_device", Dict::new())
        .await
        .unwrap();
    let (connected, mut connections) = mpsc::channel(4);
    let echo = handler(|invocation| async move { Ok(invocation.payload) });
    let testament = Testament::new(
        "reswarm.api.testament_device",
        Payload::from_args(vec!["gone".into()]),
    );
    let mut plan = plan(suite::config(url, wamp::Codec::MessagePack, DEVICE))
        .testament(testament)
        .register(
            "re.mgmt.kept.echo",
            RegisterOptions::default(),
            WhenTaken::Retry,
            echo,
        )
        .connected(move |session| {
            let connected = connected.clone();
            async move { connected.send(session.id()).await.unwrap() }
        });
    let mut news = plan.subscribe("re.mgmt.kept.news", Dict::new());
    let session = plan.start();
    let mut ids = Vec::new();
    for round in 0..3_u64 {
        let id = tokio::time::timeout(SOON, connections.recv())
            .await
            .unwrap()
            .unwrap();
        assert!(!ids.contains(&id));
        ids.push(id);
        assert!(session.status().missing.is_empty(), "{:?}", session.status());
        let bound = CallOptions::timeout(SOON);
        let result = backend
            .call("re.mgmt.kept.echo", Payload::of(&[round]).unwrap(), bound.clone())
            .await
            .unwrap();
        assert_eq!(result.payload.parse::<u64>().unwrap(), round);
        backend
            .publish_acknowledged("re.mgmt.kept.news", Dict::new(), Payload::of(&[round]).unwrap())
            .await
            .unwrap();
        loop {
            match tokio::time::timeout(SOON, news.recv()).await.unwrap().unwrap() {
                Feed::Gap => assert!(round > 0),
                Feed::Event(event) => break assert_eq!(event.payload.parse::<u64>().unwrap(), round),
            }
        }
        backend
            .call("wamp.session.kill", Payload::of(&[id]).unwrap(), bound)
            .await
            .unwrap();
        let will = tokio::time::timeout(SOON, gone.events.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(will.payload.parse::<String>().unwrap(), "gone");
    }
    session.stop().await;
    backend.leave().await;
}

#[tokio::test]
async fn c_18_a_killed_session_comes_back_to_our_router() {
    survives_being_killed(&router::start().await).await;
}

#[tokio::test]
async fn c_18_a_killed_session_comes_back_to_crossbar() {
    let node = crossbar::node();
    survives_being_killed(&node.url()).await;
}
