//! The meta procedures that take something away, and those that have nothing to give.

use super::*;
use crate::uri::{close, error};

#[test]
fn r_m5_killing_all_spares_the_caller_and_counts() {
    let mut world = World::new();
    let admin = world.join_as("x", "backend", true);
    let (one, two) = (world.join("a"), world.join("b"));
    let killed = world.meta_with(
        admin,
        "wamp.session.kill_all",
        json!([]),
        json!({"message": "maintenance"}),
    );
    assert_eq!(killed, Ok(Value::Uint(2)));
    let mut ended: Vec<Id> = world.ended.iter().map(|(id, _)| *id).collect();
    ended.sort_unstable();
    assert_eq!(ended, vec![one, two]);
    assert!(world.aside.iter().all(
        |(_, message)| matches!(message, Message::Goodbye { reason, details }
            if reason == close::KILLED && details["message"].as_str() == Some("maintenance"))
    ));
    let wrong = json!({"reason": "not a uri"});
    assert_eq!(
        world.meta_with(admin, "wamp.session.kill_all", json!([]), wrong),
        Err(error::INVALID_URI.to_owned())
    );
}

#[test]
fn r_m3_a_subscriber_can_be_removed_and_is_told() {
    let mut world = World::new();
    let admin = world.join_as("x", "backend", true);
    let (subscriber, other) = (world.join("a"), world.join("b"));
    let subscription = world.subscribe(subscriber, "t.x", json!({}));
    let watched = world.subscribe(admin, "wamp.subscription.", json!({"match": "prefix"}));
    world.drain();
    const REMOVE: &str = "wamp.subscription.remove_subscriber";
    for (arguments, expected) in [
        (json!([1, subscriber]), error::NO_SUCH_SUBSCRIPTION),
        (json!([subscription, other]), error::NO_SUCH_SESSION),
        (json!([subscription, 1]), error::NO_SUCH_SESSION),
        (json!([subscription]), error::INVALID_ARGUMENT),
        (json!([subscription, subscriber, "not a uri"]), error::INVALID_URI),
        (json!([watched, admin]), error::NO_SUCH_SUBSCRIPTION),
    ] {
        assert_eq!(world.meta(admin, REMOVE, arguments), Err(expected.to_owned()));
    }
    let removed = world.meta_with(
        admin,
        REMOVE,
        json!([subscription, subscriber]),
        json!({"reason": "my.reason"}),
    );
    assert_eq!(removed, Ok(Value::Null));
    let details = dict(json!({"subscription": subscription, "reason": "my.reason"}));
    assert_eq!(
        world.aside[0],
        (subscriber, Message::Unsubscribed { request: 0, details })
    );
    assert_eq!(events(&world.aside).len(), 2, "on_unsubscribe and on_delete");
    let sent = world.send(other, publish(1, "t.x", json!({})));
    assert!(sent.is_empty());
    let sent = world.send(subscriber, unsubscribe(2, subscription));
    assert_eq!(refused(sent, subscriber), error::NO_SUCH_SUBSCRIPTION);
}

#[test]
fn r_m3_a_callee_can_be_removed_and_its_running_invocation_goes_on() {
    let mut world = World::new();
    let admin = world.join_as("x", "backend", true);
    let (callee, other) = (world.join("a"), world.join("b"));
    let shared = json!({"invoke": "first"});
    let registration = world.register_with(callee, "p.q", shared.clone());
    assert_eq!(world.register_with(other, "p.q", shared), registration);
    invocation(world.send(admin, call(1, "p.q", json!({}))));
    const REMOVE: &str = "wamp.registration.remove_callee";
    assert_eq!(
        world.meta(admin, REMOVE, json!([registration, admin])),
        Err(error::NO_SUCH_SESSION.to_owned())
    );
    assert_eq!(
        world.meta(admin, REMOVE, json!([1, callee])),
        Err(error::NO_SUCH_REGISTRATION.to_owned())
    );
    let removed = world.meta(admin, REMOVE, json!([registration, callee]));
    assert_eq!(removed, Ok(Value::Null));
    let details = dict(json!({"registration": registration, "reason": error::UNREGISTERED}));
    assert_eq!(
        world.aside,
        vec![(callee, Message::Unregistered { request: 0, details })]
    );
    let sent = world.send(callee, yields(1, json!({}), Payload::Empty));
    assert!(matches!(sent[..], [(id, Message::Result { request: 1, .. })] if id == admin));
    let (to, ..) = invocation(world.send(admin, call(2, "p.q", json!({}))));
    assert_eq!(to, other);
}

#[test]
fn r_m3_there_is_no_event_history() {
    let mut world = World::new();
    let session = world.join("a");
    let subscription = world.subscribe(session, "t.x", json!({}));
    const EVENTS: &str = "wamp.subscription.get_events";
    assert_eq!(
        world.meta(session, EVENTS, json!([subscription, 10])),
        Err(error::HISTORY_UNAVAILABLE.to_owned())
    );
    assert_eq!(
        world.meta(session, EVENTS, json!([1, 10])),
        Err(error::NO_SUCH_SUBSCRIPTION.to_owned())
    );
}

#[test]
fn r_m8_removing_needs_permission_like_every_meta_call() {
    let mut world = World::with(vec![entry("re.", true)]);
    let device = world.join("d");
    for procedure in [
        "wamp.session.kill_all",
        "wamp.subscription.remove_subscriber",
        "wamp.subscription.get_events",
        "wamp.registration.remove_callee",
        "wamp.router.counters",
    ] {
        assert_eq!(
            world.meta(device, procedure, json!([1, 1])),
            Err(error::NOT_AUTHORIZED.to_owned()),
            "{procedure}"
        );
    }
}

#[test]
fn a_prefix_for_all_subscription_procedures_is_no_right_to_remove_anybody() {
    let mut watching = entry("wamp.", true);
    watching.force_register = false;
    let mut shared = entry("re.", true);
    shared.force_register = false;
    let mut world = World::with(vec![watching, shared, entry("re.mine.", true)]);
    let (device, other) = (world.join("d"), world.join("o"));
    let subscription = world.subscribe(other, "re.all", json!({}));
    let registration = world.register(other, "re.proc");
    for (procedure, id) in [
        ("wamp.subscription.remove_subscriber", subscription),
        ("wamp.registration.remove_callee", registration),
    ] {
        assert_eq!(
            world.meta(device, procedure, json!([id, other])),
            Err(error::NOT_AUTHORIZED.to_owned())
        );
    }
    let registration = world.register(other, "re.mine.proc");
    assert_eq!(
        world.meta(
            device,
            "wamp.registration.remove_callee",
            json!([registration, other])
        ),
        Ok(Value::Null)
    );
}
