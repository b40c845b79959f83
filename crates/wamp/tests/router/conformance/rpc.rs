//! 5.3: RPC.

use super::*;

const INTERRUPT: u64 = 69;

/// A callee that offers `re.p`, a caller, and a call with id 1 under way.
async fn pending(stage: &Stage, options: Value) -> (Peer, Peer) {
    let (mut callee, mut caller) = (stage.peer().await, stage.peer().await);
    callee.established(json!([64, 1, {}, "re.p"])).await;
    caller.send(json!([48, 1, options, "re.p"])).await;
    assert_eq!(callee.next_of(68).await[1], 1);
    (callee, caller)
}

/// A late answer of the callee reaches nobody and harms nobody.
async fn answer_too_late(callee: &mut Peer, caller: &mut Peer) {
    callee.send(json!([70, 1, {}, ["late"]])).await;
    callee.hears_nothing().await;
    caller.hears_nothing().await;
}

#[tokio::test]
async fn r_r1_arguments_reach_the_callee_and_the_result_the_caller_unchanged() {
    for_every_way(async |stage| {
        let (mut callee, mut caller) = (stage.peer().await, stage.peer().await);
        let registration = callee.established(json!([64, 1, {}, "re.echo"])).await;
        // The last one is binary.
        let args = json!([
            null,
            true,
            -7,
            9_007_199_254_740_992_u64,
            0.1,
            "é",
            [1, [2]],
            "\0AAH/"
        ]);
        let kwargs = json!({"k": {"nested": [1.5, null]}, "b": "\0/w=="});
        caller.send(json!([48, 1, {}, "re.echo", args, kwargs])).await;
        let invocation = callee.next_of(68).await;
        assert_eq!(invocation[2], registration);
        assert_eq!((&invocation[4], &invocation[5]), (&args, &kwargs));
        callee.send(json!([70, invocation[1], {}, args, kwargs])).await;
        let result = caller.next_of(50).await;
        assert_eq!((&result[1], &result[3], &result[4]), (&json!(1), &args, &kwargs));
    })
    .await;
}

#[tokio::test]
async fn r_r2_an_unknown_procedure_is_an_error() {
    for_every_way(async |stage| {
        let mut caller = stage.peer().await;
        let error = caller.refused(json!([48, 1, {}, "re.nobody"])).await;
        assert_eq!(error, "wamp.error.no_such_procedure");
    })
    .await;
}

#[tokio::test]
async fn r_r3_a_single_procedure_is_registered_once() {
    for_every_way(async |stage| {
        let (mut one, mut two) = (stage.peer().await, stage.peer().await);
        one.established(json!([64, 1, {}, "re.p"])).await;
        for peer in [&mut one, &mut two] {
            let error = peer.refused(json!([64, 2, {}, "re.p"])).await;
            assert_eq!(error, "wamp.error.procedure_already_exists");
        }
    })
    .await;
}

#[tokio::test]
async fn r_r4_force_reregister_takes_over_and_running_invocations_go_on() {
    for_every_way(async |stage| {
        let (mut old, mut caller) = pending(stage, json!({})).await;
        let mut new = stage.peer().await;
        let taken = new
            .established(json!([64, 1, {"force_reregister": true}, "re.p"]))
            .await;
        let revoked = old.next_of(67).await;
        assert_eq!(
            (&revoked[1], &revoked[2]["reason"]),
            (&json!(0), &json!("wamp.error.unregistered"))
        );
        assert_ne!(revoked[2]["registration"], taken);
        old.send(json!([70, 1, {}, ["old"]])).await;
        assert_eq!(caller.next_of(50).await[3], json!(["old"]));
        drop(old);
        stage.running.holds(2).await;
        caller.send(json!([48, 2, {}, "re.p"])).await;
        new.next_of(68).await;
        new.send(json!([70, 1, {}, ["new"]])).await;
        assert_eq!(caller.next_of(50).await[3], json!(["new"]));
    })
    .await;
}

