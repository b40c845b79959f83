//! Permissions of single principals: what they add to their role's, and what the meta API then shows.

use std::sync::Arc;

use super::*;
use crate::router::permission::Lines;
use crate::uri::error;

const ON_CREATE: &str = "wamp.subscription.on_create";
const ON_DELETE: &str = "wamp.subscription.on_delete";
const ON_UNREGISTER: &str = "wamp.registration.on_unregister";

/// Everybody may use `wamp.` and call `api.`; `re.` belongs to nobody.
fn world() -> World {
    let mut api = entry("api.", false);
    api.call = true;
    World::with(vec![entry("wamp.", true), api, entry("re.", false)])
}

/// `re.<name>.` with everything in it, and publishing below `logs.<name>.`.
fn own(name: &str) -> Arc<Lines> {
    let mut logs = entry(&format!("logs.{name}."), false);
    logs.publish = true;
    Arc::new(Lines::new(&[entry(&format!("re.{name}."), true), logs]))
}

fn join(world: &mut World, name: &str) -> Id {
    world.next_id += 1;
    let id = world.next_id;
    let mut who = identity(name, "device", true);
    who.own_rights = Some(own(name));
    world.realm.join(id, who).unwrap();
    world.drain();
    id
}

#[test]
fn a_principal_may_use_what_is_its_own_and_nothing_of_others() {
    let mut world = world();
    let (a, _b) = (join(&mut world, "a"), join(&mut world, "b"));
    world.register(a, "re.a.ping");
    world.subscribe(a, "re.a.input", json!({}));
    let acknowledged = json!({"acknowledge": true});
    for message in [
        register(1, "re.b.ping", json!({"force_reregister": true})),
        register(1, "re.", json!({"match": "prefix"})),
        register(1, "re..ping", json!({"match": "wildcard"})),
        register(1, "logs.a.x", json!({})),
        subscribe(1, "re.b.input", json!({})),
        subscribe(1, "re.", json!({"match": "prefix"})),
        subscribe(1, "re..input", json!({"match": "wildcard"})),
        subscribe(1, "logs.a.x", json!({})),
        publish(1, "re.b.output", acknowledged.clone()),
        publish(1, "logs.b.x", acknowledged.clone()),
        call(1, "re.b.ping", json!({})),
        call(1, "other", json!({})),
    ] {
        let text = format!("{message:?}");
        let sent = world.send(a, message);
        assert_eq!(refused(sent, a), error::NOT_AUTHORIZED, "{text}");
    }
    for topic in ["re.a.output", "logs.a.x"] {
        let sent = world.send(a, publish(1, topic, acknowledged.clone()));
        assert!(matches!(sent[0].1, Message::Published { .. }), "{sent:?}");
    }
    let sent = world.send(a, call(1, "api.x", json!({})));
    assert_eq!(
        refused(sent, a),
        error::NO_SUCH_PROCEDURE,
        "what the role may still holds"
    );
}

#[test]
fn meta_events_reach_those_whom_they_concern() {
    let mut world = world();
    let (a, b) = (join(&mut world, "a"), join(&mut world, "b"));
    let backend = world.join_as("backend", "backend", true);
    for session in [a, b, backend] {
        for topic in [ON_CREATE, ON_DELETE, ON_UNREGISTER] {
            world.subscribe(session, topic, json!({}));
        }
    }
    let watcher = world.join_as("watcher", "backend", true);
    for (topic, policy, expected) in [
        ("logs.a.x", "exact", vec![a, backend]),
        ("re.b.y", "exact", vec![b, backend]),
        ("logs.", "prefix", vec![a, b, backend]),
        ("logs..x", "wildcard", vec![a, b, backend]),
        ("logs.a..x", "wildcard", vec![a, backend]),
        ("elsewhere", "exact", vec![backend]),
    ] {
        let sent = world.send(watcher, subscribe(1, topic, json!({"match": policy})));
        assert_eq!(receivers(&sent), expected, "{topic}");
        let Message::Subscribed { subscription, .. } = sent[0].1 else {
            panic!("{sent:?}");
        };
        let sent = world.send(watcher, unsubscribe(2, subscription));
        assert_eq!(receivers(&sent), expected, "{topic}");
    }
    world.register(a, "re.a.ping");
    let sent = world.lose(a);
    assert_eq!(receivers(&sent), vec![backend]);
    world.register(b, "re.b.ping");
    let evicting = register(3, "re.b.ping", json!({"force_reregister": true}));
    let sent = world.send(backend, evicting);
    let mut told = receivers(&sent);
    told.sort_unstable();
    assert_eq!(told, vec![b, backend]);
}

