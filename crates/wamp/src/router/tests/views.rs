//! The meta API: what the router tells about itself, and killing.

use super::*;
use crate::uri::{close, error};

/// A backend that hears every meta event below `prefix`, and what each of its subscriptions is about.
struct Watcher {
    id: Id,
    topics: HashMap<Id, &'static str>,
}

fn watch(world: &mut World, topics: &[&'static str]) -> Watcher {
    let id = world.join_as("watcher", "backend", true);
    let topics = topics
        .iter()
        .map(|topic| (world.subscribe(id, topic, json!({})), *topic))
        .collect();
    world.drain();
    Watcher { id, topics }
}

impl Watcher {
    /// Last part of the topic and first argument of each event, in order.
    fn heard(&self, sent: &Sent) -> Vec<(&'static str, Vec<Value>)> {
        heard(sent, self.id)
            .into_iter()
            .map(|(subscription, args)| {
                let topic = self.topics[&subscription];
                (topic.rsplit('.').next().unwrap(), args)
            })
            .collect()
    }

    fn names(&self, sent: &Sent) -> Vec<(&'static str, Id)> {
        self.heard(sent)
            .into_iter()
            .map(|(name, args)| (name, args[0].as_u64().unwrap_or_default()))
            .collect()
    }
}

const SUBSCRIPTION_EVENTS: [&str; 4] = [
    "wamp.subscription.on_create",
    "wamp.subscription.on_subscribe",
    "wamp.subscription.on_unsubscribe",
    "wamp.subscription.on_delete",
];
const REGISTRATION_EVENTS: [&str; 4] = [
    "wamp.registration.on_create",
    "wamp.registration.on_register",
    "wamp.registration.on_unregister",
    "wamp.registration.on_delete",
];

#[test]
fn r_m1_subscription_events_come_in_order_with_the_real_session() {
    let mut world = World::new();
    let watcher = watch(&mut world, &SUBSCRIPTION_EVENTS);
    let (one, two) = (world.join("a"), world.join("b"));
    let sent = world.send(one, subscribe(1, "t.x", json!({"match": "prefix"})));
    let all = watcher.heard(&sent);
    assert_eq!(
        watcher.names(&sent),
        vec![("on_create", one), ("on_subscribe", one)]
    );
    let details = all[0].1[1].as_dict().unwrap();
    assert_eq!(details["uri"].as_str(), Some("t.x"));
    assert_eq!(details["match"].as_str(), Some("prefix"));
    assert_eq!(details["id"], all[1].1[1]);
    assert!(
        details["created"]
            .as_str()
            .is_some_and(|created| created.ends_with('Z'))
    );
    let sent = world.send(two, subscribe(1, "t.x", json!({"match": "prefix"})));
    assert_eq!(watcher.names(&sent), vec![("on_subscribe", two)]);
    let sent = world.send(one, unsubscribe(2, details["id"].as_u64().unwrap()));
    assert_eq!(watcher.names(&sent), vec![("on_unsubscribe", one)]);
    let sent = world.lose(two);
    assert_eq!(
        watcher.names(&sent),
        vec![("on_unsubscribe", two), ("on_delete", two)]
    );
}

#[test]
fn subscriptions_to_meta_topics_cause_no_meta_events_and_are_not_listed() {
    let mut world = World::new();
    let watcher = watch(&mut world, &SUBSCRIPTION_EVENTS);
    let other = world.join("a");
    let sent = world.send(other, subscribe(1, "wamp.session.on_join", json!({})));
    assert_eq!(sent.len(), 1, "{sent:?}");
    let list = world
        .meta(watcher.id, "wamp.subscription.list", json!([]))
        .unwrap();
    assert_eq!(
        list,
        Value::from(json!({"exact": [], "prefix": [], "wildcard": []}))
    );
}

#[test]
fn r_m2_registration_events_come_in_order_eviction_included() {
    let mut world = World::new();
    let watcher = watch(&mut world, &REGISTRATION_EVENTS);
    let (old, new) = (world.join("a"), world.join("b"));
    let sent = world.send(old, register(1, "p.q", json!({})));
    assert_eq!(
        watcher.names(&sent),
        vec![("on_create", old), ("on_register", old)]
    );
    assert_eq!(
        watcher.heard(&sent)[0].1[1].get("invoke").and_then(Value::as_str),
        Some("single")
    );
    let sent = world.send(new, register(1, "p.q", json!({"force_reregister": true})));
    assert_eq!(
        watcher.names(&sent),
        vec![
            ("on_unregister", old),
            ("on_delete", old),
            ("on_create", new),
            ("on_register", new)
        ]
    );
    let sent = world.lose(old);
    assert!(
        watcher.names(&sent).is_empty(),
        "the evicted side is gone already"
    );
    let sent = world.send(new, goodbye());
    assert_eq!(
        watcher.names(&sent),
        vec![("on_unregister", new), ("on_delete", new)]
    );
}

#[test]
fn r_m3_subscriptions_can_be_looked_up_matched_listed_and_counted() {
    let mut world = World::new();
    let (admin, one, two) = (
        world.join_as("x", "backend", true),
        world.join("a"),
        world.join("b"),
    );
    let exact = world.subscribe(one, "a.b", json!({}));
    world.subscribe(two, "a.b", json!({}));
    let prefix = world.subscribe(one, "a.", json!({"match": "prefix"}));
    let wildcard = world.subscribe(two, ".b", json!({"match": "wildcard"}));
    let mut ask = |name: &str, args| world.meta(admin, &format!("wamp.subscription.{name}"), args);
    assert_eq!(ask("lookup", json!(["a.b"])), Ok(Value::Uint(exact)));
    assert_eq!(
        ask("lookup", json!(["a.", {"match": "prefix"}])),
        Ok(Value::Uint(prefix))
    );
    assert_eq!(ask("lookup", json!(["a.c"])), Ok(Value::Null));
    assert_eq!(
        ask("match", json!(["a.b"])),
        Ok(Value::from(json!([exact, prefix, wildcard])))
    );
    assert_eq!(ask("match", json!(["q.q.q"])), Ok(Value::Null));
    assert_eq!(
        ask("get", json!([prefix]))
            .unwrap()
            .get("uri")
            .and_then(Value::as_str),
        Some("a.")
    );
    assert_eq!(
        ask("get", json!([1])),
        Err(error::NO_SUCH_SUBSCRIPTION.to_owned())
    );
    assert_eq!(
        ask("list", json!([])),
        Ok(Value::from(
            json!({"exact": [exact], "prefix": [prefix], "wildcard": [wildcard]})
        ))
    );
    assert_eq!(
        ask("list", json!([one])),
        Ok(Value::from(
            json!({"exact": [exact], "prefix": [prefix], "wildcard": []})
        ))
    );
    assert_eq!(ask("list", json!([1])), Err(error::NO_SUCH_SESSION.to_owned()));
    assert_eq!(
        ask("list_subscribers", json!([exact])),
        Ok(Value::from(json!([one, two])))
    );
    assert_eq!(ask("count_subscribers", json!([exact])), Ok(Value::Uint(2)));
    assert_eq!(
        ask("count_subscribers", json!([1])),
        Err(error::NO_SUCH_SUBSCRIPTION.to_owned())
    );
    assert_eq!(
        ask("list_subscribers", json!(["x"])),
        Err(error::INVALID_ARGUMENT.to_owned())
    );
    assert_eq!(
        ask("list_callees", json!([exact])),
        Err(error::NO_SUCH_PROCEDURE.to_owned())
    );
}

#[test]
fn r_m3_registrations_can_be_looked_up_matched_listed_and_counted() {
    let mut world = World::new();
    let (admin, one, two) = (
        world.join_as("x", "backend", true),
        world.join("a"),
        world.join("b"),
    );
    let shared = world.register_with(one, "p.q", json!({"invoke": "first"}));
    world.register_with(two, "p.q", json!({"invoke": "first"}));
    let prefix = world.register_with(one, "p.", json!({"match": "prefix"}));
    let mut ask = |name: &str, args| world.meta(admin, &format!("wamp.registration.{name}"), args);
    assert_eq!(ask("lookup", json!(["p.q"])), Ok(Value::Uint(shared)));
    assert_eq!(ask("match", json!(["p.q"])), Ok(Value::Uint(shared)));
    assert_eq!(ask("match", json!(["p.x"])), Ok(Value::Uint(prefix)));
    assert_eq!(ask("match", json!(["x"])), Ok(Value::Null));
    assert_eq!(
        ask("get", json!([shared]))
            .unwrap()
            .get("invoke")
            .and_then(Value::as_str),
        Some("first")
    );
    assert_eq!(
        ask("list_callees", json!([shared])),
        Ok(Value::from(json!([one, two])))
    );
    assert_eq!(ask("count_callees", json!([prefix])), Ok(Value::Uint(1)));
    assert_eq!(
        ask("get", json!([5])),
        Err(error::NO_SUCH_REGISTRATION.to_owned())
    );
}

#[test]
fn r_m4_joining_and_leaving_is_announced() {
    let mut world = World::new();
    let watcher = watch(&mut world, &["wamp.session.on_join", "wamp.session.on_leave"]);
    let session = world.join("7-42");
    let sent = world.drain();
    let all = watcher.heard(&sent);
    let details = all[0].1[0].as_dict().unwrap();
    assert_eq!(details["session"], Value::Uint(session));
    for (key, expected) in [
        ("authid", "7-42"),
        ("authrole", "device"),
        ("authmethod", "wampcra"),
        ("realm", "realm1"),
    ] {
        assert_eq!(details[key].as_str(), Some(expected));
    }
    let sent = world.lose(session);
    assert_eq!(
        watcher.heard(&sent),
        vec![("on_leave", list(json!([session, "7-42", "device"])))]
    );
}

#[test]
fn sessions_can_be_counted_listed_and_described() {
    let mut world = World::new();
    let (admin, device) = (world.join_as("x", "backend", true), world.join("a"));
    assert_eq!(
        world.meta(admin, "wamp.session.count", json!([])),
        Ok(Value::Uint(2))
    );
    assert_eq!(
        world.meta(admin, "wamp.session.count", json!([["device"]])),
        Ok(Value::Uint(1))
    );
    assert_eq!(
        world.meta(admin, "wamp.session.list", json!([["device"]])),
        Ok(Value::from(json!([device])))
    );
    let details = world.meta(admin, "wamp.session.get", json!([device])).unwrap();
    assert_eq!(details.get("authid").and_then(Value::as_str), Some("a"));
    assert_eq!(
        world.meta(admin, "wamp.session.get", json!([1])),
        Err(error::NO_SUCH_SESSION.to_owned())
    );
}

#[test]
fn r_m5_a_killed_session_gets_goodbye_with_reason_and_message() {
    let mut world = World::new();
    let (admin, one, two) = (
        world.join_as("x", "backend", true),
        world.join("a"),
        world.join("b"),
    );
    let kwargs = json!({"reason": "my.reason", "message": "bye"});
    assert_eq!(
        world.meta_with(admin, "wamp.session.kill", json!([one]), kwargs),
        Ok(Value::Null)
    );
    assert_eq!(
        world.aside,
        vec![(
            one,
            Message::Goodbye {
                details: dict(json!({"message": "bye"})),
                reason: "my.reason".to_owned()
            }
        )]
    );
    assert_eq!(
        world.meta(admin, "wamp.session.kill", json!([two])),
        Ok(Value::Null)
    );
    assert!(matches!(&world.aside[..], [(_, Message::Goodbye { reason, .. })] if reason == close::KILLED));
    assert_eq!(
        world.ended,
        vec![(one, Ending::Dismissed), (two, Ending::Dismissed)]
    );
    for id in [one, admin] {
        assert_eq!(
            world.meta(admin, "wamp.session.kill", json!([id])),
            Err(error::NO_SUCH_SESSION.to_owned())
        );
    }
    let invalid = world.meta_with(
        admin,
        "wamp.session.kill",
        json!([one]),
        json!({"reason": "no uri"}),
    );
    assert_eq!(invalid, Err(error::INVALID_URI.to_owned()));
}

#[test]
fn r_m5_killing_by_authid_and_authrole_spares_the_caller() {
    let mut world = World::new();
    let (admin, twin) = (world.join("a"), world.join("a"));
    let other = world.join_as("o", "backend", true);
    assert_eq!(
        world.meta(admin, "wamp.session.kill_by_authid", json!(["a"])),
        Ok(Value::from(json!([twin])))
    );
    assert_eq!(
        world.meta(admin, "wamp.session.kill_by_authrole", json!(["device"])),
        Ok(Value::from(json!([])))
    );
    assert_eq!(
        world.meta(admin, "wamp.session.kill_by_authrole", json!(["backend"])),
        Ok(Value::from(json!([other])))
    );
    assert_eq!(world.realm.sessions.len(), 1);
}

#[test]
fn r_m8_meta_calls_and_topics_need_permission() {
    let mut lookup = entry("wamp.subscription.lookup", true);
    lookup.prefix = false;
    let mut world = World::with(vec![entry("re.", true), lookup]);
    let device = world.join("d");
    assert_eq!(
        world.meta(device, "wamp.session.count", json!([])),
        Err(error::NOT_AUTHORIZED.to_owned())
    );
    assert_eq!(
        world.meta(device, "wamp.subscription.lookup", json!(["re.x"])),
        Ok(Value::Null)
    );
    let sent = world.send(device, subscribe(1, "wamp.session.on_join", json!({})));
    assert_eq!(refused(sent, device), error::NOT_AUTHORIZED);
}
