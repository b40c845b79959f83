//! Several realms in one router.

use std::collections::BTreeMap;

use super::*;
use wamp::Dict;
use wamp::router::{Authenticator, RealmConfig};
use wamp::uri::UriRule;

/// Realms `one`, `two` and the strict `three`. HELLO without a realm: `ticket` belongs to `two`, `lost` to none.
async fn three(limits: Limits) -> Running {
    let anybody: Authenticator = Arc::new(|request: JoinRequest| {
        Box::pin(async move {
            let guest = Principal::Anonymous {
                authid: "guest".to_owned(),
                role: "device".to_owned(),
            };
            match request.authid.as_deref() {
                Some("moved") => Ok(guest.in_realm("two").named("somebody else")),
                Some("misled") => Ok(guest.in_realm("nowhere")),
                _ => Ok(guest),
            }
        })
    });
    let assigner: Authenticator = Arc::new(|request: JoinRequest| {
        Box::pin(async move {
            assert_eq!(request.realm, "");
            let ticket = Principal::Ticket {
                ticket: "let me in".to_owned(),
                role: "device".to_owned(),
                extra: Dict::new(),
            };
            match request.authid.as_deref() {
                Some("ticket") => Ok(ticket.in_realm("two")),
                Some("lost") => Ok(ticket),
                _ => Err(None),
            }
        })
    });
    let mut realms = BTreeMap::new();
    for name in ["one", "two", "three"] {
        let mut config = RealmConfig::new(roles(), Arc::clone(&anybody));
        if name == "three" {
            config.uris = UriRule::Strict;
            config.strict_request_ids = true;
        }
        realms.insert(name.to_owned(), config);
    }
    run(RealmsConfig {
        realms,
        assigner: Some(assigner),
        limits,
    })
    .await
}

async fn greet(running: &Running, realm: Value, details: Value) -> (Peer, Value) {
    let mut peer = running.peer().await;
    let mut greeting = hello(details);
    greeting[1] = realm;
    let answer = peer.ask(greeting).await;
    (peer, answer)
}

async fn inside(running: &Running, realm: &str) -> Peer {
    let (peer, welcome) = greet(running, json!(realm), json!({})).await;
    assert_eq!((&welcome[0], &welcome[2]["realm"]), (&json!(2), &json!(realm)));
    peer
}

#[tokio::test]
async fn realms_share_neither_procedures_nor_topics_nor_sessions() {
    let running = three(Limits::default()).await;
    let mut one = inside(&running, "one").await;
    let mut two = inside(&running, "two").await;
    assert_eq!(one.ask(json!([64, 1, {}, "re.p"])).await[0], 65);
    assert_eq!(
        two.ask(json!([64, 1, {}, "re.p"])).await[0],
        65,
        "taken only in the other realm"
    );
    assert_eq!(one.ask(json!([32, 2, {"match": "prefix"}, ""])).await[0], 33);
    two.ask(json!([16, 2, {"acknowledge": true, "retain": true}, "re.t"]))
        .await;
    let count = two.ask(json!([48, 3, {}, "wamp.session.count"])).await;
    assert_eq!(count[3][0], 1);
    let counters = two.ask(json!([48, 4, {}, "wamp.router.counters"])).await;
    assert_eq!(counters[3][0]["registrations"], 1);
    let sums = running.router.counters();
    assert_eq!(
        (sums.sessions, sums.registrations, sums.retained_events),
        (2, 2, 1)
    );
    // Everything that `one` hears is its own doing.
    let mut heard = one.ask(json!([16, 3, {"acknowledge": true}, "re.last"])).await;
    while heard[0] == 36 {
        assert!(
            heard[3]["topic"].as_str().unwrap().starts_with("wamp."),
            "{heard}"
        );
        heard = one.next().await;
    }
    assert_eq!(heard[0], 17);
}

#[tokio::test]
async fn r_s4_an_unknown_realm_is_refused_among_many() {
    let running = three(Limits::default()).await;
    let (mut peer, abort) = greet(&running, json!("four"), json!({})).await;
    assert_eq!(abort[2], "wamp.error.no_such_realm");
    assert_eq!(peer.closed().await, Some(1000));
}

#[tokio::test]
async fn the_authenticator_may_assign_realm_and_name() {
    let running = three(Limits::default()).await;
    let (_peer, welcome) = greet(&running, json!("one"), json!({"authid": "moved"})).await;
    assert_eq!(
        (&welcome[2]["realm"], &welcome[2]["authid"]),
        (&json!("two"), &json!("somebody else"))
    );
    let (_peer, abort) = greet(&running, json!("one"), json!({"authid": "misled"})).await;
    assert_eq!(abort[2], "wamp.error.no_such_realm");
}

#[tokio::test]
async fn a_hello_without_a_realm_joins_the_one_it_is_assigned() {
    let running = three(Limits::default()).await;
    let methods = json!(["ticket"]);
    let mut refusals = Vec::new();
    for authid in ["ticket", "lost", "unknown"] {
        let details = json!({"authid": authid, "authmethods": methods});
        let (mut peer, challenge) = greet(&running, Value::Null, details).await;
        assert_eq!(challenge[1], "ticket", "{authid}");
        let answer = peer.ask(json!([5, "let me in", {}])).await;
        if authid == "ticket" {
            assert_eq!((&answer[0], &answer[2]["realm"]), (&json!(2), &json!("two")));
        } else {
            refusals.push(answer);
        }
    }
    assert_eq!(refusals[0], refusals[1], "who has no realm is nobody");
    assert_eq!(refusals[0][2], "wamp.error.not_authorized");
}

#[tokio::test]
async fn the_bound_for_all_sessions_holds_across_realms() {
    let running = three(Limits {
        max_sessions: 2,
        ..Limits::default()
    })
    .await;
    let one = inside(&running, "one").await;
    let _two = inside(&running, "two").await;
    let (_peer, abort) = greet(&running, json!("three"), json!({})).await;
    assert_eq!(abort[2], "wamp.error.runtime_error");
    assert_eq!(running.router.counters().refused_sessions.full, 1);
    drop(one);
    running.holds(1).await;
    inside(&running, "three").await;
}

#[tokio::test]
async fn r_v5_r_v6_a_strict_realm_checks_ids_and_uris_and_the_others_do_not() {
    let running = three(Limits::default()).await;
    let mut strict = inside(&running, "three").await;
    let mut loose = inside(&running, "one").await;
    let error = strict.ask(json!([32, 1, {}, "Upper.Case"])).await;
    assert_eq!(error[4], "wamp.error.invalid_uri");
    assert_eq!(loose.ask(json!([32, 7, {}, "Upper.Case"])).await[0], 33);
    assert_eq!(strict.ask(json!([32, 2, {}, "re.t"])).await[0], 33);
    strict.send(json!([32, 4, {}, "re.u"])).await;
    strict.violated().await;
    assert_eq!(loose.ask(json!([32, 3, {}, "re.u"])).await[0], 33);
}

#[tokio::test]
async fn r_s19_shutdown_says_goodbye_in_every_realm() {
    let mut running = three(Limits {
        goodbye_timeout: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    let mut peers = [inside(&running, "one").await, inside(&running, "two").await];
    running.stop.cancel();
    for peer in &mut peers {
        assert_eq!(peer.next().await[2], "wamp.close.system_shutdown");
    }
    soon("the router", &mut running.served).await.unwrap().unwrap();
}
