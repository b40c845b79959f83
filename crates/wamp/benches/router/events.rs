//! Events: one publisher, so many subscribers.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;
use wamp::Codec;
use wamp::message::code;

use crate::frame;
use crate::load::{Load, Meter};
use crate::peer::{PATIENCE, Peer};
use crate::target::Target;

const TOPIC: &str = "bench.topic";

/// How events are published.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) codec: Codec,
    pub(crate) subscribers: usize,
    /// Publications that may be on their way at a time.
    pub(crate) in_flight: u64,
    pub(crate) duration: Duration,
}

/// A publisher and its subscribers, ready.
pub(crate) struct FanOut {
    publisher: Peer,
    arrivals: Rc<Arrivals>,
    subscribers: u64,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Arrivals {
    count: Cell<u64>,
    changed: Notify,
}

/// Publishes for a while, after a fifth of that time to warm up, then waits for the last event. Operations are events
/// delivered.
pub(crate) async fn fan_out(target: &Target, plan: Plan) -> Load {
    let measured = async {
        let mut fan_out = FanOut::new(target, plan.codec, plan.subscribers).await;
        fan_out.publish(plan.in_flight, plan.duration / 5).await;
        let meter = Meter::start(target);
        let (delivered, lost) = fan_out.publish(plan.in_flight, plan.duration).await;
        meter.stop(delivered, 0, lost)
    };
    LocalSet::new().run_until(measured).await
}

impl FanOut {
    pub(crate) async fn new(target: &Target, codec: Codec, subscribers: usize) -> FanOut {
        let arrivals = Rc::new(Arrivals::default());
        let mut tasks = JoinSet::new();
        for _ in 0..subscribers {
            let mut subscriber = Peer::join(target.address, codec).await;
            subscriber.subscribe(TOPIC).await;
            tasks.spawn_local(listen(subscriber, Rc::clone(&arrivals)));
        }
        FanOut {
            publisher: Peer::join(target.address, codec).await,
            arrivals,
            subscribers: subscribers as u64,
            _tasks: tasks,
        }
    }

    /// Returns how many events have arrived and how many have not.
    pub(crate) async fn publish(&mut self, in_flight: u64, duration: Duration) -> (u64, u64) {
        let until = Instant::now() + duration;
        let arrivals = Rc::clone(&self.arrivals);
        let before = arrivals.count.get();
        let delivered = || arrivals.count.get() - before;
        let mut published = 0;
        loop {
            let changed = arrivals.changed.notified();
            if Instant::now() < until {
                while published < delivered() / self.subscribers + in_flight {
                    let request = self.publisher.next_request();
                    let message = frame::publish(self.publisher.codec, request, TOPIC);
                    self.publisher.put(&message);
                    published += 1;
                }
                self.publisher.flush().await;
            } else if delivered() == published * self.subscribers {
                return (delivered(), 0);
            }
            if timeout(PATIENCE, changed).await.is_err() {
                return (delivered(), published * self.subscribers - delivered());
            }
        }
    }
}

async fn listen(mut subscriber: Peer, arrivals: Rc<Arrivals>) {
    loop {
        subscriber.receive().await;
        let mut events = 0;
        while let Some((kind, _)) = subscriber.next_head() {
            events += u64::from(kind == code::EVENT);
        }
        arrivals.count.set(arrivals.count.get() + events);
        arrivals.changed.notify_one();
        subscriber.flush().await;
    }
}

/// Microseconds from publication to arrival of events of `bytes` each, one at a time.
pub(crate) async fn one_at_a_time(
    publisher: &mut Peer,
    subscriber: &mut Peer,
    events: usize,
    bytes: usize,
) -> Vec<f64> {
    let mut times = Vec::with_capacity(events);
    for _ in 0..events {
        let begin = Instant::now();
        let request = publisher.next_request();
        publisher.put(&frame::publish_bulk(publisher.codec, request, TOPIC, bytes));
        publisher.flush().await;
        while subscriber.next_head().is_none_or(|(kind, _)| kind != code::EVENT) {
            subscriber.receive().await;
        }
        times.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    times
}

/// A stalled subscriber beside one that reads.
pub(crate) struct Stalled {
    /// What the router grew by at most, bytes.
    pub(crate) grown: u64,
    /// Latency of the one that reads, without and with the other, microseconds.
    pub(crate) before: Vec<f64>,
    pub(crate) beside: Vec<f64>,
}

/// Publishes `events` of `bytes` each without and then with a subscriber that never reads.
pub(crate) async fn stalled(target: &Target, codec: Codec, events: usize, bytes: usize) -> Stalled {
    let mut reader = Peer::join(target.address, codec).await;
    reader.subscribe(TOPIC).await;
    let mut publisher = Peer::join(target.address, codec).await;
    one_at_a_time(&mut publisher, &mut reader, events / 10, bytes).await;
    let before = one_at_a_time(&mut publisher, &mut reader, events, bytes).await;
    let resident = target.resident();
    let mut other = Peer::join(target.address, codec).await;
    other.subscribe(TOPIC).await;
    let _stalled = other.into_stream();
    let mut beside = Vec::new();
    let mut most = resident;
    for _ in 0..10 {
        beside.extend(one_at_a_time(&mut publisher, &mut reader, events / 10, bytes).await);
        most = most.max(target.resident());
    }
    Stalled {
        grown: most - resident,
        before,
        beside,
    }
}