#[tokio::test]
async fn r_r5_force_reregister_evicts_every_callee_of_a_shared_registration() {
    for_every_way(async |stage| {
        let mut old = Vec::new();
        for _ in 0..3 {
            let mut callee = stage.peer().await;
            callee
                .established(json!([64, 1, {"invoke": "roundrobin"}, "re.p"]))
                .await;
            old.push(callee);
        }
        let mut new = stage.peer().await;
        new.established(json!([64, 1, {"force_reregister": true}, "re.p"]))
            .await;
        for callee in &mut old {
            assert_eq!(callee.next_of(67).await[1], 0);
        }
        assert_eq!(stage.running.router.counters().registrations, 1);
    })
    .await;
}

#[tokio::test]
async fn r_r6_force_reregister_needs_permission() {
    for_every_way(async |stage| {
        let mut old = stage.peer().await;
        let (mut thief, _) = stage.named("as-limited-thief").await;
        old.established(json!([64, 1, {}, "re.p"])).await;
        let error = thief
            .refused(json!([64, 1, {"force_reregister": true}, "re.p"]))
            .await;
        assert_eq!(error, "wamp.error.not_authorized");
        old.hears_nothing().await;
    })
    .await;
}

#[tokio::test]
async fn r_r7_shared_registrations_choose_as_their_policy_says() {
    for_every_way(async |stage| {
        let (mut one, mut two, mut caller) = (stage.peer().await, stage.peer().await, stage.peer().await);
        for (policy, expected) in [
            ("roundrobin", [1, 2, 1, 2]),
            ("first", [1, 1, 1, 1]),
            ("last", [2, 2, 2, 2]),
        ] {
            let uri = format!("re.{policy}");
            let id = one.established(json!([64, 1, {"invoke": policy}, uri])).await;
            assert_eq!(two.established(json!([64, 1, {"invoke": policy}, uri])).await, id);
            for expected in expected {
                caller.send(json!([48, 5, {}, uri])).await;
                let callee = if expected == 1 { &mut one } else { &mut two };
                let invocation = callee.next_of(68).await;
                callee.send(json!([70, invocation[1], {}])).await;
                caller.next_of(50).await;
            }
        }
        one.established(json!([64, 1, {"invoke": "random"}, "re.random"]))
            .await;
        let error = two
            .refused(json!([64, 1, {"invoke": "first"}, "re.random"]))
            .await;
        assert_eq!(
            error,
            "wamp.error.procedure_exists_with_different_invocation_policy"
        );
    })
    .await;
}

#[tokio::test]
async fn r_r8_exact_before_longest_prefix_before_the_wildcard_with_the_longest_leading_part() {
    for_every_way(async |stage| {
        let (mut callee, mut caller) = (stage.peer().await, stage.peer().await);
        let mut ids = Vec::new();
        for (policy, uri) in [
            ("exact", "re.a.b"),
            ("prefix", "re.a."),
            ("prefix", "re."),
            ("wildcard", "x..z"),
            ("wildcard", "x.y."),
        ] {
            ids.push(callee.established(json!([64, 1, {"match": policy}, uri])).await);
        }
        for (uri, expected) in [
            ("re.a.b", 0),
            ("re.a.c", 1),
            ("re.x", 2),
            ("x.q.z", 3),
            ("x.y.z", 4),
        ] {
            caller.send(json!([48, 1, {}, uri])).await;
            let invocation = callee.next_of(68).await;
            assert_eq!(invocation[2], ids[expected], "{uri}");
            let named = (expected > 0).then_some(uri);
            assert_eq!(
                invocation[3].get("procedure").and_then(Value::as_str),
                named,
                "{uri}"
            );
            callee.send(json!([70, invocation[1], {}])).await;
            caller.next_of(50).await;
        }
    })
    .await;
}

#[tokio::test]
async fn r_r9_the_callees_error_is_forwarded_with_its_arguments() {
    for_every_way(async |stage| {
        let (mut callee, mut caller) = pending(stage, json!({})).await;
        callee
            .send(json!([8, 68, 1, {}, "my.error", ["a", 1], {"k": null}]))
            .await;
        let error = caller.next().await;
        assert_eq!(error, json!([8, 48, 1, {}, "my.error", ["a", 1], {"k": null}]));
    })
    .await;
}

