//! Registering, calling, answering.

use super::*;
use crate::uri::error;

#[test]
fn r_r1_arguments_reach_the_callee_and_the_result_the_caller_untouched() {
    let mut world = World::new();
    let (callee, caller) = (world.join("c"), world.join("a"));
    let registration = world.register(callee, "re.ping");
    let sent = world.send(caller, call(5, "re.ping", json!({})));
    let Some((_, Message::Invocation { payload, .. })) = sent.first() else {
        panic!("{sent:?}");
    };
    assert_eq!(*payload, args(json!([1, "two"])));
    let (to, request, invoked, _) = invocation(sent);
    assert_eq!((to, request, invoked), (callee, 1, registration));
    let sent = world.send(callee, yields(1, json!({}), args(json!(["pong"]))));
    assert_eq!(
        sent,
        vec![(
            caller,
            Message::Result {
                request: 5,
                details: Dict::new(),
                payload: args(json!(["pong"]))
            }
        )]
    );
}

#[test]
fn r_r2_calling_an_unknown_procedure_is_an_error() {
    let mut world = World::new();
    let caller = world.join("a");
    let sent = world.send(caller, call(1, "nobody.home", json!({})));
    assert_eq!(
        refusal(sent, caller),
        (48, 1, error::NO_SUCH_PROCEDURE.to_owned())
    );
    assert_eq!(
        world.meta(caller, "wamp.nothing.here", json!([])),
        Err(error::NO_SUCH_PROCEDURE.to_owned())
    );
}

#[test]
fn r_r3_registering_twice_is_an_error_for_the_same_and_for_another_session() {
    let mut world = World::new();
    let (first, second) = (world.join("a"), world.join("b"));
    world.register(first, "p.q");
    for session in [first, second] {
        let sent = world.send(session, register(2, "p.q", json!({})));
        assert_eq!(
            refusal(sent, session),
            (64, 2, error::PROCEDURE_ALREADY_EXISTS.to_owned())
        );
    }
}

#[test]
fn r_r4_force_reregister_evicts_and_keeps_the_new_one() {
    let mut world = World::new();
    let (old, new, caller) = (world.join("d"), world.join("d"), world.join("s"));
    let evicted = world.register(old, "re.ping");
    world.send(caller, call(1, "re.ping", json!({})));

    let sent = world.send(new, register(9, "re.ping", json!({"force_reregister": true})));
    let [
        (to, Message::Unregistered { request: 0, details }),
        (_, Message::Registered { registration, .. }),
    ] = sent.as_slice()
    else {
        panic!("{sent:?}");
    };
    assert_eq!(*to, old);
    assert_eq!(details.get("registration"), Some(&Value::Uint(evicted)));
    assert_eq!(
        details.get("reason").and_then(Value::as_str),
        Some(error::UNREGISTERED)
    );
    assert_ne!(*registration, evicted);

    let sent = world.send(old, yields(1, json!({}), Payload::Empty));
    assert!(
        matches!(sent[..], [(id, Message::Result { request: 1, .. })] if id == caller),
        "still delivered"
    );
    assert_eq!(
        refused(world.send(old, unregister(2, evicted)), old),
        error::NO_SUCH_REGISTRATION
    );
    world.lose(old);
    let (callee, ..) = invocation(world.send(caller, call(2, "re.ping", json!({}))));
    assert_eq!(callee, new);
}

#[test]
fn r_r6_force_reregister_without_permission_evicts_nobody() {
    let mut gentle = entry("re.", true);
    gentle.force_register = false;
    let mut world = World::with(vec![gentle]);
    let (old, new, caller) = (
        world.join("a"),
        world.join("b"),
        world.join_as("s", "backend", true),
    );
    world.register(old, "re.ping");
    let sent = world.send(new, register(1, "re.ping", json!({"force_reregister": true})));
    assert_eq!(refused(sent, new), error::NOT_AUTHORIZED);
    let (callee, ..) = invocation(world.send(caller, call(1, "re.ping", json!({}))));
    assert_eq!(callee, old);
}

#[test]
fn permission_is_checked_before_existence() {
    let mut world = World::with(vec![entry("re.", true)]);
    let (backend, device) = (world.join_as("b", "backend", true), world.join("d"));
    world.register(backend, "secret.procedure");
    let sent = world.send(device, register(1, "secret.procedure", json!({})));
    assert_eq!(refused(sent, device), error::NOT_AUTHORIZED);
    let sent = world.send(device, call(2, "secret.procedure", json!({})));
    assert_eq!(refused(sent, device), error::NOT_AUTHORIZED);
    let sent = world.send(device, call(3, "secret.other", json!({})));
    assert_eq!(refused(sent, device), error::NOT_AUTHORIZED);
}

#[test]
fn r_r9_the_callees_error_keeps_its_arguments() {
    let mut world = World::new();
    let (callee, caller) = (world.join("c"), world.join("a"));
    world.register(callee, "p.q");
    world.send(caller, call(19, "p.q", json!({})));
    let payload = Payload::from_parts(list(json!(["a"])), dict(json!({"k": 1})));
    let sent = world.send(callee, fails(1, "my.error", payload.clone()));
    assert_eq!(
        sent,
        vec![(
            caller,
            Message::Error {
                request_type: 48,
                request: 19,
                details: Dict::new(),
                error: "my.error".to_owned(),
                payload
            }
        )]
    );
}

