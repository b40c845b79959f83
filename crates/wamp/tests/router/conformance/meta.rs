//! 5.5: meta API and testaments.

use super::*;

/// Topics of the meta events that arrive for a watcher of `topics`, with their arguments, in order.
struct Watcher {
    peer: Peer,
    topics: HashMap<u64, &'static str>,
}

impl Watcher {
    async fn new(stage: &Stage, topics: &[&'static str]) -> Watcher {
        let (mut peer, _) = stage.named("as-backend-watcher").await;
        let mut ids = HashMap::new();
        for topic in topics {
            ids.insert(peer.established(json!([32, 1, {}, topic])).await, *topic);
        }
        Watcher { peer, topics: ids }
    }

    /// The last part of the topic, and the arguments.
    async fn next(&mut self) -> (&'static str, Value) {
        let event = self.peer.next_of(36).await;
        let topic = self.topics[&event[1].as_u64().unwrap()];
        (topic.rsplit('.').next().unwrap(), event[4].clone())
    }
}

const SUBSCRIPTIONS: [&str; 4] = [
    "wamp.subscription.on_create",
    "wamp.subscription.on_subscribe",
    "wamp.subscription.on_unsubscribe",
    "wamp.subscription.on_delete",
];
const REGISTRATIONS: [&str; 4] = [
    "wamp.registration.on_create",
    "wamp.registration.on_register",
    "wamp.registration.on_unregister",
    "wamp.registration.on_delete",
];

#[tokio::test]
async fn r_m1_the_life_of_a_subscription_is_told_in_order_with_the_real_sessions() {
    for_every_way(async |stage| {
        let mut watcher = Watcher::new(stage, &SUBSCRIPTIONS).await;
        let (mut one, id_one) = stage.named("as-device-one").await;
        let (mut two, id_two) = stage.named("as-device-two").await;
        let id = one.established(json!([32, 1, {"match": "prefix"}, "re.t"])).await;
        let (name, args) = watcher.next().await;
        assert_eq!((name, &args[0]), ("on_create", &json!(id_one)));
        let details = &args[1];
        assert_eq!(
            (&details["id"], &details["uri"], &details["match"]),
            (&json!(id), &json!("re.t"), &json!("prefix"))
        );
        assert!(details["created"].is_string());
        assert_eq!(watcher.next().await, ("on_subscribe", json!([id_one, id])));
        two.established(json!([32, 1, {"match": "prefix"}, "re.t"])).await;
        assert_eq!(watcher.next().await, ("on_subscribe", json!([id_two, id])));
        one.ask(json!([34, 2, id])).await;
        assert_eq!(watcher.next().await, ("on_unsubscribe", json!([id_one, id])));
        drop(two);
        assert_eq!(watcher.next().await, ("on_unsubscribe", json!([id_two, id])));
        assert_eq!(watcher.next().await, ("on_delete", json!([id_two, id])));
    })
    .await;
}

#[tokio::test]
async fn r_m2_the_life_of_a_registration_is_told_in_order_eviction_included() {
    for_every_way(async |stage| {
        let mut watcher = Watcher::new(stage, &REGISTRATIONS).await;
        let (mut one, id_one) = stage.named("as-device-one").await;
        let (mut two, id_two) = stage.named("as-device-two").await;
        let old = one.established(json!([64, 1, {}, "re.p"])).await;
        let (name, args) = watcher.next().await;
        assert_eq!(
            (name, &args[0], &args[1]["invoke"]),
            ("on_create", &json!(id_one), &json!("single"))
        );
        assert_eq!(watcher.next().await, ("on_register", json!([id_one, old])));
        let new = two
            .established(json!([64, 1, {"force_reregister": true}, "re.p"]))
            .await;
        assert_eq!(watcher.next().await, ("on_unregister", json!([id_one, old])));
        assert_eq!(watcher.next().await, ("on_delete", json!([id_one, old])));
        assert_eq!(watcher.next().await.0, "on_create");
        assert_eq!(watcher.next().await, ("on_register", json!([id_two, new])));
        drop(two);
        assert_eq!(watcher.next().await, ("on_unregister", json!([id_two, new])));
        assert_eq!(watcher.next().await, ("on_delete", json!([id_two, new])));
    })
    .await;
}

#[tokio::test]
async fn r_m3_subscriptions_and_registrations_can_be_looked_up_listed_and_counted() {
    for_every_way(async |stage| {
        let (mut peer, session) = stage.named("as-device-a").await;
        for (kind, verb, code, members) in [
            ("subscription", "list_subscribers", 32, "count_subscribers"),
            ("registration", "list_callees", 64, "count_callees"),
        ] {
            let mut ids = Vec::new();
            for (policy, uri) in [("exact", "re.x.y"), ("prefix", "re."), ("wildcard", "re..y")] {
                ids.push(peer.established(json!([code, 1, {"match": policy}, uri])).await);
            }
            let name = |procedure: &str| format!("wamp.{kind}.{procedure}");
            assert_eq!(peer.meta(&name("lookup"), json!(["re.x.y"])).await, ids[0]);
            assert_eq!(
                peer.meta(&name("lookup"), json!(["re.", {"match": "prefix"}]))
                    .await,
                ids[1]
            );
            assert_eq!(
                peer.meta(&name("lookup"), json!(["re.nothing"])).await,
                Value::Null
            );
            let matched = peer.meta(&name("match"), json!(["re.x.y"])).await;
            if kind == "subscription" {
                assert_eq!(matched.as_array().unwrap().len(), 3);
            } else {
                assert_eq!(matched, ids[0]);
            }
            assert_eq!(peer.meta(&name("match"), json!(["other"])).await, Value::Null);
            let got = peer.meta(&name("get"), json!([ids[2]])).await;
            assert_eq!(
                (&got["uri"], &got["match"]),
                (&json!("re..y"), &json!("wildcard"))
            );
            let lists = json!({"exact": [ids[0]], "prefix": [ids[1]], "wildcard": [ids[2]]});
            assert_eq!(peer.meta(&name("list"), json!([])).await, lists);
            assert_eq!(peer.meta(&name("list"), json!([session])).await, lists);
            assert_eq!(peer.meta(&name(verb), json!([ids[0]])).await, json!([session]));
            assert_eq!(peer.meta(&name(members), json!([ids[0]])).await, 1);
            let error = peer.refused(json!([48, 1, {}, name("get"), [12345]])).await;
            assert_eq!(error, format!("wamp.error.no_such_{kind}"));
        }
        let error = peer
            .refused(json!([48, 1, {}, "wamp.subscription.get_events", [12345, 10]]))
            .await;
        assert_eq!(error, "wamp.error.no_such_subscription");
    })
    .await;
}

#[tokio::test]
async fn r_m4_joining_and_leaving_is_announced_with_the_identity() {
    for_every_way(async |stage| {
        let topics = ["wamp.session.on_join", "wamp.session.on_leave"];
        let mut watcher = Watcher::new(stage, &topics).await;
        let (peer, session) = stage.named("as-device-a").await;
        let (name, args) = watcher.next().await;
        let details = &args[0];
        assert_eq!(
            (name, &details["session"], &details["authid"]),
            ("on_join", &json!(session), &json!("as-device-a"))
        );
        for (key, expected) in [
            ("realm", "realm1"),
            ("authrole", "device"),
            ("authmethod", "anonymous"),
        ] {
            assert_eq!(details[key], expected);
        }
        drop(peer);
        assert_eq!(
            watcher.next().await,
            ("on_leave", json!([session, "as-device-a", "device"]))
        );
    })
    .await;
}

#[tokio::test]
async fn r_m5_sessions_are_killed_by_id_authid_role_and_all_but_never_the_caller() {
    for_every_way(async |stage| {
        let (mut admin, own) = stage.named("as-backend-admin").await;
        for (procedure, args, by_list) in [
            ("kill_by_authid", json!(["as-device-a"]), true),
            ("kill_by_authrole", json!(["device"]), true),
            ("kill_all", json!([]), false),
            ("kill", json!([]), false),
        ] {
            let (mut victim, session) = stage.named("as-device-a").await;
            let args = if procedure == "kill" {
                json!([session])
            } else {
                args
            };
            let said = json!({"reason": "my.reason", "message": "bye"});
            let result = admin
                .ask(json!([
                    48,
                    1,
                    {},
                    format!("wamp.session.{procedure}"),
                    args,
                    said
                ]))
                .await;
            let expected = match (by_list, procedure) {
                (true, _) => json!([session]),
                (false, "kill_all") => json!(1),
                (false, _) => Value::Null,
            };
            assert_eq!(result[3][0], expected, "{procedure}");
            let goodbye = victim.next_of(6).await;
            assert_eq!(
                (&goodbye[1]["message"], &goodbye[2]),
                (&json!("bye"), &json!("my.reason"))
            );
            victim.send(json!([6, {}, "wamp.close.goodbye_and_out"])).await;
            assert_eq!(victim.closed().await, victim.closes_with(1000));
        }
        let (mut victim, session) = stage.named("as-device-a").await;
        admin.meta("wamp.session.kill", json!([session])).await;
        assert_eq!(victim.next_of(6).await[2], "wamp.close.killed");
        let error = admin
            .refused(json!([48, 1, {}, "wamp.session.kill", [own]]))
            .await;
        assert_eq!(error, "wamp.error.no_such_session");
        let error = admin
            .refused(json!([48, 1, {}, "wamp.session.kill", [1], {"reason": "no uri"}]))
            .await;
        assert_eq!(error, "wamp.error.invalid_uri");
    })
    .await;
}

const ADD: &str = "wamp.session.add_testament";

#[tokio::test]
async fn r_m6_testaments_are_published_once_in_order_however_the_session_ends() {
    for_every_way(async |stage| {
        let (mut admin, _) = stage.named("as-backend-admin").await;
        admin.established(json!([32, 1, {}, "re.words"])).await;
        for end in ["lost", "closed", "goodbye", "killed", "violation"] {
            let (mut peer, session) = stage.named("as-device-a").await;
            for (number, scope) in [
                (1, "destroyed"),
                (2, "detached"),
                (3, "destroyed"),
                (4, "detached"),
            ] {
                let will = json!({"topic": "re.words", "args": [number], "kwargs": {}, "scope": scope});
                let added = peer.ask(json!([48, 1, {}, ADD, [], will])).await;
                assert_eq!(added[0], 50, "{added}");
            }
            match end {
                "lost" => drop(peer),
                "closed" => peer.socket.close().await,
                "goodbye" => {
                    peer.ask(json!([6, {}, "wamp.close.close_realm"])).await;
                }
                "killed" => {
                    admin
                        .send(json!([48, 9, {}, "wamp.session.kill", [session]]))
                        .await;
                }
                _ => peer.send(json!([17, 1, 1])).await,
            }
            for expected in [2, 4, 1, 3] {
                assert_eq!(admin.next_of(36).await[4], json!([expected]), "{end}");
            }
            if end == "killed" {
                admin.next_of(50).await;
            }
            admin.hears_nothing().await;
        }
    })
    .await;
}

#[tokio::test]
async fn r_m7_testaments_are_flushed_by_scope_and_checked_when_they_are_added() {
    for_every_way(async |stage| {
        let (mut peer, _) = stage.named("as-device-a").await;
        for scope in ["detached", "destroyed", "destroyed"] {
            peer.meta(ADD, json!(["re.words", [], {}, {}, scope])).await;
        }
        let flush = "wamp.session.flush_testaments";
        assert_eq!(peer.meta(flush, json!([])).await, 2);
        assert_eq!(peer.meta(flush, json!(["detached"])).await, 1);
        for (args, expected) in [
            (
                json!(["re.words", [], {}, {}, "never"]),
                "wamp.error.testament_error",
            ),
            (json!(["re.words"]), "wamp.error.runtime_error"),
            (
                json!(["re.words", [], {}, {"shout": true}]),
                "wamp.error.runtime_error",
            ),
            (json!(["re..words", [], {}]), "wamp.error.invalid_uri"),
        ] {
            assert_eq!(peer.refused(json!([48, 1, {}, ADD, args])).await, expected);
        }
        // This one may call `re.` only, so not even the procedure.
        let (mut limited, _) = stage.named("as-limited-x").await;
        let error = limited
            .refused(json!([48, 1, {}, ADD, ["re.words", [], {}]]))
            .await;
        assert_eq!(error, "wamp.error.not_authorized");
    })
    .await;
}

#[tokio::test]
async fn r_m8_meta_procedures_and_topics_need_permission() {
    for_every_way(async |stage| {
        let (mut limited, _) = stage.named("as-limited-x").await;
        for procedure in [
            "wamp.session.count",
            "wamp.session.kill",
            "wamp.subscription.list",
            "wamp.registration.remove_callee",
            "wamp.router.counters",
        ] {
            let error = limited.refused(json!([48, 1, {}, procedure, [1, 1]])).await;
            assert_eq!(error, "wamp.error.not_authorized", "{procedure}");
        }
        let error = limited.refused(json!([32, 1, {}, "wamp.session.on_join"])).await;
        assert_eq!(error, "wamp.error.not_authorized");
    })
    .await;
}

#[tokio::test]
async fn the_counters_of_the_router_are_a_procedure() {
    for_every_way(async |stage| {
        let (mut admin, _) = stage.named("as-backend-admin").await;
        admin.established(json!([32, 1, {}, "re.t"])).await;
        let counters = admin.meta("wamp.router.counters", json!([])).await;
        assert_eq!(
            (&counters["sessions"], &counters["subscriptions"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(counters["received"], json!({"subscribe": 1, "call": 1}));
        assert_eq!(counters["sent"], json!({"welcome": 1, "subscribed": 1}));
        let snapshot = stage.running.router.counters();
        assert_eq!(snapshot.sent.of(wamp::message::code::RESULT), 1);
        assert_eq!(snapshot.queues.most_messages, 0, "everything has been sent");
    })
    .await;
}
