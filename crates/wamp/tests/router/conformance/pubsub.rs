//! 5.4: publish/subscribe.

use super::*;

#[tokio::test]
async fn r_p1_subscribing_twice_is_one_subscription() {
    for_every_way(async |stage| {
        let (mut peer, mut publisher) = (stage.peer().await, stage.peer().await);
        let id = peer.established(json!([32, 1, {}, "re.t"])).await;
        assert_eq!(peer.established(json!([32, 2, {}, "re.t"])).await, id);
        assert_eq!(peer.ask(json!([34, 3, id])).await, json!([35, 3]));
        publisher.ask(json!([16, 1, {"acknowledge": true}, "re.t"])).await;
        peer.hears_nothing().await;
        let error = peer.refused(json!([34, 4, id])).await;
        assert_eq!(error, "wamp.error.no_such_subscription");
    })
    .await;
}

#[tokio::test]
async fn r_p2_only_an_acknowledged_publication_is_answered() {
    for_every_way(async |stage| {
        let (mut peer, mut publisher) = (stage.peer().await, stage.peer().await);
        peer.established(json!([32, 1, {}, "re.t"])).await;
        publisher
            .send(json!([16, 1, {}, "re.t", ["first"], {"k": "\0AAE="}]))
            .await;
        let event = peer.next_of(36).await;
        assert_eq!(
            (&event[4], &event[5]),
            (&json!(["first"]), &json!({"k": "\0AAE="}))
        );
        let published = publisher.ask(json!([16, 2, {"acknowledge": true}, "re.t"])).await;
        assert_eq!((&published[0], &published[1]), (&json!(17), &json!(2)));
        assert_eq!(peer.next_of(36).await[2], published[2]);
    })
    .await;
}

#[tokio::test]
async fn r_p3_every_matching_subscription_gives_one_event() {
    for_every_way(async |stage| {
        let (mut peer, mut publisher) = (stage.peer().await, stage.peer().await);
        let mut expected = Vec::new();
        for (policy, uri) in [("exact", "re.a.c"), ("prefix", "re.a"), ("wildcard", "re..c")] {
            let id = peer.established(json!([32, 1, {"match": policy}, uri])).await;
            expected.push((id, (policy != "exact").then(|| "re.a.c".to_owned())));
        }
        let published = publisher
            .ask(json!([16, 2, {"acknowledge": true}, "re.a.c"]))
            .await;
        let mut found = Vec::new();
        for _ in 0..3 {
            let event = peer.next_of(36).await;
            assert_eq!(event[2], published[2]);
            let topic = event[3].get("topic").and_then(Value::as_str).map(str::to_owned);
            found.push((event[1].as_u64().unwrap(), topic));
        }
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        peer.hears_nothing().await;
    })
    .await;
}

#[tokio::test]
async fn r_p4_the_publisher_hears_itself_only_if_it_asks() {
    for_every_way(async |stage| {
        let mut peer = stage.peer().await;
        peer.established(json!([32, 1, {}, "re.t"])).await;
        peer.send(json!([16, 2, {}, "re.t"])).await;
        peer.hears_nothing().await;
        peer.send(json!([16, 3, {"exclude_me": false}, "re.t"])).await;
        peer.next_of(36).await;
    })
    .await;
}

#[tokio::test]
async fn r_p5_exclusion_and_eligibility_are_sets_and_an_empty_eligible_list_is_nobody() {
    for_every_way(async |stage| {
        let (mut a, id_a) = stage.named("as-device-a").await;
        let (mut b, id_b) = stage.named("as-backend-b").await;
        let mut publisher = stage.peer().await;
        for peer in [&mut a, &mut b] {
            peer.established(json!([32, 1, {}, "re.t"])).await;
        }
        for (options, to_a, to_b) in [
            (json!({"exclude": [id_a]}), false, true),
            (json!({"exclude_authid": ["as-backend-b"]}), true, false),
            (json!({"exclude_authrole": ["device", "backend"]}), false, false),
            (json!({"eligible": [id_a, id_b]}), true, true),
            (json!({"eligible": [id_a, id_b], "exclude": [id_b]}), true, false),
            (json!({"eligible_authid": ["as-backend-b"]}), false, true),
            (json!({"eligible_authrole": ["device"]}), true, false),
            (
                json!({"eligible": [id_a], "eligible_authrole": ["backend"]}),
                false,
                false,
            ),
            (json!({"eligible": []}), false, false),
            (json!({"eligible_authid": []}), false, false),
            (json!({"eligible_authrole": []}), false, false),
        ] {
            publisher.send(json!([16, 1, options, "re.t"])).await;
            publisher.hears_nothing().await;
            for (peer, hears) in [(&mut a, to_a), (&mut b, to_b)] {
                if hears {
                    peer.next_of(36).await;
                }
                peer.hears_nothing().await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn r_p6_events_keep_their_order_and_end_with_unsubscribed() {
    const EVENTS: u64 = 200;
    for_every_way(async |stage| {
        let (mut peer, mut publisher) = (stage.peer().await, stage.peer().await);
        let id = peer.established(json!([32, 1, {}, "re.t"])).await;
        for number in 0..EVENTS {
            publisher
                .send(json!([16, number + 1, {}, "re.t", [number]]))
                .await;
        }
        for number in 0..EVENTS {
            assert_eq!(peer.next_of(36).await[4], json!([number]));
        }
        publisher.hears_nothing().await;
        peer.send(json!([34, 2, id])).await;
        for number in 0..EVENTS {
            publisher
                .send(json!([16, number + 1, {}, "re.t", [number]]))
                .await;
        }
        // Whatever was on its way comes before UNSUBSCRIBED.
        while peer.next().await[0] != 35 {}
        publisher.hears_nothing().await;
        peer.hears_nothing().await;
    })
    .await;
}

#[tokio::test]
async fn r_p7_a_publication_without_permission_is_dropped_or_refused() {
    for_every_way(async |stage| {
        let mut peer = stage.peer().await;
        let (mut limited, _) = stage.named("as-limited-x").await;
        peer.established(json!([32, 1, {}, "other.t"])).await;
        limited.send(json!([16, 1, {}, "other.t"])).await;
        limited.hears_nothing().await;
        let error = limited
            .refused(json!([16, 2, {"acknowledge": true}, "other.t"]))
            .await;
        assert_eq!(error, "wamp.error.not_authorized");
        peer.hears_nothing().await;
        assert_eq!(stage.running.router.counters().denied.publish, 2);
    })
    .await;
}

#[tokio::test]
async fn r_p10_a_retained_event_follows_subscribed() {
    for_every_way(async |stage| {
        let (mut peer, mut publisher) = (stage.peer().await, stage.peer().await);
        let published = publisher
            .ask(json!([16, 1, {"retain": true, "acknowledge": true}, "re.state", ["on", "\0AQI="]]))
            .await;
        drop(publisher);
        peer.send(json!([32, 1, {"get_retained": true, "match": "prefix"}, "re."]))
            .await;
        let subscribed = peer.next_of(33).await;
        let event = peer.next_of(36).await;
        assert_eq!((&event[1], &event[2]), (&subscribed[2], &published[2]));
        assert_eq!(
            (&event[3]["retained"], &event[3]["topic"]),
            (&json!(true), &json!("re.state"))
        );
        assert_eq!(event[4], json!(["on", "\0AQI="]));
        peer.hears_nothing().await;
    })
    .await;
}
