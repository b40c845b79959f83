//! How calls end before their time: cancelled, timed out, a peer lost, a wrong answer.

use super::*;
use crate::uri::error;

/// A callee (able to be interrupted or not), a caller, and a call with id 1 under way.
fn pending(able: bool) -> (World, Id, Id) {
    let mut world = World::new();
    let callee = world.join_as("c", "device", able);
    let caller = world.join("a");
    world.register(callee, "p.q");
    invocation(world.send(caller, call(1, "p.q", json!({}))));
    (world, callee, caller)
}

#[track_caller]
fn interrupted(message: &(Id, Message), callee: Id, mode: &str) {
    match message {
        (id, Message::Interrupt { request: 1, options }) if *id == callee => {
            assert_eq!(options.get("mode").and_then(Value::as_str), Some(mode));
        }
        other => panic!("expected INTERRUPT: {other:?}"),
    }
}

#[test]
fn r_r12_skip_answers_the_caller_at_once_and_drops_the_late_result() {
    let (mut world, callee, caller) = pending(true);
    let sent = world.send(caller, cancel(1, json!({"mode": "skip"})));
    assert_eq!(refusal(sent, caller), (48, 1, error::CANCELED.to_owned()));
    assert!(
        world
            .send(callee, yields(1, json!({}), Payload::Empty))
            .is_empty()
    );
    assert!(world.ended.is_empty());
}

#[test]
fn late_answers_of_a_cancelled_call_never_reach_a_new_call_under_its_id() {
    let mut world = World::new();
    let (callee, caller) = (world.join("c"), world.join("a"));
    world.register(callee, "p.q");
    world.send(caller, call(1, "p.q", json!({"receive_progress": true})));
    world.send(caller, cancel(1, json!({"mode": "skip"})));
    let (_, second, ..) = invocation(world.send(caller, call(1, "p.q", json!({}))));
    for options in [json!({"progress": true}), json!({})] {
        assert!(world.send(callee, yields(1, options, Payload::Empty)).is_empty());
    }
    let sent = world.send(callee, yields(second, json!({}), Payload::Empty));
    assert!(matches!(sent[..], [(_, Message::Result { request: 1, .. })]));
}

#[test]
fn r_r13_kill_answers_the_caller_after_the_callee() {
    for answer in [
        yields(1, json!({}), Payload::Empty),
        fails(1, error::CANCELED, Payload::Empty),
    ] {
        let (mut world, callee, caller) = pending(true);
        let sent = world.send(caller, cancel(1, json!({"mode": "kill"})));
        assert_eq!(sent.len(), 1);
        interrupted(&sent[0], callee, "kill");
        assert!(
            world.send(caller, cancel(1, json!({"mode": "kill"}))).is_empty(),
            "told once"
        );
        assert_eq!(refused(world.send(callee, answer), caller), error::CANCELED);
    }
}

#[test]
fn r_r14_killnowait_is_the_default_and_answers_both_at_once() {
    for options in [json!({}), json!({"mode": "killnowait"}), json!({"mode": null})] {
        let (mut world, callee, caller) = pending(true);
        let sent = world.send(caller, cancel(1, options));
        assert_eq!(sent.len(), 2);
        interrupted(&sent[0], callee, "killnowait");
        assert_eq!(refused(sent[1..].to_vec(), caller), error::CANCELED);
        assert!(
            world
                .send(callee, yields(1, json!({}), Payload::Empty))
                .is_empty()
        );
        assert!(
            world
                .send(callee, yields(1, json!({}), Payload::Empty))
                .is_empty(),
            "a second late answer"
        );
        assert!(world.ended.is_empty());
    }
}

#[test]
fn r_r15_kill_of_a_callee_that_cannot_be_interrupted_behaves_as_skip() {
    for mode in ["kill", "killnowait"] {
        let (mut world, callee, caller) = pending(false);
        let sent = world.send(caller, cancel(1, json!({"mode": mode})));
        assert_eq!(refused(sent, caller), error::CANCELED);
        assert!(
            world
                .send(callee, yields(1, json!({}), Payload::Empty))
                .is_empty()
        );
    }
}

#[test]
fn r_r16_cancelling_an_unknown_or_finished_call_is_ignored() {
    let (mut world, callee, caller) = pending(true);
    assert!(world.send(caller, cancel(2, json!({}))).is_empty());
    world.send(callee, yields(1, json!({}), Payload::Empty));
    assert!(world.send(caller, cancel(1, json!({"mode": "kill"}))).is_empty());
    assert!(world.ended.is_empty());
}