#[test]
fn an_invalid_error_uri_of_the_callee_still_answers_the_caller() {
    let mut world = World::new();
    let (callee, caller) = (world.join("c"), world.join("a"));
    world.register(callee, "p.q");
    world.send(caller, call(1, "p.q", json!({})));
    let sent = world.send(callee, fails(1, "not a uri", Payload::Empty));
    assert_eq!(refused(sent, caller), error::INVALID_URI);
    assert!(world.ended.is_empty());
}

#[test]
fn r_r10_partial_results_arrive_in_order_before_the_final_one() {
    let mut world = World::new();
    let (callee, caller) = (world.join("c"), world.join("a"));
    world.register(callee, "p.q");
    let (.., details) = invocation(world.send(caller, call(1, "p.q", json!({"receive_progress": true}))));
    assert_eq!(details.get("receive_progress"), Some(&Value::Bool(true)));
    let mut results = Vec::new();
    for (number, options) in [
        (0, json!({"progress": true})),
        (1, json!({"progress": true})),
        (2, json!({})),
    ] {
        for (_, message) in world.send(callee, yields(1, options, args(json!([number])))) {
            let Message::Result { details, payload, .. } = message else {
                panic!("{message:?}");
            };
            results.push((details.contains_key("progress"), payload));
        }
    }
    assert_eq!(
        results,
        vec![
            (true, args(json!([0]))),
            (true, args(json!([1]))),
            (false, args(json!([2])))
        ]
    );
    assert!(
        world
            .send(callee, yields(1, json!({"progress": true}), Payload::Empty))
            .is_empty()
    );
}

#[test]
fn r_r11_partial_results_nobody_asked_for_are_not_forwarded() {
    let mut world = World::new();
    let (callee, caller) = (world.join("c"), world.join("a"));
    world.register(callee, "p.q");
    world.send(caller, call(1, "p.q", json!({})));
    assert!(
        world
            .send(callee, yields(1, json!({"progress": true}), Payload::Empty))
            .is_empty()
    );
    let sent = world.send(callee, yields(1, json!({}), Payload::Empty));
    assert!(matches!(&sent[..], [(_, Message::Result { details, .. })] if details.is_empty()));
}

#[test]
fn r_r21_identity_is_disclosed_if_the_callers_role_says_so_and_the_callee_wants_it() {
    let mut world = World::new();
    let (callee, deaf) = (world.join("c"), world.join_as("o", "device", false));
    let (open, closed) = (world.join("12"), world.join_as("s", "backend", true));
    world.register(callee, "p.q");
    world.register(deaf, "p.deaf");
    let (.., details) = invocation(world.send(open, call(1, "p.q", json!({}))));
    assert_eq!(
        details,
        dict(json!({"caller": open, "caller_authid": "12", "caller_authrole": "device"}))
    );
    let (.., details) = invocation(world.send(closed, call(1, "p.q", json!({"disclose_me": true}))));
    assert!(details.is_empty(), "{details:?}");
    let (.., details) = invocation(world.send(open, call(2, "p.deaf", json!({}))));
    assert!(details.is_empty(), "{details:?}");
}

#[test]
fn r_r22_unregistering_an_unknown_or_foreign_id_is_an_error() {
    let mut world = World::new();
    let (owner, other) = (world.join("a"), world.join("b"));
    let registration = world.register(owner, "p.q");
    assert_eq!(
        refusal(world.send(other, unregister(4, registration)), other),
        (66, 4, error::NO_SUCH_REGISTRATION.to_owned())
    );
    assert_eq!(
        refused(world.send(owner, unregister(5, 12345)), owner),
        error::NO_SUCH_REGISTRATION
    );
    let sent = world.send(owner, unregister(6, registration));
    assert!(matches!(
        sent[..],
        [(_, Message::Unregistered { request: 6, .. })]
    ));
    assert_eq!(
        refused(world.send(owner, unregister(7, registration)), owner),
        error::NO_SUCH_REGISTRATION
    );
}

#[test]
fn r_r23_invocation_ids_count_from_one_in_each_callee_session() {
    let mut world = World::new();
    let (one, two, caller) = (world.join("a"), world.join("b"), world.join("c"));
    world.register(one, "p.one");
    world.register(two, "p.two");
    let mut ids = Vec::new();
    for (request, procedure) in [
        (1, "p.one"),
        (2, "p.two"),
        (3, "p.one"),
        (4, "p.one"),
        (5, "p.two"),
    ] {
        let (callee, id, ..) = invocation(world.send(caller, call(request, procedure, json!({}))));
        ids.push((callee == one, id));
    }
    assert_eq!(ids, vec![(true, 1), (false, 1), (true, 2), (true, 3), (false, 2)]);
}

#[test]
fn calls_in_flight_are_answered_after_unregister() {
    let mut world = World::new();
    let (callee, caller) = (world.join("c"), world.join("a"));
    let registration = world.register(callee, "p.q");
    world.send(caller, call(1, "p.q", json!({})));
    world.send(callee, unregister(2, registration));
    let sent = world.send(callee, yields(1, json!({}), Payload::Empty));
    assert!(matches!(sent[..], [(_, Message::Result { request: 1, .. })]));
}
