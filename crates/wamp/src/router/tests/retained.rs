//! Retained events through the realm.

use super::*;
use crate::uri::error;

/// `(publication, details)` of every EVENT that a SUBSCRIBE with `get_retained` brings.
fn retained_for(world: &mut World, session: Id, topic: &str, policy: &str) -> Vec<(Id, Dict)> {
    let options = json!({"match": policy, "get_retained": true});
    let sent = world.send(session, subscribe(1, topic, options));
    assert!(
        matches!(sent[0].1, Message::Subscribed { .. }),
        "SUBSCRIBED first"
    );
    // A broad pattern also shows what the router says about it.
    events(&sent)
        .into_iter()
        .filter(|(.., details)| details.contains_key("retained"))
        .map(|(receiver, _, publication, details)| {
            assert_eq!(receiver, session);
            (publication, details)
        })
        .collect()
}

fn published(sent: &Sent) -> Id {
    sent.iter()
        .find_map(|(_, message)| match message {
            Message::Published { publication, .. } => Some(*publication),
            _ => None,
        })
        .expect("an acknowledgement")
}

fn keep(world: &mut World, publisher: Id, topic: &str, mut options: serde_json::Value) -> Id {
    options["retain"] = true.into();
    options["acknowledge"] = true.into();
    published(&world.send(publisher, publish(9, topic, options)))
}

#[test]
fn r_p10_the_last_retained_event_follows_subscribed_and_says_so() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.join("p"), world.join("s"));
    keep(&mut world, publisher, "t.x", json!({}));
    let last = keep(&mut world, publisher, "t.x", json!({}));
    world.send(publisher, publish(3, "t.x", json!({})));
    let found = retained_for(&mut world, subscriber, "t.x", "exact");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, last);
    assert_eq!(
        found[0].1,
        dict(json!({
            "retained": true, "publisher": publisher, "publisher_authid": "p", "publisher_authrole": "device"
        }))
    );
    assert_eq!(
        events(&world.send(subscriber, subscribe(2, "t.x", json!({})))),
        vec![],
        "only on request"
    );
    assert_eq!(world.realm.counters().retained_events, 1);
}

#[test]
fn r_p10_patterns_bring_every_topic_with_its_name() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.join("p"), world.join("s"));
    for topic in ["t.a.x", "t.b.x", "t.b.y", "u.a.x"] {
        keep(&mut world, publisher, topic, json!({}));
    }
    for (pattern, policy, expected) in [
        ("t.", "prefix", vec!["t.a.x", "t.b.x", "t.b.y"]),
        ("t..x", "wildcard", vec!["t.a.x", "t.b.x"]),
        ("t.a.x", "wildcard", vec!["t.a.x"]),
    ] {
        let found = retained_for(&mut world, subscriber, pattern, policy);
        let topics: Vec<_> = found
            .iter()
            .map(|(_, details)| details["topic"].as_str().unwrap())
            .collect();
        assert_eq!(topics, expected, "{pattern}");
    }
}

#[test]
fn r_p10_nobody_gets_a_retained_event_that_it_would_not_have_got_when_it_was_published() {
    let mut world = World::with(vec![entry("", true), entry("secret.", false)]);
    let admin = world.join_as("x", "backend", true);
    let (one, two) = (world.join("1"), world.join("2"));
    let general = keep(&mut world, admin, "t.x", json!({}));
    let special = keep(&mut world, admin, "t.x", json!({"eligible_authid": ["1"]}));
    keep(&mut world, admin, "secret.x", json!({}));
    let seen = |world: &mut World, session| {
        let found = retained_for(world, session, "", "prefix");
        found
            .into_iter()
            .map(|(publication, _)| publication)
            .collect::<Vec<_>>()
    };
    assert_eq!(seen(&mut world, one), vec![special]);
    assert_eq!(seen(&mut world, two), vec![general]);
    assert_eq!(seen(&mut world, admin), Vec::<Id>::new(), "its own events");
    let mine = keep(&mut world, admin, "t.x", json!({"exclude_me": false}));
    assert_eq!(seen(&mut world, admin), vec![mine]);
}

#[test]
fn r_p10_a_retained_event_outlives_publisher_and_subscription_and_a_testament_can_be_one() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.join("p"), world.join("s"));
    let arguments = json!(["t.status", ["gone"], {}, {"retain": true}]);
    world
        .meta(publisher, "wamp.session.add_testament", arguments)
        .unwrap();
    world.lose(publisher);
    for _ in 0..2 {
        let found = retained_for(&mut world, subscriber, "t.status", "exact");
        assert_eq!(found.len(), 1);
        let id = world
            .realm
            .subscriptions
            .find(super::super::pattern::MatchPolicy::Exact, "t.status");
        world.send(subscriber, unsubscribe(2, id.unwrap()));
        assert_eq!(world.realm.subscriptions.len(), 0);
    }
}

#[test]
fn r_p10_a_refused_publication_is_not_retained_and_the_bound_holds() {
    let limits = Limits {
        max_retained: 2,
        ..Limits::default()
    };
    let mut world = World::bounded(limits);
    let session = world.join("p");
    for (topic, options) in [
        ("wamp.x", json!({"retain": true})),
        ("t x", json!({"retain": true})),
        ("t.x", json!({"retain": 1})),
        ("t.x", json!({"retain": true, "eligible": 1})),
    ] {
        assert!(world.send(session, publish(1, topic, options)).is_empty());
    }
    assert_eq!(world.realm.retained.len(), 0);
    for topic in ["t.1", "t.2", "t.3"] {
        keep(&mut world, session, topic, json!({}));
    }
    let counters = world.realm.counters();
    assert_eq!((counters.retained_events, counters.replaced_retained), (2, 1));
    let sent = world.send(session, subscribe(1, "t.1", json!({"get_retained": "yes"})));
    assert_eq!(refused(sent, session), error::INVALID_ARGUMENT);
}
