//! Testaments: added, flushed, published exactly once.

use super::*;
use crate::uri::error;

const ADD: &str = "wamp.session.add_testament";
const FLUSH: &str = "wamp.session.flush_testaments";

/// A device with three testaments, a backend that kills, and somebody who listens.
fn dying() -> (World, Id, Id, Id) {
    let mut world = World::new();
    let (device, admin) = (world.join("d"), world.join_as("x", "backend", true));
    let listener = world.join_as("l", "backend", true);
    world.subscribe(listener, "last.words", json!({}));
    let mut add = |args, kwargs| world.meta_with(device, ADD, args, kwargs).unwrap();
    add(json!(["last.words", [1], {}]), json!({}));
    add(json!(["last.words", [2], {}]), json!({"scope": "detached"}));
    add(
        json!([]),
        json!({"topic": "last.words", "args": [3], "kwargs": {}, "publish_options": null, "scope": "destroyed"}),
    );
    (world, device, admin, listener)
}

fn spoken(sent: &Sent, listener: Id) -> Vec<u64> {
    heard(sent, listener)
        .into_iter()
        .map(|(_, args)| args[0].as_u64().unwrap())
        .collect()
}

#[test]
fn r_m6_a_lost_session_publishes_detached_before_destroyed_in_order_and_once() {
    let (mut world, device, _, listener) = dying();
    let sent = world.lose(device);
    assert_eq!(spoken(&sent, listener), vec![2, 1, 3]);
    let details = &events(&sent)[0].3;
    assert_eq!(details.get("publisher_authid").and_then(Value::as_str), Some("d"));
    assert!(world.lose(device).is_empty());
}

#[test]
fn r_m6_goodbye_kill_and_violation_publish_as_well() {
    let (mut world, device, _, listener) = dying();
    let sent = world.send(device, goodbye());
    assert_eq!(spoken(&sent, listener), vec![2, 1, 3]);

    let (mut world, device, admin, listener) = dying();
    world.meta(admin, "wamp.session.kill", json!([device])).unwrap();
    assert_eq!(spoken(&world.aside, listener), vec![2, 1, 3]);
    assert!(world.send(device, goodbye()).is_empty());
    assert!(world.lose(device).is_empty());

    let (mut world, device, _, listener) = dying();
    let sent = world.send(
        device,
        Message::Published {
            request: 1,
            publication: 1,
        },
    );
    assert_eq!(spoken(&sent, listener), vec![2, 1, 3]);
}

#[test]
fn r_m6_testaments_come_before_on_leave() {
    let (mut world, device, _, listener) = dying();
    let leave = world.subscribe(listener, "wamp.session.on_leave", json!({}));
    let sent = world.lose(device);
    assert_eq!(
        heard(&sent, listener)
            .last()
            .map(|(subscription, _)| *subscription),
        Some(leave)
    );
}

#[test]
fn r_m7_flushing_counts_and_takes_one_scope() {
    let (mut world, device, _, listener) = dying();
    assert_eq!(
        world.meta(device, FLUSH, json!([])),
        Ok(Value::Uint(2)),
        "destroyed is the default"
    );
    assert_eq!(world.meta(device, FLUSH, json!([])), Ok(Value::Uint(0)));
    let sent = world.lose(device);
    assert_eq!(spoken(&sent, listener), vec![2]);

    let (mut world, device, _, listener) = dying();
    let flushed = world.meta_with(device, FLUSH, json!([]), json!({"scope": "detached"}));
    assert_eq!(flushed, Ok(Value::Uint(1)));
    let sent = world.lose(device);
    assert_eq!(spoken(&sent, listener), vec![1, 3]);
}

#[test]
fn r_m7_what_is_wrong_with_a_testament_is_said_when_it_is_added() {
    let mut world = World::with(vec![entry("re.", true), entry("wamp.", true)]);
    let device = world.join("d");
    let cases = [
        (json!([]), json!({}), error::RUNTIME_ERROR),
        (json!(["re.x"]), json!({}), error::RUNTIME_ERROR),
        (json!(["re.x", []]), json!({}), error::RUNTIME_ERROR),
        (json!(["re.x", {}, []]), json!({}), error::RUNTIME_ERROR),
        (
            json!(["re.x", [], {}, {"shout": true}]),
            json!({}),
            error::RUNTIME_ERROR,
        ),
        (
            json!(["re.x", [], {}, {"eligible": 1}]),
            json!({}),
            error::INVALID_ARGUMENT,
        ),
        (
            json!(["re.x", [], {}]),
            json!({"scope": "forever"}),
            error::TESTAMENT_ERROR,
        ),
        (json!(["other.x", [], {}]), json!({}), error::NOT_AUTHORIZED),
        (
            json!(["wamp.session.on_join", [], {}]),
            json!({}),
            error::INVALID_URI,
        ),
        (json!(["not a uri", [], {}]), json!({}), error::INVALID_URI),
    ];
    for (args, kwargs, expected) in cases {
        let answer = world.meta_with(device, ADD, args.clone(), kwargs);
        assert_eq!(answer, Err(expected.to_owned()), "{args}");
    }
    let wrong = world.meta(device, FLUSH, json!(["forever"]));
    assert_eq!(wrong, Err(error::TESTAMENT_ERROR.to_owned()));
}

#[test]
fn publish_options_of_a_testament_choose_its_receivers() {
    let mut world = World::new();
    let (device, one, two) = (world.join("d"), world.join("1"), world.join("2"));
    for session in [device, one, two] {
        world.subscribe(session, "last.words", json!({}));
    }
    let options = json!({"eligible_authid": ["1"], "acknowledge": true, "exclude_me": false});
    world
        .meta(device, ADD, json!(["last.words", [], {}, options]))
        .unwrap();
    assert_eq!(receivers(&world.lose(device)), vec![one]);
}

#[test]
fn testaments_are_bounded_in_bytes_and_so_are_the_arguments_of_every_meta_call() {
    let mut world = World::new();
    let one = world.join("a");
    let add = |world: &mut World, bytes: usize| {
        let arguments = json!(["t.x", ["x".repeat(bytes)], {}]);
        world.meta(one, "wamp.session.add_testament", arguments)
    };
    let mut added = 0;
    let refused = loop {
        match add(&mut world, 32 << 10) {
            Ok(_) => added += 1,
            Err(uri) => break uri,
        }
    };
    assert_eq!(refused, crate::uri::error::PAYLOAD_SIZE_EXCEEDED);
    assert_eq!(added, 7, "256 KiB, each a little over 32 KiB");
    add(&mut world, 10).unwrap();
    let call = Message::Call {
        request: 5,
        options: Dict::new(),
        procedure: "wamp.session.count".to_owned(),
        payload: Payload::Raw {
            codec: crate::Codec::Json,
            args: format!("[null,\"{}\"]", "x".repeat(64 << 10)).into(),
            kwargs: bytes::Bytes::new(),
        },
    };
    let sent = world.send(one, call);
    assert_eq!(
        super::refused(sent, one),
        crate::uri::error::PAYLOAD_SIZE_EXCEEDED
    );
}
