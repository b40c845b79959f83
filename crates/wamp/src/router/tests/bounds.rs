//! Bounds, and that everything refused is counted.

use super::*;
use crate::MAX_ID;
use crate::message::code;
use crate::router::counters::{Denied, Refused};
use crate::router::joining::JoinError;
use crate::uri::error;

fn tight() -> World {
    World::bounded(Limits {
        max_sessions: 4,
        max_sessions_per_authid: 2,
        max_pending_calls: 2,
        max_registrations: 2,
        max_subscriptions: 2,
        max_testaments: 1,
        ..Limits::default()
    })
}

#[test]
fn sessions_are_bounded_in_all_and_per_authid_and_leaving_makes_room() {
    let mut world = tight();
    let (first, _, _) = (world.join("a"), world.join("a"), world.join("b"));
    let again = world.realm.join(1, identity("a", "device", true));
    assert_eq!(again, Err(JoinError::Crowded(2)));
    assert_eq!(again.unwrap_err().reason(), error::RUNTIME_ERROR);
    world.join("c");
    let one_more = world.realm.join(1, identity("d", "device", true));
    assert_eq!(one_more, Err(JoinError::Full(4)));
    world.lose(first);
    world.join("a");
    let roleless = world.realm.join(1, identity("d", "nobody", true));
    assert!(matches!(roleless, Err(JoinError::NoSuchRole { .. })));
    let refused = Refused {
        full: 2,
        no_such_role: 1,
        ..Refused::default()
    };
    assert_eq!(world.realm.counters().refused_sessions, refused);
}

#[test]
fn requests_beyond_a_bound_are_refused_with_an_error_and_counted() {
    let mut world = tight();
    let (session, callee) = (world.join("a"), world.join("b"));
    for (request, uri) in [(1, "p.a"), (2, "p.b")] {
        world.send(callee, register(request, uri, json!({})));
        world.send(session, subscribe(request, uri, json!({})));
        world.send(session, call(request + 10, "p.a", json!({})));
    }
    let add = |world: &mut World| world.meta(session, "wamp.session.add_testament", json!(["t.x", [], {}]));
    add(&mut world).unwrap();
    assert_eq!(add(&mut world), Err(error::TESTAMENT_ERROR.to_owned()));
    let sent = world.send(callee, register(3, "p.c", json!({})));
    assert_eq!(refused(sent, callee), error::RUNTIME_ERROR);
    let sent = world.send(session, subscribe(3, "p.c", json!({})));
    assert_eq!(refused(sent, session), error::RUNTIME_ERROR);
    let sent = world.send(session, call(4, "p.a", json!({})));
    assert_eq!(refused(sent, session), error::RUNTIME_ERROR);
    let other = world.join("c");
    let sent = world.send(other, call(1, "p.a", json!({})));
    assert_eq!(
        refused(sent, other),
        error::NETWORK_FAILURE,
        "the callee has enough"
    );
    assert_eq!(world.realm.counters().limited_requests, 5);
    // What it has already, it may ask for again.
    let sent = world.send(session, subscribe(5, "p.a", json!({})));
    assert!(matches!(sent[..], [(_, Message::Subscribed { .. })]));
}

#[test]
fn what_is_denied_malformed_or_a_violation_is_counted() {
    let mut world = World::with(vec![entry("re.", true)]);
    let session = world.join("d");
    for message in [
        call(1, "x.y", json!({})),
        register(2, "x.y", json!({})),
        register(3, "x.z", json!({})),
        subscribe(4, "x.y", json!({})),
        publish(5, "x.y", json!({})),
        publish(6, "x.y", json!({"acknowledge": true})),
        publish(7, "re..y", json!({})),
        call(8, "re.x", json!({"timeout": "soon"})),
    ] {
        world.send(session, message);
    }
    world.realm.violate(session, "nonsense");
    let counters = world.realm.counters();
    let denied = Denied {
        call: 1,
        register: 2,
        publish: 2,
        subscribe: 1,
    };
    assert_eq!(counters.denied, denied);
    assert_eq!((counters.invalid_requests, counters.violations), (2, 1));
    assert_eq!(counters.sessions, 0);
}

#[test]
fn counters_are_a_procedure_that_needs_permission() {
    let mut world = World::with(vec![entry("re.", true)]);
    let (device, admin) = (world.join("d"), world.join_as("x", "backend", true));
    world.register(device, "re.p");
    assert_eq!(
        world.meta(device, "wamp.router.counters", json!([])),
        Err(error::NOT_AUTHORIZED.to_owned())
    );
    let counters = world.meta(admin, "wamp.router.counters", json!([])).unwrap();
    assert_eq!(counters.get("sessions"), Some(&Value::Uint(2)));
    assert_eq!(counters.get("registrations"), Some(&Value::Uint(1)));
    assert_eq!(counters.get("denied").unwrap().get("call"), Some(&Value::Uint(1)));
    for name in [
        "queues",
        "received",
        "sent",
        "dropped_events",
        "refused_sessions",
        "uptime",
    ] {
        assert!(counters.get(name).is_some(), "{name}");
    }
    assert_eq!(
        world.meta(admin, "wamp.router.nothing", json!([])),
        Err(error::NO_SUCH_PROCEDURE.to_owned())
    );
}

