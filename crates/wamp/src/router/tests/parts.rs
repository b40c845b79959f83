//! Calls in parts (progressive call invocations): one callee, one id, one reply.

use super::*;
use crate::message::code;
use crate::uri::error;

fn part(request: Id, more: bool, number: u64) -> Message {
    part_with(request, json!({"progress": more}), number)
}

fn part_with(request: Id, options: serde_json::Value, number: u64) -> Message {
    Message::Call {
        request,
        options: dict(options),
        procedure: "p.q".to_owned(),
        payload: args(json!([number])),
    }
}

/// A callee, a caller and the first part of a call with id 1.
fn begun() -> (World, Id, Id) {
    let mut world = World::new();
    let (callee, caller) = (world.join("c"), world.join("a"));
    world.register(callee, "p.q");
    let (to, request, _, details) = invocation(world.send(caller, part(1, true, 0)));
    assert_eq!((to, request), (callee, 1));
    assert_eq!(details["progress"], Value::Bool(true));
    (world, callee, caller)
}

#[track_caller]
fn interrupts(sent: &Sent, callee: Id) {
    let found = sent.iter().any(|(id, message)| {
        *id == callee
            && matches!(message, Message::Interrupt { request: 1, options }
            if options["mode"].as_str() == Some("killnowait"))
    });
    assert!(found, "{sent:?}");
}

#[test]
fn r_r1_every_part_reaches_the_same_callee_under_one_id_and_one_reply_ends_the_call() {
    let mut world = World::new();
    let (one, two, caller) = (world.join("1"), world.join("2"), world.join("7-42"));
    for callee in [one, two] {
        world.register_with(callee, "p.q", json!({"invoke": "roundrobin"}));
    }
    let options = json!({"progress": true, "receive_progress": true});
    let (callee, request, registration, first) = invocation(world.send(caller, part_with(1, options, 0)));
    // Whatever else later parts say, only `progress` counts.
    let options = json!({"progress": true, "timeout": 5, "receive_progress": false});
    let next = invocation(world.send(caller, part_with(1, options, 1)));
    assert_eq!(next, (callee, request, registration, first.clone()));
    assert_eq!(first["caller_authid"].as_str(), Some("7-42"));
    // The other call in between goes to the other callee.
    let between = invocation(world.send(caller, call(2, "p.q", json!({}))));
    assert_ne!(between.0, callee);
    let sent = world.send(callee, yields(request, json!({"progress": true}), Payload::Empty));
    assert!(matches!(sent[..], [(id, Message::Result { request: 1, .. })] if id == caller));
    let last = invocation(world.send(caller, part(1, false, 2)));
    assert_eq!((last.0, last.1), (callee, request));
    assert!(!last.3.contains_key("progress") && last.3.contains_key("receive_progress"));
    assert_eq!(world.realm.next_deadline(caller), None);
    let sent = world.send(callee, yields(request, json!({}), Payload::Empty));
    assert!(matches!(sent[..], [(id, Message::Result { request: 1, .. })] if id == caller));
    // The call is over, so its id would be a new one.
    assert!(matches!(
        world.send(caller, call(1, "p.q", json!({})))[..],
        [(_, Message::Invocation { .. })]
    ));
}

#[test]
fn parts_that_come_after_the_reply_go_nowhere() {
    for last_word in [
        yields(1, json!({}), Payload::Empty),
        fails(1, "my.error", Payload::Empty),
    ] {
        let (mut world, callee, caller) = begun();
        assert_eq!(world.send(callee, last_word).len(), 1);
        assert!(world.send(caller, part(1, true, 1)).is_empty());
        assert!(world.send(caller, part(1, false, 2)).is_empty());
        assert!(world.ended.is_empty());
    }
}

#[test]
fn a_call_that_cannot_begin_is_refused_once_whatever_follows() {
    let mut world = World::new();
    let (unable, caller) = (world.join_as("c", "device", false), world.join("a"));
    let sent = world.send(caller, part(1, true, 0));
    assert_eq!(refused(sent, caller), error::NO_SUCH_PROCEDURE);
    world.register(unable, "p.q");
    assert!(world.send(caller, part(1, true, 1)).is_empty());
    assert!(world.send(caller, part(1, false, 2)).is_empty());
    let sent = world.send(caller, part(2, true, 0));
    assert_eq!(refused(sent, caller), error::FEATURE_NOT_SUPPORTED);
    let mut meta = part(3, true, 0);
    if let Message::Call { procedure, .. } = &mut meta {
        *procedure = "wamp.session.count".to_owned();
    }
    assert_eq!(
        refused(world.send(caller, meta), caller),
        error::FEATURE_NOT_SUPPORTED
    );
    let sent = world.send(caller, part_with(4, json!({"progress": 1}), 0));
    assert_eq!(refused(sent, caller), error::INVALID_ARGUMENT);
}

