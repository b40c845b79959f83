//! Subscribing and publishing.

use super::*;
use crate::uri::error;

#[test]
fn r_p1_subscribing_twice_gives_one_subscription_that_one_unsubscribe_ends() {
    let mut world = World::new();
    let (subscriber, publisher) = (world.join("s"), world.join("p"));
    let id = world.subscribe(subscriber, "t.x", json!({}));
    assert_eq!(world.subscribe(subscriber, "t.x", json!({})), id);
    assert_eq!(
        receivers(&world.send(publisher, publish(1, "t.x", json!({})))),
        vec![subscriber]
    );
    let sent = world.send(subscriber, unsubscribe(3, id));
    assert!(matches!(
        sent[..],
        [(_, Message::Unsubscribed { request: 3, .. })]
    ));
    assert!(world.send(publisher, publish(2, "t.x", json!({}))).is_empty());
    assert_eq!(
        refusal(world.send(subscriber, unsubscribe(4, id)), subscriber),
        (34, 4, error::NO_SUCH_SUBSCRIPTION.to_owned())
    );
}

#[test]
fn r_p2_only_an_acknowledged_publication_is_answered_with_the_events_id() {
    let mut world = World::new();
    let (subscriber, publisher) = (world.join("s"), world.join("p"));
    world.subscribe(subscriber, "t.x", json!({}));
    let sent = world.send(publisher, publish(1, "t.x", json!({"acknowledge": true})));
    let published = sent.iter().find_map(|(id, message)| match message {
        Message::Published {
            request: 1,
            publication,
        } if *id == publisher => Some(*publication),
        _ => None,
    });
    assert_eq!(published, Some(events(&sent)[0].2));
    let sent = world.send(publisher, publish(2, "t.x", json!({})));
    assert_eq!(sent.len(), 1, "nothing but the event: {sent:?}");
}

#[test]
fn r_p3_every_matching_subscription_gives_an_event_with_the_same_publication() {
    let mut world = World::new();
    let (subscriber, publisher) = (world.join("s"), world.join_as("p", "backend", true));
    let exact = world.subscribe(subscriber, "a.b.c", json!({}));
    let prefix = world.subscribe(subscriber, "a.", json!({"match": "prefix"}));
    let wildcard = world.subscribe(subscriber, "a..c", json!({"match": "wildcard"}));
    let found = events(&world.send(publisher, publish(1, "a.b.c", json!({}))));
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|event| event.2 == found[0].2));
    let topics: HashMap<Id, Option<&str>> = found
        .iter()
        .map(|event| (event.1, event.3.get("topic").and_then(Value::as_str)))
        .collect();
    assert_eq!(
        topics,
        HashMap::from([(exact, None), (prefix, Some("a.b.c")), (wildcard, Some("a.b.c"))])
    );
}

#[test]
fn r_p4_the_publisher_is_excluded_unless_it_asks() {
    let mut world = World::new();
    let session = world.join("s");
    world.subscribe(session, "t.x", json!({}));
    assert!(world.send(session, publish(1, "t.x", json!({}))).is_empty());
    let sent = world.send(session, publish(2, "t.x", json!({"exclude_me": false})));
    assert_eq!(receivers(&sent), vec![session]);
}

#[test]
fn r_p5_exclude_and_eligible_lists_are_sets_and_an_empty_eligible_list_means_nobody() {
    let mut world = World::new();
    let publisher = world.join("p");
    let (a, b) = (world.join("a"), world.join("b"));
    let c = world.join_as("c", "backend", true);
    for session in [a, b, c] {
        world.subscribe(session, "t.x", json!({}));
    }
    let cases = [
        (json!({"exclude": [a]}), vec![b, c]),
        (json!({"exclude": []}), vec![a, b, c]),
        (json!({"exclude_authid": ["a", "zz"]}), vec![b, c]),
        (json!({"exclude_authrole": ["device"]}), vec![c]),
        (json!({"eligible": [a, b]}), vec![a, b]),
        (json!({"eligible_authid": ["b"]}), vec![b]),
        (json!({"eligible_authrole": ["backend"]}), vec![c]),
        (json!({"eligible": [a, b], "exclude": [a]}), vec![b]),
        (
            json!({"eligible": [a, c], "eligible_authrole": ["device"]}),
            vec![a],
        ),
        (json!({"eligible": []}), vec![]),
        (json!({"eligible_authid": []}), vec![]),
        (json!({"eligible_authrole": []}), vec![]),
        (json!({"eligible": null}), vec![a, b, c]),
    ];
    for (request, (options, expected)) in (1..).zip(cases) {
        let sent = world.send(publisher, publish(request, "t.x", options.clone()));
        assert_eq!(receivers(&sent), expected, "{options}");
    }
    let sent = world.send(
        publisher,
        publish(90, "t.x", json!({"acknowledge": true, "eligible": "a"})),
    );
    assert_eq!(refused(sent, publisher), error::INVALID_ARGUMENT);
}

