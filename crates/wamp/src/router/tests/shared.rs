//! Shared and pattern registrations.

use super::*;
use crate::uri::error;

/// Who gets the next `count` calls to `p.q`, by position among `callees`.
fn turns(world: &mut World, caller: Id, callees: &[Id], count: u64) -> Vec<usize> {
    (0..count)
        .map(|_| {
            // Any fresh number will do as a request id.
            world.next_id += 1;
            let request = world.next_id;
            let (callee, ..) = invocation(world.send(caller, call(request, "p.q", json!({}))));
            callees.iter().position(|id| *id == callee).unwrap()
        })
        .collect()
}

fn share(invoke: &str, count: usize) -> (World, Id, Vec<Id>) {
    let mut world = World::new();
    let caller = world.join("s");
    let callees: Vec<Id> = (0..count).map(|_| world.join("c")).collect();
    let registrations: Vec<Id> = callees
        .iter()
        .map(|callee| world.register_with(*callee, "p.q", json!({"invoke": invoke})))
        .collect();
    assert!(
        registrations.windows(2).all(|pair| pair[0] == pair[1]),
        "one id for all"
    );
    (world, caller, callees)
}

#[test]
fn r_r7_roundrobin_takes_turns_in_the_order_of_registration() {
    let (mut world, caller, callees) = share("roundrobin", 3);
    assert_eq!(turns(&mut world, caller, &callees, 5), vec![0, 1, 2, 0, 1]);
    world.lose(callees[0]);
    assert_eq!(turns(&mut world, caller, &callees, 3), vec![2, 1, 2]);
}

#[test]
fn r_r7_first_last_and_random_choose_as_named() {
    let (mut world, caller, callees) = share("first", 3);
    assert_eq!(turns(&mut world, caller, &callees, 2), vec![0, 0]);
    world.lose(callees[0]);
    assert_eq!(turns(&mut world, caller, &callees, 2), vec![1, 1]);
    let (mut world, caller, callees) = share("last", 3);
    assert_eq!(turns(&mut world, caller, &callees, 2), vec![2, 2]);
    let (mut world, caller, callees) = share("random", 3);
    let mut seen = turns(&mut world, caller, &callees, 60);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, vec![0, 1, 2]);
}

#[test]
fn r_r7_another_policy_or_a_second_time_is_an_error() {
    let (mut world, caller, callees) = share("roundrobin", 2);
    let sent = world.send(caller, register(3, "p.q", json!({"invoke": "first"})));
    assert_eq!(
        refused(sent, caller),
        error::PROCEDURE_EXISTS_WITH_DIFFERENT_POLICY
    );
    let sent = world.send(callees[0], register(3, "p.q", json!({"invoke": "roundrobin"})));
    assert_eq!(refused(sent, callees[0]), error::PROCEDURE_ALREADY_EXISTS);
}

#[test]
fn r_r5_force_reregister_evicts_all_callees_of_a_shared_registration() {
    let (mut world, caller, callees) = share("roundrobin", 3);
    let sent = world.send(caller, register(3, "p.q", json!({"force_reregister": true})));
    let revoked: Vec<Id> = sent
        .iter()
        .filter(|(_, message)| matches!(message, Message::Unregistered { request: 0, .. }))
        .map(|(id, _)| *id)
        .collect();
    assert_eq!(revoked, callees);
    assert!(matches!(sent.last(), Some((id, Message::Registered { request: 3, .. })) if *id == caller));
    assert_eq!(world.realm.registrations.len(), 1);
}

#[test]
fn r_r8_overlapping_patterns_go_to_the_closest_and_name_the_procedure() {
    let mut world = World::new();
    let (exact, prefix, wildcard) = (world.join("e"), world.join("p"), world.join("w"));
    let caller = world.join_as("s", "backend", true);
    world.register(exact, "a.b.c");
    world.register_with(prefix, "a.b", json!({"match": "prefix"}));
    world.register_with(wildcard, "a..c", json!({"match": "wildcard"}));
    let (callee, .., details) = invocation(world.send(caller, call(1, "a.b.c", json!({}))));
    assert_eq!((callee, details), (exact, Dict::new()));
    let (callee, .., details) = invocation(world.send(caller, call(2, "a.b.d", json!({}))));
    assert_eq!((callee, details), (prefix, dict(json!({"procedure": "a.b.d"}))));
    let (callee, .., details) = invocation(world.send(caller, call(3, "a.x.c", json!({}))));
    assert_eq!((callee, details), (wildcard, dict(json!({"procedure": "a.x.c"}))));
}

#[test]
fn the_same_uri_may_be_registered_under_each_match_policy() {
    let mut world = World::new();
    let callee = world.join("c");
    let ids: Vec<Id> = ["exact", "prefix", "wildcard"]
        .iter()
        .map(|policy| world.register_with(callee, "p.q", json!({"match": policy})))
        .collect();
    assert_eq!(world.realm.registrations.len(), 3);
    for id in ids {
        assert!(matches!(
            world.send(callee, unregister(1, id))[..],
            [(_, Message::Unregistered { .. })]
        ));
    }
    assert_eq!(world.realm.registrations.len(), 0);
}