#[test]
fn meta_procedures_show_what_concerns_the_caller() {
    let mut world = world();
    let (a, b) = (join(&mut world, "a"), join(&mut world, "b"));
    let backend = world.join_as("backend", "backend", true);
    let hidden = world.subscribe(b, "re.b.input", json!({}));
    let shown = world.subscribe(backend, "logs.a.x", json!({}));
    let secret = world.register(b, "re.b.ping");
    let list = world.meta(a, "wamp.subscription.list", json!([])).unwrap();
    let expected = json!({"exact": [shown], "prefix": [], "wildcard": []});
    assert_eq!(list, Value::from(expected));
    let list = world.meta(a, "wamp.subscription.list", json!([b])).unwrap();
    let nothing = json!({"exact": [], "prefix": [], "wildcard": []});
    assert_eq!(list, Value::from(nothing));
    for (procedure, argument) in [
        ("wamp.subscription.match", json!("re.b.input")),
        ("wamp.subscription.lookup", json!("re.b.input")),
        ("wamp.registration.match", json!("re.b.ping")),
        ("wamp.registration.lookup", json!("re.b.ping")),
    ] {
        let answer = world.meta(a, procedure, json!([argument])).unwrap();
        assert!(answer.is_null(), "{procedure}");
        let answer = world.meta(b, procedure, json!([argument])).unwrap();
        assert!(!answer.is_null(), "{procedure}");
    }
    for (procedure, id, expected) in [
        ("wamp.subscription.get", hidden, error::NO_SUCH_SUBSCRIPTION),
        (
            "wamp.subscription.list_subscribers",
            hidden,
            error::NO_SUCH_SUBSCRIPTION,
        ),
        (
            "wamp.subscription.count_subscribers",
            hidden,
            error::NO_SUCH_SUBSCRIPTION,
        ),
        ("wamp.registration.get", secret, error::NO_SUCH_REGISTRATION),
        (
            "wamp.registration.list_callees",
            secret,
            error::NO_SUCH_REGISTRATION,
        ),
    ] {
        let answer = world.meta(a, procedure, json!([id]));
        assert_eq!(answer, Err(expected.to_owned()), "{procedure}");
    }
    let matched = world.meta(a, "wamp.subscription.match", json!(["logs.a.x"]));
    assert_eq!(matched, Ok(Value::from(json!([shown]))));
}

#[test]
fn changed_permissions_take_away_what_they_do_not_cover() {
    let mut world = world();
    let (one, two) = (join(&mut world, "a"), join(&mut world, "a"));
    let other = join(&mut world, "b");
    let subscription = world.subscribe(one, "re.a.input", json!({}));
    let registration = world.register(two, "re.a.ping");
    let kept = world.subscribe(one, ON_CREATE, json!({}));
    world.subscribe(other, "re.b.input", json!({}));
    world.drain();
    world.realm.set_own_rights("a", &own("c"));
    let sent = world.drain();
    assert_eq!(sent.len(), 2, "{sent:?}");
    for (session, message) in &sent {
        let (Message::Unsubscribed { request, details } | Message::Unregistered { request, details }) =
            message
        else {
            panic!("{message:?}");
        };
        assert_eq!(*request, 0);
        assert_eq!(details["reason"].as_str(), Some(error::NOT_AUTHORIZED));
        let (key, id) = match message {
            Message::Unsubscribed { .. } => ("subscription", subscription),
            _ => ("registration", registration),
        };
        assert_eq!(details[key].as_u64(), Some(id));
        assert!([one, two].contains(session));
    }
    assert_eq!(world.realm.registrations.len(), 0);
    let sent = world.send(one, unsubscribe(9, subscription));
    assert_eq!(refused(sent, one), error::NO_SUCH_SUBSCRIPTION);
    let sent = world.send(one, unsubscribe(9, kept));
    assert!(
        matches!(sent[0].1, Message::Unsubscribed { request: 9, .. }),
        "{sent:?}"
    );
    world.register(one, "re.c.ping");
}
