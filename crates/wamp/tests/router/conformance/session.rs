//! 5.1 and 5.2: sessions and message validation, as far as they depend on the encoding.

use super::*;

#[tokio::test]
async fn r_s6_a_hello_with_unknown_details_is_welcomed_with_every_feature() {
    for_every_way(async |stage| {
        let mut peer = stage.stranger().await;
        let details = json!({"_vendor": [null, -1, 1.5], "agent": "x", "roles": {
            "caller": {"features": {"teleportation": true}}, "_custom": 5, "publisher": {"x": {}}
        }});
        let welcome = peer.ask(hello(details)).await;
        assert_eq!(welcome[0], 2);
        assert!((1..=1 << 53).contains(&welcome[1].as_u64().unwrap()));
        let details = &welcome[2];
        for key in ["realm", "authid", "authrole", "authmethod"] {
            assert!(details[key].is_string(), "{key}");
        }
        for (role, feature) in [
            ("dealer", "call_canceling"),
            ("dealer", "call_timeout"),
            ("dealer", "progressive_call_results"),
            ("dealer", "progressive_call_invocations"),
            ("dealer", "registration_revocation"),
            ("dealer", "testament_meta_api"),
            ("broker", "event_retention"),
            ("broker", "subscription_meta_api"),
        ] {
            assert_eq!(details["roles"][role]["features"][feature], true, "{feature}");
        }
    })
    .await;
}

#[tokio::test]
async fn r_s4_an_unknown_realm_or_none_at_all_is_refused() {
    for_every_way(async |stage| {
        for realm in [json!("elsewhere"), json!(null)] {
            let mut peer = stage.stranger().await;
            let abort = peer.ask(json!([1, realm, {"roles": {"caller": {}}}])).await;
            assert_eq!(
                (&abort[0], &abort[2]),
                (&json!(3), &json!("wamp.error.no_such_realm"))
            );
            assert_eq!(peer.closed().await, peer.closes_with(1000));
        }
        assert_eq!(stage.running.router.counters().refused_sessions.no_such_realm, 2);
    })
    .await;
}

#[tokio::test]
async fn r_s5_a_hello_without_roles_is_refused() {
    for_every_way(async |stage| {
        for details in [json!({}), json!({"roles": {}}), json!({"roles": {"dealer": {}}})] {
            let mut peer = stage.stranger().await;
            peer.send(json!([1, "realm1", details])).await;
            peer.violated().await;
        }
    })
    .await;
}

#[tokio::test]
async fn r_s9_r_s10_a_signature_decides_and_refusals_are_alike() {
    for_every_way(async |stage| {
        let mut refusals = Vec::new();
        for (authid, secret) in [("7-42", SECRET), ("7-42", "wrong"), ("nobody", SECRET)] {
            let mut peer = stage.stranger().await;
            let challenge = peer
                .ask(hello(json!({"authid": authid, "authmethods": ["wampcra"]})))
                .await;
            let text = challenge[2]["challenge"].as_str().unwrap();
            let answer = peer.ask(json!([5, wamp::auth::sign(secret, text), {}])).await;
            if (authid, secret) == ("7-42", SECRET) {
                let said: Value = serde_json::from_str(text).unwrap();
                assert_eq!((&answer[0], &answer[1]), (&json!(2), &said["session"]));
            } else {
                refusals.push(answer);
            }
        }
        assert_eq!(refusals[0], refusals[1]);
        assert_eq!(stage.running.router.counters().refused_sessions.credentials, 2);
    })
    .await;
}

#[tokio::test]
async fn r_s14_r_s15_r_s16_messages_out_of_place_are_violations() {
    for_every_way(async |stage| {
        let mut first = stage.stranger().await;
        first.send(json!([32, 1, {}, "re.t"])).await;
        first.violated().await;
        for message in [
            hello(json!({})),
            json!([2, 1, {}]),
            json!([4, "ticket", {}]),
            json!([5, "", {}]),
            json!([17, 1, 1]),
            json!([33, 1, 1]),
            json!([35, 1]),
            json!([36, 1, 1, {}]),
            json!([50, 1, {}]),
            json!([65, 1, 1]),
            json!([67, 1]),
            json!([68, 1, 1, {}]),
            json!([69, 1, {}]),
            json!([8, 48, 1, {}, "my.error"]),
        ] {
            let mut peer = stage.peer().await;
            peer.send(message).await;
            peer.violated().await;
        }
        let counters = stage.running.router.counters();
        assert_eq!(
            (counters.violations, counters.refused_sessions.violation),
            (14, 1)
        );
    })
    .await;
}

#[tokio::test]
async fn r_s17_r_s18_goodbye_frees_everything_before_it_is_answered_and_nothing_comes_after_it() {
    for_every_way(async |stage| {
        let (mut peer, mut callee) = (stage.peer().await, stage.peer().await);
        callee.established(json!([64, 1, {}, "re.p"])).await;
        peer.established(json!([64, 1, {}, "re.q"])).await;
        peer.established(json!([32, 2, {}, "re.t"])).await;
        peer.send(json!([6, {}, "wamp.close.close_realm"])).await;
        let _ = peer.try_send(json!([48, 3, {}, "re.p"])).await;
        let goodbye = peer.next_of(6).await;
        let counters = stage.running.router.counters();
        assert_eq!((counters.registrations, counters.subscriptions), (1, 0));
        assert_eq!(goodbye[2], "wamp.close.goodbye_and_out");
        peer.closed().await;
        callee.hears_nothing().await;
    })
    .await;
}

#[tokio::test]
async fn r_v6_r_v7_r_v8_what_a_request_says_wrong_is_an_error_and_the_session_lives() {
    for_every_way(async |stage| {
        let mut peer = stage.peer().await;
        for (code, options) in [
            (48, json!({})),
            (16, json!({"acknowledge": true})),
            (32, json!({})),
            (64, json!({})),
        ] {
            for uri in ["", "a..b", "a b", "a.#"] {
                let error = peer.refused(json!([code, 1, options, uri])).await;
                assert_eq!(error, "wamp.error.invalid_uri", "{code} {uri:?}");
            }
        }
        for (code, options) in [
            (16, json!({"acknowledge": true})),
            (64, json!({"force_reregister": true})),
        ] {
            let error = peer
                .refused(json!([code, 1, options, "wamp.session.on_join"]))
                .await;
            assert_eq!(error, "wamp.error.invalid_uri");
        }
        for message in [
            json!([64, 1, {"match": "regex"}, "re.p"]),
            json!([64, 1, {"invoke": "all"}, "re.p"]),
            json!([32, 1, {"match": 5}, "re.t"]),
            json!([49, 1, {"mode": "gently"}]),
            json!([48, 1, {"timeout": -1}, "re.p"]),
            json!([16, 1, {"acknowledge": true, "eligible": 5}, "re.t"]),
        ] {
            let error = peer.refused(message.clone()).await;
            assert_eq!(error, "wamp.error.invalid_argument", "{message}");
        }
        peer.hears_nothing().await;
        assert_eq!(stage.running.router.counters().invalid_requests, 24);
    })
    .await;
}

#[tokio::test]
async fn r_v4_the_largest_request_id_is_2_to_the_53() {
    for_every_way(async |stage| {
        let mut peer = stage.peer().await;
        let largest = 1_u64 << 53;
        let reply = peer.ask(json!([32, largest, {}, "re.t"])).await;
        assert_eq!((&reply[0], &reply[1]), (&json!(33), &json!(largest)));
    })
    .await;
}