#[test]
fn who_has_not_announced_calls_in_parts_may_not_make_them() {
    let mut world = World::new();
    let caller = world.join_as("a", "device", false);
    world.send(caller, part(1, true, 0));
    assert_eq!(world.ended, vec![(caller, Ending::Violation)]);
    // A second call under the id of one that did not announce more parts.
    let mut world = World::new();
    let (callee, caller) = (world.join("c"), world.join("a"));
    world.register(callee, "p.q");
    world.send(caller, part(1, false, 0));
    world.send(caller, part(1, true, 0));
    assert_eq!(world.ended, vec![(caller, Ending::Violation)]);
}

#[test]
fn cancelling_a_call_in_parts_ends_it_in_every_mode() {
    let (mut world, callee, caller) = begun();
    let sent = world.send(caller, cancel(1, json!({})));
    interrupts(&sent, callee);
    assert_eq!(refused(sent[1..].to_vec(), caller), error::CANCELED);
    assert!(world.send(caller, part(1, false, 1)).is_empty());

    let (mut world, _, caller) = begun();
    let sent = world.send(caller, cancel(1, json!({"mode": "skip"})));
    assert_eq!(refused(sent, caller), error::CANCELED);
    assert!(world.send(caller, part(1, true, 1)).is_empty());

    let (mut world, callee, caller) = begun();
    assert_eq!(world.send(caller, cancel(1, json!({"mode": "kill"}))).len(), 1);
    assert!(
        world.send(caller, part(1, true, 1)).is_empty(),
        "the callee is to stop"
    );
    let sent = world.send(callee, fails(1, error::CANCELED, Payload::Empty));
    assert_eq!(refused(sent, caller), error::CANCELED);
    assert!(world.send(caller, part(1, false, 2)).is_empty());
}

#[test]
fn timeouts_and_lost_peers_end_a_call_in_parts() {
    let mut world = World::new();
    let (callee, caller) = (world.join("c"), world.join("a"));
    world.register(callee, "p.q");
    world.send(caller, part_with(1, json!({"progress": true, "timeout": 100}), 0));
    world.send(caller, part(1, true, 1));
    let sent = world.advance(caller, Duration::from_millis(100));
    interrupts(&sent, callee);
    assert_eq!(refused(sent[1..].to_vec(), caller), error::TIMEOUT);

    let (mut world, callee, caller) = begun();
    let sent = world.lose(caller);
    interrupts(&sent, callee);

    let (mut world, callee, caller) = begun();
    assert_eq!(refused(world.lose(callee), caller), error::CANCELED);
    assert!(world.send(caller, part(1, false, 1)).is_empty());
}

#[test]
fn a_part_that_does_not_fit_or_makes_no_sense_ends_the_call_with_one_error() {
    let (mut world, callee, caller) = begun();
    invocation(world.send(caller, part(1, true, 1)));
    world.realm.refuse_invocation(callee, 1);
    let sent = world.drain();
    interrupts(&sent, callee);
    assert_eq!(
        refusal(sent[1..].to_vec(), caller),
        (code::CALL, 1, error::NETWORK_FAILURE.to_owned())
    );
    assert!(world.send(caller, part(1, false, 2)).is_empty());
    assert!(
        world
            .send(callee, yields(1, json!({}), Payload::Empty))
            .is_empty()
    );

    let (mut world, callee, caller) = begun();
    let sent = world.send(caller, part_with(1, json!({"progress": []}), 1));
    interrupts(&sent, callee);
    assert_eq!(refused(sent[1..].to_vec(), caller), error::INVALID_ARGUMENT);
    assert!(world.ended.is_empty());

    // The first part of a call that the callee never got needs no INTERRUPT.
    let (mut world, callee, caller) = begun();
    world.realm.refuse_invocation(callee, 1);
    assert_eq!(refused(world.drain(), caller), error::NETWORK_FAILURE);
}

#[test]
fn r_v5_further_parts_are_no_new_requests_where_ids_are_checked() {
    let mut world = World::strict();
    let (callee, caller) = (world.join("c"), world.join("a"));
    world.register(callee, "p.q");
    world.send(caller, part(1, true, 0));
    world.send(caller, publish(2, "t.x", json!({})));
    invocation(world.send(caller, part(1, true, 1)));
    world.send(callee, yields(1, json!({}), Payload::Empty));
    assert!(
        world.send(caller, part(1, false, 2)).is_empty(),
        "late, but no new request"
    );
    assert!(world.ended.is_empty());
    world.send(caller, subscribe(1, "t.x", json!({})));
    assert_eq!(world.ended, vec![(caller, Ending::Violation)]);
}
