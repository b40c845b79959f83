//! Sessions: joining, leaving, breaking the protocol, and what is refused without breaking it.

use super::*;
use crate::MAX_ID;
use crate::router::joining::JoinError;
use crate::uri::{close, error};

#[test]
fn joining_needs_a_known_role_and_room() {
    let mut world = World::new();
    let unknown = world.realm.join(1, identity("a", "stranger", true));
    assert!(matches!(unknown, Err(JoinError::NoSuchRole { .. })));
    for _ in 0..100 {
        world.join("a");
    }
    assert_eq!(
        world.realm.join(1, identity("a", "device", true)),
        Err(JoinError::Full(100))
    );
}

#[test]
fn r_s15_a_second_hello_is_a_violation() {
    let mut world = World::new();
    let session = world.join("a");
    let sent = world.send(
        session,
        Message::Hello {
            realm: Some("realm1".to_owned()),
            details: Dict::new(),
        },
    );
    assert_eq!(world.ended, vec![(session, Ending::Violation)]);
    assert!(matches!(&sent[..], [(_, Message::Abort { reason, details, .. })]
        if reason == error::PROTOCOL_VIOLATION && details.contains_key("message")));
}

#[test]
fn r_s16_router_messages_from_a_client_are_violations() {
    let details = Dict::new;
    let payload = Payload::Empty;
    let messages = [
        Message::Welcome {
            session: 1,
            details: details(),
        },
        Message::Challenge {
            method: "ticket".to_owned(),
            extra: details(),
        },
        Message::Authenticate {
            signature: String::new(),
            extra: details(),
        },
        Message::Published {
            request: 1,
            publication: 1,
        },
        Message::Subscribed {
            request: 1,
            subscription: 1,
        },
        Message::Unsubscribed {
            request: 1,
            details: details(),
        },
        Message::Event {
            subscription: 1,
            publication: 1,
            details: details(),
            payload: payload.clone(),
        },
        Message::Result {
            request: 1,
            details: details(),
            payload: payload.clone(),
        },
        Message::Registered {
            request: 1,
            registration: 1,
        },
        Message::Unregistered {
            request: 1,
            details: details(),
        },
        Message::Invocation {
            request: 1,
            registration: 1,
            details: details(),
            payload: payload.clone(),
        },
        Message::Interrupt {
            request: 1,
            options: details(),
        },
        Message::Error {
            request_type: 48,
            request: 1,
            details: details(),
            error: "a.b".to_owned(),
            payload,
        },
    ];
    for message in messages {
        let mut world = World::new();
        let session = world.join("a");
        world.send(session, message.clone());
        assert_eq!(world.ended, vec![(session, Ending::Violation)], "{message:?}");
    }
}

#[test]
fn a_violation_frees_everything_and_nothing_later_is_acted_on() {
    let mut world = World::new();
    let (bad, good) = (world.join("a"), world.join("b"));
    world.register(bad, "p.q");
    world.subscribe(bad, "t.x", json!({}));
    world.send(
        bad,
        Message::Published {
            request: 1,
            publication: 1,
        },
    );
    assert_eq!(
        world.realm.registrations.len() + world.realm.subscriptions.len(),
        0
    );
    assert!(world.send(bad, register(2, "p.q", json!({}))).is_empty());
    assert_eq!(
        refused(world.send(good, call(1, "p.q", json!({}))), good),
        error::NO_SUCH_PROCEDURE
    );
}

#[test]
fn r_s17_goodbye_is_answered_after_everything_is_gone() {
    let mut world = World::new();
    let (leaving, watcher) = (world.join("a"), world.join("w"));
    world.subscribe(watcher, "wamp.", json!({"match": "prefix"}));
    world.register(leaving, "p.q");
    world.subscribe(leaving, "t.x", json!({}));
    world.drain();
    let sent = world.send(leaving, goodbye());
    let Some((id, Message::Goodbye { reason, .. })) = sent.last() else {
        panic!("{sent:?}");
    };
    assert_eq!((*id, reason.as_str()), (leaving, close::GOODBYE_AND_OUT));
    assert_eq!(
        events(&sent).len(),
        5,
        "unregister, delete, unsubscribe, delete, leave"
    );
    assert_eq!(world.ended, vec![(leaving, Ending::Left)]);
    assert_eq!(world.realm.registrations.len(), 0);
}

#[test]
fn r_s18_a_call_after_goodbye_is_never_executed() {
    let mut world = World::new();
    let (callee, caller) = (world.join("c"), world.join("a"));
    world.register(callee, "p.q");
    world.send(caller, goodbye());
    assert!(world.send(caller, call(1, "p.q", json!({}))).is_empty());
}

#[test]
fn r_s19_a_dismissed_session_gets_goodbye_with_the_reason() {
    let mut world = World::new();
    let session = world.join("a");
    assert!(world.realm.dismiss(session, close::SYSTEM_SHUTDOWN, None));
    let sent = world.drain();
    assert!(matches!(&sent[..], [(_, Message::Goodbye { reason, .. })] if reason == close::SYSTEM_SHUTDOWN));
    assert_eq!(world.ended, vec![(session, Ending::Dismissed)]);
    assert!(!world.realm.dismiss(session, close::SYSTEM_SHUTDOWN, None));
}