#[tokio::test]
async fn r_r10_partial_results_come_in_order_before_the_final_one() {
    for_every_way(async |stage| {
        let (mut callee, mut caller) = pending(stage, json!({"receive_progress": true})).await;
        for number in 0..3 {
            callee.send(json!([70, 1, {"progress": true}, [number]])).await;
        }
        callee.send(json!([70, 1, {}, ["final"]])).await;
        for number in 0..3 {
            let result = caller.next_of(50).await;
            assert_eq!(
                (&result[2]["progress"], &result[3]),
                (&json!(true), &json!([number]))
            );
        }
        let result = caller.next_of(50).await;
        assert_eq!((result[2].get("progress"), &result[3]), (None, &json!(["final"])));
    })
    .await;
}

#[tokio::test]
async fn r_r11_partial_results_that_nobody_asked_for_are_not_forwarded() {
    for_every_way(async |stage| {
        let (mut callee, mut caller) = pending(stage, json!({})).await;
        callee.send(json!([70, 1, {"progress": true}, [1]])).await;
        callee.send(json!([70, 1, {}, ["final"]])).await;
        assert_eq!(caller.next_of(50).await[3], json!(["final"]));
    })
    .await;
}

#[tokio::test]
async fn r_r12_cancel_skip_answers_the_caller_and_does_not_tell_the_callee() {
    for_every_way(async |stage| {
        let (mut callee, mut caller) = pending(stage, json!({})).await;
        let error = caller.ask(json!([49, 1, {"mode": "skip"}])).await;
        assert_eq!(
            (&error[1], &error[2], &error[4]),
            (&json!(48), &json!(1), &json!("wamp.error.canceled"))
        );
        callee.hears_nothing().await;
        answer_too_late(&mut callee, &mut caller).await;
    })
    .await;
}

#[tokio::test]
async fn r_r13_cancel_kill_waits_for_the_callee() {
    for_every_way(async |stage| {
        let (mut callee, mut caller) = pending(stage, json!({})).await;
        caller.send(json!([49, 1, {"mode": "kill"}])).await;
        assert_eq!(callee.next_of(INTERRUPT).await[2]["mode"], "kill");
        caller.hears_nothing().await;
        callee.send(json!([8, 68, 1, {}, "wamp.error.canceled"])).await;
        assert_eq!(caller.next_of(8).await[4], "wamp.error.canceled");
    })
    .await;
}

#[tokio::test]
async fn r_r14_cancel_killnowait_is_the_default_and_tells_both_at_once() {
    for_every_way(async |stage| {
        for options in [json!({}), json!({"mode": "killnowait"})] {
            let (mut callee, mut caller) = pending(stage, json!({})).await;
            let error = caller.ask(json!([49, 1, options])).await;
            assert_eq!(error[4], "wamp.error.canceled");
            assert_eq!(callee.next_of(INTERRUPT).await[2]["mode"], "killnowait");
            answer_too_late(&mut callee, &mut caller).await;
            let gone = callee.ask(json!([6, {}, "wamp.close.close_realm"])).await;
            assert_eq!(gone[0], 6);
        }
    })
    .await;
}

#[tokio::test]
async fn r_r15_cancel_kill_of_a_callee_that_cannot_be_interrupted_is_a_skip() {
    for_every_way(async |stage| {
        let mut callee = stage.stranger().await;
        callee
            .ask(hello(json!({"roles": {"callee": {}, "publisher": {}}})))
            .await;
        let mut caller = stage.peer().await;
        callee.established(json!([64, 1, {}, "re.p"])).await;
        caller.send(json!([48, 1, {}, "re.p"])).await;
        callee.next_of(68).await;
        let error = caller.ask(json!([49, 1, {"mode": "kill"}])).await;
        assert_eq!(error[4], "wamp.error.canceled");
        answer_too_late(&mut callee, &mut caller).await;
    })
    .await;
}

#[tokio::test]
async fn r_r16_cancelling_what_is_not_pending_is_ignored() {
    for_every_way(async |stage| {
        let (mut callee, mut caller) = pending(stage, json!({})).await;
        caller.send(json!([49, 99, {}])).await;
        callee.send(json!([70, 1, {}])).await;
        caller.next_of(50).await;
        caller.send(json!([49, 1, {"mode": "kill"}])).await;
        caller.hears_nothing().await;
        callee.hears_nothing().await;
    })
    .await;
}