#[test]
fn traffic_is_counted_by_type_and_added_up() {
    let mut first = super::super::Counters::default();
    first.received.count(code::CALL);
    first.received.count(code::YIELD);
    first.received.count(9999);
    first.queues.add(3, 300);
    first.queues.add(1, 700);
    let mut second = first;
    second.add(&first);
    assert_eq!(second.received.of(code::CALL), 2);
    assert_eq!((second.received.total(), second.received.of(9999)), (4, 0));
    assert_eq!(
        second.received.iter().collect::<Vec<_>>(),
        vec![("call", 2), ("yield", 2)]
    );
    let queues = second.queues;
    assert_eq!((queues.messages, queues.bytes), (8, 2000));
    assert_eq!((queues.most_messages, queues.most_bytes), (3, 700));
}

#[test]
fn r_v5_request_ids_have_to_count_where_the_realm_says_so() {
    let mut world = World::strict();
    let session = world.join("a");
    for (request, message) in [
        (1, subscribe(1, "t.x", json!({}))),
        (2, publish(2, "t.x", json!({"acknowledge": true}))),
        (3, call(3, "no.such", json!({}))),
        (4, register(4, "p.q", json!({}))),
        // Refused, but counted.
        (5, unregister(5, 77)),
        (6, unsubscribe(6, 77)),
    ] {
        let sent = world.send(session, message);
        assert_eq!(sent.len(), 1, "{request}");
    }
    // CANCEL, YIELD and ERROR number nothing themselves.
    assert!(world.send(session, cancel(3, json!({}))).is_empty());
    world.realm.sessions.get_mut(&session).unwrap().skip_to(MAX_ID);
    let sent = world.send(session, publish(1, "t.x", json!({"acknowledge": true})));
    assert!(
        matches!(sent[..], [(_, Message::Published { request: 1, .. })]),
        "wraps"
    );
    assert!(world.ended.is_empty());
    for wrong in [1, 3, MAX_ID] {
        let mut world = World::strict();
        let session = world.join("a");
        world.send(session, publish(1, "t.x", json!({})));
        world.send(session, publish(wrong, "t.x", json!({})));
        assert_eq!(world.ended, vec![(session, Ending::Violation)], "{wrong}");
    }
}

#[test]
fn r_v6_a_strict_realm_takes_only_strict_uris() {
    let mut world = World::strict();
    let session = world.join("a");
    let mut request = 0;
    for uri in ["A.b", "re.mgmt.7-42.ping", "a.é"] {
        for make in [call, register, subscribe] {
            request += 1;
            let sent = world.send(session, make(request, uri, json!({})));
            assert_eq!(refused(sent, session), error::INVALID_URI, "{uri}");
        }
        request += 1;
        let sent = world.send(session, subscribe(request, uri, json!({"match": "prefix"})));
        assert_eq!(refused(sent, session), error::INVALID_URI, "{uri}");
    }
    request += 1;
    let sent = world.send(
        session,
        subscribe(request, "a_1..c", json!({"match": "wildcard"})),
    );
    assert!(matches!(sent[0].1, Message::Subscribed { .. }));
}

#[test]
fn sessions_of_the_router_itself_are_not_there_for_anybody() {
    let mut world = World::new();
    let admin = world.join("x");
    let joined = world.subscribe(admin, "wamp.session.", json!({"match": "prefix"}));
    let service = world.realm.join_service();
    assert!(world.drain().is_empty(), "nothing announced");
    assert_eq!(world.realm.counters().sessions, 1);
    assert_eq!(
        world.meta(admin, "wamp.session.count", json!([])),
        Ok(Value::Uint(1))
    );
    assert_eq!(
        world.meta(admin, "wamp.session.list", json!([])),
        Ok(vec![Value::Uint(admin)].into())
    );
    for procedure in ["wamp.session.get", "wamp.session.kill"] {
        assert_eq!(
            world.meta(admin, procedure, json!([service])),
            Err(error::NO_SUCH_SESSION.to_owned())
        );
    }
    for (procedure, arguments) in [
        ("wamp.session.kill_by_authrole", json!(["trusted"])),
        ("wamp.session.kill_by_authid", json!(["router"])),
    ] {
        assert_eq!(world.meta(admin, procedure, arguments), Ok(vec![].into()));
    }
    assert_eq!(
        world.meta(admin, "wamp.session.kill_all", json!([])),
        Ok(Value::Uint(0))
    );
    // It may call everything and is named to the callee.
    let callee = world.join("c");
    world.register(callee, "p.q");
    let (.., details) = invocation(world.send(service, call(1, "p.q", json!({}))));
    assert_eq!(details["caller_authrole"].as_str(), Some("trusted"));
    let sent = world.lose(service);
    assert!(matches!(sent[..], [(id, Message::Interrupt { .. })] if id == callee));
    let _ = joined;
}