#[test]
fn r_p6_subscribed_comes_before_the_first_event_and_nothing_after_unsubscribed() {
    let mut world = World::new();
    let session = world.join("s");
    let watched = world.subscribe(session, "wamp.subscription.", json!({"match": "prefix"}));
    let sent = world.send(session, subscribe(2, "t.x", json!({})));
    assert!(matches!(sent[0], (_, Message::Subscribed { request: 2, .. })));
    assert_eq!(events(&sent).len(), 2, "on_create and on_subscribe");
    let sent = world.send(session, unsubscribe(3, watched));
    assert_eq!(sent.len(), 1);
}

#[test]
fn r_p7_an_unauthorised_publication_is_dropped_or_refused_if_acknowledged() {
    let mut world = World::with(vec![entry("re.", true)]);
    let (listener, device) = (world.join_as("b", "backend", true), world.join("d"));
    world.subscribe(listener, "other.topic", json!({}));
    assert!(
        world
            .send(device, publish(1, "other.topic", json!({})))
            .is_empty()
    );
    let sent = world.send(device, publish(2, "other.topic", json!({"acknowledge": true})));
    assert_eq!(refusal(sent, device), (16, 2, error::NOT_AUTHORIZED.to_owned()));
}

#[test]
fn the_publisher_is_named_if_its_role_discloses_it() {
    let mut world = World::new();
    let (subscriber, open) = (world.join("s"), world.join("7-42"));
    let closed = world.join_as("b", "backend", true);
    world.subscribe(subscriber, "t.x", json!({}));
    let found = events(&world.send(open, publish(1, "t.x", json!({}))));
    assert_eq!(
        found[0].3,
        dict(json!({"publisher": open, "publisher_authid": "7-42", "publisher_authrole": "device"}))
    );
    let found = events(&world.send(closed, publish(1, "t.x", json!({"disclose_me": true}))));
    assert!(found[0].3.is_empty());
}

#[test]
fn a_broad_pattern_shows_only_what_the_role_may_see() {
    let mut world = World::with(vec![entry("", true), entry("secret.", false)]);
    let (device, publisher) = (world.join("d"), world.join_as("b", "backend", true));
    world.subscribe(device, "", json!({"match": "prefix"}));
    assert_eq!(
        receivers(&world.send(publisher, publish(1, "open.x", json!({})))),
        vec![device]
    );
    assert!(
        world
            .send(publisher, publish(2, "secret.x", json!({})))
            .is_empty()
    );
}

#[test]
fn r_p9_one_event_is_shared_by_all_receivers_of_a_subscription_and_encoded_once() {
    let mut world = World::new();
    let publisher = world.join("p");
    for _ in 0..3 {
        let subscriber = world.join("s");
        world.subscribe(subscriber, "t.x", json!({}));
    }
    world
        .realm
        .receive(publisher, publish(1, "t.x", json!({})), world.now);
    let frames: Vec<_> = world
        .realm
        .outbox
        .drain()
        .map(|(_, delivery)| match delivery {
            Delivery::Send(outgoing) => outgoing.encode(crate::Codec::Json).unwrap(),
            Delivery::Counters(_) | Delivery::Forget(_) | Delivery::End(..) => {
                panic!("nobody asks or leaves")
            }
        })
        .collect();
    assert_eq!(frames.len(), 3);
    assert!(
        frames.iter().all(|frame| frame.as_ptr() == frames[0].as_ptr()),
        "encoded once"
    );
}