#[tokio::test]
async fn r_r17_a_timeout_tells_caller_and_callee() {
    for_every_way(async |stage| {
        let (mut callee, mut caller) = pending(stage, json!({"timeout": 30})).await;
        assert_eq!(caller.next_of(8).await[4], "wamp.error.timeout");
        let interrupt = callee.next_of(INTERRUPT).await;
        assert_eq!(interrupt[2]["reason"], "wamp.error.timeout");
        answer_too_late(&mut callee, &mut caller).await;
    })
    .await;
}

#[tokio::test]
async fn r_r18_a_lost_caller_interrupts_the_callee() {
    for_every_way(async |stage| {
        let (mut callee, caller) = pending(stage, json!({})).await;
        drop(caller);
        assert_eq!(callee.next_of(INTERRUPT).await[2]["mode"], "killnowait");
        callee.send(json!([70, 1, {}])).await;
        callee.hears_nothing().await;
    })
    .await;
}

#[tokio::test]
async fn r_r19_a_lost_callee_cancels_the_calls_it_had() {
    for_every_way(async |stage| {
        let (callee, mut caller) = pending(stage, json!({})).await;
        drop(callee);
        assert_eq!(caller.next_of(8).await[4], "wamp.error.canceled");
    })
    .await;
}

#[tokio::test]
async fn r_r20_answering_somebody_elses_invocation_is_a_violation_and_changes_nothing() {
    for_every_way(async |stage| {
        let (mut callee, mut caller) = pending(stage, json!({})).await;
        let mut intruder = stage.peer().await;
        intruder.send(json!([70, 1, {}, ["forged"]])).await;
        intruder.violated().await;
        callee.send(json!([70, 1, {}, ["true"]])).await;
        assert_eq!(caller.next_of(50).await[3], json!(["true"]));
    })
    .await;
}

#[tokio::test]
async fn r_r21_the_caller_is_named_if_its_role_is_disclosed() {
    for_every_way(async |stage| {
        let mut callee = stage.peer().await;
        let (mut open, session) = stage.named("as-device-open").await;
        let (mut hidden, _) = stage.named("as-backend-hidden").await;
        callee.established(json!([64, 1, {}, "re.p"])).await;
        open.send(json!([48, 1, {}, "re.p"])).await;
        let details = callee.next_of(68).await[3].clone();
        let expected =
            json!({"caller": session, "caller_authid": "as-device-open", "caller_authrole": "device"});
        assert_eq!(details, expected);
        hidden.send(json!([48, 1, {"disclose_me": true}, "re.p"])).await;
        assert_eq!(callee.next_of(68).await[3], json!({}));
    })
    .await;
}

#[tokio::test]
async fn r_r22_unregistering_what_is_not_ones_own_is_an_error() {
    for_every_way(async |stage| {
        let (mut owner, mut other) = (stage.peer().await, stage.peer().await);
        let id = owner.established(json!([64, 1, {}, "re.p"])).await;
        for id in [id, 12345] {
            let error = other.refused(json!([66, 2, id])).await;
            assert_eq!(error, "wamp.error.no_such_registration");
        }
        assert_eq!(owner.ask(json!([66, 2, id])).await, json!([67, 2]));
    })
    .await;
}

#[tokio::test]
async fn r_r23_invocations_of_each_callee_count_from_one() {
    for_every_way(async |stage| {
        let mut caller = stage.peer().await;
        for name in ["re.one", "re.two"] {
            let mut callee = stage.peer().await;
            callee.established(json!([64, 1, {}, name])).await;
            for expected in 1..=3 {
                caller.send(json!([48, 100 + expected, {}, name])).await;
                assert_eq!(callee.next_of(68).await[1], expected);
                callee.send(json!([70, expected, {}])).await;
                caller.next_of(50).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_call_in_parts_reaches_its_callee_part_by_part() {
    for_every_way(async |stage| {
        let (mut callee, mut caller) = pending(stage, json!({"progress": true})).await;
        for number in 1..=3 {
            let more = number < 3;
            caller
                .send(json!([48, 1, {"progress": more}, "re.p", [number]]))
                .await;
            let invocation = callee.next_of(68).await;
            assert_eq!((&invocation[1], &invocation[4]), (&json!(1), &json!([number])));
            assert_eq!(invocation[3].get("progress"), more.then_some(&json!(true)));
        }
        callee.send(json!([70, 1, {}, ["all"]])).await;
        assert_eq!(caller.next_of(50).await[3], json!(["all"]));
        caller.hears_nothing().await;
    })
    .await;
}
