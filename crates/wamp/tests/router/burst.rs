//! Many at once, and peers that do not keep up.

use super::*;
use wamp::client::{CallOptions, RegisterOptions, handler};
use wamp::{Dict, Payload};

/// Every call is on its way before the first result is read.
async fn pipeline() {
    const CALLS: u64 = 10_000;
    let running = start(Limits::default()).await;
    let (mut callee, mut caller) = (running.joined().await, running.joined().await);
    callee.ask(json!([64, 1, {}, "re.echo"])).await;
    let answering = tokio::spawn(async move {
        for expected in 1..=CALLS {
            let invocation = callee.next().await;
            assert_eq!(invocation[1], expected, "ids and order");
            assert_eq!(invocation[4][0], expected);
            callee.send(json!([70, expected, {}, [expected]])).await;
        }
    });
    for request in 1..=CALLS {
        let call = json!([48, request, {}, "re.echo", [request]]);
        caller.socket.feed(Frame::text(call.to_string())).await.unwrap();
    }
    caller.socket.flush().await.unwrap();
    for expected in 1..=CALLS {
        let result = caller.next().await;
        assert_eq!((&result[0], &result[1]), (&json!(50), &json!(expected)));
    }
    soon("the callee", answering).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_r24_ten_thousand_pipelined_calls_are_all_answered_in_the_callees_order() {
    pipeline().await;
}

#[tokio::test]
async fn r_r24_holds_on_a_single_thread_too() {
    pipeline().await;
}

#[tokio::test]
async fn r_p8_a_subscriber_that_stops_reading_loses_events_and_harms_nobody() {
    const EVENTS: u64 = 250;
    let limits = Limits {
        send_queue_bytes: 1 << 20,
        ..Limits::default()
    };
    let running = start(limits).await;
    let mut stuck = running.joined().await;
    stuck.ask(json!([32, 1, {}, "re.bulk"])).await;
    let (reader, publisher) = (running.client().await, running.client().await);
    let mut subscription = reader.subscribe("re.bulk", Dict::new()).await.unwrap();
    let bulk = wamp::Value::from("x".repeat(64 << 10));
    for number in 0..EVENTS {
        let payload = Payload::from_args(vec![number.into(), bulk.clone()]);
        publisher
            .publish_acknowledged("re.bulk", Dict::new(), payload)
            .await
            .unwrap();
        let event = soon("the event", subscription.events.recv()).await.unwrap();
        assert_eq!(event.payload.first::<u64>().unwrap(), Some(number));
    }
    let counters = running.router.counters();
    assert!(counters.dropped_events.queue_full > 0, "{counters:?}");
    assert_eq!((counters.sessions, counters.overflowed_sessions), (3, 0));
    // Back at its socket, the slow one goes on with what is left.
    let event = stuck.next().await;
    assert_eq!((&event[0], &event[4][0]), (&json!(36), &json!(0)));
}

#[tokio::test]
async fn a_slow_subscriber_learns_how_many_events_it_has_lost() {
    const EVENTS: u64 = 250;
    let limits = Limits {
        send_queue_bytes: 1 << 20,
        ..Limits::default()
    };
    let running = start(limits).await;
    let mut knowing = Peer::connect(running.address, Codec::Json.subprotocol())
        .await
        .unwrap();
    let roles = json!({"roles": {"subscriber": {"features": {"x_dropped_events": true}}}});
    assert_eq!(knowing.ask(hello(roles)).await[0], 2);
    let mut other = running.joined().await;
    for peer in [&mut knowing, &mut other] {
        assert_eq!(peer.ask(json!([32, 1, {}, "re.bulk"])).await[0], 33);
    }
    let publisher = running.client().await;
    let publish = async |number: u64| {
        let bulk = wamp::Value::from("x".repeat(64 << 10));
        let payload = Payload::from_args(vec![number.into(), bulk]);
        let published = publisher.publish_acknowledged("re.bulk", Dict::new(), payload);
        published.await.unwrap();
    };
    for number in 0..EVENTS {
        publish(number).await;
    }
    // Every event comes or is counted before the next one.
    let count = |event: &Value, seen: u64| {
        let dropped = event[3]["x_dropped"].as_u64().unwrap_or_default();
        match event[2].as_u64() {
            Some(0) => assert!(dropped > 0 && event.get(4).is_none(), "{event}"),
            _ => assert_eq!(event[4][0], seen + dropped),
        }
        (dropped, seen + dropped + u64::from(event[2] != 0))
    };
    let (mut seen, mut lost) = (0, 0);
    while seen < EVENTS {
        let (dropped, now) = count(&knowing.next().await, seen);
        (seen, lost) = (now, lost + dropped);
    }
    assert_eq!(seen, EVENTS, "without another one");
    assert!(lost > 0);

    // Whoever has not said that it knows gets nothing but events. The reply comes behind all that are queued.
    other.send(json!([32, 2, {}, "re.other"])).await;
    let mut seen = 0;
    loop {
        let message = other.next().await;
        if message[0] == 33 {
            break;
        }
        let (dropped, now) = count(&message, seen);
        assert_eq!(dropped, 0);
        seen = now;
    }
    assert!(seen < EVENTS, "some were dropped");
    publish(EVENTS).await;
    assert_eq!(count(&other.next().await, seen), (EVENTS - seen, EVENTS + 1));
    publish(EVENTS + 1).await;
    assert_eq!(count(&other.next().await, EVENTS + 1), (0, EVENTS + 2));
}

#[tokio::test]
async fn a_session_that_does_not_read_its_replies_is_closed() {
    let limits = Limits {
        send_queue_bytes: 256 << 10,
        ..Limits::default()
    };
    let running = start(limits).await;
    let callee = running.client().await;
    let bulky = handler(|_| async { Ok(Payload::from_args(vec!["x".repeat(64 << 10).into()])) });
    callee
        .register("re.bulky", RegisterOptions::default(), bulky)
        .await
        .unwrap();
    let mut caller = running.joined().await;
    for request in 1..=1000 {
        let call = json!([48, request, {}, "re.bulky"]);
        // Once the router has hung up, sending fails.
        if caller.socket.send(Frame::text(call.to_string())).await.is_err() {
            break;
        }
    }
    until("the overflow", || {
        running.router.counters().overflowed_sessions == 1
    })
    .await;
    running.holds(1).await;
    assert!(callee.is_open());
}

#[tokio::test]
async fn a_callee_that_is_flooded_keeps_its_session_and_every_caller_gets_an_answer() {
    const CALLS: u64 = 500;
    let limits = Limits {
        send_queue_bytes: 1 << 20,
        ..Limits::default()
    };
    let running = start(limits).await;
    let mut callee = running.joined().await;
    callee.ask(json!([64, 1, {}, "re.slow"])).await;
    let mut caller = running.joined().await;
    let bulk = "x".repeat(64 << 10);
    for request in 1..=CALLS {
        caller.send(json!([48, request, {}, "re.slow", [bulk]])).await;
    }
    // The callee has not read anything yet: what does not fit is refused.
    let refused = caller.next().await;
    assert_eq!(refused[4], "wamp.error.network_failure", "{refused}");
    let answering = tokio::spawn(async move {
        // Its own request finds room for the reply.
        callee.send(json!([32, 2, {}, "re.topic"])).await;
        let mut subscribed = false;
        loop {
            let Some(Ok(Frame::Text(text))) = callee.next_frame().await else {
                return subscribed;
            };
            let message: Value = serde_json::from_str(&text).unwrap();
            match message[0].as_u64() {
                Some(68) => callee.send(json!([70, message[1], {}, ["done"]])).await,
                Some(33) => subscribed = true,
                Some(6) => return subscribed,
                _ => panic!("{message}"),
            }
        }
    });
    let (mut done, mut failed) = (0, 1);
    while done + failed < CALLS {
        match caller.next().await[0].as_u64() {
            Some(50) => done += 1,
            Some(8) => failed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(done > 0 && failed > 1, "{done} done, {failed} failed");
    assert_eq!(running.router.counters().overflowed_sessions, 0);
    running.stop.cancel();
    assert!(soon("the callee", answering).await.unwrap());
}

#[tokio::test]
async fn a_subscriber_that_never_catches_up_is_closed() {
    hopeless(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_subscriber_that_never_catches_up_is_closed_without_pings_as_well() {
    hopeless(Duration::ZERO).await;
}

async fn hopeless(ping_interval: Duration) {
    let limits = Limits {
        send_queue_bytes: 256 << 10,
        ping_interval,
        overflow_patience: Duration::from_millis(200),
        ..Limits::default()
    };
    let running = start(limits).await;
    let mut slow = running.joined().await;
    slow.ask(json!([32, 1, {}, "re.bulk"])).await;
    let publisher = running.client().await;
    let bulk = wamp::Value::from("x".repeat(32 << 10));
    // It reads all the time, one event for twenty that come: alive, but hopeless.
    let hopeless = async {
        while running.router.counters().sessions == 2 {
            slow.next_frame().await;
            for _ in 0..20 {
                let payload = Payload::from_args(vec![bulk.clone()]);
                publisher
                    .publish_acknowledged("re.bulk", Dict::new(), payload)
                    .await
                    .unwrap();
            }
        }
    };
    let first = Payload::from_args(vec![bulk.clone()]);
    publisher.publish("re.bulk", Dict::new(), first).await.unwrap();
    soon("the end of the slow one", hopeless).await;
    running.holds(1).await;
    assert!(running.router.counters().dropped_events.queue_full > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_s22_many_clients_join_at_once_and_all_get_an_event() {
    const CLIENTS: usize = 400;
    let running = Arc::new(start(Limits::default()).await);
    let joining: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let running = Arc::clone(&running);
            tokio::spawn(async move {
                let mut peer = running.joined().await;
                assert_eq!(peer.ask(json!([32, 1, {}, "re.news"])).await[0], 33);
                peer
            })
        })
        .collect();
    let mut peers = Vec::new();
    for peer in joining {
        peers.push(soon("everybody", peer).await.unwrap());
    }
    assert_eq!(running.router.counters().subscriptions, 1);
    let mut publisher = running.joined().await;
    let published = publisher
        .ask(json!([16, 1, {"acknowledge": true}, "re.news", ["extra, extra"]]))
        .await;
    for peer in &mut peers {
        let event = peer.next().await;
        assert_eq!((&event[0], &event[2]), (&json!(36), &published[2]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_pings_keeps_the_router_from_nothing() {
    let limits = Limits {
        goodbye_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let running = start(limits).await;
    let admin = running.client().await;
    for raw in [true, false] {
        for pong in [false, true] {
            let (peer, id) = match raw {
                true => running.joined_raw_as(Codec::Json, None).await,
                false => running.joined_as(Codec::Json, None).await,
            };
            let (stream, frame) = match peer.socket {
                Carrier::Raw(framed, _) => (framed.into_inner(), vec![1 + u8::from(pong), 0, 0, 0]),
                Carrier::WebSocket(socket) => {
                    let opcode = 0x89 + u8::from(pong);
                    (socket.into_inner(), vec![opcode, 0x80, 0, 0, 0, 0])
                }
            };
            let mut stream = stream.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            // In a thread of its own, so that there is always more to read.
            let mut flood = stream.try_clone().unwrap();
            let (ended, end) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                let frames = frame.repeat(16 << 10);
                while std::io::Write::write_all(&mut flood, &frames).is_ok() {}
                ended.send(()).unwrap();
            });
            std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
            let id = Payload::from_args(vec![id.into()]);
            let kill = admin.call("wamp.session.kill", id, CallOptions::timeout(SOON));
            kill.await.unwrap();
            soon("the end of the flood", end).await.unwrap();
            running.holds(1).await;
        }
    }
}