#[test]
fn r_r17_a_timeout_ends_the_call_on_both_sides() {
    let mut world = World::new();
    let (callee, caller) = (world.join("c"), world.join("a"));
    world.register(callee, "p.q");
    world.send(caller, call(1, "p.q", json!({"timeout": 200})));
    assert_eq!(
        world.realm.next_deadline(caller),
        Some(world.now + Duration::from_millis(200))
    );
    assert!(world.advance(caller, Duration::from_millis(199)).is_empty());
    let sent = world.advance(caller, Duration::from_millis(1));
    interrupted(&sent[0], callee, "killnowait");
    assert_eq!(
        refusal(sent[1..].to_vec(), caller),
        (48, 1, error::TIMEOUT.to_owned())
    );
    assert_eq!(world.realm.next_deadline(caller), None);
    assert!(
        world
            .send(callee, yields(1, json!({}), Payload::Empty))
            .is_empty()
    );
}

#[test]
fn r_r17_an_answered_call_leaves_no_timer_behind() {
    let mut world = World::new();
    let (callee, caller) = (world.join("c"), world.join("a"));
    world.register(callee, "p.q");
    world.send(caller, call(1, "p.q", json!({"timeout": 200})));
    world.send(callee, yields(1, json!({}), Payload::Empty));
    assert_eq!(world.realm.next_deadline(caller), None);
    world.send(caller, call(2, "p.q", json!({"timeout": 0})));
    assert_eq!(world.realm.next_deadline(caller), None, "0 means none");
    let sent = world.send(caller, call(3, "p.q", json!({"timeout": -5})));
    assert_eq!(refused(sent, caller), error::INVALID_ARGUMENT);
}

#[test]
fn r_r18_a_lost_caller_interrupts_the_callee_whose_session_lives() {
    let (mut world, callee, caller) = pending(true);
    let sent = world.lose(caller);
    assert_eq!(sent.len(), 1);
    interrupted(&sent[0], callee, "killnowait");
    assert!(
        world
            .send(callee, yields(1, json!({}), Payload::Empty))
            .is_empty()
    );
    assert!(world.ended.is_empty());
}

#[test]
fn r_r19_a_lost_callee_answers_every_waiting_caller() {
    let (mut world, callee, caller) = pending(true);
    let other = world.join("x");
    world.send(other, call(8, "p.q", json!({})));
    let mut sent = world.lose(callee);
    sent.sort_by_key(|(id, _)| *id);
    assert_eq!(
        refusal(sent[..1].to_vec(), caller),
        (48, 1, error::CANCELED.to_owned())
    );
    assert_eq!(
        refusal(sent[1..].to_vec(), other),
        (48, 8, error::CANCELED.to_owned())
    );
    assert_eq!(
        refused(world.send(caller, call(2, "p.q", json!({}))), caller),
        error::NO_SUCH_PROCEDURE
    );
}

#[test]
fn r_r20_answering_an_invocation_that_was_never_issued_is_a_violation_and_harms_nobody() {
    for answer in [
        yields(1, json!({}), Payload::Empty),
        fails(1, "my.error", Payload::Empty),
    ] {
        let (mut world, callee, caller) = pending(true);
        let intruder = world.join("i");
        world.send(intruder, answer);
        assert_eq!(world.ended, vec![(intruder, Ending::Violation)]);
        let sent = world.send(callee, yields(1, json!({}), Payload::Empty));
        assert!(matches!(sent[..], [(id, Message::Result { request: 1, .. })] if id == caller));
    }
}

#[test]
fn reusing_the_id_of_a_pending_call_is_a_violation() {
    let (mut world, _, caller) = pending(true);
    world.send(caller, call(1, "p.q", json!({})));
    assert_eq!(world.ended, vec![(caller, Ending::Violation)]);
}

#[test]
fn a_session_may_call_itself_and_leave_in_the_middle() {
    let mut world = World::new();
    let session = world.join("a");
    world.register(session, "p.q");
    invocation(world.send(session, call(1, "p.q", json!({}))));
    assert!(world.lose(session).is_empty());
    assert!(world.realm.sessions.is_empty());
}

#[test]
fn a_partial_result_that_cannot_be_delivered_ends_the_call_with_one_error() {
    let mut world = World::new();
    let (caller, callee) = (world.join("a"), world.join("b"));
    world.register(callee, "p.q");
    let sent = world.send(caller, call(1, "p.q", json!({"receive_progress": true})));
    let (_, invocation, _, _) = invocation(sent);
    world.send(
        callee,
        yields(invocation, json!({"progress": true}), Payload::Empty),
    );
    world
        .realm
        .fail_call(caller, 1, error::RUNTIME_ERROR, "no form in this encoding");
    let sent = world.drain();
    assert_eq!(
        receivers_of_all(&sent),
        vec![(callee, "INTERRUPT"), (caller, "ERROR")],
        "{sent:?}"
    );
    let sent = world.send(callee, yields(invocation, json!({}), Payload::Empty));
    assert!(sent.is_empty(), "{sent:?}");
}

fn receivers_of_all(sent: &Sent) -> Vec<(Id, &'static str)> {
    sent.iter()
        .map(|(id, message)| match message {
            Message::Interrupt { .. } => (*id, "INTERRUPT"),
            Message::Error { .. } => (*id, "ERROR"),
            other => panic!("{other:?}"),
        })
        .collect()
}
