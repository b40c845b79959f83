//! The events of one subscription on their way to whoever reads them: bounded in number and bytes, and whoever is too
//! slow learns in its place how many are missing.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use tokio::sync::mpsc::error::TryRecvError;

use crate::Id;
use crate::payload::Payload;
use crate::value::Dict;

/// Events queued per subscription before dropping starts.
pub const EVENT_QUEUE: usize = 1024;

/// Bytes of arguments in these events before dropping starts: 16 MiB. A single event may have more.
pub const EVENT_QUEUE_BYTES: usize = 16 << 20;

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// 0 of one that only says what was missed: see [`Event::is_notice`].
    pub publication: Id,
    pub details: Dict,
    pub payload: Payload,
    /// Events of this subscription dropped before this one, because the receiver was slow or, if the router says so, the
    /// connection.
    pub missed: u64,
}

impl Event {
    /// Nothing was published: events were dropped and none has come since.
    fn notice(missed: u64) -> Event {
        Event {
            publication: 0,
            details: Dict::new(),
            payload: Payload::Empty,
            missed,
        }
    }

    /// Whether nothing was published, and only [`Event::missed`] counts.
    pub fn is_notice(&self) -> bool {
        self.publication == 0 && self.missed > 0
    }
}

/// The receiving end of a subscription.
#[derive(Debug)]
pub struct Events {
    queue: Arc<Mutex<Queue>>,
}

/// The other one. Dropped, it ends the events after those that are queued.
#[derive(Debug)]
pub(super) struct Subscriber {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    bytes: usize,
    /// Dropped since the last event that was queued.
    missed: u64,
    /// No more events come.
    ended: bool,
    waker: Option<Waker>,
}

pub(super) fn channel() -> (Subscriber, Events) {
    let queue = Arc::<Mutex<Queue>>::default();
    let subscriber = Subscriber {
        queue: Arc::clone(&queue),
    };
    (subscriber, Events { queue })
}

impl Events {
    /// The next event; `None` when the subscription has ended. When events were dropped and no other one has come
    /// since, an event that says only that ([`Event::is_notice`]). Cancel safe.
    pub async fn recv(&mut self) -> Option<Event> {
        poll_fn(|context| {
            let mut queue = lock(&self.queue);
            match queue.next() {
                Some(event) => Poll::Ready(Some(event)),
                None if queue.ended => Poll::Ready(None),
                None => {
                    queue.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next event, if there is one.
    pub fn try_recv(&mut self) -> Result<Event, TryRecvError> {
        let mut queue = lock(&self.queue);
        match queue.next() {
            Some(event) => Ok(event),
            None if queue.ended => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // The other end may stay for as long as the session.
        let mut queue = lock(&self.queue);
        queue.events = VecDeque::new();
        queue.bytes = 0;
    }
}

impl Subscriber {
    /// Whether nobody reads the events any more.
    pub(super) fn is_gone(&self) -> bool {
        Arc::strong_count(&self.queue) == 1
    }

    /// Queues an event, or counts it as missed.
    pub(super) fn deliver(&self, event: Event) {
        if self.is_gone() {
            return;
        }
        let mut queue = lock(&self.queue);
        queue.push(event);
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let mut queue = lock(&self.queue);
        queue.ended = true;
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Queue {
    fn push(&mut self, mut event: Event) {
        let weight = event.payload.encoded_len();
        let notice = event.is_notice();
        self.missed = self.missed.saturating_add(event.missed);
        if notice {
            return;
        }
        let full = self.events.len() >= EVENT_QUEUE || self.bytes + weight > EVENT_QUEUE_BYTES;
        if full && !self.events.is_empty() {
            self.missed = self.missed.saturating_add(1);
            return;
        }
        event.missed = std::mem::take(&mut self.missed);
        self.bytes += weight;
        self.events.push_back(event);
    }

    fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= event.payload.encoded_len();
            if self.events.is_empty() {
                // A burst must not occupy memory for as long as the subscription lives.
                self.events.shrink_to(16);
            }
            return Some(event);
        }
        match std::mem::take(&mut self.missed) {
            0 => None,
            missed => Some(Event::notice(missed)),
        }
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    // Nothing that runs under the lock leaves the queue half-changed.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Codec;

    fn event(publication: Id, bytes: usize) -> Event {
        Event {
            publication,
            details: Dict::new(),
            payload: Payload::Raw {
                codec: Codec::Json,
                args: vec![b' '; bytes].into(),
                kwargs: bytes::Bytes::new(),
            },
            missed: 0,
        }
    }

    fn all(events: &mut Events) -> Vec<(Id, u64)> {
        std::iter::from_fn(|| events.try_recv().ok())
            .map(|event| (event.publication, event.missed))
            .collect()
    }

    #[test]
    fn large_events_are_bounded_by_their_bytes_and_those_that_do_not_fit_are_counted() {
        let (subscriber, mut events) = channel();
        let quarter = EVENT_QUEUE_BYTES / 4;
        for publication in 1..=7 {
            subscriber.deliver(event(publication, quarter));
        }
        assert_eq!(events.try_recv().unwrap().publication, 1);
        subscriber.deliver(event(8, quarter));
        assert_eq!(all(&mut events), [(2, 0), (3, 0), (4, 0), (8, 3)]);
        subscriber.deliver(event(9, 2 * EVENT_QUEUE_BYTES));
        subscriber.deliver(event(10, 1));
        assert_eq!(all(&mut events), [(9, 0), (0, 1)], "alone it passes");
        subscriber.deliver(event(11, EVENT_QUEUE_BYTES));
        assert_eq!(all(&mut events), [(11, 0)], "all the room is free again");
    }

    #[test]
    fn what_the_router_dropped_counts_as_well_in_its_place() {
        let (subscriber, mut events) = channel();
        let told = |publication, missed| Event {
            missed,
            ..event(publication, 1)
        };
        subscriber.deliver(told(1, 0));
        subscriber.deliver(told(2, 5));
        subscriber.deliver(told(0, 3));
        subscriber.deliver(told(0, 4));
        subscriber.deliver(told(3, 0));
        subscriber.deliver(told(0, 2));
        assert_eq!(all(&mut events), [(1, 0), (2, 5), (3, 7), (0, 2)]);
    }

    #[tokio::test]
    async fn who_waits_is_told_of_dropped_events_and_of_the_end() {
        let (subscriber, mut events) = channel();
        let reading = tokio::spawn(async move {
            let mut read = Vec::new();
            while let Some(event) = events.recv().await {
                read.push((event.is_notice(), event.missed));
            }
            read
        });
        tokio::task::yield_now().await;
        subscriber.deliver(Event::notice(6));
        tokio::task::yield_now().await;
        drop(subscriber);
        assert_eq!(reading.await.unwrap(), [(true, 6)]);
    }
}