#[test]
fn r_v4_request_ids_outside_1_to_2_to_the_53_are_violations() {
    for request in [0, MAX_ID + 1, u64::MAX] {
        let mut world = World::new();
        let session = world.join("a");
        world.send(session, subscribe(request, "t.x", json!({})));
        assert_eq!(world.ended, vec![(session, Ending::Violation)], "{request}");
    }
    let mut world = World::new();
    let session = world.join("a");
    let sent = world.send(session, subscribe(MAX_ID, "t.x", json!({})));
    assert!(matches!(sent[0].1, Message::Subscribed { request: MAX_ID, .. }));
}

#[test]
fn r_v5_request_ids_need_not_be_sequential() {
    let mut world = World::new();
    let session = world.join("a");
    for request in [500, 3, 3, 12] {
        let sent = world.send(session, publish(request, "t.x", json!({"acknowledge": true})));
        assert!(matches!(sent[..], [(_, Message::Published { request: got, .. })] if got == request));
    }
}

#[test]
fn r_v6_an_invalid_uri_is_an_error_and_the_session_lives() {
    let mut world = World::new();
    let session = world.join("a");
    for uri in ["", "a..b", ".a", "a.", "a b", "a.#"] {
        let requests = [
            (48, call(1, uri, json!({}))),
            (16, publish(1, uri, json!({"acknowledge": true}))),
            (32, subscribe(1, uri, json!({}))),
            (64, register(1, uri, json!({}))),
        ];
        for (code, request) in requests {
            assert_eq!(
                refusal(world.send(session, request), session),
                (code, 1, error::INVALID_URI.to_owned())
            );
        }
        assert!(world.send(session, publish(1, uri, json!({}))).is_empty());
    }
    for uri in ["A-b/c%.é", "re.mgmt.7-42.ping"] {
        world.subscribe(session, uri, json!({}));
    }
    assert!(world.ended.is_empty());
}

#[test]
fn r_v7_registering_and_publishing_under_wamp_is_an_invalid_uri() {
    let mut world = World::new();
    let session = world.join("a");
    let sent = world.send(
        session,
        register(1, "wamp.session.count", json!({"force_reregister": true})),
    );
    assert_eq!(refused(sent, session), error::INVALID_URI);
    let sent = world.send(
        session,
        publish(2, "wamp.session.on_join", json!({"acknowledge": true})),
    );
    assert_eq!(refused(sent, session), error::INVALID_URI);
    assert!(
        world
            .send(session, publish(3, "wamp.session.on_join", json!({})))
            .is_empty()
    );
}

#[test]
fn a_pattern_registration_never_takes_a_call_below_wamp() {
    let mut world = World::new();
    let (callee, caller) = (world.join("c"), world.join("a"));
    world.register_with(callee, "", json!({"match": "prefix"}));
    assert_eq!(
        world.meta(caller, "wamp.session.count", json!([])),
        Ok(Value::Uint(2))
    );
    assert_eq!(
        world.meta(caller, "wamp.x.y", json!([])),
        Err(error::NO_SUCH_PROCEDURE.to_owned())
    );
}

#[test]
fn r_v8_unknown_match_invoke_and_mode_are_invalid_arguments() {
    let mut world = World::new();
    let session = world.join("a");
    let requests = [
        (64, register(1, "p.q", json!({"match": "regex"}))),
        (64, register(1, "p.q", json!({"match": 7}))),
        (64, register(1, "p.q", json!({"invoke": "loadbalance"}))),
        (64, register(1, "p.q", json!({"force_reregister": "yes"}))),
        (32, subscribe(1, "t.x", json!({"match": "glob"}))),
        (49, cancel(1, json!({"mode": "murder"}))),
        (48, call(1, "p.q", json!({"receive_progress": 1}))),
    ];
    for (code, request) in requests {
        let sent = world.send(session, request);
        assert_eq!(
            refusal(sent, session),
            (code, 1, error::INVALID_ARGUMENT.to_owned())
        );
    }
    assert!(world.ended.is_empty());
}

#[test]
fn r_s6_unknown_details_and_features_are_ignored_and_roles_are_required() {
    let hello = dict(json!({
        "roles": {"callee": {"features": {"call_canceling": true, "x": 1, "caller_identification": null}}, "_odd": 5},
        "_vendor": [1, null],
    }));
    let features = Features::from_hello(&hello).unwrap();
    assert!(features.callee_canceling && !features.callee_identification);
    for roles in [
        json!({}),
        json!({"roles": {}}),
        json!({"roles": {"broker": {}}}),
        json!({"roles": []}),
    ] {
        assert_eq!(Features::from_hello(&dict(roles)), None, "R-S5");
    }
}
